"""Case records as plain typed columns, and back to a table: what a segment stores of each finding."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from index import GalleryError

Kind = Literal["text", "integer", "number", "boolean"]

REQUIRED_COLUMNS = ("row_id", "granularity", "patient_id", "dataset")
"""Columns that every record has, with a value in every row: without them no woman can be kept from herself."""

ANSWER_FIELDS = ("rank", "similarity", "box")
"""Names that an answer gives to a neighbour, and so can't be columns."""

LONGEST_TEXT = 65_536
"""Bytes of UTF-8 that one cell may hold. Cells are stored at a fixed width: one huge cell would inflate its column."""

_STORED: dict[Kind, Any] = {"text": object, "integer": np.int64, "number": np.float64, "boolean": np.bool_}
_FILL: dict[Kind, Any] = {"text": "", "integer": 0, "number": np.nan, "boolean": False}
# pandas 3 has a text type of its own; pandas 2 keeps text as objects.
_TEXT_DTYPE = pd.Series(["text"]).dtype


@dataclass(frozen=True, eq=False)
class Column:
    """One column of some records.

    Attributes:
        kind: What its values are.
        values: (n,) objects of str, int64, float64 or bool; a filler where missing.
        missing: (n,) bool.
    """

    kind: Kind
    values: npt.NDArray[Any]
    missing: npt.NDArray[np.bool_]

    @property
    def known(self) -> bool:
        """Whether any row has a value."""
        return not bool(self.missing.all())


Columns = dict[str, Column]


def to_columns(records: pd.DataFrame, subject: object) -> Columns:
    """Return a table's columns in their plain types.

    Args:
        records: One row per finding.
        subject: What an error is about.

    Raises:
        GalleryError: A column that can't be stored, or a required one that is not whole.
    """
    absent = [name for name in REQUIRED_COLUMNS if name not in records.columns]
    if absent:
        raise GalleryError(subject, f"the records have no column {', '.join(absent)}")
    if records.columns.has_duplicates:
        raise GalleryError(subject, "the records have two columns of the same name")
    columns = {}
    for name in records.columns:
        if not isinstance(name, str) or not name or "/" in name or "\0" in name or set(name) == {"."}:
            raise GalleryError(subject, f"{name!r} can't be the name of a column")
        if name in ANSWER_FIELDS:
            raise GalleryError(subject, f"the column {name!r} has a name that answers use", "rename it")
        columns[name] = _to_column(records[name], name, subject)
    for name in REQUIRED_COLUMNS:
        column = columns[name]
        lacking = column.missing | (column.values == "")
        if column.kind != "text" or lacking.any():
            first = int(np.argmax(lacking)) + 1
            raise GalleryError(
                subject, f"{name} must be a text in every row, and row {first} has none", "complete the manifest"
            )
    return columns


def to_frame(parts: Sequence[tuple[int, Columns]]) -> pd.DataFrame:
    """Join the columns of several parts into one table; a part without a column has it missing.

    Args:
        parts: Number of rows and columns of each part.
    """
    table = {}
    names = dict.fromkeys(name for _, columns in parts for name in columns)
    for name in names:
        kind = common_kind([columns[name] for _, columns in parts if name in columns])
        assert kind is not None, "records of clashing kinds are never stored together"
        values = np.concatenate([_as_kind(columns.get(name), kind, rows) for rows, columns in parts])
        missing = np.concatenate(
            [columns[name].missing if name in columns else np.ones(rows, np.bool_) for rows, columns in parts]
        )
        table[name] = _to_series(kind, values, missing)
    return pd.DataFrame(table)


def common_kind(columns: Sequence[Column]) -> Kind | None:
    """Return the kind that can hold all of some columns, None where there is none.

    A column without a single value goes with any other.
    """
    kinds = {column.kind for column in columns if column.known} or {columns[0].kind}
    if kinds == {"integer", "number"}:
        return "number"
    return kinds.pop() if len(kinds) == 1 else None


def patient_keys(records: pd.DataFrame) -> npt.NDArray[np.object_]:
    """Return each row's woman as `dataset/patient_id`, for a patient id is unique only within its data set."""
    datasets, patients = records["dataset"].astype(object), records["patient_id"].astype(object)
    return np.array([f"{d}/{p}" for d, p in zip(datasets, patients, strict=True)], dtype=object)


def _to_column(series: pd.Series, name: str, subject: object) -> Column:
    missing = series.isna().to_numpy(dtype=np.bool_)
    kind = _kind(series, missing, name, subject)
    values = np.full(len(series), _FILL[kind], dtype=_STORED[kind])
    values[~missing] = series[~missing].to_numpy(dtype=object)
    if kind == "number" and np.isinf(values).any():
        raise GalleryError(subject, f"the column {name} holds an infinite number", "leave the cell empty")
    if kind == "text":
        for text in values:
            try:
                size = len(text.encode("utf-8"))
            except UnicodeEncodeError as error:
                raise GalleryError(subject, f"the column {name} holds {text!r}, which is no Unicode text") from error
            if size > LONGEST_TEXT or "\0" in text:
                cause = "a zero byte" if "\0" in text else f"a text of {size} bytes"
                raise GalleryError(subject, f"the column {name} holds {cause}", f"the limit is {LONGEST_TEXT} bytes")
    return Column(kind, values, missing)


def _kind(series: pd.Series, missing: npt.NDArray[np.bool_], name: str, subject: object) -> Kind:
    if pd.api.types.is_bool_dtype(series.dtype):
        return "boolean"
    if pd.api.types.is_integer_dtype(series.dtype):
        return "integer"
    if pd.api.types.is_float_dtype(series.dtype):
        return "number"
    values = series[~missing].to_numpy(dtype=object)
    if all(isinstance(value, str) for value in values):
        return "text"
    if all(isinstance(value, bool | np.bool_) for value in values):
        return "boolean"
    if all(isinstance(value, int | float | np.integer | np.floating) for value in values):
        whole = all(isinstance(value, int | np.integer) for value in values)
        return "integer" if whole and all(-(2**63) <= value < 2**63 for value in values) else "number"
    raise GalleryError(subject, f"the column {name} holds values that are neither all text nor all numbers")


def _as_kind(column: Column | None, kind: Kind, rows: int) -> npt.NDArray[Any]:
    if column is None or not column.known:
        return np.full(rows, _FILL[kind], dtype=_STORED[kind])
    values = column.values.astype(_STORED[kind])
    values[column.missing] = _FILL[kind]
    return values


def _to_series(kind: Kind, values: npt.NDArray[Any], missing: npt.NDArray[np.bool_]) -> pd.Series:
    if kind == "number":
        return pd.Series(values)
    if kind == "integer":
        return pd.Series(pd.arrays.IntegerArray(values, missing.copy()))
    if kind == "boolean":
        return pd.Series(pd.arrays.BooleanArray(values, missing.copy()))
    cells = values.astype(object)
    cells[missing] = np.nan
    return pd.Series(cells, dtype=_TEXT_DTYPE)
