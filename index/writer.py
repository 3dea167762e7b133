"""Changing a gallery: one writer at a time, one generation at a time, each wholly there or not at all."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from index import GalleryError
from index.admission import Presence, check_records, check_thumbnails, check_vectors, compare, in_stored_kinds
from index.durable import TEMPORARY_SUFFIX, WriterLock, make_folder, storage_error, write_whole
from index.engines import Engine, EngineConfig, build_engine
from index.gallery import Gallery, check_columns, unknown_row
from index.layout import (
    CACHE_FOLDER,
    LOCK_NAME,
    MANIFEST_NAME,
    SEGMENT_FOLDER,
    all_files,
    check_folders,
    file_name,
    sweep,
)
from index.manifest import (
    FileEntry,
    GalleryIdentity,
    IndexEntry,
    Manifest,
    SegmentEntry,
    check_identity,
    now,
    read_manifest,
    write_manifest,
)
from index.reading import missing_segment, read_file, read_segment
from index.records import UNKNOWN, Columns, common_kind, kind_of, to_columns
from index.removal import Removed, holds_vector, log_removal, prove_removed, settle_log
from index.segments import (
    Segment,
    digest,
    encode_segment,
    join_pictures,
    keys_of,
    select,
    split_segment,
    with_pictures,
)
from index.table import Encoded, encode_columns, join

SEGMENT_BYTES = 256 << 20
"""Bytes of vectors up to which small segments are joined. A removal writes its segments anew: they must not be huge."""

SMALL_SEGMENTS = 16
"""Small segments that may gather before they are joined."""


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
                    write_manifest(folder, Manifest(identity, 0, 0, (), {}, {}, None, None, moment, moment))
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
        self._keys: dict[str, npt.NDArray[np.uint64]] = {}
        self._columns: dict[str, dict[str, Encoded]] = {}

    def __enter__(self) -> Self:
        # Read first: a folder that is no gallery gets no lock file.
        read_manifest(self.folder)
        check_folders(self.folder)
        self._lock.acquire()
        try:
            self._manifest = read_manifest(self.folder)
            self.cleaned = sweep(self.folder, self._manifest)
            settle_log(self.folder, self._manifest.generation)
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

    @property
    def manifest(self) -> Manifest:
        """What the generation that stands consists of."""
        return self._manifest

    def present(self, records: pd.DataFrame) -> Presence:
        """Tell which findings are already stored, and which of those with another content.

        Args:
            records: (n rows).

        Raises:
            GalleryError: A column or a cell can't be stored, or not beside the stored ones.
        """
        self._refresh()
        if not len(records):
            return Presence(np.zeros(0, np.bool_), {})
        columns = in_stored_kinds(to_columns(records, self.folder), self._manifest.columns, self.folder)
        places = self._find(columns["row_id"].cells.tolist())
        parts: dict[int, Columns] = {}
        for number in sorted({part for part, _ in places.values()}):
            stored = self._stored_columns(self._manifest.segments[number])
            parts[number] = {name: column.dense() for name, column in stored.items()}
        return compare(columns, parts, places)

    def append(
        self,
        vectors: npt.NDArray[np.float32],
        records: pd.DataFrame,
        thumbnails: Sequence[bytes] | None = None,
    ) -> None:
        """Store findings as one segment and commit them. What it costs depends on them, not on what is stored.

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
        before = self._manifest
        columns = in_stored_kinds(to_columns(records, self.folder), before.columns, self.folder)
        check_vectors(vectors, (len(records), self.identity.dimension), self.folder)
        stored = self._find(columns["row_id"].cells.tolist())
        check_records(columns, stored, self.identity.granularity, self.folder)
        pictures, blob = None, b""
        if thumbnails is not None:
            check_thumbnails(thumbnails, len(records), self.folder)
            pictures, blob = join_pictures(thumbnails)
        numbers = np.arange(before.next_number, before.next_number + len(records), dtype=np.int64)
        segment = Segment(vectors, numbers, encode_columns(columns), pictures)
        entry = self._write_segment(segment, blob)
        kinds = {name: before.columns.get(name, UNKNOWN) for name in dict.fromkeys([*before.columns, *columns])}
        for name, column in columns.items():
            kind = common_kind((kinds[name], kind_of(column)))
            assert kind is not None, "kinds that clash were refused"
            kinds[name] = kind
        self._commit(segments=(*before.segments, entry), columns=kinds, next_number=before.next_number + len(records))

    def remove(self, rows: npt.NDArray[np.bool_] | Sequence[str], *, reason: str = "rows") -> int:
        """Remove findings so that nothing of them is left in any file of the gallery, and prove it.

        The proof reads every file back, see `index.removal`. What a file system or a backup keeps of deleted files is
        beyond it.

        Args:
            rows: bool (n,) over the stored rows in their order, or row ids.
            reason: What kind of question chose them, for the log; it must name nobody.

        Returns:
            How many were removed.

        Raises:
            GalleryError: The gallery can't be written, or the proof failed.
            QueryError: There is no such row.
        """
        self._refresh()
        doomed = self._doomed(rows)
        count = sum(len(chosen) for chosen in doomed.values())
        if not count:
            return 0
        before = self._manifest
        entries: list[SegmentEntry] = []
        removed: list[Removed] = []
        for place, entry in enumerate(before.segments):
            if place not in doomed:
                entries.append(entry)
                continue
            segment, pictures = self._read_whole(entry)
            chosen = doomed[place]
            kept = np.setdiff1d(np.arange(entry.rows), chosen)
            gone = select(segment, chosen)
            removed.append(Removed(gone, tuple(pictures[row] for row in chosen) if pictures else ()))
            if len(kept):
                part, blob = select(segment, kept), b""
                if pictures:
                    own, blob = join_pictures([pictures[row] for row in kept])
                    part = with_pictures(part, own)
                entries.append(self._write_segment(part, blob))
        numbers = np.sort(np.concatenate([part.segment.numbers for part in removed]))
        women = len({f"{a}/{b}" for part in removed for a, b in part.women})
        try:
            log_removal(self.folder, "begun", before.generation + 1, count, women, reason)
            self._commit(segments=tuple(entries), index=self._index_without(numbers, removed), precedents=None)
        finally:
            self._sweep()
        prove_removed(self.folder, self._manifest, removed)
        index = self._manifest.index
        # An index is opened only if it holds the rows that it should, by their numbers, and no other.
        if index is not None and Gallery.open(self.folder, checked=False).index.until != index.until:
            raise GalleryError(self.folder / index.cache.file, "is not rid of the removed rows", "rebuild the index")
        log_removal(self.folder, "proven", self.generation, count, women, reason)
        return count

    def compact(self) -> int:
        """Join small segments that lie side by side, up to `SEGMENT_BYTES` each; rows and their order stay.

        Returns:
            How many segments there are fewer.

        Raises:
            GalleryError: The gallery can't be written or is damaged; it stands as it was.
        """
        self._refresh()
        groups = list(_groups(self._manifest.segments, self._full_rows))
        if all(len(group) == 1 for group in groups):
            return 0
        entries = []
        for group in groups:
            if len(group) == 1:
                entries.append(group[0])
                continue
            parts = [self._read_whole(entry) for entry in group]
            entries.append(self._write_segment(*_joined(parts)))
        fewer = len(self._manifest.segments) - len(entries)
        try:
            self._commit(segments=tuple(entries))
        finally:
            self._sweep()
        return fewer

    def compact_when_many(self) -> int:
        """Join small segments where more than `SMALL_SEGMENTS` have gathered, see `compact`."""
        small = sum(entry.rows <= self._full_rows // 2 for entry in self._manifest.segments)
        return self.compact() if small > SMALL_SEGMENTS else 0

    def drop_damaged(self) -> tuple[str, ...]:
        """Give up what is damaged or missing, so that the rest can be written to again.

        A segment is given up whole; where only its pictures are damaged, it goes on without them.

        Returns:
            The names of the files that were given up.

        Raises:
            GalleryError: The gallery can't be written.
        """
        self._refresh()
        kept: list[SegmentEntry] = []
        dropped: list[str] = []
        for entry in self._manifest.segments:
            try:
                segment = self._read(entry)
            except GalleryError:
                dropped.append(entry.file)
                continue
            damaged = [other for other in entry.files[1:] if not self._is_good(other)]
            if damaged:
                pictures = None if entry.pictures in damaged else segment.pictures
                blob = read_file(self.folder, entry.pictures) if pictures and entry.pictures else b""
                kept.append(self._write_segment(with_pictures(segment, pictures), blob))
                dropped += [other.file for other in damaged]
            else:
                kept.append(entry)
        if dropped:
            whole, before = len(kept) == len(self._manifest.segments), self._manifest
            index, precedents = (before.index, before.precedents) if whole else (None, None)
            try:
                self._commit(segments=tuple(kept), index=index, precedents=precedents)
            finally:
                self._sweep()
        return tuple(dropped)

    def rebuild_index(
        self,
        config: EngineConfig | None = None,
        *,
        device: str = "cpu",
        progress: Callable[[str], None] | None = None,
    ) -> Engine:
        """Make the index anew from the stored vectors.

        Args:
            config: Which engine; None for the one that the gallery has been asked for.
            device: Where to build it.
            progress: Told in a line what is being done.

        Raises:
            GalleryError: It can't be written, or the engine can't be had; the gallery is as good without it.
        """
        self._refresh()
        wanted = EngineConfig.from_dict(self._manifest.engine) if config is None else config
        gallery = Gallery.open(self.folder)
        engine = build_engine(
            wanted,
            gallery.vectors,
            gallery.numbers,
            gallery.names_of,
            groups=gallery.women,
            progress=progress,
            device=device,
        )
        self.store_index(engine, wanted)
        return engine

    def store_index(self, engine: Engine, config: EngineConfig) -> None:
        """Make an engine of this generation the gallery's own.

        Raises:
            GalleryError: It can't be written.
        """
        self._refresh()
        index = self._write_index(engine, self._manifest.next_number)
        try:
            self._commit(index=index, engine=config.to_dict(), same_content=True)
        finally:
            self._sweep()

    def store_precedents(self, data: bytes) -> None:
        """Keep how near the women of this generation come to each other, see `index.precedents`.

        Raises:
            GalleryError: It can't be written.
        """
        self._refresh()
        entry = self._write_file(CACHE_FOLDER, "precedents", data)
        try:
            self._commit(precedents=entry, same_content=True)
        finally:
            self._sweep()

    @property
    def row_ids(self) -> list[str]:
        """The stored rows in their order."""
        self._refresh()
        return [
            str(row_id)
            for entry in self._manifest.segments
            for row_id in self._stored_columns(entry)["row_id"].dense().cells
        ]

    @property
    def _full_rows(self) -> int:
        return max(1024, SEGMENT_BYTES // (4 * self.identity.dimension))

    def _refresh(self) -> None:
        """Follow the disk, should an interrupt have come between a commit and taking note of it."""
        manifest = read_manifest(self.folder)
        if manifest != self._manifest:
            self._manifest = manifest

    def _read(self, entry: SegmentEntry, *, checked: bool = True) -> Segment:
        try:
            segment = read_segment(self.folder, entry, self.identity.dimension, checked=checked)
        except FileNotFoundError as error:
            raise missing_segment(self.folder, entry) from error
        check_columns(self.folder / entry.file, self._manifest, segment)
        return segment

    def _is_good(self, entry: FileEntry) -> bool:
        try:
            read_file(self.folder, entry)
        except (FileNotFoundError, GalleryError):
            return False
        return True

    def _read_whole(self, entry: SegmentEntry) -> tuple[Segment, list[bytes] | None]:
        """Read a segment with its pictures."""
        segment = self._read(entry)
        if entry.pictures is None or segment.pictures is None:
            return segment, None
        try:
            blob = read_file(self.folder, entry.pictures)
        except FileNotFoundError as error:
            raise missing_segment(self.folder, entry) from error
        spans = [segment.pictures.span(row) for row in range(entry.rows)]
        return segment, [blob[start:end] for start, end in spans]

    def _stored_columns(self, entry: SegmentEntry) -> dict[str, Encoded]:
        if entry.file not in self._columns:
            self._columns[entry.file] = self._read(entry, checked=False).columns
        return self._columns[entry.file]

    def _stored_keys(self, entry: SegmentEntry) -> npt.NDArray[np.uint64]:
        if entry.file not in self._keys:
            try:
                keys = np.frombuffer(read_file(self.folder, entry.keys), "<u8").astype(np.uint64)
            except (FileNotFoundError, GalleryError):
                keys = np.sort(keys_of(self._stored_columns(entry)["row_id"].dense().cells.tolist()))
            self._keys[entry.file] = keys
        return self._keys[entry.file]

    def _find(self, row_ids: Sequence[str]) -> dict[str, tuple[int, int]]:
        """Return where those of some rows stand that are stored: number of the segment, and row in it."""
        places: dict[str, tuple[int, int]] = {}
        wanted = keys_of(row_ids)
        upwards = np.argsort(wanted)  # neighbouring keys are looked up together, which is several times faster
        for number, entry in enumerate(self._manifest.segments):
            keys = self._stored_keys(entry)
            at = np.minimum(np.searchsorted(keys, wanted[upwards]), len(keys) - 1)
            candidates = {row_ids[i] for i in upwards[keys[at] == wanted[upwards]]}
            if candidates:
                stored = self._stored_columns(entry)["row_id"].dense().cells
                places |= {row_id: (number, row) for row, row_id in enumerate(stored) if row_id in candidates}
        return places

    def _doomed(self, rows: npt.NDArray[np.bool_] | Sequence[str]) -> dict[int, npt.NDArray[np.int64]]:
        """Return the rows to remove within each segment that has some."""
        segments = self._manifest.segments
        if isinstance(rows, np.ndarray) and rows.dtype == np.bool_:
            if rows.shape != (self._manifest.rows,):
                raise GalleryError(self.folder, f"a mask of shape {rows.shape} does not fit {self._manifest.rows} rows")
            parts = np.split(rows, np.cumsum([entry.rows for entry in segments])[:-1]) if segments else []
            return {place: np.flatnonzero(part) for place, part in enumerate(parts) if part.any()}
        wanted = [str(row_id) for row_id in rows]
        places = self._find(wanted)
        for row_id in wanted:
            if row_id not in places:
                raise unknown_row(row_id, self.row_ids, self.folder)
        doomed: dict[int, list[int]] = {}
        for place, row in set(places.values()):
            doomed.setdefault(place, []).append(row)
        return {place: np.sort(np.array(chosen, np.int64)) for place, chosen in doomed.items()}

    def _index_without(self, numbers: npt.NDArray[np.int64], removed: Sequence[Removed]) -> IndexEntry | None:
        """Return the index without some rows, written; None where there is none, or where it must be made anew."""
        entry = self._manifest.index
        if entry is None:
            return None
        held = numbers[numbers < entry.until]
        if not len(held):
            return entry
        gallery = Gallery.open(self.folder, checked=False)
        engine = gallery.index.without(held)
        # The only row of a cell is its centre too, and would stay as that.
        if engine is None or holds_vector(engine.to_bytes(), removed):
            return None
        return self._write_index(engine, entry.until)

    def _write_index(self, engine: Engine, until: int) -> IndexEntry | None:
        data = engine.to_bytes()
        if not data:  # exact search needs no index
            return None
        return IndexEntry(self._write_file(CACHE_FOLDER, "faiss", data), until, dict(engine.description))

    def _write_segment(self, segment: Segment, pictures: bytes) -> SegmentEntry:
        data, vectors_at = encode_segment(segment)
        row_ids = segment.columns["row_id"].dense().cells.tolist()
        pieces = split_segment(data, rows=segment.rows, dimension=self.identity.dimension, vectors_at=vectors_at)
        own = self._write_file(SEGMENT_FOLDER, "h5", data)
        return SegmentEntry(
            own.file,
            own.sha256,
            own.bytes,
            segment.rows,
            int(segment.numbers[0]),
            int(segment.numbers[-1]),
            vectors_at,
            pieces.digests(whole=False)[1],
            self._write_file(SEGMENT_FOLDER, "keys", np.sort(keys_of(row_ids)).astype("<u8").tobytes()),
            self._write_file(SEGMENT_FOLDER, "pictures", pictures) if pictures else None,
        )

    def _write_file(self, folder: str, suffix: str, data: bytes) -> FileEntry:
        sha256 = digest(data)
        entry = FileEntry(file_name(folder, sha256, suffix), sha256, len(data))
        try:
            make_folder(self.folder / folder)
            write_whole(self.folder / entry.file, data)
        except OSError as error:
            self._sweep()
            raise storage_error(self.folder, error) from error
        return entry

    def _commit(self, *, same_content: bool = False, **changes: object) -> None:
        manifest = replace(self._manifest, **changes)  # type: ignore[arg-type]
        if not same_content:
            manifest = replace(manifest, generation=manifest.generation + 1, updated=now())
        try:
            write_manifest(self.folder, manifest)
        except OSError as error:
            self._sweep()
            raise storage_error(self.folder, error) from error
        self._manifest = manifest

    def _sweep(self) -> None:
        sweep(self.folder, read_manifest(self.folder))


def _groups(segments: Sequence[SegmentEntry], full: int) -> Iterator[list[SegmentEntry]]:
    """Yield runs of neighbouring segments whose rows together make at most a full one."""
    group: list[SegmentEntry] = []
    for entry in segments:
        if group and sum(e.rows for e in group) + entry.rows > full:
            yield group
            group = []
        group.append(entry)
    if group:
        yield group


def _joined(parts: Sequence[tuple[Segment, list[bytes] | None]]) -> tuple[Segment, bytes]:
    """Join segments and their pictures into one."""
    segments = [segment for segment, _ in parts]
    names = dict.fromkeys(name for segment in segments for name in segment.columns)
    rows = [segment.rows for segment in segments]
    columns = {name: join([segment.columns.get(name) for segment in segments], rows) for name in names}
    vectors = np.concatenate([segment.vectors for segment in segments])
    numbers = np.concatenate([segment.numbers for segment in segments])
    if all(pictures is None for _, pictures in parts):
        return Segment(vectors, numbers, columns), b""
    own, blob = join_pictures([p for s, pictures in parts for p in (pictures or [b""] * s.rows)])
    return Segment(vectors, numbers, columns, own), blob
