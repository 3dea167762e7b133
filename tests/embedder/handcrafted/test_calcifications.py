import numpy as np
import pytest

from embedder.handcrafted.calcifications import CALCIFICATION_NAMES, describe_calcification
from embedder.handcrafted.patches import Patch

SIDE, MM = 160, 0.1
BOX = (30.0, 30.0, 130.0, 130.0)
ROWS, COLUMNS = np.mgrid[:SIDE, :SIDE]
PLACES = ((50, 50), (50, 80), (50, 110), (80, 50), (80, 80), (80, 110), (110, 80))


def tissue(seed: int = 0) -> np.ndarray:
    return 0.4 + np.random.default_rng(seed).normal(0, 0.01, (SIDE, SIDE))


def spots(places: tuple[tuple[int, int], ...], sigma_mm: float = 0.3, contrast: float = 0.3) -> np.ndarray:
    image = np.zeros((SIDE, SIDE))
    for row, column in places:
        distance = (ROWS - row) ** 2 + (COLUMNS - column) ** 2
        image += contrast * np.exp(-distance * MM**2 / (2 * sigma_mm**2))
    return image


def describe(pixels: np.ndarray, valid: np.ndarray | None = None, mm: float = MM) -> dict[str, float]:
    shown = np.ones((SIDE, SIDE), np.bool_) if valid is None else valid
    values = describe_calcification(Patch(np.clip(pixels, 0, 1).astype(np.float32), shown, mm, BOX))
    assert tuple(values) == CALCIFICATION_NAMES
    assert np.isfinite(list(values.values())).all()
    return values


def count(values: dict[str, float], scale: str = "middle") -> int:
    return round(float(np.expm1(values[f"log_count_{scale}"])))


@pytest.mark.parametrize("number", [0, 1, 3, 7])
def test_spots_are_counted(number: int) -> None:
    values = describe(tissue() + spots(PLACES[:number]))
    assert count(values) == number
    # Ten millimetres a side: a square centimetre.
    assert values["log_density_middle"] == pytest.approx(np.log1p(number), abs=0.02)
    assert (values["contrast_middle"] > 4) is (number > 0)


def test_gaps_between_spots() -> None:
    values = describe(tissue() + spots(PLACES))
    assert values["gap_mean"] == pytest.approx(np.log(30 * MM), abs=0.03)
    assert values["gap_std"] < 0.05
    uneven = describe(tissue() + spots(((50, 50), (50, 60), (110, 60), (110, 120))))
    assert uneven["gap_std"] > 0.3
    for places in ((), PLACES[:1]):
        assert describe(tissue() + spots(places))["gap_mean"] == pytest.approx(np.log(SIDE * MM))


def test_spots_beside_the_marked_place_count_against_it() -> None:
    inside, outside = PLACES[:4], ((10, 10), (10, 150), (150, 10), (150, 150))
    one, two, three = (describe(tissue() + spots(places)) for places in (inside, inside + outside, outside))
    assert count(one) == count(two) == 4
    assert count(three) == 0
    assert one["excess_middle"] > two["excess_middle"] > three["excess_middle"]
    assert three["excess_middle"] < 0


def test_brighter_spots_stand_out_more() -> None:
    faint, bright = (describe(tissue() + spots(PLACES, contrast=contrast)) for contrast in (0.15, 0.4))
    for name in ("contrast_middle", "tophat_mean", "tophat_p99"):
        assert bright[name] > faint[name]


def test_a_spot_is_clearest_at_its_own_scale() -> None:
    for scale, sigma in (("fine", 0.15), ("middle", 0.3), ("coarse", 0.6)):
        values = describe(0.4 + spots(PLACES, sigma_mm=sigma, contrast=0.08))
        # Without noise contrast is the response itself, which is normalised by scale.
        contrasts = {name: values[f"contrast_{name}"] for name in ("fine", "middle", "coarse")}
        assert max(contrasts, key=contrasts.__getitem__) == scale


def test_edges_and_fibres_are_no_spots() -> None:
    values = describe(tissue() + 0.4 * (COLUMNS > 80) + 0.3 * np.exp(-(((ROWS - COLUMNS) / 3.0) ** 2) / 2))
    # Where they cross something is left.
    assert count(values) <= 1


def test_the_end_of_the_breast_is_no_spot() -> None:
    image = tissue()
    valid = COLUMNS + 5 * np.sin(ROWS / 3) < 100
    # Beyond the breast its nearest pixels go on; here, worse, another brightness.
    assert count(describe(np.where(valid, image, 0.8), valid)) == 0


def test_a_flat_top_is_one_spot() -> None:
    image = tissue() + spots(PLACES, contrast=1.5)
    assert count(describe(image)) == 7


def test_spots_of_half_the_size_at_half_the_spacing() -> None:
    image = tissue() + spots(PLACES)
    one, two = describe(image), describe(image, mm=MM / 2)
    assert count(two, "fine") == count(one, "middle") == 7
    assert two["log_density_fine"] == pytest.approx(np.log1p(7 * 4), abs=0.02)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_one_grey_has_no_spots(value: float) -> None:
    values = describe(np.full((SIDE, SIDE), value))
    assert [count(values, scale) for scale in ("fine", "middle", "coarse")] == [0, 0, 0]
    assert values["tophat_mean"] == 0
