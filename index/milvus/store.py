"""A gallery's rows, pictures and state on Milvus, and the steps in which they change.

Milvus has no transactions, so the order of the steps keeps a gallery whole: an operation that was stopped leaves rows
that are complete, and its repetition goes on.
"""

import base64
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from index import GalleryError
from index.manifest import GalleryIdentity, now
from index.milvus.address import among
from index.milvus.collections import (
    MILVUS_FORMAT,
    NAME,
    TINY,
    VALUE,
    MilvusIndex,
    about_collection,
    create_rows,
    create_side,
    pictures_collection,
    read_values,
    rows_collection,
    write_values,
)
from index.milvus.link import MOST_RESULTS, MilvusLink, no_gallery
from index.milvus.rows import (
    KEY,
    NUMBER,
    RECORD,
    ROW,
    VECTOR,
    StoredColumn,
    batches,
    encode_row,
    encode_rows,
    merge_columns,
)
from index.records import Columns

_PICTURE_PART = 60_000  # characters of base64
_IDS_AT_ONCE = 1_000
_PICTURES_AT_ONCE = 32
_ANSWER_BYTES = 48 << 20  # Milvus's own limit for an answer is 64 MB
_RECORD_BYTES = 1_500  # of a row's record and names, ordinarily

Row = dict[str, Any]


class MilvusStore:
    """The collections of one gallery.

    Args:
        link: The connection.

    Attributes:
        link: The connection.
        identity: What the gallery is bound to.
        index: How Milvus finds neighbours.
        columns: Its columns in order.
        created: When it was made, ISO 8601 in UTC.
        updated: When it last changed.
        generation: Counts its changes.
        sample: How near its women come to each other, see `index.precedents`; None where that is not known.

    Raises:
        GalleryError: There is no gallery, or it is damaged.
    """

    def __init__(self, link: MilvusLink) -> None:
        self.link = link
        if not link.has(about_collection(link.address)):
            raise no_gallery(link.address)
        link.load(about_collection(link.address))
        self._edition = -1
        self.refresh()

    def refresh(self) -> None:
        """Take note of what another process has changed.

        Raises:
            GalleryError: The gallery is damaged, or a newer mammoseek made it.
        """
        address = self.link.address
        damaged = GalleryError(address, "is damaged: what it is bound to can't be read", "build it again")
        try:
            values = read_values(self.link)
            if not values:
                raise no_gallery(address)
            about = values["identity"]
            if about["format"] > MILVUS_FORMAT:
                known = f"this mammoseek knows formats up to {MILVUS_FORMAT}"
                raise GalleryError(address, f"has format {about['format']}, and {known}", "update mammoseek")
            self.identity = GalleryIdentity(**about["identity"])
            self.index = MilvusIndex(**about["index"])
            self.created = str(about["created"])
            columns = [StoredColumn(**value) for name, value in values.items() if name.startswith("column ")]
            self.columns = sorted(columns, key=lambda column: (column.order, column.name))
            self.sample: str | None = values.get("precedents")
            self._take_state(values["state"])
        except (KeyError, TypeError, ValueError) as error:
            raise damaged from error

    def _take_state(self, state: dict[str, Any]) -> None:
        edition = int(state["edition"])
        if edition != self._edition:
            self._open_edition(edition)
        self._state = state
        self._next = int(state["next_number"])
        self.generation = int(state["generation"])
        self.updated = str(state["updated"])

    def _open_edition(self, edition: int) -> None:
        address = self.link.address
        self._rows, self._pictures = rows_collection(address, edition), pictures_collection(address, edition)
        if not self.link.has(self._rows):
            raise GalleryError(address, "is damaged: its rows are not there", "build it again")
        fields = {found["name"]: found for found in self.link.describe(self._rows)["fields"]}
        if int(fields[VECTOR]["params"]["dim"]) != self.identity.dimension:
            raise GalleryError(address, "is damaged: its vectors are of another length", "build it again")
        self.link.load(self._rows)
        self._has_pictures = self.link.has(self._pictures)
        if self._has_pictures:
            self.link.load(self._pictures)
        self._edition = edition

    @property
    def by_name(self) -> dict[str, StoredColumn]:
        """Its columns by name."""
        return {column.name: column for column in self.columns}

    # ------------------------------------------------------------------------------------------- reading

    @property
    def most(self) -> int:
        """How many rows, with their vectors, Milvus returns at most to one question."""
        return min(MOST_RESULTS, _ANSWER_BYTES // (4 * self.identity.dimension + _RECORD_BYTES))

    def count(self, condition: str = "") -> int:
        """Return how many rows meet a condition."""
        return self.link.count(self._rows, condition)

    def named(self, row_ids: Sequence[str], fields: Sequence[str]) -> dict[str, Row]:
        """Return fields of some rows by row id; a row that is not stored is left out."""
        found: dict[str, Row] = {}
        for start in range(0, len(row_ids), _IDS_AT_ONCE):
            part = row_ids[start : start + _IDS_AT_ONCE]
            found |= {row[ROW]: row for row in self.link.query(self._rows, among(ROW, part), [ROW, *fields])}
        return found

    def meeting(self, condition: str, fields: Sequence[str]) -> list[Row]:
        """Return fields of all rows that meet a condition, in the gallery's order."""
        found = self.link.query(self._rows, condition, [*fields, NUMBER])
        if len(found) < MOST_RESULTS:
            return sorted(found, key=lambda row: row[NUMBER])
        return [row for page in self.scan(condition, fields) for row in page]

    def scan(self, condition: str, fields: Sequence[str]) -> Iterator[list[Row]]:
        """Yield all rows that meet a condition (all where it is empty), some at a time, in the gallery's order."""
        return self.link.pages(self._rows, condition, fields, NUMBER, self._next)

    def nearest(self, queries: Sequence[npt.NDArray[np.float32]], limit: int, condition: str) -> list[list[Row]]:
        """Return the rows that Milvus finds nearest to each query among those that meet a condition, best first.

        Returns:
            Of each query up to `limit` rows; `score` is Milvus's inner product, in float32.
        """
        parameters = dict(self.index.search)
        if self.index.kind.startswith("HNSW"):
            parameters["ef"] = max(int(parameters.get("ef", 0)), limit, 64)
        return self.link.search(
            self._rows,
            queries,
            field=VECTOR,
            limit=limit,
            condition=condition,
            fields=[ROW, NUMBER, KEY, RECORD, VECTOR],
            parameters=parameters,
        )

    def pictures(self, numbers: Sequence[int]) -> list[bytes]:
        """Return the thumbnails of some rows by their numbers, empty where there is none."""
        parts: dict[int, dict[int, str]] = {number: {} for number in numbers}
        for start in range(0, len(numbers) if self._has_pictures else 0, _PICTURES_AT_ONCE):
            condition = _numbered(numbers[start : start + _PICTURES_AT_ONCE])
            for row in self.link.query(self._pictures, condition, [NAME, NUMBER, VALUE]):
                parts[row[NUMBER]][int(row[NAME].rpartition(".")[2])] = row[VALUE]
        return [base64.b64decode("".join(text for _, text in sorted(parts[number].items()))) for number in numbers]

    # ------------------------------------------------------------------------------------------- changing

    def store(self, columns: Columns, vectors: npt.NDArray[np.float32], thumbnails: Sequence[bytes] | None) -> None:
        """Store findings that are not stored yet and fit the gallery.

        Raises:
            GalleryError: A record is too long for Milvus (nothing was stored then), or Milvus can't store them.
        """
        merged = merge_columns(self.columns, columns)
        first = self._next
        rows = encode_rows(columns, merged, vectors, first, self.link.address)
        # First the columns, so that no row has a cell that nobody knows of; then the numbers, so that no other row gets
        # them; then the pictures, so that no row lacks its own; the rows themselves last.
        changed = [column for column in merged if column not in self.columns]
        write_values(self.link, {f"column {_digest(column.name)}": asdict(column) for column in changed})
        self.columns = merged
        self._write_state(next_number=first + len(rows), pending=[first, first + len(rows)])
        if thumbnails is not None and any(thumbnails):
            self._store_pictures(first, thumbnails)
        for batch in batches(rows):
            self.link.upsert(self._rows, batch)
        self._write_state(generation=self.generation + 1, pending=None)

    def delete(self, doomed: Sequence[Row]) -> None:
        """Delete rows and their pictures, and ask back for them.

        Args:
            doomed: The rows, with row id and number.

        Raises:
            GalleryError: Milvus can't delete them, or still has one.
        """
        for start in range(0, len(doomed), _IDS_AT_ONCE):
            part = doomed[start : start + _IDS_AT_ONCE]
            named, numbered = among(ROW, [row[ROW] for row in part]), _numbered([row[NUMBER] for row in part])
            # The pictures first: without its row, the repetition of a stopped removal would not find one.
            left = 0
            if self._has_pictures:
                self.link.delete(self._pictures, numbered)
                left = self.link.count(self._pictures, numbered)
            self.link.delete(self._rows, named)
            left += self.link.count(self._rows, named)
            if left:
                raise GalleryError(self.link.address, "Milvus still holds a removed row", "remove it again")
        self.store_sample(None)
        self._write_state(generation=self.generation + 1)

    def store_sample(self, text: str | None) -> None:
        """Keep how near the women come to each other, see `index.precedents`; None forgets it."""
        if text != self.sample:
            write_values(self.link, {"precedents": text})
            self.sample = text

    def recover(self) -> None:
        """Take note of other processes' changes, and delete the pictures of rows that a stopped one never stored."""
        self.refresh()
        self._drop_editions()
        if (pending := self._state.get("pending")) is None:
            return
        within = f"{NUMBER} >= {int(pending[0])} and {NUMBER} < {int(pending[1])}"
        if self.link.has(self._pictures):
            self._open_pictures()
            kept = {row[NUMBER] for row in self.meeting(within, [])}
            pages = self.link.pages(self._pictures, within, [NAME], NUMBER, int(pending[1]), start=int(pending[0]))
            stray = [row[NAME] for page in pages for row in page if row[NUMBER] not in kept]
            for start in range(0, len(stray), _IDS_AT_ONCE):
                self.link.delete(self._pictures, among(NAME, stray[start : start + _IDS_AT_ONCE]))
        self._write_state(generation=self.generation + 1, pending=None)

    def rewrite(self) -> None:
        """Write the gallery anew and drop what there was, so that nothing of a deleted row is left in its files.

        An embedded file is free of them then; a server deletes the dropped files when it next cleans up. There is room
        for the gallery twice while it lasts. One that was stopped leaves the gallery as it was, or done. Who has the
        gallery open must open it again.

        Raises:
            GalleryError: Milvus can't store it.
        """
        self.recover()
        edition = self._edition + 1
        rows, pictures = rows_collection(self.link.address, edition), pictures_collection(self.link.address, edition)
        create_rows(self.link, rows, self.identity.dimension, self.index)
        for page in self.scan("", [RECORD, VECTOR]):
            entities = [
                encode_row(row[RECORD], self.columns, np.array(row[VECTOR], np.float32), row[NUMBER]) for row in page
            ]
            for batch in batches(entities):
                self.link.upsert(rows, batch)
        whole = self.link.count(rows) == self.link.count(self._rows)
        if self._has_pictures:
            create_side(self.link, pictures)
            for page in self.link.pages(self._pictures, "", [NAME, VALUE], NUMBER, self._next):
                for batch in batches({**row, VECTOR: TINY} for row in page):
                    self.link.upsert(pictures, batch)
            whole = whole and self.link.count(pictures) == self.link.count(self._pictures)
        if not whole:
            raise GalleryError(self.link.address, "not every row could be written anew", "try again")
        # With this it is done; the rest is to clear up.
        self._write_state(generation=self.generation + 1, edition=edition)
        self._drop_editions()

    def _drop_editions(self) -> None:
        """Drop what a rewriting replaced, or left unfinished."""
        for edition in (self._edition - 1, self._edition + 1):
            for name in (rows_collection, pictures_collection):
                if edition >= 0 and self.link.has(collection := name(self.link.address, edition)):
                    self.link.drop(collection)

    def _store_pictures(self, first: int, thumbnails: Sequence[bytes]) -> None:
        self._open_pictures()
        rows = []
        for number, picture in enumerate(thumbnails, start=first):
            text = base64.b64encode(picture).decode()
            for part, start in enumerate(range(0, len(text), _PICTURE_PART)):
                piece = text[start : start + _PICTURE_PART]
                rows.append({NAME: f"{number}.{part}", NUMBER: number, VALUE: piece, VECTOR: TINY})
        for batch in batches(rows):
            self.link.upsert(self._pictures, batch)

    def _open_pictures(self) -> None:
        if not self._has_pictures:
            create_side(self.link, self._pictures)
            self._has_pictures = True

    def _write_state(self, **changes: Any) -> None:
        state = {**self._state, **changes, "updated": now()}
        write_values(self.link, {"state": state})
        self._take_state(state)


def _numbered(numbers: Sequence[int]) -> str:
    return f"{NUMBER} in [{', '.join(str(int(number)) for number in numbers)}]"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
