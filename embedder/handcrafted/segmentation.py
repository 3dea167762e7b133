"""Where within its box a lesion lies: the outline that its shape and margin are measured on.

After Kupinski and Giger, Automated seeded lesion segmentation on digital mammograms, IEEE Trans Med Imaging 17,
510-517, 1998: the patch is multiplied by a Gaussian around the marked place, cut at many grey levels, and of the
regions that hold the centre one is kept by the gradients along its outline. Kupinski and Giger take the share of
them that points inwards, which is highest for small round cores; here it must only be clear, and the outline that
falls off most steeply is kept.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from embedder.breast import Mask, Pixels
from embedder.handcrafted.patches import Patch

OUTLINE_POINTS = 128

_LEVELS = 40
# Film grain is no outline; in pixels of the patch, as are the sizes below.
_SMOOTHING = 2.0
# The marked place reaches to one standard deviation of the Gaussian either way.
_SPREAD = 1.0
# A lesion fills at least and at most these shares of the ellipse in its box; a marked place is rarely drawn
# closer than its lesion, or more than thrice as wide.
_SMALLEST, _LARGEST = 0.08, 1.3
# An outline that agrees less than this with the gradients is chance.
_CHANCE = 0.25
# Of an ellipse, however thin its box, something must be left to measure.
_THINNEST = 3.0


@dataclass(frozen=True, eq=False)
class Lesion:
    """A segmented lesion.

    Attributes:
        mask: bool (side, side) of its patch, one region without holes.
        outline: float64 (OUTLINE_POINTS, 2), x and y of points at even distances along its border.
        radial_index: Radial gradient index of the outline, −1 to 1; 1 where all gradients point inwards.
        found: False where the ellipse of the box stands in, for no region's outline was clear.
    """

    mask: Mask
    outline: npt.NDArray[np.float64]
    radial_index: float
    found: bool


def segment_lesion(patch: Patch) -> Lesion:
    """Segment the lesion that a patch is centred on."""
    smooth = np.asarray(cv2.GaussianBlur(patch.pixels, (0, 0), _SMOOTHING), np.float32)
    across, down = gradients(smooth)
    ellipse = _box_ellipse(patch)
    size = float(ellipse.sum())
    steepest, found = 0.0, None
    for region, contour in _regions(patch, smooth):
        if not _SMALLEST * size <= region.sum() <= _LARGEST * size:
            continue
        index, slope = _radial_gradient(contour, across, down)
        if index > _CHANCE and slope > steepest:
            steepest, found = slope, Lesion(region, even_outline(contour), index, True)
    if found is not None:
        return found
    contour = _contour(ellipse)
    return Lesion(ellipse, even_outline(contour), _radial_gradient(contour, across, down)[0], False)


def gradients(pixels: Pixels) -> tuple[Pixels, Pixels]:
    """Return the derivatives to the right and downwards, in grey levels per pixel."""
    # Scharr's kernel weighs a slope of 1 by 32.
    across = cv2.Scharr(pixels, cv2.CV_32F, 1, 0, scale=1 / 32, borderType=cv2.BORDER_REPLICATE)
    down = cv2.Scharr(pixels, cv2.CV_32F, 0, 1, scale=1 / 32, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(across, np.float32), np.asarray(down, np.float32)


def even_outline(contour: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
    """Return points at even distances along a closed contour of pixels, its staircase smoothed away.

    Args:
        contour: int32 (points, 2), x and y.

    Returns:
        float64 (OUTLINE_POINTS, 2).
    """
    closed = np.vstack([contour, contour[:1]]).astype(np.float64)
    along = np.concatenate([[0.0], np.hypot(*np.diff(closed, axis=0).T).cumsum()])
    if along[-1] == 0:
        return np.repeat(closed[:1], OUTLINE_POINTS, axis=0)
    at = np.linspace(0, along[-1], OUTLINE_POINTS, endpoint=False)
    points = np.column_stack([np.interp(at, along, closed[:, axis]) for axis in (0, 1)])
    # About a pixel's length of outline, whatever the region's size.
    return np.asarray(ndimage.gaussian_filter1d(points, OUTLINE_POINTS / along[-1], axis=0, mode="wrap"))


def _regions(patch: Patch, smooth: Pixels) -> Iterator[tuple[Mask, npt.NDArray[np.int32]]]:
    """Yield the region around the centre, without holes, and its contour at each grey level, brightest first."""
    across, down = patch.from_centre()
    x0, y0, x1, y1 = patch.box
    spread_x, spread_y = (max(_SPREAD * (high - low) / 2, _THINNEST) for low, high in ((x0, x1), (y0, y1)))
    low, high = np.percentile(smooth[patch.valid], (2, 100))
    if high - low < 1e-6:
        return
    near = np.exp(-((across / spread_x) ** 2 + (down / spread_y) ** 2) / 2)
    weighted = np.where(patch.valid, np.clip((smooth - low) / (high - low), 0, 1) * near, 0).astype(np.float32)
    # The seed is the brightest place near the centre: a marked place is seldom centred to the pixel.
    central = np.where((across / spread_x) ** 2 + (down / spread_y) ** 2 < 0.4**2, weighted, 0)
    if not central.any():
        central = weighted
    _, top, _, (x, y) = cv2.minMaxLoc(central)
    for level in np.linspace(top, 0, _LEVELS + 2)[1:-1]:
        _, labels = cv2.connectedComponents((weighted >= level).astype(np.uint8), connectivity=4)
        contour = _contour(labels == labels[y, x])
        region = np.zeros(smooth.shape, np.uint8)
        cv2.drawContours(region, [contour[:, None]], 0, 1, cv2.FILLED)
        yield region > 0, contour


def _contour(region: Mask) -> npt.NDArray[np.int32]:
    """Return the outer border of a region as int32 (points, 2), x and y."""
    contours, _ = cv2.findContours(region.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return np.asarray(max(contours, key=len)[:, 0], np.int32)


def _radial_gradient(contour: npt.NDArray[np.int32], across: Pixels, down: Pixels) -> tuple[float, float]:
    """Return what share of the gradients along a contour points to its middle, and how steep that is on average."""
    x, y = contour.T
    towards = contour.mean(axis=0) - contour
    length = np.maximum(np.hypot(*towards.T), 1e-9)
    inwards = (across[y, x] * towards[:, 0] + down[y, x] * towards[:, 1]) / length
    total = float(np.hypot(across[y, x], down[y, x]).sum())
    return (float(inwards.sum()) / total if total > 1e-9 else 0.0), float(inwards.mean())


def _box_ellipse(patch: Patch) -> Mask:
    """Return the ellipse that fills the marked place."""
    x0, y0, x1, y1 = patch.box
    rows, columns = np.mgrid[: patch.side, : patch.side]
    across = (columns + 0.5 - (x0 + x1) / 2) / max((x1 - x0) / 2, _THINNEST)
    down = (rows + 0.5 - (y0 + y1) / 2) / max((y1 - y0) / 2, _THINNEST)
    return np.asarray(across**2 + down**2 <= 1, np.bool_)
