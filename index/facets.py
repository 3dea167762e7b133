"""Preferring rows that agree with the query in a facet, such as the margin, without requiring it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from index import QueryError
from index.conditions import Literal
from index.gallery import Gallery
from index.grouping import as_kind
from index.vectors import Positions

SIZE = "size"
"""The facet that is no column of its own: the longer side of the box in millimetres."""

TERM_SEPARATOR = " + "
"""Joins several terms in one cell, as in `irregular + architectural distortion`."""

_BOX = ("x0", "y0", "x1", "y1")
_SIZE_COLUMNS = (*_BOX, "spacing_mm")
_FARTHEST_SIZE = 2.0  # sizes that differ by this factor or more differ altogether

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Facet:
    """What is preferred, and how much.

    A row that agrees ranks as if it were more similar by the weight than the same row that differs: half of the weight
    is added to its similarity where it agrees and taken away where it differs. Where the row or the query does not say,
    nothing is added: unknown is neutral.

    Two texts agree by the share of the terms that they have in common (Jaccard), numbers of a whole kind and truth
    values where they are equal, sizes by their ratio: fully where they are the same, half at a factor of 1.41, not at
    all from 2 on.

    Attributes:
        column: A column of texts, whole numbers or truth values, or `size`, the longer side of the box in millimetres.
        weight: How much, in units of similarity.
        value: What is preferred; None for what the query itself has.
    """

    column: str
    weight: float
    value: Literal | None = None

    @classmethod
    def parse(cls, text: str) -> "Facet":
        """Read a facet as it is written on a command line.

        Raises:
            QueryError: It is not a column, perhaps with a value after an equals sign, and a weight after a colon.

        >>> Facet.parse("margin:0.1")
        Facet(column='margin', weight=0.1, value=None)
        >>> Facet.parse("size=12.5:0.05")
        Facet(column='size', weight=0.05, value='12.5')
        """
        said, colon, weight = text.rpartition(":")
        column, equals, value = (part.strip() for part in said.partition("="))
        try:
            number = float(weight)
        except ValueError:
            number = math.nan
        if not colon or not column or (equals and not value):
            number = math.nan
        if math.isnan(number):
            raise QueryError("facet", f"{text!r} can't be read", "write it as in margin:0.1 or margin=spiculated:0.1")
        return cls(column, number, value if equals else None)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return {"column": self.column, "weight": float(self.weight), "value": self.value}


class Preference:
    """The facets of one question, with the values that one query wants.

    Args:
        gallery: Whom they are asked of.
        facets: The facets.
        known: What is known of the query; empty where nothing is.

    Raises:
        QueryError: There is no such column, it can't be a facet, a value does not fit it, or a weight can't be used.
    """

    def __init__(self, gallery: Gallery, facets: Sequence[Facet], known: Mapping[str, Any]) -> None:
        self._gallery = gallery
        self.facets = tuple(facets)
        self.wanted: tuple[Literal | None, ...] = tuple(self._want(facet, known) for facet in facets)
        self.bonus = sum(facet.weight for facet in facets) / 2

    @property
    def unknown(self) -> list[str]:
        """The facets in which nothing is preferred, because the query's value is not known."""
        return [facet.column for facet, value in zip(self.facets, self.wanted, strict=True) if value is None]

    def agreement(self, rows: Positions) -> Numbers:
        """Return what the facets add to the similarity of some rows, between -bonus and bonus.

        Args:
            rows: int64 (m,).

        Returns:
            float64 (m,).
        """
        total = np.zeros(len(rows))
        for facet, value in zip(self.facets, self.wanted, strict=True):
            if value is not None:
                agree = self._sizes(rows, float(value)) if facet.column == SIZE else self._cells(facet, rows, value)
                total += facet.weight * agree
        return total

    def _want(self, facet: Facet, known: Mapping[str, Any]) -> Literal | None:
        weight, table = facet.weight, self._gallery.table
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < math.inf:
            raise QueryError(f"facet {facet.column}", f"{weight!r} is no weight", "give a number above 0, such as 0.1")
        if facet.column == SIZE:
            missing = [name for name in _SIZE_COLUMNS if name not in table]
            if missing:
                raise QueryError("facet size", f"the gallery has no column {missing[0]}", "leave the facet out")
            return _millimetres(known) if facet.value is None else _size(facet.value)
        if facet.column not in table:
            names = ", ".join([*table.names, SIZE])
            raise QueryError("facet", f"there is no column {facet.column!r}", f"the columns are {names}")
        column = table.column(facet.column)
        if column.kind == "number" and column.known:
            raise QueryError(
                f"facet {facet.column}", "it holds numbers, which are rarely equal", "ask for a range by a filter"
            )
        value = known.get(facet.column) if facet.value is None else as_kind(facet.value, column.kind)
        kinds: dict[str, type] = {"text": str, "integer": int, "boolean": bool}
        if value is not None and column.known and type(value) is not kinds[column.kind]:
            raise QueryError(f"facet {facet.column}", f"{value!r} is not of the column's kind", f"it is {column.kind}")
        return value

    def _cells(self, facet: Facet, rows: Positions, value: Literal) -> Numbers:
        """Return 1/2 where the cells agree, -1/2 where they differ, 0 where they are missing."""
        column = self._gallery.table.column(facet.column)
        if column.codes is None:
            agree = np.where(column.cells[rows] == value, 0.5, -0.5)
        else:
            codes, place = np.unique(column.codes[rows], return_inverse=True)
            terms = set(str(value).split(TERM_SEPARATOR))
            texts = ["" if code < 0 else column.cells[int(code)].as_py() for code in codes]
            agree = np.array([_shared(terms, set(text.split(TERM_SEPARATOR))) for text in texts])[place] - 0.5
        return np.where(column.missing[rows], 0.0, agree)

    def _sizes(self, rows: Positions, value: float) -> Numbers:
        table = self._gallery.table
        columns = [table.column(name) for name in _SIZE_COLUMNS]
        if not all(column.known for column in columns):
            return np.zeros(len(rows))
        x0, y0, x1, y1, spacing = (np.asarray(column.cells[rows], np.float64) for column in columns)
        size = np.maximum(x1 - x0, y1 - y0) * spacing
        unknown = np.logical_or.reduce([column.missing[rows] for column in columns]) | ~(size > 0) | ~np.isfinite(size)
        ratio = np.abs(np.log2(np.where(unknown, 1.0, size) / value)) / math.log2(_FARTHEST_SIZE)
        return np.where(unknown, 0.0, 0.5 - np.minimum(ratio, 1.0))


def _shared(terms: set[str], others: set[str]) -> float:
    return len(terms & others) / len(terms | others)


def _millimetres(known: Mapping[str, Any]) -> float | None:
    """Return the size of the query's own box; None where it is not known."""
    if any(known.get(name) is None for name in _SIZE_COLUMNS):
        return None
    x0, y0, x1, y1 = (float(known[name]) for name in _BOX)
    size = max(x1 - x0, y1 - y0) * float(known["spacing_mm"])
    return size if 0 < size < math.inf else None


def _size(value: Literal) -> float:
    try:
        size = float(value)
    except ValueError:
        size = math.nan
    if isinstance(value, bool) or not 0 < size < math.inf:
        raise QueryError("facet size", f"{value!r} is no size", "give millimetres, as in size=12.5:0.1")
    return size
