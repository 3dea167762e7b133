"""One image under two women's names: found by the fine detail inside the breast, which no two mammograms share.

Two breasts look alike when they are seen from afar; their finest visible structures do not lie in the same places. So
each image is brought to the same frame (breast only, chest wall to the left, contrast normalised, its bounding box at
a fixed size), what is coarser than a few pixels is taken away, and the rest is compared by correlation. A copy stays a
copy when it is stored in another format, at another size or depth, inverted, mirrored, or under another name.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd

from embedder.findings import patient_key
from embedder.preparation import PreparationConfig
from embedder.rois import read_rois

ALIKE = 0.5
"""Correlation of fine detail from which two images are taken for one. The most alike of two different women's films in
mini-MIAS have 0.32."""

_FRAME = PreparationConfig(granularity="breast", height=160, width=112, context=1.0)
_COARSE = 2.0  # pixels: the sigma above which structure does not count
_EDGE = 5  # pixels left out along the outline of the breast, which is alike in all
_BLOCK = 2048


@dataclass(frozen=True)
class Duplicate:
    """Two images of different women that are one.

    Attributes:
        first: Path of one image.
        second: Path of the other.
        women: Their women, in the same order.
        likeness: Correlation of their fine detail.
    """

    first: str
    second: str
    women: tuple[str, str]
    likeness: float


def find_duplicates(
    frame: pd.DataFrame,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Duplicate]:
    """Return the pairs of images that stand under two women's names and are one image.

    Args:
        frame: A manifest with absolute paths; each of its images is read once. Images that can't be read are left
            out: whoever reads them for their content reports them.
        workers: Threads that read images.
        progress: Called with images done and images in all.

    Returns:
        The most alike first.
    """
    images = frame.assign(woman=patient_key(frame)).drop_duplicates(["path", "woman"]).reset_index(drop=True)
    # The whole image is compared, whatever was marked on it.
    images[["x0", "y0", "x1", "y1"]] = np.nan
    images["granularity"] = "breast"
    details = np.zeros((len(images), _FRAME.height * _FRAME.width), np.float32)
    for done, read in enumerate(read_rois(images, _FRAME, workers=workers), start=1):
        if read.crop is not None:
            details[read.position] = fine_detail(read.crop.pixels)
        if progress is not None:
            progress(done, len(images))
    women = images["woman"].to_numpy(dtype=object)
    paths = images["path"].to_numpy(dtype=object)
    found = [
        Duplicate(str(paths[a]), str(paths[b]), (str(women[a]), str(women[b])), likeness)
        for a, b, likeness in alike_pairs(details, women)
    ]
    return sorted(found, key=lambda pair: (-pair.likeness, pair.first, pair.second))


def fine_detail(pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return what distinguishes an image from all others.

    Args:
        pixels: float32 (height, width) in [0, 1], 0 outside the breast.

    Returns:
        float32 (height * width,) of length 1; zeros where there is nothing to see.
    """
    kernel = np.ones((2 * _EDGE + 1, 2 * _EDGE + 1), np.uint8)
    inside = cv2.erode((pixels > 0).astype(np.uint8), kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    detail = pixels - cv2.GaussianBlur(pixels, (0, 0), _COARSE)
    # A calcification or a label's edge must not outweigh all the rest.
    detail = detail / (cv2.GaussianBlur(np.abs(detail), (0, 0), 3 * _COARSE) + 1e-3) * inside
    length = float(np.linalg.norm(detail))
    return np.asarray(detail / length if length > 0 else detail, np.float32).ravel()


def alike_pairs(details: npt.NDArray[np.float32], women: npt.NDArray[np.object_]) -> list[tuple[int, int, float]]:
    """Return the pairs of rows of two women whose correlation is at least `ALIKE`.

    Args:
        details: float32 (n, d), each of length 1 or 0.
        women: (n,) the woman of each.
    """
    _, codes = np.unique(women.astype(str), return_inverse=True)
    found = []
    for start in range(0, len(details), _BLOCK):
        part = slice(start, start + _BLOCK)
        likeness = details[part] @ details.T
        rows, columns = np.nonzero(likeness >= ALIKE)
        for row, column in zip((rows + start).tolist(), columns.tolist(), strict=True):
            if row < column and codes[row] != codes[column]:
                found.append((row, column, float(likeness[row - start, column])))
    return found
