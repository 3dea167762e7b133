import numpy as np
import pytest

from embedder.findings import Box
from embedder.handcrafted.patches import NOMINAL_HEIGHT_MM, cut_patch, nominal_spacing
from embedder.preparation import Prepared


def prepared(pixels: np.ndarray, mask: np.ndarray | None = None, **options: object) -> Prepared:
    given = {"mirrored": False, "spacing_mm": None, "blank_outside": mask is not None, **options}
    return Prepared(np.asarray(pixels, np.float32), mask, **given)  # type: ignore[arg-type]


def test_scale_and_place_of_a_box() -> None:
    patch = cut_patch(
        prepared(np.zeros((200, 300)), spacing_mm=0.5), Box(100, 80, 140, 100), side=96, context=1.5, floor_mm=10.0
    )
    assert patch.side == 96
    # 40 pixels of 0.5 mm, and half as much around, on 96 pixels.
    assert patch.mm_per_pixel == pytest.approx(40 * 0.5 * 1.5 / 96)
    assert patch.box == pytest.approx((16, 32, 80, 64))
    across, down = patch.from_centre()
    assert (across[0, 0], across[0, -1], down[0, 0], down[-1, 0]) == (-47.5, 47.5, -47.5, 47.5)


def test_the_floor_widens_a_small_box() -> None:
    image = prepared(np.zeros((200, 300)), spacing_mm=0.5)
    patch = cut_patch(image, Box(100, 80, 102, 82), side=64, context=1.5, floor_mm=16.0)
    assert patch.mm_per_pixel == pytest.approx(16 / 64)


def test_an_unknown_spacing_is_that_of_a_breast_of_ordinary_height() -> None:
    mask = np.zeros((100, 80), np.bool_)
    mask[20:70, :30] = True
    assert nominal_spacing(prepared(np.zeros((100, 80)))) == NOMINAL_HEIGHT_MM / 100
    assert nominal_spacing(prepared(np.zeros((100, 80)), mask)) == NOMINAL_HEIGHT_MM / 50
    assert nominal_spacing(prepared(np.zeros((100, 80)), np.zeros_like(mask))) == NOMINAL_HEIGHT_MM / 100
    assert nominal_spacing(prepared(np.zeros((100, 80)), mask, spacing_mm=0.1)) == 0.1


def test_beyond_image_and_breast_the_nearest_pixel_goes_on() -> None:
    rows, columns = np.mgrid[:120, :100]
    mask = columns < 60
    image = np.where(mask, 0.2 + 0.005 * rows, 1.0)
    patch = cut_patch(prepared(image, mask, spacing_mm=1.0), Box(30, 0, 50, 20), side=80, context=4.0, floor_mm=10.0)
    # No step at the top of the image, nor at the end of the breast.
    assert np.abs(np.diff(patch.pixels, axis=0)).max() < 0.02
    assert np.abs(np.diff(patch.pixels, axis=1)).max() < 0.02
    # The window spans columns 0 to 80 and rows −30 to 50.
    assert patch.valid[31:, :59].all()
    assert not patch.valid[:29].any()
    assert not patch.valid[:, 61:].any()


def test_a_marked_place_beside_the_breast_is_valid() -> None:
    mask = np.zeros((100, 100), np.bool_)
    mask[:, :30] = True
    image = np.where(mask, 0.5, 0.1)
    image[48:52, 68:72] = 0.9
    # Partly in the breast: all of the box, and what is breast around it. Beside it: whatever the image shows.
    for marked, around in ((Box(15, 40, 35, 60), False), (Box(60, 40, 80, 60), True)):
        patch = cut_patch(prepared(image, mask, spacing_mm=1.0), marked, side=60, context=1.5, floor_mm=10.0)
        assert patch.valid[11:49, 11:49].all()
        assert patch.valid[:, 54:].any() == around
    assert patch.pixels.max() > 0.85
    for box in (Box(99, 99, 100, 100), Box(60, 0, 61, 1)):
        tiny = cut_patch(prepared(image, mask, spacing_mm=0.01), box, side=64, context=1.5, floor_mm=100.0)
        assert tiny.valid.any()


def test_mirrored_images_are_cut_where_the_finding_is() -> None:
    image = np.zeros((100, 100), np.float32)
    image[40:60, 10:30] = 1
    box = Box(10, 40, 30, 60)
    seen = prepared(np.ascontiguousarray(image[:, ::-1]), spacing_mm=1.0, mirrored=True)
    patch = cut_patch(seen, box, side=64, context=1.0, floor_mm=1.0)
    # At its edge the interpolation looks at what lies beside.
    assert patch.pixels[2:-2, 2:-2].min() > 0.99
