"""Texture of a piece of tissue: co-occurrence of grey levels, local binary patterns, oriented gradients."""

import cv2
import numpy as np
import numpy.typing as npt
from scipy import stats
from skimage.feature import graycomatrix, graycoprops, hog, local_binary_pattern

from embedder.breast import Mask, Pixels

_LEVELS = 16
# Greys that span less than this have no texture but grain; five steps of an 8-bit film.
_LEAST_RANGE = 0.02
_DISTANCES = 4
_ANGLES = (0.0, np.pi / 4, np.pi / 2, 3 * np.pi / 4)
_PROPERTIES = ("contrast", "homogeneity", "energy", "correlation", "entropy")
GLCM_NAMES = tuple(
    f"glcm_{name}_d{distance}_{statistic}"
    for name in _PROPERTIES
    for distance in range(1, _DISTANCES + 1)
    for statistic in ("mean", "range")
)

# Points and radius in pixels of each local binary pattern.
_CIRCLES = ((8, 1), (16, 3))
LBP_NAMES = tuple(f"lbp_r{radius}_{pattern}" for points, radius in _CIRCLES for pattern in range(points + 2))
TEXTURE_NAMES = (*GLCM_NAMES, *LBP_NAMES)

_HOG_SIDE, _HOG_CELLS, _HOG_DIRECTIONS = 48, 3, 8
HOG_NAMES = tuple(
    f"cell{row}{column}_direction{direction}"
    for row in range(1, _HOG_CELLS + 1)
    for column in range(1, _HOG_CELLS + 1)
    for direction in range(1, _HOG_DIRECTIONS + 1)
)


def describe_texture(
    pixels: Pixels, mask: Mask, mm_per_pixel: float, distances_mm: tuple[float, float, float, float]
) -> dict[str, float]:
    """Return TEXTURE_NAMES of a region.

    - Co-occurrence matrices of Haralick et al., Textural features for image classification, IEEE Trans Syst Man
      Cybern 3, 610-621, 1973: at each distance the mean over four directions, and the range.
    - Rotation-invariant uniform patterns of Ojala, Pietikäinen and Mäenpää, Multiresolution gray-scale and rotation
      invariant texture classification with local binary patterns, IEEE Trans Pattern Anal Mach Intell 24, 971-987,
      2002: the share of each among the region's pixels.

    Args:
        pixels: float32 (rows, columns) in [0, 1].
        mask: bool (rows, columns), the region, not empty.
        mm_per_pixel: Millimetres per pixel.
        distances_mm: Distances of the co-occurrence matrices in mm; at least a pixel each.
    """
    distances = [max(1, round(distance / mm_per_pixel)) for distance in distances_mm]
    return {**_cooccurrence(pixels, mask, distances), **_patterns(pixels, mask)}


def describe_hog(pixels: Pixels) -> dict[str, float]:
    """Return HOG_NAMES of a square: histograms of oriented gradients in 3 × 3 cells, normalised together.

    Dalal and Triggs, Histograms of oriented gradients for human detection, Proc IEEE CVPR, 886-893, 2005.
    """
    small = cv2.resize(pixels, (_HOG_SIDE, _HOG_SIDE), interpolation=cv2.INTER_AREA)
    cell = _HOG_SIDE // _HOG_CELLS
    values = hog(small, _HOG_DIRECTIONS, (cell, cell), (_HOG_CELLS, _HOG_CELLS), block_norm="L2-Hys")
    return dict(zip(HOG_NAMES, values.tolist(), strict=True))


def quantised(pixels: Pixels, mask: Mask) -> npt.NDArray[np.uint8]:
    """Return grey levels 1 to 16 over the 1st to 99th percentile of a region, and 0 outside it."""
    low, high = np.percentile(pixels[mask], (1, 99))
    scaled = (pixels - low) * (_LEVELS / max(float(high - low), _LEAST_RANGE))
    return np.where(mask, 1 + np.clip(scaled, 0, _LEVELS - 1).astype(np.uint8), 0).astype(np.uint8)


def binary_patterns(pixels: Pixels, points: int, radius: int) -> npt.NDArray[np.intp]:
    """Return each pixel's uniform local binary pattern, 0 to points + 1."""
    # In bytes: between floats a rounding error would be a pattern.
    grey = np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)
    # scikit-image sees black beyond the border.
    wide = np.pad(grey, radius + 1, mode="edge")
    inner = slice(radius + 1, -radius - 1)
    return np.asarray(local_binary_pattern(wide, points, radius, "uniform"))[inner, inner].astype(np.intp)


def _cooccurrence(pixels: Pixels, mask: Mask, distances: list[int]) -> dict[str, float]:
    counts = graycomatrix(quantised(pixels, mask), distances, _ANGLES, levels=_LEVELS + 1, symmetric=True)
    # Level 0 is what lies outside: its pairs do not count.
    counts = counts[1:, 1:]
    shares = counts.reshape(_LEVELS**2, len(distances), len(_ANGLES)).astype(np.float64)
    # A region too small for any pair at a distance has a single one, of a level with itself.
    shares[0] += shares.sum(axis=0) == 0
    counts = shares.reshape(counts.shape)
    named = {}
    for name in _PROPERTIES:
        # scikit-image has entropy from 0.25 on.
        values = stats.entropy(shares, base=2, axis=0) if name == "entropy" else graycoprops(counts, name)
        for number, row in enumerate(values, 1):
            named[f"glcm_{name}_d{number}_mean"] = float(row.mean())
            named[f"glcm_{name}_d{number}_range"] = float(np.ptp(row))
    return named


def _patterns(pixels: Pixels, mask: Mask) -> dict[str, float]:
    values = []
    for points, radius in _CIRCLES:
        counts = np.bincount(binary_patterns(pixels, points, radius)[mask], minlength=points + 2)
        values.extend((counts / counts.sum()).tolist())
    return dict(zip(LBP_NAMES, values, strict=True))
