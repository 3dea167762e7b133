"""The masks that mark CBIS-DDSM's lesions, told from the crops beside them by their pixels."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom

from embedder.datasets.reading import DatasetError
from embedder.findings import Box
from embedder.mammogram import MAXIMUM_PIXELS

_SHAPE_TOLERANCE = 0.02


@dataclass(frozen=True)
class Mask:
    """What a mask says.

    Attributes:
        box: Where the lesion is, in pixels of its image.
        scaled: The mask has another size than the image.
    """

    box: Box
    scaled: bool


def mask_box(pixels: npt.NDArray[Any]) -> Box | None:
    """Return the box around all parts of a mask; None where these are not the pixels of a mask.

    A mask has exactly two values, of which the higher marks the lesion; a crop of film has many.

    Args:
        pixels: (rows, columns), any integer type.

    >>> mask_box(np.array([[0, 0, 0], [0, 255, 255]], dtype=np.uint8))
    Box(x0=1, y0=1, x1=3, y1=2)
    """
    if pixels.ndim != 2 or pixels.size == 0:
        return None
    marked = pixels == pixels.max()
    lowest = pixels.min()
    if marked.all() or not np.all(marked | (pixels == lowest)):
        return None
    rows = np.flatnonzero(marked.any(axis=1))
    columns = np.flatnonzero(marked.any(axis=0))
    return Box(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)


def read_mask(files: list[Path], size: tuple[int, int]) -> Mask:
    """Find the mask among a lesion's files, by its pixels: names and descriptions are sometimes swapped.

    Args:
        files: DICOM files of one lesion: its mask, and the crop of the film around it.
        size: Rows and columns of its image. A mask of another size but the same shape is scaled to it.

    Raises:
        DatasetError: None of them is the mask, or it has another shape than the image.
    """
    other_shape = False
    for file, mask_size in _by_likeness(files, size):
        box = mask_box(_stored_pixels(file))
        if box is None:
            continue
        if mask_size == size:
            return Mask(box, scaled=False)
        factors = size[0] / mask_size[0], size[1] / mask_size[1]
        if abs(factors[0] / factors[1] - 1) <= _SHAPE_TOLERANCE:
            return Mask(_scaled(box, factors, size), scaled=True)
        other_shape = True
    if other_shape:
        raise DatasetError(files[0].parent, "it has another shape than the image")
    raise DatasetError(files[0].parent, "none of the files is a readable mask with a lesion in it")


def _by_likeness(files: list[Path], size: tuple[int, int]) -> Iterator[tuple[Path, tuple[int, int]]]:
    """Give readable files with rows and columns, those nearest to the image's size first."""
    sizes = {}
    for file in files:
        try:
            header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=["Rows", "Columns"])
            rows, columns = int(header.Rows), int(header.Columns)
        # A file that is no DICOM, or lacks its size, can't be the mask; pydicom raises many kinds.
        except Exception:
            continue
        if rows * columns <= MAXIMUM_PIXELS:
            sizes[file] = rows, columns
    yield from sorted(sizes.items(), key=lambda item: abs(item[1][0] - size[0]) + abs(item[1][1] - size[1]))


def _stored_pixels(file: Path) -> npt.NDArray[Any]:
    try:
        return np.asarray(pydicom.dcmread(file).pixel_array)
    # Truncated or undecodable pixels raise many kinds, all of which mean that this is no mask.
    except Exception:
        return np.empty((0, 0))


def _scaled(box: Box, factors: tuple[float, float], size: tuple[int, int]) -> Box:
    down, across = factors
    return Box(
        int(np.floor(box.x0 * across)),
        int(np.floor(box.y0 * down)),
        min(int(np.ceil(box.x1 * across)), size[1]),
        min(int(np.ceil(box.y1 * down)), size[0]),
    )
