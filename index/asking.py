"""From checked questions to answers: the search, and what is said of what it found."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from index import QueryError
from index.answers import Answer, ClassCount
from index.conditions import Literal
from index.exclusion import Exclusion
from index.facets import Preference
from index.filters import parse_filter
from index.gallery import Gallery
from index.grouping import groups_of, nearest_in_groups, within_groups
from index.nearest import Mask
from index.precedents import closeness, precedents_of
from index.questions import LARGEST_RANGE, Question
from index.ranking import Ranked, Scoring, rank_rows
from index.refinement import movement
from index.typicalrows import TypicalRows
from index.vectors import Positions, Vectors


@dataclass(frozen=True, eq=False)
class Asked:
    """One query.

    Attributes:
        question: What is asked, and what it is about.
        views: float32 (v, d), unit length.
        exclusion: The rows of the query's own woman.
        own: Rows that are the query itself and must not answer, even where its woman may.
        known: What is known of the query, by column.
    """

    question: Question
    views: Vectors
    exclusion: Exclusion
    own: Sequence[int] | None = None
    known: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class _Part:
    """The rows that may answer: those of one class, or all that pass the filter.

    Attributes:
        value: The class; None for all.
        allowed: bool (n,); None where all rows may answer.
        passing: How many they are.
    """

    value: Literal | None
    allowed: Mask | None
    passing: int

    def available(self, barred: Positions) -> int:
        """Return how many rows are left when some are barred, each named once."""
        return self.passing - (len(barred) if self.allowed is None else int(np.count_nonzero(self.allowed[barred])))

    def among(self, rows: Mask) -> "_Part":
        """Return the part of it that lies among some rows, bool (n,)."""
        allowed = rows if self.allowed is None else self.allowed & rows
        return _Part(self.value, allowed, int(np.count_nonzero(allowed)))


class Search:
    """What is the same for all queries of one call; checked before anything is computed.

    Args:
        gallery: Whom to ask.
        question: How many neighbours, and which.

    Raises:
        QueryError: The question can't be asked of the gallery, or the gallery is empty.
    """

    def __init__(self, gallery: Gallery, question: Question) -> None:
        question.check()
        condition = None if question.where is None else parse_filter(question.where)
        if not len(gallery):
            raise QueryError(gallery.folder, "the gallery is empty", "add findings by `mammoseek index add`")
        self._gallery, self._question = gallery, question
        masks: dict[Literal | None, Mask | None]
        if question.per_class is None:
            masks = {None: None if condition is None else gallery.passing(condition)}
        else:
            filters = question.per_class.filters(gallery, question.where)
            masks = {value: gallery.passing(own) for value, own in filters.items()}
        self._parts = [
            _Part(value, mask, len(gallery) if mask is None else int(np.count_nonzero(mask)))
            for value, mask in masks.items()
        ]
        self._groups = groups_of(gallery, question.group_by) if question.per_group else None
        self._movement = None if question.refinement is None else movement(gallery, question.refinement)
        self._typical = None if question.typical is None else TypicalRows(gallery, question.typical)
        Preference(gallery, question.facets, {})

    def run(self, asked: Sequence[Asked]) -> list[Answer]:
        """Return one answer per query."""
        barred = [self._barred(query) for query in asked]
        parts, held_out = self._parts, barred
        if self._typical is not None:
            union, beyond = self._typical.divide([self._unseen(query) for query in asked])
            parts = [part.among(union) for part in parts]
            held_out = [np.union1d(own, rows) for own, rows in zip(barred, beyond, strict=True)]
        views = [query.views for query in asked]
        if self._movement is not None:
            views = [self._movement.move(own) for own in views]
        preferences = [self._preference(query) for query in asked]
        if self._question.facets or any(len(own) > 1 for own in views):
            found = [self._ranked(parts, *each) for each in zip(views, preferences, held_out, strict=True)]
        else:
            found = self._nearest(parts, views, held_out)
        precedents, origin = precedents_of(self._gallery), self._origin()
        answers = []
        for place, query in enumerate(asked):
            counts = [part.available(held_out[place]) for part in parts]
            atypical = None
            if self._typical is not None:
                atypical = sum(part.available(barred[place]) for part in self._parts) - sum(counts)
            answers.append(
                self._answer(
                    query, views[place], preferences[place], counts, atypical, found[place], precedents, origin
                )
            )
        return answers

    def _barred(self, query: Asked) -> Positions:
        """Return the rows that must not answer a query, each once."""
        positions = self._unseen(query)
        if self._movement is not None and self._question.refinement.exclude_examples:  # type: ignore[union-attr]
            positions = np.union1d(positions, self._movement.examples)
        return positions

    def _unseen(self, query: Asked) -> Positions:
        """Return the rows that must not say either which rows are typical: the query's own, each once."""
        positions = query.exclusion.positions
        if query.question.include_same_patient:
            positions = positions[:0]
        return positions if query.own is None else np.union1d(positions, np.array(query.own, np.int64))

    def _preference(self, query: Asked) -> Preference | None:
        facets = self._question.facets
        return Preference(self._gallery, facets, query.known) if facets else None

    def _nearest(
        self, parts: Sequence[_Part], views: Sequence[Vectors], barred: Sequence[Positions]
    ) -> list[list[Ranked]]:
        """Return what is nearest to one vector per query, by part."""
        question, engine = self._question, self._gallery.index
        queries = np.concatenate([np.empty((0, self._gallery.identity.dimension), np.float32), *views])
        by_part = []
        for part in parts:
            if question.k is None:
                assert question.minimum is not None, "that was checked"
                near = engine.within(queries, question.minimum, allowed=part.allowed, barred=barred)
                hits = [within_groups(own, self._groups, question.per_group) for own in near]
            else:
                hits = nearest_in_groups(
                    engine,
                    queries,
                    min(int(question.k), len(self._gallery)),
                    self._groups,
                    question.per_group,
                    minimum=question.minimum,
                    allowed=part.allowed,
                    barred=barred,
                )
            by_part.append([Ranked(own.positions, own.similarities) for own in hits])
        return [list(ranked) for ranked in zip(*by_part, strict=True)]

    def _ranked(
        self, parts: Sequence[_Part], views: Vectors, preference: Preference | None, barred: Positions
    ) -> list[Ranked]:
        """Return what scores best for one query, by part."""
        question, gallery = self._question, self._gallery
        scoring = Scoring(views, question.fusion, preference, gallery.vectors)
        return [
            rank_rows(
                gallery.index,
                scoring,
                gallery.names_of,
                k=None if question.k is None else min(int(question.k), len(gallery)),
                minimum=question.minimum,
                groups=self._groups,
                most=question.per_group,
                allowed=part.allowed,
                barred=barred,
            )
            for part in parts
        ]

    def _answer(
        self,
        query: Asked,
        views: Vectors,
        preference: Preference | None,
        counts: list[int],
        atypical: int | None,
        found: list[Ranked],
        precedents: Any,
        origin: Mapping[str, Any],
    ) -> Answer:
        question, exclusion = query.question, query.exclusion
        included = question.include_same_patient
        notes = list(self._gallery.notes)
        notes += ["findings of the query's own woman are included, as asked"] if included else exclusion.notes
        if preference is not None:
            notes += [
                f"{name} of the query is not known, so nothing was preferred by it" for name in preference.unknown
            ]
        if question.typical is not None and atypical is not None:
            notes.append(question.typical.note(atypical))
        if question.k is None:
            found = [self._cut(ranked, notes) for ranked in found]
        else:
            for part, ranked, count in zip(self._parts, found, counts, strict=True):
                if len(ranked.positions) < question.k:
                    notes.append(self._shortage(part, len(ranked.positions), count))
        whole = found[0]
        if len(found) > 1:
            agreements = None
            if whole.agreements is not None:
                agreements = np.concatenate([r.agreements for r in found if r.agreements is not None])
            whole = Ranked(
                np.concatenate([r.positions for r in found]),
                np.concatenate([r.similarities for r in found]),
                agreements,
            )
        near = closeness(precedents, self._best(query, whole), question.least_percentile)
        if near.note is not None:
            notes.append(near.note)
        classes = None
        if question.per_class is not None:
            classes = tuple(
                ClassCount(part.value, len(ranked.positions), count)  # type: ignore[arg-type]
                for part, ranked, count in zip(self._parts, found, counts, strict=True)
            )
        return Answer(
            question,
            whole.positions,
            whole.similarities,
            self._gallery.record,
            None if included else exclusion.patient,
            None if included else exclusion.dataset,
            0 if included else len(exclusion.positions),
            sum(counts),
            tuple(notes),
            {**origin, "vector_sha256": hashlib.sha256(views.tobytes()).hexdigest()},
            classes,
            () if preference is None else preference.wanted,
            None if preference is None else whole.agreements,
            near,
            atypical,
        )

    def _cut(self, ranked: Ranked, notes: list[str]) -> Ranked:
        beyond = len(ranked.positions) - LARGEST_RANGE
        if beyond <= 0:
            return ranked
        notes.append(f"{beyond} more neighbours are similar enough: only the best {LARGEST_RANGE} are named")
        agreements = None if ranked.agreements is None else ranked.agreements[:LARGEST_RANGE]
        return Ranked(ranked.positions[:LARGEST_RANGE], ranked.similarities[:LARGEST_RANGE], agreements)

    def _shortage(self, part: _Part, came: int, available: int) -> str:
        """Return why fewer neighbours came than were asked for."""
        question = self._question
        of = "" if question.per_class is None else f" with {question.per_class.column} {part.value}"
        asked = f"{question.k} neighbours{of} were asked for, and only "
        if came == available:
            return f"{asked}{available} rows may answer"
        reasons = []
        if question.per_group:
            reasons.append(f"at most {question.per_group} of one {question.group_by}")
        if question.minimum is not None:
            reasons.append(f"none less similar than {question.minimum}")
        return f"{asked}{came} of the {available} rows that may answer came: {' and '.join(reasons)}"

    def _best(self, query: Asked, ranked: Ranked) -> float | None:
        """Return the best similarity to the query of a row that is not its own woman's; None where there is none."""
        positions, similarities = ranked.positions, ranked.similarities
        if query.question.include_same_patient:
            others = ~np.isin(positions, query.exclusion.positions)
            positions, similarities = positions[others], similarities[others]
        if not len(positions):
            return None
        if self._movement is not None:  # the examples moved the query: how near is what it was?
            scoring = Scoring(query.views, self._question.fusion, None, self._gallery.vectors)
            similarities = scoring.rows(positions)[0]
        return float(similarities.max())

    def _origin(self) -> dict[str, Any]:
        """Return what it takes to ask the same again, but for the vectors."""
        gallery, manifest = self._gallery, self._gallery.manifest
        return {
            "gallery_generation": gallery.generation,
            "segments_digest": manifest.segments_digest,
            "model_digest": gallery.identity.model_digest,
            "preparation_digest": gallery.identity.preparation_digest,
            "granularity": gallery.identity.granularity,
            "engine": gallery.index.description.get("engine"),
            "index_sha256": None if manifest.index is None else manifest.index.cache.sha256,
            "precedents_sha256": None if manifest.precedents is None else manifest.precedents.sha256,
            **self._question.terms,
        }
