"""Scorecards and comparisons as plain text tables."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from classifiers.scorecard import TargetScores
    from index.metrics import Estimate

METHOD_TITLES = {"knn": "kNN vote", "head": "linear head"}

OF_POSITIVE = ("auc", "auc_within_folds", "f1")
"""Scores of the class to detect, where there is one."""

_DIGEST_LETTERS = 12  # enough to tell models and manifests apart


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows of cells as lines whose columns stand under each other.

    >>> table([["score", "value"], ["map@r", "0.09"]])
    ['  score  value', '  map@r  0.09']
    """
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        ("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))).rstrip() for row in rows
    ]


def context_lines(title: str, context: Mapping[str, Any]) -> list[str]:
    """Return the context of a scorecard or a comparison as the lines that stand above its figures."""
    return [title, *table(context_rows(context))]


def context_rows(context: Mapping[str, Any]) -> list[list[str]]:
    """Return the context of a scorecard or a comparison as rows of two cells."""
    interval, folds = context["interval"], context["folds"]
    sizes = sorted({fold["gallery_women"] for fold in folds})
    gallery = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    tested = f"{context['test_rows']} rows ({context['granularity']}) of {context['test_women']} women"
    seeds = len({fold["seed"] for fold in folds})
    repeated = f" ({seeds} seeds, the mean of which is given)" if seeds > 1 else ""
    split = f"{len(folds)} fold{'' if len(folds) == 1 else 's'}{repeated}, each against {gallery} other women"
    fitted = "heads and calibrations, on the women of the gallery alone"
    if context.get("calibration") == "folds":
        fitted = "heads, on the women of the gallery alone; calibrations, on the test women of the other folds"
    resampling = f"{interval['method']}, {interval['resamples']} resamples, seed {interval['seed']}"
    rows = [
        ["protocol", str(context["protocol"])],
        ["tested", f"{tested} in {split}"],
        ["data", f"{', '.join(context['datasets'])}; manifest {_short(context['manifest_digest'])}"],
        ["models", ", ".join(_short(digest) for digest in _listed(context["model_digests"]))],
        ["intervals", f"{interval['level']:.0%}, {resampling}"],
        ["fitted", fitted],
    ]
    if len(folds) > 1:
        rows.append(["auc", "of probabilities pooled over folds: pessimistic; auc_within_folds compares within each"])
    return rows


def scorecard_text(targets: Mapping[str, TargetScores]) -> list[str]:
    """Return the lines of a scorecard below its context."""
    lines = []
    for name, target in targets.items():
        mix = ", ".join(
            f"{term} {counts['findings']} of {counts['women']} women" for term, counts in target.classes.items()
        )
        lines += [
            "",
            f"{name}: {target.scores.findings} labelled rows of {target.scores.women} women ({mix})",
        ]
        rows = [["retrieval", "of other women"]]
        asked = target.scores.findings
        rows += [[score, _figure(estimate, asked)] for score, estimate in target.scores.retrieval.items()]
        lines += table(rows)
        parts = {method: getattr(target.scores, method) for method in METHOD_TITLES}
        made = {method: scores for method, scores in parts.items() if scores}
        if made:
            rows = [["classification", *(METHOD_TITLES[method] for method in made)]]
            for score in next(iter(made.values())):
                title = f"{score} ({target.positive})" if target.positive and score in OF_POSITIVE else score
                rows.append([title, *(_figure(scores[score], asked) for scores in made.values())])
            lines += table(rows)
        for column, groups in target.breakdown.items():
            lines += _breakdown(column, groups, breakdown_score(name, column, target.positive))
        lines += [f"  {METHOD_TITLES[method]}: {text}" for method, text in _bases(target.calibration)]
        lines += [f"  note: {note}" for note in target.notes]
    return lines


def breakdown_score(label: str, column: str, positive: str | None) -> str:
    """Return the score of classification that a breakdown shows: within one class there is no AUC."""
    return "auc" if positive and column != label else "accuracy"


def _figure(estimate: Estimate, asked: int) -> str:
    """Return a figure, and how many rows it is of where that is not all that were asked."""
    return str(estimate) if estimate.items == asked else f"{estimate} of {estimate.items} rows"


def comparison_text(differences: Mapping[str, Mapping[str, Mapping[str, Estimate]]], a: str, b: str) -> list[str]:
    """Return the lines of a comparison below its context.

    Args:
        differences: By label, by part (retrieval or a method), by score: A - B.
        a: Name of run A.
        b: Name of run B.
    """
    lines = []
    for name, parts in differences.items():
        lines += ["", f"{name}: {a} minus {b}"]
        rows = [["part", "score", "difference", "rows", "women", "ahead"]]
        for part, scores in parts.items():
            for score, estimate in scores.items():
                lower_is_better = score in ("brier", "calibration_error")
                ahead = ""
                if estimate.low > 0 or estimate.high < 0:
                    ahead = a if (estimate.low > 0) != lower_is_better else b
                title = METHOD_TITLES.get(part, part)
                rows.append([title, score, signed(estimate), str(estimate.items), str(estimate.women), ahead])
        lines += table(rows)
    return lines


def signed(estimate: Estimate) -> str:
    """Return a difference with its sign and three decimals.

    >>> from index.metrics import Estimate
    >>> signed(Estimate(0.0312, -0.004, 0.066, 0.95, 119, 104, 2000))
    '+0.031 [-0.004, +0.066]'
    """
    if estimate.value != estimate.value:
        return "undefined"
    if estimate.low != estimate.low:
        return f"{estimate.value:+.3f} [no interval]"
    return f"{estimate.value:+.3f} [{estimate.low:+.3f}, {estimate.high:+.3f}]"


def _breakdown(column: str, groups: Mapping[str, Any], score: str) -> list[str]:
    retrieval = ("precision@10", "map@r")
    rows = [[f"by {column}", "rows", "women", *retrieval, *(f"{t} {score}" for t in METHOD_TITLES.values())]]
    for value, scores in groups.items():
        cells = [_figure(scores.retrieval[name], scores.findings) for name in retrieval]
        for method in METHOD_TITLES:
            found = getattr(scores, method)
            cells.append(_figure(found[score], scores.findings) if found else "-")
        rows.append([value, str(scores.findings), str(scores.women), *cells])
    return table(rows)


def _bases(calibration: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    """Return what each method's calibrations rest on; those that differ in their numbers only as one."""
    lines = []
    for method, bases in calibration.items():
        alike: dict[str, list[str]] = {}
        for text in bases:
            alike.setdefault(re.sub(r"\d+", "", text), []).append(text)
        for texts in alike.values():
            more = f" (and alike in {len(texts) - 1} more)" if len(texts) > 1 else ""
            lines.append((method, texts[0] + more))
    return lines


def _listed(digests: Any) -> list[str]:
    return list(dict.fromkeys([digests] if isinstance(digests, str) else digests))


def _short(digest: Any) -> str:
    return str(digest)[:_DIGEST_LETTERS]
