"""Asking a gallery: the findings of other women that look most like one, and all that is known of each.

A filter, the exclusion of the query's own woman, the limit of rows per woman and the minimum similarity act within the
search: k neighbours come back wherever there are k.
"""

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from index import QueryError
from index.answers import Answer
from index.asking import Asked, Search
from index.engines import UNIT_TOLERANCE
from index.exclusion import check_named, exclude_image, exclude_position, exclude_woman, join_exclusions
from index.gallery import Gallery
from index.models import EmbeddedPlace, EmbeddingModel, check_model
from index.questions import Question, View
from index.vectors import Vectors

__all__ = [
    "Answer",
    "Question",
    "View",
    "ask",
    "ask_many",
    "asked_images",
    "asked_rows",
    "query_image",
    "query_image_views",
    "query_row",
    "query_row_views",
    "query_rows",
]

_ANYTHING = Question()


def ask(
    gallery: Gallery,
    vector: npt.ArrayLike,
    question: Question = _ANYTHING,
    *,
    patient_key: str | None = None,
    exclude_row: str | None = None,
) -> Answer:
    """Find what looks most like a vector.

    Args:
        gallery: Whom to ask.
        vector: (d,) unit length, of the gallery's own model.
        question: How many neighbours, and which.
        patient_key: The query's woman as "dataset/patient_id"; None where unknown.
        exclude_row: A row that must not answer.

    Raises:
        QueryError: The vector, the question or the row can't be used, or the gallery is empty.
    """
    return ask_many(gallery, np.asarray(vector)[None], [patient_key], question, exclude_rows=[exclude_row])[0]


def ask_many(
    gallery: Gallery,
    vectors: npt.ArrayLike,
    patient_keys: Sequence[str | None],
    question: Question = _ANYTHING,
    *,
    exclude_rows: Sequence[str | None] | None = None,
) -> list[Answer]:
    """Find what looks most like each of several vectors; each answer is the one that `ask` gives.

    Args:
        gallery: Whom to ask.
        vectors: (q, d) unit length, of the gallery's own model.
        patient_keys: (q,) each query's woman as "dataset/patient_id"; None where unknown.
        question: How many neighbours of each, and which.
        exclude_rows: (q,) a row that must not answer each query, None where there is none.

    Raises:
        QueryError: As for `ask`.
    """
    search = Search(gallery, question)
    matrix, rows = check_batch(vectors, gallery.identity.dimension, patient_keys, exclude_rows)
    women = {key: exclude_woman(gallery, key) for key in dict.fromkeys(patient_keys)}
    places = {row: gallery.position(row) for row in dict.fromkeys(rows) if row is not None}
    terms = {each.name: getattr(question, each.name) for each in fields(question)}
    asked = []
    for number, (key, row) in enumerate(zip(patient_keys, rows, strict=True)):
        exclusion = women[key]
        own = Question(**{**terms, "patient": exclusion.patient, "dataset": exclusion.dataset, "row_id": row})
        asked.append(Asked(own, matrix[number : number + 1], exclusion, None if row is None else [places[row]]))
    return search.run(asked)


def query_row(gallery: Gallery, row_id: str, question: Question = _ANYTHING) -> Answer:
    """Find what looks most like a finding of the gallery itself.

    Args:
        gallery: Whom to ask.
        row_id: The finding. Its woman does not answer, nor whoever else the gallery holds its image as; the row itself
            never does.
        question: How many neighbours, and which.

    Raises:
        QueryError: There is no such row, or the question can't be used.
    """
    return query_rows(gallery, [row_id], question)[0]


def query_rows(gallery: Gallery, row_ids: Sequence[str], question: Question = _ANYTHING) -> list[Answer]:
    """Find what looks most like each of several findings of the gallery; each answer is the one of `query_row`.

    Args:
        gallery: Whom to ask.
        row_ids: The findings.
        question: How many neighbours of each, and which.

    Raises:
        QueryError: As for `query_row`.
    """
    search = Search(gallery, question)
    return search.run([asked_rows(gallery, [row_id], question) for row_id in row_ids])


def query_row_views(gallery: Gallery, row_ids: Sequence[str], question: Question = _ANYTHING) -> Answer:
    """Find what looks most like one finding of which the gallery holds several views, such as CC and MLO.

    Args:
        gallery: Whom to ask.
        row_ids: Its rows, as for `query_row`.
        question: How many neighbours, and which; its `fusion` says how the similarities to the views become one.

    Raises:
        QueryError: There is no such row, the rows are of several women, or the question can't be used.
    """
    search = Search(gallery, question)
    return search.run([asked_rows(gallery, row_ids, question)])[0]


def asked_rows(gallery: Gallery, row_ids: Sequence[str], question: Question = _ANYTHING) -> Asked:
    """Return the query that rows of the gallery make, which are views of one finding.

    Args:
        gallery: Whom to ask.
        row_ids: The rows, see `query_row_views`.
        question: What is asked.

    Raises:
        QueryError: No row is named, there is no such row, or the rows are of several women.
    """
    if not row_ids:
        raise QueryError("query", "no row is named", "name one or more")
    row_ids = list(dict.fromkeys(row_ids))
    positions = [gallery.position(row_id) for row_id in row_ids]
    if len({int(gallery.women[position]) for position in positions}) > 1:
        raise QueryError("query", f"{' and '.join(row_ids)} are not of one woman", "name views of one finding")
    records = [gallery.record(position) for position in positions]
    views = [
        View(record.get("path"), _corners(record), row_id) for record, row_id in zip(records, row_ids, strict=True)
    ]
    known: dict[str, Any] = {}
    for record in reversed(records):
        known.update({name: value for name, value in record.items() if value is not None})
    asked = replace(_about(question, views), patient=records[0]["patient_id"], dataset=records[0]["dataset"])
    exclusion = join_exclusions([exclude_position(gallery, position) for position in positions])
    return Asked(asked, gallery.vectors.take(np.array(positions, np.int64)), exclusion, positions, known)


def query_image(
    gallery: Gallery, embedder: EmbeddingModel[Any], path: Path, box: Any = None, question: Question = _ANYTHING
) -> Answer:
    """Find what looks most like a place on an image, or a whole breast.

    The query's woman is who the asker says she is, who the file says she is, and whose image the gallery says
    it is; none of them answers. An id without a data set counts in every data set, and letter case does not count.

    Args:
        gallery: Whom to ask.
        embedder: The model that made the gallery.
        path: The image.
        box: The model's own kind of box: x0, y0, x1, y1 in pixels of the stored image, half-open; None for the whole
            breast.
        question: How many neighbours, and which; and the query's woman, her data set, the spacing and the view, where
            the file does not say.

    Raises:
        GalleryError: The gallery was made by another model.
        QueryError: The question or a name can't be used, no row is of the data set, or the gallery is empty.
        MammoseekError: The image can't be read, or the box does not lie inside it.
    """
    view = View(str(path), box, None, question.spacing_mm, question.view)
    return query_image_views(gallery, embedder, [view], question)


def query_image_views(
    gallery: Gallery, embedder: EmbeddingModel[Any], views: Sequence[View], question: Question = _ANYTHING
) -> Answer:
    """Find what looks most like a finding that several images show, such as CC and MLO.

    Args:
        gallery: Whom to ask.
        embedder: The model that made the gallery.
        views: The images, the box on each being the model's own kind of box.
        question: As for `query_image`, but what it says of spacing and view does not count; its `fusion` says how the
            similarities to the views become one.

    Raises:
        MammoseekError: As for `query_image`, or no view is named.
    """
    check_model(gallery, embedder)
    search = Search(gallery, question)
    if not views or any(view.path is None for view in views):
        raise QueryError("query", "an image is missing", "name one or more")
    check_named(gallery, question.patient, question.dataset)
    embedded = [
        embedder.embed(Path(str(view.path)), view.box, spacing_mm=view.spacing_mm, view=view.view) for view in views
    ]
    return search.run([asked_images(gallery, views, embedded, question)])[0]


def asked_images(
    gallery: Gallery, views: Sequence[View], embedded: Sequence[EmbeddedPlace], question: Question = _ANYTHING
) -> Asked:
    """Return the query that places on images make, which are views of one finding and embedded already.

    Args:
        gallery: Whom to ask.
        views: The images, at least one.
        embedded: What the gallery's own model made of each, and what its file says.
        question: What is asked; of whom, see `query_image`.

    Raises:
        QueryError: A vector can't be used, or what the asker says of the woman can't keep her from herself.
    """
    check_named(gallery, question.patient, question.dataset)
    stacked = np.stack([np.asarray(place.vector) for place in embedded])
    vectors = check_vectors(stacked, gallery.identity.dimension)
    names = [question.patient, *(place.patient_id for place in embedded)]
    exclusion = join_exclusions(
        [
            exclude_image(
                gallery,
                path=Path(str(view.path)),
                sop_uid=getattr(getattr(place, "header", None), "sop_uid", None),
                patients=[name for name in dict.fromkeys(names) if name is not None],
                dataset=question.dataset,
            )
            for view, place in zip(views, embedded, strict=True)
        ]
    )
    asked = replace(_about(question, views), patient=exclusion.patient, dataset=exclusion.dataset)
    known = {"view": asked.view, "spacing_mm": asked.spacing_mm}
    known.update(zip(("x0", "y0", "x1", "y1"), asked.box or (), strict=False))
    return Asked(asked, vectors, exclusion, None, known)


def _about(question: Question, views: Sequence[View]) -> Question:
    """Return a question with what it is about."""
    plain = [replace(view, box=None if view.box is None else tuple(int(x) for x in view.box)) for view in views]
    first = plain[0]
    return replace(
        question,
        path=first.path,
        box=first.box,  # type: ignore[arg-type]
        row_id=first.row_id,
        spacing_mm=first.spacing_mm,
        view=first.view,
        further_views=tuple(plain[1:]),
    )


def _corners(record: dict[str, Any]) -> tuple[int, ...] | None:
    corners = [record.get(name) for name in ("x0", "y0", "x1", "y1")]
    return None if None in corners else tuple(int(corner) for corner in corners if corner is not None)


def check_vectors(vectors: npt.ArrayLike, dimension: int) -> Vectors:
    """Return query vectors as float32 (q, d), or refuse them.

    Raises:
        QueryError: They are of another kind or length than the gallery's, not finite, or not of length 1.
    """
    matrix = np.asarray(vectors)
    if matrix.ndim != 2 or matrix.shape[1] != dimension or matrix.dtype.kind != "f":
        raise QueryError(
            "query",
            f"the vector is {matrix.dtype} {matrix.shape[1:]}, and the gallery's are float32 ({dimension},)",
            "embed it with the gallery's model",
        )
    lengths = np.linalg.norm(matrix.astype(np.float64), axis=1)
    if not np.isfinite(lengths).all():
        raise QueryError("query", "the vector is not finite", "embed it again")
    if (np.abs(lengths - 1) > UNIT_TOLERANCE).any():
        wrong = lengths[np.argmax(np.abs(lengths - 1))]
        raise QueryError("query", f"the vector has the length {wrong:.4g}, not 1", "divide it by its length")
    return np.ascontiguousarray(matrix, np.float32)


def check_batch(
    vectors: npt.ArrayLike,
    dimension: int,
    patient_keys: Sequence[str | None],
    exclude_rows: Sequence[str | None] | None,
) -> tuple[Vectors, list[str | None]]:
    """Return query vectors as float32 (q, d) and the row that must not answer each, or refuse them.

    Raises:
        QueryError: A vector can't be used, or there are not as many women or rows as vectors.
    """
    matrix = check_vectors(vectors, dimension)
    rows: list[str | None] = [None] * len(matrix) if exclude_rows is None else list(exclude_rows)
    if len(patient_keys) != len(matrix) or len(rows) != len(matrix):
        raise QueryError("query", f"{len(matrix)} vectors for {len(patient_keys)} women", "pass one per vector")
    return matrix, rows
