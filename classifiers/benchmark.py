"""Run a protocol: leaks first, then every seed's folds, then the scorecard and its page; and compare two runs."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from classifiers import ClassificationError
from classifiers.comparison import Comparison, compare_folds
from classifiers.crossvalidation import (
    cross_validate,
    embed_rows,
    fold_model,
    fused,
    rows_of,
    split_folds,
    told_protocol,
)
from classifiers.folds import Fold
from classifiers.leaks import check_images, check_women
from classifiers.page import write_page
from classifiers.predictions import FoldPredictions, load_predictions, read_json, save_predictions, write_json
from classifiers.protocol import Protocol
from classifiers.scorecard import Scorecard, make_scorecard
from classifiers.targets import choose_targets
from embedder.duplicates import find_duplicates
from embedder.embedding import Embedder
from index.durable import storage_error

PROTOCOL_FILE = "protocol.json"
SCORECARD_FILE = "scorecard.json"
PREDICTIONS_FILE = "predictions.json"
PAGE_FILE = "index.html"
FOLDS_FOLDER = "folds"

Progress = Callable[..., None]


@dataclass(frozen=True, eq=False)
class BenchmarkRun:
    """A protocol's outcome.

    Attributes:
        protocol: Its options as plain values.
        folds: Every fold's predictions, seed by seed.
        scorecard: Figures over all seeds.
        by_seed: Those of each seed.
    """

    protocol: dict[str, Any]
    folds: list[FoldPredictions]
    scorecard: Scorecard
    by_seed: dict[int, Scorecard]


@dataclass(frozen=True, eq=False)
class ExampleFold:
    """The vectors of one fold, to look at.

    Attributes:
        frame: (n rows) of the manifest.
        fold: Which of them are the gallery, and which are asked.
        vectors: By label, float32 (n, d) by the fold's model, as they are asked for it.
    """

    frame: pd.DataFrame
    fold: Fold
    vectors: dict[str, npt.NDArray[np.float32]]


def run_benchmark(
    protocol: Protocol,
    frame: pd.DataFrame,
    output: Path,
    *,
    device: str = "auto",
    workers: int | None = None,
    progress: Progress | None = None,
) -> BenchmarkRun:
    """Run a protocol and write its scorecard, its predictions and its page.

    A run that was stopped goes on from its last finished fold, and within a fold from its last whole epoch, when it is
    called again with the same protocol, rows and folder.

    Args:
        protocol: What to measure.
        frame: The manifest with absolute paths, see `Protocol.read_rows`.
        output: The run's folder. What lies there names women and outcomes: patient data.
        device: Where to compute.
        workers: Threads that read images.
        progress: Called with items done, items in all and what is under way.

    Raises:
        ClassificationError: A woman or an image is on both sides of a fold, a label or the folds' column is not there
            or can't be scored, or the folder holds the run of another protocol.
        MammoseekError: Nothing can be learned, or the folder can't be written.
    """
    output = Path(output)
    rows = rows_of(frame, protocol.granularity)
    targets = choose_targets(rows, protocol.labels, protocol.granularity)
    _claim(output, protocol)

    def images_read(done: int, total: int) -> None:
        if progress is not None:
            progress(done, total, "Looking for images under two names")

    pairs = find_duplicates(rows, workers=workers, progress=images_read)
    for seed in protocol.seeds:
        splits = split_folds(rows, targets, protocol.folds, seed, protocol.fold_column)
        check_women(rows, splits)
        check_images(rows, splits, pairs)
    runs = {
        seed: cross_validate(
            rows,
            protocol.recipe,
            folds=protocol.folds,
            fold_column=protocol.fold_column,
            frozen=protocol.model == "pretrained",
            work=output / FOLDS_FOLDER / f"seed-{seed}",
            targets=targets,
            views=protocol.views,
            duplicates=pairs,
            calibration=protocol.calibration,
            resamples=protocol.resamples,
            seed=seed,
            device=device,
            workers=workers,
            progress=_titled(progress, f"Seed {seed}: "),
        )
        for seed in protocol.seeds
    }
    folds = [fold for run in runs.values() for fold in run.folds]
    first = runs[protocol.seeds[0]].scorecard.context
    digests = [digest for run in runs.values() for digest in run.scorecard.context["model_digests"]]
    context = {
        **{name: first[name] for name in ("rows", "women", "manifest_digest", "failed_rows", "preparation_digest")},
        "name": protocol.name,
        "protocol": told_protocol(
            len(folds) // len(runs),
            protocol.seeds,
            protocol.views,
            protocol.calibration,
            frozen=protocol.model == "pretrained",
            fold_column=protocol.fold_column,
        ),
        "model_digests": digests,
        "recipe": protocol.recipe.to_dict(),
        "calibration": protocol.calibration,
        "duplicates": len(pairs),
        "seconds": round(sum(run.seconds for run in runs.values())),
    }
    scorecard = make_scorecard(folds, context, resamples=protocol.resamples, seed=protocol.seeds[0])
    outcome = BenchmarkRun(protocol.to_dict(), folds, scorecard, {seed: run.scorecard for seed, run in runs.items()})
    scorecard.save(output / SCORECARD_FILE)
    save_predictions(output / PREDICTIONS_FILE, folds)
    example = example_fold(protocol, rows, targets, output, device=device, workers=workers, progress=progress)
    write_page(outcome, example, output / PAGE_FILE, workers=workers)
    return outcome


def example_fold(
    protocol: Protocol,
    rows: pd.DataFrame,
    targets: tuple[str, ...],
    output: Path,
    *,
    device: str = "auto",
    workers: int | None = None,
    progress: Progress | None = None,
) -> ExampleFold:
    """Return the vectors of a finished run's first fold: its map and its pictures stand for those of the others.

    Args:
        protocol: The run's protocol.
        rows: The manifest's rows of the protocol's granularity.
        targets: The label columns that were scored.
        output: The run's folder.
        device: Where to compute.
        workers: Threads that read images.
        progress: As of `run_benchmark`.
    """
    seed = protocol.seeds[0]
    frozen = protocol.model == "pretrained"
    place = fold_model(output / FOLDS_FOLDER / f"seed-{seed}", protocol.recipe, 0, protocol.folds, frozen=frozen)
    vectors, frame, _ = embed_rows(
        Embedder.load(place, device=device), rows, workers, _titled(progress, "For the page: ")
    )
    fold = split_folds(frame, targets, protocol.folds, seed, protocol.fold_column)[0]
    return ExampleFold(frame, fold, {name: fused(vectors, frame, protocol.views.get(name)) for name in targets})


def compare_benchmarks(
    first: Path, second: Path, *, names: tuple[str, str] | None = None, resamples: int = 2000, seed: int = 0
) -> Comparison:
    """Compare two runs of the same folds by a paired bootstrap over women.

    Args:
        first: Folder of run A.
        second: Folder of run B.
        names: What they are called; None takes the protocols' names.
        resamples: Resamples of the women.
        seed: Of the resampling.

    Raises:
        ClassificationError: A folder holds no finished run, or the runs differ in rows, folds or seeds.
    """
    folders = (Path(first), Path(second))
    contexts = [Scorecard.load(folder / SCORECARD_FILE).context for folder in folders]
    folds = [load_predictions(folder / PREDICTIONS_FILE) for folder in folders]
    if names is None:
        stated = [str(context.get("name") or folder.name) for context, folder in zip(contexts, folders, strict=True)]
        names = (stated[0], stated[1]) if stated[0] != stated[1] else (str(first), str(second))
    if contexts[0]["manifest_digest"] != contexts[1]["manifest_digest"]:
        raise ClassificationError("comparison", "the runs are of different manifests", "run both on the same one")
    digests = [digest for context in contexts for digest in context["model_digests"]]
    context = {
        "protocol": str(contexts[0]["protocol"]).split(";")[0],
        "manifest_digest": contexts[0]["manifest_digest"],
        "model_digests": digests,
    }
    calibrated = {str(each.get("calibration", "gallery")) for each in contexts}
    if len(calibrated) == 1:
        context["calibration"] = calibrated.pop()
    return compare_folds(folds[0], folds[1], context, a=names[0], b=names[1], resamples=resamples, seed=seed)


def _claim(output: Path, protocol: Protocol) -> None:
    """Make the run's folder its own, or refuse one that another protocol has."""
    place, options = output / PROTOCOL_FILE, protocol.to_dict()
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = storage_error(output, error)
        raise ClassificationError(output, reason.cause, reason.remedy) from error
    if not place.exists():
        if any(output.iterdir()):
            raise ClassificationError(output, "is no run of a benchmark and not empty", "name a new folder")
        write_json(place, options)
    elif read_json(place) != options:
        raise ClassificationError(output, "holds the run of another protocol", "name another folder, or delete it")


def _titled(progress: Progress | None, title: str) -> Progress | None:
    if progress is None:
        return None
    return lambda done, total, what="": progress(done, total, f"{title}{what}")
