"""Outlines of regions of a mask, along the edges of their pixels."""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from exchange.formats.marks import Outline

TOLERANCE = 0.75
"""Pixels by which a simplified outline may leave the pixels' edges: the steps of a slanting border are 0.71."""

# Steps along a vertex grid with the region at the right hand: right, down, left, up.
_STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))


def region_outline(region: npt.NDArray[Any], *, tolerance: float = TOLERANCE) -> Outline:
    """Return the outer border of a region as corners (x, y) at pixels' edges; its holes are filled.

    Args:
        region: (rows, columns), non-zero inside; one part by 8-connectivity, else the outline is of the first part
            in reading order.
        tolerance: Pixels by which corners may be left out (Douglas and Peucker 1973); 0 keeps every one.

    >>> region_outline(np.array([[0, 1], [0, 1]], np.uint8), tolerance=0)
    ((1.0, 0.0), (2.0, 0.0), (2.0, 2.0), (1.0, 2.0))
    """
    inside = np.pad(np.asarray(region) != 0, 1)
    first = int(np.argmax(inside))
    top, left = divmod(first, inside.shape[1])
    # The first pixel in reading order has nothing above it: its upper edge is part of the outer border.
    x, y, heading = left, top, 0
    corners: list[tuple[int, int]] = []
    while True:
        corners.append((x, y))
        while True:
            x, y = x + _STEPS[heading][0], y + _STEPS[heading][1]
            turned = _turn(inside, x, y, heading)
            if turned != heading:
                break
        heading = turned
        if (x, y) == corners[0] and heading == 0:
            break
    border = np.asarray(corners, np.int32) - 1
    if tolerance > 0 and len(border) > 4:
        kept = cv2.approxPolyDP(border[:, None, :], tolerance, closed=True)[:, 0]
        border = kept.astype(np.int32) if len(kept) >= 3 else border
    return tuple((float(across), float(down)) for across, down in border)


def _turn(inside: npt.NDArray[np.bool_], x: int, y: int, heading: int) -> int:
    """Return where the border goes on at a vertex; parts that touch at a corner belong together, so left first."""
    ahead_left, ahead_right = {
        0: ((y - 1, x), (y, x)),
        1: ((y, x), (y, x - 1)),
        2: ((y, x - 1), (y - 1, x - 1)),
        3: ((y - 1, x - 1), (y - 1, x)),
    }[heading]
    if inside[ahead_left]:
        return (heading - 1) % 4
    if inside[ahead_right]:
        return heading
    return (heading + 1) % 4
