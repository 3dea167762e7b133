"""The scorecard as one page that needs nothing beside it: tables, plots, a map, and pictures of the best and worst."""

from __future__ import annotations

import base64
import html
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from classifiers import ClassificationError, figures
from classifiers.labels import Array
from classifiers.pooling import PooledTarget, mean_over_seeds, pool_queries, pool_target
from classifiers.tables import METHOD_TITLES, OF_POSITIVE, breakdown_score, context_rows
from classifiers.webpage import html_document, html_table, svg_image
from embedder.findings import patient_key
from embedder.montage import Panel, caption_lines, draw_montage
from embedder.preparation import PreparationConfig
from embedder.rois import read_rois
from index.durable import storage_error, write_whole

if TYPE_CHECKING:
    from classifiers.benchmark import BenchmarkRun, ExampleFold
    from classifiers.scorecard import Scores, TargetScores

_PICTURED = 4  # queries at each end
_NEIGHBOURS = 5
_JUDGED = "precision@10"


def write_page(run: BenchmarkRun, example: ExampleFold, path: Path, *, workers: int | None = None) -> None:
    """Write a run's page: one HTML file, which names women and shows their images.

    Args:
        run: The run.
        example: The vectors of its first fold, for the map and the pictures.
        path: The file.
        workers: Threads that read images.

    Raises:
        ClassificationError: It can't be written.
    """
    queries = pool_queries(run.folds)
    labels = list(run.scorecard.targets)
    parts = [_head(run, labels)]
    for name in labels:
        target = pool_target(run.folds, name)
        parts.append(_target(run, name, target, queries))
        parts.append(_map(example, name))
    parts.append(_pictures(run, example, labels[0], workers))
    page = html_document(str(run.protocol["name"]), "".join(parts))
    try:
        write_whole(Path(path), page.encode())
    except OSError as error:
        reason = storage_error(Path(path), error)
        raise ClassificationError(path, reason.cause, reason.remedy) from error


def _head(run: BenchmarkRun, labels: Sequence[str]) -> str:
    links = "".join(f'<a href="#{html.escape(name)}">{html.escape(name)}</a>' for name in labels)
    context = run.scorecard.context
    rows = [*context_rows(context), ["took", f"{context['seconds']} s on this machine, all folds and seeds together"]]
    changed = [f"{key} = {value}" for key, value in _flat(run.protocol["recipe"])]
    return (
        f"<h1>{html.escape(str(run.protocol['name']))}</h1>"
        '<p class="warning"><strong>Not a medical device.</strong> Research software: figures of a benchmark, not of '
        "clinical use. This page shows images and names women by their ids: patient data.</p>"
        f"<nav>{links}<a href='#pictures'>best and worst</a></nav>"
        f"{html_table(None, rows)}"
        f"<details><summary>Recipe: {len(changed)} options</summary>"
        f"<pre>{html.escape(chr(10).join(changed))}</pre></details>"
    )


def _target(run: BenchmarkRun, name: str, target: PooledTarget, queries: pd.DataFrame) -> str:
    found: TargetScores = run.scorecard.targets[name]
    mix = ", ".join(f"{term} {counts['findings']}" for term, counts in found.classes.items())
    parts = [
        f'<h2 id="{html.escape(name)}">{html.escape(name)}</h2>'
        f"<p>{found.scores.findings} labelled rows of {found.scores.women} women: {html.escape(mix)}.</p>",
        _score_table(run, name, found),
        '<div class="plots">',
    ]
    rows = np.flatnonzero(target.known)
    women = queries["woman"].to_numpy(dtype=object)
    truth = target.labels[rows]
    given = {method: values[rows] for method, values in target.probabilities.items()}
    interval = run.scorecard.context["interval"]
    curve = mean_over_seeds(pd.DataFrame(target.curve), queries)
    once = queries.drop_duplicates("row_id")["woman"].to_numpy(dtype=object)
    plots = [
        (
            figures.precision_recall(curve.to_numpy(), once, interval["resamples"], interval["seed"]),
            "precision over recall",
        )
    ]
    if given:
        plots.append((figures.roc(truth, given, target.classes, target.positive), "ROC curves"))
        bins = {
            method: figures.reliability_table(truth, values, target.classes, women[rows], target.positive)
            for method, values in given.items()
        }
        plots.append((figures.reliability_diagram(bins, target.positive), "reliability diagram"))
        seeds = len(run.by_seed)
        for method, values in given.items():
            plots.append((figures.confusion(truth, values, target.classes, seeds, method), "confusion matrix"))
    parts += [svg_image(svg, f"{name}: {what}") for svg, what in plots]
    parts.append("</div>")
    for column, groups in found.breakdown.items():
        parts.append(_breakdown(name, column, groups, found.positive))
    notes = [*found.notes, *(f"{METHOD_TITLES[method]}: {texts[0]}" for method, texts in found.calibration.items())]
    parts += [f'<p class="note">{html.escape(note)}</p>' for note in notes]
    return "".join(parts)


def _score_table(run: BenchmarkRun, name: str, found: TargetScores) -> str:
    seeds = list(run.by_seed) if len(run.by_seed) > 1 else []
    head = ["", "score", f"{run.scorecard.context['interval']['level']:.0%} interval over women"]
    head += [f"seed {seed}" for seed in seeds]
    rows = []
    for part, title in (("retrieval", "retrieval"), *METHOD_TITLES.items()):
        for score, estimate in getattr(found.scores, part).items():
            shown = f"{score} ({found.positive})" if found.positive and score in OF_POSITIVE else score
            lower = ", lower is better" if score in ("brier", "calibration_error") else ""
            single = [
                f"{getattr(run.by_seed[seed].targets[name].scores, part)[score].value:.3f}"
                if score in getattr(run.by_seed[seed].targets[name].scores, part)
                else "-"
                for seed in seeds
            ]
            figure = f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"
            rows.append([title, f"{shown}{lower}", figure, *single])
    return html_table(head, rows)


def _breakdown(name: str, column: str, groups: Mapping[str, Scores], positive: str | None) -> str:
    score = breakdown_score(name, column, positive)
    title = "sensitivity" if column == name else score
    head = [f"by {column}", "rows", "women", "precision@10", "map@r"]
    head += [f"{method} {title}" for method in METHOD_TITLES.values()]
    rows = []
    for value, found in groups.items():
        cells = [str(found.retrieval[each]) for each in ("precision@10", "map@r")]
        for method in METHOD_TITLES:
            made = getattr(found, method)
            cells.append(str(made[score]) if made else "-")
        rows.append([value, str(found.findings), str(found.women), *cells])
    return html_table(head, rows)


def _map(example: ExampleFold, name: str) -> str:
    asked = np.zeros(len(example.frame), np.bool_)
    asked[example.fold.test] = True
    labels = _terms(example.frame[name])
    drawn = figures.embedding_map(example.vectors[name], asked, labels, name)
    if drawn is None:
        return ""
    return (
        f"{svg_image(drawn, f'map of the embedding by {name}')}"
        '<p class="note">t-SNE of the first fold of the first seed: the women of its gallery, whom a trained model has '
        "learned from, and the women who were asked. Distances far apart mean nothing in such a map.</p>"
    )


def _pictures(run: BenchmarkRun, example: ExampleFold, name: str, workers: int | None) -> str:
    """Show the queries of the first fold whose neighbours agree with them most, and least."""
    fold, frame = example.fold, example.frame
    labels = _terms(frame[name])
    first = run.folds[0]
    scores = dict(zip(first.queries["row_id"], first.targets[name].retrieval[_JUDGED], strict=True))
    asked = [row for row in fold.test if not np.isnan(scores.get(frame["row_id"].iloc[row], np.nan))]
    ranked = sorted(asked, key=lambda row: (-scores[frame["row_id"].iloc[row]], str(frame["row_id"].iloc[row])))
    ends = {
        "Best": ranked[:_PICTURED],
        "Worst": [row for row in ranked[::-1] if row not in ranked[:_PICTURED]][:_PICTURED],
    }
    parts = [
        f'<h2 id="pictures">Best and worst queries: {html.escape(name)}</h2>'
        f"<p>By {_JUDGED} in the first fold of the first seed; each with its nearest labelled findings of other women."
        "</p>"
    ]
    preparation = PreparationConfig.from_dict(run.protocol["recipe"]["preparation"])
    for title, rows in ends.items():
        parts.append(f"<h3>{title}</h3>")
        for row in rows:
            near = _nearest(example, example.vectors[name], labels, int(row))
            figure = scores[frame["row_id"].iloc[row]]
            heading = f"{title}: {name} {labels[row]}, {_JUDGED} {figure:.1f}.  Not for diagnosis."
            parts.append(_montage(example, labels, int(row), near, preparation, heading, workers))
    return "".join(parts)


def _nearest(
    example: ExampleFold, vectors: npt.NDArray[np.float32], labels: Array, row: int
) -> list[tuple[int, float]]:
    keys = patient_key(example.frame).to_numpy(dtype=object)
    gallery = np.array([each for each in example.fold.train if labels[each] is not None and keys[each] != keys[row]])
    similarities = np.round(vectors[gallery].astype(np.float64) @ vectors[row].astype(np.float64), 9)
    order = np.argsort(-similarities, kind="stable")[:_NEIGHBOURS]
    return [(int(gallery[place]), float(similarities[place])) for place in order]


def _montage(
    example: ExampleFold,
    labels: Array,
    row: int,
    near: Sequence[tuple[int, float]],
    preparation: PreparationConfig,
    heading: str,
    workers: int | None,
) -> str:
    rows = [row, *(each for each, _ in near)]
    frame = example.frame.iloc[rows].reset_index(drop=True)
    crops = {read.position: read.crop for read in read_rois(frame, preparation, workers=workers)}
    records = [_record(frame.iloc[place]) for place in range(len(frame))]
    panels = [
        Panel(crops.get(place), title, caption_lines(record), record.get("pathology"))
        for place, (record, title) in enumerate(
            zip(records, ["query", *(f"{labels[each]}, {similarity:.3f}" for each, similarity in near)], strict=True)
        )
    ]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "montage.png"
        draw_montage(panels[0], panels[1:], place, heading=heading)
        data = base64.b64encode(place.read_bytes()).decode()
    return f'<img class="wide" alt="{html.escape(heading)}" src="data:image/png;base64,{data}">'


def _record(row: pd.Series) -> dict[str, Any]:
    return {str(name): None if pd.isna(cell) else cell for name, cell in row.items()}


def _terms(column: pd.Series) -> Array:
    cells = column.to_numpy(dtype=object)
    return np.array([None if pd.isna(cell) else str(cell) for cell in cells], dtype=object)


def _flat(options: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in options.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{prefix}{name}.")
        else:
            found.append((f"{prefix}{name}", value))
    return found
