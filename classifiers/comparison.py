"""Two runs over the same folds: paired differences of every score, with intervals over women."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from classifiers import ClassificationError
from classifiers.evaluation import compare_retrieval, compare_runs
from classifiers.pooling import mean_over_seeds, pool_queries, pool_target
from classifiers.predictions import METHODS, FoldPredictions, write_json
from classifiers.scorecard import complete_context
from classifiers.tables import comparison_text, context_lines
from index.metrics import Estimate


@dataclass(frozen=True)
class Comparison:
    """How two runs over the same folds differ.

    Args:
        a: Name of run A.
        b: Name of run B.
        context: As of a scorecard.
        differences: A - B by label, by part (`retrieval`, `knn`, `head`), by score. Of `brier` and
            `calibration_error` lower is better.
    """

    a: str
    b: str
    context: dict[str, Any]
    differences: dict[str, dict[str, dict[str, Estimate]]]

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as plain JSON values. It names no woman."""
        differences = {
            target: {
                part: {score: estimate.to_dict() for score, estimate in scores.items()}
                for part, scores in parts.items()
            }
            for target, parts in self.differences.items()
        }
        return {"a": self.a, "b": self.b, "context": self.context, "differences": differences}

    def save(self, path: Path) -> None:
        """Write the comparison as JSON, whole or not at all.

        Raises:
            ClassificationError: It cannot be written.
        """
        write_json(path, self.to_dict())

    def to_text(self) -> str:
        """Return the comparison as a plain table, its context first."""
        title = f"{self.a} against {self.b}"
        lines = comparison_text(self.differences, self.a, self.b)
        return "\n".join([*context_lines(title, self.context), *lines])


def compare_folds(
    folds_a: Sequence[FoldPredictions],
    folds_b: Sequence[FoldPredictions],
    context: Mapping[str, Any],
    *,
    a: str = "A",
    b: str = "B",
    resamples: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Subtract every score of run B from that of run A, where both have it, on the same queries.

    Args:
        folds_a: The folds of run A.
        folds_b: The folds of run B: the same galleries and the same queries, in the same order.
        context: As for `make_scorecard`, `model_digests` of both runs.
        a: Name of run A.
        b: Name of run B.
        resamples: How many resamples of the women.
        seed: Seed of the resampling.

    Raises:
        ClassificationError: The runs do not have the same folds, or the context lacks something.
    """
    queries = pool_queries(folds_a)
    pool_queries(folds_b)
    _check_same_folds(folds_a, folds_b)
    full = complete_context(context, folds_a, queries, resamples, seed)
    women, seeds, folds = (queries[name].to_numpy() for name in ("woman", "seed", "fold"))
    asked = queries.drop_duplicates("row_id")["woman"].to_numpy(dtype=object)
    differences: dict[str, dict[str, dict[str, Estimate]]] = {}
    for name in folds_a[0].targets:
        if name not in folds_b[0].targets:
            continue
        first = pool_target(folds_a, name)
        second = pool_target(folds_b, name, first.classes)
        first = pool_target(folds_a, name, second.classes)
        if first.labels.tolist() != second.labels.tolist():
            raise ClassificationError("comparison", f"the runs know different {name} labels", "use one manifest")
        differences[name] = {
            "retrieval": compare_retrieval(
                mean_over_seeds(first.retrieval, queries),
                mean_over_seeds(second.retrieval, queries),
                asked,
                resamples=resamples,
                seed=seed,
            )
        }
        for method in METHODS:
            if method not in first.probabilities or method not in second.probabilities:
                continue
            ours, theirs = first.probabilities[method], second.probabilities[method]
            both = np.flatnonzero(first.known & ~np.isnan(ours + theirs).any(axis=1))
            if len(both):
                differences[name][method] = compare_runs(
                    first.labels[both],
                    ours[both],
                    theirs[both],
                    first.classes,
                    women[both],
                    ordered=first.ordered,
                    positive=first.positive,
                    repeats=seeds[both],
                    folds=folds[both],
                    resamples=resamples,
                    seed=seed,
                )
    return Comparison(a, b, full, differences)


def _check_same_folds(folds_a: Sequence[FoldPredictions], folds_b: Sequence[FoldPredictions]) -> None:
    same = len(folds_a) == len(folds_b) and all(
        first.gallery_digest == second.gallery_digest
        and first.granularity == second.granularity
        and first.queries["row_id"].tolist() == second.queries["row_id"].tolist()
        and first.queries["woman"].tolist() == second.queries["woman"].tolist()
        for first, second in zip(folds_a, folds_b, strict=True)
    )
    if not same:
        raise ClassificationError(
            "comparison", "the two runs do not have the same folds", "split both alike, by the same seed"
        )
