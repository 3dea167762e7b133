"""Scores of classifications and retrievals with intervals over women, and the comparison of two runs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from classifiers import ClassificationError, scores
from classifiers.labels import MISSING, Array, encode_labels, encode_patients, spread_columns
from index.metrics import (
    RELEVANT,
    Estimate,
    bootstrap_interval,
    paired_difference,
    resample_women,
    summarise,
)

LEVEL = 0.95  # of every interval


@dataclass(frozen=True, eq=False)
class _Items:
    """The labelled items of a run.

    Args:
        truth: (n,) class indices.
        women: (n,) woman indices.
        count: How many women.
        classes: The classes, those that only the labels have last.
        known: (all items,) which have a label.
        repeats: For each repetition of the folds, the positions of its items among the labelled ones.
        folds: (n,) fold indices.
    """

    truth: Array
    women: Array
    count: int
    classes: tuple[str, ...]
    known: Array
    repeats: tuple[Array, ...]
    folds: Array


def score_classification(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    classes: Sequence[str],
    patients: npt.ArrayLike,
    *,
    ordered: Sequence[str] | None = None,
    positive: str | None = None,
    repeats: npt.ArrayLike | None = None,
    folds: npt.ArrayLike | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Score predicted probabilities, with 95 % intervals from resampling women.

    An item whose true class the model has never seen stays in: the model gives it probability 0, and is
    wrong about it. Intervals are percentiles over the resamples in which a score is defined; a score that
    the items leave undefined is NaN.

    Args:
        labels: (n,) true labels; items without one are left out.
        probabilities: (n, classes); rows of items without a label may be NaN.
        classes: The classes of the columns.
        patients: (n,) women's keys.
        ordered: The classes in their order, where they have one: adds `kappa`.
        positive: The class to detect, such as "malignant": `auc` is then of it against the rest, and `f1` is
            added.
        repeats: (n,) which repetition of the folds an item is of, where the same items were predicted several times:
            each repetition is scored by itself, and the scores are averaged, in every resample of the same women.
        folds: (n,) which fold an item was tested in; of two or more, `auc_within_folds` is added.
        resamples: How many resamples of the women.
        seed: Seed of the resampling.

    Returns:
        By name: `auc` (of the positive class, or the mean over classes against the rest), `auc_within_folds` (the mean
        over folds of the AUC in each: probabilities of different models and galleries are not compared, as they are in
        `auc`; LeDell, Petersen and van der Laan, Electronic Journal of Statistics 9, 2015), `accuracy`,
        `balanced_accuracy`, `f1_macro`, `f1`, `kappa` (quadratic weights), `brier` (0 to 2) and
        `calibration_error`. `f1_macro` and `balanced_accuracy` are over the classes that have items.

    Raises:
        ClassificationError: No item has a label, or the arrays do not fit each other.
    """
    items = _labelled_items(labels, classes, patients, repeats, folds)
    values = _probabilities(probabilities, items, classes)
    measure = _measure(items, values, ordered, positive)
    return _estimates(items, measure, resamples, seed)


def score_retrieval(
    per_query: pd.DataFrame, patients: npt.ArrayLike, *, resamples: int = 2000, seed: int = 0
) -> dict[str, Estimate]:
    """Average retrieval scores over queries, with 95 % intervals from resampling women.

    Args:
        per_query: One row a query and one numeric column a score, as `index.metrics.retrieval_scores`
            returns; NaN where a query has no answer to find.
        patients: (queries,) the queries' women.
        resamples: How many resamples of the women.
        seed: Seed of the resampling.

    Returns:
        One estimate a column, but for the count of relevant rows, which is no score.
    """
    keys = np.asarray(patients, dtype=object)
    encode_patients(keys, len(per_query))
    return {
        name: bootstrap_interval(
            per_query[name].to_numpy(dtype=np.float64), keys, resamples=resamples, seed=seed, level=LEVEL
        )
        for name in _score_columns(per_query)
    }


def compare_runs(
    labels: npt.ArrayLike,
    probabilities_a: npt.ArrayLike,
    probabilities_b: npt.ArrayLike,
    classes: Sequence[str],
    patients: npt.ArrayLike,
    *,
    ordered: Sequence[str] | None = None,
    positive: str | None = None,
    repeats: npt.ArrayLike | None = None,
    folds: npt.ArrayLike | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Subtract the scores of run B from those of run A on the same items, with paired 95 % intervals.

    Each resample of women scores both runs anew, so what makes a woman easy or hard for both cancels out. Of
    `brier` and `calibration_error` lower is better, so a negative difference there speaks for A.

    Args:
        labels: (n,) true labels; items without one are left out.
        probabilities_a: (n, classes) of run A.
        probabilities_b: (n, classes) of run B.
        classes: The classes of the columns, the same for both.
        patients: (n,) women's keys.
        ordered: The classes in their order, where they have one.
        positive: The class to detect.
        repeats: As in `score_classification`.
        folds: As in `score_classification`.
        resamples: How many resamples of the women.
        seed: Seed of the resampling.

    Returns:
        One estimate of A - B a score, named as in `score_classification`.
    """
    items = _labelled_items(labels, classes, patients, repeats, folds)
    first = _measure(items, _probabilities(probabilities_a, items, classes), ordered, positive)
    second = _measure(items, _probabilities(probabilities_b, items, classes), ordered, positive)

    def difference(weights: Array) -> dict[str, Array]:
        ours, theirs = first(weights), second(weights)
        return {name: ours[name] - theirs[name] for name in ours}

    return _estimates(items, difference, resamples, seed)


def compare_retrieval(
    per_query_a: pd.DataFrame,
    per_query_b: pd.DataFrame,
    patients: npt.ArrayLike,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Subtract the retrieval scores of run B from those of run A on the same queries.

    Intervals are paired: each resample of women is of the differences of their queries.

    Args:
        per_query_a: One row a query and one numeric column a score, of run A.
        per_query_b: The same queries in the same order, of run B.
        patients: (queries,) the queries' women.
        resamples: How many resamples of the women.
        seed: Seed of the resampling.

    Returns:
        One estimate of A - B a column that both have.

    Raises:
        ClassificationError: The runs do not have the same queries.
    """
    keys = np.asarray(patients, dtype=object)
    encode_patients(keys, len(per_query_a))
    if not per_query_a.index.equals(per_query_b.index):
        raise ClassificationError(
            "comparison", "the two runs answered different queries", "score both on the same ones"
        )
    return {
        name: paired_difference(
            per_query_a[name].to_numpy(dtype=np.float64),
            per_query_b[name].to_numpy(dtype=np.float64),
            keys,
            resamples=resamples,
            seed=seed,
            level=LEVEL,
        )
        for name in _score_columns(per_query_a)
        if name in per_query_b.columns
    }


def _score_columns(per_query: pd.DataFrame) -> list[str]:
    return [str(name) for name in per_query.select_dtypes("number").columns if name != RELEVANT]


def _labelled_items(
    labels: npt.ArrayLike,
    classes: Sequence[str],
    patients: npt.ArrayLike,
    repeats: npt.ArrayLike | None,
    folds: npt.ArrayLike | None,
) -> _Items:
    found, _ = encode_labels(labels)
    everything = (*[str(name) for name in classes], *[name for name in found if name not in classes])
    _, codes = encode_labels(labels, everything)
    _, women = encode_patients(patients, len(codes))
    known = codes != MISSING
    if not known.any():
        raise ClassificationError("scores", "no item has a label", "score a column that has labels")
    distinct, own = np.unique(women[known], return_inverse=True)
    repeated, tested = (
        np.zeros(len(codes), np.int64) if numbers is None else np.asarray(numbers) for numbers in (repeats, folds)
    )
    for name, numbers in (("repetitions", repeated), ("folds", tested)):
        if numbers.shape != codes.shape:
            raise ClassificationError("scores", f"{numbers.shape} {name} for {codes.shape} labels", "name one for each")
    parts = tuple(np.flatnonzero(repeated[known] == repeat) for repeat in np.unique(repeated[known]))
    return _Items(codes[known], own, len(distinct), everything, known, parts, tested[known])


def _probabilities(probabilities: npt.ArrayLike, items: _Items, classes: Sequence[str]) -> Array:
    values = np.asarray(probabilities, dtype=np.float64)
    if values.shape != (len(items.known), len(classes)):
        raise ClassificationError(
            "probabilities",
            f"the shape is {values.shape} for {len(items.known)} labels and {len(classes)} classes",
            "pass one row per label and one column per class",
        )
    values = values[items.known]
    if not np.isfinite(values).all():
        raise ClassificationError(
            "probabilities", "a labelled item has one that is not finite", "predict every labelled item"
        )
    return spread_columns(values, [str(name) for name in classes], items.classes)


def _measure(
    items: _Items, probabilities: Array, ordered: Sequence[str] | None, positive: str | None
) -> Callable[[Array], dict[str, Array]]:
    """Return the function from (b, n) weights to (b,) values of each score."""
    count = len(items.classes)
    predicted = probabilities.argmax(axis=1)
    for name in (*(ordered or ()), *([positive] if positive is not None else [])):
        if name not in items.classes:
            raise ClassificationError(
                "scores", f"{name!r} is none of the classes {', '.join(items.classes)}", "name one of them"
            )
    if ordered is not None and set(ordered) != set(items.classes):
        lacking = sorted(set(items.classes) - set(ordered))
        raise ClassificationError("scores", f"the order does not say where {lacking[0]!r} stands", "order every class")
    places = [items.classes.index(name) for name in ordered or ()]

    # A fold that is alone has nothing to be compared with.
    folds = np.unique(items.folds) if len(np.unique(items.folds)) > 1 else None

    def area(truth: Array, given: Array, weights: Array) -> Array:
        if positive is None:
            return scores.macro_auc(truth, given, weights)
        wanted = items.classes.index(positive)
        return scores.auc(truth == wanted, given[:, wanted], weights)

    def measure_repeat(rows: Array, weights: Array) -> dict[str, Array]:
        truth, given = items.truth[rows], probabilities[rows]
        matrix = scores.confusion(truth, predicted[rows], count, weights)
        found = {"auc": area(truth, given, weights)}
        if folds is not None:
            parts = [np.flatnonzero(items.folds[rows] == fold) for fold in folds]
            areas = [area(truth[part], given[part], weights[:, part]) for part in parts if part.size]
            found["auc_within_folds"] = scores.mean_known(np.stack(areas, axis=-1))
        found["accuracy"] = scores.accuracy(matrix)
        found["balanced_accuracy"] = scores.balanced_accuracy(matrix)
        found["f1_macro"] = scores.macro_f1(matrix)
        if positive is not None:
            found["f1"] = scores.f1(matrix)[:, items.classes.index(positive)]
        if places:
            found["kappa"] = scores.quadratic_kappa(matrix[:, places][:, :, places])
        found["brier"] = scores.brier(truth, given, weights)
        found["calibration_error"] = scores.calibration_error(truth, given, weights)
        return found

    def measure(weights: Array) -> dict[str, Array]:
        parts = [measure_repeat(rows, weights[:, rows]) for rows in items.repeats]
        return {name: np.mean([part[name] for part in parts], axis=0) for name in parts[0]}

    return measure


def _estimates(
    items: _Items, measure: Callable[[Array], dict[str, Array]], resamples: int, seed: int
) -> dict[str, Estimate]:
    """Return each score of all items, with its interval from resampling women."""
    count = len(items.truth)
    distinct = len(items.repeats[0])
    values = measure(np.ones((1, count)))
    blocks = [measure(draws[:, items.women]) for draws in resample_women(items.count, resamples, seed, count)]
    return {
        name: summarise(
            float(value[0]),
            np.concatenate([block[name] for block in blocks]) if blocks else np.empty(0),
            level=LEVEL,
            items=distinct,
            women=items.count,
        )
        for name, value in values.items()
    }
