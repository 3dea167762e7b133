"""Boxes and outlines as pixels."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.formats.marks import RowError
from exchange.formats.places import SNAP, pixel_box, pixel_outline, scaled_box

finite = st.floats(-500, 500)


@given(st.tuples(finite, finite, finite, finite))
def test_a_box_covers_what_it_was_given_within_the_image_and_no_pixel_more(corners: tuple[float, ...]) -> None:
    x0, y0, x1, y1 = corners
    try:
        box, note = pixel_box((x0, y0, x1, y1), 300, 200)
    except RowError:
        inside = x0 < x1 and y0 < y1 and x1 > SNAP and y1 > SNAP and x0 < 200 - SNAP and y0 < 300 - SNAP
        assert not inside or max(corners) <= 1
        return
    # The slow way: a pixel is in where more than SNAP of its side is.
    across = [x for x in range(200) if min(x + 1, x1) - max(x, x0) > SNAP]
    down = [y for y in range(300) if min(y + 1, y1) - max(y, y0) > SNAP]
    if x1 - x0 > 1 and y1 - y0 > 1:
        assert (across[0], across[-1] + 1, down[0], down[-1] + 1) == (box.x0, box.x1, box.y0, box.y1)
    assert 0 <= box.x0 < box.x1 <= 200
    assert 0 <= box.y0 < box.y1 <= 300
    assert (note is not None) == (x0 + SNAP < 0 or y0 + SNAP < 0 or x1 - SNAP > 200 or y1 - SNAP > 300)


@pytest.mark.parametrize(
    ("corners", "reason"),
    [
        ((5, 5, 5, 9), "empty or inverted"),
        ((9, 5, 5, 9), "empty or inverted"),
        ((200, 5, 220, 9), "outside the image, which has 200 × 300"),
        ((-20, 5, -1, 9), "outside the image"),
        ((math.nan, 5, 6, 9), "not a finite number"),
        ((0, 0, math.inf, 9), "not a finite number"),
        ((0, 0, 1e300, 9), "outside any image"),
        ((0.1, 0.2, 0.3, 0.4), "shares of the image"),
    ],
)
def test_what_is_no_box_of_the_image_is_refused(corners: tuple[float, float, float, float], reason: str) -> None:
    with pytest.raises(RowError, match=reason):
        pixel_box(corners, 300, 200)


def test_a_single_pixel_and_a_hair_keep_a_width() -> None:
    assert str(pixel_box((0, 0, 1, 1), 300, 200)[0]) == "0,0,1,1"
    assert str(pixel_box((10, 10, 10.001, 20), 300, 200)[0]) == "10,10,11,20"


@given(st.integers(0, 5999), st.integers(1, 6000))
def test_six_digits_of_yolo_give_the_same_pixels(start: int, width: int) -> None:
    end = min(start + width, 6000)
    centre, share = round((start + end) / 2 / 6000, 6), round((end - start) / 6000, 6)
    corners = scaled_box((centre - share / 2, 0.0, centre + share / 2, 1.0), 6000, 6000)
    box, note = pixel_box(corners, 6000, 6000)
    assert (box.x0, box.x1, note) == (start, end, None)


def test_an_outline_is_clipped_and_one_that_encloses_nothing_is_left_out() -> None:
    assert pixel_outline(((-5.0, 0.0), (10.0, 0.0), (10.0, 10.0)), 300, 200) == (
        ((0.0, 0.0), (10.0, 0.0), (10.0, 10.0)),
        "outline clipped to the image",
    )
    assert pixel_outline(((0.0, 0.0), (5.0, 5.0), (10.0, 10.0)), 300, 200)[0] is None
    with pytest.raises(RowError, match="corners"):
        pixel_outline(((0.0, 0.0),) * 20_001, 300, 200)
    with pytest.raises(RowError, match="finite"):
        pixel_outline(((0.0, 0.0), (math.nan, 1.0), (1.0, 0.0)), 300, 200)


def test_pixels_are_not_taken_for_shares() -> None:
    with pytest.raises(RowError, match="are they pixels"):
        scaled_box((10.0, 0.0, 20.0, 1.0), 300, 200)
