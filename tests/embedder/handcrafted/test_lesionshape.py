import cv2
import numpy as np
import pytest

from embedder.handcrafted.lesionshape import SHAPE_NAMES, describe_shape
from embedder.handcrafted.patches import Patch
from embedder.handcrafted.segmentation import Lesion, even_outline

SIDE, MM = 128, 0.25
BOX = (24.0, 24.0, 104.0, 104.0)
ROWS, COLUMNS = np.mgrid[:SIDE, :SIDE] - 63.5
ANGLE, RADIUS = np.arctan2(ROWS, COLUMNS), np.hypot(ROWS, COLUMNS)


def shape(mask: np.ndarray) -> dict[str, float]:
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    patch = Patch(np.zeros((SIDE, SIDE), np.float32), np.ones((SIDE, SIDE), np.bool_), MM, BOX)
    values = describe_shape(patch, Lesion(mask, even_outline(contours[0][:, 0]), 0.5, True))
    assert tuple(values) == SHAPE_NAMES
    return values


def petals(number: int, depth: float = 0.3, radius: float = 36.0) -> np.ndarray:
    return radius * (1 + depth * np.cos(number * ANGLE)) >= RADIUS


DISC = RADIUS <= 30


def test_a_disc() -> None:
    values = shape(DISC)
    assert values["segmented"] == 1
    assert values["log_area"] == pytest.approx(np.log(np.pi * (30 * MM) ** 2), abs=0.01)
    assert values["diameter_mm"] == pytest.approx(60 * MM, rel=0.01)
    assert values["box_share"] == pytest.approx(np.pi * 30**2 / 80**2, rel=0.01)
    assert values["eccentricity"] < 0.1
    assert values["axis_ratio"] > 0.99
    assert values["solidity"] > 0.98
    assert values["extent"] == pytest.approx(np.pi / 4, abs=0.02)
    assert values["circularity"] == pytest.approx(1, abs=0.03)
    assert values["offset"] < 0.01
    assert values["nrl_mean"] > 0.97
    assert values["nrl_std"] < 0.02
    assert max(value for name, value in values.items() if name.startswith("fourier_p")) < 0.12
    assert values["fourier_factor"] > 0.9


@pytest.mark.parametrize("turn", [0.0, 0.4, 1.1])
def test_an_ellipse_whichever_way_it_lies(turn: float) -> None:
    x, y = RADIUS * np.cos(ANGLE - turn), RADIUS * np.sin(ANGLE - turn)
    values = shape((x / 40) ** 2 + (y / 20) ** 2 <= 1)
    assert values["eccentricity"] == pytest.approx(np.sqrt(1 - 0.25), abs=0.01)
    assert values["axis_ratio"] == pytest.approx(0.5, abs=0.01)
    assert values["extent"] == pytest.approx(np.pi / 4, abs=0.03)
    # A distance that is shortest and longest twice.
    assert values["nrl_crossings"] == 4
    assert values["circularity"] < shape(DISC)["circularity"] - 0.1


@pytest.mark.parametrize("number", [3, 4, 5])
def test_petals_are_counted_and_less_solid(number: int) -> None:
    values, disc = shape(petals(number)), shape(DISC)
    assert values["nrl_crossings"] == 2 * number
    for name in ("solidity", "circularity", "nrl_mean", "fourier_factor"):
        assert values[name] < disc[name] - 0.03, name
    for name in ("nrl_std", "nrl_entropy", "nrl_area_ratio", "nrl_roughness"):
        assert values[name] > disc[name], name
    # 1 + d·cos(nθ) times the circle: harmonics 1 + n and 1 − n.
    harmonics = {name: value for name, value in values.items() if name.startswith(("fourier_p", "fourier_m"))}
    assert max(harmonics, key=harmonics.__getitem__) in (f"fourier_plus{number + 1}", f"fourier_minus{number - 1}")


def test_deeper_petals_are_rougher() -> None:
    flat, deep = shape(petals(6, 0.1)), shape(petals(6, 0.3))
    assert deep["solidity"] < flat["solidity"]
    assert deep["circularity"] < flat["circularity"]
    assert deep["nrl_std"] > flat["nrl_std"]


def test_turned_by_ninety_degrees() -> None:
    mask = petals(5) & (ROWS < 25)
    one, two = shape(mask), shape(np.ascontiguousarray(np.rot90(mask)))
    for name in SHAPE_NAMES:
        assert two[name] == pytest.approx(one[name], rel=0.03, abs=0.02), name


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 40), (40, 1), (2, 2), (SIDE, SIDE)])
def test_shapes_without_a_shape(rows: int, columns: int) -> None:
    mask = np.zeros((SIDE, SIDE), np.bool_)
    mask[:rows, :columns] = True
    values = shape(mask)
    assert np.isfinite(list(values.values())).all()
    assert values["extent"] == 1
    assert values["solidity"] == 1
