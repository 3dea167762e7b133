"""Small bright spots in a finding: how many, how bright, how close together."""

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import cKDTree

from embedder.breast import Pixels
from embedder.handcrafted.patches import Patch

SCALES_MM = (0.15, 0.3, 0.6)
"""Standard deviations of the spots looked for; a Gaussian spot is about thrice as wide."""
CALCIFICATION_NAMES = (
    *(
        f"{name}_{scale}"
        for scale in ("fine", "middle", "coarse")
        for name in ("log_count", "log_density", "excess", "contrast")
    ),
    *("gap_mean", "gap_std", "tophat_mean", "tophat_p99", "tophat_share"),
)

# A spot's response stands out by as many standard deviations of the tissue's, and by this many grey levels.
_CLEAR, _FAINTEST = 4.0, 0.005
_SMALLEST_SIGMA = 0.8
# A spot curves at most this many times as strongly across as along; a vessel or a fibre does more.
_LONGEST = 4.0
# What is wider than this is no calcification of a cluster.
_WIDEST_MM = 1.5


def describe_calcification(patch: Patch) -> dict[str, float]:
    """Return CALCIFICATION_NAMES of a finding.

    Spots are maxima of the Laplacian of a Gaussian at three scales, as Netsch and Peitgen, Scale-space signatures for
    the detection of clustered microcalcifications in digital mammograms, IEEE Trans Med Imaging 18, 774-786, 1999.
    For each scale: count and density per cm² in the marked place, both as log(1 + n), by how much that is more than
    beside it, and the spots' mean contrast in standard deviations of the tissue. Then the gaps in log mm between
    nearest spots of the middle scale, and what a white top-hat of 1.5 mm leaves.

    Args:
        patch: A patch fine enough to show them, larger than the marked place.
    """
    named: dict[str, float] = {}
    places = []
    for scale, sigma_mm in zip(("fine", "middle", "coarse"), SCALES_MM, strict=True):
        sigma = max(sigma_mm / patch.mm_per_pixel, _SMALLEST_SIGMA)
        spots, contrast = _spots(patch, sigma)
        places.append(spots)
        values = _counts(patch, spots)
        values["contrast"] = float(np.minimum(contrast, 50).mean()) if len(contrast) else 0.0
        named.update({f"{name}_{scale}": value for name, value in values.items()})
    return {**named, **_gaps(patch, places[1]), **_tophat(patch)}


def _spots(patch: Patch, sigma: float) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float32]]:
    """Return rows and columns (spots, 2) of the spots of one size, and how clearly each stands out."""
    xx, xy, yy = (
        np.asarray(ndimage.gaussian_filter(patch.pixels, sigma, order, mode="nearest"), np.float32) * sigma**2
        for order in ((0, 2), (1, 1), (2, 0))
    )
    response, product = -(xx + yy), xx * yy - xy**2
    # Where the breast ends its pixels go on, which draws streaks.
    side = 2 * int(np.ceil(sigma)) + 1
    around = np.ones((side, side), np.uint8)
    seen = cv2.erode(patch.valid.astype(np.uint8), around, borderValue=1) > 0
    tissue = response[seen if seen.any() else patch.valid]
    middle = float(np.median(tissue))
    # From the middle half of the pixels, which no spot belongs to.
    noise = 1.4826 * float(np.median(np.abs(tissue - middle)))
    clear = seen & (response == cv2.dilate(response, around)) & (response > middle + max(_CLEAR * noise, _FAINTEST))
    # An edge is curved one way only.
    clear &= response**2 < (_LONGEST + 1) ** 2 / _LONGEST * product
    # A flat top has many highest pixels and is one spot.
    labels, _ = ndimage.label(clear, np.ones((3, 3)))
    rows, columns = np.nonzero(labels)
    _, first = np.unique(labels[rows, columns], return_index=True)
    at = np.column_stack([rows[first], columns[first]])
    contrast = (response[at[:, 0], at[:, 1]] - middle) / max(noise, _FAINTEST / _CLEAR)
    return at.astype(np.intp), contrast.astype(np.float32)


def _counts(patch: Patch, spots: npt.NDArray[np.intp]) -> dict[str, float]:
    """Return count and density of the spots in the marked place, and their excess over the surroundings."""
    x0, y0, x1, y1 = patch.box
    rows, columns = np.mgrid[: patch.side, : patch.side] + 0.5
    marked = (columns >= np.floor(x0)) & (columns <= np.ceil(x1)) & (rows >= np.floor(y0)) & (rows <= np.ceil(y1))
    inside = int(marked[spots[:, 0], spots[:, 1]].sum())
    cm2 = (patch.mm_per_pixel / 10) ** 2
    density = inside / (max(int(marked.sum()), 1) * cm2)
    beside = (len(spots) - inside) / (max(int((patch.valid & ~marked).sum()), 1) * cm2)
    return {
        "log_count": float(np.log1p(inside)),
        "log_density": float(np.log1p(density)),
        "excess": float(np.log1p(density) - np.log1p(beside)),
    }


def _gaps(patch: Patch, spots: npt.NDArray[np.intp]) -> dict[str, float]:
    """Return mean and spread of the log distances in mm between nearest spots."""
    if len(spots) < 2:
        # A spot alone is as far from the next as can be seen.
        return {"gap_mean": float(np.log(patch.side * patch.mm_per_pixel)), "gap_std": 0.0}
    distance, _ = cKDTree(spots).query(spots, k=2)
    gaps = np.log(np.maximum(distance[:, 1], 1) * patch.mm_per_pixel)
    return {"gap_mean": float(gaps.mean()), "gap_std": float(gaps.std())}


def _tophat(patch: Patch) -> dict[str, float]:
    """Return what is brighter than its surroundings and narrower than a calcification can be."""
    width = int(np.clip(round(_WIDEST_MM / patch.mm_per_pixel), 3, 31)) | 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
    smooth: Pixels = np.asarray(cv2.GaussianBlur(patch.pixels, (0, 0), 0.7), np.float32)
    left = cv2.morphologyEx(smooth, cv2.MORPH_TOPHAT, kernel)[patch.valid]
    level = float(np.median(left))
    return {
        "tophat_mean": float(left.mean(dtype=np.float64)),
        "tophat_p99": float(np.percentile(left, 99)),
        "tophat_share": float((left > 4 * level + _FAINTEST).mean()),
    }
