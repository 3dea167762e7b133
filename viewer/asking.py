"""From a question of the API to the gallery's answer: the place is embedded, the woman kept from herself, and searched.

The query's woman is whoever the file, the table of detections or the gallery says she is; where the gallery holds the
image, those it holds it as are left out too (`index.exclusion`). Views of two different women are no one question.
"""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from classifiers.context import CONTEXT_COLUMNS, context_of_image
from classifiers.views import fuse_vectors
from index.answers import Answer
from index.asking import Asked
from index.exclusion import exclude_position, join_exclusions
from index.gallery import Gallery
from index.questions import Question, View
from index.records import fold_name
from index.retrieval import asked_images, asked_rows
from viewer import ViewerError
from viewer.catalogue import Catalogue, ImageEntry
from viewer.embedworker import Corners, EmbeddedView, EmbedWorker, FilmKey
from viewer.opinions import OpinionJob
from viewer.problems import NotFoundError
from viewer.pyramid import Pyramids
from viewer.questionbody import PlaceBody, QuestionBody, check_box, question_id
from viewer.searching import SearchPool
from viewer.telling import AnswerTeller

WHOLE_BREAST_NOTE = "the gallery compares whole breasts: the box that was drawn is not used"


@dataclass(frozen=True, eq=False)
class AskedView:
    """One view of the query.

    Attributes:
        entry: Its image.
        box: The place on it; None for the whole breast.
        film: The image as the model reads it.
    """

    entry: ImageEntry
    box: Corners | None
    film: FilmKey


@dataclass(frozen=True, eq=False)
class Prepared:
    """A question that can be asked.

    Attributes:
        plain: Its normal form.
        terms: What the gallery is asked, but for the query.
        views: The query's images; none of a row.
        row: The row that is the query; None where it is on images.
        notes: What its asker should know.
    """

    plain: dict[str, Any]
    terms: Question
    views: tuple[AskedView, ...]
    row: str | None
    notes: tuple[str, ...]

    @property
    def question_id(self) -> str:
        """Names the question."""
        return question_id(self.plain)


@dataclass(frozen=True)
class EmbedTimes:
    """Milliseconds that a question's views took: waiting for the embedder, and in it."""

    queued: float = 0.0
    embedding: float = 0.0
    cached: bool = True


class Asker:
    """Asks the gallery for readers and programs.

    Args:
        gallery: The gallery.
        catalogue: The images that can be asked about.
        worker: What embeds them.
        pyramids: Knows the files' versions.
        searches: What searches.
        teller: Puts answers into the API's words.
    """

    def __init__(
        self,
        gallery: Gallery,
        catalogue: Catalogue,
        worker: EmbedWorker,
        pyramids: Pyramids,
        searches: SearchPool,
        teller: AnswerTeller,
    ) -> None:
        self._gallery, self._catalogue, self._worker = gallery, catalogue, worker
        self._pyramids, self._searches, self._teller = pyramids, searches, teller

    def prepare(self, body: QuestionBody) -> Prepared:
        """Check a question.

        Raises:
            MammoseekError: An id is unknown, a box lies outside its image, or the views are of two women.
        """
        for row in (body.row, *body.positive, *body.negative):
            if row is not None:
                self.position(row)
        views = tuple(self.view(place) for place in body.places)
        women = {fold_name(name): name for view in views if (name := _woman(view.entry)) is not None}
        if len(women) > 1:
            raise ViewerError(
                "views", f"are of {len(women)} different women", "ask with views of one finding of one woman"
            )
        unused = self._gallery.identity.granularity == "breast" and any(place.box for place in body.places)
        notes = (WHOLE_BREAST_NOTE,) if unused else ()
        plain = body.plain()
        if unused:
            plain = {**plain, "box": None, "further": [{**one, "box": None} for one in plain["further"]]}
        return Prepared(plain, body.terms(), views, body.row, notes)

    def view(self, place: PlaceBody) -> AskedView:
        """Check a place on an image.

        Raises:
            MammoseekError: The image is unknown or can't be read, or the box does not lie inside it.
        """
        entry = self._catalogue.detailed(place.image)
        assert entry.details is not None, "its header was read"
        header = entry.details.header
        box = None if place.box is None else check_box(place.box, header.rows, header.columns)
        if self._gallery.identity.granularity == "breast":
            box = None
        elif box is None:
            raise ViewerError("box", "is missing: the gallery compares places", "draw a box, or name a detection")
        return AskedView(entry, box, self.film(entry))

    def film(self, entry: ImageEntry) -> FilmKey:
        """Return an image as the model reads it: with scale and view from the gallery where the file is silent.

        Raises:
            NotFoundError: The file is gone.
        """
        details = entry.details
        spacing, view = (None, None) if details is None else (details.stated_spacing_mm, details.stated_view)
        return FilmKey(entry.path, entry.frame, spacing, view, self._pyramids.version(entry.path, entry.frame).tag)

    def position(self, row: str) -> int:
        """Return where a row stands.

        Raises:
            NotFoundError: There is no such row.
        """
        found = self._gallery.table.find("row_id", row)
        if not len(found):
            raise NotFoundError(f"row {row[:80]!r}", "the gallery has none of this name", "reload the page")
        return int(found[0])

    async def embedded(self, views: Sequence[AskedView]) -> tuple[list[EmbeddedView], EmbedTimes]:
        """Return the vectors of some views.

        Raises:
            BusyError: Too many questions wait for the embedder.
            MammoseekError: An image can't be read or compared.
        """
        begun = time.perf_counter()
        futures: list[Future[EmbeddedView]] = []
        cached = all(self._worker.known(view.film, view.box) is not None for view in views)
        for view in views:
            futures.append(self._worker.embed(view.film, view.box))
        made = await asyncio.gather(*(asyncio.wrap_future(future) for future in futures))
        took = 1000 * (time.perf_counter() - begun)
        work = 0.0 if cached else min(took, sum(one.milliseconds for one in made))
        return list(made), EmbedTimes(max(0.0, took - work), work, cached)

    async def ask(self, question: Prepared, record: Any = None) -> dict[str, Any]:
        """Return the answer to a question as the API has it.

        Args:
            question: The question.
            record: Called with what is answered before it is, by a thread of its own; an error of it is the answer.

        Raises:
            MammoseekError: The question can't be answered.
        """
        begun = time.perf_counter()
        embedded, times = await self.embedded(question.views)

        def finish(answer: Answer, searched: float) -> dict[str, Any]:
            told = self._teller.answer(question, answer)
            if record is not None:
                record(question, answer, told)
            told["milliseconds"] = {
                "queued": round(times.queued, 2),
                "embedding": round(times.embedding, 2),
                "search": round(searched, 2),
                "all": round(1000 * (time.perf_counter() - begun), 2),
            }
            return told

        future = self._searches.submit(question.terms, lambda: self.asked(question, embedded), finish)
        return await asyncio.wrap_future(future)

    def asked(self, question: Prepared, embedded: Sequence[EmbeddedView]) -> Asked:
        """Return the query that a question makes, her own woman's rows left out.

        Args:
            question: The question.
            embedded: The vectors of its views.
        """
        if question.row is not None:
            return asked_rows(self._gallery, [question.row], question.terms)
        views = [View(one.entry.path, one.box, None, one.film.spacing_mm, one.film.view) for one in question.views]
        women = [name for one in question.views if (name := _woman(one.entry)) is not None]
        terms = replace(question.terms, patient=women[0] if women else None)
        asked = asked_images(self._gallery, views, embedded, terms)
        held = [position for one in question.views for position in one.entry.rows]
        exclusion = join_exclusions([asked.exclusion, *(exclude_position(self._gallery, one) for one in held)])
        known = {name: value for name, value in asked.known.items() if value is not None}
        return replace(asked, exclusion=exclusion, known={**self._context(question, embedded), **known})

    def _context(self, question: Prepared, embedded: Sequence[EmbeddedView]) -> dict[str, Any]:
        """Return what is known of the case besides its pictures, of several views the first that knows it."""
        known: dict[str, Any] = {}
        for view, made in reversed(list(zip(question.views, embedded, strict=True))):
            record = self._gallery.record(view.entry.rows[0]) if view.entry.rows else None
            details = view.entry.details
            told = context_of_image(made.header, record, view.film.view)
            told["spacing_mm"] = None if details is None else details.spacing_mm
            known |= {name: value for name, value in told.items() if value is not None}
        return known

    def opinion_job(self, question: Prepared, embedded: Sequence[EmbeddedView]) -> OpinionJob:
        """Return what classifies the place that a question is about, fitted without its woman."""
        asked = self.asked(question, embedded)
        vector = asked.views[0]
        if len(asked.views) > 1:
            vector = fuse_vectors(asked.views, np.zeros(len(asked.views), np.int64))[0].astype(np.float32)
        keys = frozenset(self._gallery.patient_key(position) for position in asked.exclusion.positions.tolist())
        context = tuple((name, asked.known[name]) for name in CONTEXT_COLUMNS if asked.known.get(name) is not None)
        return OpinionJob(np.ascontiguousarray(vector, np.float32).tobytes(), keys, context)


def _woman(entry: ImageEntry) -> str | None:
    return None if entry.details is None else entry.details.woman
