"""Where the breast is on a mammogram: its mask, its chest wall, its pectoral muscle.

Geometry is found on a copy of at most 256 pixels a side: a breast has no edge finer than that, and the cost
stays the same for a film of 1 and a detector image of 14 megapixels.
"""

import cv2
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

GEOMETRY_SIDE = 256

# Thresholds tried between background and tissue.
_THRESHOLDS = 8
# An outline steeper than this (grey levels of 255 per pixel) is clear; how much steeper says no more.
_CLEAR_EDGE = 6.0
# By how much an outline must be steeper to count as such.
_CLEARLY = 1.05
# A breast covers at least this share of its image.
_SMALLEST_BREAST = 0.03
# Where the darkest pixels are this bright beside the brightest, there is no background: tissue fills the
# image.
_FULL_IMAGE = 0.45
# The least fall of brightness across the border of the muscle, and the least share of the border that falls
# at all.
_MUSCLE_FALL = 0.03
_MUSCLE_STEADY = 0.8
# The least share of the corner that is tissue.
_MUSCLE_WHOLE = 0.85

_OPENING = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9))
_RIM = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))


def shrink(pixels: Pixels) -> Pixels:
    """Return a copy of at most GEOMETRY_SIDE pixels a side, or the image itself where it is small already.

    Args:
        pixels: float32 (rows, columns).
    """
    factor = max(pixels.shape) / GEOMETRY_SIDE
    if factor <= 1.0:
        return pixels
    size = (max(1, round(pixels.shape[1] / factor)), max(1, round(pixels.shape[0] / factor)))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.float32)


def enlarge(mask: Mask, shape: tuple[int, ...]) -> Mask:
    """Return a mask of a shrunken image at the size of the image, its outline smooth.

    Args:
        mask: bool (rows, columns).
        shape: Rows and columns of the image.
    """
    if mask.shape == tuple(shape):
        return mask
    soft = cv2.resize(mask.astype(np.uint8) * 255, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)
    return np.asarray(soft > 127, np.bool_)


def breast_mask(pixels: Pixels) -> Mask:
    """Return where the breast is, without labels, film borders and background.

    Args:
        pixels: float32 (rows, columns) in [0, 1], dense tissue bright.

    Returns:
        bool (rows, columns); all True where no region stands out from the background (a crop of tissue, say).
    """
    return enlarge(small_breast_mask(shrink(pixels)), pixels.shape)


def small_breast_mask(small: Pixels) -> Mask:
    """Find the breast on a shrunken image: the largest region brighter than the background, without holes.

    The threshold is the lower of two, so that tissue is rather kept than cut. One stands clear of the
    background's grey and its spread, which finds the fading skin of a film; the other is where the region's
    outline is steepest, which finds the fatty rim of a detector image, dark beside an implant or dense tissue
    but sharp against black.

    Args:
        small: float32 (rows, columns) in [0, 1], see `shrink`.

    Returns:
        bool (rows, columns).
    """
    everything = np.ones(small.shape, np.bool_)
    smooth = np.asarray(cv2.GaussianBlur(small, (0, 0), 1.0), np.float32)
    levels = np.clip(smooth * 255, 0, 255).astype(np.uint8)
    dark, bright = (float(level) for level in np.percentile(levels, (5, 95)))
    if dark >= _FULL_IMAGE * bright:
        return everything
    dark = float(np.percentile(levels, 10))
    otsu, _ = cv2.threshold(levels, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    # Otsu's threshold parts dense tissue from fat as often as tissue from background: it only bounds the
    # search.
    highest = dark + max(4.0, 0.35 * (otsu - dark))
    threshold = min(_above_background(levels, dark, highest), _steepest(levels, smooth, dark, highest))
    region = _largest_region(levels, threshold)
    if region is None:
        return everything
    return np.asarray(cv2.dilate(region, _RIM), np.bool_)


def _above_background(levels: npt.NDArray[np.uint8], dark: float, highest: float) -> float:
    """Return a grey level that stands clear of the background's own spread."""
    background = levels[levels <= highest]
    middle, high = np.percentile(background, (50, 90))
    # The 90th percentile of a normal distribution lies 1.28 standard deviations above its middle.
    spread = (high - middle) / 1.28
    return float(min(middle + max(4.0, 5 * spread), highest))


def _steepest(levels: npt.NDArray[np.uint8], smooth: Pixels, dark: float, highest: float) -> float:
    """Return the grey level at which the outline of the largest region is steepest; the lowest of equals."""
    across, down = cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)
    # Sobel's kernel weighs a step by 8.
    slope = np.minimum(np.hypot(across, down) * (255 / 8), _CLEAR_EDGE)
    best, found = 0.0, highest
    for threshold in dark + np.geomspace(4.0, highest - dark, _THRESHOLDS):
        region = _largest_region(levels, float(threshold))
        if region is None:
            continue
        outline = region > cv2.erode(region, _RIM, borderValue=1)
        # Where the image ends, the breast goes on: that is no outline.
        outline[[0, -1]] = False
        outline[:, [0, -1]] = False
        steepness = float(slope[outline].mean()) if outline.any() else 0.0
        if steepness > _CLEARLY * best:
            best, found = steepness, float(threshold)
    return found


def _largest_region(levels: npt.NDArray[np.uint8], threshold: float) -> npt.NDArray[np.uint8] | None:
    """Return the largest region above a grey level, filled; None where it is too small for a breast."""
    # Opening cuts thin bridges to labels. Beyond the image it sees background, so that the bright strips at a
    # film's edges are thin too.
    above = cv2.morphologyEx(
        (levels > threshold).astype(np.uint8),
        cv2.MORPH_OPEN,
        _OPENING,
        borderType=cv2.BORDER_CONSTANT,
        borderValue=0,
    )
    count, components, stats, _ = cv2.connectedComponentsWithStats(above, connectivity=4)
    if count < 2:
        return None
    largest = (components == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))).astype(np.uint8)
    if largest.mean() < _SMALLEST_BREAST:
        return None
    contours, _ = cv2.findContours(largest, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return np.asarray(cv2.drawContours(np.zeros_like(largest), contours, -1, 1, thickness=cv2.FILLED), np.uint8)


def chest_wall_is_right(pixels: Pixels, mask: Mask) -> bool:
    """Tell whether the chest wall is at the right side of the image.

    At the nipple's side the breast thins out: its outline is a fading skin line. At the chest wall the image
    cuts through tissue of full thickness. So the side whose edge is brighter just inside the outline is the
    chest wall's; where the mask reaches the image's border it counts as cut. The file's own laterality is not
    asked: exports are mirrored often enough, and the same pixels shall give the same vector whatever their
    file says.

    Args:
        pixels: float32 (rows, columns) in [0, 1], a shrunken image (see `shrink`).
        mask: bool (rows, columns), its breast.

    Returns:
        False where the sides are alike (a crop of tissue).
    """
    rows = np.flatnonzero(mask.any(axis=1))
    if rows.size == 0:
        return False
    last = mask.shape[1] - 1
    left, right = mask[rows].argmax(axis=1), last - mask[rows, ::-1].argmax(axis=1)
    smooth = cv2.GaussianBlur(pixels, (0, 0), 1.0)
    full = float(np.percentile(smooth[mask], 99))
    # The mask reaches a pixel or two beyond the outline, and the smoothing as far.
    depths = (3, 4)
    at_left = np.mean([smooth[rows, np.minimum(left + depth, last)] for depth in depths], axis=0)
    at_right = np.mean([smooth[rows, np.maximum(right - depth, 0)] for depth in depths], axis=0)
    at_left[left <= 1] = full
    at_right[right >= last - 1] = full
    return bool(at_right.mean() > at_left.mean())


def pectoral_mask(pixels: Pixels, mask: Mask) -> Mask:
    """Return the pectoral muscle of an MLO view whose chest wall is at the left.

    The muscle fills the upper corner at the chest wall, and its border is close to straight: the line with
    the strongest fall of brightness from the corner outwards is sought among those that cut off a plausible
    triangle (after Karssemeijer, Phys Med Biol 43, 1998, who used a Hough transform). Where no line is clear
    nothing is masked.

    Args:
        pixels: float32 (rows, columns) in [0, 1], chest wall at the left.
        mask: bool (rows, columns), the breast.

    Returns:
        bool (rows, columns), True on the muscle.
    """
    small = shrink(pixels)
    small_mask = mask if mask.shape == small.shape else shrink(mask.astype(np.float32)) > 0.5
    return enlarge(small_pectoral_mask(small, small_mask), pixels.shape)


def small_pectoral_mask(small: Pixels, mask: Mask) -> Mask:
    """Find the pectoral muscle on a shrunken image, see `pectoral_mask`.

    Args:
        small: float32 (rows, columns) in [0, 1], chest wall at the left.
        mask: bool (rows, columns), the breast.

    Returns:
        bool (rows, columns).
    """
    nothing = np.zeros(small.shape, np.bool_)
    rows, columns = np.nonzero(mask)
    if rows.size == 0:
        return nothing
    top, left = int(rows.min()), int(columns.min())
    height, width = int(rows.max()) - top + 1, int(columns.max()) - left + 1
    # Lines by where they meet the top of the breast and its chest wall.
    across, down = np.meshgrid(np.linspace(0.15, 0.9, 31) * width, np.linspace(0.2, 0.85, 31) * height)
    angle = np.degrees(np.arctan2(across, down))
    plausible = (angle >= 12) & (angle <= 55)
    across, down = across[plausible], down[plausible]
    if across.size == 0:
        return nothing
    along = (np.arange(48, dtype=np.float64)[:, None] + 0.5) / 48
    x, y = left + along * across, top + (1 - along) * down
    length = np.hypot(across, down)
    step_x, step_y = down / length, across / length
    smooth = np.asarray(cv2.GaussianBlur(small, (0, 0), 1.5), np.float32)

    def sample(image: Pixels, distance: float) -> Pixels:
        """Look up an image at a distance from the lines, positive on the breast's side; (48, lines)."""
        at_x, at_y = (x + distance * step_x).astype(np.float32), (y + distance * step_y).astype(np.float32)
        return np.asarray(cv2.remap(image, at_x, at_y, cv2.INTER_LINEAR), np.float32)

    inside = mask.astype(np.float32)
    seen = (sample(inside, -5) > 0.9) & (sample(inside, 12) > 0.9)
    fall = np.where(seen, (sample(smooth, -3) + sample(smooth, -5) - sample(smooth, 3) - sample(smooth, 5)) / 2, 0)
    count = np.maximum(seen.sum(axis=0), 1)
    mean = fall.sum(axis=0) / count
    steady = ((fall > 0.01) & seen).sum(axis=0) / count
    visible = seen.mean(axis=0) * length
    # A long line is better evidence than a short one of the same contrast.
    score = np.where(
        (mean > _MUSCLE_FALL) & (steady > _MUSCLE_STEADY) & (visible > 0.2 * height),
        mean * np.sqrt(visible),
        0,
    )
    best = int(np.argmax(score))
    if score[best] <= 0:
        return nothing
    grid_y, grid_x = np.mgrid[0 : small.shape[0], 0 : small.shape[1]]
    beyond = (grid_x - left) * down[best] + (grid_y - top) * across[best] > across[best] * down[best]
    corner = ~beyond & (grid_x >= left) & (grid_y >= top)
    muscle = mask & corner
    # Films of mini-MIAS have the corner blanked: what is left of it is breast as likely as muscle.
    if muscle.sum() < _MUSCLE_WHOLE * corner.sum():
        return nothing
    # The muscle is as bright as the breast that it hides, or brighter; fat in the armpit is not.
    if smooth[muscle].mean() < smooth[mask & beyond].mean():
        return nothing
    return muscle
