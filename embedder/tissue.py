"""Places of breast tissue where nobody marked anything: a grid over the breast."""

from pathlib import Path

import numpy as np

from embedder.breast import Mask
from embedder.findings import Box
from embedder.mammogram import Mammogram
from embedder.preparation import PreparationConfig, PreparationError, prepare

TISSUE_SHARE = 0.95
"""Share of a place that has to be breast tissue."""


def tissue_grid(mammogram: Mammogram, *, side: int, limit: int = 12) -> list[Box]:
    """Return squares of breast tissue on a regular grid, spread evenly over the breast.

    Args:
        mammogram: The image.
        side: Side of a square in pixels of the stored image.
        limit: How many squares at most.

    Returns:
        Boxes whose pixels lie in the breast to at least 95 %, pectoral muscle of MLO views left out.

    Raises:
        PreparationError: The square is larger than the image.
    """
    if side < 1 or side > min(mammogram.rows, mammogram.columns):
        raise PreparationError(mammogram.path, f"a square of {side} pixels does not fit into the image")
    mask, _ = tissue_mask(mammogram)
    # Sums over squares from a summed-area table: one subtraction a square.
    table = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), np.int64)
    table[1:, 1:] = mask.cumsum(0, dtype=np.int64).cumsum(1)
    boxes = []
    for y in range(0, mask.shape[0] - side + 1, side):
        for x in range(0, mask.shape[1] - side + 1, side):
            inside = table[y + side, x + side] - table[y, x + side] - table[y + side, x] + table[y, x]
            if inside >= TISSUE_SHARE * side * side:
                boxes.append(Box(x, y, x + side, y + side))
    if len(boxes) <= limit:
        return boxes
    return [boxes[i] for i in np.linspace(0, len(boxes) - 1, limit).round().astype(int)]


def tissue_mask(mammogram: Mammogram, view: str | None = None) -> tuple[Mask, bool]:
    """Find the breast tissue of an image, without the pectoral muscle of mediolateral views.

    Args:
        mammogram: The image.
        view: The view where the caller knows it; the file's own otherwise.

    Returns:
        bool (rows, columns) of the stored image, and whether the chest wall is at its right.
    """
    config = PreparationConfig(
        granularity="breast", chest_wall_left=True, breast_only=True, remove_pectoral=True, normalise=False
    )
    prepared = prepare(mammogram.pixels, config, spacing_mm=mammogram.spacing_mm, view=view or mammogram.view)
    assert prepared.mask is not None, "this preparation makes a mask"
    return (prepared.mask[:, ::-1] if prepared.mirrored else prepared.mask), prepared.mirrored


def study_files(folder: Path) -> list[Path]:
    """Return the DICOM files below a folder, by name."""
    return sorted(path for path in Path(folder).rglob("*.dcm") if path.is_file())
