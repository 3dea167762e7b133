import numpy as np
import pytest
from scipy import stats

from embedder.handcrafted.intensity import HISTOGRAM_NAMES, INTENSITY_NAMES, describe_intensity, histogram_features
from embedder.handcrafted.patches import Patch
from embedder.handcrafted.segmentation import Lesion
from embedder.preparation import Prepared

SIDE = 64
ROWS, COLUMNS = np.mgrid[:SIDE, :SIDE]
DISC = (ROWS - 31.5) ** 2 + (COLUMNS - 31.5) ** 2 <= 12**2


def intensity(
    pixels: np.ndarray, breast: np.ndarray, mask: np.ndarray | None = None, lesion: np.ndarray = DISC
) -> dict[str, float]:
    patch = Patch(np.asarray(pixels, np.float32), np.ones((SIDE, SIDE), np.bool_), 0.5, (19.0, 19.0, 45.0, 45.0))
    prepared = Prepared(np.asarray(breast, np.float32), mask, False, None, mask is not None)
    values = describe_intensity(prepared, patch, Lesion(lesion, np.zeros((128, 2)), 0.0, True))
    assert tuple(values) == INTENSITY_NAMES
    assert np.isfinite(list(values.values())).all()
    return values


def test_histogram_of_known_values() -> None:
    values = np.random.default_rng(0).beta(2, 5, 5000).astype(np.float32)
    features = histogram_features(values)
    assert tuple(features) == HISTOGRAM_NAMES
    assert features["mean"] == pytest.approx(2 / 7, abs=0.01)
    assert features["std"] == pytest.approx(np.sqrt(10 / (49 * 8)), abs=0.01)
    # Of a beta distribution: 2 (b − a) √(a + b + 1) / ((a + b + 2) √(a b)).
    assert features["skewness"] == pytest.approx(6 * np.sqrt(8) / (9 * np.sqrt(10)), abs=0.05)
    assert features["kurtosis"] == pytest.approx(float(stats.beta.stats(2, 5, moments="k")), abs=0.1)
    assert features["p50"] == pytest.approx(float(stats.beta.ppf(0.5, 2, 5)), abs=0.01)
    assert features["p5"] < features["p25"] < features["p50"] < features["p75"] < features["p95"]


def test_entropy_counts_greys() -> None:
    assert histogram_features(np.full(100, 0.3, np.float32))["entropy"] == 0
    assert histogram_features(np.repeat([0.1, 0.9], 50).astype(np.float32))["entropy"] == 1
    even = np.linspace(0, 1, 3200, endpoint=False, dtype=np.float32)
    assert histogram_features(even)["entropy"] == pytest.approx(5)


def test_of_one_grey_there_is_no_shape() -> None:
    features = histogram_features(np.full(9, 0.7, np.float32))
    assert (features["std"], features["skewness"], features["kurtosis"]) == (0, 0, 0)
    crowd = np.zeros(10_000, np.float32)
    crowd[0] = 1
    assert histogram_features(crowd)["kurtosis"] == 100


def test_contrast_to_the_ring() -> None:
    generator = np.random.default_rng(1)
    image = np.where(DISC, 0.6, 0.4) + generator.normal(0, 0.05, (SIDE, SIDE))
    # Far away is no ring.
    image[:6], image[-6:] = 1, 1
    values = intensity(image, image)
    assert values["mean"] == pytest.approx(0.6, abs=0.01)
    assert values["ring_contrast"] == pytest.approx(0.2, abs=0.01)
    assert values["ring_effect"] == pytest.approx(4, abs=0.4)
    assert values["ring_std_ratio"] == pytest.approx(0, abs=0.15)
    rough = np.where(DISC, 0.5 + generator.normal(0, 0.1, (SIDE, SIDE)), 0.5 + generator.normal(0, 0.05, (SIDE, SIDE)))
    assert intensity(rough, rough)["ring_std_ratio"] == pytest.approx(np.log(2), abs=0.15)


def test_place_among_the_greys_of_the_breast() -> None:
    rows, columns = np.mgrid[:400, :300]
    mask = columns < 150
    breast = np.where(mask, rows / 400, 1.0)
    values = intensity(np.where(DISC, 0.75, 0.25), breast, mask)
    # Beside the breast it is white: that does not count.
    assert values["breast_percentile"] == pytest.approx(0.75, abs=0.01)
    assert values["ring_breast_percentile"] == pytest.approx(0.25, abs=0.01)
    assert values["breast_contrast"] == pytest.approx(0.25 * np.sqrt(12), abs=0.03)
    assert intensity(np.where(DISC, 0.75, 0.25), breast)["breast_percentile"] < 0.45
    empty = np.zeros((400, 300), np.bool_)
    assert intensity(np.where(DISC, 0.75, 0.25), breast, empty)["breast_percentile"] < 0.45


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_one_grey_has_no_contrast(value: float) -> None:
    grey = np.full((SIDE, SIDE), value)
    for lesion in (DISC, np.ones((SIDE, SIDE), np.bool_)):
        values = intensity(grey, grey, lesion=lesion)
        assert values["ring_contrast"] == values["ring_effect"] == values["breast_contrast"] == 0
