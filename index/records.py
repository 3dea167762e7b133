"""Case records as plain typed columns, and back to a table: what a segment stores of each finding."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from index import GalleryError

Kind = Literal["text", "integer", "number", "boolean"]

UNKNOWN = "unknown"
"""The kind of a column that has no value: it goes with any other."""

REQUIRED_COLUMNS = ("row_id", "granularity", "patient_id", "dataset")
"""Columns that every record has, whole: without them no woman can be kept from herself."""

ANSWER_FIELDS = ("rank", "similarity", "box")
"""Names that an answer gives to a neighbour, and so can't be columns."""

LONGEST_TEXT = 65_536
"""Bytes of UTF-8 in one cell. Cells are stored at a fixed width: one huge cell would inflate its column."""

# A slash or a zero byte means something else to HDF5, and half a surrogate pair is no UTF-8.
_NAME = re.compile(r"[^/\0\ud800-\udfff]+")
_STORED: dict[Kind, Any] = {"text": object, "integer": np.int64, "number": np.float64, "boolean": np.bool_}
FILL: dict[Kind, Any] = {"text": "", "integer": 0, "number": np.nan, "boolean": False}
# pandas 3 has a text type of its own; pandas 2 keeps text as objects.
_TEXT_DTYPE = pd.Series(["text"]).dtype


class HasKind(Protocol):
    """A column in whatever form."""

    @property
    def kind(self) -> Kind:
        """What its values are."""

    @property
    def known(self) -> bool:
        """Whether any row has a value."""


@dataclass(frozen=True, eq=False)
class Column:
    """One column of some records.

    Attributes:
        kind: What its values are.
        cells: (n,) objects of str, int64, float64 or bool; a filler where missing.
        missing: (n,) bool.
    """

    kind: Kind
    cells: npt.NDArray[Any]
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
        GalleryError: A column or a cell that can't be stored, or a required column that is not whole.
    """
    columns = parse_columns(records, subject)
    check_required(columns, subject)
    for row, problem in unfit_rows(columns).items():
        raise GalleryError(subject, f"row {row + 1}: {problem}", "correct the manifest")
    return columns


def parse_columns(records: pd.DataFrame, subject: object) -> Columns:
    """Return a table's columns in their plain types, whatever single cells hold: see `unfit_rows`.

    Args:
        records: One row per finding.
        subject: What an error is about.

    Raises:
        GalleryError: A whole column can't be stored, or a required one is not there or is no text.
    """
    if records.columns.has_duplicates:
        raise GalleryError(subject, "the records have two columns of the same name")
    columns = {}
    for name in records.columns:
        if name in ANSWER_FIELDS:
            raise GalleryError(subject, f"the column {name!r} has a name that answers use", "rename it")
        if not is_column_name(name):
            raise GalleryError(subject, f"{name!r} can't be the name of a column", "rename it")
        columns[name] = to_column(records[name], name, subject)
    _check_required_kinds(columns, subject)
    return columns


def is_column_name(name: object) -> bool:
    """Return whether a column can have a name.

    >>> is_column_name("age"), is_column_name("a/b"), is_column_name("..")
    (True, False, False)
    """
    fits = isinstance(name, str) and _NAME.fullmatch(name) is not None and set(name) != {"."}
    return fits and name not in ANSWER_FIELDS


def unfit_rows(columns: Columns) -> dict[int, str]:
    """Return why a row can't be stored, for each row that can't, in order: the first of its cells that is to blame."""
    problems: dict[int, str] = {}
    for name, column in columns.items():
        if name in REQUIRED_COLUMNS:
            for row in np.flatnonzero(_gaps(column)):
                problems.setdefault(int(row), f"{name} must be a text, and there is none")
        if column.kind == "number":
            for row in np.flatnonzero(np.isinf(column.cells)):
                problems.setdefault(int(row), f"{name} is an infinite number: leave the cell empty")
        if column.kind == "text":
            for place, text in enumerate(column.cells):
                if (problem := _text_problem(text)) is not None:
                    problems.setdefault(place, f"{name} {problem}")
    return dict(sorted(problems.items()))


def check_required(columns: Columns, subject: object) -> None:
    """Refuse records in which a required column is not there, is no text, or has a gap.

    Raises:
        GalleryError: There is one.
    """
    _check_required_kinds(columns, subject)
    for name in REQUIRED_COLUMNS:
        lacking = _gaps(columns[name])
        if lacking.any():
            first = int(np.argmax(lacking)) + 1
            raise GalleryError(
                subject,
                f"{name} must be a text in every row, and row {first} has none",
                "complete the manifest",
            )


def _check_required_kinds(columns: Columns, subject: object) -> None:
    absent = [name for name in REQUIRED_COLUMNS if name not in columns]
    if absent:
        raise GalleryError(subject, f"the records have no column {', '.join(absent)}")
    for name in REQUIRED_COLUMNS:
        column = columns[name]
        if column.known and column.kind != "text":
            raise GalleryError(subject, f"{name} must be a text, and it is of kind {column.kind}", "write it as a text")


def _gaps(column: Column) -> npt.NDArray[np.bool_]:
    return column.missing | (column.cells == "")


def clashing_column(parts: Sequence[Columns]) -> str | None:
    """Return a column whose values are of kinds that can't stand in one table, None where all can."""
    names = dict.fromkeys(name for columns in parts for name in columns)
    return next((n for n in names if common_kind(kind_of(c[n]) for c in parts if n in c) is None), None)


def to_frame(parts: Sequence[tuple[int, Columns]]) -> pd.DataFrame:
    """Join the columns of several parts into one table; a part without a column has it missing.

    Args:
        parts: Number of rows and columns of each part; of kinds that don't clash, see `clashing_column`.

    Returns:
        One row per finding; the required columns at least, even where there is no part.
    """
    if not parts:
        return pd.DataFrame({name: pd.Series([], dtype=_TEXT_DTYPE) for name in REQUIRED_COLUMNS})
    table = {}
    names = dict.fromkeys(name for _, columns in parts for name in columns)
    for name in names:
        kind = stored_kind([columns[name] for _, columns in parts if name in columns])
        values = np.concatenate([_as_kind(columns.get(name), kind, rows) for rows, columns in parts])
        missing = np.concatenate(
            [columns[name].missing if name in columns else np.ones(rows, np.bool_) for rows, columns in parts]
        )
        table[name] = _to_series(kind, values, missing)
    return pd.DataFrame(table)


def kind_of(column: HasKind) -> str:
    """Return what the values of a column are, `UNKNOWN` where it has none."""
    return column.kind if column.known else UNKNOWN


def common_kind(kinds: Iterable[str]) -> str | None:
    """Return the kind that can hold the values of several kinds, None where there is none.

    >>> common_kind(["unknown", "text"]), common_kind(["integer", "number"]), common_kind(["text", "number"])
    ('text', 'number', None)
    """
    known = set(kinds) - {UNKNOWN}
    if known == {"integer", "number"}:
        return "number"
    return known.pop() if len(known) == 1 else (None if known else UNKNOWN)


def stored_kind(columns: Sequence[HasKind]) -> Kind:
    """Return the kind of a column that is stored in several parts: of the first, where none has a value."""
    kind = common_kind(map(kind_of, columns))
    assert kind is not None, "records of clashing kinds are never stored together"
    return columns[0].kind if kind == UNKNOWN else cast(Kind, kind)


def patient_keys(records: pd.DataFrame) -> npt.NDArray[np.object_]:
    """Return each row's woman as `dataset/patient_id`: a patient id is unique within its data set only."""
    datasets, patients = records["dataset"].astype(object), records["patient_id"].astype(object)
    return np.array([f"{d}/{p}" for d, p in zip(datasets, patients, strict=True)], dtype=object)


def fold_name(name: str) -> str:
    """Return the name of a woman or a data set without what is easily mistyped: letter case, white space around it.

    >>> fold_name(" MIAS-001 ")
    'mias-001'
    """
    return name.strip().casefold()


def to_column(series: pd.Series, name: str, subject: object) -> Column:
    """Return one column of a table in its plain type.

    Raises:
        GalleryError: It holds values of several kinds, or of none that is known.
    """
    missing = series.isna().to_numpy(dtype=np.bool_)
    known = series[~missing].to_numpy(dtype=object)
    kind = _kind(series.dtype, known, name, subject)
    values = np.full(len(series), FILL[kind], dtype=_STORED[kind])
    try:
        values[~missing] = known
    except OverflowError as error:
        raise GalleryError(subject, f"the column {name} holds a number that is too large to store") from error
    return Column(kind, values, missing)


def _text_problem(text: str) -> str | None:
    if "\0" in text:
        return "holds a zero byte: take it out"
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError:
        return "is no Unicode text: write it again"
    return f"has {size} bytes, and the limit is {LONGEST_TEXT}" if size > LONGEST_TEXT else None


def _kind(dtype: Any, known: npt.NDArray[np.object_], name: str, subject: object) -> Kind:
    if pd.api.types.is_bool_dtype(dtype):
        return "boolean"
    if pd.api.types.is_integer_dtype(dtype):
        return "integer"
    if pd.api.types.is_float_dtype(dtype):
        return "number"
    if all(isinstance(value, str) for value in known):
        return "text"
    truths = [isinstance(value, bool | np.bool_) for value in known]
    if all(truths):
        return "boolean"
    # Python counts a truth value among the integers; here the two are different things.
    if not any(truths) and all(isinstance(value, int | float | np.integer | np.floating) for value in known):
        whole = all(isinstance(value, int | np.integer) for value in known)
        return "integer" if whole and all(-(2**63) <= value < 2**63 for value in known) else "number"
    raise GalleryError(subject, f"the column {name} holds values that are neither all text nor all numbers")


def _as_kind(column: Column | None, kind: Kind, rows: int) -> npt.NDArray[Any]:
    if column is None or not column.known:
        return np.full(rows, FILL[kind], dtype=_STORED[kind])
    values = column.cells.astype(_STORED[kind])
    values[column.missing] = FILL[kind]
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
