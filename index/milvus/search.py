"""From what Milvus proposes to the answer that the engine of a folder would give.

The filter, the exclusion of the query's woman, the limit of rows per woman and the minimum similarity act within
Milvus's search. It only proposes: the similarities are computed again from the stored vectors as every engine does
(`index.nearest`), with equal ones in the order of their row ids, and as many rows are fetched as that takes.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from index import QueryError
from index.answers import Answer, ClassCount
from index.conditions import Literal
from index.filters import parse_filter
from index.grouping import MOST_CLASSES, PerClass
from index.milvus.address import among
from index.milvus.exclusion import BarredWomen
from index.milvus.filter import Condition, every, translate
from index.milvus.gallery import MilvusGallery
from index.milvus.nearest import Nearest, Proposals, Similarities, ordered
from index.milvus.rows import (
    KEY,
    NUMBER,
    RECORD,
    ROW,
    VECTOR,
    StoredColumn,
    decode_record,
    decode_vectors,
    sample_table,
)
from index.milvus.store import Row
from index.precedents import closeness
from index.questions import Question
from index.refinement import Movement, movement
from index.vectors import StoredVectors, Vectors

LARGEST_K = 10_000
"""Neighbours that may be asked for."""


@dataclass(frozen=True, eq=False)
class Asked:
    """One query.

    Attributes:
        question: What is asked, and what it is about.
        vector: float32 (1, d), unit length.
        barred: The query's own woman.
        own: The row that is the query itself and must not answer, even where its woman may.
    """

    question: Question
    vector: Vectors
    barred: BarredWomen
    own: str | None = None


class Search:
    """What is the same for all queries of one call; checked before anything is computed.

    Args:
        gallery: Whom to ask.
        question: How many neighbours, and which.

    Raises:
        QueryError: The question can't be asked of the gallery, or not on Milvus, or the gallery is empty.
    """

    def __init__(self, gallery: MilvusGallery, question: Question) -> None:
        question.check()
        if question.k is not None and question.k > LARGEST_K:
            raise QueryError("k", f"Milvus can't return {question.k} neighbours", f"ask for {LARGEST_K} at most")
        if question.facets:
            raise _only_in_a_folder("facets")
        if question.typical is not None:
            raise _only_in_a_folder("typicality")
        self._gallery, self._question = gallery, question
        where = None if question.where is None else parse_filter(question.where)
        columns = gallery.by_name
        if not len(gallery):
            raise QueryError(gallery.folder, "the gallery is empty", "add findings by `mammoseek index add`")
        self._parts: dict[Literal | None, Condition] = {}
        if question.per_class is None:
            self._parts[None] = True if where is None else translate(where, columns)
        else:
            filters = _classes(gallery, question.per_class).filters(_Columns(gallery), question.where)  # type: ignore[arg-type]
            self._parts |= {value: translate(own, columns) for value, own in filters.items()}
        self._movement, self._examples = self._move()
        self._proposals = Proposals(gallery, question)

    def run(self, asked: Sequence[Asked]) -> list[Answer]:
        """Return one answer per query. Queries of the same woman are one request to Milvus."""
        groups: dict[tuple[tuple[str, ...], str | None], list[int]] = {}
        for number, query in enumerate(asked):
            groups.setdefault((self._hers(query), query.own), []).append(number)
        answers: dict[int, Answer] = {}
        for numbers in groups.values():
            answers |= zip(numbers, self._run([asked[number] for number in numbers]), strict=True)
        return [answers[number] for number in range(len(asked))]

    def _hers(self, query: Asked) -> tuple[str, ...]:
        return () if query.question.include_same_patient else query.barred.keys

    def _run(self, asked: Sequence[Asked]) -> list[Answer]:
        """Return the answers to queries that the same rows may answer."""
        hers = self._hers(asked[0])
        own = [row_id for row_id in (asked[0].own,) if row_id is not None]
        if self._movement is not None and self._question.refinement.exclude_examples:  # type: ignore[union-attr]
            own += self._examples
        vectors = np.concatenate([query.vector for query in asked])
        moved = vectors if self._movement is None else self._movement.move(vectors)
        counts, found = [], []
        for part in self._parts.values():
            condition = every(
                part, among(KEY, hers, none=True) if hers else True, among(ROW, own, none=True) if own else True
            )
            count = 0 if condition is False else self._gallery.count(_text(condition))
            counts.append(count)
            nobody = Nearest([], np.empty(0, np.float32), True)
            found.append(self._proposals.nearest(moved, _text(condition), count) if count else [nobody] * len(asked))
        excluded = self._gallery.count(among(KEY, hers)) if hers else 0
        return [
            self._answer(query, vector, [part[number] for part in found], counts, excluded)
            for number, (query, vector) in enumerate(zip(asked, moved, strict=True))
        ]

    def _answer(self, query: Asked, vector: Vectors, found: list[Nearest], counts: list[int], excluded: int) -> Answer:
        question, gallery = query.question, self._gallery
        included = question.include_same_patient
        notes = ["findings of the query's own woman are included, as asked"] if included else list(query.barred.notes)
        for (value, _), nearest, count in zip(self._parts.items(), found, counts, strict=True):
            notes += nearest.notes
            if question.k is not None and len(nearest.rows) < question.k:
                notes.append(self._shortage(value, len(nearest.rows), count))
        rows = [row for nearest in found for row in nearest.rows]
        similarities = np.concatenate([nearest.similarities for nearest in found])
        near = closeness(gallery.precedents(), self._best(query, rows, similarities), question.least_percentile)
        if near.note is not None:
            notes.append(near.note)
        classes = None
        if question.per_class is not None:
            classes = tuple(
                ClassCount(value, len(nearest.rows), count)  # type: ignore[arg-type]
                for value, nearest, count in zip(self._parts, found, counts, strict=True)
            )
        return Answer(
            question,
            np.array([row[NUMBER] for row in rows], np.int64),
            similarities,
            _Records({row[NUMBER]: row[RECORD] for row in rows}, tuple(gallery.columns)),
            None if included else query.barred.patient,
            None if included else query.barred.dataset,
            excluded,
            sum(counts),
            tuple(notes),
            self._replay(vector),
            classes,
            closeness=near,
        )

    def _shortage(self, value: Literal | None, came: int, available: int) -> str:
        """Return why fewer neighbours came than were asked for."""
        question = self._question
        of = "" if question.per_class is None else f" with {question.per_class.column} {value}"
        asked = f"{question.k} neighbours{of} were asked for, and only "
        if came == available:
            return f"{asked}{available} rows may answer"
        reasons = []
        if question.per_group:
            reasons.append(f"at most {question.per_group} of one {question.group_by}")
        if question.minimum is not None:
            reasons.append(f"none less similar than {question.minimum}")
        reasons = reasons or ["Milvus's index found no more"]
        return f"{asked}{came} of the {available} rows that may answer came: {' and '.join(reasons)}"

    def _best(self, query: Asked, rows: list[Row], similarities: Similarities) -> float | None:
        """Return the best similarity to the query of a row that is not its own woman's; None where there is none."""
        others = [place for place, row in enumerate(rows) if row[KEY] not in query.barred.keys]
        if not others:
            return None
        if self._movement is not None:  # the examples moved the query: how near is what it was?
            return float(ordered(query.vector[0], [rows[place] for place in others])[0].max())
        return float(similarities[others].max())

    def _move(self) -> tuple[Movement | None, list[str]]:
        """Look the examples of a refinement up."""
        refinement = self._question.refinement
        if refinement is None:
            return None, []
        names = list(dict.fromkeys([*refinement.positive, *refinement.negative]))
        found = self._gallery.named(names, [NUMBER, VECTOR])
        for name in names:
            if name not in found:
                self._gallery.row(name, [])
        rows = sorted(found.values(), key=lambda row: row[NUMBER])
        places = {row[ROW]: place for place, row in enumerate(rows)}
        identity = self._gallery.identity
        held = StoredVectors([decode_vectors(rows, identity.dimension)], identity.dimension)
        # All that it asks of a gallery.
        examples: Any = SimpleNamespace(identity=identity, vectors=held, position=places.__getitem__)
        return movement(examples, refinement), names

    def _replay(self, vector: npt.NDArray[np.float32]) -> dict[str, Any]:
        identity = self._gallery.identity
        return {
            "gallery": str(self._gallery.address),
            "gallery_generation": self._gallery.generation,
            "model_digest": identity.model_digest,
            "preparation_digest": identity.preparation_digest,
            "granularity": identity.granularity,
            "engine": f"milvus {self._gallery.index.kind}",
            **self._question.terms,
            "vector_sha256": hashlib.sha256(vector.tobytes()).hexdigest(),
        }


@dataclass(frozen=True)
class _Records:
    """What is known of the rows that answer, read when it is asked for."""

    texts: Mapping[int, str]
    columns: Sequence[StoredColumn]

    def __call__(self, number: int) -> dict[str, Any]:
        return decode_record(self.texts[number], self.columns)


@dataclass(frozen=True)
class _Columns:
    """The columns of a gallery as `PerClass` looks at them."""

    gallery: MilvusGallery
    table: Any = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "table", sample_table(self.gallery.columns))


def _classes(gallery: MilvusGallery, per_class: PerClass) -> PerClass:
    """Return the classes with their values named: all that occur, where the question names none."""
    column = gallery.by_name.get(per_class.column)
    if per_class.values is not None or column is None or not column.known or column.kind == "number":
        return per_class
    values = gallery.distinct(column, MOST_CLASSES + 1)
    if len(values) > MOST_CLASSES:
        cause = f"{column.name} has more than {MOST_CLASSES} values"
        raise QueryError("per class", cause, f"name up to {MOST_CLASSES} of them")
    return PerClass(column.name, tuple(sorted(values)))


def _only_in_a_folder(what: str) -> QueryError:
    return QueryError(
        what, "can't be asked of a gallery on Milvus", "leave it out, or copy the gallery to a folder and ask there"
    )


def _text(condition: Condition) -> str:
    return "" if condition is True else str(condition)
