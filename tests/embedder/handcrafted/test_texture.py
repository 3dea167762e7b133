import math

import numpy as np
import pytest
from skimage.feature import graycomatrix

from embedder.handcrafted.texture import (
    GLCM_NAMES,
    HOG_NAMES,
    LBP_NAMES,
    TEXTURE_NAMES,
    binary_patterns,
    describe_hog,
    describe_texture,
    quantised,
)

SIDE = 48
ROWS, COLUMNS = np.mgrid[:SIDE, :SIDE]
DISTANCES = (1.0, 2.0, 4.0, 8.0)


def texture(pixels: np.ndarray, mask: np.ndarray | None = None, mm: float = 1.0) -> dict[str, float]:
    pixels = np.asarray(pixels, np.float32)
    values = describe_texture(pixels, np.ones(pixels.shape, np.bool_) if mask is None else mask, mm, DISTANCES)
    assert tuple(values) == TEXTURE_NAMES
    assert np.isfinite(list(values.values())).all()
    return values


def noise(seed: int = 0, side: int = SIDE) -> np.ndarray:
    return np.random.default_rng(seed).random((side, side))


def slow_cooccurrence(levels: np.ndarray, distance: int) -> dict[str, tuple[float, float]]:
    """Count pairs of inside pixels one by one: mean and range over the four directions, by Haralick's formulas."""
    found: dict[str, list[float]] = {}
    # The diagonals' steps are rounded, as scikit-image rounds them.
    step = round(distance * math.sin(math.pi / 4))
    for down, across in ((0, distance), (step, step), (distance, 0), (step, -step)):
        counts = np.zeros((16, 16))
        for row in range(levels.shape[0]):
            for column in range(levels.shape[1]):
                row2, column2 = row + down, column + across
                if not (0 <= row2 < levels.shape[0] and 0 <= column2 < levels.shape[1]):
                    continue
                one, two = int(levels[row, column]), int(levels[row2, column2])
                if one and two:
                    counts[one - 1, two - 1] += 1
                    counts[two - 1, one - 1] += 1
        share = counts / counts.sum()
        i, j = np.mgrid[:16, :16]
        mean = (share * i).sum()
        variance = (share * (i - mean) ** 2).sum()
        found.setdefault("contrast", []).append((share * (i - j) ** 2).sum())
        found.setdefault("homogeneity", []).append((share / (1 + (i - j) ** 2)).sum())
        found.setdefault("energy", []).append(math.sqrt((share**2).sum()))
        found.setdefault("correlation", []).append((share * (i - mean) * (j - mean)).sum() / variance)
        positive = share[share > 0]
        found.setdefault("entropy", []).append(-(positive * np.log2(positive)).sum())
    return {name: (float(np.mean(values)), float(np.ptp(values))) for name, values in found.items()}


@pytest.mark.parametrize("name", ["stripes", "noise", "ramp"])
@pytest.mark.parametrize("masked", [False, True])
def test_cooccurrence_against_a_slow_count(name: str, masked: bool) -> None:
    image = {"stripes": 0.3 + 0.4 * (COLUMNS // 2 % 2), "noise": noise(), "ramp": ROWS / SIDE}[name]
    image = image[:24, :24].astype(np.float32)
    mask = (ROWS[:24, :24] - 12) ** 2 + (COLUMNS[:24, :24] - 12) ** 2 < 121 if masked else np.ones((24, 24), np.bool_)
    values = texture(image, mask)
    levels = quantised(image, mask)
    for number, distance in enumerate((1, 2, 4, 8), 1):
        for feature, (mean, span) in slow_cooccurrence(levels, distance).items():
            assert values[f"glcm_{feature}_d{number}_mean"] == pytest.approx(mean, rel=1e-6, abs=1e-9), feature
            assert values[f"glcm_{feature}_d{number}_range"] == pytest.approx(span, rel=1e-6, abs=1e-9), feature


def test_without_a_mask_as_scikit_image_counts() -> None:
    levels = quantised(noise().astype(np.float32), np.ones((SIDE, SIDE), np.bool_))
    assert levels.min() == 1
    assert levels.max() == 16
    counts = graycomatrix(levels, [1], [0.0], levels=17, symmetric=True)
    assert counts[0].sum() == counts[:, 0].sum() == 0


def test_stripes_have_a_direction() -> None:
    values = texture(0.3 + 0.4 * (COLUMNS // 2 % 2))
    # Along the stripes no contrast, across them at a distance of 2 pixels all there is.
    assert values["glcm_contrast_d2_range"] == 15**2
    assert values["glcm_contrast_d3_mean"] == pytest.approx(texture(noise())["glcm_contrast_d3_mean"], rel=2)
    assert values["glcm_contrast_d3_range"] > texture(noise())["glcm_contrast_d3_range"]


def test_distances_are_millimetres() -> None:
    fine = np.kron(noise(side=24), np.ones((2, 2)))
    coarse, doubled = texture(noise(side=24), mm=1.0), texture(fine, mm=0.5)
    for number in range(1, 5):
        name = f"glcm_contrast_d{number}_mean"
        assert doubled[name] == pytest.approx(coarse[name], rel=0.15)


def test_contrast_of_the_film_does_not_matter() -> None:
    image = noise()
    one, two = texture(image), texture(0.4 + 0.2 * image)
    for name in GLCM_NAMES:
        assert two[name] == pytest.approx(one[name], rel=0.02, abs=0.02), name


def test_what_lies_outside_the_region_does_not_matter() -> None:
    mask = (ROWS - 24) ** 2 + (COLUMNS - 24) ** 2 < 300
    image = noise()
    one, two = texture(image, mask), texture(np.where(mask, image, 0), mask)
    for name in GLCM_NAMES:
        assert two[name] == one[name], name


def test_patterns_by_hand() -> None:
    # A pixel above all its neighbours, on a flat ground: pattern 0; flat ground: all eight at least as bright.
    image = np.zeros((9, 9), np.float32)
    image[4, 4] = 1
    patterns = binary_patterns(image, 8, 1)
    assert patterns[4, 4] == 0
    assert patterns[1, 1] == 8
    # At a vertical edge, from the bright side: five of eight are as bright.
    edge = np.zeros((9, 9), np.float32)
    edge[:, 4:] = 0.5
    assert binary_patterns(edge, 8, 1)[4, 4] == 5


def test_patterns_are_shares_of_the_region() -> None:
    values = texture(noise(), (ROWS < 30) & (COLUMNS < 20))
    for radius in (1, 3):
        shares = [value for name, value in values.items() if name.startswith(f"lbp_r{radius}_")]
        assert sum(shares) == pytest.approx(1)
        assert min(shares) >= 0
    flat = texture(np.full((SIDE, SIDE), 0.5))
    assert flat["lbp_r1_8"] == flat["lbp_r3_16"] == 1
    assert len(LBP_NAMES) == 10 + 18


def test_turned_by_ninety_degrees() -> None:
    image = np.sin(COLUMNS / 2) * 0.2 + 0.4 + 0.2 * noise()
    one, two = texture(image), texture(np.rot90(image))
    for name in TEXTURE_NAMES:
        assert two[name] == pytest.approx(one[name], rel=1e-3, abs=0.02), name


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("size", [1, 2, SIDE])
def test_one_grey_and_tiny_regions(value: float, size: int) -> None:
    values = texture(np.full((SIDE, SIDE), value), np.maximum(ROWS, COLUMNS) < size)
    assert values["glcm_contrast_d1_mean"] == values["glcm_entropy_d4_mean"] == 0
    assert values["glcm_energy_d4_mean"] == 1


def test_oriented_gradients() -> None:
    stripes = (0.5 + 0.4 * np.sin(np.arange(96) / 4)) * np.ones((96, 1))
    values = describe_hog(stripes.astype(np.float32))
    assert tuple(values) == HOG_NAMES
    cells = np.array(list(values.values())).reshape(9, 8)
    # scikit-image bins by the gradient's angle: across the stripes it is 0 or 180 degrees.
    other = np.array(list(describe_hog(np.ascontiguousarray(stripes.T).astype(np.float32)).values())).reshape(9, 8)
    assert cells[:, [0, -1]].sum() > 0.9 * cells.sum()
    assert other[:, [3, 4]].sum() > 0.9 * other.sum()
    corner = np.zeros((96, 96), np.float32)
    corner[10:20, 10:20] = 1
    seen = np.array(list(describe_hog(corner).values())).reshape(9, 8)
    assert seen[0].sum() > 0
    assert seen[1:].sum() == 0
    assert set(describe_hog(np.full((40, 40), 0.5, np.float32)).values()) == {0.0}
