"""A gallery as its readers see it: one generation, whole and checked, which no writer can change for them."""

import difflib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from index import GalleryError, QueryError
from index.engines import Engine, exact_engine, open_engine
from index.filters import Filter
from index.manifest import GalleryIdentity, Manifest, SegmentEntry, read_manifest
from index.memory import available_memory
from index.reading import missing_segment, read_file, read_picture, read_segment
from index.records import REQUIRED_COLUMNS, fold_name
from index.segments import Pictures, Segment
from index.table import RecordTable
from index.vectors import Positions, StoredVectors

_ATTEMPTS = 5
_FILTERS_KEPT = 8
_READERS = 2  # threads that read and digest segments


class Gallery:
    """One generation of a gallery.

    Open one with `Gallery.open`. What a writer does afterwards does not reach it: open it anew to see that.

    Attributes:
        folder: Where it lies.
        manifest: What the generation consists of.
        vectors: All vectors, unit length. They stay on the disk until they are used.
        numbers: int64 (n,), increasing: each row's number, which no change of the gallery changes.
        table: What is known of each finding.
        notes: What its user should know of it.
        device: Where its index searches, see `open`.
    """

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        segments: Sequence[Segment],
        vectors: StoredVectors,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.folder = folder
        self.manifest = manifest
        self.vectors = vectors
        self.notes = notes
        self.device = "cpu"
        self.numbers: npt.NDArray[np.int64] = np.concatenate([np.empty(0, np.int64), *(s.numbers for s in segments)])
        self._passing: dict[str, npt.NDArray[np.bool_]] = {}
        self._pictures: list[Pictures | None] = [segment.pictures for segment in segments]
        for entry, segment in zip(manifest.segments, segments, strict=True):
            check_columns(folder / entry.file, manifest, segment)
        self.table = RecordTable([s.columns for s in segments], [s.rows for s in segments])

    @classmethod
    def open(
        cls, folder: Path, *, checked: bool | None = None, skip_damaged: bool = False, device: str = "cpu"
    ) -> "Gallery":
        """Read the generation that stands, checking every digest on the way.

        Args:
            folder: The gallery.
            checked: Digest the vectors too, which reads each of them once; all the rest is digested in any case. None:
                where they take less than half of the memory that is free. `verify_gallery` always does.
            skip_damaged: Go on without the segments that are damaged or missing; `notes` names them.
            device: Where its index searches: cpu, cuda, or cuda with the numbers of some GPUs, as in "cuda:0,1".

        Raises:
            GalleryError: There is no gallery, or it is damaged.
        """
        folder = Path(folder)
        manifest = read_manifest(folder)
        for _ in range(_ATTEMPTS):
            try:
                gallery = cls._read(folder, manifest, checked, skip_damaged)
                gallery.device = device
                return gallery
            except FileNotFoundError as error:
                # A removal may have replaced segments between reading the manifest and reading them.
                latest = read_manifest(folder)
                if latest.segments == manifest.segments:
                    gone = next((e for e in manifest.segments if not (folder / e.file).exists()), manifest.segments[0])
                    raise missing_segment(folder, gone) from error
                manifest = latest
        raise GalleryError(folder, "is being changed all the time", "try again when its writer has finished")

    @classmethod
    def _read(cls, folder: Path, manifest: Manifest, checked: bool | None, skip_damaged: bool) -> "Gallery":
        dimension = manifest.identity.dimension
        if checked is None:
            checked = manifest.vector_bytes < available_memory() / 2
        notes: tuple[str, ...] = ()
        if skip_damaged:
            manifest, notes = _without_damaged(folder, manifest)
        with ThreadPoolExecutor(_READERS) as pool:
            read = [pool.submit(read_segment, folder, e, dimension, checked=checked) for e in manifest.segments]
            segments = [future.result() for future in read]
        return cls(folder, manifest, segments, StoredVectors([s.vectors for s in segments], dimension), notes)

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def identity(self) -> GalleryIdentity:
        """What the gallery is bound to."""
        return self.manifest.identity

    @property
    def generation(self) -> int:
        """Which of the gallery's contents this is."""
        return self.manifest.generation

    @property
    def created(self) -> str:
        """When the gallery was made, ISO 8601 in UTC."""
        return self.manifest.created

    @property
    def updated(self) -> str:
        """When this generation was committed, ISO 8601 in UTC."""
        return self.manifest.updated

    @cached_property
    def matrix(self) -> npt.NDArray[np.float32]:
        """float32 (n, d) all vectors in one array: a copy of them, where they lie in several segments."""
        return self.vectors.whole()

    @cached_property
    def records(self) -> pd.DataFrame:
        """(n rows) all records as a table of pandas; `table` is faster and smaller."""
        return self.table.frame()

    @cached_property
    def row_ids(self) -> npt.NDArray[np.object_]:
        """(n,) objects of str."""
        return self.table.column("row_id").dense().cells if len(self) else np.empty(0, object)

    @cached_property
    def women(self) -> npt.NDArray[np.int32]:
        """int32 (n,) a number for each row's woman, from 0: a patient id is unique within its data set only."""
        if not len(self):
            return np.empty(0, np.int32)
        patients, datasets = self._codes("patient_id"), self._codes("dataset")
        return pd.factorize(datasets * (int(patients.max()) + 1) + patients)[0].astype(np.int32)

    @cached_property
    def patient_keys(self) -> npt.NDArray[np.object_]:
        """(n,) each row's woman as "dataset/patient_id"."""
        return np.array([self._key(int(first)) for first in self._firsts], dtype=object)[self.women]

    def patient_key(self, position: int) -> str:
        """Return a row's woman as "dataset/patient_id"."""
        return self._key(position)

    def first_row(self, woman: int) -> int:
        """Return the first row of a woman, known by her number in `women`."""
        return int(self._firsts[woman])

    def rows_of(self, women: npt.NDArray[np.int32] | Sequence[int]) -> Positions:
        """Return the rows of some women, upwards.

        Args:
            women: Their numbers in `women`.
        """
        order, starts = self._by_woman
        if len(women) == 1:  # the usual case, a thousand times in a batch
            return order[starts[women[0]] : starts[women[0] + 1]]
        found = [order[starts[woman] : starts[woman + 1]] for woman in np.unique(np.asarray(women, np.int64))]
        return np.sort(np.concatenate([np.empty(0, np.int64), *found]))

    def women_called(self, patient: str, dataset: str | None = None) -> npt.NDArray[np.int64]:
        """Return the women of a name, letter case and white space around it aside.

        Args:
            patient: A patient id.
            dataset: Her data set; None for every one.
        """
        women = self._folded.get(fold_name(patient), [])
        if dataset is not None:
            women = [
                w for w in women if fold_name(self.table.cell("dataset", int(self._firsts[w]))) == fold_name(dataset)
            ]
        return np.array(women, np.int64)

    def has_dataset(self, dataset: str) -> bool:
        """Return whether any row is of a data set, letter case and white space around it aside."""
        return any(fold_name(name) == fold_name(dataset) for name in self.datasets)

    @cached_property
    def datasets(self) -> list[str]:
        """The names of the data sets, sorted."""
        if not len(self):
            return []
        column = self.table.column("dataset")
        return sorted(column.distinct[np.unique(self._codes("dataset"))])

    def position(self, row_id: str) -> int:
        """Return where a row stands.

        Raises:
            QueryError: There is no such row.
        """
        found = self.table.find("row_id", row_id) if isinstance(row_id, str) else ()
        if not len(found):
            raise unknown_row(row_id, self.row_ids.tolist(), self.folder)
        return int(found[0])

    def row_id(self, position: int) -> str:
        """Return the name of a row."""
        return str(self.table.cell("row_id", position))

    def record(self, position: int) -> dict[str, Any]:
        """Return all that is known of a row as plain values for JSON; None where unknown."""
        return self.table.record(position)

    def record_of(self, row_id: str) -> dict[str, Any]:
        """Return all that is known of a row that is named.

        Raises:
            QueryError: There is no such row.
        """
        return self.record(self.position(row_id))

    def thumbnail(self, row_id: str) -> bytes | None:
        """Return the small picture of a row as PNG; None where the gallery keeps none.

        Raises:
            QueryError: There is no such row.
            GalleryError: The gallery has changed since it was opened, or is damaged.
        """
        position = self.position(row_id)
        for entry, pictures in zip(self.manifest.segments, self._pictures, strict=True):
            if position >= entry.rows:
                position -= entry.rows
                continue
            if pictures is None or entry.pictures is None:
                return None
            start, end = pictures.span(position)
            if start == end:
                return None
            try:
                return read_picture(self.folder, entry, (start, end), pictures.sha256[position].tobytes())
            except FileNotFoundError as error:
                raise GalleryError(self.folder, "has changed since it was opened", "open it again") from error
        raise AssertionError("every position lies in a segment")

    def passing(self, condition: Filter) -> npt.NDArray[np.bool_]:
        """Return bool (n,), which rows pass a filter; the last few filters are remembered.

        Raises:
            QueryError: It names a column that is not there, or compares a text with a number.
        """
        if condition.text not in self._passing:
            while len(self._passing) >= _FILTERS_KEPT:
                self._passing.pop(next(iter(self._passing)), None)
            self._passing[condition.text] = condition.mask(self.table)
        return self._passing[condition.text]

    @cached_property
    def index(self) -> Engine:
        """The search engine. Where its cache can't be used all vectors are searched, and a note says so."""
        engine = self._stored_engine() or exact_engine(self.vectors, self.names_of, device=self.device)
        if note := engine.description.get("note"):
            self.notes += (str(note),)
        return engine

    def _stored_engine(self) -> Engine | None:
        entry = self.manifest.index
        if entry is None:
            return None
        try:
            data = read_file(self.folder, entry.cache)
            return open_engine(
                data, entry.description, entry.until, self.vectors, self.numbers, self.names_of, device=self.device
            )
        except (FileNotFoundError, GalleryError, ValueError):
            self.notes += (
                "the index is damaged, so every vector was searched, which is slower: make it again by "
                "`mammoseek index rebuild`",
            )
            return None

    def names_of(self, positions: Positions) -> npt.NDArray[np.object_]:
        """Return the row ids of some positions."""
        return self.table.texts("row_id", positions)

    def _codes(self, name: str) -> npt.NDArray[np.int64]:
        codes = self.table.column(name).codes
        assert codes is not None, "it is a text in every row: that was checked when the gallery was opened"
        return codes.astype(np.int64)

    @cached_property
    def _by_woman(self) -> tuple[Positions, Positions]:
        order = np.argsort(self.women, kind="stable").astype(np.int64)
        return order, np.concatenate([[0], np.cumsum(np.bincount(self.women))]).astype(np.int64)

    @cached_property
    def _firsts(self) -> Positions:
        order, starts = self._by_woman
        return order[starts[:-1]]

    @cached_property
    def _folded(self) -> dict[str, list[int]]:
        """The women of each name, without what is easily mistyped."""
        names: dict[str, list[int]] = {}
        if not len(self):
            return names
        column = self.table.column("patient_id")
        values, codes = column.distinct, self._codes("patient_id")[self._firsts]
        for woman, code in enumerate(codes):
            names.setdefault(fold_name(values[code]), []).append(woman)
        return names

    def _key(self, position: int) -> str:
        return f"{self.table.cell('dataset', position)}/{self.table.cell('patient_id', position)}"


def check_columns(path: Path, manifest: Manifest, segment: Segment) -> None:
    """Refuse a segment whose records are not what the manifest says, or in which a required column has a gap."""
    damaged = "build the gallery again, or restore it from a copy"
    for name, column in segment.columns.items():
        kind = manifest.columns.get(name)
        if kind is None or (column.known and not _goes_with(column.kind, kind)):
            raise GalleryError(path, f"its column {name} is not of the kind that the gallery says", damaged)
    for name in REQUIRED_COLUMNS:
        found = segment.columns.get(name)
        whole = found is not None and found.kind == "text" and not bool(found.missing.any())
        if found is None or not whole or pc.index(found.cells, pa.scalar("", pa.large_string())).as_py() >= 0:
            raise GalleryError(path, f"{name} must be a text in every row, and is not", damaged)
    if segment.columns["granularity"].cells[:2].to_pylist() != [manifest.identity.granularity]:
        raise GalleryError(path, "holds rows of another granularity than the gallery's own", damaged)


def _goes_with(kind: str, stored: str) -> bool:
    return kind == stored or (kind, stored) == ("integer", "number")


def _without_damaged(folder: Path, manifest: Manifest) -> tuple[Manifest, tuple[str, ...]]:
    kept: list[SegmentEntry] = []
    notes: list[str] = []
    for entry in manifest.segments:
        try:
            segment = read_segment(folder, entry, manifest.identity.dimension)
            check_columns(folder / entry.file, manifest, segment)
            kept.append(entry)
        except FileNotFoundError:
            notes.append(f"{missing_segment(folder, entry)}; its rows were left out")
        except GalleryError as error:
            notes.append(f"{error.subject}: {error.cause}; its rows were left out")
    lost = len(kept) < len(manifest.segments)
    if lost and read_manifest(folder).segments != manifest.segments:
        raise FileNotFoundError(folder)  # they have just been replaced
    # An index that names rows which are not there would be refused: all that is left is searched.
    return replace(manifest, segments=tuple(kept), index=None if lost else manifest.index), tuple(notes)


def unknown_row(row_id: str, row_ids: list[str], subject: object) -> QueryError:
    """Return the error for a row id that is not there; it names those that look like it."""
    close = difflib.get_close_matches(str(row_id), row_ids, n=3, cutoff=0.5) if len(row_ids) < 100_000 else []
    remedy = f"did you mean {', '.join(close)}?" if close else "`mammoseek index info` says what the gallery holds"
    return QueryError(subject, f"there is no row {row_id!r}", remedy)
