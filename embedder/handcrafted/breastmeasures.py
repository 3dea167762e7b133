"""What a whole breast looks like: how much of it is dense, and how tissue changes from skin to chest wall."""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from skimage.filters import threshold_multiotsu

from embedder.breast import Mask, Pixels, pectoral_mask
from embedder.handcrafted.intensity import histogram_features
from embedder.handcrafted.patches import nominal_spacing
from embedder.handcrafted.segmentation import gradients
from embedder.handcrafted.texture import binary_patterns
from embedder.preparation import Prepared

PLANE_MM = 0.8
"""Millimetres per pixel that a breast is looked at with."""

_CLASSES = (2, 3, 4)
_FIXED = (0.3, 0.4, 0.5, 0.6, 0.7)
_LEVELS = (5, 25, 50, 75, 95)
DENSITY_NAMES = (
    *(
        f"otsu{classes}_{measure}"
        for classes in _CLASSES
        for measure in (*(f"share{part}" for part in range(1, classes)), "separation")
    ),
    *(f"share_above_{round(100 * level)}" for level in _FIXED),
    *("fat", "mean_above_fat", *(f"p{share}_above_fat" for share in _LEVELS)),
    *("skewness", "kurtosis", "entropy", "local_std", "local_skewness"),
    *("log_area", "log_dense_area", "muscle_share"),
)

_ZONES, _PATTERNS = 4, 10
_ZONE_NAMES = tuple(f"{kind}{number}" for kind in ("depth", "wall") for number in range(1, _ZONES + 1))
_MEASURES = ("mean", "std", "skewness", "gradient")
ZONE_NAMES = (
    *(f"{zone}_{measure}" for zone in _ZONE_NAMES for measure in _MEASURES),
    *(f"depth{number}_lbp{pattern}" for number in range(1, _ZONES + 1) for pattern in range(_PATTERNS)),
    "depth_trend",
)

# The skin and the fat below it are no sign of density.
_SKIN_MM = 5.0
# Tissue that is denser than what lies this far around it.
_LOCAL_MM = 6.0
# However wrong a spacing is, the plane has at least and at most so many pixels a side.
_SHORTEST, _LONGEST = 8, 512
_BINS = 64


@dataclass(frozen=True, eq=False)
class BreastPlane:
    """A breast at a moderate resolution.

    Attributes:
        pixels: float32 (rows, columns) in [0, 1].
        tissue: bool (rows, columns), the breast without its pectoral muscle; not empty.
        interior: bool (rows, columns), the tissue further than 5 mm from the skin; not empty.
        depth: float32 (rows, columns), distance from the skin in pixels, 0 outside the breast.
        muscle_share: Share of the breast that the muscle hides.
        mm_per_pixel: Millimetres per pixel; nominal where the image's spacing is unknown.
    """

    pixels: Pixels
    tissue: Mask
    interior: Mask
    depth: Pixels
    muscle_share: float
    mm_per_pixel: float


def breast_plane(prepared: Prepared) -> BreastPlane:
    """Bring a breast whose chest wall is at the left to `PLANE_MM`, and part it into skin, interior and muscle."""
    mask = prepared.mask
    if mask is None or not mask.any():
        mask = np.ones(prepared.pixels.shape, np.bool_)
    across, down = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    window = slice(int(down[0]), int(down[-1]) + 1), slice(int(across[0]), int(across[-1]) + 1)
    rows, columns = mask[window].shape
    spacing = nominal_spacing(prepared)
    factor = min(spacing / PLANE_MM, _LONGEST / max(rows, columns))
    size = max(_SHORTEST, round(columns * factor)), max(_SHORTEST, round(rows * factor))
    way = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    pixels = np.asarray(cv2.resize(prepared.pixels[window], size, interpolation=way), np.float32)
    breast = cv2.resize(mask[window].astype(np.float32), size, interpolation=way) > 0.5
    if not breast.any():
        breast = np.ones_like(breast)
    mm_per_pixel = spacing / factor
    # What lies towards the chest wall is no skin: film borders and a blanked muscle do not thin the breast out. Nor
    # does it end as skin where the film does, so only background that the window holds counts.
    filled = np.asarray(np.maximum.accumulate(breast[:, ::-1], axis=1)[:, ::-1], np.bool_)
    depth = _from_right(size) if filled.all() else cv2.distanceTransform(filled.astype(np.uint8), cv2.DIST_L2, 5)
    depth = np.asarray(depth, np.float32)
    muscle = pectoral_mask(pixels, breast) & breast
    tissue = breast & ~muscle
    if not tissue.any():
        tissue, muscle = breast, np.zeros_like(breast)
    interior = tissue & (depth * mm_per_pixel > _SKIN_MM)
    if interior.sum() < 0.05 * tissue.sum():
        interior = tissue
    return BreastPlane(pixels, tissue, interior, depth, float(muscle.sum() / breast.sum()), mm_per_pixel)


def describe_density(plane: BreastPlane) -> dict[str, float]:
    """Return DENSITY_NAMES of a breast: shares of dense tissue by several thresholds, and its histogram.

    Percent density as Byng et al., The quantitative analysis of mammographic densities, Phys Med Biol 39,
    1629-1638, 1994, with thresholds of Otsu and of Liao, Chen and Chung, A fast algorithm for multilevel
    thresholding, J Inf Sci Eng 17, 713-727, 2001, in place of a reader's; skewness of the histogram as Byng et al.,
    Automated analysis of mammographic densities, Phys Med Biol 41, 909-923, 1996. Fat is the darkest of three
    classes, dense the brighter of two.
    """
    inside = plane.pixels[plane.interior]
    pixel = plane.mm_per_pixel**2
    named: dict[str, float] = {}
    thresholds = {classes: _thresholds(inside, classes) for classes in _CLASSES}
    for classes, levels in thresholds.items():
        for part, level in enumerate(levels, 1):
            named[f"otsu{classes}_share{part}"] = float((inside > level).mean())
        named[f"otsu{classes}_separation"] = _separation(inside, levels)
    for level in _FIXED:
        named[f"share_above_{round(100 * level)}"] = float((inside > level).mean())
    darkest = inside[inside <= thresholds[3][0]]
    fat = float(darkest.mean(dtype=np.float64)) if darkest.size else float(inside.min())
    named["fat"] = fat
    named["mean_above_fat"] = float(inside.mean(dtype=np.float64)) - fat
    for share, level in zip(_LEVELS, np.percentile(inside, _LEVELS), strict=True):
        named[f"p{share}_above_fat"] = float(level) - fat
    spread = histogram_features(inside)
    for name in ("skewness", "kurtosis", "entropy"):
        named[name] = spread[name]
    local = histogram_features(_local_contrast(plane)[plane.interior])
    named["local_std"], named["local_skewness"] = local["std"], local["skewness"]
    named["log_area"] = float(np.log(plane.tissue.sum() * pixel))
    named["log_dense_area"] = float(np.log1p((inside > thresholds[2][0]).sum() * pixel))
    named["muscle_share"] = plane.muscle_share
    return named


def describe_zones(plane: BreastPlane) -> dict[str, float]:
    """Return ZONE_NAMES of a breast: grey levels and texture in four zones by depth, and by distance from the wall.

    Karssemeijer, Automated classification of parenchymal patterns in mammograms, Phys Med Biol 43, 365-378, 1998:
    tissue is compared at equal distance from the skin, for there the compressed breast is equally thick. `depth1`
    lies below the skin, `wall1` at the chest wall.
    """
    across, down = gradients(plane.pixels)
    steepness = np.log(np.hypot(across, down) + np.float32(1e-3))
    patterns = binary_patterns(plane.pixels, _PATTERNS - 2, 1)
    columns = np.broadcast_to(np.arange(plane.pixels.shape[1], dtype=np.float32), plane.pixels.shape)
    zones = dict(zip(_ZONE_NAMES, (*_quarters(plane, plane.depth), *_quarters(plane, columns)), strict=True))
    named: dict[str, float] = {}
    for zone, where in zones.items():
        histogram = histogram_features(plane.pixels[where])
        for measure in ("mean", "std", "skewness"):
            named[f"{zone}_{measure}"] = histogram[measure]
        named[f"{zone}_gradient"] = float(steepness[where].mean(dtype=np.float64))
    for number in range(1, _ZONES + 1):
        counts = np.bincount(patterns[zones[f"depth{number}"]], minlength=_PATTERNS)
        for pattern, share in enumerate((counts / counts.sum()).tolist()):
            named[f"depth{number}_lbp{pattern}"] = share
    named["depth_trend"] = named[f"depth{_ZONES}_mean"] - named["depth1_mean"]
    return named


def _from_right(size: tuple[int, int]) -> Pixels:
    """Return the distance from the right border, of an image that shows tissue only."""
    columns, rows = size
    return np.tile(np.arange(columns, 0, -1, dtype=np.float32), (rows, 1))


def _quarters(plane: BreastPlane, measure: Pixels) -> list[Mask]:
    """Part the tissue into four by equal steps of a measure; the whole tissue stands in for an empty zone."""
    values = measure[plane.tissue]
    low, high = float(values.min()), float(values.max())
    step = np.floor((measure - low) / max(high - low, 1e-6) * _ZONES)
    zones = [plane.tissue & (np.clip(step, 0, _ZONES - 1) == number) for number in range(_ZONES)]
    return [zone if zone.any() else plane.tissue for zone in zones]


def _thresholds(inside: npt.NDArray[np.float32], classes: int) -> npt.NDArray[np.float64]:
    """Return Otsu's thresholds between classes of grey; the highest grey where there are too few greys."""
    counts, edges = np.histogram(inside, _BINS, (0, 1))
    if np.count_nonzero(counts) < classes:
        return np.full(classes - 1, float(inside.max()))
    # A class reaches to the end of its last bin.
    return np.asarray(threshold_multiotsu(classes=classes, hist=(counts, edges[1:])), np.float64)


def _separation(inside: npt.NDArray[np.float32], levels: npt.NDArray[np.float64]) -> float:
    """Return the share of the variance that lies between the classes."""
    total = float(inside.var(dtype=np.float64))
    if total < 1e-8:
        return 0.0
    part = np.searchsorted(levels, inside)
    number = np.maximum(np.bincount(part, minlength=len(levels) + 1), 1)
    means = np.bincount(part, inside, minlength=len(levels) + 1) / number
    within = float(((inside - means[part]) ** 2).mean(dtype=np.float64))
    return float(np.clip(1 - within / total, 0, 1))


def _local_contrast(plane: BreastPlane) -> Pixels:
    """Return each pixel less the mean of the tissue around it: density without the breast's thickness."""
    sigma = max(_LOCAL_MM / plane.mm_per_pixel, 1.0)
    weight = plane.tissue.astype(np.float32)
    around = cv2.GaussianBlur(plane.pixels * weight, (0, 0), sigma, borderType=cv2.BORDER_CONSTANT)
    share = cv2.GaussianBlur(weight, (0, 0), sigma, borderType=cv2.BORDER_CONSTANT)
    return np.asarray(plane.pixels - around / np.maximum(share, 1e-6), np.float32)
