"""The scorecard: retrieval and classification of women whom the model had not seen, with all its context."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from classifiers import ClassificationError
from classifiers.evaluation import LEVEL, score_classification, score_retrieval
from classifiers.labels import Array
from classifiers.pooling import PooledTarget, count_classes, mean_over_seeds, pool_queries, pool_target
from classifiers.predictions import (
    BREAKDOWNS,
    METHODS,
    FoldPredictions,
    predict_fold,
    read_json,
    write_json,
)
from classifiers.tables import context_lines, scorecard_text
from index.metrics import Estimate

__all__ = ["FoldPredictions", "Scorecard", "Scores", "TargetScores", "make_scorecard", "predict_fold"]

SCORECARD_FORMAT = 1

REQUIRED_CONTEXT = ("protocol", "manifest_digest", "model_digests")
"""What only the caller knows and no figure may be without."""


@dataclass(frozen=True)
class Scores:
    """The scores of some queries of one label.

    Args:
        findings: Queries with a label.
        women: Women that these belong to.
        retrieval: Retrieval scores by name.
        knn: Classification scores of the kNN vote by name; empty where it did not predict every one of them.
        head: The same of the linear head.
    """

    findings: int
    women: int
    retrieval: dict[str, Estimate]
    knn: dict[str, Estimate]
    head: dict[str, Estimate]

    def to_dict(self) -> dict[str, Any]:
        """Return the scores as plain JSON values."""
        parts = {
            part: {name: estimate.to_dict() for name, estimate in getattr(self, part).items()}
            for part in ("retrieval", *METHODS)
        }
        return {"findings": self.findings, "women": self.women, **parts}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Return the scores whose `to_dict` this is."""
        parts = (
            {str(name): Estimate.from_dict(saved) for name, saved in content[part].items()}
            for part in ("retrieval", *METHODS)
        )
        return cls(int(content["findings"]), int(content["women"]), *parts)


@dataclass(frozen=True)
class TargetScores:
    """The scores of one label.

    Args:
        classes: Findings and women of each class.
        positive: The class that `auc` and `f1` are of; None where there is none.
        scores: Of all queries with a label.
        breakdown: By column and value, of the queries with that value; by the label itself first, where accuracy is
            the sensitivity for that class.
        calibration: By method, what the calibrations rest on.
        notes: What could not be scored, and why.
    """

    classes: dict[str, dict[str, int]]
    positive: str | None
    scores: Scores
    breakdown: dict[str, dict[str, Scores]]
    calibration: dict[str, list[str]]
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Return the scores as plain JSON values."""
        return {
            "classes": self.classes,
            "positive": self.positive,
            "scores": self.scores.to_dict(),
            "breakdown": {
                column: {value: scores.to_dict() for value, scores in groups.items()}
                for column, groups in self.breakdown.items()
            },
            "calibration": self.calibration,
            "notes": self.notes,
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Return the scores whose `to_dict` this is."""
        return cls(
            {
                str(name): {"findings": int(counts["findings"]), "women": int(counts["women"])}
                for name, counts in content["classes"].items()
            },
            None if content["positive"] is None else str(content["positive"]),
            Scores.from_dict(content["scores"]),
            {
                str(column): {str(value): Scores.from_dict(saved) for value, saved in groups.items()}
                for column, groups in content["breakdown"].items()
            },
            {str(method): [str(basis) for basis in bases] for method, bases in content["calibration"].items()},
            [str(note) for note in content["notes"]],
        )


@dataclass(frozen=True)
class Scorecard:
    """All scores of one evaluation, and what they are of.

    Args:
        context: Protocol, granularity, women, findings, folds, data sets, digests, how intervals are made.
        targets: Scores by label column.
    """

    context: dict[str, Any]
    targets: dict[str, TargetScores]

    def to_dict(self) -> dict[str, Any]:
        """Return the scorecard as plain JSON values. It names no woman."""
        targets = {name: target.to_dict() for name, target in self.targets.items()}
        return {"format": SCORECARD_FORMAT, "context": self.context, "targets": targets}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Return the scorecard whose `to_dict` this is.

        Raises:
            ClassificationError: It is none.
        """
        try:
            if content["format"] != SCORECARD_FORMAT:
                raise ValueError(f"format {content['format']!r}")
            targets = {str(name): TargetScores.from_dict(saved) for name, saved in content["targets"].items()}
            return cls(dict(content["context"]), targets)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ClassificationError(
                "scorecard", f"its saved form cannot be read ({error!r})", "run the evaluation again"
            ) from error

    def save(self, path: Path) -> None:
        """Write the scorecard as JSON, whole or not at all.

        Raises:
            ClassificationError: It cannot be written.
        """
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            ClassificationError: There is no such file, or it is no scorecard.
        """
        try:
            return cls.from_dict(read_json(path))
        except ClassificationError as error:
            raise ClassificationError(path, error.cause, error.remedy) from error

    def to_text(self) -> str:
        """Return the scorecard as a plain table, its context first."""
        return "\n".join([*context_lines("Scorecard", self.context), *scorecard_text(self.targets)])


def make_scorecard(
    folds: Sequence[FoldPredictions], context: Mapping[str, Any], *, resamples: int = 2000, seed: int = 0
) -> Scorecard:
    """Score the predictions of one or more folds.

    Queries are pooled over folds, each as its own fold's gallery answered it, and intervals are bootstrapped
    over all their women. Where there are folds of several seeds, a figure is the mean over the seeds, and each resample
    draws the same women in all of them: the interval is of the women, who do not become more by being asked again. A
    method is scored on all labelled queries or not at all: where a fold could not make it,
    the notes say so.

    Pooling probabilities of several folds holds an AUC slightly down (about 0.01 for random labels of 119
    findings in five folds): the more of a class is tested in a fold, the less of it stands in its gallery.

    Args:
        folds: The folds; each query is in one of them for each seed.
        context: Plain JSON values that stand beside the figures. It must have `protocol` (how women were
            split), `manifest_digest` and `model_digests`; what the folds know is added.
        resamples: How many resamples of the women.
        seed: Seed of the resampling.

    Raises:
        ClassificationError: The context lacks something, or the folds do not fit each other.
    """
    queries = pool_queries(folds)
    full = complete_context(context, folds, queries, resamples, seed)
    women = queries["woman"].to_numpy(dtype=object)
    once = (queries["seed"] == folds[0].seed).to_numpy()
    targets = {}
    for name in folds[0].targets:
        target = pool_target(folds, name)
        everyone = np.ones(len(queries), dtype=bool)
        breakdown = {}
        for column in dict.fromkeys((name, *BREAKDOWNS)):
            values = target.labels if column == name else queries[column].to_numpy(dtype=object)
            known = target.known & ~np.asarray(pd.isna(values), dtype=bool)
            present = count_classes(values[known], women[known])
            breakdown[column] = {value: _score(target, queries, values == value, resamples, seed) for value in present}
        targets[name] = TargetScores(
            classes=count_classes(target.labels[once], women[once]),
            positive=target.positive,
            scores=_score(target, queries, everyone, resamples, seed),
            breakdown={column: groups for column, groups in breakdown.items() if groups},
            calibration=target.calibration,
            notes=target.notes,
        )
    return Scorecard(full, targets)


def complete_context(
    context: Mapping[str, Any],
    folds: Sequence[FoldPredictions],
    queries: pd.DataFrame,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """Return the context with what the folds know of themselves.

    Raises:
        ClassificationError: The context lacks something, or is not plain JSON.
    """
    absent = [name for name in REQUIRED_CONTEXT if not context.get(name)]
    if absent:
        raise ClassificationError(
            "scorecard", f"the context has no {absent[0]}", "no figure stands without its context"
        )
    try:
        given = json.loads(json.dumps(dict(context), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ClassificationError(
            "scorecard", f"the context is not plain JSON ({error})", "use texts and numbers"
        ) from error
    return {
        **given,
        "granularity": folds[0].granularity,
        "datasets": sorted(set(queries["dataset"].astype(str))),
        "test_women": int(queries["woman"].nunique()),
        "test_rows": int(queries["row_id"].nunique()),
        "folds": [
            {
                "seed": fold.seed,
                "gallery_women": fold.gallery_women,
                "gallery_rows": fold.gallery_rows,
                "gallery_digest": fold.gallery_digest,
                "test_women": int(fold.queries["woman"].nunique()),
                "test_rows": len(fold.queries),
            }
            for fold in folds
        ],
        "interval": {
            "method": "percentile bootstrap over women",
            "level": LEVEL,
            "resamples": resamples,
            "seed": seed,
        },
    }


def _score(target: PooledTarget, queries: pd.DataFrame, chosen: Array, resamples: int, seed: int) -> Scores:
    """Score the chosen queries that have a label."""
    rows = np.flatnonzero(chosen & target.known)
    asked = queries.iloc[rows]
    women = asked["woman"].to_numpy(dtype=object)
    distinct = asked.drop_duplicates("row_id")
    per_query = mean_over_seeds(target.retrieval.iloc[rows], asked)
    retrieval = score_retrieval(per_query, distinct["woman"].to_numpy(dtype=object), resamples=resamples, seed=seed)
    found: dict[str, dict[str, Estimate]] = {}
    for method in METHODS:
        values = target.probabilities.get(method)
        found[method] = {}
        if values is not None and len(rows):
            found[method] = score_classification(
                target.labels[rows],
                values[rows],
                target.classes,
                women,
                ordered=target.ordered,
                positive=target.positive,
                repeats=asked["seed"].to_numpy(),
                folds=asked["fold"].to_numpy(),
                resamples=resamples,
                seed=seed,
            )
    return Scores(len(distinct), len(set(women)), retrieval, found["knn"], found["head"])
