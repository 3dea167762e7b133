"""The folds of a run put together: every query once a seed, each as its own fold's gallery answered it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from classifiers import ClassificationError
from classifiers.labels import Array, order_classes, scale_of, spread_columns
from classifiers.predictions import BREAKDOWNS, METHODS, FoldPredictions

POSITIVE_CLASSES = {"pathology": "malignant", "tissue": "lesion"}
"""The class to detect, of labels that have one."""


@dataclass(frozen=True, eq=False)
class PooledTarget:
    """One label over all folds.

    Args:
        name: The label column.
        labels: (q,) objects: the true labels, None where unknown.
        classes: All classes; the whole scale where they are on one, so that distances on it are right.
        ordered: The classes in their order; None where they have none.
        positive: The class to detect; None where there is none.
        retrieval: (q rows) retrieval scores.
        curve: (q, levels) precision at levels of recall.
        probabilities: By method, (q, classes), NaN for queries without a label; a method that did not predict every
            labelled query is left out, for the others would be an easier or a harder question.
        calibration: By method, what the calibration of each fold rests on.
        notes: What could not be predicted, by fold, and why.
    """

    name: str
    labels: Array
    classes: tuple[str, ...]
    ordered: tuple[str, ...] | None
    positive: str | None
    retrieval: pd.DataFrame
    curve: Array
    probabilities: dict[str, Array]
    calibration: dict[str, list[str]]
    notes: list[str]

    @property
    def known(self) -> Array:
        """(q,) bool: which queries have a label."""
        return np.array([label is not None for label in self.labels], dtype=bool)


def pool_queries(folds: Sequence[FoldPredictions]) -> pd.DataFrame:
    """Return the queries of all folds: `row_id`, `woman`, `dataset`, `seed`, `fold` and the columns to break down by.

    Folds of several seeds ask the same queries once for each seed.

    Raises:
        ClassificationError: There are no folds, a query is in two folds of a seed, a woman is a query of two
            folds of a seed, seeds differ in their queries, or folds differ in granularity or targets.
    """
    if not folds:
        raise ClassificationError("scorecard", "there are no folds", "predict one or more")
    if len({fold.granularity for fold in folds}) > 1:
        raise ClassificationError("scorecard", "folds of findings and of breasts", "score them apart")
    if len({tuple(sorted(fold.targets)) for fold in folds}) > 1:
        raise ClassificationError("scorecard", "the folds have different targets", "predict the same ones")
    numbered = [fold.queries.assign(seed=fold.seed, fold=number) for number, fold in enumerate(folds)]
    queries = pd.concat(numbered, ignore_index=True)
    queries = queries.reindex(columns=list(dict.fromkeys([*queries.columns, *BREAKDOWNS])))
    twice = queries.loc[queries[["seed", "row_id"]].duplicated(), "row_id"]
    if len(twice):
        raise ClassificationError("scorecard", f"the row {twice.iloc[0]} is a query of two folds", "ask it once")
    sides = np.repeat(np.arange(len(folds)), [len(fold.queries) for fold in folds])
    split = queries.groupby(["seed", "woman"]).ngroup()
    per_woman = pd.Series(sides).groupby(split).nunique()
    if (per_woman > 1).any():
        woman = queries.loc[split == per_woman.idxmax(), "woman"].iloc[0]
        raise ClassificationError("split", f"the woman {woman} is tested in two folds", "split by patient")
    asked = {frozenset(rows) for _, rows in queries.groupby("seed")["row_id"]}
    if len(asked) > 1:
        raise ClassificationError("scorecard", "the seeds have different queries", "predict the same rows with each")
    return queries


def mean_over_seeds(values: pd.DataFrame, queries: pd.DataFrame) -> pd.DataFrame:
    """Return the mean of each query's scores over the seeds in which it has one.

    Args:
        values: (q rows) numeric columns, a row for each query and seed.
        queries: (q rows) with `row_id`; the index is that of `values`.

    Returns:
        A row for each query, in the order in which they first come.
    """
    return values.groupby(queries["row_id"], sort=False).mean()


def pool_target(folds: Sequence[FoldPredictions], name: str, more_classes: Sequence[str] = ()) -> PooledTarget:
    """Return one label's predictions of all folds.

    A class that a fold's gallery lacks has probability 0 in it.

    Args:
        folds: The folds.
        name: The label column.
        more_classes: Classes to have besides, such as those of a run to compare with.
    """
    parts = [fold.targets[name] for fold in folds]
    labels = np.concatenate([part.labels for part in parts])
    everything = {*more_classes, *(term for part in parts for term in part.classes)}
    everything |= {label for label in labels if label is not None}
    scale = scale_of(everything)
    classes = scale or order_classes(everything)
    known = ~np.asarray(pd.isna(labels), dtype=bool)
    probabilities: dict[str, Array] = {}
    notes = []
    for method in METHODS:
        blocks = []
        for number, part in enumerate(parts, start=1):
            if method in part.probabilities:
                blocks.append(spread_columns(part.probabilities[method], part.classes, classes))
            else:
                blocks.append(np.full((len(part.labels), len(classes)), np.nan))
                notes.append(f"no {method} in fold {number}: {part.reasons.get(method, 'none was made')}")
        if not any(method in part.probabilities for part in parts):
            continue
        values = np.concatenate(blocks)
        lacking = int(np.isnan(values[known]).any(axis=1).sum())
        if lacking:
            notes.append(f"{method} is not scored: {lacking} of {int(known.sum())} labelled rows have no prediction")
        else:
            probabilities[method] = values
    positive = POSITIVE_CLASSES.get(name)
    return PooledTarget(
        name=name,
        labels=labels,
        classes=classes,
        ordered=scale,
        positive=positive if positive in classes else None,
        retrieval=pd.concat([part.retrieval for part in parts], ignore_index=True),
        curve=np.concatenate([part.curve for part in parts]),
        probabilities=probabilities,
        calibration={
            method: [part.calibration[method] for part in parts if method in part.calibration]
            for method in probabilities
        },
        notes=notes,
    )


def count_classes(labels: Array, women: Array) -> dict[str, dict[str, int]]:
    """Count findings and women of each label."""
    counts = Counter(label for label in labels if label is not None)
    return {
        name: {"findings": counts[name], "women": len(set(women[labels == name]))} for name in order_classes(counts)
    }
