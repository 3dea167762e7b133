"""What draws a reader's eye on a breast, cell by cell: blobs, centres that edges and lines point at, specks.

These are the classical detectors of computer-aided detection. They are measured beside what a network sees, because
they know of masses and calcifications what photographs can't teach: blobs by differences of Gaussians (Lindeberg, IJCV
30, 1998), masses by the convergence of the gradient (Kobatake and Hashimoto, Convergence index filter for vector
fields, IEEE Trans Image Processing 8, 1999), spiculation by lines that point at one place (Karssemeijer and te Brake,
Detection of stellate distortions in mammograms, IEEE Trans Med Imaging 15, 1996), specks by the white top-hat. Every
filter is small and runs on the working image, its half and its quarter.
"""

import cv2
import numpy as np
import numpy.typing as npt

from embedder.breast import Mask, Pixels

_LEVELS = (1, 2, 4)
_RADIUS = 6  # pixels of each level
_SIGMA = 1.4  # pixels of each level
_SPOT = 5  # pixels of each level
_FAINT = 0.01  # a gradient below it is noise, and has no direction
# At full size, what converges within six pixels is noise, and finding it would take most of the time.
_CENTRED_LEVELS = (2, 4)
_MAPS = {
    level: ("blob", "speck", "roughness") + (("convergence", "spiculation") if level in _CENTRED_LEVELS else ())
    for level in _LEVELS
}

NAMES = (
    *(f"{how} {name} {level}" for level in _LEVELS for how in ("mean", "highest") for name in _MAPS[level]),
    *("brightness", "contrast", "depth"),
)


def conspicuity(shown: Pixels, mask: Mask, cell: int) -> npt.NDArray[np.float32]:
    """Return the measures of `NAMES` for each cell, float32 (measures, rows / cell, columns / cell).

    Args:
        shown: float32 (rows, columns) in [0, 1], 0 outside the breast; both sides are multiples of the cell.
        mask: bool (rows, columns), True on the breast.
        cell: Side of a cell in pixels, a multiple of 4.
    """
    size = (shown.shape[1] // cell, shown.shape[0] // cell)
    inside = mask.astype(np.float32)
    filled = _continued(shown, inside)
    measures: list[Pixels] = []
    for level in _LEVELS:
        half = (shown.shape[1] // level, shown.shape[0] // level)
        maps = _maps(_area(filled, half), level in _CENTRED_LEVELS) * (_area(inside, half) > 0.5)
        side = cell // level
        tiled = maps.reshape(len(maps), size[1], side, size[0], side)
        measures += [*tiled.mean(axis=(2, 4)), *tiled.max(axis=(2, 4))]
    bright = _area(filled, size)
    depth = cv2.distanceTransform(np.pad(mask, ((0, 0), (1, 1)), "edge").astype(np.uint8), cv2.DIST_L2, 3)[:, 1:-1]
    deep = _area(np.asarray(depth, np.float32), size) / np.float32(100)
    measures += [bright, np.asarray(bright - _blur(bright, 3.0)), np.asarray(deep, np.float32)]
    return np.stack(measures).astype(np.float32)


def _area(values: Pixels, size: tuple[int, int]) -> Pixels:
    if values.shape == size[::-1]:
        return values
    return np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_AREA), np.float32)


def _blur(values: Pixels, sigma: float) -> Pixels:
    return np.asarray(cv2.GaussianBlur(values, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE), np.float32)


def _continued(shown: Pixels, inside: Pixels) -> Pixels:
    """Continue tissue beyond the skin, whose edge is the steepest of all and would be all that a filter sees."""
    filled, known = shown * inside, inside.copy()
    for factor in (4, 8, 16, 32):
        size = (max(1, shown.shape[1] // factor), max(1, shown.shape[0] // factor))
        share = _area(inside, size)
        coarse = _area(shown * inside, size) / np.maximum(share, 1e-3)
        near = cv2.resize((share > 0.05).astype(np.float32), shown.shape[::-1], interpolation=cv2.INTER_NEAREST)
        enlarged = cv2.resize(coarse, shown.shape[::-1], interpolation=cv2.INTER_NEAREST)
        reached = (known == 0) & (near > 0)
        filled[reached] = enlarged[reached]
        known[reached] = 1
    return filled


def _maps(values: Pixels, centred: bool) -> npt.NDArray[np.float32]:
    """Return the maps of `_MAPS` of one level."""
    blob = _blur(values, _SIGMA) - _blur(values, 1.6 * _SIGMA)
    element = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (_SPOT, _SPOT))
    speck = cv2.morphologyEx(values, cv2.MORPH_TOPHAT, element)
    detail = values - _blur(values, 1.0)
    rough = np.sqrt(_blur(detail * detail, 3.0))
    further = (_centred(*_edges(values), 1), _centred(*_lines(values), 2)) if centred else ()
    return np.stack([blob, speck, rough, *further]).astype(np.float32)


def _edges(values: Pixels) -> tuple[Pixels, Pixels]:
    """Return the direction of the gradient as a unit vector (x, y), shorter where it is faint."""
    smooth = _blur(values, _SIGMA)
    x, y = (cv2.Scharr(smooth, cv2.CV_32F, *axis) / 32 for axis in ((1, 0), (0, 1)))
    length = np.hypot(x, y) + np.float32(_FAINT)
    return np.asarray(x / length, np.float32), np.asarray(y / length, np.float32)


def _lines(values: Pixels) -> tuple[Pixels, Pixels]:
    """Return the direction of bright lines as a vector of the doubled angle, shorter where there is none."""
    smooth = _blur(values, _SIGMA)
    xx, yy, xy = (cv2.Sobel(smooth, cv2.CV_32F, *order, ksize=3) / 4 for order in ((2, 0), (0, 2), (1, 1)))
    # Along a bright line the second derivative is least negative: the doubled angle of the curvature's own axis.
    length = np.hypot(xx - yy, 2 * xy) + np.float32(_FAINT)
    bright = xx + yy < 0
    return np.asarray((xx - yy) / length * bright, np.float32), np.asarray(2 * xy / length * bright, np.float32)


def _centred(x: Pixels, y: Pixels, turns: int) -> Pixels:
    """Return how far directions around each pixel point at it, about -1 to 1.

    Args:
        x: Cosine of each pixel's direction, or of its doubled angle.
        y: Sine.
        turns: 1 for directions, 2 for doubled angles.
    """
    down, across = np.mgrid[-_RADIUS : _RADIUS + 1, -_RADIUS : _RADIUS + 1].astype(np.float32)
    distance = np.hypot(down, across)
    ring = ((distance >= _RADIUS / 3) & (distance <= _RADIUS)).astype(np.float32)
    angle = np.arctan2(down, across) * turns
    # A gradient that points at the brighter middle goes against the offset; a line has no sense.
    sign = -1.0 if turns == 1 else 1.0
    kernels = sign * ring * np.cos(angle) / ring.sum(), sign * ring * np.sin(angle) / ring.sum()
    pointed = [
        cv2.filter2D(v, cv2.CV_32F, k, borderType=cv2.BORDER_CONSTANT) for v, k in zip((x, y), kernels, strict=True)
    ]
    return np.asarray(pointed[0] + pointed[1], np.float32)
