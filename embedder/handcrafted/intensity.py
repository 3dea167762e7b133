"""How bright pixels are and how their brightness is spread: histogram statistics, and contrast to what lies around."""

import cv2
import numpy as np
import numpy.typing as npt
from scipy import stats

from embedder.breast import Mask, Pixels, shrink
from embedder.handcrafted.patches import Patch
from embedder.handcrafted.segmentation import Lesion
from embedder.preparation import Prepared

PERCENTILES = (5, 25, 50, 75, 95)
HISTOGRAM_NAMES = ("mean", "std", "skewness", "kurtosis", *(f"p{share}" for share in PERCENTILES), "entropy")
INTENSITY_NAMES = (
    *HISTOGRAM_NAMES,
    *("ring_contrast", "ring_effect", "ring_std_ratio"),
    *("breast_percentile", "breast_contrast", "ring_breast_percentile"),
)

_BINS = 32
# Pixels whose spread is below this are of one grey: their shape and ratios would be rounding errors.
_ONE_GREY = 1e-4
# The ring around a lesion is as wide as this share of its radius, and at least a few pixels.
_RING, _NARROWEST = 0.5, 4


def histogram_features(values: npt.NDArray[np.float32]) -> dict[str, float]:
    """Return HISTOGRAM_NAMES of a non-empty set of pixels in [0, 1]: moments, percentiles, entropy in bits.

    The first-order statistics of Haralick et al., Textural features for image classification, IEEE Trans Syst
    Man Cybern 3, 610-621, 1973.
    """
    deviation = float(values.std(dtype=np.float64))
    spread = deviation > _ONE_GREY
    counts, _ = np.histogram(values, _BINS, (0, 1))
    levels = np.percentile(values, PERCENTILES)
    return {
        "mean": float(values.mean(dtype=np.float64)),
        "std": deviation,
        "skewness": float(stats.skew(values, axis=None)) if spread else 0.0,
        # Of a few pixels in a crowd of one grey it has no bound.
        "kurtosis": min(float(stats.kurtosis(values, axis=None)), 100.0) if spread else 0.0,
        **{f"p{share}": float(level) for share, level in zip(PERCENTILES, levels, strict=True)},
        "entropy": float(stats.entropy(counts, base=2)),
    }


def describe_intensity(prepared: Prepared, patch: Patch, lesion: Lesion) -> dict[str, float]:
    """Return INTENSITY_NAMES of a lesion: its histogram, its contrast to the ring around it and to the breast.

    Contrast to the surroundings after te Brake, Karssemeijer and Hendriks, An automatic method to discriminate
    malignant masses from normal tissue in digital mammograms, Phys Med Biol 45, 2843-2857, 2000.

    Args:
        prepared: The mammogram the patch was cut from.
        patch: The patch.
        lesion: The lesion in it.
    """
    inside = patch.pixels[lesion.mask]
    around = patch.pixels[_ring(patch, lesion)]
    breast = np.sort(_breast_pixels(prepared))
    contrast = float(inside.mean(dtype=np.float64) - around.mean(dtype=np.float64))
    spread = float(np.sqrt((inside.var(dtype=np.float64) + around.var(dtype=np.float64)) / 2))
    return {
        **histogram_features(inside),
        "ring_contrast": contrast,
        "ring_effect": float(np.clip(contrast / max(spread, _ONE_GREY), -10, 10)),
        "ring_std_ratio": float(
            np.log(max(float(inside.std()), _ONE_GREY)) - np.log(max(float(around.std()), _ONE_GREY))
        ),
        "breast_percentile": float(np.searchsorted(breast, inside.mean()) / breast.size),
        "breast_contrast": float(
            np.clip((inside.mean() - breast.mean()) / max(float(breast.std()), _ONE_GREY), -10, 10)
        ),
        "ring_breast_percentile": float(np.searchsorted(breast, around.mean()) / breast.size),
    }


def _ring(patch: Patch, lesion: Lesion) -> Mask:
    """Return the breast around a lesion; the lesion itself where nothing lies around it."""
    width = max(_NARROWEST, round(_RING * float(np.sqrt(lesion.mask.sum() / np.pi))))
    # Distances instead of a dilation, whose cost grows with the ring.
    distance = cv2.distanceTransform((~lesion.mask).astype(np.uint8), cv2.DIST_L2, 5)
    ring = (distance > 0) & (distance <= width) & patch.valid
    return np.asarray(ring if ring.any() else lesion.mask, np.bool_)


def _breast_pixels(prepared: Prepared) -> npt.NDArray[np.float32]:
    """Return the pixels of the breast on a shrunken image, enough for a percentile."""
    small: Pixels = shrink(prepared.pixels)
    if prepared.mask is None:
        return small.ravel()
    size = (small.shape[1], small.shape[0])
    mask = cv2.resize(prepared.mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    return small[mask] if mask.any() else small.ravel()
