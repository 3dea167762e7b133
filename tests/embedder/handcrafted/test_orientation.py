import math

import cv2
import numpy as np
import pytest

from embedder.handcrafted.orientation import HGD_NAMES, STELLATE_NAMES, describe_divergence, describe_stellate
from embedder.handcrafted.patches import Patch

SIDE = 128
ROWS, COLUMNS = np.mgrid[:SIDE, :SIDE] - 63.5
ANGLE, RADIUS = np.arctan2(ROWS, COLUMNS), np.hypot(ROWS, COLUMNS)


def patch(pixels: np.ndarray, valid: np.ndarray | None = None) -> Patch:
    shown = np.ones((SIDE, SIDE), np.bool_) if valid is None else valid
    return Patch(np.asarray(pixels, np.float32), shown, 0.25, (24.0, 24.0, 104.0, 104.0))


def noise(seed: int = 0) -> np.ndarray:
    return cv2.GaussianBlur(np.random.default_rng(seed).normal(0.5, 0.2, (SIDE, SIDE)), (0, 0), 1.0)


def spokes(number: int, width: float = 1.5) -> np.ndarray:
    """Draw lines that all pass through the centre."""
    image = np.zeros((SIDE, SIDE))
    for turn in np.arange(number) * np.pi / number + 0.1:
        image = np.maximum(image, np.exp(-(((ROWS * np.cos(turn) - COLUMNS * np.sin(turn)) / width) ** 2) / 2))
    return 0.3 + 0.4 * image


def slow_divergence(pixels: np.ndarray) -> np.ndarray:
    """Bin pixel by pixel, with plain central differences."""
    smooth = cv2.GaussianBlur(pixels.astype(np.float32), (0, 0), 1.0)
    counts = np.zeros((4, 8))
    for row in range(1, SIDE - 1):
        for column in range(1, SIDE - 1):
            gx = (float(smooth[row, column + 1]) - float(smooth[row, column - 1])) / 2
            gy = (float(smooth[row + 1, column]) - float(smooth[row - 1, column])) / 2
            x, y = 63.5 - column, 63.5 - row
            ring = int(math.hypot(x, y) / 16)
            if ring < 4:
                turn = abs(math.atan2(gy, gx) - math.atan2(y, x))
                turn = min(turn, 2 * math.pi - turn)
                counts[ring, min(int(turn / math.pi * 8), 7)] += math.hypot(gx, gy)
    return counts / counts.sum(axis=1, keepdims=True)


def divergence(pixels: np.ndarray, valid: np.ndarray | None = None) -> np.ndarray:
    values = describe_divergence(patch(pixels, valid))
    assert tuple(values) == HGD_NAMES
    return np.array(list(values.values())).reshape(4, 8)


def test_divergence_against_a_slow_count() -> None:
    image = noise() + 0.3 * np.exp(-(((COLUMNS - 10) / 20) ** 2) - (ROWS / 30) ** 2)
    # Scharr's derivative averages across, central differences do not.
    assert np.abs(divergence(image) - slow_divergence(image)).max() < 0.03


def test_bright_and_dark_hills() -> None:
    hill = np.exp(-((RADIUS / 25) ** 2)) * 0.5
    bright, dark = divergence(0.2 + hill), divergence(0.8 - hill)
    assert bright[:, 0].min() > 0.98
    assert dark[:, -1].min() > 0.98


def test_no_gradient_no_direction() -> None:
    np.testing.assert_allclose(divergence(np.full((SIDE, SIDE), 0.5)), 1 / 8)


def test_divergence_sees_the_breast_only() -> None:
    image = np.where(COLUMNS < 20, 0.3 + 0.002 * COLUMNS, 0.0)
    # All gradients inside point to the right; the edge beyond is not counted.
    inside = divergence(np.where(COLUMNS < 20, image, 0.34), COLUMNS < 20)
    expected = divergence(0.3 + 0.002 * COLUMNS, COLUMNS < 20)
    np.testing.assert_allclose(inside, expected, atol=0.02)


@pytest.mark.parametrize("describe", [describe_divergence, describe_stellate])
def test_turned_by_ninety_degrees(describe) -> None:
    image = noise(4) + spokes(5)
    one, two = describe(patch(image)), describe(patch(np.ascontiguousarray(np.rot90(image))))
    for name in one:
        assert two[name] == pytest.approx(one[name], abs=0.02), name


def test_lines_through_the_centre_and_past_it() -> None:
    star = describe_stellate(patch(spokes(9)))
    assert tuple(star) == STELLATE_NAMES
    stripes = describe_stellate(patch(0.5 + 0.2 * np.sin(COLUMNS / 3)))
    rings = describe_stellate(patch(0.5 + 0.2 * np.sin(RADIUS / 3)))
    chance = [describe_stellate(patch(noise(seed))) for seed in range(6)]
    assert star["line_concentration"] > 1.0
    assert star["line_isotropy"] > 3.5
    assert abs(stripes["line_concentration"]) < 0.4
    assert rings["line_concentration"] < -0.3
    assert rings["line_isotropy"] == -4
    assert max(abs(values["line_concentration"]) for values in chance) < 0.35
    assert abs(np.mean([values["line_concentration"] for values in chance])) < 0.1
    assert abs(np.mean([values["gradient_concentration"] for values in chance])) < 0.1


def test_spokes_on_one_side_are_less_isotropic() -> None:
    all_around, above = spokes(9), np.where(ROWS < 0, spokes(9), 0.5 + 0.05 * np.sin(RADIUS / 3))
    one, two = describe_stellate(patch(all_around)), describe_stellate(patch(above))
    assert two["line_isotropy"] < one["line_isotropy"] - 1


def test_gradients_of_a_mass_point_to_its_centre() -> None:
    hill = 0.5 * np.exp(-((RADIUS / 30) ** 2))
    bright, dark = describe_stellate(patch(0.2 + hill)), describe_stellate(patch(0.8 - hill))
    assert bright["gradient_concentration"] > 1.5
    assert bright["gradient_isotropy"] == 4
    assert dark["gradient_concentration"] < -0.2
    assert dark["gradient_isotropy"] == -4


def test_of_one_grey_nothing_points_anywhere() -> None:
    assert set(describe_stellate(patch(np.full((SIDE, SIDE), 0.5))).values()) == {0.0}
    valid = np.zeros((SIDE, SIDE), np.bool_)
    valid[60:68, 60:68] = True
    assert set(describe_stellate(patch(noise(), valid)).values()) == {0.0}
