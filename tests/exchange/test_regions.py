"""Places of findings in the coordinates of structured reports."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from exchange import ExchangeError
from exchange.regions import MOST_CORNERS, closed_line, frame_of, place_of
from tests.exchange.report_cases import COLUMNS, OPINION, ROWS, boxes, some_image


def test_the_box_of_a_pixel_is_its_corners():
    line = closed_line(replace(OPINION, box=(0, 0, 1, 1)), some_image())
    assert line.tolist() == [[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]]


def test_the_box_of_the_whole_image_ends_at_its_columns_and_rows():
    line = closed_line(replace(OPINION, box=(0, 0, COLUMNS, ROWS)), some_image())
    assert line.max(axis=0).tolist() == [COLUMNS, ROWS]


@settings(deadline=None)
@given(box=boxes)
def test_a_box_comes_back_from_its_line(box):
    assert place_of(closed_line(replace(OPINION, box=box), some_image())) == (box, None)


def test_an_outline_goes_before_the_box_and_is_closed_once():
    outline = ((10.25, 20.5), (50.0, 21.0), (30.0, 90.75))
    line = closed_line(replace(OPINION, outline=outline), some_image())
    assert line.tolist() == [*map(list, outline), list(outline[0])]
    closed = closed_line(replace(OPINION, outline=(*outline, outline[0])), some_image())
    assert np.array_equal(line, closed)
    assert place_of(line) == ((10, 20, 50, 91), outline)


def test_two_corners_are_no_outline():
    line = closed_line(replace(OPINION, outline=((1.0, 1.0), (9.0, 9.0))), some_image())
    assert place_of(line) == (OPINION.box, None)
    assert closed_line(replace(OPINION, box=None, outline=()), some_image()) is None


def test_what_hangs_over_the_edge_is_cut_at_the_edge():
    line = closed_line(replace(OPINION, box=(-5, 390, 20, 430)), some_image())
    assert place_of(line)[0] == (0, 390, 20, ROWS)


@pytest.mark.parametrize("box", [(-9, 0, 0, 9), (COLUMNS, 0, COLUMNS + 9, 9), (0, ROWS, 9, ROWS + 1)])
def test_what_lies_beside_the_image_is_refused(box):
    with pytest.raises(ExchangeError, match="does not lie on its 300 × 400 pixels"):
        closed_line(replace(OPINION, box=box), some_image())


@pytest.mark.parametrize("corners", [MOST_CORNERS - 1, MOST_CORNERS, MOST_CORNERS + 1, 3 * MOST_CORNERS + 1])
def test_a_long_outline_is_thinned_until_it_fits_into_an_element(corners):
    angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    outline = tuple(zip((150 + 100 * np.cos(angle)).tolist(), (200 + 100 * np.sin(angle)).tolist(), strict=True))
    line = closed_line(replace(OPINION, outline=outline), some_image())
    assert line.size * 4 <= 65_534
    assert np.abs(np.hypot(*(line - [150, 200]).T) - 100).max() < 0.01
    assert len(line) > MOST_CORNERS / 2


def test_frames_are_named_where_there_are_several():
    assert frame_of(replace(OPINION, frame_number=1), some_image()) is None
    assert frame_of(replace(OPINION, frame_number=2), some_image(NumberOfFrames=2)) == 2
    assert frame_of(OPINION, some_image(NumberOfFrames=1)) is None
