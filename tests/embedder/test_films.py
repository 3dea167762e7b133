import cv2
import numpy as np
import pytest
from PIL import Image

from embedder.films import is_inverted


def phantom(seed: int, *, background: float = 0.02, noise: float = 0.0, label: bool = False) -> np.ndarray:
    """A half-ellipse of textured tissue at the left border, on smooth air."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:400, 0:300] / 400
    breast = (x / rng.uniform(0.3, 0.6)) ** 2 + ((y - 0.5) / rng.uniform(0.3, 0.48)) ** 2 < 1
    texture = cv2.GaussianBlur(rng.normal(size=(400, 300)), (0, 0), 4) * 2
    pixels = np.where(breast, np.clip(0.5 + texture, 0.2, 0.95), background)
    pixels = pixels + rng.normal(size=pixels.shape) * noise
    if label:
        pixels[20:60, 220:280] = 1.0
    return np.clip(pixels, 0, 1).astype(np.float32)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("noise", "label"), [(0.0, False), (0.01, False), (0.0, True)])
def test_an_inverted_breast_is_told_from_one_that_is_not(seed, noise, label):
    pixels = phantom(seed, noise=noise, label=label)
    assert not is_inverted(pixels)
    assert is_inverted(1 - pixels)


def test_the_range_of_the_values_does_not_matter():
    pixels = phantom(0)
    assert not is_inverted(pixels * 0.1 + 0.4)
    assert is_inverted(0.5 - pixels * 0.1)


def test_tissue_without_air_is_left_as_it_is():
    rng = np.random.default_rng(3)
    texture = cv2.GaussianBlur(rng.normal(size=(300, 300)), (0, 0), 2).astype(np.float32)
    assert not is_inverted(texture)
    assert not is_inverted(-texture)


def test_an_image_of_one_value_is_left_as_it_is():
    assert not is_inverted(np.full((50, 50), 0.7, np.float32))


def test_no_film_of_mini_mias_is_turned_and_all_are_when_inverted_first(mini_mias):
    films = sorted((mini_mias / "images").glob("mdb*"))
    assert len(films) == 322
    wrong = []
    for film in films[::4]:
        pixels = np.asarray(Image.open(film), np.float32) / 255
        if is_inverted(pixels) or not is_inverted(1 - pixels):
            wrong.append(film.name)
    assert wrong == []


def test_the_inverted_images_of_the_rsna_subset_are_found(rsna_subset):
    # Every image of the subset was looked at: 330 are inverted, and 16 of every sixteenth.
    images = sorted((rsna_subset / "images").glob("*.jpg"))[::16]
    inverted = []
    for path in images:
        pixels = np.asarray(Image.open(path).convert("L"), np.float32) / 255
        if is_inverted(pixels):
            inverted.append(pixels)
        assert is_inverted(pixels) != is_inverted(1 - pixels), path.name
    assert (len(images), len(inverted)) == (127, 16)
    assert all(max(np.median(pixels[:20, :20]), np.median(pixels[:20, -20:])) > 0.9 for pixels in inverted)


def smooth_border_around_texture(border: float, inside: float) -> np.ndarray:
    """Texture with black and white specks inside a wide smooth border."""
    rng = np.random.default_rng(5)
    pixels = np.full((256, 256), border, np.float32)
    pixels[60:196, 60:196] = np.clip(inside + rng.normal(size=(136, 136)) * 0.08, 0, 1)
    pixels[80:110, 80:110], pixels[130:160, 130:160] = 0, 1
    return pixels


def test_only_a_white_border_is_air_of_an_inverted_film():
    assert is_inverted(smooth_border_around_texture(0.97, 0.4))
    assert not is_inverted(smooth_border_around_texture(0.8, 0.4))  # grey: tissue, not air
    assert not is_inverted(smooth_border_around_texture(0.93, 0.9))  # no darker tissue: nothing to tell it by
