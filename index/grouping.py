"""At most so many neighbours of one woman, study or lesion, and the nearest of each class side by side.

A woman has four views of every examination, and four pictures of one cancer are one precedent, not four. The limit
acts within the search: where a woman's quota is full, her other rows are barred and the engine is asked again, until
there are k neighbours, no further row reaches the minimum similarity, or no row is left. Taking rows best first and
passing over those of full groups is exact: it is the greedy choice in a partition matroid.
"""

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from index import QueryError
from index.conditions import Comparison, Joined, Literal
from index.filters import Filter, parse_filter
from index.gallery import Gallery
from index.nearest import Engine, Hits, Mask, ranks
from index.vectors import Positions, Vectors

GROUPS = ("woman", "study", "lesion")
"""What neighbours can be grouped by."""

STUDY_COLUMN, LESION_COLUMN = "study_id", "lesion_id"

MOST_CLASSES = 20
"""Values of a column that can be answered side by side."""

_SPARE = 8  # rows asked for beyond twice k, so that one search is nearly always enough
_PAIRS = 1 << 22  # pairs of a query and a row that are asked for at a time
_NOTHING = Hits(np.empty(0, np.float32), np.empty(0, np.int64))


class Groups:
    """Which group each row of a gallery belongs to, and the rows of each group.

    Args:
        codes: int (n,), each row's group, from 0.
    """

    def __init__(self, codes: npt.NDArray[np.integer]) -> None:
        self.codes = codes.astype(np.int64)
        self._order = np.argsort(self.codes, kind="stable")
        self._starts = np.concatenate([[0], np.cumsum(np.bincount(self.codes))]).astype(np.int64)

    @property
    def count(self) -> int:
        """Number of groups."""
        return len(self._starts) - 1

    def rows(self, groups: Sequence[int] | Positions) -> Positions:
        """Return the rows of some groups."""
        return np.concatenate(
            [np.empty(0, np.int64), *(self._order[self._starts[g] : self._starts[g + 1]] for g in groups)]
        )


_KNOWN: "weakref.WeakKeyDictionary[Gallery, dict[str, Groups]]" = weakref.WeakKeyDictionary()


def groups_of(gallery: Gallery, by: str) -> Groups:
    """Return the groups of a gallery's rows; made when they are asked for first, then kept with the gallery.

    A study or lesion id counts within its woman. A row whose study or lesion is not known is a group of its own.

    Args:
        gallery: The gallery.
        by: One of `GROUPS`: the woman, the column `study_id` or the column `lesion_id`.

    Raises:
        QueryError: There is no such grouping, or the gallery lacks the column or holds no texts in it.
    """
    known = _KNOWN.setdefault(gallery, {})
    if by not in known:
        known[by] = Groups(gallery.women if by == "woman" else _within_women(gallery, by))
    return known[by]


def _within_women(gallery: Gallery, by: str) -> Positions:
    name = {"study": STUDY_COLUMN, "lesion": LESION_COLUMN}.get(by)
    if name is None:
        raise QueryError("grouping", f"{by!r} is not one of {', '.join(GROUPS)}", "name one of them")
    if name not in gallery.table:
        raise QueryError("grouping", f"the gallery has no column {name}", "add one, or group by woman")
    column = gallery.table.column(name)
    women = gallery.women.astype(np.int64)
    if not column.known:
        return np.arange(len(women))
    values = column.codes if column.codes is not None else np.unique(column.cells, return_inverse=True)[1]
    keys = women * (int(values.max()) + 1) + values
    alone = np.flatnonzero(column.missing)
    keys[alone] = int(keys.max()) + 1 + np.arange(len(alone))
    return np.unique(keys, return_inverse=True)[1]


def admitted(codes: Positions, owners: Positions, most: int) -> npt.NDArray[np.bool_]:
    """Return which rows are among the first of their group.

    Args:
        codes: int64 (m,), the group of each row, best rows first.
        owners: int64 (m,), the query of each row, upwards.
        most: Rows of one group.

    Returns:
        bool (m,).

    >>> admitted(np.array([3, 3, 5, 3]), np.array([0, 0, 0, 1]), 1).tolist()
    [True, False, True, True]
    """
    order = np.lexsort((codes, owners))  # stable: the best of each group first
    start = np.append(True, (np.diff(codes[order]) != 0) | (np.diff(owners[order]) != 0))[: len(order)]
    kept = np.empty(len(order), np.bool_)
    kept[order] = ranks(np.cumsum(start)) < most
    return kept


def nearest_in_groups(
    engine: Engine,
    queries: Vectors,
    k: int,
    groups: Groups | None,
    most: int,
    *,
    minimum: float | None = None,
    allowed: Mask | None = None,
    barred: Sequence[Positions],
) -> list[Hits]:
    """Return the k nearest rows of each query, at most so many of one group.

    Args:
        engine: Whom to ask.
        queries: float32 (q, d), unit length.
        k: How many, at least 1.
        groups: The groups; None for no limit.
        most: Rows of one group.
        minimum: The smallest similarity, compared in float32.
        allowed: bool (n,), rows that may answer; all when omitted.
        barred: For each query the rows that must not answer it.

    Returns:
        q hits of one dimension, best first: k wherever there are k.
    """
    least = np.float32(-np.inf if minimum is None else minimum)
    found: list[Hits] = [_NOTHING] * len(queries)
    pending, barred = np.arange(len(queries)), list(barred)
    width = k if groups is None else 2 * k + _SPARE
    while len(pending):
        short = []
        block = max(1, _PAIRS // width)
        for part in (pending[start : start + block] for start in range(0, len(pending), block)):
            own = queries[part] if len(part) < len(queries) else queries
            hits = engine.search(own, width, allowed=allowed, barred=[barred[query] for query in part])
            kept = reach = (hits.positions >= 0) & (hits.similarities >= least)
            if groups is not None:
                kept = np.zeros(reach.shape, np.bool_)
                kept[reach] = admitted(groups.codes[hits.positions[reach]], np.nonzero(reach)[0], most)
                kept &= np.cumsum(kept, axis=1) <= k
            for line, query in enumerate(part.tolist()):
                found[query] = Hits(hits.similarities[line][kept[line]], hits.positions[line][kept[line]])
            if groups is not None:
                for line in np.flatnonzero((np.count_nonzero(kept, axis=1) < k) & reach[:, -1]).tolist():
                    passed = groups.codes[hits.positions[line][reach[line] & ~kept[line]]]
                    rest = np.setdiff1d(groups.rows(np.unique(passed)), hits.positions[line][kept[line]])
                    barred[part[line]] = np.concatenate([barred[part[line]], rest])
                    short.append(part[line])
        pending, width = np.array(short, np.int64), 2 * width
    return found


def within_groups(hits: Hits, groups: Groups | None, most: int) -> Hits:
    """Return the rows of one query, best first, at most so many of one group."""
    if groups is None:
        return hits
    kept = admitted(groups.codes[hits.positions], np.zeros(len(hits.positions), np.int64), most)
    return Hits(hits.similarities[kept], hits.positions[kept])


@dataclass(frozen=True)
class PerClass:
    """The nearest rows of each value of a column, side by side.

    Attributes:
        column: The column.
        values: Its values in the order of the answer; None for all that occur, at most `MOST_CLASSES`.
    """

    column: str = "pathology"
    values: tuple[Literal, ...] | None = ("benign", "malignant")

    @classmethod
    def parse(cls, text: str) -> "PerClass":
        """Read a column, with the values that are wanted after an equals sign.

        Raises:
            QueryError: There is no column in it, or nothing after the equals sign.

        >>> PerClass.parse("pathology"), PerClass.parse("density")
        (PerClass(column='pathology', values=('benign', 'malignant')), PerClass(column='density', values=None))
        >>> PerClass.parse("view=CC,MLO").values
        ('CC', 'MLO')
        """
        name, equals, listed = (part.strip() for part in text.partition("="))
        values = tuple(dict.fromkeys(value.strip() for value in listed.split(",") if value.strip()))
        if not name or (equals and not values):
            raise QueryError("per class", f"{text!r} names no column and values", "write it as in `density=C,D`")
        if values:
            return cls(name, values)
        return cls() if name == cls.column else cls(name, None)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return {"column": self.column, "values": None if self.values is None else list(self.values)}

    def filters(self, gallery: Gallery, where: str | None) -> dict[Literal, Filter]:
        """Return for each value the filter that its rows pass, the question's own filter included.

        Raises:
            QueryError: There is no such column, it holds no classes, or too many.
        """
        if self.column not in gallery.table:
            names = ", ".join(gallery.table.names)
            raise QueryError("per class", f"there is no column {self.column!r}", f"the columns are {names}")
        column = gallery.table.column(self.column)
        if column.kind == "number" and column.known:
            raise QueryError("per class", f"{self.column} holds numbers, which are no classes", "name another column")
        values = self.values
        if values is None:
            held = column.cells if column.codes is not None else np.unique(column.cells[~column.missing])
            if not 0 < len(held) <= MOST_CLASSES:
                raise QueryError(
                    "per class", f"{self.column} has {len(held)} values", f"name up to {MOST_CLASSES} of them"
                )
            values = tuple(sorted(held.tolist()))
        if len(values) > MOST_CLASSES:
            raise QueryError("per class", f"{len(values)} values were named", f"name up to {MOST_CLASSES} of them")
        own = None if where is None else parse_filter(where)
        filters: dict[Literal, Filter] = {}
        for value in values:
            literal = as_kind(value, column.kind)
            node = Comparison(self.column, "==", literal)
            text = f"{self.column} == {literal!r}"
            if own is None:
                filters[literal] = Filter(text, node)
            else:
                filters[literal] = Filter(f"({own.text}) and {text}", Joined(True, (own.node, node)))
        return filters


def as_kind(value: Literal, kind: str) -> Literal:
    """Return a value that was written as text as a column's own kind; as it is where it can't be one."""
    if isinstance(value, str) and kind == "boolean" and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if isinstance(value, str) and kind == "integer" and value.removeprefix("-").isdecimal():
        return int(value)
    return value
