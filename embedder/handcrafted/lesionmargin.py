"""How a lesion's margin falls off: sharp or blurred, even or not, smooth or with spicules."""

import cv2
import numpy as np
import numpy.typing as npt

from embedder.breast import Pixels
from embedder.handcrafted.orientation import STELLATE_NAMES, describe_stellate
from embedder.handcrafted.patches import Patch
from embedder.handcrafted.segmentation import Lesion, gradients

MARGIN_NAMES = (
    *("contrast_mean", "contrast_std", "contrast_low", "acutance", "slope_mean", "slope_std", "width_mm", "width"),
    *("gradient_mean", "gradient_std", "radial_index", "radial_spread_rim", "radial_spread_inside"),
    *STELLATE_NAMES,
)

# The profile across the margin reaches this share of the lesion's radius to either side, and at least a few pixels.
_REACH, _SHORTEST = 0.4, 4.0
_STEPS = 10
_FAINT = 1e-4


def describe_margin(patch: Patch, lesion: Lesion) -> dict[str, float]:
    """Return MARGIN_NAMES of a lesion.

    - Profiles along the normals: contrast of inside to outside, its steepest fall, how wide the fall is, and the
      acutance of Rangayyan et al., Measures of acutance and shape for classification of breast tumors, IEEE Trans
      Med Imaging 16, 799-810, 1997.
    - The radial gradient index of the outline, and the spread of gradient directions about the radial one on the
      rim and inside, which tells spiculation: Huo et al., Analysis of spiculation in the computerized
      classification of mammographic masses, Med Phys 22, 1569-1579, 1995.
    - Lines and edges that point to the centre: see `describe_stellate`.

    Args:
        patch: The patch.
        lesion: The lesion in it.
    """
    radius = float(np.sqrt(lesion.mask.sum() / np.pi))
    reach = max(_REACH * radius, _SHORTEST)
    profiles, step = _profiles(patch.pixels, lesion.outline, reach)
    inside, outside = profiles[:, :_STEPS], profiles[:, _STEPS + 1 :]
    contrast = inside.mean(axis=1) - outside.mean(axis=1)
    falls = (profiles[:, :-2] - profiles[:, 2:]) / (2 * step)
    # Both in the same unit: grey levels per reach.
    steepest = falls.max(axis=1) * reach
    typical = float(np.median(contrast))
    width = float(np.clip(typical / max(float(np.median(steepest)), _FAINT), 0, 2))
    across, down = gradients(np.asarray(cv2.GaussianBlur(patch.pixels, (0, 0), 1.0), np.float32))
    magnitude = _at(np.hypot(across, down), lesion.outline) * reach
    distance = cv2.distanceTransform(lesion.mask.astype(np.uint8), cv2.DIST_L2, 5)
    away = cv2.distanceTransform((~lesion.mask).astype(np.uint8), cv2.DIST_L2, 5)
    rim = (distance <= reach / 2) & (away <= reach / 2)
    return {
        "contrast_mean": float(contrast.mean()),
        "contrast_std": float(contrast.std()),
        "contrast_low": float(np.percentile(contrast, 10)),
        "acutance": _acutance(profiles),
        "slope_mean": float(steepest.mean()),
        "slope_std": float(steepest.std()),
        "width_mm": width * reach * patch.mm_per_pixel,
        "width": width,
        "gradient_mean": float(magnitude.mean()),
        "gradient_std": float(magnitude.std()),
        "radial_index": lesion.radial_index,
        "radial_spread_rim": _radial_spread(lesion, rim, across, down),
        "radial_spread_inside": _radial_spread(lesion, lesion.mask, across, down),
        **describe_stellate(patch),
    }


def _profiles(pixels: Pixels, outline: npt.NDArray[np.float64], reach: float) -> tuple[Pixels, float]:
    """Return brightness along the outline's normals, inside first, and the step between samples in pixels.

    Returns:
        float32 (points, 2 · _STEPS + 1), the outline in the middle.
    """
    # A chord over several points: the normal of two neighbours would follow the pixels' staircase.
    chord = np.roll(outline, -3, axis=0) - np.roll(outline, 3, axis=0)
    length = np.maximum(np.hypot(*chord.T), 1e-9)
    normal = np.column_stack([chord[:, 1], -chord[:, 0]]) / length[:, None]
    # Whichever way round the outline runs, its normals shall point outwards.
    x, y = outline.T
    if float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()) < 0:
        normal = -normal
    offsets = np.linspace(-reach, reach, 2 * _STEPS + 1)
    points = outline[:, None] + offsets[None, :, None] * normal[:, None]
    return _at(pixels, points), reach / _STEPS


def _at(pixels: Pixels, points: npt.NDArray[np.float64]) -> Pixels:
    """Look up an image at points (..., 2) of x and y."""
    x, y = np.moveaxis(points.reshape(-1, 2).astype(np.float32), 1, 0)[:, :, None]
    values = cv2.remap(pixels, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(values, np.float32).reshape(points.shape[:-1])


def _acutance(profiles: Pixels) -> float:
    """Return the root mean square, over the outline, of the slopes from equal distances inside to outside.

    In shares of the brightest sample, per reach.
    """
    inside, outside = profiles[:, :_STEPS][:, ::-1], profiles[:, _STEPS + 1 :]
    slopes = (inside - outside) / (2 * np.arange(1, _STEPS + 1) / _STEPS)
    highest = max(float(profiles.max()), 1e-2)
    return float(np.sqrt((slopes.mean(axis=1) ** 2).mean())) / highest


def _radial_spread(lesion: Lesion, where: npt.NDArray[np.bool_], across: Pixels, down: Pixels) -> float:
    """Return how gradients scatter about the radial direction, 0 (none do) to 1 (as many inwards as outwards).

    The circular variance of Huo's histogram, each pixel counting with its gradient's magnitude.
    """
    y, x = np.nonzero(where)
    middle_x, middle_y = lesion.outline.mean(axis=0)
    angle = np.arctan2(middle_y - y, middle_x - x) - np.arctan2(down[y, x], across[y, x])
    weight = np.hypot(across[y, x], down[y, x]).astype(np.float64)
    total = float(weight.sum())
    if total < 1e-9:
        return 1.0
    return 1 - float(np.hypot((weight * np.cos(angle)).sum(), (weight * np.sin(angle)).sum())) / total
