import cv2
import numpy as np
import pytest

from embedder.breast import (
    GEOMETRY_SIDE,
    Mask,
    Pixels,
    breast_mask,
    chest_wall_is_right,
    enlarge,
    pectoral_mask,
    shrink,
    small_breast_mask,
)
from embedder.mammogram import read_mammogram

# The film on which the breast is larger than the film: neither nipple nor chest wall can be seen on it.
OVERFILLED = {152}


def film(*, muscle: bool = True, noise: float = 0.004) -> tuple[Pixels, Mask, Mask]:
    """Draw an MLO film, chest wall at the left: breast, muscle, skin that fades, label, border.

    Returns:
        The pixels, where the breast is (muscle included), and where the muscle is.
    """
    generator = np.random.default_rng(3)
    rows, columns = np.mgrid[:480, :400].astype(np.float32)
    # Half an ellipse, thinning out towards its edge.
    inside = 1 - ((rows - 240) / 210) ** 2 - (columns / 260) ** 2
    breast = inside > 0
    pixels = 0.03 + np.where(breast, 0.45 * np.clip(inside / 0.25, 0.25, 1), 0)
    pixels += np.where(breast, cv2.GaussianBlur(generator.normal(0, 1, breast.shape), (0, 0), 6) * 0.4, 0)
    triangle = breast & (columns / 110 + (rows - 30) / 240 < 1) if muscle else np.zeros_like(breast)
    pixels = np.where(triangle, 0.8, pixels)
    pixels[40:70, 300:370] = 0.95  # label
    pixels[50:60, 310:360] = 0.1
    pixels[:6] = pixels[-6:] = 1.0  # film border
    pixels += generator.normal(0, noise, breast.shape)
    return np.clip(pixels, 0, 1).astype(np.float32), breast, triangle


def overlap(a: Mask, b: Mask) -> float:
    return float((a & b).sum() / (a | b).sum())


def test_mask_of_a_film() -> None:
    pixels, breast, _ = film()
    mask = breast_mask(pixels)
    assert mask.shape == pixels.shape
    assert overlap(mask, breast) > 0.95
    assert not mask[40:70, 300:370].any(), "the label is in the mask"
    assert not mask[:6, 50:].any(), "the border is in the mask"
    assert not mask[-6:, 50:].any(), "the border is in the mask"


@pytest.mark.parametrize("turn", ["left to right", "upside down"])
def test_mask_turns_with_the_image(turn: str) -> None:
    pixels, _, _ = film()
    axis = 1 if turn == "left to right" else 0
    assert overlap(np.flip(breast_mask(pixels), axis), breast_mask(np.flip(pixels, axis))) > 0.98


def test_fat_beside_an_implant_is_kept() -> None:
    pixels = np.zeros((256, 256), np.float32)
    rows, columns = np.mgrid[:256, :256]
    breast = (rows - 128) ** 2 + columns**2 < 110**2
    pixels[breast] = 0.12
    pixels[(rows - 128) ** 2 + columns**2 < 70**2] = 1.0
    assert overlap(small_breast_mask(pixels), breast) > 0.93


def test_where_tissue_fills_the_image_all_of_it_is_breast() -> None:
    generator = np.random.default_rng(0)
    texture = cv2.GaussianBlur(generator.normal(0, 1, (300, 200)), (0, 0), 9)
    crop = np.clip(0.6 + texture / texture.std() * 0.08, 0, 1).astype(np.float32)
    mask = breast_mask(crop)
    assert mask.all()
    assert not chest_wall_is_right(shrink(crop), small_breast_mask(shrink(crop)))


@pytest.mark.parametrize("shape", [(16, 16), (1, 1), (2000, 16), (16, 2000)])
@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_blank_images_of_any_shape(shape: tuple[int, int], value: float) -> None:
    pixels = np.full(shape, value, np.float32)
    mask = breast_mask(pixels)
    assert mask.shape == shape
    assert mask.all()
    assert not pectoral_mask(pixels, mask).any()


def test_shrinking_and_enlarging() -> None:
    pixels = np.zeros((1000, 500), np.float32)
    assert shrink(pixels).shape == (GEOMETRY_SIDE, GEOMETRY_SIDE // 2)
    assert shrink(pixels[:256, :256]).shape == (256, 256)
    mask = np.zeros((256, 128), np.bool_)
    mask[64:128] = True
    large = enlarge(mask, (1000, 500))
    assert abs(large.mean() - 0.25) < 0.005
    assert large[260:490].all()
    assert not large[510:].any()


def test_side_of_the_chest_wall() -> None:
    pixels, _, _ = film()
    for picture, right in ((pixels, False), (pixels[:, ::-1], True)):
        small = shrink(np.ascontiguousarray(picture))
        assert chest_wall_is_right(small, small_breast_mask(small)) is right


def test_no_breast_has_no_side() -> None:
    pixels = np.zeros((20, 20), np.float32)
    assert not chest_wall_is_right(pixels, np.zeros((20, 20), np.bool_))


def test_muscle_of_a_film() -> None:
    pixels, _, triangle = film()
    muscle = pectoral_mask(pixels, breast_mask(pixels))
    assert overlap(muscle, triangle) > 0.85


def test_where_there_is_no_muscle_nothing_is_taken_for_it() -> None:
    pixels, _, _ = film(muscle=False)
    assert not pectoral_mask(pixels, breast_mask(pixels)).any()


def test_where_the_corner_is_blanked_nothing_is_taken_for_muscle() -> None:
    pixels, _, _ = film()
    rows, columns = np.mgrid[:480, :400]
    pixels[columns / 90 + rows / 220 < 1] = 0
    assert not pectoral_mask(pixels, breast_mask(pixels)).any()


def test_side_on_every_film_of_mini_mias(mini_mias) -> None:
    """An odd number is a right breast, whose chest wall is at the right of these films; an even one a left."""
    wrong = set()
    for number in range(1, 323):
        pixels = cv2.imread(str(mini_mias / "images" / f"mdb{number:03d}.png"), cv2.IMREAD_REDUCED_GRAYSCALE_4)
        small = pixels.astype(np.float32) / 255
        if chest_wall_is_right(small, small_breast_mask(small)) != (number % 2 == 1):
            wrong.add(number)
    assert wrong <= OVERFILLED


def test_no_label_in_the_mask_of_films_that_have_one(cbis_dicom) -> None:
    """Each of these films carries its view in bright letters (LCC, RMLO ...) away from the chest wall."""
    for path in (cbis_dicom[0], cbis_dicom[3], cbis_dicom[4]):
        mammogram = read_mammogram(path)
        small = shrink(mammogram.pixels)
        mask = small_breast_mask(small)
        right = mammogram.laterality == "R"
        assert chest_wall_is_right(small, mask) is right
        away = mask[:, ::-1] if right else mask
        # The letters lie in the upper third, in the half that is far from the chest wall.
        corner = away[: mask.shape[0] // 3, round(mask.shape[1] * 0.62) :]
        assert not corner.any()
        assert 0.1 < mask.mean() < 0.6


def test_sides_of_digital_mammograms(rsna_subset) -> None:
    """A detector image ends at the chest wall: there the breast touches the border, and only there."""
    files = sorted((rsna_subset / "images").glob("*.jpg"))[::40]
    for path in files:
        small = shrink(read_mammogram(path).pixels)
        mask = small_breast_mask(small)
        left, right = mask[:, :2].any(axis=1).sum(), mask[:, -2:].any(axis=1).sum()
        assert chest_wall_is_right(small, mask) is bool(right > left), path.name
        assert 0.03 < mask.mean() < 0.97, path.name
