"""Findings as rows of a Milvus collection, and back without loss.

Milvus has types of its own, and none of them tells a missing value from an empty one or 3 from 3.0 in all its
releases. So each row carries its record as one JSON text, from which it is read back to the last bit, and beside
it the cells in the dynamic field, which filters look at and nothing else.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from index import GalleryError
from index.records import FILL, Column, Columns, Kind, fold_name, stored_kind, to_frame
from index.table import RecordTable, encode_columns

ROW, NUMBER, VECTOR, RECORD = "_row", "_number", "_vector", "_record"
KEY, DATASET, PATIENT = "_key", "_dataset", "_patient"
"""The fixed fields: row id, number, vector and record of a row; its woman as "dataset/patient_id"; and these two names
without letter case and white space around them."""

LONGEST_RECORD = 60_000
"""Bytes of a record as JSON: a text in Milvus has 65,535 at most, and so has the dynamic field."""

LONGEST_NAME = 1_000
"""Bytes of a row id, of a woman's id and of a data set's name."""

LONGEST_FOLDED = 8 * LONGEST_NAME
"""Bytes of the names together; without letter case, a name can be three times as long."""

_BATCH_BYTES = 4 << 20
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,99}")
_DTYPE: dict[Kind, Any] = {"text": object, "integer": np.int64, "number": np.float64, "boolean": np.bool_}


@dataclass(frozen=True)
class StoredColumn:
    """A column of a gallery on Milvus.

    Attributes:
        name: As in the records.
        kind: What its values are.
        known: Whether any row has, or had, a value.
        order: Where it stands among the columns.
    """

    name: str
    kind: Kind
    known: bool
    order: int

    @property
    def key(self) -> str:
        """Its name in the dynamic field: its own where that is a plain word, a number where not."""
        plain = _PLAIN.fullmatch(self.name) and not self.name.startswith("column_")
        return self.name if plain else f"column_{self.order}"


def sample_table(columns: Iterable[StoredColumn]) -> RecordTable:
    """Return one made-up row with a value in every column that has values: enough to check a filter against."""
    return RecordTable([encode_columns(_sample(columns))], [1])


def _sample(columns: Iterable[StoredColumn]) -> Columns:
    return {
        column.name: Column(
            column.kind,
            np.array([0.0 if column.kind == "number" else FILL[column.kind]], dtype=_DTYPE[column.kind]),
            np.array([not column.known]),
        )
        for column in columns
    }


def merge_columns(stored: Sequence[StoredColumn], new: Columns) -> list[StoredColumn]:
    """Return a gallery's columns after more rows, whose kinds fit: see `index.admission.in_stored_kinds`."""
    merged = {column.name: column for column in stored}
    for name, column in new.items():
        if name not in merged:
            merged[name] = StoredColumn(name, column.kind, column.known, len(merged))
        elif column.known:
            held = merged[name]
            kind = stored_kind([held, column])
            merged[name] = replace(held, kind=kind, known=True)
    return list(merged.values())


def encode_rows(
    columns: Columns,
    stored: Sequence[StoredColumn],
    vectors: npt.NDArray[np.float32],
    first: int,
    subject: object,
) -> list[dict[str, Any]]:
    """Return findings as Milvus stores them.

    Args:
        columns: Their records, whole and of fitting kinds.
        stored: The gallery's columns, these among them.
        vectors: float32 (n, d).
        first: Number of the first; the others follow.
        subject: What an error is about.

    Raises:
        GalleryError: A record or a name is too long for Milvus.
    """
    cells = {name: list(_plain(column)) for name, column in columns.items()}
    rows = []
    for place, vector in enumerate(vectors):
        record = {name: values[place] for name, values in cells.items() if values[place] is not None}
        for name in ("row_id", "dataset", "patient_id"):
            if (size := len(record[name].encode())) > LONGEST_NAME:
                problem = f"its {name} has {size} bytes, and the limit on Milvus is {LONGEST_NAME}"
                raise GalleryError(subject, f"row {record['row_id'][:80]}: {problem}", "shorten it")
        text = json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        if (size := len(text.encode())) > LONGEST_RECORD:
            problem = f"its record has {size} bytes, and the limit on Milvus is {LONGEST_RECORD}"
            raise GalleryError(subject, f"row {record['row_id']}: {problem}", "shorten its texts")
        rows.append(encode_row(text, stored, vector, first + place))
    return rows


def encode_row(text: str, stored: Sequence[StoredColumn], vector: Any, number: int) -> dict[str, Any]:
    """Return a finding as Milvus stores it.

    Args:
        text: Its record, as JSON.
        stored: The gallery's columns.
        vector: float32 (d,).
        number: Its number.
    """
    record = json.loads(text)
    dataset, patient = record["dataset"], record["patient_id"]
    cells = {column.key: record[column.name] for column in stored if column.name in record}
    return cells | {
        ROW: record["row_id"],
        NUMBER: number,
        VECTOR: vector,
        RECORD: text,
        KEY: f"{dataset}/{patient}",
        DATASET: fold_name(dataset),
        PATIENT: fold_name(patient),
    }


def batches(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Yield rows in batches that a server takes in one message."""
    batch: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        # The record's text counts twice: its cells stand in the dynamic field too.
        more = row[VECTOR].nbytes + sum(2 * len(value.encode()) for value in row.values() if isinstance(value, str))
        if batch and size + more > _BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(row)
        size += more
    if batch:
        yield batch


def decode_record(text: str, columns: Sequence[StoredColumn]) -> dict[str, Any]:
    """Return what is known of a row as plain values in the columns' order; None where unknown."""
    record = json.loads(text)
    return {column.name: _cell(record.get(column.name), column.kind) for column in columns}


def decode_frame(texts: Sequence[str], columns: Sequence[StoredColumn]) -> pd.DataFrame:
    """Return the records of some rows as a table, of the kinds that they were stored in."""
    records = [json.loads(text) for text in texts]
    decoded: Columns = {}
    for column in columns:
        cells = [record.get(column.name) for record in records]
        missing = np.array([cell is None for cell in cells], np.bool_)
        values = np.full(len(cells), FILL[column.kind], dtype=_DTYPE[column.kind])
        values[~missing] = [cell for cell in cells if cell is not None]
        decoded[column.name] = Column(column.kind, values, missing)
    return to_frame([(len(records), decoded)])


def decode_vectors(rows: Sequence[dict[str, Any]], dimension: int) -> npt.NDArray[np.float32]:
    """Return the vectors of some rows, (n, d), bit for bit as they were stored."""
    return np.array([row[VECTOR] for row in rows], np.float32).reshape(len(rows), dimension)


def _plain(column: Column) -> Iterator[Any]:
    convert: Any = {"text": str, "integer": int, "number": float, "boolean": bool}[column.kind]
    for cell, missing in zip(column.cells, column.missing, strict=True):
        yield None if missing else convert(cell)


def _cell(value: Any, kind: Kind) -> Any:
    return float(value) if kind == "number" and value is not None else value
