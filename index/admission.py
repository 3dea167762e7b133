"""What a gallery lets in: rows that fit what it holds, and none under a name that it holds with another content."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from index import GalleryError
from index.engines import unit_length
from index.records import UNKNOWN, Column, Columns, common_kind, kind_of
from index.segments import PNG_SIGNATURE

Places = Mapping[str, tuple[int, int]]
"""Where each stored row id stands: number of its segment, and row in it."""

_LONGEST_SHOWN = 60  # characters of a cell in a message
_WHOLE_FLOATS = 2.0**53  # below it, every whole number has its own float64


@dataclass(frozen=True, eq=False)
class Presence:
    """Which of some rows are stored already.

    Attributes:
        stored: bool (n,), whether the row id is stored, with whatever content.
        conflicts: Where it is stored with another content, by the row's place among the n: what differs, and what
            to do.
    """

    stored: npt.NDArray[np.bool_]
    conflicts: dict[int, str]


def in_stored_kinds(columns: Columns, stored: Mapping[str, str], subject: object) -> Columns:
    """Return new columns in the kinds that a gallery holds.

    A column that holds texts goes on holding texts: a table of free text may look like numbers in its next edition.
    Those become their texts, without the ".0" that a gap elsewhere in the column gives to whole ones. The columns that
    name a row and its woman never get here as numbers: 7 may have been 007, who is somebody else.

    Args:
        columns: The new rows.
        stored: The kind of each stored column, `unknown` where it has no value.
        subject: What an error is about.

    Raises:
        GalleryError: A column's values can't stand beside the stored ones.
    """
    fitting = {}
    for name, column in columns.items():
        turn = stored.get(name) == "text" and column.known and column.kind != "text"
        fitting[name] = _as_text(column) if turn else column
        if common_kind((stored.get(name, UNKNOWN), kind_of(fitting[name]))) is None:
            raise GalleryError(
                subject,
                f"the column {name} is of another kind than the stored one: "
                f"the gallery holds it as {stored[name]}, and the new rows as {fitting[name].kind}",
                "correct the manifest, rename the column in it, or build the gallery again from all rows",
            )
    return fitting


def compare(columns: Columns, parts: Mapping[int, Columns], places: Places) -> Presence:
    """Compare new rows with the stored ones of the same row ids, cell by cell.

    What is missing equals what is missing, and a column that one side does not have is missing there.

    Args:
        columns: The new rows, in stored kinds.
        parts: The stored rows, by the number of their segment; those segments at least that hold one of the new rows.
        places: Where each of these stands.
    """
    found = [places.get(row_id) for row_id in columns["row_id"].cells]
    conflicts: dict[int, str] = {}
    pairs: dict[int, list[tuple[int, int]]] = {}
    for row, place in enumerate(found):
        if place is not None:
            pairs.setdefault(place[0], []).append((row, place[1]))
    for number, rows in pairs.items():
        part = parts[number]
        new_rows, old_rows = np.array(rows, np.int64).T
        for name in dict.fromkeys([*part, *columns]):
            new, new_gaps = _pick(columns.get(name), new_rows)
            old, old_gaps = _pick(part.get(name), old_rows)
            differs = (new_gaps != old_gaps) | (~new_gaps & ~old_gaps & (new != old))
            for place_of in np.flatnonzero(differs):
                was = _shown(old[place_of], old_gaps[place_of])
                now = _shown(new[place_of], new_gaps[place_of])
                conflicts.setdefault(
                    int(new_rows[place_of]),
                    f"it is already stored with another {name} ({was}, and now {now}): "
                    "remove the row first, then add it again",
                )
    return Presence(np.array([place is not None for place in found], np.bool_), conflicts)


def check_vectors(vectors: npt.NDArray[np.float32], shape: tuple[int, int], subject: object) -> None:
    """Refuse vectors that are not float32 of a shape and of length 1.

    Raises:
        GalleryError: They are not.
    """
    if vectors.dtype != np.float32 or vectors.shape != shape:
        raise GalleryError(subject, f"the vectors are {vectors.dtype} {vectors.shape}", f"float32 {shape} is wanted")
    unfit = ~unit_length(vectors)
    if unfit.any():
        raise GalleryError(subject, f"the vector of row {int(np.argmax(unfit)) + 1} is not of length 1")


def check_records(columns: Columns, stored: Container[str], granularity: str, subject: object) -> None:
    """Refuse rows whose ids are not new and unique, or of another granularity than the gallery's.

    Raises:
        GalleryError: There is one.
    """
    seen: set[str] = set()
    for row_id in columns["row_id"].cells:
        if row_id in seen:
            raise GalleryError(subject, f"the row {row_id} stands twice in the new records")
        if row_id in stored:
            raise GalleryError(subject, f"the row {row_id} is already stored", "remove it first")
        seen.add(row_id)
    strange = set(columns["granularity"].cells) - {granularity}
    if strange:
        raise GalleryError(
            subject,
            f"its rows are of granularity {granularity}, and a new one is {min(strange)}",
            "keep findings and breasts in two galleries",
        )


def check_thumbnails(thumbnails: Sequence[bytes], rows: int, subject: object) -> None:
    """Refuse pictures that are not one PNG file, or none, per row.

    Raises:
        GalleryError: They are not.
    """
    whole = all(not picture or picture.startswith(PNG_SIGNATURE) for picture in thumbnails)
    if len(thumbnails) != rows or not whole:
        raise GalleryError(subject, "the thumbnails are not one PNG file per row")


def _as_text(column: Column) -> Column:
    texts = ["" if gap else _text(cell) for cell, gap in zip(column.cells.tolist(), column.missing, strict=True)]
    return Column("text", np.array(texts, dtype=object), column.missing)


def _text(value: float | bool) -> str:
    if isinstance(value, float) and value.is_integer() and abs(value) < _WHOLE_FLOATS:
        return str(int(value))
    return str(value)


def _pick(column: Column | None, rows: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.object_], npt.NDArray[np.bool_]]:
    if column is None:
        return np.full(len(rows), None, dtype=object), np.ones(len(rows), np.bool_)
    return column.cells[rows].astype(object), column.missing[rows]


def _shown(value: object, gap: bool) -> str:
    if gap:
        return "nothing"
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"
