"""Classification scores of one set of predictions under many weightings of its items, all at once.

A bootstrap resample of women is a weighting of the items by how often their woman was drawn. Every function
takes (b, n) weights of b weightings and returns (b,) scores, NaN where a weighting leaves a score undefined
(a class that it needs has no weight).
"""

import numpy as np

from classifiers.labels import Array


def confusion(truth: Array, predicted: Array, classes: int, weights: Array) -> Array:
    """Count weighted (truth, prediction) pairs: (b, classes, classes).

    Args:
        truth: (n,) true class indices.
        predicted: (n,) predicted class indices.
        classes: How many classes.
        weights: (b, n).
    """
    cells = np.zeros((len(truth), classes * classes))
    cells[np.arange(len(truth)), truth * classes + predicted] = 1.0
    return (weights @ cells).reshape(len(weights), classes, classes)


def accuracy(matrix: Array) -> Array:
    """Share of items whose class is predicted, from (b, classes, classes) confusions."""
    return _ratio(np.trace(matrix, axis1=1, axis2=2), matrix.sum(axis=(1, 2)))


def balanced_accuracy(matrix: Array) -> Array:
    """Mean recall over the classes that have items, from (b, classes, classes) confusions."""
    return mean_known(_ratio(np.diagonal(matrix, axis1=1, axis2=2), matrix.sum(axis=2)))


def f1(matrix: Array) -> Array:
    """F1 of each class, (b, classes), from (b, classes, classes) confusions; NaN without items of it."""
    support = matrix.sum(axis=2)
    score = _ratio(2 * np.diagonal(matrix, axis1=1, axis2=2), support + matrix.sum(axis=1))
    return np.where(support > 0, score, np.nan)


def macro_f1(matrix: Array) -> Array:
    """Mean F1 over the classes that have items, from (b, classes, classes) confusions."""
    return mean_known(f1(matrix))


def quadratic_kappa(matrix: Array) -> Array:
    """Cohen's kappa with quadratic weights (Psychological Bulletin 70, 1968) for classes in order.

    Args:
        matrix: (b, classes, classes) confusions, classes in their order.

    Returns:
        (b,) NaN where all truth and all predictions are one class.
    """
    places = np.arange(matrix.shape[1])
    distance = np.square(places[:, None] - places[None, :]).astype(np.float64)
    seen = (matrix * distance).sum(axis=(1, 2))
    by_chance = matrix.sum(axis=2)[:, :, None] * matrix.sum(axis=1)[:, None, :]
    expected = _ratio((by_chance * distance).sum(axis=(1, 2)), matrix.sum(axis=(1, 2)))
    return 1 - _ratio(seen, expected)


def auc(positive: Array, score: Array, weights: Array) -> Array:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties counted half.

    Args:
        positive: (n,) bool.
        score: (n,) higher is more positive.
        weights: (b, n).
    """
    order = np.argsort(score, kind="stable")
    ranked = score[order]
    # The first item of each distinct score.
    starts = np.flatnonzero(np.concatenate([[True], ranked[1:] > ranked[:-1]]))
    ordered, is_positive = weights[:, order], positive[order]
    ups = np.add.reduceat(ordered * is_positive, starts, axis=1)
    downs = np.add.reduceat(ordered * ~is_positive, starts, axis=1)
    below = np.cumsum(downs, axis=1) - downs
    return _ratio((ups * (below + downs / 2)).sum(axis=1), ups.sum(axis=1) * downs.sum(axis=1))


def macro_auc(truth: Array, probabilities: Array, weights: Array) -> Array:
    """Mean over the classes of the AUC of each against the rest, without those that have no items or no rest.

    Args:
        truth: (n,) true class indices.
        probabilities: (n, classes).
        weights: (b, n).
    """
    areas = [auc(truth == c, probabilities[:, c], weights) for c in range(probabilities.shape[1]) if (truth == c).any()]
    return mean_known(np.stack(areas, axis=1))


def brier(truth: Array, probabilities: Array, weights: Array) -> Array:
    """Mean squared distance of the probabilities from the outcome, summed over classes (Brier 1950).

    0 is best, 2 is worst.

    Args:
        truth: (n,) true class indices.
        probabilities: (n, classes).
        weights: (b, n).
    """
    outcome = np.eye(probabilities.shape[1])[truth]
    return _ratio(weights @ np.square(probabilities - outcome).sum(axis=1), weights.sum(axis=1))


def calibration_error(truth: Array, probabilities: Array, weights: Array, bins: int = 10) -> Array:
    """Expected calibration error (Guo et al., ICML 2017): the gap between confidence and accuracy, by bins.

    With few items a bin's accuracy is noisy, which lifts the error of even a perfectly calibrated
    classifier above 0, and that of a bootstrap resample above that of its sample: read it beside the Brier
    score.

    Args:
        truth: (n,) true class indices.
        probabilities: (n, classes); the confidence is the highest.
        weights: (b, n).
        bins: How many bins of equal width.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == truth
    bin_of_item = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    gaps = np.zeros((len(truth), bins))
    gaps[np.arange(len(truth)), bin_of_item] = right - confidence
    return _ratio(np.abs(weights @ gaps).sum(axis=1), weights.sum(axis=1))


def _ratio(numerator: Array, denominator: Array) -> Array:
    """Divide; NaN where the denominator is 0."""
    top, bottom = np.broadcast_arrays(np.asarray(numerator, dtype=np.float64), denominator)
    return np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom > 0)


def mean_known(values: Array) -> Array:
    """Mean over the last axis of what is not NaN; NaN where nothing is left."""
    known = ~np.isnan(values)
    return _ratio(np.where(known, values, 0.0).sum(axis=-1), known.sum(axis=-1))
