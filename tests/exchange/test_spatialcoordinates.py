"""Spatial coordinates of reports: the standard's pixel corners, and every graphic type."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.spatialcoordinates import CoordinatesError, box_around, box_of, outline_points

ROWS, COLUMNS = 80, 100


def test_the_corners_of_the_image_are_0_0_and_columns_rows() -> None:
    """PS3.3 C.18.6: 0\\0 is the top left corner of the first pixel, Columns\\Rows the bottom right one of the last."""
    corners = outline_points("POLYLINE", [(0, 0), (COLUMNS, 0), (COLUMNS, ROWS), (0, ROWS), (0, 0)], ROWS, COLUMNS)
    assert corners == ((0, 0), (100, 0), (100, 80), (0, 80))
    assert tuple(box_of(corners, ROWS, COLUMNS)) == (0, 0, 100, 80)


def test_an_outline_along_the_edges_of_one_pixel_is_that_pixel() -> None:
    assert tuple(box_of([(7, 3), (8, 3), (8, 4), (7, 4)], ROWS, COLUMNS)) == (7, 3, 8, 4)
    assert tuple(box_of([(7.5, 3.5)], ROWS, COLUMNS)) == (7, 3, 8, 4)


def test_a_point_on_the_last_edge_is_the_last_pixel() -> None:
    assert tuple(box_of([(COLUMNS, ROWS)], ROWS, COLUMNS)) == (99, 79, 100, 80)


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.tuples(st.floats(0, COLUMNS), st.floats(0, ROWS)), min_size=1, max_size=6),
)
def test_a_box_is_the_smallest_that_holds_every_point(points: list[tuple[float, float]]) -> None:
    box = box_of(points, ROWS, COLUMNS)
    assert 0 <= box.x0 < box.x1 <= COLUMNS
    assert 0 <= box.y0 < box.y1 <= ROWS
    for low, high, values in ((box.x0, box.x1, [x for x, _ in points]), (box.y0, box.y1, [y for _, y in points])):
        assert low <= min(values)
        assert max(values) <= high
        assert high - low == 1 or (min(values) < low + 1 and max(values) > high - 1)


def test_a_circle_becomes_a_polygon_as_large() -> None:
    corners = outline_points("CIRCLE", [(50, 40), (50, 60)], ROWS, COLUMNS)
    assert tuple(box_of(corners, ROWS, COLUMNS)) == (30, 20, 70, 60)
    assert all(math.dist(corner, (50, 40)) == pytest.approx(20, abs=2e-3) for corner in corners)


@settings(deadline=None, max_examples=50)
@given(angle=st.floats(0, math.pi), long=st.floats(5, 20), short=st.floats(2, 5))
def test_an_ellipse_has_the_extent_of_its_two_axes(angle: float, long: float, short: float) -> None:
    direction = np.array([math.cos(angle), math.sin(angle)])
    across = np.array([-direction[1], direction[0]])
    middle = np.array([50.0, 40.0])
    ends = [middle - long * direction, middle + long * direction, middle - short * across, middle + short * across]
    corners = np.array(outline_points("ELLIPSE", [(float(x), float(y)) for x, y in ends], ROWS, COLUMNS))
    # Slowly: many points of the same ellipse by its own equation.
    turns = np.linspace(0, 2 * math.pi, 3000)[:, None]
    dense = middle + np.cos(turns) * long * direction + np.sin(turns) * short * across
    assert np.allclose(corners.min(0), dense.min(0), atol=0.15)
    assert np.allclose(corners.max(0), dense.max(0), atol=0.15)
    along, aside = (corners - middle) @ direction / long, (corners - middle) @ across / short
    assert np.allclose(along**2 + aside**2, 1, atol=2e-3)


def test_a_circle_over_the_chest_wall_is_cut_at_the_image() -> None:
    corners = outline_points("CIRCLE", [(5, 40), (25, 40)], ROWS, COLUMNS)
    assert tuple(box_of(corners, ROWS, COLUMNS)) == (0, 20, 25, 60)


@pytest.mark.parametrize(
    ("graphic", "points", "cause"),
    [
        ("POINT", [(50, 81.5)], "not in the image of 100 × 80 pixels"),
        ("POLYLINE", [(50, 40), (-3, 40)], "not in the image"),
        ("CIRCLE", [(150, 40), (151, 40)], "not in the image"),
        ("POINT", [(math.nan, 4)], "not all numbers"),
        ("POLYLINE", [(1, 1), (math.inf, 4)], "not all numbers"),
        ("POINT", [], "POINT has 0 points"),
        ("POINT", [(1, 1), (2, 2)], "POINT has 2 points"),
        ("CIRCLE", [(1, 1)], "CIRCLE has 1 points"),
        ("ELLIPSE", [(1, 1), (2, 2)], "ELLIPSE has 2 points"),
        ("POLYLINE", [], "POLYLINE has 0 points"),
        ("POLYGON", [(1, 1)], "graphic type is POLYGON"),
        (None, [(1, 1)], "graphic type is missing"),
    ],
)
def test_coordinates_that_are_no_place_in_the_image_are_told(
    graphic: str | None, points: list[tuple[float, float]], cause: str
) -> None:
    with pytest.raises(CoordinatesError, match=cause):
        outline_points(graphic, points, ROWS, COLUMNS)


def test_a_point_up_to_one_pixel_outside_is_moved_to_the_border() -> None:
    assert outline_points("POLYLINE", [(-1, 0), (COLUMNS + 1, ROWS)], ROWS, COLUMNS) == ((0, 0), (100, 80))


@settings(deadline=None, max_examples=100)
@given(st.floats(0, COLUMNS), st.floats(0, ROWS), st.floats(0.001, 1000))
def test_a_box_around_a_point_lies_in_the_image_and_holds_the_point(x: float, y: float, side: float) -> None:
    box = box_around((x, y), side, ROWS, COLUMNS)
    assert 0 <= box.x0 <= x <= box.x1 <= COLUMNS
    assert 0 <= box.y0 <= y <= box.y1 <= ROWS
    assert box.width <= side + 2


def test_a_box_around_a_point_has_the_side_that_was_asked_for() -> None:
    assert tuple(box_around((50, 40), 20, ROWS, COLUMNS)) == (40, 30, 60, 50)
