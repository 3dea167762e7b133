import cv2
import numpy as np
import pytest

from embedder.handcrafted.patches import Patch
from embedder.handcrafted.segmentation import OUTLINE_POINTS, even_outline, gradients, segment_lesion

SIDE = 128
ROWS, COLUMNS = np.mgrid[:SIDE, :SIDE]


def patch(pixels: np.ndarray, box: tuple[float, float, float, float] = (24, 24, 104, 104)) -> Patch:
    pixels = np.asarray(pixels, np.float32)
    return Patch(pixels, np.ones(pixels.shape, np.bool_), 0.25, box)


def ellipse(x: float, y: float, half_x: float, half_y: float) -> np.ndarray:
    return ((COLUMNS - x) / half_x) ** 2 + ((ROWS - y) / half_y) ** 2 <= 1


def tissue(lesion: np.ndarray, contrast: float = 0.3, noise: float = 0.03, blur: float = 1.5) -> np.ndarray:
    generator = np.random.default_rng(3)
    image = 0.3 + contrast * lesion + generator.normal(0, noise, lesion.shape)
    return np.clip(cv2.GaussianBlur(image, (0, 0), blur), 0, 1)


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


@pytest.mark.parametrize(
    "drawn",
    [ellipse(63.5, 63.5, 36, 36), ellipse(63.5, 63.5, 38, 20), ellipse(72, 58, 20, 28), ellipse(63.5, 63.5, 15, 15)],
    ids=["disc", "ellipse", "off the centre", "small"],
)
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_a_bright_lesion_is_found(drawn: np.ndarray, noise: float) -> None:
    lesion = segment_lesion(patch(tissue(drawn, noise=noise)))
    assert lesion.found
    assert overlap(lesion.mask, drawn) > 0.85
    assert lesion.radial_index > 0.8


def test_the_lesion_in_the_middle_not_its_brighter_neighbour() -> None:
    drawn, other = ellipse(63.5, 63.5, 20, 20), ellipse(115, 20, 12, 12)
    lesion = segment_lesion(patch(np.maximum(tissue(drawn), tissue(other, contrast=0.6))))
    assert overlap(lesion.mask, drawn) > 0.85


def test_a_region_is_one_and_has_no_holes() -> None:
    drawn = ellipse(63.5, 63.5, 34, 34) & ~ellipse(63.5, 75, 6, 6)
    lesion = segment_lesion(patch(tissue(drawn, blur=1.0)))
    assert lesion.mask[75, 63]
    number, _ = cv2.connectedComponents(lesion.mask.astype(np.uint8), connectivity=4)
    assert number == 2


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_without_a_lesion_the_box_has_to_do(value: float) -> None:
    lesion = segment_lesion(patch(np.full((SIDE, SIDE), value), (24, 44, 104, 84)))
    assert not lesion.found
    assert overlap(lesion.mask, ellipse(63.5, 63.5, 40, 20)) > 0.97
    assert lesion.radial_index == 0.0


def test_a_dark_place_is_no_lesion() -> None:
    lesion = segment_lesion(patch(tissue(ellipse(63.5, 63.5, 36, 36), contrast=-0.25, noise=0.0)))
    assert not lesion.found
    assert lesion.radial_index < -0.5


@pytest.mark.parametrize("box", [(62.0, 62.0, 66.0, 66.0), (24.0, 63.9, 104.0, 64.1)])
def test_the_thinnest_boxes_leave_something(box: tuple[float, float, float, float]) -> None:
    assert segment_lesion(patch(np.zeros((SIDE, SIDE)), box)).mask.sum() >= 25


def test_the_lesion_stays_within_the_breast() -> None:
    image = patch(tissue(ellipse(63.5, 63.5, 36, 36)))
    valid = COLUMNS > 60
    lesion = segment_lesion(Patch(image.pixels, valid, 0.25, image.box))
    assert lesion.found
    assert not (lesion.mask & ~valid).any()


def test_the_same_twice() -> None:
    image = patch(tissue(ellipse(63.5, 63.5, 30, 36)))
    one, two = segment_lesion(image), segment_lesion(image)
    np.testing.assert_array_equal(one.mask, two.mask)
    np.testing.assert_array_equal(one.outline, two.outline)


def test_outlines_are_even_and_smooth() -> None:
    contours, _ = cv2.findContours(
        ellipse(63.5, 63.5, 30, 30).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    outline = even_outline(contours[0][:, 0])
    assert outline.shape == (OUTLINE_POINTS, 2)
    steps = np.hypot(*(outline - np.roll(outline, 1, axis=0)).T)
    assert steps.std() < 0.12 * steps.mean()
    radius = np.hypot(*(outline - 63.5).T)
    assert abs(radius.mean() - 30) < 0.5
    assert radius.std() < 0.25
    point = even_outline(np.array([[3, 5]], np.int32))
    np.testing.assert_array_equal(point, np.tile([3.0, 5.0], (OUTLINE_POINTS, 1)))


def test_gradients_of_a_ramp() -> None:
    across, down = gradients((0.002 * COLUMNS - 0.001 * ROWS).astype(np.float32))
    np.testing.assert_allclose(across[1:-1, 1:-1], 0.002, atol=1e-6)
    np.testing.assert_allclose(down[1:-1, 1:-1], -0.001, atol=1e-6)
