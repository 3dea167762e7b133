"""What every threshold of the score gives, for many weightings of the women at once.

A bootstrap resample of women is a weighting of their images, lesions and detections by how often each was drawn, as in
`classifiers.scores`. All that is sorted is sorted once; a resample costs two cumulative sums.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from index.metrics import resample_women

Array = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]

# Sums of whole weights are whole; a rate times a number of images need not be.
_TOLERANCE = 1e-9
# Blocks of resamples are made smaller than memory asks for, so that they stay in the processor's cache.
_CACHED = 8


@dataclass(frozen=True, eq=False)
class Marks:
    """What is to be found, what was found wrongly, and on how many images.

    Attributes:
        unit_scores: (u,) of each lesion, image or woman that is to be found: the score of what finds it, -inf where
            nothing does.
        unit_women: (u,) numbers of their women.
        false_scores: (f,) of the false positives.
        false_women: (f,).
        image_women: (n,) of all images that were looked at.
        women: How many women there are.
    """

    unit_scores: Array
    unit_women: Whole
    false_scores: Array
    false_women: Whole
    image_women: Whole
    women: int


@dataclass(frozen=True, eq=False)
class Sweep:
    """Counts at each threshold, for b weightings.

    Attributes:
        thresholds: (t,) the distinct scores, descending: all that has a score or more is counted, so that equal scores
            are one threshold.
        hits: (b, t) units found.
        false: (b, t) false positives.
        units: (b,) units to be found.
        images: (b,) images that were looked at.
    """

    thresholds: Array
    hits: Array
    false: Array
    units: Array
    images: Array


def sweep(marks: Marks, weights: Array) -> Sweep:
    """Count what each threshold finds.

    Args:
        marks: What was found.
        weights: (b, women) how often each woman counts.
    """
    found = marks.unit_scores > -np.inf
    scores = np.concatenate([marks.unit_scores[found], marks.false_scores])
    women = np.concatenate([marks.unit_women[found], marks.false_women])
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last = np.flatnonzero(np.append(ranked[1:] < ranked[:-1], True)) if len(ranked) else np.empty(0, np.int64)
    drawn = weights[:, women[order]]
    right = order < found.sum()
    counted = np.cumsum(drawn, axis=1)[:, last]
    hits = np.cumsum(np.where(right, drawn, 0.0), axis=1)[:, last]
    return Sweep(
        ranked[last],
        hits,
        counted - hits,
        weights @ np.bincount(marks.unit_women, minlength=marks.women).astype(np.float64),
        weights @ np.bincount(marks.image_women, minlength=marks.women).astype(np.float64),
    )


def places_at(points: Sweep, rates: npt.ArrayLike) -> Whole:
    """Return the place of the lowest threshold with at most so many false positives an image.

    Args:
        points: Counts.
        rates: (r,) false positives an image.

    Returns:
        (b, r) places in `thresholds`; -1 where even the highest has more.
    """
    allowed = points.images[:, None] * np.asarray(rates, dtype=np.float64) + _TOLERANCE
    rows = [np.searchsorted(false, most, side="right") for false, most in zip(points.false, allowed, strict=True)]
    return np.array(rows, np.int64).reshape(allowed.shape) - 1


def sensitivity_at(points: Sweep, rates: npt.ArrayLike) -> Array:
    """Return the share of units found at rates of false positives an image.

    It is that of the lowest threshold with no more false positives: a point at which the detector can be run, not one
    interpolated between two. Beyond the detector's last false positive the curve stays where it is.

    Returns:
        (b, r); NaN where there is no unit.
    """
    places = places_at(points, rates)
    padded = np.concatenate([np.zeros((len(points.hits), 1)), points.hits], axis=1)
    return _ratio(np.take_along_axis(padded, places + 1, axis=1), points.units[:, None])


def rate_needed(points: Sweep, sensitivity: Array) -> Array:
    """Return the false positives an image of the highest threshold that finds such a share of the units.

    Args:
        points: Counts.
        sensitivity: (b, r).

    Returns:
        (b, r); 0 where nothing needs to be found, NaN where no threshold finds so much, or where there is no unit.
    """
    wanted = sensitivity * points.units[:, None] - _TOLERANCE
    places = np.array(
        [np.searchsorted(hits, needed, side="left") for hits, needed in zip(points.hits, wanted, strict=True)], np.int64
    ).reshape(wanted.shape)
    padded = np.concatenate([points.false, np.full((len(points.false), 1), np.nan)], axis=1)
    rate = _ratio(np.take_along_axis(padded, places, axis=1), points.images[:, None])
    undefined = np.isnan(wanted) | (points.units[:, None] == 0)
    return np.where(undefined, np.nan, np.where(wanted <= 0, 0.0, rate))


def average_precision(points: Sweep) -> Array:
    """Return the area under the interpolated precision over recall, at every recall that occurs.

    Interpolated precision is the best at that recall or a higher one (all-point interpolation, as Pascal VOC since
    2010, and not the 101 recalls of COCO).

    Returns:
        (b,); NaN where there is no unit.
    """
    gained = np.diff(points.hits, axis=1, prepend=0.0)
    return _ratio((_best_precision(points) * gained).sum(axis=1), points.units)


def precision_at(points: Sweep, recalls: npt.ArrayLike) -> Array:
    """Return the interpolated precision at recalls, 0 where no threshold reaches one; NaN without units.

    Args:
        points: Counts.
        recalls: (r,) above 0 and at most 1.

    Returns:
        (b, r).
    """
    best = _best_precision(points)
    wanted = points.units[:, None] * np.asarray(recalls, dtype=np.float64) - _TOLERANCE
    places = np.array(
        [np.searchsorted(hits, needed, side="left") for hits, needed in zip(points.hits, wanted, strict=True)], np.int64
    ).reshape(wanted.shape)
    padded = np.concatenate([best, np.zeros((len(best), 1))], axis=1)
    return np.where(points.units[:, None] > 0, np.take_along_axis(padded, places, axis=1), np.nan)


def resampled(
    measure: Callable[[Array], Array], *, women: int, row: int, resamples: int, seed: int
) -> tuple[Array, Array]:
    """Measure all women, and resamples of them.

    Args:
        measure: From (b, women) weights to (b, k) figures.
        women: How many women.
        row: How many numbers `measure` holds for one weighting.
        resamples: How many resamples.
        seed: Of the draws, see `index.metrics.resample_women`.

    Returns:
        (k,) figures of all women, and (resamples, k) of the resamples; (0, k) where there are fewer than two women.

    Raises:
        QueryError: Fewer than one resample.
    """
    value = measure(np.ones((1, women)))[0]
    blocks: Sequence[Array] = [measure(draws) for draws in resample_women(women, resamples, seed, _CACHED * row)]
    return value, np.concatenate([np.empty((0, len(value))), *blocks])


def _best_precision(points: Sweep) -> Array:
    precision = np.nan_to_num(_ratio(points.hits, points.hits + points.false))
    return np.asarray(np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1], np.float64)


def _ratio(numerator: Array, denominator: Array) -> Array:
    """Divide; NaN where the denominator is 0."""
    top, bottom = np.broadcast_arrays(numerator, denominator)
    return np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom > 0)
