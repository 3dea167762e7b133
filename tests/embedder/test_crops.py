from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedder.crops import crop_roi, crop_shape
from embedder.findings import Box
from embedder.preparation import PreparationConfig, PreparationError, Prepared, prepare
from embedder.superresolution import packaged_network


def plain(pixels: np.ndarray, *, spacing_mm: float | None = None, mirrored: bool = False) -> Prepared:
    return Prepared(np.asarray(pixels, np.float32), None, mirrored, spacing_mm, False)


def smooth_picture(rows: int, columns: int) -> np.ndarray:
    """Draw a picture without detail finer than 20 pixels, bright up to its borders."""
    y, x = np.mgrid[:rows, :columns]
    return (0.55 + 0.2 * np.sin(x / 9.0 + y / 23.0) + 0.2 * np.cos(y / 11.0)).astype(np.float32)


def slow_crop(pixels: np.ndarray, x0: float, y0: float, scale: float, height: int, width: int) -> np.ndarray:
    """Average each output pixel's area of the image over 12 × 12 points; zero beyond the image."""
    rows, columns = pixels.shape
    points = (np.arange(12) + 0.5) / 12
    out = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            y = np.floor(y0 + (i + points) * scale).astype(int)
            x = np.floor(x0 + (j + points) * scale).astype(int)
            inside = ((y >= 0) & (y < rows))[:, None] & ((x >= 0) & (x < columns))[None, :]
            values = pixels[np.clip(y, 0, rows - 1)[:, None], np.clip(x, 0, columns - 1)[None, :]]
            out[i, j] = np.where(inside, values, 0).mean()
    return out


BOXES = {
    "middle": Box(150, 90, 190, 120),
    "left": Box(0, 80, 20, 130),
    "right": Box(300, 80, 320, 100),
    "top": Box(100, 0, 160, 10),
    "bottom": Box(100, 230, 160, 240),
    "corner": Box(310, 230, 320, 240),
    "one pixel": Box(160, 120, 161, 121),
    "corner pixel": Box(0, 0, 1, 1),
    "whole image": Box(0, 0, 320, 240),
    "whole row": Box(0, 120, 320, 121),
}


@pytest.mark.parametrize("name", BOXES)
@pytest.mark.parametrize(("height", "width", "margin"), [(40, 40, 1.0), (48, 32, 1.0), (32, 48, 1.25)])
def test_against_a_slow_resampler(name: str, height: int, width: int, margin: float) -> None:
    box, image = BOXES[name], smooth_picture(240, 320)
    config = PreparationConfig(height=height, width=width, context=1.5, floor_pixels=60)
    crop = crop_roi(plain(image), box, config, margin=margin)
    # The shorter side of the crop without margin is context × the finding's longer side, or the floor.
    side = max(1.5 * max(box.width, box.height), 60)
    scale = side / min(height, width)
    rows, columns = crop_shape(config, margin)
    x, y = box.centre
    expected = slow_crop(image, x - columns * scale / 2, y - rows * scale / 2, scale, rows, columns)
    assert crop.pixels.shape == (rows, columns)
    assert crop.pixels.dtype == np.float32
    difference = np.abs(crop.pixels - expected)
    # At the image's border one pixel is part tissue, part padding, and may be so in another share.
    assert np.median(difference) < 0.01
    assert (difference > 0.08).mean() < 0.08
    # The marked place is where the box says, whatever scale the crop has.
    assert crop.box is not None
    x0, y0, x1, y1 = crop.box
    assert (x0 + x1) / 2 == pytest.approx(columns / 2)
    assert (y0 + y1) / 2 == pytest.approx(rows / 2)
    assert (x1 - x0) * scale == pytest.approx(box.width)
    assert (y1 - y0) * scale == pytest.approx(box.height)


@settings(deadline=None, max_examples=50)
@given(
    x0=st.integers(0, 319),
    y0=st.integers(0, 239),
    width=st.integers(1, 320),
    height=st.integers(1, 240),
    mirrored=st.booleans(),
    rows=st.integers(32, 80),
    columns=st.integers(32, 80),
    margin=st.floats(1, 1.6),
    spacing=st.none() | st.floats(0.01, 2),
)
def test_any_box(
    x0: int,
    y0: int,
    width: int,
    height: int,
    mirrored: bool,
    rows: int,
    columns: int,
    margin: float,
    spacing: float | None,
) -> None:
    box = Box(x0, y0, min(320, x0 + width), min(240, y0 + height))
    config = PreparationConfig(height=rows, width=columns, floor_pixels=64, floor_mm=20)
    image = np.zeros((240, 320), np.float32)
    image[box.y0 : box.y1, box.x0 : box.x1] = 1
    image = image[:, ::-1] if mirrored else image
    crop = crop_roi(plain(image, spacing_mm=spacing, mirrored=mirrored), box, config, margin=margin)
    assert crop.pixels.shape == crop_shape(config, margin)
    assert crop.pixels.min() >= 0
    assert crop.pixels.max() <= 1
    assert crop.box is not None
    left, top, right, bottom = crop.box
    # The whole finding is seen, and it is bright where the box says so: its light adds up to its area.
    assert left > -1e-6
    assert top > -1e-6
    assert right < crop.pixels.shape[1] + 1e-6
    assert bottom < crop.pixels.shape[0] + 1e-6
    area = (right - left) * (bottom - top)
    outline = 2 * (right - left + bottom - top) + 4
    assert abs(float(crop.pixels.sum()) - area) <= 0.6 * outline
    if spacing is None:
        assert crop.extent_mm is None
        assert crop.mm_per_pixel is None
    else:
        assert crop.extent_mm is not None
        assert crop.mm_per_pixel == pytest.approx(crop.extent_mm / rows)
        assert (right - left) * crop.mm_per_pixel == pytest.approx(box.width * spacing)
        assert (bottom - top) * crop.mm_per_pixel == pytest.approx(box.height * spacing)


@pytest.mark.parametrize(("height", "width", "extent"), [(64, 64, 30.0), (96, 64, 45.0), (64, 96, 30.0)])
@pytest.mark.parametrize("margin", [1.0, 1.24])
def test_scale_in_millimetres(height: int, width: int, extent: float, margin: float) -> None:
    """A finding of 20 mm with a context of 1.5 asks for 30 mm on the shorter side of the crop."""
    config = PreparationConfig(height=height, width=width, context=1.5, floor_mm=20)
    crop = crop_roi(plain(np.ones((600, 600)), spacing_mm=0.1), Box(200, 250, 400, 350), config, margin=margin)
    assert crop.extent_mm == pytest.approx(extent)
    assert crop.mm_per_pixel == pytest.approx(extent / height)


@pytest.mark.parametrize(("spacing", "side_pixels"), [(0.1, 200), (0.4, 50), (None, 96)])
def test_floor_is_in_millimetres_where_spacing_is_known(spacing: float | None, side_pixels: float) -> None:
    image = np.zeros((400, 400), np.float32)
    half = side_pixels / 2
    image[round(200.5 - half) : round(200.5 + half), round(200.5 - half) : round(200.5 + half)] = 1
    config = PreparationConfig(height=64, width=64, floor_mm=20.0, floor_pixels=96)
    crop = crop_roi(plain(image, spacing_mm=spacing), Box(200, 200, 201, 201), config)
    # The bright square is as large as the crop should be: the crop is bright up to its edge.
    assert crop.pixels[4:-4, 4:-4].min() > 0.99
    wider = PreparationConfig(height=64, width=64, floor_mm=30.0, floor_pixels=144)
    assert crop_roi(plain(image, spacing_mm=spacing), Box(200, 200, 201, 201), wider).pixels[:8].max() < 0.01


def test_borders_are_padded_and_not_distorted() -> None:
    image = np.ones((200, 200), np.float32)
    config = PreparationConfig(height=64, width=64, context=2.0, floor_pixels=40)
    crop = crop_roi(plain(image), Box(0, 0, 64, 64), config)
    # 128 pixels on 64: 32 of the 128 lie beyond the left and upper border.
    assert crop.pixels[:15].max() == 0
    assert crop.pixels[:, :15].max() == 0
    assert crop.pixels[17:, 17:].min() > 0.99


@pytest.mark.parametrize("granularity", ["finding", "breast"])
@pytest.mark.parametrize("margin", [1.1, 1.24, 1.5])
def test_the_middle_of_a_crop_with_margin_is_the_crop_without(granularity: str, margin: float) -> None:
    image = smooth_picture(240, 320)
    mask = np.zeros((240, 320), np.bool_)
    mask[30:220, 0:150] = True
    prepared = Prepared(image, mask, False, 0.2, True)
    config = PreparationConfig(granularity=granularity, height=66, width=50, context=1.3)  # type: ignore[arg-type]
    box = Box(90, 100, 130, 150) if granularity == "finding" else None
    small, large = crop_roi(prepared, box, config), crop_roi(prepared, box, config, margin=margin)
    top, left = (large.pixels.shape[0] - 66) // 2, (large.pixels.shape[1] - 50) // 2
    assert np.abs(large.pixels[top : top + 66, left : left + 50] - small.pixels).mean() < 0.01
    assert large.extent_mm == pytest.approx(small.extent_mm)
    assert large.mm_per_pixel == pytest.approx(small.mm_per_pixel)


def test_a_whole_breast_stands_at_the_left_edge() -> None:
    pixels = np.zeros((300, 400), np.float32)
    mask = np.zeros((300, 400), np.bool_)
    mask[50:250, 40:140] = True
    pixels[mask] = 1
    config = PreparationConfig(granularity="breast", height=100, width=80, context=1.0)
    crop = crop_roi(Prepared(pixels, mask, False, 0.5, True), None, config)
    # 200 rows on 100: the breast's 100 columns are the left 50 of 80.
    assert crop.pixels[1:-1, 1:49].min() > 0.99
    assert crop.pixels[:, 51:].max() == 0
    assert crop.extent_mm == pytest.approx(100.0)
    assert crop.box is None
    centred = crop_roi(
        Prepared(pixels, mask, False, 0.5, True),
        None,
        PreparationConfig(granularity="breast", height=100, width=80, context=1.0, chest_wall_left=False),
    )
    assert centred.pixels[1:-1, 16:64].min() > 0.99


def test_a_wide_breast_is_seen_whole() -> None:
    mask = np.zeros((300, 400), np.bool_)
    mask[100:200, 0:300] = True
    config = PreparationConfig(granularity="breast", height=96, width=64, context=1.0)
    crop = crop_roi(Prepared(mask.astype(np.float32), mask, False, None, True), None, config)
    lit = crop.pixels > 0.5
    # 300 columns on 64; 100 rows on 100 · 64 / 300.
    assert lit.any(axis=0).sum() == pytest.approx(64, abs=1)
    assert lit.any(axis=1).sum() == pytest.approx(100 * 64 / 300, abs=1)


def test_without_a_breast_the_whole_image_is_shown() -> None:
    config = PreparationConfig(granularity="breast", height=64, width=64, context=1.0)
    nothing = np.zeros((100, 100), np.bool_)
    crop = crop_roi(Prepared(np.ones((100, 100), np.float32), nothing, False, None, False), None, config)
    assert crop.pixels.min() > 0.99


def test_outside_the_breast_is_blank_but_what_was_marked_is_not() -> None:
    pixels = np.full((200, 200), 0.7, np.float32)
    mask = np.zeros((200, 200), np.bool_)
    mask[:, :100] = True
    config = PreparationConfig(height=64, width=64, context=2.0, floor_pixels=33)
    box = Box(90, 84, 122, 116)
    seen = crop_roi(Prepared(pixels, mask, False, None, True), box, config).pixels
    assert np.abs(seen[:, :18] - 0.7).max() < 0.01  # breast
    assert np.abs(seen[18:46, 18:46] - 0.7).max() < 0.01  # marked
    assert seen[:, 50:].max() == 0
    everything = crop_roi(Prepared(pixels, mask, False, None, False), box, config).pixels
    assert np.abs(everything - 0.7).max() < 0.01
    assert pixels.min() == np.float32(0.7)
    assert not mask[:, 100:].any()


def test_shrinking_does_not_alias() -> None:
    """A fine checkerboard becomes an even grey."""
    board = (np.indices((800, 800)).sum(axis=0) % 2).astype(np.float32)
    crop = crop_roi(plain(board), Box(100, 100, 661, 660), PreparationConfig(height=64, width=64))
    assert np.abs(crop.pixels[8:-8, 8:-8] - 0.5).max() < 0.05


def test_a_window_far_beyond_the_image_costs_no_memory() -> None:
    """A spacing of 0.1 µm in a file asks for a window of 200 million pixels a side."""
    crop = crop_roi(
        plain(np.ones((100, 100)), spacing_mm=0.0001), Box(40, 40, 60, 60), PreparationConfig(height=64, width=64)
    )
    assert crop.pixels.shape == (64, 64)
    assert crop.mm_per_pixel is not None


@pytest.mark.parametrize(
    "box", [Box(-1, 0, 10, 10), Box(0, -1, 10, 10), Box(90, 0, 101, 10), Box(0, 70, 10, 81), Box(500, 500, 600, 600)]
)
def test_boxes_outside_are_refused(box: Box) -> None:
    with pytest.raises(PreparationError, match="does not lie inside the image of 100 × 80 pixels"):
        crop_roi(plain(np.ones((80, 100))), box, PreparationConfig())


def test_box_and_granularity_must_agree() -> None:
    prepared = prepare(np.ones((80, 100), np.float32), PreparationConfig())
    with pytest.raises(PreparationError, match="needs a box"):
        crop_roi(prepared, None, PreparationConfig())
    with pytest.raises(PreparationError, match="whole breast"):
        crop_roi(prepared, Box(0, 0, 9, 9), PreparationConfig(granularity="breast"))


def enlarging(**options: object) -> PreparationConfig:
    options = {"height": 64, "width": 64, "floor_pixels": 33, **options}
    return PreparationConfig(super_resolution="srcnn-rsna", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", BOXES)
@pytest.mark.parametrize(("height", "width", "margin"), [(96, 96, 1.0), (80, 64, 1.25)])
def test_enlarged_by_the_network_every_place_stays_where_it_was(
    name: str, height: int, width: int, margin: float
) -> None:
    """A smooth picture has nothing to be added: interpolated or enlarged by a network, it is the same."""
    box, image = BOXES[name], smooth_picture(240, 320)
    config = enlarging(height=height, width=width)
    crop = crop_roi(plain(image), box, config, margin=margin)
    linear = crop_roi(plain(image), box, replace(config, super_resolution="none"), margin=margin)
    assert (crop.box, crop.pixels.shape) == (linear.box, linear.pixels.shape)
    # At the border of the image a pixel is part tissue, part padding, and may be so in another share.
    inside = cv2.erode((linear.pixels > 0.05).astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
    assert inside[2:-2, 2:-2].mean() > 0.1

    def error(down: int, across: int) -> float:
        moved = np.roll(crop.pixels, (down, across), (0, 1))
        return float(np.abs(moved - linear.pixels)[inside].mean())

    assert error(0, 0) * 3 < min(error(0, 1), error(0, -1), error(1, 0), error(-1, 0))


def test_only_what_is_enlarged_is_changed() -> None:
    image = np.random.default_rng(5).random((240, 320), dtype=np.float32)
    config, box = enlarging(context=1.0), Box(100, 100, 164, 164)
    for shown, changed in ((Box(100, 100, 163, 163), True), (box, False), (Box(90, 90, 190, 190), False)):
        crop = crop_roi(plain(image), shown, config)
        linear = crop_roi(plain(image), shown, replace(config, super_resolution="none"))
        assert (not np.array_equal(crop.pixels, linear.pixels)) is changed


def test_the_network_sees_what_lies_around_and_blanks_nothing_twice() -> None:
    """What lies outside the breast is blank after enlarging; the breast beside it does not ring."""
    pixels = np.full((200, 200), 0.7, np.float32)
    mask = np.zeros((200, 200), np.bool_)
    mask[:, :100] = True
    box = Box(84, 84, 104, 104)
    crop = crop_roi(Prepared(pixels, mask, False, None, True), box, enlarging(context=2.0, floor_pixels=40))
    assert crop.box is not None
    right = round(crop.box[2])
    assert np.abs(crop.pixels[:, : right - 8] - 0.7).max() < 0.02
    assert np.abs(crop.pixels[18:46, : right - 2] - 0.7).max() < 0.02  # marked
    assert crop.pixels[:, right + 2 :].max() == 0


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 59), st.integers(0, 39), st.integers(1, 30), st.integers(1, 30))
def test_any_small_box_is_enlarged(x0: int, y0: int, width: int, height: int) -> None:
    """The part that is enlarged is what the whole image, enlarged, has there."""
    image = np.random.default_rng(6).random((40, 60), dtype=np.float32)
    box = Box(x0, y0, min(60, x0 + width), min(40, y0 + height))
    crop = crop_roi(plain(image), box, enlarging(context=1.0))
    whole = packaged_network("srcnn-rsna").enlarge(image)
    # The same window of the film at twice its size, twice as large in pixels of it.
    twice = Box(2 * box.x0, 2 * box.y0, 2 * box.x1, 2 * box.y1)
    expected = crop_roi(plain(whole), twice, replace(enlarging(context=1.0), super_resolution="none", floor_pixels=66))
    inside = np.abs(crop.pixels - expected.pixels)
    # Where the window is cut differs by a pixel, and so does the averaging of areas at its edge.
    assert np.median(inside) < 0.06
