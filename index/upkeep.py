"""Looking after a gallery: fill it, take findings out of it, say what it holds, check all of it."""

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from index import GalleryError, QueryError
from index.buffering import Batch, SegmentBuffer
from index.engines import EngineConfig, unit_length
from index.filters import parse_filter
from index.gallery import Gallery
from index.indexing import refresh_index
from index.intake import sort_rows
from index.layout import DENSE_FILE, MANIFEST_NAME, is_unfinished, stray_files
from index.manifest import FileEntry, GalleryIdentity, Manifest, SegmentEntry, read_manifest
from index.reading import missing_segment, read_file, read_segment
from index.records import fold_name
from index.segments import keys_of
from index.writer import GalleryWriter, create_gallery

_ROWS = 4096  # vectors looked at together

LABEL_COLUMNS = (
    "lesion_type", "pathology", "density", "shape", "margin", "calcification_type",
    "calcification_distribution", "assessment", "subtlety", "laterality", "view", "split",
)  # fmt: skip


@dataclass(frozen=True)
class BuildReport:
    """What became of some findings.

    Attributes:
        added: Rows that are stored now.
        already_there: Rows that were stored before, and were left as they are.
        failures: Row id and message of each row that could not be embedded or stored; one that is stored with another
            content is among them.
        generation: The gallery's generation afterwards.
        cleaned: Files that a killed writer had left, deleted.
        notes: What else is to be known.
    """

    added: int
    already_there: int
    failures: tuple[tuple[str, str], ...]
    generation: int
    cleaned: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class RemovalReport:
    """What was taken out of a gallery.

    Attributes:
        removed: How many rows.
        remaining: How many rows the gallery still holds.
        women: How many women the removed rows were of.
        row_ids: Which rows.
        generation: The gallery's generation afterwards.
        cleaned: Files that a killed writer had left, deleted.
    """

    removed: int
    remaining: int
    women: int
    row_ids: tuple[str, ...]
    generation: int
    cleaned: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain values for JSON."""
        return {**asdict(self), "row_ids": list(self.row_ids), "cleaned": list(self.cleaned)}


FileState = Literal["good", "damaged", "missing", "unfinished", "stray"]


@dataclass(frozen=True)
class FileReport:
    """What a check says of one file.

    Attributes:
        file: Its name within the gallery.
        state: `good`; `damaged` or `missing`; `unfinished` (left by a killed writer: the next one deletes it); `stray`
            (not of mammoseek's making).
        rows: How many findings it holds, or held.
        row_ids: Which rows were lost with it, as far as that can still be read.
        problem: What is wrong; empty where nothing is.
    """

    file: str
    state: FileState
    rows: int
    problem: str = ""
    row_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class VerifyReport:
    """What a check of every digest found.

    Attributes:
        files: Every file of the gallery.
    """

    files: tuple[FileReport, ...]

    @property
    def damaged(self) -> tuple[FileReport, ...]:
        """Files that are not as they were written."""
        return tuple(file for file in self.files if file.state in ("damaged", "missing"))

    @property
    def strays(self) -> tuple[FileReport, ...]:
        """Files that belong to no generation."""
        return tuple(file for file in self.files if file.state in ("unfinished", "stray"))

    @property
    def ok(self) -> bool:
        """Whether nothing is damaged."""
        return not self.damaged

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain values for JSON."""
        return {"ok": self.ok, "files": [asdict(file) for file in self.files]}


def build_gallery(
    folder: Path,
    identity: GalleryIdentity,
    rows: pd.DataFrame,
    embed: Callable[[pd.DataFrame], Iterable[Batch]],
    *,
    engine: Mapping[str, Any] | None = None,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> BuildReport:
    """Embed findings and store them, committing as it goes; a build that was stopped goes on where it was.

    Args:
        folder: The gallery, made where it is not there.
        identity: What the vectors are made with.
        rows: The findings, with unique row ids. One that can't be stored is listed, and the others go on.
        embed: Turns findings into embedded batches. It gets those only that are not stored yet.
        engine: Fields of `index.engines.EngineConfig` that are wanted from now on.
        device: Where an index is built.
        progress: Called with rows done and rows in all.

    Raises:
        GalleryError: It is another model's gallery, a whole column can't be stored (nothing was embedded then), or it
            can't be written; what was committed stands.
    """
    create_gallery(folder, identity)
    added = 0
    with GalleryWriter(folder) as writer:
        intake = sort_rows(writer, rows)
        failures = list(intake.failures)
        done = intake.already_there + len(failures)
        if progress is not None:
            progress(done, len(rows))
        buffer = SegmentBuffer(writer)
        for batch in embed(intake.new) if len(intake.new) else ():
            usable = unit_length(batch.vectors)
            failures += batch.failures
            failures += [
                (str(row_id), "the model returned a vector that is not of length 1")
                for row_id in batch.records["row_id"][~usable]
            ]
            if stored := buffer.add(batch, np.flatnonzero(usable)):
                added += stored
                writer.compact_when_many()
            done += len(batch.records) + len(batch.failures)
            if progress is not None:
                progress(done, len(rows))
        added += buffer.flush()
        writer.compact_when_many()
        notes: tuple[str, ...] = ()
        try:
            refresh_index(writer, engine or {}, device=device)
        except GalleryError as error:
            # The index can be made again at any time: all rows are stored, and are searched without it.
            notes = (f"the rows are stored, but the index could not be made: {error}",)
        return BuildReport(added, intake.already_there, tuple(failures), writer.generation, writer.cleaned, notes)


def remove_rows(
    folder: Path,
    *,
    patient: str | None = None,
    dataset: str | None = None,
    study: str | None = None,
    where: str | None = None,
    row_ids: Sequence[str] = (),
) -> RemovalReport:
    """Take findings out of a gallery, so that nothing of them is left in its files.

    A row goes if it meets every condition that is given.

    Args:
        folder: The gallery.
        patient: Its woman's id.
        dataset: Its data set.
        study: Its examination's id.
        where: A filter, see `index.filters`.
        row_ids: Its row id is one of these; any, where there are none.

    Raises:
        QueryError: No condition, a filter that can't be read, no such row, or no row that meets all: who asks for a
            deletion must not take a slip of the pen for one that was done.
        GalleryError: The gallery can't be written or is damaged, or something was left.
    """
    folder = Path(folder)
    reasons = {"patient": patient, "data set": dataset, "study": study, "filter": where, "rows": row_ids or None}
    named = [name for name, value in reasons.items() if value is not None]
    if not named:
        raise QueryError(folder, "nothing says what to remove", "name a patient, a data set, a study, rows or a filter")
    condition = None if where is None else parse_filter(where)
    with GalleryWriter(folder) as writer:
        gallery = Gallery.open(folder, checked=False)
        doomed = np.ones(len(gallery), np.bool_)
        for column, value in (("patient_id", patient), ("dataset", dataset), ("study_id", study)):
            if value is not None:
                chosen = np.zeros(len(gallery), np.bool_)
                chosen[gallery.table.find(column, value)] = True
                doomed &= chosen
        if condition is not None:
            doomed &= condition.mask(gallery.table)
        if row_ids:
            chosen = np.zeros(len(gallery), np.bool_)
            chosen[[gallery.position(row_id) for row_id in row_ids]] = True
            doomed &= chosen
        if not doomed.any():
            told = " and ".join(
                f"{name} {', '.join(value) if isinstance(value, list | tuple) else value!r}"
                for name, value in reasons.items()
                if value is not None
            )
            raise QueryError(
                folder, f"no row matches {told}; nothing was removed", _spelling(gallery, patient, dataset)
            )
        removed = writer.remove(doomed, reason=" and ".join(named))
        with contextlib.suppress(GalleryError):
            refresh_index(writer, {})
        return RemovalReport(
            removed,
            len(gallery) - removed,
            len(np.unique(gallery.women[doomed])),
            tuple(gallery.names_of(np.flatnonzero(doomed))),
            writer.generation,
            writer.cleaned,
        )


def _spelling(gallery: Gallery, patient: str | None, dataset: str | None) -> str:
    """Return what to do about a name that no row has."""
    for name, column in ((dataset, "dataset"), (patient, "patient_id")):
        stored = gallery.table.column(column).distinct if len(gallery) and name is not None else ()
        alike = sorted(other for other in stored if other != name and fold_name(other) == fold_name(str(name)))
        if alike:
            return f"did you mean {' or '.join(alike)}?"
    return "`mammoseek index info` says what the gallery holds"


def gallery_info(folder: Path) -> dict[str, Any]:
    """Return what a gallery holds as plain values for JSON.

    Label counts leave out rows in which the label is missing.

    Raises:
        GalleryError: There is no gallery, or it is damaged.
    """
    gallery = Gallery.open(folder, checked=False)
    table, manifest = gallery.table, gallery.manifest
    labels = {name: _counts(gallery, name) for name in LABEL_COLUMNS if name in table and table.column(name).known}
    index = manifest.index
    return {
        "folder": str(gallery.folder),
        "generation": gallery.generation,
        "created": gallery.created,
        "updated": gallery.updated,
        "identity": asdict(gallery.identity),
        "rows": len(gallery),
        "women": int(gallery.women.max()) + 1 if len(gallery) else 0,
        "datasets": _counts(gallery, "dataset") if len(gallery) else {},
        "labels": labels,
        "columns": table.names,
        "segments": len(manifest.segments),
        "segments_digest": manifest.segments_digest,
        "bytes": sum(entry.bytes for entry in manifest.entries),
        "engine": dict(EngineConfig.from_dict(manifest.engine).to_dict()),
        "index": {"engine": "exact", "recall": 1.0} if index is None else dict(index.description),
        "rows_beside_index": 0 if index is None else int((gallery.numbers >= index.until).sum()),
    }


def _counts(gallery: Gallery, name: str) -> dict[str, int]:
    """Return how many rows have each value of a column, missing ones left out."""
    column = gallery.table.column(name)
    if column.codes is not None:
        counts = np.bincount(column.codes[column.codes >= 0], minlength=len(column.distinct))
        found = {str(value): int(count) for value, count in zip(column.distinct, counts, strict=True) if count}
    else:
        values, counts = np.unique(column.cells[~column.missing], return_counts=True)
        found = {str(value): int(count) for value, count in zip(values, counts, strict=True)}
    return dict(sorted(found.items()))


def verify_gallery(folder: Path) -> VerifyReport:
    """Read every file of a gallery and compare its digest.

    Raises:
        GalleryError: There is no gallery.
    """
    folder = Path(folder)
    try:
        manifest = read_manifest(folder)
        report = _verify(folder, manifest)
        # A writer may have replaced files on the way: then it is another gallery that is to be verified.
        while not report.ok and (latest := read_manifest(folder)) != manifest:
            manifest = latest
            report = _verify(folder, manifest)
    except GalleryError as error:
        if not (folder / MANIFEST_NAME).exists():
            raise
        return VerifyReport((FileReport(MANIFEST_NAME, "damaged", 0, error.cause),))
    return report


def _verify(folder: Path, manifest: Manifest) -> VerifyReport:
    files = [report for entry in manifest.segments for report in _verify_segment(folder, entry, manifest)]
    problem = ""
    if all(file.state == "good" for file in files):
        try:
            # What no single file shows: two rows of one name, columns that clash.
            gallery = Gallery.open(folder, checked=False)
            names, counts = np.unique(gallery.row_ids, return_counts=True)
            if (counts > 1).any():
                problem = f"two rows have the row id {names[np.argmax(counts > 1)]}"
        except GalleryError as error:
            problem = error.cause
    files.insert(0, FileReport(MANIFEST_NAME, "damaged" if problem else "good", 0, problem))
    if manifest.index is not None:
        rows = sum(entry.rows for entry in manifest.segments if entry.last < manifest.index.until)
        remedy = "every vector is searched until `mammoseek index rebuild` makes it again"
        files.append(_verify_file(folder, manifest.index.cache, rows, remedy))
    if manifest.precedents is not None:
        files.append(_verify_file(folder, manifest.precedents, 0, "`mammoseek index rebuild` makes it again"))
    for name in stray_files(folder, manifest):
        if DENSE_FILE.fullmatch(name):
            files.append(FileReport(name, "good", 0, "a cache of `mammoseek detect`, which checks it"))
        elif is_unfinished(name):
            files.append(FileReport(name, "unfinished", 0, "a writer left it behind: the next one deletes it"))
        else:
            files.append(FileReport(name, "stray", 0, "it is not of mammoseek's making"))
    return VerifyReport(tuple(files))


def _verify_segment(folder: Path, entry: SegmentEntry, manifest: Manifest) -> list[FileReport]:
    dimension = manifest.identity.dimension
    reports = []
    try:
        segment = read_segment(folder, entry, dimension)
        if not all(unit_length(segment.vectors[row : row + _ROWS]).all() for row in range(0, entry.rows, _ROWS)):
            raise GalleryError(folder / entry.file, "the segment is damaged: a vector is not of length 1")
        reports.append(FileReport(entry.file, "good", entry.rows))
        row_ids = segment.columns["row_id"].cells.to_pylist() if "row_id" in segment.columns else []
        keys = _verify_file(folder, entry.keys, 0, "it is made again when its segment is written anew")
        if keys.state == "good" and np.sort(keys_of(row_ids)).astype("<u8").tobytes() != read_file(folder, entry.keys):
            keys = FileReport(entry.keys.file, "damaged", 0, "it is not of this segment's rows")
        reports.append(keys)
    except FileNotFoundError:
        reports.append(FileReport(entry.file, "missing", entry.rows, missing_segment(folder, entry).cause))
    except GalleryError as error:
        row_ids = ()
        # Where only the vectors are damaged, the records can still say whose they were.
        with contextlib.suppress(GalleryError, FileNotFoundError, KeyError):
            columns = read_segment(folder, entry, dimension, checked=False).columns
            row_ids = tuple(columns["row_id"].cells.to_pylist())
        reports.append(FileReport(entry.file, "damaged", entry.rows, error.cause, row_ids))
    if entry.pictures is not None:
        reports.append(
            _verify_file(folder, entry.pictures, 0, "the pictures can't be shown; vectors and records stand")
        )
    return reports


def _verify_file(folder: Path, entry: FileEntry, rows: int, consequence: str) -> FileReport:
    try:
        read_file(folder, entry)
    except FileNotFoundError:
        return FileReport(entry.file, "missing", rows, f"it is missing; {consequence}")
    except GalleryError as error:
        return FileReport(entry.file, "damaged", rows, f"{error.cause}; {consequence}")
    return FileReport(entry.file, "good", rows)
