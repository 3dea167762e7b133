"""The best rows of a query by exact similarity, from what Milvus proposes: at most so many of one group.

Milvus is asked for more rows than are wanted, their similarities are computed again from the stored vectors as every
engine does (`index.nearest`), and equal ones are ordered by row id. The answer stands when no row that was not returned
can belong to it, by more than Milvus's error of rounding. Until then more rows are asked for, and beyond what Milvus
returns at most, the rows that are left when those that are certain are barred.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from index import QueryError
from index.grouping import LESION_COLUMN, STUDY_COLUMN
from index.milvus.address import among, quote
from index.milvus.filter import Condition, dynamic, every, literal, some
from index.milvus.gallery import MilvusGallery
from index.milvus.rows import KEY, RECORD, ROW, StoredColumn, decode_record, decode_vectors
from index.milvus.store import Row
from index.nearest import best_first, exact_similarities, rounding_margin
from index.questions import LARGEST_RANGE, Question
from index.vectors import StoredVectors, Vectors

_SPARE = 16  # rows asked for beyond what is wanted, so that one search is enough unless there are many ties
_FIRST_RANGE = 256  # rows asked for at first where all that are similar enough are wanted
_WIDEN = 4
_RETURNED = 8_192  # rows that one request may return in all

_Group = tuple[str, Any]
"""A woman and None, a woman and her study or lesion, or a row id and `_ALONE`."""

_ALONE = object()

Similarities = npt.NDArray[np.float32]


@dataclass(eq=False)
class Nearest:
    """The best rows of one query so far.

    Attributes:
        rows: They, best first.
        similarities: float32 (m,).
        settled: Whether no row that has not been seen can be among them.
        certain: The groups that have answered as often as they may, and the rows that are better than any that has not
            been seen: neither need be looked for any more.
        notes: What a reader of the answer should know.
    """

    rows: list[Row]
    similarities: Similarities
    settled: bool
    certain: frozenset[_Group] = frozenset()
    notes: tuple[str, ...] = ()


class Proposals:
    """Milvus's proposals for one question, settled.

    Args:
        gallery: Whom to ask.
        question: How many neighbours, and how they are grouped.

    Raises:
        QueryError: The gallery lacks the column that they are grouped by.
    """

    def __init__(self, gallery: MilvusGallery, question: Question) -> None:
        self._gallery, self._question = gallery, question
        self._margin = float(rounding_margin(gallery.identity.dimension))
        self._minimum = np.float32(-np.inf if question.minimum is None else question.minimum)
        self._wanted = LARGEST_RANGE if question.k is None else int(question.k)
        self._column: StoredColumn | None = None
        if question.per_group and question.group_by != "woman":
            name = {"study": STUDY_COLUMN, "lesion": LESION_COLUMN}[question.group_by]
            self._column = gallery.by_name.get(name)
            if self._column is None:
                raise QueryError("grouping", f"the gallery has no column {name}", "add one, or group by woman")

    def nearest(self, vectors: Vectors, condition: str, available: int) -> list[Nearest]:
        """Return the best rows of each query.

        Args:
            vectors: float32 (q, d), unit length.
            condition: What the rows meet that may answer; empty for all.
            available: How many those are, at least 1.
        """
        found: dict[int, Nearest] = {}
        pending = list(range(len(vectors)))
        first = _FIRST_RANGE if self._question.k is None else self._wanted * (2 if self._question.per_group else 1)
        width = min(first + _SPARE, available, self._gallery.most)
        while pending:
            unsettled = []
            block = max(1, _RETURNED // width)
            for part in (pending[start : start + block] for start in range(0, len(pending), block)):
                returned = self._gallery.nearest(list(vectors[part]), width, condition)
                for query, rows in zip(part, returned, strict=True):
                    nearest = self._select(vectors[query], rows, _least(rows, width, available))
                    if not nearest.settled and width < min(self._gallery.most, available):
                        unsettled.append(query)
                    else:
                        found[query] = self._finish(vectors[query], rows, nearest, condition)
            pending, width = unsettled, min(width * _WIDEN, available, self._gallery.most)
        return [found[query] for query in range(len(vectors))]

    def _finish(self, vector: npt.NDArray[np.float32], rows: list[Row], nearest: Nearest, condition: str) -> Nearest:
        """Look beyond the rows that Milvus returns at most: past the groups that have answered as often as they may."""
        passed: frozenset[_Group] = frozenset()
        while not nearest.settled and not nearest.certain <= passed:
            passed |= nearest.certain
            others = every(condition or True, *self._without(passed))
            further = self._gallery.nearest([vector], self._gallery.most, str(others))[0]
            rows = list({row[ROW]: row for row in [*rows, *further]}.values())
            nearest = self._select(vector, rows, _least(further, self._gallery.most))
        if not nearest.settled:
            few = f"Milvus returns {self._gallery.most} rows at most, and others are as similar: some may be missing"
            nearest.notes = (few,)
        if self._question.k is None and len(nearest.rows) == self._wanted:
            nearest.notes = (f"only the best {self._wanted} neighbours are named; more may be similar enough",)
        return nearest

    def _select(self, vector: npt.NDArray[np.float32], rows: list[Row], least: float) -> Nearest:
        """Return the best of some rows.

        Args:
            vector: float32 (d,), the query.
            rows: All rows but those that Milvus gives a smaller score than `least`, and those of groups passed over.
            least: That score.
        """
        similarities, order = ordered(vector, rows)
        bound = least + self._margin
        most = self._question.per_group
        chosen: list[int] = []
        counts: dict[_Group, int] = {}
        certain: set[_Group] = set()
        for place in order.tolist():
            if similarities[place] < self._minimum or len(chosen) == self._wanted:
                break
            group = self._group(rows[place])
            counts[group] = counts.get(group, 0) + 1
            if most and counts[group] > most:
                continue
            chosen.append(place)
            # What is certain need not be looked for any more: the row, and its group where that is complete.
            if similarities[place] > bound:
                certain.add((rows[place][ROW], _ALONE))
                if most and counts[group] == most:
                    certain.add(group)
        enough = len(chosen) == self._wanted and similarities[chosen[-1]] > bound
        settled = bool(least == -np.inf or enough or bound < self._minimum)
        return Nearest([rows[place] for place in chosen], similarities[chosen], settled, frozenset(certain))

    def _group(self, row: Row) -> _Group:
        """Return the group of a row: its woman, or her study or lesion; where that is not known it is alone."""
        if not self._question.per_group:
            return row[ROW], _ALONE
        if self._column is None:
            return row[KEY], None
        value = decode_record(row[RECORD], [self._column])[self._column.name]
        return (row[KEY], value) if value is not None else (row[ROW], _ALONE)

    def _without(self, groups: frozenset[_Group]) -> list[Condition]:
        """Return the conditions that leave groups out."""
        alone = sorted(name for name, value in groups if value is _ALONE)
        women = sorted(name for name, value in groups if value is None)
        conditions: list[Condition] = [among(ROW, alone, none=True)] if alone else []
        conditions += [among(KEY, women, none=True)] if women else []
        if (column := self._column) is not None:
            cell = dynamic(column)
            conditions += [
                some(f"{KEY} != {quote(key)}", f"(not exists {cell})", f"{cell} != {literal(column, value)}")
                for key, value in sorted(groups, key=repr)
                if value is not _ALONE
            ]
        return conditions


def ordered(vector: npt.NDArray[np.float32], rows: list[Row]) -> tuple[Similarities, npt.NDArray[np.int64]]:
    """Return the exact similarities of some rows to a query, float32 (m,), and their places best first, int64 (m,)."""
    stored = StoredVectors([decode_vectors(rows, len(vector))], len(vector))
    names = np.array([row[ROW] for row in rows], dtype=object)
    owners, places = np.zeros(len(rows), np.int64), np.arange(len(rows))
    similarities = exact_similarities(vector[None], stored, owners, places)
    return similarities, best_first(owners, similarities, places, lambda asked: names[asked], len(rows))


def _least(rows: list[Row], width: int, available: int | None = None) -> float:
    """Return the score that no row exceeds which Milvus did not return.

    Args:
        rows: What it returned.
        width: How many it was asked for.
        available: How many there are, where that is known.
    """
    complete = len(rows) < width or (available is not None and len(rows) >= available)
    return -np.inf if complete else float(min(row["score"] for row in rows))
