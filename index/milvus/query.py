"""Asking a gallery on Milvus: the questions of `index.retrieval`, and its answers where the index is exact.

Facets, typicality and several views of one finding can't be asked of Milvus.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from index.answers import Answer, Neighbour
from index.manifest import GalleryIdentity, check_identity
from index.milvus.exclusion import bar_image, bar_row, bar_woman, check_named
from index.milvus.gallery import MilvusGallery
from index.milvus.rows import KEY, NUMBER, RECORD, VECTOR, decode_record, decode_vectors
from index.milvus.search import Asked, Search
from index.models import EmbeddingModel
from index.questions import Question
from index.retrieval import check_batch, check_vectors

_ANYTHING = Question()


def ask(
    gallery: MilvusGallery,
    vector: npt.ArrayLike,
    question: Question = _ANYTHING,
    *,
    patient_key: str | None = None,
    exclude_row: str | None = None,
) -> Answer:
    """Find what looks most like a vector, see `index.retrieval.ask`.

    Args:
        gallery: Whom to ask.
        vector: (d,) unit length, of the gallery's own model.
        question: How many neighbours, and which.
        patient_key: The query's woman as "dataset/patient_id"; None where unknown.
        exclude_row: A row that must not answer.

    Raises:
        QueryError: The vector, the question or the row can't be used, or the gallery is empty.
        GalleryError: Milvus can't be reached.
    """
    return ask_many(gallery, np.asarray(vector)[None], [patient_key], question, exclude_rows=[exclude_row])[0]


def ask_many(
    gallery: MilvusGallery,
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
        GalleryError: As for `ask`.
    """
    search = Search(gallery, question)
    matrix, rows = check_batch(vectors, gallery.identity.dimension, patient_keys, exclude_rows)
    women = {key: bar_woman(gallery, key) for key in dict.fromkeys(patient_keys)}
    for row in dict.fromkeys(rows):
        if row is not None:
            gallery.row(row, [])
    asked = []
    for number, (key, row) in enumerate(zip(patient_keys, rows, strict=True)):
        barred = women[key]
        own = replace(question, patient=barred.patient, dataset=barred.dataset, row_id=row)
        asked.append(Asked(own, matrix[number : number + 1], barred, row))
    return search.run(asked)


def query_row(gallery: MilvusGallery, row_id: str, question: Question = _ANYTHING) -> Answer:
    """Find what looks most like a finding of the gallery itself, see `index.retrieval.query_row`.

    Args:
        gallery: Whom to ask.
        row_id: The finding. Its woman does not answer, nor whoever else the gallery holds its image as; the row itself
            never does.
        question: How many neighbours, and which.

    Raises:
        QueryError: There is no such row, or the question can't be used.
        GalleryError: Milvus can't be reached.
    """
    search = Search(gallery, question)
    row = gallery.row(row_id, [NUMBER, KEY, RECORD, VECTOR])
    record = decode_record(row[RECORD], gallery.columns)
    asked = replace(
        question,
        path=record.get("path"),
        box=Neighbour(0, row[NUMBER], 1.0, record).box,
        row_id=row_id,
        patient=record["patient_id"],
        dataset=record["dataset"],
        spacing_mm=None,
        view=None,
        further_views=(),
    )
    vector = decode_vectors([row], gallery.identity.dimension)
    return search.run([Asked(asked, vector, bar_row(gallery, row[KEY], record), row_id)])[0]


def query_image(
    gallery: MilvusGallery, embedder: EmbeddingModel[Any], path: Path, box: Any = None, question: Question = _ANYTHING
) -> Answer:
    """Find what looks most like a place on an image, or a whole breast, see `index.retrieval.query_image`.

    Args:
        gallery: Whom to ask.
        embedder: The model that made the gallery.
        path: The image.
        box: The model's own kind of box: x0, y0, x1, y1 in pixels of the stored image, half-open; None for the whole
            breast.
        question: How many neighbours, and which; and the query's woman, her data set, the spacing and the view, where
            the file does not say.

    Raises:
        GalleryError: The gallery was made by another model, or Milvus can't be reached.
        QueryError: The question or a name can't be used, no row is of the data set, or the gallery is empty.
        MammoseekError: The image can't be read, or the box does not lie inside it.
    """
    made_with = GalleryIdentity(embedder.digest, embedder.preparation_digest, embedder.granularity, embedder.dimension)
    check_identity(gallery.folder, gallery.identity, made_with)
    search = Search(gallery, question)
    check_named(gallery, question.patient, question.dataset)
    embedded = embedder.embed(Path(path), box, spacing_mm=question.spacing_mm, view=question.view)
    vector = check_vectors(np.asarray(embedded.vector)[None], gallery.identity.dimension)
    barred = bar_image(
        gallery,
        path=Path(path),
        sop_uid=getattr(getattr(embedded, "header", None), "sop_uid", None),
        patients=[name for name in (question.patient, embedded.patient_id) if name is not None],
        dataset=question.dataset,
    )
    corners = None
    if box is not None:
        x0, y0, x1, y1 = (int(corner) for corner in box)
        corners = (x0, y0, x1, y1)
    asked = replace(
        question,
        path=str(path),
        box=corners,
        row_id=None,
        patient=barred.patient,
        dataset=barred.dataset,
        further_views=(),
    )
    return search.run([Asked(asked, vector, barred)])[0]
