"""Changing a gallery: one writer at a time, one generation at a time, each wholly there or not at all."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from index import GalleryError
from index.admission import Presence, check_records, check_thumbnails, check_vectors, compare, in_stored_kinds
from index.cache import store_engine
from index.durable import TEMPORARY_SUFFIX, WriterLock, make_folder, storage_error, write_whole
from index.engines import ExactEngine
from index.gallery import Gallery, missing_segment, read_segment, unknown_row
from index.layout import (
    CACHE_FOLDER,
    LOCK_NAME,
    SEGMENT_FOLDER,
    all_files,
    check_folders,
    segment_name,
    sweep,
)
from index.manifest import (
    MANIFEST_NAME,
    GalleryIdentity,
    Manifest,
    SegmentEntry,
    check_identity,
    now,
    read_manifest,
    write_manifest,
)
from index.records import Columns, check_required, to_columns
from index.removal import prove_removed
from index.segments import Segment, digest, encode_segment, select


def create_gallery(folder: Path, identity: GalleryIdentity) -> None:
    """Make an empty gallery; one that is already there with the same identity is left as it is.

    Raises:
        GalleryError: The folder holds something else, or a gallery of another model; or it can't be written.
    """
    folder = Path(folder)
    if not (folder / MANIFEST_NAME).exists():
        _check_free(folder)
        try:
            make_folder(folder)
            with WriterLock(folder / LOCK_NAME):
                if not (folder / MANIFEST_NAME).exists():
                    _check_free(folder)
                    moment = now()
                    make_folder(folder / SEGMENT_FOLDER)
                    make_folder(folder / CACHE_FOLDER)
                    write_manifest(folder, Manifest(identity, 0, (), None, moment, moment))
        except OSError as error:
            raise storage_error(folder, error) from error
    check_identity(folder, read_manifest(folder).identity, identity)


def _check_free(folder: Path) -> None:
    """Refuse a folder that holds anything but what an interrupted `create_gallery` leaves."""
    try:
        if not folder.is_dir():
            if folder.exists() or folder.is_symlink():
                raise GalleryError(folder, "is not a folder", "name another one for the gallery")
            return
        names = [name for name in all_files(folder) if name != LOCK_NAME]
    except OSError as error:
        raise storage_error(folder, error) from error
    strange = [n for n in names if not (n.startswith(f"{MANIFEST_NAME}.") and n.endswith(TEMPORARY_SUFFIX))]
    if strange:
        raise GalleryError(
            folder, f"is no gallery and is not empty (it holds {strange[0]})", "name an empty or a new folder"
        )


class GalleryWriter:
    """The right to change a gallery, as a context manager.

    Every change is one new generation. A kill, an interrupt or a full disk at any moment leaves the last one.

    Args:
        folder: The gallery.

    Attributes:
        cleaned: Files that a killed writer had left, deleted on entry.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.cleaned: tuple[str, ...] = ()
        self._lock = WriterLock(self.folder / LOCK_NAME)
        self._manifest: Manifest
        self._parts: list[Columns] = []
        self._places: dict[str, tuple[int, int]] = {}

    def __enter__(self) -> Self:
        # Read first: a folder that is no gallery gets no lock file.
        read_manifest(self.folder)
        check_folders(self.folder)
        self._lock.acquire()
        try:
            self.cleaned = sweep(self.folder, read_manifest(self.folder))
            self._load()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._lock.release()

    @property
    def identity(self) -> GalleryIdentity:
        """What the gallery is bound to."""
        return self._manifest.identity

    @property
    def generation(self) -> int:
        """The generation that stands."""
        return self._manifest.generation

    def present(self, records: pd.DataFrame) -> Presence:
        """Tell which findings are already stored, and which of those with another content.

        Args:
            records: (n rows).

        Raises:
            GalleryError: A column or a cell can't be stored, or not beside the stored ones.
        """
        if not len(records):
            return Presence(np.zeros(0, np.bool_), {})
        columns = in_stored_kinds(to_columns(records, self.folder), self._parts, self.folder)
        return compare(columns, self._parts, self._places)

    def append(
        self,
        vectors: npt.NDArray[np.float32],
        records: pd.DataFrame,
        thumbnails: Sequence[bytes] | None = None,
    ) -> None:
        """Store findings as one segment and commit them.

        Args:
            vectors: float32 (n, d), unit length.
            records: (n rows), with the gallery's granularity and row ids that are not stored yet.
            thumbnails: (n,) PNG files, empty bytes where a row has none.

        Raises:
            GalleryError: Something does not fit the gallery, or it can't be written; what was stored stands.
        """
        self._refresh()
        if not len(records) and not len(vectors):
            return
        columns = in_stored_kinds(to_columns(records, self.folder), self._parts, self.folder)
        check_vectors(vectors, (len(records), self.identity.dimension), self.folder)
        check_records(columns, self._places, self.identity.granularity, self.folder)
        if thumbnails is not None:
            check_thumbnails(thumbnails, len(records), self.folder)
        pictures = None if thumbnails is None else tuple(thumbnails)
        entry = self._write_segment(Segment(vectors, columns, pictures))
        manifest = self._commit((*self._manifest.segments, entry))
        self._places |= _places(columns, len(self._parts))
        self._parts.append(columns)
        self._manifest = manifest

    def remove(self, rows: npt.NDArray[np.bool_] | Sequence[str]) -> int:
        """Remove findings so that nothing of them is left in any file of the gallery, and prove it.

        The proof reads every file back: the row ids must be gone, and a removed vector's or picture's bytes
        may stand nowhere but in a row that is kept (two findings can look the same). What a file system or a
        backup keeps of deleted files is beyond it.

        Args:
            rows: bool (n,) over the stored rows in their order, or row ids.

        Returns:
            How many were removed.

        Raises:
            GalleryError: The gallery can't be written, or the proof failed.
            QueryError: There is no such row.
        """
        self._refresh()
        doomed = self._mask(rows)
        if not doomed.any():
            return 0
        entries: list[SegmentEntry] = []
        removed: list[Segment] = []
        start = 0
        for entry in self._manifest.segments:
            mask = doomed[start : start + entry.rows]
            start += entry.rows
            if not mask.any():
                entries.append(entry)
                continue
            segment = self._read(entry, self.identity.dimension, thumbnails=True)
            removed.append(select(segment, np.flatnonzero(mask)))
            if not mask.all():
                entries.append(self._write_segment(select(segment, np.flatnonzero(~mask))))
        try:
            self._commit(tuple(entries))
        finally:
            self._sweep()
        self._load()
        prove_removed(self.folder, self._manifest, removed)
        return int(doomed.sum())

    def rebuild_cache(self) -> None:
        """Make the index cache anew from the vectors.

        Raises:
            GalleryError: It can't be written; the gallery is as good without it.
        """
        self._refresh()
        gallery = Gallery.open(self.folder)
        if len(gallery):
            engine = ExactEngine(gallery.vectors, gallery.row_ids)
            store_engine(self.folder, gallery.manifest.segments_digest, engine)
            self._manifest = read_manifest(self.folder)

    @property
    def row_ids(self) -> list[str]:
        """The stored rows in their order."""
        return [row_id for part in self._parts for row_id in part["row_id"].cells]

    def _load(self) -> None:
        manifest = read_manifest(self.folder)
        parts: list[Columns] = []
        places: dict[str, tuple[int, int]] = {}
        for entry in manifest.segments:
            columns = self._read(entry, manifest.identity.dimension).columns
            check_required(columns, self.folder / entry.file)
            places |= _places(columns, len(parts))
            parts.append(columns)
        self._parts, self._places = parts, places
        # Last, so that it never names more than was taken note of.
        self._manifest = manifest

    def _refresh(self) -> None:
        """Follow the disk, should an interrupt have come between a commit and taking note of it."""
        if read_manifest(self.folder) != self._manifest:
            self._load()

    def _read(self, entry: SegmentEntry, dimension: int, *, thumbnails: bool = False) -> Segment:
        try:
            return read_segment(self.folder, entry, dimension, thumbnails=thumbnails)
        except FileNotFoundError as error:
            raise missing_segment(self.folder, entry) from error

    def _mask(self, rows: npt.NDArray[np.bool_] | Sequence[str]) -> npt.NDArray[np.bool_]:
        row_ids = self.row_ids
        if isinstance(rows, np.ndarray) and rows.dtype == np.bool_:
            if rows.shape != (len(row_ids),):
                raise GalleryError(self.folder, f"a mask of shape {rows.shape} does not fit {len(row_ids)} rows")
            return rows
        wanted = {str(row_id) for row_id in rows}
        for row_id in sorted(wanted - self._places.keys()):
            raise unknown_row(row_id, row_ids, self.folder)
        return np.array([row_id in wanted for row_id in row_ids], np.bool_)

    def _write_segment(self, segment: Segment) -> SegmentEntry:
        data = encode_segment(segment)
        sha256 = digest(data)
        try:
            make_folder(self.folder / SEGMENT_FOLDER)
            write_whole(self.folder / segment_name(sha256), data)
        except OSError as error:
            self._sweep()
            raise storage_error(self.folder, error) from error
        return SegmentEntry(segment_name(sha256), sha256, segment.rows, len(data))

    def _commit(self, segments: tuple[SegmentEntry, ...]) -> Manifest:
        previous = self._manifest
        manifest = replace(previous, generation=previous.generation + 1, segments=segments, cache=None, updated=now())
        try:
            write_manifest(self.folder, manifest)
        except OSError as error:
            self._sweep()
            raise storage_error(self.folder, error) from error
        if previous.cache is not None:
            self._sweep()
        return manifest

    def _sweep(self) -> None:
        sweep(self.folder, read_manifest(self.folder))


def _places(columns: Columns, segment: int) -> dict[str, tuple[int, int]]:
    return {row_id: (segment, row) for row, row_id in enumerate(columns["row_id"].cells)}
