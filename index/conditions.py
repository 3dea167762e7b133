"""What a filter is made of: conditions on columns, and which rows are known to meet them."""

import difflib
from dataclasses import dataclass
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from index import QueryError
from index.table import Encoded, RecordTable

Mask = npt.NDArray[np.bool_]
Literal = str | int | float | bool

_KIND_NAMES = {"text": "texts", "integer": "numbers", "number": "numbers", "boolean": "truth values"}


class Truth(NamedTuple):
    """For each row: known to be true, known to be false; neither where it is unknown."""

    true: Mask
    false: Mask


class Table:
    """The columns that a filter asks for, and errors that name it."""

    def __init__(self, records: RecordTable, text: str) -> None:
        self._records = records
        self.text = text

    def column(self, name: str) -> Encoded:
        """Return a column, or refuse one that is not there."""
        if name not in self._records:
            names = self._records.names
            close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]}? " if close else ""
            raise self.error(f"there is no column {name!r}", f"{hint}the columns are {', '.join(names)}")
        return self._records.column(name)

    def error(self, cause: str, remedy: str = "") -> QueryError:
        """Return an error about the filter."""
        return QueryError(f"filter {self.text!r}", cause, remedy)

    def check(self, name: str, column: Encoded, literal: Literal) -> None:
        """Refuse to compare a text with a number. A column that is empty throughout clashes with nothing."""
        kinds = {str: "texts", bool: "truth values"}
        wanted = kinds.get(type(literal), "numbers")
        found = _KIND_NAMES[column.kind]
        if column.known and found != wanted:
            example = {"texts": f"{str(literal)!r}", "numbers": "50", "truth values": "True"}[found]
            raise self.error(
                f"{name} holds {found} and is compared with {literal!r}",
                f"write the value as in `{name} == {example}`",
            )


@dataclass(frozen=True)
class Comparison:
    """A column against one value."""

    name: str
    operator: str
    literal: Literal

    def truth(self, table: Table) -> Truth:
        """Return what holds in each row."""
        column = table.column(self.name)
        table.check(self.name, column, self.literal)
        if column.kind == "boolean" and self.operator not in ("==", "!="):
            raise table.error(
                f"{self.name} holds truth values, which have no order",
                f"write `{self.name}` or `not {self.name}`",
            )
        if not column.known:
            return _unknown(column)
        return _known(column, column.compare(self.operator, _fitting(column, self.literal)))


@dataclass(frozen=True)
class Membership:
    """A column against a list of values."""

    name: str
    literals: tuple[Literal, ...]

    def truth(self, table: Table) -> Truth:
        """Return what holds in each row."""
        column = table.column(self.name)
        for literal in self.literals:
            table.check(self.name, column, literal)
        if not column.known:
            return _unknown(column)
        holds = [column.compare("==", _fitting(column, literal)) for literal in self.literals]
        return _known(column, reduce(np.logical_or, holds))


@dataclass(frozen=True)
class Missing:
    """Whether a column has no value."""

    name: str

    def truth(self, table: Table) -> Truth:
        """Return what holds in each row."""
        missing = table.column(self.name).missing
        return Truth(missing, ~missing)


@dataclass(frozen=True)
class Bare:
    """A column of truth values by itself."""

    name: str

    def truth(self, table: Table) -> Truth:
        """Return what holds in each row."""
        column = table.column(self.name)
        if not column.known:
            return _unknown(column)
        if column.kind != "boolean":
            raise table.error(
                f"{self.name} holds {_KIND_NAMES[column.kind]}, not truth values",
                f"compare it, as in `{self.name} == …`",
            )
        return _known(column, column.distinct)


@dataclass(frozen=True)
class Not:
    """The opposite; of what is unknown, unknown."""

    part: "Node"

    def truth(self, table: Table) -> Truth:
        """Return what holds in each row."""
        true, false = self.part.truth(table)
        return Truth(false, true)


@dataclass(frozen=True)
class Joined:
    """`and` where all, `or` where not."""

    all: bool
    parts: tuple["Node", ...]

    def truth(self, table: Table) -> Truth:
        """Return what holds in each row."""
        truths = [part.truth(table) for part in self.parts]
        both = np.logical_and.reduce([t.true if self.all else t.false for t in truths])
        either = np.logical_or.reduce([t.false if self.all else t.true for t in truths])
        return Truth(both, either) if self.all else Truth(either, both)


Node = Comparison | Membership | Missing | Bare | Not | Joined


def _fitting(column: Encoded, literal: Literal) -> Literal:
    return float(literal) if column.kind == "number" else literal


def _unknown(column: Encoded) -> Truth:
    nothing = np.zeros(len(column), np.bool_)
    return Truth(nothing, nothing)


def _known(column: Encoded, holds: Any) -> Truth:
    # Of a text, each distinct one was looked at once.
    truth = np.asarray(holds, np.bool_)
    return Truth(column.spread(truth, False), column.spread(~truth, False))
