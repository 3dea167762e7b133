"""The case records of a gallery in memory: columns, with each distinct text held once.

A million records as Python texts would take more room than their vectors, and a filter over them seconds. Here a
text column is codes into its distinct values, as it lies in its segment, and a filter looks at each distinct value
once.
"""

import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from index.records import FILL, Column, Columns, Kind, stored_kind, to_column, to_frame

Codes = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]


_COMPARE: dict[str, tuple[Callable[[Any, Any], Any], Callable[[Any, Any], Any]]] = {
    "==": (operator.eq, pc.equal),
    "!=": (operator.ne, pc.not_equal),
    "<": (operator.lt, pc.less),
    "<=": (operator.le, pc.less_equal),
    ">": (operator.gt, pc.greater),
    ">=": (operator.ge, pc.greater_equal),
}


@dataclass(frozen=True, eq=False)
class Encoded:
    """One column of some rows.

    Attributes:
        kind: What its values are.
        cells: (n,) int64, float64 or bool, a filler where missing; of a text column its distinct values, a pyarrow
            array of texts.
        codes: int32 (n,) which of the distinct values each row has, -1 where missing; None where the column is no text.
        missing: bool (n,).
    """

    kind: Kind
    cells: Any
    codes: Codes | None
    missing: Mask

    def __len__(self) -> int:
        return len(self.missing)

    @property
    def known(self) -> bool:
        """Whether any row has a value."""
        return not bool(self.missing.all())

    @cached_property
    def distinct(self) -> npt.NDArray[Any]:
        """The distinct values of a text column as objects of str; the cells of any other."""
        if self.codes is None:
            return np.asarray(self.cells)
        return np.asarray(self.cells.to_numpy(zero_copy_only=False), dtype=object)

    def compare(self, relation: str, literal: str | float | bool) -> Mask:
        """Return for each entry of `distinct` whether it stands in a relation to a value.

        Args:
            relation: One of == != < <= > >=.
            literal: The value, of the column's kind. Texts are ordered by code point, as Python orders them.
        """
        if self.codes is None:
            return np.asarray(_COMPARE[relation][0](self.cells, literal), np.bool_)
        try:
            text = pa.scalar(literal, pa.large_string())
        except UnicodeEncodeError:  # half a surrogate pair, which no stored text holds
            return np.asarray(_COMPARE[relation][0](self.distinct, literal), np.bool_)
        # UTF-8 bytes are ordered as the code points are.
        found = _COMPARE[relation][1](self.cells, text)
        return np.asarray(found.to_numpy(zero_copy_only=False), np.bool_)

    def spread(self, of_values: npt.NDArray[Any], fill: Any) -> npt.NDArray[Any]:
        """Return for every row what is said of its value.

        Args:
            of_values: One entry per entry of `distinct`.
            fill: What to say where the value is missing.
        """
        if self.codes is None:
            found = np.array(of_values)
            found[self.missing] = fill
            return found
        return np.append(of_values, np.array([fill], of_values.dtype))[self.codes]

    def value(self, row: int) -> Any:
        """Return one cell as a plain value; None where missing."""
        if self.missing[row]:
            return None
        if self.codes is None:
            return self.cells[row].item()
        return self.cells[int(self.codes[row])].as_py()

    def dense(self, rows: npt.NDArray[np.int64] | None = None) -> Column:
        """Return some rows, or all, as a plain column."""
        missing = self.missing if rows is None else self.missing[rows]
        if self.codes is None:
            return Column(self.kind, self.cells if rows is None else self.cells[rows], missing)
        codes = self.codes if rows is None else self.codes[rows]
        if rows is None or len(rows) * 4 > len(self.cells):
            cells = np.append(self.distinct, np.array([""], object))[codes]
        else:
            cells = np.array(["" if code < 0 else self.cells[int(code)].as_py() for code in codes], object)
        return Column("text", cells, missing)


def encode_column(column: Column) -> Encoded:
    """Return a plain column with each distinct text held once, in the order in which they appear."""
    if column.kind != "text":
        return Encoded(column.kind, column.cells, None, column.missing)
    cells = column.cells.astype(object)
    cells[column.missing] = None
    codes, values = pd.factorize(cells)
    return Encoded("text", pa.array(values.tolist(), pa.large_string()), codes.astype(np.int32), column.missing)


def encode_columns(columns: Columns) -> dict[str, Encoded]:
    """Encode every column, see `encode_column`."""
    return {name: encode_column(column) for name, column in columns.items()}


def take_rows(column: Encoded, rows: npt.NDArray[np.int64]) -> Encoded:
    """Return some rows of a column. A text that none of them has is not kept."""
    missing = column.missing[rows]
    if column.codes is None:
        return Encoded(column.kind, column.cells[rows], None, missing)
    codes, used = pd.factorize(np.where(missing, -1, column.codes[rows]).astype(np.int64), use_na_sentinel=False)
    kept = used[used >= 0]
    # The code of "missing" is wherever it appeared first: give every other value its place among the kept.
    renumber = np.where(used >= 0, np.cumsum(used >= 0) - 1, -1).astype(np.int32)
    return Encoded("text", column.cells.take(pa.array(kept, pa.int64())), renumber[codes], missing)


def join(columns: Sequence[Encoded | None], rows: Sequence[int]) -> Encoded:
    """Join the same column of several parts, of kinds that don't clash.

    Args:
        columns: One per part; None where the part has no such column.
        rows: How many rows each part has.
    """
    present = [column for column in columns if column is not None]
    kind = stored_kind(present)
    missing = np.concatenate(
        [np.ones(n, np.bool_) if c is None else c.missing for c, n in zip(columns, rows, strict=True)]
    )
    if kind == "text":
        parts = [_dictionary(c, n) for c, n in zip(columns, rows, strict=True)]
        joined = pa.chunked_array(parts).unify_dictionaries()
        codes = np.concatenate([c.indices.fill_null(-1).to_numpy(zero_copy_only=False) for c in joined.chunks])
        return Encoded("text", joined.chunk(0).dictionary, codes.astype(np.int32, copy=False), missing)
    dtype: Any = {"integer": np.int64, "number": np.float64, "boolean": np.bool_}[kind]
    cells = np.concatenate(
        [
            np.full(n, FILL[kind], dtype) if c is None or not c.known else _as(c, dtype, kind)
            for c, n in zip(columns, rows, strict=True)
        ]
    )
    return Encoded(kind, cells, None, missing)


def _as(column: Encoded, dtype: Any, kind: Kind) -> npt.NDArray[Any]:
    if column.cells.dtype == dtype:
        return np.asarray(column.cells)
    cells = column.cells.astype(dtype)
    cells[column.missing] = FILL[kind]
    return np.asarray(cells)


def _dictionary(column: Encoded | None, rows: int) -> pa.DictionaryArray:
    if column is None or column.codes is None:  # absent, or without a single value
        return pa.DictionaryArray.from_arrays(pa.nulls(rows, pa.int32()), pa.array([], pa.large_string()))
    return pa.DictionaryArray.from_arrays(pa.array(column.codes, pa.int32(), mask=column.missing), column.cells)


class RecordTable:
    """All records of a gallery, part by part as they are stored.

    Args:
        parts: The columns of each segment.
        rows: How many rows each has.
    """

    def __init__(self, parts: Sequence[dict[str, Encoded]], rows: Sequence[int]) -> None:
        self._parts = tuple(parts)
        self._rows = tuple(rows)
        self._starts = np.cumsum([0, *rows], dtype=np.int64)
        self._joined: dict[str, Encoded] = {}
        self.names: list[str] = list(dict.fromkeys(name for part in parts for name in part))

    @classmethod
    def of_frame(cls, frame: pd.DataFrame) -> "RecordTable":
        """Return a table of pandas as a record table.

        Raises:
            GalleryError: A column holds values of several kinds, or of none that is known.
        """
        columns = {str(name): to_column(frame[name], str(name), "records") for name in frame.columns}
        return cls([encode_columns(columns)], [len(frame)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def kind(self, name: str) -> Kind:
        """Return what a column's values are."""
        return stored_kind([column for part in self._parts if (column := part.get(name)) is not None])

    def column(self, name: str) -> Encoded:
        """Return a column of all rows; made when it is asked for first, then kept.

        Raises:
            KeyError: There is none of this name.
        """
        if name not in self._joined:
            if name not in self.names:
                raise KeyError(name)
            self._joined[name] = join([part.get(name) for part in self._parts], self._rows)
        return self._joined[name]

    def cell(self, name: str, position: int) -> Any:
        """Return one cell as a plain value; None where it is missing."""
        part = int(np.searchsorted(self._starts, position, side="right")) - 1
        column = self._parts[part].get(name)
        return None if column is None else _widened(column.value(position - int(self._starts[part])), self._kinds[name])

    def record(self, position: int) -> dict[str, Any]:
        """Return all that is known of a row as plain values for JSON; None where unknown."""
        return {name: self.cell(name, position) for name in self.names}

    def texts(self, name: str, positions: Iterable[int]) -> npt.NDArray[np.object_]:
        """Return the texts of some rows, "" where missing."""
        return np.array([self.cell(name, int(position)) or "" for position in positions], dtype=object)

    def find(self, name: str, text: str) -> npt.NDArray[np.int64]:
        """Return the positions of the rows whose column of texts holds a text, without joining its parts."""
        found: list[npt.NDArray[np.int64]] = []
        try:
            wanted = pa.scalar(text, pa.large_string())
        except UnicodeEncodeError:  # half a surrogate pair, as in an argument that is no UTF-8: no stored text holds it
            return np.empty(0, np.int64)
        for start, part in zip(self._starts, self._parts, strict=False):
            column = part.get(name)
            if column is None or column.codes is None:
                continue
            code = pc.index(column.cells, wanted).as_py()
            if code >= 0:
                found.append(np.flatnonzero(column.codes == code) + start)
        return np.concatenate([np.empty(0, np.int64), *found])

    def frame(self, positions: npt.NDArray[np.int64] | None = None) -> pd.DataFrame:
        """Return some rows, or all, as a table of pandas."""
        if not self.names:
            return to_frame([])
        columns = {name: self.column(name).dense(positions) for name in self.names}
        return to_frame([(len(self) if positions is None else len(positions), columns)])

    @cached_property
    def _kinds(self) -> dict[str, Kind]:
        return {name: self.kind(name) for name in self.names}


def _widened(value: Any, kind: Kind) -> Any:
    """Return a whole number as the column that holds it with others says it."""
    return float(value) if kind == "number" and value is not None else value
