import cv2
import numpy as np
import pytest

from embedder.handcrafted.breastmeasures import (
    DENSITY_NAMES,
    PLANE_MM,
    ZONE_NAMES,
    breast_plane,
    describe_density,
    describe_zones,
)
from embedder.handcrafted.patches import NOMINAL_HEIGHT_MM
from embedder.preparation import Prepared

HEIGHT, WIDTH, MM = 400, 300, 0.5
ROWS, COLUMNS = np.mgrid[:HEIGHT, :WIDTH]
RADIUS = np.hypot(ROWS - 200, COLUMNS)
BREAST = RADIUS <= 180


def prepared(pixels: np.ndarray, mask: np.ndarray | None = BREAST, spacing_mm: float | None = MM) -> Prepared:
    return Prepared(np.asarray(pixels, np.float32), mask, False, spacing_mm, mask is not None)


def breast(gland: float = 90.0, dense: float = 0.7, seed: int = 0) -> np.ndarray:
    """Draw a half disc of fat with a half disc of gland in it."""
    grain = cv2.GaussianBlur(np.random.default_rng(seed).normal(0, 0.1, (HEIGHT, WIDTH)), (0, 0), 2.0)
    return np.clip(np.where(BREAST, np.where(gland >= RADIUS, dense, 0.3) + grain, 0.0), 0, 1)


def density(pixels: np.ndarray, **options: object) -> dict[str, float]:
    values = describe_density(breast_plane(prepared(pixels, **options)))  # type: ignore[arg-type]
    assert tuple(values) == DENSITY_NAMES
    assert np.isfinite(list(values.values())).all()
    return values


def zones(pixels: np.ndarray, **options: object) -> dict[str, float]:
    values = describe_zones(breast_plane(prepared(pixels, **options)))  # type: ignore[arg-type]
    assert tuple(values) == ZONE_NAMES
    assert np.isfinite(list(values.values())).all()
    return values


def test_a_plane_of_known_scale() -> None:
    plane = breast_plane(prepared(breast()))
    assert plane.mm_per_pixel == pytest.approx(PLANE_MM)
    assert plane.pixels.shape == (round(361 * MM / PLANE_MM), round(181 * MM / PLANE_MM))
    assert plane.tissue.sum() * PLANE_MM**2 == pytest.approx(np.pi * 90**2 / 2, rel=0.02)
    # Depth is the distance to the half disc's outline, not to the chest wall at its left.
    assert plane.depth.max() * PLANE_MM == pytest.approx(90, abs=2)
    assert plane.interior.sum() * PLANE_MM**2 == pytest.approx(np.pi * 85**2 / 2, rel=0.03)
    assert plane.muscle_share == 0


def test_without_a_spacing_the_stored_size_does_not_matter() -> None:
    image = breast()
    small = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    mask = cv2.resize(BREAST.astype(np.uint8), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_NEAREST) > 0
    plane = breast_plane(prepared(image, spacing_mm=None))
    assert plane.pixels.shape[0] == round(NOMINAL_HEIGHT_MM / PLANE_MM)
    one, two = density(image, spacing_mm=None), density(small, mask=mask, spacing_mm=None)
    for name in DENSITY_NAMES:
        # Of two greys three classes are arbitrary.
        if not name.startswith(("otsu3", "otsu4")):
            assert two[name] == pytest.approx(one[name], rel=0.05, abs=0.1), name


def test_dense_area_is_measured() -> None:
    shares = [density(breast(gland)) for gland in (60.0, 90.0, 120.0, 150.0)]
    for gland, values in zip((60, 90, 120, 150), shares, strict=True):
        # Of the interior, which ends 5 mm below the skin.
        assert values["otsu2_share1"] == pytest.approx((gland / 170) ** 2, abs=0.03)
        assert values["share_above_50"] == pytest.approx((gland / 170) ** 2, abs=0.03)
        assert values["log_dense_area"] == pytest.approx(np.log(np.pi * (gland * MM) ** 2 / 2), abs=0.1)
        assert values["log_area"] == pytest.approx(np.log(np.pi * 90**2 / 2), abs=0.02)
        assert values["otsu2_separation"] > 0.9
        assert values["fat"] == pytest.approx(0.3, abs=0.03)
    for name in ("otsu2_share1", "share_above_40", "mean_above_fat", "log_dense_area"):
        rising = [values[name] for values in shares]
        assert rising == sorted(rising), name
    # Little gland is a tail of bright pixels, much gland leaves a tail of dark ones.
    falling = [values["skewness"] for values in shares]
    assert falling == sorted(falling, reverse=True)


def test_skin_and_background_do_not_count() -> None:
    image = breast(gland=0)
    skin = np.where(BREAST & (RADIUS > 174), 1.0, np.where(BREAST, image, 1.0))
    assert density(skin)["share_above_60"] == 0


def test_the_pectoral_muscle_does_not_count() -> None:
    mask = (((ROWS - 150) / 250) ** 2 + (COLUMNS / 180) ** 2 <= 1) & (ROWS > 2)
    muscle = COLUMNS / 80 + ROWS / 170 < 1
    grain = cv2.GaussianBlur(np.random.default_rng(0).normal(0, 0.1, (HEIGHT, WIDTH)), (0, 0), 2.0)
    image = np.clip(np.where(mask, np.where(muscle, 0.8, 0.3) + grain, 0.0), 0, 1)
    values = density(image, mask=mask)
    assert values["muscle_share"] == pytest.approx((muscle & mask).sum() / mask.sum(), abs=0.03)
    assert values["share_above_60"] < 0.01
    # Blanked by the preparation already, it is no skin either.
    blanked = breast_plane(prepared(image, mask=mask & ~muscle))
    border = blanked.interior[: round(100 * MM / PLANE_MM)] & (blanked.pixels[: round(100 * MM / PLANE_MM)] < 0.5)
    assert border.sum() * PLANE_MM**2 > 0.8 * (mask & ~muscle & (ROWS < 100)).sum() * MM**2 * 0.8


def test_zones_are_in_their_order() -> None:
    # Brighter with depth, or with distance from the chest wall, by too little for the border of a muscle.
    deeper = zones(np.where(BREAST, 0.6 - 0.3 * RADIUS / 180, 0.0))
    edges = np.array([1, 0.75, 0.5, 0.25, 0])
    # The mean radius of a ring.
    radii = 2 / 3 * np.diff(edges**3) / np.diff(edges**2)
    means = [deeper[f"depth{number}_mean"] for number in range(1, 5)]
    assert means == pytest.approx(0.6 - 0.3 * radii, abs=0.015)
    assert deeper["depth_trend"] == pytest.approx(0.3 * (radii[0] - radii[-1]), abs=0.02)
    outwards = zones(np.where(BREAST, 0.3 + 0.3 * COLUMNS / 180, 0.0))
    assert [outwards[f"wall{number}_mean"] for number in range(1, 5)] == pytest.approx(
        0.3 + 0.3 * np.array([0.125, 0.375, 0.625, 0.85]), abs=0.015
    )


def test_texture_belongs_to_its_zone() -> None:
    generator = np.random.default_rng(1)
    grain = cv2.GaussianBlur(generator.normal(0, 0.5, (HEIGHT, WIDTH)), (0, 0), 1.5)
    values = zones(np.clip(np.where(BREAST, 0.5 + grain * (RADIUS < 45), 0.0), 0, 1))
    for measure in ("std", "gradient"):
        inner, outer = values[f"depth4_{measure}"], values[f"depth2_{measure}"]
        assert inner > outer + 0.03, measure
    # Where nothing is brighter than its neighbours all patterns are flat.
    assert values["depth2_lbp8"] > 0.97
    assert values["depth4_lbp8"] < 0.4
    for number in range(1, 5):
        assert sum(values[f"depth{number}_lbp{pattern}"] for pattern in range(10)) == pytest.approx(1)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("shape", [(1, 1), (2, 300), (300, 2), (40, 40)])
@pytest.mark.parametrize("spacing", [None, 0.05, 10.0])
def test_one_grey_of_any_size(value: float, shape: tuple[int, int], spacing: float | None) -> None:
    for mask in (None, np.zeros(shape, np.bool_), np.eye(*shape, dtype=np.bool_)):
        image = np.full(shape, value)
        values = density(image, mask=mask, spacing_mm=spacing)
        assert values["otsu2_share1"] == values["otsu4_separation"] == values["mean_above_fat"] == 0
        zones(image, mask=mask, spacing_mm=spacing)
