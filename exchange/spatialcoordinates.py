"""Spatial coordinates of a report (SCOORD, PS3.3 C.18.6) as boxes and outlines in pixels of the stored image."""

import math
from collections.abc import Sequence

from embedder.findings import Box

Point = tuple[float, float]

OVERSHOOT = 1.0
"""Pixels that a coordinate may lie beyond the image and is moved to its border: some makers count pixels from 1."""

_ELLIPSE_CORNERS = 64


class CoordinatesError(ValueError):
    """Coordinates that are no place in the image; the text says why."""


def outline_points(graphic: str | None, points: Sequence[Point], rows: int, columns: int) -> tuple[Point, ...]:
    """Return the corners (x, y) of what a SCOORD item draws, in the coordinates of pixel edges.

    The standard's origin is the top left corner of the top left pixel, whose bottom right corner is 1\\1, and the
    last pixel ends at Columns\\Rows: the same coordinates as those of `embedder.findings.Box`, where the middle of
    the first pixel is (0.5, 0.5). A circle (centre, point on it) and an ellipse (both ends of its long axis, then of
    its short one) become polygons of 64 corners. The last point of a closed polyline is left out.

    Args:
        graphic: The graphic type.
        points: (column, row) pairs.
        rows: Rows of the image.
        columns: Its columns.

    Raises:
        CoordinatesError: The type is unknown, has another number of points, or a point is not in the image.
    """
    if not all(math.isfinite(x) and math.isfinite(y) for x, y in points):
        raise CoordinatesError("its coordinates are not all numbers")
    needed = {"POINT": 1, "CIRCLE": 2, "ELLIPSE": 4}.get(graphic or "")
    if graphic not in ("POINT", "MULTIPOINT", "POLYLINE", "CIRCLE", "ELLIPSE"):
        raise CoordinatesError(f"its graphic type is {graphic or 'missing'}")
    if not points or (needed is not None and len(points) != needed):
        raise CoordinatesError(f"its {graphic} has {len(points)} points")
    if graphic == "CIRCLE":
        centre = _inside(points[0], rows, columns)
        radius = math.dist(*points)
        return _ellipse(centre, (radius, 0.0), (0.0, radius), rows, columns)
    if graphic == "ELLIPSE":
        (ax, ay), (bx, by), (cx, cy), (dx, dy) = points
        centre = _inside(((ax + bx) / 2, (ay + by) / 2), rows, columns)
        return _ellipse(centre, ((bx - ax) / 2, (by - ay) / 2), ((dx - cx) / 2, (dy - cy) / 2), rows, columns)
    corners = [_inside(point, rows, columns) for point in points]
    if len(corners) > 1 and corners[0] == corners[-1]:
        corners.pop()
    return tuple(corners)


def box_of(points: Sequence[Point], rows: int, columns: int) -> Box:
    """Return the smallest box of whole pixels around points of the image, at least one pixel wide and high."""
    x0, x1 = _span([x for x, _ in points], columns)
    y0, y1 = _span([y for _, y in points], rows)
    return Box(x0, y0, x1, y1)


def box_around(centre: Point, side: float, rows: int, columns: int) -> Box:
    """Return the box of a side in pixels around a point of the image, cut at the image's border."""
    x, y = centre
    corners = [(x - side / 2, y - side / 2), (x + side / 2, y + side / 2)]
    return box_of([(min(max(x, 0), columns), min(max(y, 0), rows)) for x, y in corners], rows, columns)


def _span(values: Sequence[float], size: int) -> tuple[int, int]:
    low = min(math.floor(min(values)), size - 1)
    return low, max(math.ceil(max(values)), low + 1)


def _ellipse(centre: Point, first: Point, second: Point, rows: int, columns: int) -> tuple[Point, ...]:
    """Return corners of the ellipse with two half axes, moved to the image's border where they are beyond it."""
    angles = [2 * math.pi * step / _ELLIPSE_CORNERS for step in range(_ELLIPSE_CORNERS)]
    corners = [
        (
            centre[0] + math.cos(angle) * first[0] + math.sin(angle) * second[0],
            centre[1] + math.cos(angle) * first[1] + math.sin(angle) * second[1],
        )
        for angle in angles
    ]
    # A thousandth of a pixel is more than the document knows, and keeps rounding errors from adding a row to a box.
    return tuple(
        (round(min(max(x, 0.0), float(columns)), 3), round(min(max(y, 0.0), float(rows)), 3)) for x, y in corners
    )


def _inside(point: Point, rows: int, columns: int) -> Point:
    x, y = point
    if not (-OVERSHOOT <= x <= columns + OVERSHOOT and -OVERSHOOT <= y <= rows + OVERSHOOT):
        raise CoordinatesError(f"its point {x:g}\\{y:g} is not in the image of {columns} × {rows} pixels")
    return min(max(x, 0.0), float(columns)), min(max(y, 0.0), float(rows))
