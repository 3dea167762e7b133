import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.frocsweep import (
    Marks,
    average_precision,
    places_at,
    precision_at,
    rate_needed,
    resampled,
    sensitivity_at,
    sweep,
)

RATES = (0.1, 0.25, 0.5, 1.0, 3.0)
WOMEN = 4


def some_marks(seed, units=9, false=12):
    """Scores are rounded, so that there are ties; some units are never found."""
    rng = np.random.default_rng(seed)
    scores = np.round(rng.random(units), 1)
    scores[rng.random(units) < 0.3] = -np.inf
    images = np.concatenate([np.arange(WOMEN), rng.integers(0, WOMEN, 5)])
    return Marks(
        scores,
        rng.integers(0, WOMEN, units),
        np.round(rng.random(false), 1),
        rng.integers(0, WOMEN, false),
        images,
        WOMEN,
    )


def slow_points(marks, drawn):
    """Return (threshold, found, false) of each threshold, and units and images, counting one by one."""
    units = [(s, w) for s, w in zip(marks.unit_scores, marks.unit_women, strict=True) for _ in range(drawn[w])]
    false = [(s, w) for s, w in zip(marks.false_scores, marks.false_women, strict=True) for _ in range(drawn[w])]
    images = sum(drawn[w] for w in marks.image_women)
    thresholds = sorted({s for s in [*marks.unit_scores, *marks.false_scores] if s > -math.inf}, reverse=True)
    points = [(t, sum(s >= t for s, _ in units), sum(s >= t for s, _ in false)) for t in thresholds]
    return points, len(units), images


def slow_figures(marks, drawn):
    points, units, images = slow_points(marks, drawn)
    nothing = math.nan if not units else None
    sensitivity = [
        max([found / units for _, found, false in points if false <= rate * images + 1e-9], default=0.0)
        if units
        else nothing
        for rate in RATES
    ]
    area, before = 0.0, 0
    for place, (_, found, _) in enumerate(points):
        best = max((f / (f + n) for _, f, n in points[place:] if f + n), default=0.0)
        area += best * (found - before)
        before = found
    return sensitivity, area / units if units else nothing


def draw(seed):
    return np.random.default_rng(seed + 1).multinomial(WOMEN, [1 / WOMEN] * WOMEN, size=3)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**31), st.integers(0, 9), st.integers(0, 12))
def test_sensitivity_and_average_precision_equal_counting_one_by_one_for_every_weighting(seed, units, false):
    marks, weights = some_marks(seed, units, false), draw(seed)
    points = sweep(marks, weights.astype(float))
    sensitivity, precision = sensitivity_at(points, RATES), average_precision(points)
    for row, drawn in enumerate(weights):
        slow_sensitivity, slow_precision = slow_figures(marks, drawn)
        assert sensitivity[row] == pytest.approx(slow_sensitivity, nan_ok=True)
        assert precision[row] == pytest.approx(slow_precision, nan_ok=True)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31), st.floats(0, 1))
def test_the_rate_needed_and_precision_at_a_recall_equal_counting_one_by_one(seed, wanted):
    marks, weights = some_marks(seed), draw(seed)
    points = sweep(marks, weights.astype(float))
    needed = rate_needed(points, np.full((len(weights), 1), wanted))
    precision = precision_at(points, [max(wanted, 0.01)])
    for row, drawn in enumerate(weights):
        slow, units, images = slow_points(marks, drawn)
        if not units:
            assert math.isnan(needed[row, 0])
            assert math.isnan(precision[row, 0])
            continue
        rates = [false / images for _, found, false in slow if found >= wanted * units - 1e-9]
        expected = 0.0 if wanted * units <= 1e-9 else min(rates, default=math.nan)
        assert needed[row, 0] == pytest.approx(expected, nan_ok=True)
        reached = [f / (f + n) for _, f, n in slow if f >= max(wanted, 0.01) * units - 1e-9 and f + n]
        assert precision[row, 0] == pytest.approx(max(reached, default=0.0))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31))
def test_a_lower_threshold_finds_no_less_and_what_is_reached_at_a_rate_needs_no_more_than_it(seed):
    points = sweep(some_marks(seed), draw(seed).astype(float))
    assert (np.diff(points.thresholds) < 0).all()
    assert (np.diff(points.hits, axis=1) >= 0).all()
    assert (np.diff(points.false, axis=1) >= 0).all()
    reached = sensitivity_at(points, RATES)
    known = ~np.isnan(reached[:, 0])
    assert (np.diff(reached[known], axis=1) >= 0).all()
    assert ((reached[known] >= 0) & (reached[known] <= 1)).all()
    assert (rate_needed(points, reached)[known] <= np.array(RATES) + 1e-9).all()
    precision = precision_at(points, [0.1, 0.5, 0.9])[known]
    assert (np.diff(precision, axis=1) <= 1e-12).all()


def test_equal_scores_are_one_threshold():
    marks = Marks(np.array([0.5, 0.5]), np.array([0, 0]), np.array([0.5]), np.array([0]), np.array([0, 0]), 1)
    points = sweep(marks, np.ones((1, 1)))
    assert points.thresholds.tolist() == [0.5]
    # Both lesions come with the false positive: half a false positive an image, and nothing below.
    assert sensitivity_at(points, [0.49, 0.5]).tolist() == [[0.0, 1.0]]
    assert places_at(points, [0.49, 0.5]).tolist() == [[-1, 0]]
    assert average_precision(points)[0] == pytest.approx(2 / 3)


def test_average_precision_of_a_known_ranking():
    # hit 0.9, false 0.8, hit 0.7, false 0.6; one of three lesions is missed: (1 + 2/3) / 3.
    marks = Marks(
        np.array([0.9, 0.7, -np.inf]), np.zeros(3, int), np.array([0.8, 0.6]), np.zeros(2, int), np.zeros(2, int), 1
    )
    points = sweep(marks, np.ones((1, 1)))
    assert average_precision(points)[0] == pytest.approx((1 + 2 / 3) / 3)
    # A worse precision before a better one is lifted to it.
    worse = Marks(np.array([0.7, 0.6]), np.zeros(2, int), np.array([0.9]), np.zeros(1, int), np.zeros(1, int), 1)
    assert average_precision(sweep(worse, np.ones((1, 1))))[0] == pytest.approx(2 / 3)


def test_nothing_found_and_nothing_false_is_a_sensitivity_of_zero():
    marks = Marks(np.array([-np.inf]), np.array([0]), np.empty(0), np.empty(0, int), np.array([0, 1]), 2)
    points = sweep(marks, np.ones((1, 2)))
    assert sensitivity_at(points, RATES).tolist() == [[0.0] * len(RATES)]
    assert average_precision(points).tolist() == [0.0]
    assert precision_at(points, [0.5]).tolist() == [[0.0]]
    assert rate_needed(points, np.array([[0.0, 0.5]])).tolist() == [[0.0, pytest.approx(math.nan, nan_ok=True)]]


def test_fewer_than_two_women_are_not_resampled():
    value, drawn = resampled(lambda weights: weights * 3.0, women=1, row=1, resamples=50, seed=0)
    assert value.tolist() == [3.0]
    assert drawn.shape == (0, 1)


def test_resamples_do_not_depend_on_how_they_are_put_into_blocks():
    def measure(weights):
        return weights[:, :2]

    small, large = (resampled(measure, women=5, row=row, resamples=300, seed=3)[1] for row in (1, 10_000))
    assert small.shape == (300, 2)
    assert small.tolist() == large.tolist()
