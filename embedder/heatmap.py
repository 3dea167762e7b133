"""A picture of where the evidence is: the mammogram as it is stored, a heat map over it, the places in boxes."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from embedder.breast import Pixels
from embedder.findings import Box
from embedder.montage import check_montage_path, write_figure
from embedder.places import Place, around
from embedder.tiles import CELL, Bag, Grid

_LONGEST = 1200  # pixels of the picture's mammogram
_HIGHEST = 0.55  # opacity where the evidence is highest


def heat(bag: Bag, evidence: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Return the evidence for the label as a map of the working image turned back, float32 in [0, 1], highest 1.

    Args:
        bag: The tiles.
        evidence: (cells,); what speaks against the label is 0.

    Returns:
        (rows, columns) of the working image, oriented like the stored image; 0 everywhere where nothing speaks for it.
    """
    gathered = np.clip(around(bag, evidence), 0, None)
    if gathered.max() > 0:
        gathered = gathered / gathered.max()
    grid: Grid = bag.grid
    plane = np.zeros((grid.rows, grid.columns), np.float32)
    for (row, column), value in zip(bag.cells.tolist(), gathered.tolist(), strict=True):
        top, left = grid.y0 + CELL * row, grid.x0 + CELL * column
        plane[top : top + CELL, left : left + CELL] = value
    smooth = cv2.GaussianBlur(plane, (0, 0), CELL / 2)
    smooth = np.where(smooth > 0, smooth / max(float(smooth.max()), 1e-9), 0)
    return np.ascontiguousarray(smooth[:, ::-1] if grid.mirrored else smooth, np.float32)


def draw_heat_map(
    pixels: Pixels,
    bag: Bag,
    evidence: npt.NDArray[np.floating],
    places: Sequence[Place],
    path: Path,
    *,
    heading: str = "",
) -> None:
    """Write the mammogram with its heat map and numbered places.

    Args:
        pixels: float32 (rows, columns) in [0, 1], as `read_mammogram` gives them.
        bag: Its tiles.
        evidence: (cells,) each tile's share in the score.
        places: The places to mark, in pixels of the stored image.
        path: The picture to write; its ending names the format (.png, .pdf, .svg, .jpg).
        heading: A line above.

    Raises:
        MontageError: The ending names no picture format, something that is no file is there, or it can't be written.
    """
    draw_overlay(pixels, heat(bag, evidence), [place.box for place in places], path, heading=heading)


def draw_overlay(
    pixels: Pixels, warm: npt.NDArray[np.float32], boxes: Sequence[Box], path: Path, *, heading: str = ""
) -> None:
    """Write a mammogram beside itself under a heat map with numbered boxes.

    Args:
        pixels: float32 (rows, columns) in [0, 1], as `read_mammogram` gives them.
        warm: float32 in [0, 1], oriented like the image and of any size.
        boxes: In pixels of the stored image.
        path: The picture to write; its ending names the format (.png, .pdf, .svg, .jpg).
        heading: A line above.

    Raises:
        MontageError: The ending names no picture format, something that is no file is there, or it can't be written.
    """
    path = Path(path)
    check_montage_path(path)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows, columns = pixels.shape
    scale = min(1.0, _LONGEST / max(rows, columns))
    size = (max(1, round(columns * scale)), max(1, round(rows * scale)))
    shown = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    warm = np.asarray(cv2.resize(warm, size, interpolation=cv2.INTER_LINEAR), np.float32)
    figure = Figure(figsize=(10, 0.5 + 5 * rows / columns), dpi=110, facecolor="white")
    FigureCanvasAgg(figure)
    plain, marked = figure.subplots(1, 2)
    for axis in (plain, marked):
        axis.imshow(shown, cmap="gray", vmin=0, vmax=1, extent=(0, columns, rows, 0))
        axis.set_axis_off()
    marked.imshow(warm, cmap="inferno", vmin=0, vmax=1, alpha=_HIGHEST * warm, extent=(0, columns, rows, 0))
    for number, (x0, y0, x1, y1) in enumerate(boxes, 1):
        marked.plot([x0, x1, x1, x0, x0], [y0, y0, y1, y1, y0], color="#f1c40f", linewidth=1)
        marked.text(x1, y0, str(number), color="#f1c40f", fontsize=9, va="top", ha="left")
    figure.suptitle(heading, fontsize=10)
    figure.tight_layout()
    write_figure(figure, path)
