"""The places worth looking at: where the evidence of tiles is highest, as boxes of the stored image."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embedder.findings import Box
from embedder.tiles import Bag

_MARGIN = 2  # cells around a place's middle: a box of 5 cells, 80 pixels of 640


@dataclass(frozen=True)
class Place:
    """A place on a mammogram that speaks for the label.

    Attributes:
        box: In pixels of the stored image.
        evidence: What the tiles around its middle add to the image's logit.
        attention: Their share of all attention, 0 to 1.
    """

    box: Box
    evidence: float
    attention: float

    def to_dict(self) -> dict[str, Any]:
        """Return the place as plain values."""
        return {"box": list(self.box), "evidence": self.evidence, "attention": self.attention}


def find_places(
    bag: Bag, evidence: npt.NDArray[np.floating], attention: npt.NDArray[np.floating], most: int = 5
) -> list[Place]:
    """Return the places with the highest evidence that do not overlap, best first; none where none speaks for it.

    Evidence is summed over each cell and its eight neighbours, for a lesion seldom ends at a cell's border; the
    highest sum is a place, cells whose boxes would overlap its box are left out, and so on (non-maximum suppression).

    Args:
        bag: The tiles.
        evidence: (cells,) each tile's share in the score.
        attention: (cells,).
        most: How many places at most.
    """
    gathered, attended = around(bag, evidence), around(bag, attention)
    rows, columns = bag.cells[:, 0].astype(np.int64), bag.cells[:, 1].astype(np.int64)
    places: list[Place] = []
    left = np.ones(len(gathered), np.bool_)
    while left.any() and len(places) < most:
        best = int(np.argmax(np.where(left, gathered, -np.inf)))
        if gathered[best] <= 0:
            break
        box = bag.grid.box(int(rows[best]), int(columns[best]), _MARGIN)
        places.append(Place(box, float(gathered[best]), float(min(attended[best], 1.0))))
        away = np.maximum(abs(rows - rows[best]), abs(columns - columns[best]))
        left &= away > 2 * _MARGIN
    return places


def around(bag: Bag, values: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Return the sum of each cell's value and those of its neighbours on the breast, float64 (cells,)."""
    rows, columns = bag.cells[:, 0].astype(np.int64) + 1, bag.cells[:, 1].astype(np.int64) + 1
    plane = np.zeros((rows.max() + 2, columns.max() + 2))
    plane[rows, columns] = values
    total = np.zeros(len(values))
    for down in (-1, 0, 1):
        for across in (-1, 0, 1):
            total += plane[rows + down, columns + across]
    return total
