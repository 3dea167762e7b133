"""Looking after a gallery: fill it, take findings out of it, say what it holds, check all of it."""

import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from index import GalleryError, QueryError
from index.buffering import Batch, SegmentBuffer
from index.cache import cache_state
from index.engines import unit_length
from index.filters import parse_filter
from index.gallery import Gallery, missing_segment, read_segment
from index.intake import sort_rows
from index.layout import is_unfinished, stray_files
from index.manifest import MANIFEST_NAME, GalleryIdentity, SegmentEntry, read_manifest
from index.records import fold_name
from index.writer import GalleryWriter, create_gallery

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
    """

    added: int
    already_there: int
    failures: tuple[tuple[str, str], ...]
    generation: int
    cleaned: tuple[str, ...] = ()


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


FileState = Literal["good", "damaged", "missing", "stale", "unfinished", "stray"]


@dataclass(frozen=True)
class FileReport:
    """What a check says of one file.

    Attributes:
        file: Its name within the gallery.
        state: `good`; `damaged` or `missing`; `stale` (a cache of other contents); `unfinished` (left by a
            killed writer: the next one deletes it); `stray` (not of mammoseek's making).
        rows: How many findings it holds, or held.
        problem: What is wrong; empty where nothing is.
    """

    file: str
    state: FileState
    rows: int
    problem: str = ""


@dataclass(frozen=True)
class VerifyReport:
    """What a check of every digest found.

    Attributes:
        files: Every file of the gallery.
    """

    files: tuple[FileReport, ...]

    @property
    def damaged(self) -> tuple[FileReport, ...]:
        """Files that are not as they were written. A damaged cache is made again by the next query."""
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
    progress: Callable[[int, int], None] | None = None,
) -> BuildReport:
    """Embed findings and store them, committing as it goes; a build that was stopped goes on where it was.

    Args:
        folder: The gallery, made where it is not there.
        identity: What the vectors are made with.
        rows: The findings, with unique row ids. One that can't be stored is listed, and the others go on.
        embed: Turns findings into embedded batches. It gets those only that are not stored yet.
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
            added += buffer.add(batch, np.flatnonzero(usable))
            done += len(batch.records) + len(batch.failures)
            if progress is not None:
                progress(done, len(rows))
        added += buffer.flush()
        # The cache can be made again at any time: no room for it is no reason to fail.
        with contextlib.suppress(GalleryError):
            if cache_state(writer.folder, read_manifest(writer.folder)) != "good":
                writer.rebuild_cache()
        return BuildReport(added, intake.already_there, tuple(failures), writer.generation, writer.cleaned)


def remove_rows(
    folder: Path,
    *,
    patient: str | None = None,
    dataset: str | None = None,
    where: str | None = None,
    row_ids: Sequence[str] = (),
) -> RemovalReport:
    """Take findings out of a gallery, so that nothing of them is left in its files.

    A row goes if it meets every condition that is given.

    Args:
        folder: The gallery.
        patient: Its woman's id.
        dataset: Its data set.
        where: A filter, see `index.filters`.
        row_ids: Its row id is one of these; any, where there are none.

    Raises:
        QueryError: No condition, a filter that can't be read, no such row, or no row that meets all: who asks for a
            deletion must not take a slip of the pen for one that was done.
        GalleryError: The gallery can't be written or is damaged, or something was left.
    """
    folder = Path(folder)
    if patient is None and dataset is None and where is None and not row_ids:
        raise QueryError(folder, "nothing says what to remove", "name a patient, a data set, rows or a filter")
    condition = None if where is None else parse_filter(where)
    with GalleryWriter(folder) as writer:
        gallery = Gallery.open(folder)
        doomed = np.ones(len(gallery), np.bool_)
        for column, value in (("patient_id", patient), ("dataset", dataset)):
            if value is not None:
                doomed &= gallery.records[column].to_numpy(dtype=object) == value
        if condition is not None:
            doomed &= condition.mask(gallery.records)
        if row_ids:
            chosen = np.zeros(len(gallery), np.bool_)
            chosen[[gallery.position(row_id) for row_id in row_ids]] = True
            doomed &= chosen
        if not doomed.any():
            conditions = {"patient": patient, "data set": dataset, "filter": where, "rows": ", ".join(row_ids) or None}
            told = " and ".join(f"{name} {value!r}" for name, value in conditions.items() if value is not None)
            raise QueryError(
                folder, f"no row matches {told}; nothing was removed", _spelling(gallery, patient, dataset)
            )
        removed = writer.remove(doomed)
        with contextlib.suppress(GalleryError):
            writer.rebuild_cache()
        return RemovalReport(
            removed,
            len(gallery) - removed,
            len(set(gallery.patient_keys[doomed])),
            tuple(gallery.row_ids[doomed]),
            writer.generation,
            writer.cleaned,
        )


def _spelling(gallery: Gallery, patient: str | None, dataset: str | None) -> str:
    """Return what to do about a name that no row has."""
    for name, stored in ((dataset, gallery.records["dataset"]), (patient, gallery.records["patient_id"])):
        alike = sorted({other for other in stored if name not in (None, other) and fold_name(other) == fold_name(name)})
        if alike:
            return f"did you mean {' or '.join(alike)}?"
    return "`mammoseek index info` says what the gallery holds"


def gallery_info(folder: Path) -> dict[str, Any]:
    """Return what a gallery holds as plain values for JSON.

    Label counts leave out rows in which the label is missing.

    Raises:
        GalleryError: There is no gallery, or it is damaged.
    """
    gallery = Gallery.open(folder)
    records = gallery.records
    labels = {}
    for name in LABEL_COLUMNS:
        if name in records.columns and records[name].notna().any():
            counts = records[name].dropna().astype(str).value_counts()
            labels[name] = {value: int(counts[value]) for value in sorted(counts.index)}
    datasets = records["dataset"].value_counts()
    manifest = gallery.manifest
    return {
        "folder": str(gallery.folder),
        "generation": gallery.generation,
        "created": gallery.created,
        "updated": gallery.updated,
        "identity": asdict(gallery.identity),
        "rows": len(gallery),
        "women": len(set(gallery.patient_keys)),
        "datasets": {name: int(datasets[name]) for name in sorted(datasets.index)},
        "labels": labels,
        "columns": list(records.columns),
        "segments": len(manifest.segments),
        "segments_digest": manifest.segments_digest,
        "bytes": sum(entry.bytes for entry in manifest.segments),
        "cache": cache_state(gallery.folder, manifest),
    }


def verify_gallery(folder: Path) -> VerifyReport:
    """Read every file of a gallery and compare its digest.

    Raises:
        GalleryError: There is no gallery.
    """
    folder = Path(folder)
    try:
        manifest = read_manifest(folder)
    except GalleryError as error:
        if not (folder / MANIFEST_NAME).exists():
            raise
        return VerifyReport((FileReport(MANIFEST_NAME, "damaged", 0, error.cause),))
    files = [_verify_segment(folder, entry, manifest.identity.dimension) for entry in manifest.segments]
    problem = ""
    if all(file.state == "good" for file in files):
        try:
            # What no single file shows: two rows of one name, columns that clash.
            Gallery.open(folder)
        except GalleryError as error:
            problem = error.cause
    files.insert(0, FileReport(MANIFEST_NAME, "damaged" if problem else "good", 0, problem))
    state = cache_state(folder, manifest)
    if manifest.cache is not None and state != "none":
        problem = "" if state == "good" else f"the index cache is {state}: the next query makes it again"
        files.append(FileReport(manifest.cache.file, state, 0, problem))
    for name in stray_files(folder, manifest):
        if is_unfinished(name):
            files.append(FileReport(name, "unfinished", 0, "a writer left it behind: the next one deletes it"))
        else:
            files.append(FileReport(name, "stray", 0, "it is not of mammoseek's making"))
    return VerifyReport(tuple(files))


def _verify_segment(folder: Path, entry: SegmentEntry, dimension: int) -> FileReport:
    try:
        read_segment(folder, entry, dimension, thumbnails=True)
    except FileNotFoundError:
        return FileReport(entry.file, "missing", entry.rows, missing_segment(folder, entry).cause)
    except GalleryError as error:
        return FileReport(entry.file, "damaged", entry.rows, error.cause)
    return FileReport(entry.file, "good", entry.rows)
