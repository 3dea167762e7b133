"""Asking a gallery: the findings of other women that look most like one, and all that is known of each."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from index import QueryError
from index.answers import Answer, Neighbour, Question
from index.engines import UNIT_TOLERANCE
from index.exclusion import Exclusion, check_named, exclude_image, exclude_row, exclude_woman
from index.filters import Filter, parse_filter
from index.gallery import Gallery
from index.models import EmbeddingModel, PlaceBox, check_model


def ask(
    gallery: Gallery,
    vector: npt.ArrayLike,
    *,
    k: int = 10,
    patient_key: str | None = None,
    where: str | None = None,
    include_same_patient: bool = False,
    exclude_row: str | None = None,
) -> Answer:
    """Find what looks most like a vector.

    Args:
        gallery: Whom to ask.
        vector: (d,) unit length, of the gallery's own model.
        k: How many neighbours.
        patient_key: The query's woman as "dataset/patient_id"; None where unknown.
        where: Which rows may answer, see `index.filters`.
        include_same_patient: Let the query's own woman answer too.
        exclude_row: A row that must not answer.

    Raises:
        QueryError: The vector, k, the filter or the row can't be used, or the gallery is empty.
    """
    return ask_many(
        gallery,
        np.asarray(vector)[None],
        [patient_key],
        k=k,
        where=where,
        include_same_patient=include_same_patient,
        exclude_rows=[exclude_row],
    )[0]


def ask_many(
    gallery: Gallery,
    vectors: npt.ArrayLike,
    patient_keys: Sequence[str | None],
    *,
    k: int = 10,
    where: str | None = None,
    include_same_patient: bool = False,
    exclude_rows: Sequence[str | None] | None = None,
) -> list[Answer]:
    """Find what looks most like each of several vectors; each answer is the one that `ask` gives.

    Args:
        gallery: Whom to ask.
        vectors: (q, d) unit length, of the gallery's own model.
        patient_keys: (q,) each query's woman as "dataset/patient_id"; None where unknown.
        k: How many neighbours.
        where: Which rows may answer, see `index.filters`.
        include_same_patient: Let a query's own woman answer too.
        exclude_rows: (q,) a row that must not answer each query, None where there is none.

    Raises:
        QueryError: As for `ask`.
    """
    question = Question(k, where, include_same_patient)
    allowed = _allowed(gallery, question)
    matrix = _check_vectors(gallery, vectors)
    rows = [None] * len(matrix) if exclude_rows is None else list(exclude_rows)
    if len(patient_keys) != len(matrix) or len(rows) != len(matrix):
        raise QueryError("query", f"{len(matrix)} vectors for {len(patient_keys)} women", "pass one per vector")
    groups: dict[tuple[str | None, str | None], list[int]] = {}
    for query, group in enumerate(zip(patient_keys, rows, strict=True)):
        groups.setdefault(group, []).append(query)
    answers: dict[int, Answer] = {}
    for (key, row), queries in groups.items():
        exclusion = exclude_woman(gallery, key=key)
        barred = _barred(exclusion, include_same_patient)
        if row is not None:
            barred = barred | (np.arange(len(gallery)) == gallery.position(row))
        asked = replace(question, patient=exclusion.patient, dataset=exclusion.dataset, row_id=row)
        found = _search(gallery, matrix[queries], asked, allowed & ~barred, exclusion)
        answers.update(zip(queries, found, strict=True))
    return [answers[query] for query in range(len(matrix))]


def query_row(
    gallery: Gallery,
    row_id: str,
    *,
    k: int = 10,
    where: str | None = None,
    include_same_patient: bool = False,
) -> Answer:
    """Find what looks most like a finding of the gallery itself.

    Args:
        gallery: Whom to ask.
        row_id: The finding. Its woman does not answer, nor whoever else the gallery holds its image as; the row itself
            never does.
        k: How many neighbours.
        where: Which rows may answer, see `index.filters`.
        include_same_patient: Let the woman's other findings answer.

    Raises:
        QueryError: There is no such row, or k or the filter can't be used.
    """
    question = Question(k, where, include_same_patient, row_id=row_id)
    allowed = _allowed(gallery, question)
    position = gallery.position(row_id)
    record = gallery.record(position)
    exclusion = exclude_row(gallery, row_id)
    barred = _barred(exclusion, include_same_patient) | (np.arange(len(gallery)) == position)
    asked = replace(
        question,
        path=record.get("path"),
        box=Neighbour(0, position, 1.0, record).box,
        patient=record["patient_id"],
        dataset=record["dataset"],
    )
    return _search(gallery, gallery.vectors[position : position + 1], asked, allowed & ~barred, exclusion)[0]


def query_image(
    gallery: Gallery,
    embedder: EmbeddingModel[PlaceBox],
    path: Path,
    box: PlaceBox | None = None,
    *,
    k: int = 10,
    patient: str | None = None,
    dataset: str | None = None,
    where: str | None = None,
    include_same_patient: bool = False,
    spacing_mm: float | None = None,
    view: str | None = None,
) -> Answer:
    """Find what looks most like a place on an image, or a whole breast.

    The query's woman is who the asker says she is, who the file says she is, and whose image the gallery says
    it is; none of them answers. An id without a data set counts in every data set, and letter case does not count.

    Args:
        gallery: Whom to ask.
        embedder: The model that made the gallery.
        path: The image.
        box: x0, y0, x1, y1 in pixels of the stored image, half-open; None for the whole breast.
        k: How many neighbours.
        patient: The query's woman, where the file does not say.
        dataset: Her data set.
        where: Which rows may answer, see `index.filters`.
        include_same_patient: Let the query's own woman answer too.
        spacing_mm: Millimetres per pixel, where the file does not say.
        view: The view, where the file does not say.

    Raises:
        GalleryError: The gallery was made by another model.
        QueryError: k, the filter or a name can't be used, no row is of the data set, or the gallery is empty.
        MammoseekError: The image can't be read, or the box does not lie inside it.
    """
    check_model(gallery, embedder)
    corners = None
    if box is not None:
        x0, y0, x1, y1 = box
        corners = (x0, y0, x1, y1)
    question = Question(k, where, include_same_patient, str(path), corners, None, patient, dataset, spacing_mm, view)
    allowed = _allowed(gallery, question)
    check_named(gallery, patient, dataset)
    embedded = embedder.embed(Path(path), box, spacing_mm=spacing_mm, view=view)
    vectors = _check_vectors(gallery, np.asarray(embedded.vector)[None])
    named = [name for name in (patient, embedded.patient_id) if name is not None]
    exclusion = exclude_image(
        gallery,
        path=Path(path),
        sop_uid=getattr(getattr(embedded, "header", None), "sop_uid", None),
        patients=named,
        dataset=dataset,
    )
    asked = replace(question, patient=exclusion.patient, dataset=exclusion.dataset)
    return _search(gallery, vectors, asked, allowed & ~_barred(exclusion, include_same_patient), exclusion)[0]


def _allowed(gallery: Gallery, question: Question) -> npt.NDArray[np.bool_]:
    """Check what can be checked before anything is computed, and apply the filter."""
    if isinstance(question.k, bool) or not isinstance(question.k, int | np.integer) or question.k < 1:
        raise QueryError("k", f"{question.k!r} is not a number of neighbours", "ask for 1 or more")
    condition: Filter | None = None if question.where is None else parse_filter(question.where)
    if not len(gallery):
        raise QueryError(gallery.folder, "the gallery is empty", "add findings by `mammoseek index add`")
    return np.ones(len(gallery), np.bool_) if condition is None else condition.mask(gallery.records)


def _check_vectors(gallery: Gallery, vectors: npt.ArrayLike) -> npt.NDArray[np.float32]:
    matrix = np.asarray(vectors)
    dimension = gallery.identity.dimension
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


def _barred(exclusion: Exclusion, include_same_patient: bool) -> npt.NDArray[np.bool_]:
    return np.zeros_like(exclusion.rows) if include_same_patient else exclusion.rows


def _search(
    gallery: Gallery,
    vectors: npt.NDArray[np.float32],
    question: Question,
    allowed: npt.NDArray[np.bool_],
    exclusion: Exclusion,
) -> list[Answer]:
    count = int(allowed.sum())
    hits = gallery.index.search(vectors, min(int(question.k), len(gallery)), allowed)
    included = question.include_same_patient
    notes = [] if included else list(exclusion.notes)
    if included:
        notes.append("findings of the query's own woman are included, as asked")
    if count < question.k:
        notes.append(f"{question.k} neighbours were asked for, and only {count} rows may answer")
    answers = []
    for vector, similarities, positions in zip(vectors, hits.similarities, hits.positions, strict=True):
        found = positions >= 0
        neighbours = tuple(
            Neighbour(rank, int(position), float(similarity), gallery.record(int(position)))
            for rank, (position, similarity) in enumerate(
                zip(positions[found], similarities[found], strict=True), start=1
            )
        )
        answers.append(
            Answer(
                question,
                neighbours,
                None if included else exclusion.patient,
                None if included else exclusion.dataset,
                0 if included else int(exclusion.rows.sum()),
                count,
                tuple(notes),
                _replay(gallery, question, vector),
            )
        )
    return answers


def _replay(gallery: Gallery, question: Question, vector: npt.NDArray[np.float32]) -> dict[str, Any]:
    return {
        "gallery_generation": gallery.generation,
        "segments_digest": gallery.manifest.segments_digest,
        "model_digest": gallery.identity.model_digest,
        "preparation_digest": gallery.identity.preparation_digest,
        "granularity": gallery.identity.granularity,
        "vector_sha256": hashlib.sha256(vector.tobytes()).hexdigest(),
        "k": int(question.k),
        "where": question.where,
        "include_same_patient": question.include_same_patient,
    }
