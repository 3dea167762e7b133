"""A gallery as its readers see it: one generation, whole and checked, which no writer can change for them."""

import difflib
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from index import GalleryError, QueryError
from index.cache import load_engine, offer_engine
from index.durable import storage_error
from index.engines import ExactEngine
from index.manifest import GalleryIdentity, Manifest, SegmentEntry, read_manifest
from index.records import check_required, clashing_column, fold_name, patient_keys, to_frame
from index.segments import Segment, decode_segment, digest

_ATTEMPTS = 5


def read_segment(folder: Path, entry: SegmentEntry, dimension: int, *, thumbnails: bool = False) -> Segment:
    """Read one segment and check its digest.

    Raises:
        FileNotFoundError: It is not there, perhaps because a removal has just replaced it.
        GalleryError: It is damaged, or can't be read.
    """
    path = folder / entry.file
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise storage_error(path, error) from error
    if len(data) != entry.bytes or digest(data) != entry.sha256:
        raise GalleryError(
            path,
            f"the segment is damaged: its digest is not the one it was written with ({entry.rows} rows)",
            "restore it from a copy, or build the gallery again",
        )
    return decode_segment(data, rows=entry.rows, dimension=dimension, subject=path, thumbnails=thumbnails)


def missing_segment(folder: Path, entry: SegmentEntry) -> GalleryError:
    """Return the error for a segment that is named and not there."""
    return GalleryError(
        folder / entry.file,
        f"the segment is missing ({entry.rows} rows)",
        "restore it from a copy, or build the gallery again",
    )


class Gallery:
    """One generation of a gallery, in memory.

    Open one with `Gallery.open`. What a writer does afterwards does not reach it: open it anew to see that.

    Attributes:
        folder: Where it lies.
        manifest: What the generation consists of.
        vectors: float32 (n, d), unit length, read-only.
        records: (n rows) what is known of each finding.
        row_ids: (n,) objects of str.
        patient_keys: (n,) each row's woman as "dataset/patient_id".
    """

    def __init__(self, folder: Path, manifest: Manifest, segments: list[Segment]) -> None:
        self.folder = folder
        self.manifest = manifest
        columns = [segment.columns for segment in segments]
        for entry, part in zip(manifest.segments, columns, strict=True):
            check_required(part, folder / entry.file)
        if (name := clashing_column(columns)) is not None:
            raise GalleryError(folder, f"the column {name} is of different kinds in two segments", "build it again")
        self.records: pd.DataFrame = to_frame([(segment.rows, segment.columns) for segment in segments])
        empty = np.empty((0, manifest.identity.dimension), np.float32)
        self.vectors: npt.NDArray[np.float32] = np.concatenate([empty, *(segment.vectors for segment in segments)])
        self.vectors.flags.writeable = False
        self.row_ids: npt.NDArray[np.object_] = self.records["row_id"].to_numpy(dtype=object)
        self.patient_keys: npt.NDArray[np.object_] = patient_keys(self.records)
        self._positions = {row_id: position for position, row_id in enumerate(self.row_ids)}
        if len(self._positions) != len(self.row_ids):
            raise GalleryError(folder, "two rows have the same row id", "build the gallery again")
        granularities = set(self.records["granularity"])
        if granularities - {manifest.identity.granularity}:
            raise GalleryError(folder, "holds rows of another granularity than its own", "build the gallery again")

    @classmethod
    def open(cls, folder: Path) -> "Gallery":
        """Read the generation that stands, checking every digest on the way.

        Raises:
            GalleryError: There is no gallery, or it is damaged.
        """
        folder = Path(folder)
        manifest = read_manifest(folder)
        for _ in range(_ATTEMPTS):
            try:
                dimension = manifest.identity.dimension
                return cls(folder, manifest, [read_segment(folder, entry, dimension) for entry in manifest.segments])
            except FileNotFoundError as error:
                # A removal may have replaced segments between reading the manifest and reading them.
                latest = read_manifest(folder)
                if latest.segments == manifest.segments:
                    gone = next((e for e in manifest.segments if not (folder / e.file).exists()), manifest.segments[0])
                    raise missing_segment(folder, gone) from error
                manifest = latest
        raise GalleryError(folder, "is being changed all the time", "try again when its writer has finished")

    def __len__(self) -> int:
        return len(self.row_ids)

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

    def position(self, row_id: str) -> int:
        """Return where a row stands.

        Raises:
            QueryError: There is no such row.
        """
        try:
            return self._positions[row_id]
        except KeyError as error:
            raise unknown_row(row_id, list(self._positions), self.folder) from error

    def thumbnail(self, row_id: str) -> bytes | None:
        """Return the small picture of a row as PNG; None where the gallery keeps none.

        Raises:
            QueryError: There is no such row.
            GalleryError: The gallery has changed since it was opened, or is damaged.
        """
        position = self.position(row_id)
        for entry in self.manifest.segments:
            if position < entry.rows:
                pictures = self._pictures(entry)
                return (pictures[position] or None) if pictures is not None else None
            position -= entry.rows
        raise AssertionError("every position lies in a segment")

    def record(self, position: int) -> dict[str, Any]:
        """Return all that is known of a row as plain values for JSON; None where unknown."""
        return {name: cells[position] for name, cells in self._plain_columns.items()}

    @cached_property
    def folded_women(self) -> npt.NDArray[np.object_]:
        """(n,) each row's woman as "dataset/patient_id", without letter case and white space around the two names."""
        parts = zip(self.folded_datasets, self.records["patient_id"], strict=True)
        return np.array([f"{dataset}/{fold_name(patient)}" for dataset, patient in parts], dtype=object)

    @cached_property
    def folded_datasets(self) -> npt.NDArray[np.object_]:
        """(n,) each row's data set, without letter case and white space around it."""
        return np.array([fold_name(dataset) for dataset in self.records["dataset"]], dtype=object)

    @cached_property
    def index(self) -> ExactEngine:
        """The search engine, from the cache where its digest matches, else made from the vectors."""
        engine = load_engine(self.folder, self.manifest, self.vectors, self.row_ids)
        if engine is None:
            engine = ExactEngine(self.vectors, self.row_ids)
            if len(self):
                offer_engine(self.folder, self.manifest.segments_digest, engine)
        return engine

    def _pictures(self, entry: SegmentEntry) -> tuple[bytes, ...] | None:
        if entry.file not in self._read_pictures:
            try:
                segment = read_segment(self.folder, entry, self.identity.dimension, thumbnails=True)
            except FileNotFoundError as error:
                raise GalleryError(self.folder, "has changed since it was opened", "open it again") from error
            self._read_pictures[entry.file] = segment.thumbnails
        return self._read_pictures[entry.file]

    @cached_property
    def _read_pictures(self) -> dict[str, tuple[bytes, ...] | None]:
        return {}

    @cached_property
    def _plain_columns(self) -> dict[str, list[Any]]:
        columns = {}
        for name in self.records.columns:
            cells = self.records[name]
            columns[name] = cells.astype(object).where(cells.notna(), None).tolist()
        return columns


def unknown_row(row_id: str, row_ids: list[str], subject: object) -> QueryError:
    """Return the error for a row id that is not there; it names those that look like it."""
    close = difflib.get_close_matches(str(row_id), row_ids, n=3, cutoff=0.5)
    remedy = f"did you mean {', '.join(close)}?" if close else "`mammoseek index info` says what the gallery holds"
    return QueryError(subject, f"there is no row {row_id!r}", remedy)
