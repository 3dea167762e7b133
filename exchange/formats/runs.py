"""Run-length codes of COCO's masks, plain and compressed (https://github.com/cocodataset/cocoapi, maskApi)."""

from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt

from embedder.mammogram import MAXIMUM_PIXELS
from exchange.formats.marks import Outline, RowError, whole
from exchange.formats.tracing import region_outline


def runs_outline(code: dict[str, object], rows: int | None, columns: int | None) -> Outline:
    """Return the outline of the largest part of a mask given as {"size": [rows, columns], "counts": ...}.

    Args:
        code: Counts are a list of numbers, or the compressed text.
        rows: Of the image; None where that is unknown.
        columns: Likewise.

    Raises:
        RowError: It is no mask of this image, or marks nothing.
    """
    mask = decode_runs(code)
    if rows is not None and columns is not None and mask.shape != (rows, columns):
        raise RowError(f"the mask has {mask.shape[1]} × {mask.shape[0]} pixels, and the image {columns} × {rows}")
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    if count < 2:
        raise RowError("the mask marks nothing")
    largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    x, y, width, height = (int(value) for value in stats[largest, :4])
    outline = region_outline(labels[y : y + height, x : x + width] == largest)
    return tuple((across + x, down + y) for across, down in outline)


def decode_runs(code: dict[str, object]) -> npt.NDArray[np.uint8]:
    """Return a mask, uint8 (rows, columns) of 0 and 1. Runs go down the columns, and begin with zeros.

    Raises:
        RowError: It is no run-length code.

    >>> decode_runs({"size": [2, 2], "counts": [1, 2, 1]}).tolist()
    [[0, 1], [1, 0]]
    """
    size = code.get("size")
    if not isinstance(size, list) or len(size) != 2:
        raise RowError("the mask's size is not [rows, columns]")
    rows, columns = whole(size[0], "size"), whole(size[1], "size")
    if rows is None or columns is None or min(rows, columns) < 1 or rows * columns > MAXIMUM_PIXELS:
        raise RowError("the mask's size makes no sense")
    given = code.get("counts")
    if isinstance(given, str):
        counts = decompress(given)
    elif isinstance(given, list):
        counts = [whole(value, "count") or 0 for value in given]
    else:
        raise RowError("the mask has no counts")
    if sum(counts) != rows * columns or min(counts) < 0:
        raise RowError("the mask's runs do not fill it")
    flat = np.zeros(rows * columns, np.uint8)
    edges = np.cumsum([0, *counts])
    for start, end in list(pairwise(edges.tolist()))[1::2]:
        flat[start:end] = 1
    return np.ascontiguousarray(flat.reshape(columns, rows).T)


def decompress(text: str) -> list[int]:
    """Return the counts of a compressed code.

    Five bits a letter, little end first; from the fourth on, each is the difference from the count before the last.

    Raises:
        RowError: A letter is none of the code, or the text ends within a number.
    """
    counts: list[int] = []
    value, shift = 0, 0
    for letter in text:
        bits = ord(letter) - 48
        if not 0 <= bits < 64 or shift > 30:
            raise RowError("the mask's compressed counts are garbled")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value, shift = 0, 0
    if shift:
        raise RowError("the mask's compressed counts are cut short")
    return counts
