"""From a stream of embedded batches to segments of a useful size."""

from typing import Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from index import GalleryError
from index.records import clashing_column, to_columns, to_frame
from index.writer import GalleryWriter

SEGMENT_ROWS = 512
"""Rows after which a segment is committed: few, so that a stop loses little. Rows alone decide, never the clock: the
same findings give the same files, on however many machines they were embedded."""


class Batch(Protocol):
    """Some rows of a manifest, embedded."""

    @property
    def records(self) -> pd.DataFrame:
        """The rows that succeeded."""

    @property
    def vectors(self) -> npt.NDArray[np.float32]:
        """float32 (rows, d), unit length."""

    @property
    def thumbnails(self) -> list[bytes] | None:
        """PNG bytes of each row."""

    @property
    def failures(self) -> list[tuple[str, str]]:
        """Row id and message of those that failed."""


class SegmentBuffer:
    """Collects embedded rows until they are worth a segment, and commits them.

    Args:
        writer: The gallery's writer.
    """

    def __init__(self, writer: GalleryWriter) -> None:
        self._writer = writer
        self._clear()

    def _clear(self) -> None:
        self._records: list[pd.DataFrame] = []
        self._vectors: list[npt.NDArray[np.float32]] = []
        self._thumbnails: list[bytes] = []

    def add(self, batch: Batch, rows: npt.NDArray[np.int64]) -> int:
        """Take some rows of a batch; return how many were committed."""
        if len(rows):
            self._records.append(batch.records.iloc[rows])
            self._vectors.append(batch.vectors[rows])
            pictures = batch.thumbnails
            self._thumbnails += [b"" if pictures is None else pictures[row] for row in rows]
        return self.flush() if len(self._thumbnails) >= SEGMENT_ROWS else 0

    def flush(self) -> int:
        """Commit what was taken; return how many rows."""
        rows = len(self._thumbnails)
        if rows:
            parts = [to_columns(records, self._writer.folder) for records in self._records]
            if (name := clashing_column(parts)) is not None:
                raise GalleryError(self._writer.folder, f"the column {name} changes its kind", "correct the manifest")
            frame = to_frame([(len(r), p) for r, p in zip(self._records, parts, strict=True)])
            pictures = self._thumbnails if any(self._thumbnails) else None
            self._writer.append(np.concatenate(self._vectors), frame, pictures)
        self._clear()
        return rows
