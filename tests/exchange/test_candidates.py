import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedder.dense import DensePlaces
from exchange.candidates import ScoredScale, find_peaks, heat_map, square, tissue_around
from exchange.matching import iou
from exchange.scales import Scale

SHAPE = (200, 160)


def scored(plane, box=20.0, step=10.0, corner=(20, 30), mirrored=False):
    """A scale whose places are the cells of a plane that are not NaN."""
    cells = np.argwhere(~np.isnan(plane))
    vectors = np.zeros((len(cells), 2), np.float32)
    places = DensePlaces(vectors, cells, plane.shape, corner, step, mirrored, SHAPE[1])
    return ScoredScale(Scale(1.5 * box, box), places, plane[~np.isnan(plane)].astype(np.float64))


def bump(rows, columns, row, column, height=3.0):
    y, x = np.mgrid[:rows, :columns]
    return height - np.hypot(y - row, x - column)


@pytest.mark.parametrize("mirrored", [False, True])
def test_the_box_of_a_peak_stands_around_its_place_on_the_stored_image(mirrored):
    [peak] = find_peaks([scored(bump(12, 9, 4, 6), mirrored=mirrored)], SHAPE, overlap=0.5, most=5)
    x = 20 + 6 * 10
    x = SHAPE[1] - x if mirrored else x
    assert list(peak.box) == [x - 10, 60, x + 10, 80]
    assert peak.log_odds == 3


def test_the_best_of_overlapping_peaks_of_several_scales_is_kept():
    small, large = scored(bump(12, 9, 4, 6, 2.0)), scored(bump(12, 9, 4, 6, 5.0), box=24.0)
    [peak] = find_peaks([small, large], SHAPE, overlap=0.5, most=5)
    assert peak.box.width == 24
    # A box of half the side covers a quarter of the other: these are two places until a smaller overlap says no.
    tiny = scored(bump(12, 9, 4, 6, 2.0), box=12.0)
    assert len(find_peaks([tiny, large], SHAPE, overlap=0.5, most=5)) == 2
    assert len(find_peaks([tiny, large], SHAPE, overlap=0.1, most=5)) == 1


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1), st.integers(1, 8), st.sampled_from([0.0, 0.1, 0.5]))
def test_peaks_are_ordered_lie_in_the_image_and_do_not_overlap_more_than_allowed(seed, most, overlap):
    generator = np.random.default_rng(seed)
    plane = np.where(generator.random((15, 11)) < 0.2, np.nan, generator.normal(size=(15, 11)).round(1))
    peaks = find_peaks([scored(plane), scored(plane, box=55.0)], SHAPE, overlap=overlap, most=most)
    odds = [peak.log_odds for peak in peaks]
    assert odds == sorted(odds, reverse=True)
    assert odds[0] == np.nanmax(plane)
    assert len(peaks) <= most
    boxes = np.array([list(peak.box) for peak in peaks])
    assert (boxes >= 0).all()
    assert (boxes[:, [2, 3]] <= [SHAPE[1], SHAPE[0]]).all()
    assert (iou(boxes, boxes)[~np.eye(len(boxes), dtype=bool)] <= overlap).all()


def test_no_places_give_no_peaks_and_a_cold_map():
    nothing = scored(np.full((3, 3), np.nan))
    assert find_peaks([nothing], SHAPE, overlap=0.1, most=5) == []
    assert find_peaks([], SHAPE, overlap=0.1, most=5) == []
    assert not heat_map([nothing], SHAPE).any()


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("shape", [SHAPE, (1600, 1280)])
def test_the_map_is_hottest_where_the_odds_are_highest(mirrored, shape):
    one = scored(bump(12, 9, 4, 6) - 2, mirrored=mirrored)
    factor = shape[0] / SHAPE[0]
    places = DensePlaces(
        one.places.vectors, one.places.cells, one.places.shape, (int(20 * factor), int(30 * factor)), 10 * factor,
        mirrored, shape[1],
    )  # fmt: skip
    heat = heat_map([ScoredScale(one.scale, places, one.log_odds)], shape)
    assert max(heat.shape) == min(512, max(shape))
    assert heat.min() >= 0
    assert heat.max() == pytest.approx(1 / (1 + np.exp(-1)), abs=0.03)
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    x, y = (column + 0.5) * shape[1] / heat.shape[1], (row + 0.5) * shape[0] / heat.shape[0]
    wanted = (80 if not mirrored else SHAPE[1] - 80) * factor, 70 * factor
    assert np.hypot(x - wanted[0], y - wanted[1]) < 4 * factor


def test_boxes_lie_in_the_tissue_to_three_quarters_and_may_touch_the_chest_wall():
    tissue = np.zeros(SHAPE, np.bool_)
    tissue[:, :80] = True
    where = tissue_around(tissue, 40)
    # A box around column x reaches from x - 20 to x + 20: at 70 three quarters of it are tissue.
    assert where[:, :70].all()
    assert not where[:, 72:].any()
    assert (tissue_around(tissue, 1) == tissue).all()
    assert not tissue_around(np.zeros(SHAPE, np.bool_), 40).any()


def test_a_box_beyond_the_image_is_none():
    assert square(-30, 5, 20, SHAPE) is None
