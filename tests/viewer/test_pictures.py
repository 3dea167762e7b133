"""Crops against numpy: scale, place, level, and what comes where the image is not here."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedder.crops import Window
from tests.viewer.readingroom import BOX, Room
from tests.viewer.test_pyramid import pyramid_of
from viewer import ViewerError
from viewer.pictures import CropRequest, cut, from_pyramid, side_in_pixels, suggested_mm
from viewer.questionbody import check_box


@settings(max_examples=50)
@given(top=st.integers(-20, 60), left=st.integers(-20, 60), side=st.integers(4, 40), factor=st.sampled_from([1, 2, 5]))
def test_whole_steps_are_means_of_blocks(top: int, left: int, side: int, factor: int) -> None:
    pixels = np.random.default_rng(side).integers(0, 65536, (64, 72)).astype(np.uint16)
    size = side * factor
    padded = np.zeros((64 + 400, 72 + 400), np.float64)
    padded[200:264, 200:272] = pixels
    part = padded[200 + top : 200 + top + size, 200 + left : 200 + left + size]
    expected = part.reshape(side, factor, side, factor).mean(axis=(1, 3))
    assert np.abs(cut(pixels, Window(left, top, size, size), side) - expected).max() <= 1


@given(x0=st.floats(-30, 80), y0=st.floats(-30, 80), width=st.floats(3, 120), side=st.integers(2, 30))
def test_any_window_is_close_to_the_means_of_its_areas(x0: float, y0: float, width: float, side: int) -> None:
    y, x = np.mgrid[:64, :72]
    pixels = (30000 + 200 * x - 150 * y).astype(np.uint16)
    shown = cut(pixels, Window(x0, y0, width, width), side)
    middles = (np.arange(side) + 0.5) * width / side - 0.5
    expected = 30000 + 200 * (x0 + middles)[None] - 150 * (y0 + middles)[:, None]
    reach = width / side + 1
    inside = ((y0 + middles >= reach) & (y0 + middles <= 63 - reach))[:, None]
    inside = inside & ((x0 + middles >= reach) & (x0 + middles <= 71 - reach))[None]
    assert np.abs(shown - expected)[inside].max(initial=0) < 30  # a plane's mean is its middle's value


def test_an_enlarged_ramp_stays_a_ramp() -> None:
    pixels = np.tile((np.arange(100) * 100).astype(np.uint16), (50, 1))
    shown = cut(pixels, Window(40, 20, 10, 10), 40).astype(np.int64)
    expected = (40 + (np.arange(40) + 0.5) / 4 - 0.5) * 100
    assert np.abs(shown - expected).max() <= 4  # OpenCV places to 1/32 of a pixel


def test_a_level_is_as_good_as_the_image() -> None:
    y, x = np.mgrid[:1300, :1100]
    pixels = (20000 + 8000 * np.sin(x / 60) + 8000 * np.cos(y / 80)).astype(np.uint16)
    pyramid = pyramid_of(pixels)
    window = Window(100, 200, 800, 800)
    through_level = from_pyramid(pyramid, window, 150).astype(int)
    assert np.abs(through_level - cut(pixels, window, 150).astype(int)).max() < 400


def test_sides_and_one_extent_for_all() -> None:
    assert side_in_pixels((0, 0, 100, 40), (500, 400), 0.1, 50.0) == 500
    assert side_in_pixels((0, 0, 100, 40), (500, 400), 0.1, None) == 200  # 20 mm at least
    assert side_in_pixels((0, 0, 100, 40), (500, 400), None, 50.0) == 150  # no scale: the box with context
    assert side_in_pixels(None, (500, 400), None, None) == 500
    small, large = (0, 0, 10, 10), (0, 0, 400, 100)
    assert suggested_mm([(small, None, 0.1), (large, None, 0.1)]) == 60.0
    assert suggested_mm([(small, None, 0.1), (large, None, None)]) == 20.0
    assert suggested_mm([((0, 0, 4000, 10), None, 0.1)]) == 100.0
    assert suggested_mm([(None, (2500, 2000), 0.1)]) == 250.0
    assert suggested_mm([(small, None, None), (None, None, 0.1)]) is None


@pytest.mark.parametrize("box", [(0, 0, 0, 5), (5, 5, 4, 9), (-1, 0, 5, 5), (0, 0, 41, 5), (0, 0, 5, 51)])
def test_boxes_that_are_none(box: tuple[int, int, int, int]) -> None:
    with pytest.raises(ViewerError, match="empty or does not lie inside"):
        check_box(box, 50, 40)


def test_requests_that_are_none() -> None:
    for mm, pixels in ((float("nan"), 256), (0.5, 256), (20.0, 4096), (20.0, 1)):
        with pytest.raises(ViewerError, match="out of range"):
            CropRequest(mm, pixels)


def pixels_of(response: object) -> np.ndarray:
    headers, content = response.headers, response.content  # type: ignore[attr-defined]
    return np.frombuffer(content, "<u2").reshape(int(headers["x-rows"]), int(headers["x-columns"]))


def test_crops_of_rows_and_images_are_the_same_picture(room: Room) -> None:
    by_row = room.client.get("/rows/w3-0/crop?mm=20&pixels=50")
    x0, y0, x1, y1 = BOX
    by_image = room.client.get(f"/images/{room.image(3)}/crop?x0={x0}&y0={y0}&x1={x1}&y1={y1}&mm=20&pixels=50")
    assert by_row.headers["x-source"] == "image"
    assert by_row.content == by_image.content
    assert float(by_row.headers["x-mm-per-pixel"]) == pytest.approx(0.4)
    assert [float(one) for one in by_row.headers["x-box"].split(",")] == [13, 13, 37, 37]
    stored = room.state.desk.pyramids.ask(
        room.state.desk.pyramids.version(room.state.catalogue.entry(room.image(3)).path)
    ).result(10)
    assert (pixels_of(by_row) == stored.levels[0][35:85, 0:50]).all()
    again = room.client.get("/rows/w3-0/crop?mm=20&pixels=50", headers={"if-none-match": by_row.headers["etag"]})
    assert again.status_code == 304
    assert not again.content


def test_rows_of_a_dicom_file_are_cut_without_decoding_it(room: Room) -> None:
    image = next(one for one in room.state.catalogue.studies(10).values() if one.woman == "V77").images[0].image
    entry = room.state.catalogue.detailed(image)
    pyramids = room.state.desk.pyramids
    request = CropRequest(8.0, 20)
    decoded = pyramids.ask(pyramids.version(entry.path)).result(10)
    first = room.state.desk.pictures.of_image(entry, (20, 50, 30, 60), request)
    pyramids._kept.clear()
    second = room.state.desk.pictures.of_image(entry, (20, 50, 30, 60), request)
    assert pyramids.kept(pyramids.version(entry.path)) is None
    assert (first.pixels == second.pixels).all()
    assert (first.pixels == decoded.levels[0][45:65, 15:35]).all()
