"""Boxes and outlines of detection files, as pixels of the image."""

import math

from embedder.findings import Box
from exchange.formats.marks import Corners, Outline, RowError

SNAP = 0.01
"""Pixels: an edge so near a pixel's edge is there. Six digits of YOLO on 6,000 pixels are off by 0.005 at most."""

_LARGEST = 1_000_000
_MOST_CORNERS = 20_000


def pixel_box(corners: Corners, rows: int | None, columns: int | None) -> tuple[Box, str | None]:
    """Return the pixels that a box covers, and a note where it was clipped.

    Fractions are rounded outwards, once an edge within SNAP of a whole pixel was put there; a box is never less than
    a pixel wide. A box that reaches over the image's edge is clipped to it.

    Args:
        corners: x0, y0, x1, y1 at pixels' edges.
        rows: Of the image; None where that is unknown.
        columns: Likewise.

    Raises:
        RowError: It is empty or inverted, outside the image, or seems to be given in shares of the image.

    >>> pixel_box((10.2, 5, 20.999, 8), 100, 100)[0]
    Box(x0=10, y0=5, x1=21, y1=8)
    """
    if not all(math.isfinite(value) for value in corners):
        raise RowError("a corner of the box is not a finite number")
    left, top, right, bottom = corners
    if left >= right or top >= bottom:
        raise RowError(f"the box is empty or inverted ({_written(corners)})")
    if max(abs(value) for value in corners) > _LARGEST:
        raise RowError(f"the box lies outside any image ({_written(corners)})")
    if min(corners) >= 0 and max(corners) <= 1 and (right - left < 1 or bottom - top < 1):
        raise RowError(f"the box ({_written(corners)}) is less than a pixel: are these shares of the image?")
    x0, y0 = math.floor(left + SNAP), math.floor(top + SNAP)
    x1, y1 = max(math.ceil(right - SNAP), x0 + 1), max(math.ceil(bottom - SNAP), y0 + 1)
    inside = max(x0, 0), max(y0, 0), min(x1, columns or x1), min(y1, rows or y1)
    if inside[0] >= inside[2] or inside[1] >= inside[3]:
        size = f", which has {columns} × {rows} pixels" if rows and columns else ""
        raise RowError(f"the box {x0},{y0},{x1},{y1} lies outside the image{size}")
    note = None if inside == (x0, y0, x1, y1) else f"box clipped to the image (was {x0},{y0},{x1},{y1})"
    return Box(*inside), note


def pixel_outline(outline: Outline, rows: int | None, columns: int | None) -> tuple[Outline | None, str | None]:
    """Return an outline inside the image, and a note where it was clipped or can't be one: then it is None.

    Raises:
        RowError: It has too many corners, or one that is not finite.
    """
    if len(outline) > _MOST_CORNERS:
        raise RowError(f"the outline has {len(outline):,} corners: {_MOST_CORNERS:,} are the most")
    if not all(math.isfinite(value) and abs(value) <= _LARGEST for corner in outline for value in corner):
        raise RowError("a corner of the outline is not finite, or outside any image")
    right, bottom = columns or _LARGEST, rows or _LARGEST
    inside = tuple((min(max(x, 0.0), float(right)), min(max(y, 0.0), float(bottom))) for x, y in outline)
    if len(set(inside)) < 3 or not _area(inside):
        return None, "outline left out: it encloses nothing"
    return inside, None if inside == outline else "outline clipped to the image"


def bounds(outline: Outline) -> Corners:
    """Return the box around an outline."""
    across, down = zip(*outline, strict=True)
    return min(across), min(down), max(across), max(down)


def scaled_box(corners: Corners, rows: int, columns: int) -> Corners:
    """Return a box of shares of the image in pixels.

    Raises:
        RowError: These are no shares.
    """
    _check_shares(corners)
    x0, y0, x1, y1 = corners
    return x0 * columns, y0 * rows, x1 * columns, y1 * rows


def scaled_outline(outline: Outline, rows: int, columns: int) -> Outline:
    """Return an outline of shares of the image in pixels, to a hundredth.

    Raises:
        RowError: These are no shares.
    """
    _check_shares([value for corner in outline for value in corner])
    return tuple((round(x * columns, 2), round(y * rows, 2)) for x, y in outline)


def _check_shares(values: list[float] | Corners) -> None:
    # A box may reach over the image's edge, but not by the image's size.
    if min(values) < -1 or max(values) > 2:
        raise RowError("its coordinates are no shares of the image: are they pixels?")


def _area(outline: Outline) -> float:
    """Twice the area, by the shoelace formula."""
    following = (*outline[1:], outline[0])
    return sum(x * below - right * y for (x, y), (right, below) in zip(outline, following, strict=True))


def _written(corners: Corners) -> str:
    return ",".join(f"{value:g}" for value in corners)
