"""A model and its gallery at work together: ask it, classify by it, draw its answers."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from classifiers import ClassificationError
from classifiers.classification import Classification, classify
from classifiers.context import context_of_image
from classifiers.filling import Place, gallery_embedder, index_device
from classifiers.leaks import trained_on
from classifiers.targets import choose_targets
from classifiers.views import fuse_vectors
from embedder.checkpoint import ModelError, read_card
from embedder.crops import RoiCrop
from embedder.embedding import EmbeddedFinding, Embedder
from embedder.findings import Box
from embedder.header import Header
from embedder.montage import Panel, caption_lines, check_montage_path, draw_montage
from embedder.preparation import PreparationConfig
from embedder.rois import read_crop
from errors import MammoseekError
from index import GalleryError
from index.exclusion import Exclusion, check_named, exclude_image, exclude_row
from index.gallery import Gallery
from index.layout import MODEL_FOLDER
from index.manifest import GalleryIdentity
from index.milvus.address import is_milvus_address
from index.retrieval import Answer, Question, View, query_image_views, query_row_views

_ANYTHING = Question()


class DrawnGallery(Protocol):
    """What a picture of an answer takes from a gallery, in a folder or on Milvus."""

    @property
    def identity(self) -> GalleryIdentity:
        """What it is bound to."""

    @property
    def generation(self) -> int:
        """Counts the changes of its content."""

    def record_of(self, row_id: str) -> dict[str, Any]:
        """Return all that is known of a row."""

    def thumbnail(self, row_id: str) -> bytes | None:
        """Return the small picture of a row."""


@dataclass(frozen=True)
class Source:
    """What is asked about: a place on an image, a whole breast image, or a row of the gallery.

    Args:
        path: The image.
        box: The place, in pixels of the stored image; None for a whole breast.
        row_id: The row, instead of an image.
        patient: The woman, where the file does not name her.
        dataset: The data set whose id that is; every one where it is not named.
        spacing_mm: Millimetres per pixel, where neither the file nor the gallery knows.
        view: The view, where neither the file nor the gallery knows.
        frame: The frame of a multi-frame image, from 1.
        allow_for_processing: Accept a For Processing image.

    Raises:
        ClassificationError: It names both an image and a row or neither, or says of a row what the gallery knows.
    """

    path: Path | None = None
    box: Box | None = None
    row_id: str | None = None
    patient: str | None = None
    dataset: str | None = None
    spacing_mm: float | None = None
    view: str | None = None
    frame: int | None = None
    allow_for_processing: bool = False

    def __post_init__(self) -> None:
        if (self.path is None) == (self.row_id is None):
            raise ClassificationError("query", "it needs either an image or a row of the gallery", "name one of them")
        said = [getattr(self, field.name) for field in fields(self) if field.name != "row_id"]
        if self.row_id is not None and any(said):
            raise ClassificationError(
                f"row {self.row_id}", "the gallery knows its box, woman, spacing and view", "leave these options out"
            )


@dataclass(frozen=True)
class SourceClassification:
    """What a gallery says of one place, by label column.

    Attributes:
        source: What was classified.
        targets: One classification by label column.
        excluded_patient: The woman who was kept from herself; None where she is unknown.
        notes: What a reader should know.
        further: Other views that were classified with it.
    """

    source: Source
    targets: tuple[Classification, ...]
    excluded_patient: str | None
    notes: tuple[str, ...]
    further: tuple[Source, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        views = [
            {
                "path": None if source.path is None else str(source.path),
                "box": None if source.box is None else list(source.box),
                "row_id": source.row_id,
            }
            for source in (self.source, *self.further)
        ]
        return {
            "query": views[0],
            "further": views[1:],
            "targets": [{**target.to_dict(), "excluded_patient": self.excluded_patient} for target in self.targets],
            "excluded_patient": self.excluded_patient,
            "notes": list(self.notes),
        }


def ask_source(
    gallery: Place,
    source: Source,
    question: Question = _ANYTHING,
    *,
    further: Sequence[Source] = (),
    model: Path | None = None,
    device: str = "cpu",
    montage: Path | None = None,
    skip_damaged: bool = False,
) -> Answer:
    """Find the most similar findings of other women.

    Args:
        gallery: The gallery.
        source: What is asked about.
        question: How many neighbours, which, and what is preferred.
        further: Other views of the same finding.
        model: Folder of the gallery's model, where it is not the copy that it keeps.
        device: Where to compute.
        montage: Write a picture of the query and its neighbours here.
        skip_damaged: Go on without damaged segments of the gallery.

    Raises:
        MammoseekError: The gallery, its model, the image, the question or the montage's place can't be used.
    """
    if montage is not None:
        check_montage_path(montage)
    if len({each.row_id is None for each in (source, *further)}) > 1:
        raise ClassificationError("query", "some views are rows of the gallery and some images", "use one kind only")
    if is_milvus_address(str(gallery)):
        return _ask_milvus(str(gallery), source, question, further, model, device, montage)
    folder = Path(gallery)
    stored = Gallery.open(folder, skip_damaged=skip_damaged, device=index_device(device))
    if source.row_id is not None:
        if model is not None:
            gallery_embedder(folder, model=model, device=device)
        rows = [each.row_id for each in (source, *further) if each.row_id is not None]
        answer = query_row_views(stored, rows, question)
    else:
        sources = [complete_source(each, stored) for each in (source, *further)]
        source = sources[0]
        embedder = _SourceEmbedder(gallery_embedder(folder, model=model, device=device), sources)
        views = [View(str(_path(each)), each.box, None, each.spacing_mm, each.view) for each in sources]
        asked = replace(question, patient=source.patient, dataset=source.dataset)
        answer = query_image_views(stored, embedder, views, asked)
    if montage is not None:
        draw_answer(answer, source, stored, _preparation(folder, model), montage)
    return answer


def _ask_milvus(
    address: str,
    source: Source,
    question: Question,
    further: Sequence[Source],
    model: Path | None,
    device: str,
    montage: Path | None,
) -> Answer:
    from index.milvus.gallery import MilvusGallery
    from index.milvus.query import query_image, query_row

    if further:
        raise ClassificationError("query", "Milvus is asked with one view at a time", "ask with one of them")
    if montage is not None and model is None:
        raise ModelError(address, "a gallery on Milvus keeps no copy of its model", "name the model by --model")
    with MilvusGallery.open(address) as stored:
        if source.row_id is not None:
            answer = query_row(stored, source.row_id, question)
        else:
            embedder = _SourceEmbedder(gallery_embedder(address, model=model, device=device), [source])
            asked = replace(
                question,
                patient=source.patient,
                dataset=source.dataset,
                spacing_mm=source.spacing_mm,
                view=source.view,
            )
            answer = query_image(stored, embedder, _path(source), source.box, asked)
        if montage is not None:
            assert model is not None, "it was asked for above"
            draw_answer(answer, source, stored, read_card(model)[0].preparation, montage)
    return answer


def classify_source(
    gallery: Place,
    source: Source,
    *,
    further: Sequence[Source] = (),
    targets: tuple[str, ...] | None = None,
    model: Path | None = None,
    device: str = "cpu",
) -> SourceClassification:
    """Classify a place by its neighbours' vote and by linear heads, all fitted on other women.

    Several views are classified by the mean of their vectors: CC and MLO of a finding, or both breasts of a woman where
    her density is asked.

    Args:
        gallery: Folder of the gallery. One on Milvus is copied to a folder first.
        source: What is classified.
        further: Other views of it, of the same woman.
        targets: Label columns; None for the usual ones that other women's findings can answer.
        model: Folder of the gallery's model, where it is not the copy that it keeps.
        device: Where to compute.

    Raises:
        MammoseekError: The gallery, its model or the image can't be used, or a target can't be answered.
    """
    if is_milvus_address(str(gallery)):
        raise GalleryError(
            gallery,
            "classifiers are fitted on all of a gallery's vectors, and Milvus gives them one by one",
            "copy it to a folder by `mammoseek index copy`",
        )
    stored = Gallery.open(Path(gallery))
    if not len(stored):
        raise GalleryError(gallery, "is empty, so nothing can be classified by it", "add rows by `mammoseek index add`")
    if len({each.row_id is None for each in (source, *further)}) > 1:
        raise ClassificationError("query", "some views are rows of the gallery and some images", "use one kind only")
    named = [
        replace(each, patient=each.patient or source.patient, dataset=each.dataset or source.dataset)
        if each.row_id is None
        else each
        for each in further
    ]
    views = [_look(stored, each, gallery, model, device) for each in (source, *named)]
    vector: npt.NDArray[np.floating] = views[0].vector
    if further:
        vector = fuse_vectors(np.stack([view.vector for view in views]), np.zeros(len(views), np.int64))[0]
    hers = np.unique(np.concatenate([view.exclusion.positions for view in views]))
    patient = next((view.exclusion.patient for view in views if view.exclusion.patient is not None), None)
    notes = tuple(dict.fromkeys(note for view in views for note in view.exclusion.notes))
    context: dict[str, Any] = {}
    for view in reversed(views):
        context |= {name: value for name, value in view.context.items() if value is not None}
    others = stored.table.frame(np.setdiff1d(np.arange(len(stored)), hers))
    chosen = choose_targets(others, targets, stored.identity.granularity)
    keys = {stored.patient_key(position) for position in hers.tolist()}
    card = Path(model) if model is not None else Path(gallery) / MODEL_FOLDER
    seen = trained_on(read_card(card)[0], stored.patient_keys) if card.is_dir() else None
    answers = tuple(
        classify(stored, vector, target=target, patient_keys=keys, context=context, seen=seen) for target in chosen
    )
    return SourceClassification(views[0].source, answers, patient, notes, tuple(view.source for view in views[1:]))


@dataclass(frozen=True, eq=False)
class _Look:
    """One view: its vector, the gallery's rows of the same woman, and what is known besides the picture."""

    source: Source
    vector: npt.NDArray[np.float32]
    exclusion: Exclusion
    context: dict[str, Any]


def _look(stored: Gallery, source: Source, gallery: Place, model: Path | None, device: str) -> _Look:
    if source.row_id is not None:
        if model is not None:
            gallery_embedder(gallery, model=model, device=device)
        position = stored.position(source.row_id)
        vector = stored.vectors.take(np.array([position]))[0]
        return _Look(source, vector, exclude_row(stored, source.row_id), stored.record(position))
    check_named(stored, source.patient, source.dataset)
    source = complete_source(source, stored)
    embedder = _SourceEmbedder(gallery_embedder(gallery, model=model, device=device), [source])
    embedded = embedder.embed(_path(source), source.box, spacing_mm=source.spacing_mm, view=source.view)
    named = [name for name in (source.patient, embedded.patient_id) if name is not None]
    exclusion = exclude_image(
        stored,
        path=embedded.path,
        sop_uid=embedded.header.sop_uid,
        patients=list(dict.fromkeys(named)),
        dataset=source.dataset,
    )
    return _Look(source, embedded.vector, exclusion, _known_of_image(source, stored, embedded.header))


def _known_of_image(source: Source, gallery: Gallery, header: Header) -> dict[str, Any]:
    """Return what file, gallery and asker know of an image besides its pixels; of findings on it, nothing."""
    same = gallery.table.find("path", os.path.realpath(_path(source)))
    return context_of_image(header, gallery.record(int(same[0])) if len(same) else None, source.view)


def draw_answer(
    answer: Answer, source: Source, gallery: DrawnGallery, preparation: PreparationConfig, path: Path
) -> None:
    """Draw a montage of an answer: the query and its neighbours, with outcome, similarity and scale.

    A neighbour's picture comes from its image, else from the thumbnail that the gallery keeps of it, else its place
    stays empty.

    Args:
        answer: The answer.
        source: What was asked about.
        gallery: The gallery that gave it.
        preparation: The model's preparation.
        path: The picture to write.

    Raises:
        MontageError: The picture can't be written.
    """
    question = answer.question
    known: dict[str, Any] = {}
    if source.row_id is not None:
        known = gallery.record_of(source.row_id)
        crop = row_crop(gallery, known, preparation)
    else:
        crop, _ = read_crop(
            _path(source),
            source.box,
            preparation,
            spacing_mm=source.spacing_mm,
            view=source.view,
            frame=source.frame,
            allow_for_processing=source.allow_for_processing,
        )
    query = Panel(crop, "query", caption_lines(known), known.get("pathology"))
    panels = []
    for neighbour in answer.neighbours:
        record = neighbour.record
        crop = row_crop(gallery, record, preparation)
        title = f"{neighbour.rank}: {record.get('pathology') or 'outcome unknown'}, {neighbour.similarity:.3f}"
        panels.append(Panel(crop, title, caption_lines(record), record.get("pathology")))
    identity = gallery.identity
    heading = (
        f"Most similar {identity.granularity}s of other women (cosine similarity).  "
        f"Model {identity.model_digest[:12]}, gallery generation {gallery.generation}.  Not for diagnosis."
    )
    if question.include_same_patient:
        heading = heading.replace("of other women", "of all women, her own included")
    if answer.no_close_precedent:
        heading = f"NO CLOSE PRECEDENT: these are far.  {heading}"
    draw_montage(query, panels, path, heading=heading)


def row_crop(gallery: DrawnGallery, record: dict[str, Any], preparation: PreparationConfig) -> RoiCrop | None:
    """Cut a row's picture anew, or take the gallery's thumbnail where its image is not here.

    Args:
        gallery: The gallery.
        record: All that is known of the row.
        preparation: The model's preparation.

    Returns:
        None where there is neither.
    """
    corners = [record.get(name) for name in ("x0", "y0", "x1", "y1")]
    try:
        box = None if corners[0] is None else Box(*(int(corner) for corner in corners if corner is not None))
        return read_crop(
            Path(str(record.get("path"))),
            box,
            preparation,
            spacing_mm=record.get("spacing_mm"),
            view=record.get("view"),
            frame=record.get("frame"),
        )[0]
    except MammoseekError:
        pass  # the thumbnail, or an empty place, says so in the picture
    stored = gallery.thumbnail(str(record["row_id"]))
    pixels = None if stored is None else cv2.imdecode(np.frombuffer(stored, np.uint8), cv2.IMREAD_GRAYSCALE)
    if pixels is None:
        return None
    return RoiCrop(pixels.astype(np.float32) / np.float32(255), None, None, None)


def complete_source(source: Source, gallery: Gallery) -> Source:
    """Complete the spacing and view of an image that the gallery holds: a plain picture file says neither.

    A place then gives the same vector, up to rounding, whether it is asked by image or by row.
    """
    same = gallery.table.find("path", os.path.realpath(_path(source)))
    if not len(same):
        return source
    record = gallery.record(int(same[0]))
    return replace(
        source,
        spacing_mm=source.spacing_mm if source.spacing_mm is not None else record.get("spacing_mm"),
        view=source.view if source.view is not None else record.get("view"),
    )


@dataclass(frozen=True)
class _SourceEmbedder:
    """An embedder that opens images the way its sources say: which frame, and whether For Processing will do."""

    embedder: Embedder
    sources: Sequence[Source]

    @property
    def digest(self) -> str:
        return self.embedder.digest

    @property
    def preparation_digest(self) -> str:
        return self.embedder.preparation_digest

    @property
    def granularity(self) -> str:
        return self.embedder.granularity

    @property
    def dimension(self) -> int:
        return self.embedder.dimension

    def embed(
        self, path: Path, box: Box | None = None, *, spacing_mm: float | None = None, view: str | None = None
    ) -> EmbeddedFinding:
        source = next(each for each in self.sources if _path(each) == path and each.box == box)
        return self.embedder.embed(
            path,
            box,
            spacing_mm=spacing_mm,
            view=view,
            frame=source.frame,
            allow_for_processing=source.allow_for_processing,
        )


def _path(source: Source) -> Path:
    assert source.path is not None, "a source is an image or a row"
    return Path(source.path)


def _preparation(gallery: Place, model: Path | None) -> PreparationConfig:
    return read_card(model or Path(gallery) / MODEL_FOLDER)[0].preparation
