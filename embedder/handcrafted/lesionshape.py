"""The shape of a segmented lesion: how large, how long, how round, how smooth its border."""

import cv2
import numpy as np
import numpy.typing as npt
from scipy import stats
from skimage.measure import regionprops

from embedder.handcrafted.patches import Patch
from embedder.handcrafted.segmentation import OUTLINE_POINTS, Lesion

_HARMONICS = (2, 3, 4, 5, 6)
SHAPE_NAMES = (
    *("segmented", "log_area", "diameter_mm", "box_share"),
    *("eccentricity", "axis_ratio", "solidity", "extent", "circularity", "offset"),
    *("nrl_mean", "nrl_std", "nrl_entropy", "nrl_area_ratio", "nrl_crossings", "nrl_roughness"),
    *(f"fourier_{sign}{order}" for order in _HARMONICS for sign in ("plus", "minus")),
    "fourier_factor",
)

_RADIAL_BINS = 20


def describe_shape(patch: Patch, lesion: Lesion) -> dict[str, float]:
    """Return SHAPE_NAMES of a lesion.

    - Size in mm, and as a share of the marked place; whether the outline was found or is the box's ellipse.
    - The region's moments, hull and perimeter, as Rangayyan et al., Measures of acutance and shape for
      classification of breast tumors, IEEE Trans Med Imaging 16, 799-810, 1997, and most since.
    - The normalised radial length of Kilday, Palmieri and Fox, Classifying mammographic lesions using computerized
      image analysis, IEEE Trans Med Imaging 12, 664-669, 1993.
    - Fourier descriptors of the outline, by Persoon and Fu, Shape discrimination using Fourier descriptors, IEEE
      Trans Syst Man Cybern 7, 170-179, 1977, of which only magnitudes are kept: no turn changes them.

    Args:
        patch: The patch.
        lesion: The lesion in it.
    """
    (region,) = regionprops(lesion.mask.astype(np.uint8))
    x0, y0, x1, y1 = patch.box
    area = float(region.area)
    row, column = region.centroid
    radius = float(np.sqrt(area / np.pi))
    # Cauchy and Crofton's estimate, which alone is the same for a disc of any size.
    perimeter = max(float(region.perimeter_crofton), 1.0)
    return {
        "segmented": float(lesion.found),
        "log_area": float(np.log(area * patch.mm_per_pixel**2)),
        "diameter_mm": 2 * radius * patch.mm_per_pixel,
        "box_share": min(area / max((x1 - x0) * (y1 - y0), 1.0), 10.0),
        "eccentricity": float(region.eccentricity),
        "axis_ratio": float(region.axis_minor_length / max(region.axis_major_length, 1.0)),
        "solidity": float(min(area / max(_hull_area(lesion), area), 1.0)),
        "extent": area / _least_rectangle(lesion, area),
        "circularity": min(4 * np.pi * area / perimeter**2, 1.5),
        "offset": float(np.hypot(row - (y0 + y1 - 1) / 2, column - (x0 + x1 - 1) / 2)) / max(radius, 1.0),
        **_radial_length(lesion.outline),
        **_fourier(lesion.outline),
    }


def _hull_area(lesion: Lesion) -> float:
    """Return the area in pixels of the convex hull, drawn as the region is."""
    hull = cv2.convexHull(np.argwhere(lesion.mask)[:, ::-1].astype(np.int32))
    drawn = np.zeros(lesion.mask.shape, np.uint8)
    cv2.fillConvexPoly(drawn, hull, 1)
    return float(drawn.sum())


def _least_rectangle(lesion: Lesion, area: float) -> float:
    """Return the area in pixels of the least rectangle around the region, whatever its direction."""
    _, (width, height), _ = cv2.minAreaRect(np.argwhere(lesion.mask)[:, ::-1].astype(np.int32))
    # Between the middles of pixels lies one pixel less than they cover.
    return max((width + 1) * (height + 1), area)


def _radial_length(outline: npt.NDArray[np.float64]) -> dict[str, float]:
    """Return statistics of the distance from the middle to the outline, as a share of its largest."""
    length = np.hypot(*(outline - outline.mean(axis=0)).T)
    length = length / max(float(length.max()), 1e-9)
    mean = float(length.mean())
    above = length > mean
    excess = np.maximum(length - mean, 0)
    counts, _ = np.histogram(length, _RADIAL_BINS, (0, 1))
    return {
        "nrl_mean": mean,
        "nrl_std": float(length.std()),
        "nrl_entropy": float(stats.entropy(counts, base=2)),
        # How much of the outline lies beyond a circle of the mean radius.
        "nrl_area_ratio": float(excess.sum()) / max(mean * len(length), 1e-9),
        "nrl_crossings": float(np.count_nonzero(above != np.roll(above, 1))),
        "nrl_roughness": float(np.abs(length - np.roll(length, 1)).mean()),
    }


def _fourier(outline: npt.NDArray[np.float64]) -> dict[str, float]:
    """Return magnitudes of an outline's harmonics, as shares of the circle that suits it best.

    They are rooted, for most are small. Those named minus turn against the outline's own sense; the first of them
    makes an ellipse of a circle, which the axes tell already. `fourier_factor` is that of Shen, Rangayyan and
    Desautels, Detection and classification of mammographic calcifications, Int J Pattern Recognit Artif Intell 7,
    1403-1416, 1993: 1 for a circle, lower for a rough outline.
    """
    magnitudes = np.abs(np.fft.fft(outline[:, 0] + 1j * outline[:, 1])) / OUTLINE_POINTS
    circle = max(float(magnitudes[1]), float(magnitudes[-1]), 1e-9)
    # The sense in which an outline is stored is the tracer's affair.
    if magnitudes[-1] > magnitudes[1]:
        magnitudes = np.concatenate([magnitudes[:1], magnitudes[:0:-1]])
    shares = np.minimum(magnitudes / circle, 1)
    named = {}
    for order in _HARMONICS:
        named[f"fourier_plus{order}"] = float(np.sqrt(shares[order]))
        named[f"fourier_minus{order}"] = float(np.sqrt(shares[-order]))
    orders = np.arange(1, OUTLINE_POINTS // 2)
    both = shares[orders] + shares[-orders]
    named["fourier_factor"] = float((both / orders).sum() / max(float(both.sum()), 1e-9))
    return named
