"""Copies of a gallery from a folder to Milvus and back, without loss: rows, their order, vectors and pictures."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from index.gallery import Gallery
from index.milvus.collections import MilvusIndex
from index.milvus.gallery import MilvusGallery
from index.milvus.rows import NUMBER, RECORD, VECTOR, decode_frame, decode_vectors
from index.precedents import precedents_of
from index.upkeep import BuildReport
from index.writer import GalleryWriter, create_gallery

_ROWS_AT_ONCE = 4_096

Progress = Callable[[int, int], None]


def copy_to_milvus(
    folder: Path,
    address: str,
    *,
    index: MilvusIndex | None = None,
    thumbnails: bool = True,
    progress: Progress | None = None,
) -> BuildReport:
    """Copy a gallery from a folder to Milvus; a copy that was stopped goes on where it was.

    Args:
        folder: The gallery.
        address: Where to, see `index.milvus.address`; made where it is not there.
        index: How Milvus is to find neighbours.
        thumbnails: Whether to copy the pictures too.
        progress: Called with rows done and rows in all.

    Returns:
        What became of the rows; those that Milvus holds with another content are among the failures.

    Raises:
        GalleryError: One of the two can't be read or written, or Milvus holds a gallery of another model.
    """
    source = Gallery.open(Path(folder))
    added, there = 0, 0
    failures: list[tuple[str, str]] = []
    with MilvusGallery.create(address, source.identity, index) as target:
        for start in range(0, len(source), _ROWS_AT_ONCE):
            positions = np.arange(start, min(start + _ROWS_AT_ONCE, len(source)))
            pictures = None
            if thumbnails:
                pictures = [source.thumbnail(source.row_id(position)) or b"" for position in positions.tolist()]
            report = target.add(source.vectors.take(positions), source.table.frame(positions), pictures)
            added, there = added + report.added, there + report.already_there
            failures += report.failures
            if progress is not None:
                progress(int(positions[-1]) + 1, len(source))
        if len(target) == len(source):
            precedents = precedents_of(source)
            target.store_sample(None if precedents is None else precedents.to_bytes().decode())
        return BuildReport(added, there, tuple(failures), target.generation)


def copy_from_milvus(
    address: str, folder: Path, *, thumbnails: bool = True, progress: Progress | None = None
) -> BuildReport:
    """Copy a gallery from Milvus to a folder; a copy that was stopped goes on where it was.

    Args:
        address: The gallery, see `index.milvus.address`.
        folder: Where to; made where it is not there.
        thumbnails: Whether to copy the pictures too.
        progress: Called with rows done and rows in all.

    Returns:
        What became of the rows; those that the folder holds with another content are among the failures.

    Raises:
        GalleryError: One of the two can't be read or written, or the folder holds a gallery of another model.
    """
    folder = Path(folder)
    with MilvusGallery.open(address) as source:
        create_gallery(folder, source.identity)
        rows, done, added = len(source), 0, 0
        failures: list[tuple[str, str]] = []
        with GalleryWriter(folder) as writer:
            for page in source.scan("", [RECORD, VECTOR]):
                frame = decode_frame([row[RECORD] for row in page], source.columns)
                presence = writer.present(frame)
                failures += [(str(frame["row_id"].iloc[row]), text) for row, text in presence.conflicts.items()]
                new = np.flatnonzero(~presence.stored)
                if len(new):
                    pictures = source.pictures([page[row][NUMBER] for row in new]) if thumbnails else []
                    vectors = decode_vectors(page, source.identity.dimension)
                    writer.append(vectors[new], frame.iloc[new], pictures if any(pictures) else None)
                added, done = added + len(new), done + len(page)
                if progress is not None:
                    progress(done, rows)
            return BuildReport(added, done - added - len(failures), tuple(failures), writer.generation)
