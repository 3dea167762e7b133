"""Which way gradients and lines run about the middle of a finding: divergence histograms, stellate patterns."""

import cv2
import numpy as np

from embedder.breast import Mask, Pixels
from embedder.handcrafted.patches import Patch
from embedder.handcrafted.segmentation import gradients

_RINGS, _BINS = 4, 8
HGD_NAMES = tuple(f"ring{ring}_bin{bin_}" for ring in range(1, _RINGS + 1) for bin_ in range(1, _BINS + 1))
STELLATE_NAMES = ("line_concentration", "line_isotropy", "gradient_concentration", "gradient_isotropy")

# Film grain has gradients too; in pixels of the patch.
_GRAIN = 1.0
# Lines and edges of a stellate pattern are looked for at this scale, on a ring between these shares of half the
# patch's side; they point to the centre where they pass it within the third share.
_LINE_WIDTH = 2.0
_RING_FROM, _RING_TO, _TARGET = 0.3, 0.95, 0.2
_SECTORS = 16


def describe_divergence(patch: Patch) -> dict[str, float]:
    """Return HGD_NAMES: for concentric rings the histogram of angles between gradient and direction to the centre.

    Moura and Guevara López, An evaluation of image descriptors combined with clinical data for breast cancer
    diagnosis, Int J Comput Assist Radiol Surg 8, 561-574, 2013. Each pixel counts with its gradient's magnitude, and
    each ring sums to 1: bin 1 holds gradients that point to the centre, as all of a bright round mass do, bin 8
    those that point away.
    """
    across, down = gradients(np.asarray(cv2.GaussianBlur(patch.pixels, (0, 0), _GRAIN), np.float32))
    distance, cosine, _ = _about_centre(patch, across, down)
    magnitude = np.hypot(across, down)
    # A valid pixel's gradient reaches into its neighbours.
    seen = _well_inside(patch.valid) & (magnitude > 1e-6)
    half = patch.side / 2
    ring = np.floor(distance / half * _RINGS)
    seen &= ring < _RINGS
    bin_ = np.minimum(np.arccos(np.clip(cosine[seen], -1, 1)) / np.pi * _BINS, _BINS - 1)
    at = ring[seen].astype(np.intp) * _BINS + bin_.astype(np.intp)
    counts = np.bincount(at, magnitude[seen], minlength=_RINGS * _BINS).reshape(_RINGS, _BINS)
    total = counts.sum(axis=1, keepdims=True)
    # A ring without any gradient is as even as can be.
    shares = np.where(total > 0, counts / np.where(total > 0, total, 1), 1 / _BINS)
    return dict(zip(HGD_NAMES, shares.ravel().tolist(), strict=True))


def describe_stellate(patch: Patch) -> dict[str, float]:
    """Return STELLATE_NAMES: whether lines, and edges, point to the centre, and whether from all around.

    Karssemeijer and te Brake, Detection of stellate distortions in mammograms, IEEE Trans Med Imaging 15, 611-619,
    1996, and te Brake and Karssemeijer, Single and multiscale detection of masses in digital mammograms, IEEE Trans
    Med Imaging 18, 628-639, 1999. `concentration` is their first measure without its growth by the number of pixels,
    0 where as many point to the centre as would by chance; `isotropy` is their second, the deviation from half of
    the number of sectors in which more do than by chance, in standard deviations.
    """
    smooth = np.asarray(cv2.GaussianBlur(patch.pixels, (0, 0), _LINE_WIDTH), np.float32)
    across, down = gradients(smooth)
    edge_distance, cosine, sine = _about_centre(patch, across, down)
    half = patch.side / 2
    ring = (edge_distance > _RING_FROM * half) & (edge_distance < _RING_TO * half) & _well_inside(patch.valid)
    miss = _TARGET * half / np.maximum(edge_distance, _TARGET * half)
    by_chance = np.arcsin(miss) / np.pi
    edges = _stellate(
        patch, ring, np.hypot(across, down), (np.abs(sine) < miss) & (cosine > 0), by_chance.astype(np.float32)
    )
    line_x, line_y, strength = _lines(smooth)
    _, _, line_sine = _about_centre(patch, line_x, line_y)
    lines = _stellate(patch, ring, strength, np.abs(line_sine) < miss, (2 * by_chance).astype(np.float32))
    return dict(zip(STELLATE_NAMES, (*lines, *edges), strict=True))


def _stellate(patch: Patch, ring: Mask, strength: Pixels, points: Mask, by_chance: Pixels) -> tuple[float, float]:
    """Return concentration and isotropy of what points to the centre, among the stronger half of a ring."""
    if not ring.any():
        return 0.0, 0.0
    # Where everything is equally weak nothing has a direction.
    strong = ring & (strength > max(float(np.median(strength[ring])), 1e-6))
    if not strong.any():
        return 0.0, 0.0
    across, down = patch.from_centre()
    sector = np.floor((np.arctan2(down, across) / (2 * np.pi) + 0.5) * _SECTORS).astype(np.intp) % _SECTORS
    excess = points[strong].astype(np.float64) - by_chance[strong]
    deviation = float(np.sqrt((by_chance[strong] * (1 - by_chance[strong])).mean(dtype=np.float64)))
    per_sector = np.bincount(sector[strong], excess, minlength=_SECTORS)
    above = float((per_sector > 0).sum())
    return float(excess.mean()) / max(deviation, 1e-9), (above - _SECTORS / 2) / np.sqrt(_SECTORS / 4)


def _about_centre(patch: Patch, across: Pixels, down: Pixels) -> tuple[Pixels, Pixels, Pixels]:
    """Return each pixel's distance from the centre, and cosine and sine of a vector's angle to the way there."""
    right, below = patch.from_centre()
    distance = np.hypot(right, below)
    length = np.maximum(distance * np.hypot(across, down), 1e-12)
    return distance, -(across * right + down * below) / length, (across * below - down * right) / length


def _lines(smooth: Pixels) -> tuple[Pixels, Pixels, Pixels]:
    """Return the direction of the brightest line through each pixel, as x and y, and its strength, 0 for none."""
    second = [
        cv2.Sobel(smooth, cv2.CV_32F, order_x, order_y, ksize=3, borderType=cv2.BORDER_REPLICATE)
        for order_x, order_y in ((2, 0), (1, 1), (0, 2))
    ]
    # Sobel's kernels weigh second derivatives by 4, the mixed one too.
    xx, xy, yy = (derivative / 4 for derivative in second)
    root = np.sqrt((xx - yy) ** 2 / 4 + xy**2)
    # Across a bright line the curvature is most negative; the line runs at right angles to that.
    strength = np.maximum(root - (xx + yy) / 2, 0)
    angle = np.arctan2(2 * xy, xx - yy) / 2
    return np.cos(angle), np.sin(angle), strength


def _well_inside(valid: Mask) -> Mask:
    """Return where a pixel and its neighbours are valid; all that is valid where that is nothing."""
    eroded = cv2.erode(valid.astype(np.uint8), np.ones((5, 5), np.uint8), borderValue=1) > 0
    return np.asarray(eroded if eroded.any() else valid, np.bool_)
