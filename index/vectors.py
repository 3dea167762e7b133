"""The vectors of a gallery as the engines see them: block by block, mapped from its segments."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
Positions = npt.NDArray[np.int64]


class StoredVectors:
    """All vectors of a gallery, row by row, in one block or several that need not fit in memory.

    Args:
        blocks: float32 (n_i, d) each, C-contiguous; row 0 of the first is row 0 of the gallery.
        dimension: Length of a vector.
    """

    def __init__(self, blocks: Sequence[Vectors], dimension: int) -> None:
        self.blocks = tuple(block for block in blocks if len(block))
        self.dimension = dimension
        self.starts: Positions = np.cumsum([0, *(len(block) for block in self.blocks)], dtype=np.int64)

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def nbytes(self) -> int:
        """Bytes of all vectors."""
        return len(self) * self.dimension * 4

    def take(self, positions: Positions) -> Vectors:
        """Return some vectors as a copy.

        Args:
            positions: int64 (m,) into the gallery's rows, in any order.

        Returns:
            float32 (m, d).
        """
        if len(self.blocks) == 1:
            return np.take(self.blocks[0], positions, axis=0)
        taken = np.empty((len(positions), self.dimension), np.float32)
        order = np.argsort(positions, kind="stable")
        ends = np.searchsorted(positions[order], self.starts)
        for number in np.flatnonzero(np.diff(ends)).tolist():
            here = order[ends[number] : ends[number + 1]]
            taken[here] = self.blocks[number][positions[here] - self.starts[number]]
        return taken

    def parts(self, start: int = 0, stop: int | None = None, *, rows: int) -> Iterator[tuple[int, Vectors]]:
        """Yield (first position, vectors) of consecutive rows without copying, `rows` at a time at most."""
        stop = len(self) if stop is None else min(stop, len(self))
        for number, block in enumerate(self.blocks):
            first = int(self.starts[number])
            low, high = max(start - first, 0), min(stop - first, len(block))
            for at in range(low, high, rows):
                yield first + at, block[at : min(at + rows, high)]

    def whole(self) -> Vectors:
        """Return all vectors in one array; a copy where they lie in several blocks."""
        if len(self.blocks) == 1:
            return self.blocks[0]
        return np.concatenate([np.empty((0, self.dimension), np.float32), *self.blocks])
