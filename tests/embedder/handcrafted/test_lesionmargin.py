import cv2
import numpy as np
import pytest

from embedder.handcrafted.lesionmargin import MARGIN_NAMES, describe_margin
from embedder.handcrafted.patches import Patch
from embedder.handcrafted.segmentation import Lesion, even_outline, segment_lesion

SIDE, MM = 128, 0.25
ROWS, COLUMNS = np.mgrid[:SIDE, :SIDE] - 63.5
ANGLE, RADIUS = np.arctan2(ROWS, COLUMNS), np.hypot(ROWS, COLUMNS)
DISC = RADIUS <= 30


def patch(pixels: np.ndarray, mm: float = MM) -> Patch:
    return Patch(np.asarray(pixels, np.float32), np.ones((SIDE, SIDE), np.bool_), mm, (24.0, 24.0, 104.0, 104.0))


def lesion(mask: np.ndarray, radial_index: float = 0.5) -> Lesion:
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return Lesion(mask, even_outline(contours[0][:, 0]), radial_index, True)


def margin(pixels: np.ndarray, mask: np.ndarray = DISC, mm: float = MM) -> dict[str, float]:
    values = describe_margin(patch(pixels, mm), lesion(mask))
    assert tuple(values) == MARGIN_NAMES
    return values


def blurred(mask: np.ndarray, sigma: float, contrast: float = 0.4) -> np.ndarray:
    return cv2.GaussianBlur(0.3 + contrast * mask, (0, 0), sigma)


def test_sharp_and_blurred() -> None:
    sharp, soft, softer = (margin(blurred(DISC, sigma)) for sigma in (1.0, 3.0, 6.0))
    for name, rises in (("slope_mean", False), ("gradient_mean", False), ("acutance", False), ("width", True)):
        ordered = [values[name] for values in (sharp, soft, softer)]
        assert ordered == sorted(ordered, reverse=not rises), name
        assert abs(ordered[0] - ordered[2]) > 0.3 * max(ordered), name
    assert sharp["width_mm"] < soft["width_mm"] < softer["width_mm"]


def test_known_contrast_and_slope() -> None:
    # A cone falls by the same amount everywhere: 0.01 a pixel over a reach of 0.4 · 30 pixels.
    values = margin(np.clip(0.8 - 0.01 * RADIUS, 0, 1))
    assert values["slope_mean"] == pytest.approx(0.01 * 12, rel=0.03)
    assert values["slope_std"] < 0.005
    assert values["gradient_mean"] == pytest.approx(0.01 * 12, rel=0.03)
    # Inside samples lie on average 6.6 pixels further in than the outline, outside ones as far out.
    assert values["contrast_mean"] == pytest.approx(0.01 * 13.2, rel=0.03)
    assert values["contrast_std"] < 0.005
    assert values["width"] == pytest.approx(1.1, rel=0.03)
    assert values["width_mm"] == pytest.approx(1.1 * 12 * MM, rel=0.03)
    # Rangayyan's slopes of a cone are all 0.01; the brightest sample lies at radius 18.
    assert values["acutance"] == pytest.approx(0.01 * 12 / 0.62, rel=0.03)
    assert values["radial_index"] == 0.5


def test_width_is_the_only_length() -> None:
    fine, coarse = margin(blurred(DISC, 2.0), mm=0.1), margin(blurred(DISC, 2.0), mm=0.2)
    assert coarse.pop("width_mm") == pytest.approx(2 * fine.pop("width_mm"))
    assert coarse == fine


def test_an_obscured_half_is_uneven() -> None:
    image = blurred(DISC, 1.5)
    half = np.where(COLUMNS < 0, image, image[64, 64])
    whole, obscured = margin(image), margin(half)
    assert obscured["contrast_low"] < 0.1 < whole["contrast_low"]
    assert obscured["contrast_std"] > whole["contrast_std"] + 0.1
    assert obscured["slope_std"] > whole["slope_std"] + 0.1


def test_gradients_scatter_about_the_radial_direction() -> None:
    disc = margin(blurred(DISC, 2.0))
    noise = margin(np.clip(0.5 + np.random.default_rng(1).normal(0, 0.2, (SIDE, SIDE)), 0, 1))
    flat = margin(np.full((SIDE, SIDE), 0.4))
    assert disc["radial_spread_rim"] < 0.02
    assert noise["radial_spread_rim"] > 0.9
    assert noise["radial_spread_inside"] > 0.9
    assert flat["radial_spread_rim"] == flat["radial_spread_inside"] == 1


def test_spicules_show() -> None:
    star = np.maximum(RADIUS <= 18, (np.abs(np.sin(6 * ANGLE)) * RADIUS < 4) & (RADIUS < 50))
    generator = np.random.default_rng(2)
    values = []
    for mask in (RADIUS <= 26, star):
        seen = patch(blurred(mask, 1.0) + cv2.GaussianBlur(generator.normal(0, 0.06, (SIDE, SIDE)), (0, 0), 1.0))
        values.append(describe_margin(seen, segment_lesion(seen)))
    smooth, spiculated = values
    assert spiculated["line_concentration"] > smooth["line_concentration"] + 0.3
    assert spiculated["radial_spread_rim"] > smooth["radial_spread_rim"] + 0.1
    assert spiculated["radial_index"] < smooth["radial_index"]


def test_turned_by_ninety_degrees() -> None:
    generator = np.random.default_rng(5)
    mask = (COLUMNS / 36) ** 2 + (ROWS / 24) ** 2 <= 1
    image = blurred(mask, 2.0) + cv2.GaussianBlur(generator.normal(0, 0.1, (SIDE, SIDE)), (0, 0), 2.0)
    one = margin(image, mask)
    two = margin(np.rot90(image), np.ascontiguousarray(np.rot90(mask)))
    for name in MARGIN_NAMES:
        assert two[name] == pytest.approx(one[name], rel=0.05, abs=0.03), name


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("size", [1, 3, 40, 64])
def test_one_grey_and_any_size(value: float, size: int) -> None:
    mask = np.zeros((SIDE, SIDE), np.bool_)
    mask[64 - size : 64 + size, 64 - size : 64 + size] = True
    values = margin(np.full((SIDE, SIDE), value), mask)
    assert np.isfinite(list(values.values())).all()
    assert values["contrast_mean"] == values["acutance"] == values["width"] == 0
