"""A gallery on Milvus: what can be done with one in a folder, for more findings than one machine holds.

Milvus has no lock: let one process at a time change a gallery. Any number may ask. Questions are in
`index.milvus.query`, copies from and to folders in `index.milvus.copy`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from index import QueryError
from index.admission import Presence, check_records, check_thumbnails, check_vectors, in_stored_kinds
from index.buffering import Batch, SegmentBuffer
from index.engines import unit_length
from index.filters import parse_filter
from index.gallery import unknown_row
from index.intake import sort_rows
from index.manifest import GalleryIdentity, check_identity
from index.milvus.address import MilvusAddress, parse_address, quote
from index.milvus.collections import MilvusIndex, create_collections
from index.milvus.filter import Condition, dynamic, every, literal, translate
from index.milvus.link import MilvusLink
from index.milvus.rows import KEY, NUMBER, RECORD, ROW, VECTOR, StoredColumn, decode_record, decode_vectors
from index.milvus.store import MilvusStore
from index.precedents import Precedents, parse_precedents
from index.records import UNKNOWN, Columns, to_columns
from index.upkeep import LABEL_COLUMNS, BuildReport, RemovalReport

_LONGEST_SHOWN = 60  # characters of a cell in a message
_MOST_DISTINCT = 1_000
_CHANGED = 1.25  # a sample of so many times more or fewer rows says nothing of a gallery, see `index.precedents`


class MilvusGallery(MilvusStore):
    """A gallery on Milvus, as a context manager. Open one with `open`, or make one with `create`.

    Attributes:
        cleaned: Nothing: it is what a folder's writer swept.
    """

    cleaned: tuple[str, ...] = ()

    @classmethod
    def open(cls, address: str) -> Self:
        """Open a gallery.

        Args:
            address: See `index.milvus.address`.

        Raises:
            GalleryError: It is no address, nothing answers there, there is no gallery, or it is damaged.
        """
        link = MilvusLink(parse_address(address))
        try:
            return cls(link)
        except BaseException:
            link.close()
            raise

    @classmethod
    def create(cls, address: str, identity: GalleryIdentity, index: MilvusIndex | None = None) -> Self:
        """Make an empty gallery and open it; one that is already there with the same identity is opened as it is.

        Args:
            address: See `index.milvus.address`.
            identity: What it is bound to.
            index: How Milvus is to find neighbours; a gallery that is there keeps its own.

        Raises:
            GalleryError: The collection is something else, or a gallery of another model; or Milvus can't be reached.
        """
        link = MilvusLink(parse_address(address), create=True)
        try:
            create_collections(link, identity, index or MilvusIndex())
            gallery = cls(link)
            check_identity(gallery.folder, gallery.identity, identity)
        except BaseException:
            link.close()
            raise
        return gallery

    def close(self) -> None:
        """End the connection."""
        self.link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __len__(self) -> int:
        return self.count()

    @property
    def folder(self) -> Any:
        """Where it lies, as messages and answers say it: a folder's gallery has its folder here."""
        return self.link.address

    @property
    def address(self) -> MilvusAddress:
        """Where it lies."""
        return self.link.address

    def row(self, row_id: str, fields: Sequence[str]) -> dict[str, Any]:
        """Return fields of one row.

        Raises:
            QueryError: There is no such row.
        """
        found = self.named([row_id], fields)
        if row_id not in found:
            raise unknown_row(row_id, [], self.folder)
        return found[row_id]

    def record_of(self, row_id: str) -> dict[str, Any]:
        """Return all that is known of a row as plain values for JSON; None where unknown."""
        return decode_record(self.row(row_id, [RECORD])[RECORD], self.columns)

    def vector(self, row_id: str) -> npt.NDArray[np.float32]:
        """Return a row's vector, float32 (d,)."""
        return decode_vectors([self.row(row_id, [VECTOR])], self.identity.dimension)[0]

    def thumbnail(self, row_id: str) -> bytes | None:
        """Return the small picture of a row as PNG; None where the gallery keeps none."""
        return self.pictures([self.row(row_id, [NUMBER])[NUMBER]])[0] or None

    def distinct(self, column: StoredColumn, most: int = _MOST_DISTINCT) -> list[Any]:
        """Return the values that occur in a column, in no order, by a question for each."""
        cell, values = dynamic(column), list[Any]()
        while len(values) < most:
            others = [f"{cell} != {literal(column, value)}" for value in values]
            found = self.link.query(self._rows, str(every(f"exists {cell}", *others)), [RECORD], 1)
            if not found:
                break
            values.append(decode_record(found[0][RECORD], [column])[column.name])
        return values

    def precedents(self) -> Precedents | None:
        """Return how near the women of the gallery come to each other; None where that was not copied, or not since."""
        if self.sample is None:
            return None
        try:
            stored = parse_precedents(self.sample.encode())
        except ValueError:
            return None
        grown = len(self) / stored.rows
        fits = stored.model_digest == self.identity.model_digest and 1 / _CHANGED <= grown <= _CHANGED
        return stored if fits else None

    def info(self) -> dict[str, Any]:
        """Return what the gallery holds as plain values for JSON, as `index.upkeep.gallery_info` does for a folder.

        Every record is read for it.
        """
        women: set[str] = set()
        datasets: dict[str, int] = {}
        labels: dict[str, dict[str, int]] = {name: {} for name in LABEL_COLUMNS}
        for page in self.scan("", [KEY, RECORD]):
            women.update(row[KEY] for row in page)
            for record in (decode_record(row[RECORD], self.columns) for row in page):
                datasets[record["dataset"]] = datasets.get(record["dataset"], 0) + 1
                for name, counts in labels.items():
                    if (value := record.get(name)) is not None:
                        counts[str(value)] = counts.get(str(value), 0) + 1
        return {
            "folder": str(self.address),
            "generation": self.generation,
            "created": self.created,
            "updated": self.updated,
            "identity": asdict(self.identity),
            "rows": sum(datasets.values()),
            "women": len(women),
            "datasets": dict(sorted(datasets.items())),
            "labels": {name: dict(sorted(counts.items())) for name, counts in labels.items() if counts},
            "columns": [column.name for column in self.columns],
            "index": {"kind": self.index.kind, "build": dict(self.index.build), "search": dict(self.index.search)},
        }

    def present(self, records: pd.DataFrame) -> Presence:
        """Tell which findings are already stored, and which of those with another content.

        Args:
            records: (n rows).

        Raises:
            GalleryError: A column or a cell can't be stored, or not beside the stored ones.
        """
        if not len(records):
            return Presence(np.zeros(0, np.bool_), {})
        columns = self._fitting(records)
        row_ids = columns["row_id"].cells.tolist()
        found = self.named(row_ids, [RECORD])
        conflicts: dict[int, str] = {}
        for place, row_id in enumerate(row_ids):
            if row_id not in found:
                continue
            stored = decode_record(found[row_id][RECORD], self.columns)
            new = {name: None if column.missing[place] else column.cells[place] for name, column in columns.items()}
            differing = [name for name in dict.fromkeys([*stored, *new]) if stored.get(name) != new.get(name)]
            if differing:
                was, is_now = (_shown(values.get(differing[0])) for values in (stored, new))
                conflicts[place] = (
                    f"it is already stored with another {differing[0]} ({was}, and now {is_now}): "
                    "remove the row first, then add it again"
                )
        return Presence(np.array([row_id in found for row_id in row_ids], np.bool_), conflicts)

    def append(
        self,
        vectors: npt.NDArray[np.float32],
        records: pd.DataFrame,
        thumbnails: Sequence[bytes] | None = None,
    ) -> None:
        """Store findings.

        Args:
            vectors: float32 (n, d), unit length.
            records: (n rows), with the gallery's granularity and row ids that are not stored yet.
            thumbnails: (n,) PNG files, empty bytes where a row has none.

        Raises:
            GalleryError: Something does not fit the gallery, or Milvus can't store it. What of it was stored stands,
                and `add` goes on from there.
        """
        self.recover()
        if not len(records) and not len(vectors):
            return
        columns = self._fitting(records)
        check_vectors(vectors, (len(records), self.identity.dimension), self.folder)
        stored = self.named(columns["row_id"].cells.tolist(), [])
        check_records(columns, stored, self.identity.granularity, self.folder)
        if thumbnails is not None:
            check_thumbnails(thumbnails, len(records), self.folder)
        self.store(columns, vectors, thumbnails)

    def add(
        self,
        vectors: npt.NDArray[np.float32],
        records: pd.DataFrame,
        thumbnails: Sequence[bytes] | None = None,
    ) -> BuildReport:
        """Store the findings that are not stored yet; repeated, it adds nothing, and it goes on where it was stopped.

        Args:
            vectors: float32 (n, d), unit length.
            records: (n rows), with the gallery's granularity.
            thumbnails: (n,) PNG files, empty bytes where a row has none.

        Returns:
            What became of them; a row that is stored with another content is among the failures.

        Raises:
            GalleryError: As for `append`.
        """
        self.recover()
        presence = self.present(records)
        new = np.flatnonzero(~presence.stored)
        if len(new):
            pictures = None if thumbnails is None else [thumbnails[row] for row in new.tolist()]
            self.append(vectors[new], records.iloc[new], pictures)
        failures = tuple((str(records["row_id"].iloc[row]), text) for row, text in presence.conflicts.items())
        return BuildReport(len(new), int(presence.stored.sum()) - len(failures), failures, self.generation)

    def build(
        self,
        rows: pd.DataFrame,
        embed: Callable[[pd.DataFrame], Iterable[Batch]],
        *,
        progress: Callable[[int, int], None] | None = None,
    ) -> BuildReport:
        """Embed findings and store them as it goes, as `index.upkeep.build_gallery` does into a folder.

        Args:
            rows: The findings, with unique row ids. One that can't be stored is listed, and the others go on.
            embed: Turns findings into embedded batches. It gets those only that are not stored yet.
            progress: Called with rows done and rows in all.

        Raises:
            GalleryError: A whole column can't be stored (nothing was embedded then), or Milvus can't store the rows;
                what was stored stands.
        """
        self.recover()
        writer: Any = self  # it has what these two ask of a folder's writer
        intake, buffer = sort_rows(writer, rows), SegmentBuffer(writer)
        failures = list(intake.failures)
        done, added = intake.already_there + len(failures), 0
        for batch in embed(intake.new) if len(intake.new) else ():
            if progress is not None:
                progress(done, len(rows))
            usable = unit_length(batch.vectors)
            failures += batch.failures
            failures += [
                (str(row_id), "the model returned a vector that is not of length 1")
                for row_id in batch.records["row_id"][~usable]
            ]
            added += buffer.add(batch, np.flatnonzero(usable))
            done += len(batch.records) + len(batch.failures)
        added += buffer.flush()
        if progress is not None:
            progress(done, len(rows))
        return BuildReport(added, intake.already_there, tuple(failures), self.generation)

    def remove(
        self,
        *,
        patient: str | None = None,
        dataset: str | None = None,
        study: str | None = None,
        where: str | None = None,
        row_ids: Sequence[str] = (),
    ) -> RemovalReport:
        """Take findings out, and ask back for them. A row goes if it meets every condition that is given.

        No question finds them afterwards. Milvus marks them as deleted and rewrites its files when it sees fit;
        `rewrite` does it at once.

        Args:
            patient: Its woman's id.
            dataset: Its data set.
            study: Its examination's id.
            where: A filter, see `index.filters`.
            row_ids: Its row id is one of these; any, where there are none.

        Raises:
            QueryError: No condition, a filter that can't be read, no such row, or no row that meets all.
            GalleryError: Milvus can't delete them, or still has one afterwards.
        """
        asked = {"patient": patient, "data set": dataset, "study": study, "filter": where}
        told = {
            name: value for name, value in {**asked, "rows": ", ".join(row_ids) or None}.items() if value is not None
        }
        if not told:
            raise QueryError(self.folder, "nothing says what to remove", "name a patient, a data set, rows or a filter")
        self.recover()
        condition = every(
            self._holds("patient_id", patient), self._holds("dataset", dataset), self._holds("study_id", study),
            True if where is None else translate(parse_filter(where), self.by_name),
        )  # fmt: skip
        named = self.named(sorted(set(row_ids)), [])
        for row_id in sorted(set(row_ids) - named.keys()):
            raise unknown_row(row_id, [], self.folder)
        doomed = []
        if condition is not False:
            everything = self.meeting("" if condition is True else str(condition), [ROW, KEY])
            doomed = [row for row in everything if not named or row[ROW] in named]
        if not doomed:
            what = " and ".join(f"{name} {value!r}" for name, value in told.items())
            remedy = "`mammoseek index info` says what the gallery holds"
            raise QueryError(self.folder, f"no row matches {what}; nothing was removed", remedy)
        self.delete(doomed)
        women = len({row[KEY] for row in doomed})
        return RemovalReport(len(doomed), len(self), women, tuple(row[ROW] for row in doomed), self.generation)

    def _holds(self, name: str, text: str | None) -> Condition:
        if text is None:
            return True
        column = self.by_name.get(name)
        return False if column is None else f"{dynamic(column)} == {quote(text)}"

    def _fitting(self, records: pd.DataFrame) -> Columns:
        kinds = {column.name: column.kind if column.known else UNKNOWN for column in self.columns}
        return in_stored_kinds(to_columns(records, self.folder), kinds, self.folder)


def _shown(value: object) -> str:
    if value is None:
        return "nothing"
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"
