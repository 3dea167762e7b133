"""A model and its gallery at work together: fill it, check it, ask it, classify by it."""

import os
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd

from classifiers import ClassificationError
from classifiers.classification import Classification, classify
from classifiers.targets import choose_targets
from embedder.checkpoint import CARD_FILE, WEIGHTS_FILE, ModelError, load_model, read_card, write_atomically
from embedder.crops import RoiCrop
from embedder.embedding import EmbeddedFinding, Embedder
from embedder.findings import Box
from embedder.montage import Panel, check_montage_path, draw_montage
from embedder.preparation import PreparationConfig
from embedder.rois import read_crop
from errors import MammoseekError
from index import GalleryError
from index.exclusion import check_named, exclude_image, exclude_row
from index.gallery import Gallery
from index.layout import MODEL_FOLDER
from index.manifest import GalleryIdentity, check_identity, read_manifest
from index.retrieval import Answer, query_image, query_row
from index.upkeep import BuildReport, FileReport, VerifyReport, build_gallery, verify_gallery
from index.writer import create_gallery


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
    """

    source: Source
    targets: tuple[Classification, ...]
    excluded_patient: str | None
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        source = self.source
        return {
            "query": {
                "path": None if source.path is None else str(source.path),
                "box": None if source.box is None else list(source.box),
                "row_id": source.row_id,
            },
            "targets": [{**target.to_dict(), "excluded_patient": self.excluded_patient} for target in self.targets],
            "excluded_patient": self.excluded_patient,
            "notes": list(self.notes),
        }


def new_gallery(
    frame: pd.DataFrame,
    model: Path,
    gallery: Path,
    *,
    thumbnails: bool = False,
    device: str = "auto",
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> BuildReport:
    """Embed a manifest's rows of the model's granularity into a gallery, which keeps a copy of the model.

    Rows that are there already are skipped: a build that was stopped goes on. An image that fails costs its own rows.

    Args:
        frame: A manifest with absolute paths.
        model: Folder of the model.
        gallery: Folder of the gallery, new or of this same model.
        thumbnails: Keep a small picture of each ROI, which is patient data.
        device: Where to compute.
        workers: Threads that read images.
        progress: Called with rows done and rows in all.

    Raises:
        MammoseekError: The model can't be read, the gallery is of another model or can't be written, or the manifest
            has no row of the model's granularity.
    """
    embedder = Embedder.load(model, device=device)
    create_gallery(gallery, _identity(embedder))
    _keep_model(model, gallery)
    return _fill(frame, embedder, gallery, thumbnails, workers, progress)


def add_to_gallery(
    frame: pd.DataFrame,
    gallery: Path,
    *,
    model: Path | None = None,
    thumbnails: bool = False,
    device: str = "auto",
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> BuildReport:
    """Add a manifest's rows to a gallery that exists, see `new_gallery`.

    Args:
        frame: A manifest with absolute paths.
        gallery: Folder of the gallery.
        model: Folder of its model, where it is not the copy that it keeps.
        thumbnails: Keep a small picture of each ROI.
        device: Where to compute.
        workers: Threads that read images.
        progress: Called with rows done and rows in all.

    Raises:
        MammoseekError: As of `new_gallery`; or there is no such gallery.
    """
    embedder = gallery_embedder(gallery, model=model, device=device)
    return _fill(frame, embedder, gallery, thumbnails, workers, progress)


def gallery_embedder(gallery: Path, *, model: Path | None = None, device: str = "auto") -> Embedder:
    """Load the model that a gallery is bound to.

    Args:
        gallery: Folder of the gallery.
        model: Folder of the model, where it is not the copy that the gallery keeps.
        device: Where to compute.

    Raises:
        GalleryError: There is no gallery, or the model is not the one it is bound to.
        ModelError: The model is missing or damaged.
    """
    bound = read_manifest(Path(gallery)).identity
    embedder = Embedder.load(model or Path(gallery) / MODEL_FOLDER, device=device)
    check_identity(Path(gallery), bound, _identity(embedder))
    return embedder


def verify_with_model(gallery: Path) -> VerifyReport:
    """Check every digest of a gallery, its model's copy included.

    Raises:
        GalleryError: There is no gallery, or its manifest is damaged.
    """
    report = verify_gallery(gallery)
    problem = ""
    try:
        _, _, digest = load_model(Path(gallery) / MODEL_FOLDER)
        if digest != read_manifest(Path(gallery)).identity.model_digest:
            problem = "is not the model that this gallery is bound to"
    except ModelError as error:
        problem = error.cause
    return VerifyReport((*report.files, FileReport(MODEL_FOLDER, "damaged" if problem else "good", 0, problem)))


def ask_source(
    gallery: Path,
    source: Source,
    *,
    k: int = 10,
    where: str | None = None,
    include_same_patient: bool = False,
    model: Path | None = None,
    device: str = "cpu",
    montage: Path | None = None,
) -> Answer:
    """Find the most similar findings of other women.

    Args:
        gallery: Folder of the gallery.
        source: What is asked about.
        k: How many neighbours.
        where: Which rows may answer, see `index.filters`.
        include_same_patient: Let the woman's own findings answer.
        model: Folder of the gallery's model, where it is not the copy that it keeps.
        device: Where to compute.
        montage: Write a picture of the query and its neighbours here.

    Raises:
        MammoseekError: The gallery, its model, the image, the question or the montage's place can't be used.
    """
    if montage is not None:
        check_montage_path(montage)
    stored = Gallery.open(gallery)
    if source.row_id is not None:
        if model is not None:
            gallery_embedder(gallery, model=model, device=device)
        answer = query_row(stored, source.row_id, k=k, where=where, include_same_patient=include_same_patient)
    else:
        source = _completed(source, stored)
        answer = query_image(
            stored,
            _SourceEmbedder(gallery_embedder(gallery, model=model, device=device), source),
            _path(source),
            source.box,
            k=k,
            patient=source.patient,
            dataset=source.dataset,
            where=where,
            include_same_patient=include_same_patient,
            spacing_mm=source.spacing_mm,
            view=source.view,
        )
    if montage is not None:
        draw_answer(answer, source, stored, _preparation(gallery, model), montage)
    return answer


def classify_source(
    gallery: Path,
    source: Source,
    *,
    targets: tuple[str, ...] | None = None,
    model: Path | None = None,
    device: str = "cpu",
) -> SourceClassification:
    """Classify a place by its neighbours' vote and by linear heads, all fitted on other women.

    Args:
        gallery: Folder of the gallery.
        source: What is classified.
        targets: Label columns; None for the usual ones that other women's findings can answer.
        model: Folder of the gallery's model, where it is not the copy that it keeps.
        device: Where to compute.

    Raises:
        MammoseekError: The gallery, its model or the image can't be used, or a target can't be answered.
    """
    stored = Gallery.open(gallery)
    if not len(stored):
        raise GalleryError(gallery, "is empty, so nothing can be classified by it", "add rows by `mammoseek index add`")
    if source.row_id is not None:
        if model is not None:
            gallery_embedder(gallery, model=model, device=device)
        vector: npt.NDArray[np.float32] = stored.vectors[stored.position(source.row_id)]
        exclusion = exclude_row(stored, source.row_id)
    else:
        check_named(stored, source.patient, source.dataset)
        source = _completed(source, stored)
        embedder = _SourceEmbedder(gallery_embedder(gallery, model=model, device=device), source)
        embedded = embedder.embed(_path(source), source.box, spacing_mm=source.spacing_mm, view=source.view)
        vector = embedded.vector
        named = [name for name in (source.patient, embedded.patient_id) if name is not None]
        exclusion = exclude_image(
            stored,
            path=embedded.path,
            sop_uid=embedded.header.sop_uid,
            patients=list(dict.fromkeys(named)),
            dataset=source.dataset,
        )
    others = stored.records[~exclusion.rows].reset_index(drop=True)
    chosen = choose_targets(others, targets, stored.identity.granularity)
    keys = set(stored.patient_keys[exclusion.rows].tolist())
    answers = tuple(classify(stored, vector, target=target, patient_keys=keys) for target in chosen)
    return SourceClassification(source, answers, exclusion.patient, exclusion.notes)


def draw_answer(answer: Answer, source: Source, gallery: Gallery, preparation: PreparationConfig, path: Path) -> None:
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
        known = gallery.record(gallery.position(source.row_id))
        crop = _row_crop(gallery, known, preparation)
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
    query = Panel(crop, "query", _lines(known), known.get("pathology"))
    panels = []
    for neighbour in answer.neighbours:
        record = neighbour.record
        crop = _row_crop(gallery, record, preparation)
        title = f"{neighbour.rank}: {record.get('pathology') or 'outcome unknown'}, {neighbour.similarity:.3f}"
        panels.append(Panel(crop, title, _lines(record), record.get("pathology")))
    identity = gallery.identity
    heading = (
        f"Most similar {identity.granularity}s of other women (cosine similarity).  "
        f"Model {identity.model_digest[:12]}, gallery generation {gallery.generation}.  Not for diagnosis."
    )
    if question.include_same_patient:
        heading = heading.replace("of other women", "of all women, her own included")
    draw_montage(query, panels, path, heading=heading)


def _lines(record: dict[str, Any]) -> tuple[str, ...]:
    if not record:
        return ()
    density = f"density {record['density']}" if record.get("density") else None
    lesion = " ".join(str(record[name]) for name in ("margin", "lesion_type") if record.get(name))
    side = " ".join(str(record[name]) for name in ("laterality", "view") if record.get(name))
    return (
        f"{record['row_id']} ({record['patient_id']})",
        lesion or "lesion type unknown",
        ", ".join(part for part in (density, side) if part) or "-",
    )


def _row_crop(gallery: Gallery, record: dict[str, Any], preparation: PreparationConfig) -> RoiCrop | None:
    """Cut a row's picture anew, or take the gallery's thumbnail where its image is not here."""
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


def _completed(source: Source, gallery: Gallery) -> Source:
    """Complete the spacing and view of an image that the gallery holds: a plain picture file says neither.

    A place then gives the same vector, up to rounding, whether it is asked by image or by row.
    """
    path = os.path.realpath(_path(source))
    same = np.zeros(len(gallery), np.bool_)
    if "path" in gallery.records:
        same = gallery.records["path"].to_numpy(dtype=object) == path
    if not same.any():
        return source
    record = gallery.record(int(np.argmax(same)))
    return replace(
        source,
        spacing_mm=source.spacing_mm if source.spacing_mm is not None else record.get("spacing_mm"),
        view=source.view if source.view is not None else record.get("view"),
    )


@dataclass(frozen=True)
class _SourceEmbedder:
    """An embedder that opens images the way a source says: which frame, and whether For Processing will do."""

    embedder: Embedder
    source: Source

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
        return self.embedder.embed(
            path,
            box,
            spacing_mm=spacing_mm,
            view=view,
            frame=self.source.frame,
            allow_for_processing=self.source.allow_for_processing,
        )


def _path(source: Source) -> Path:
    assert source.path is not None, "a source is an image or a row"
    return Path(source.path)


def _preparation(gallery: Path, model: Path | None) -> PreparationConfig:
    return read_card(model or Path(gallery) / MODEL_FOLDER)[0].preparation


def _identity(embedder: Embedder) -> GalleryIdentity:
    return GalleryIdentity(embedder.digest, embedder.preparation_digest, embedder.granularity, embedder.dimension)


def _keep_model(model: Path, gallery: Path) -> None:
    """Copy the model into the gallery, unless a whole copy is there."""
    target = Path(gallery) / MODEL_FOLDER
    try:
        load_model(target)
    except ModelError:
        for name in (WEIGHTS_FILE, CARD_FILE):
            write_atomically(target / name, (Path(model) / name).read_bytes())


def _fill(
    frame: pd.DataFrame,
    embedder: Embedder,
    gallery: Path,
    thumbnails: bool,
    workers: int | None,
    progress: Callable[[int, int], None] | None,
) -> BuildReport:
    rows = frame[frame["granularity"] == embedder.granularity].reset_index(drop=True)
    if rows.empty:
        raise ModelError("manifest", f"has no rows of granularity {embedder.granularity}, which this model embeds")
    return build_gallery(
        gallery,
        _identity(embedder),
        rows,
        lambda todo: embedder.embed_manifest(todo, thumbnails=thumbnails, workers=workers),
        progress=progress,
    )
