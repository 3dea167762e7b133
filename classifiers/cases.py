"""A model and its gallery at work together: fill it, check it, ask it, classify by it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd

from classifiers import ClassificationError
from classifiers.classification import Classification, classify
from classifiers.crossvalidation import choose_targets
from embedder.checkpoint import CARD_FILE, WEIGHTS_FILE, ModelError, load_model, read_card, write_atomically
from embedder.crops import RoiCrop
from embedder.embedding import Embedder
from embedder.findings import Box
from embedder.montage import Panel, draw_montage
from embedder.preparation import PreparationConfig
from embedder.rois import read_crop
from errors import MammoseekError
from index import GalleryError
from index.exclusion import exclude_image, exclude_woman
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
    """

    path: Path | None = None
    box: Box | None = None
    row_id: str | None = None


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
    patient: str | None = None,
    dataset: str | None = None,
    include_same_patient: bool = False,
    spacing_mm: float | None = None,
    view: str | None = None,
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
        patient: The query's woman, where the file does not name her.
        dataset: Her data set; every one where it is not named.
        include_same_patient: Let the woman's own findings answer.
        spacing_mm: Millimetres per pixel, where neither the file nor the gallery knows.
        view: The view, where neither the file nor the gallery knows.
        model: Folder of the gallery's model, where it is not the copy that it keeps.
        device: Where to compute.
        montage: Write a picture of the query and its neighbours here.

    Raises:
        MammoseekError: The gallery, its model, the image or the question can't be used.
    """
    stored = Gallery.open(gallery)
    if source.row_id is not None:
        answer = query_row(stored, source.row_id, k=k, where=where, include_same_patient=include_same_patient)
    else:
        embedder = gallery_embedder(gallery, model=model, device=device)
        spacing_mm, view = _what_the_gallery_knows(stored, source, spacing_mm, view)
        answer = query_image(
            stored,
            embedder,
            _path(source),
            source.box,
            k=k,
            patient=patient,
            dataset=dataset,
            where=where,
            include_same_patient=include_same_patient,
            spacing_mm=spacing_mm,
            view=view,
        )
    if montage is not None:
        draw_answer(answer, stored, _preparation(gallery, model), montage, spacing_mm=spacing_mm, view=view)
    return answer


def classify_source(
    gallery: Path,
    source: Source,
    *,
    targets: tuple[str, ...] | None = None,
    patient: str | None = None,
    dataset: str | None = None,
    spacing_mm: float | None = None,
    view: str | None = None,
    model: Path | None = None,
    device: str = "cpu",
) -> list[Classification]:
    """Classify a place by its neighbours' vote and by linear heads, all fitted on other women.

    Args:
        gallery: Folder of the gallery.
        source: What is classified.
        targets: Label columns; None for the usual ones that the gallery can answer.
        patient: The query's woman, where the file does not name her.
        dataset: Her data set; every one where it is not named.
        spacing_mm: Millimetres per pixel, where neither the file nor the gallery knows.
        view: The view, where neither the file nor the gallery knows.
        model: Folder of the gallery's model, where it is not the copy that it keeps.
        device: Where to compute.

    Raises:
        MammoseekError: The gallery, its model or the image can't be used, or a target can't be answered.
    """
    stored = Gallery.open(gallery)
    if not len(stored):
        raise GalleryError(gallery, "is empty, so nothing can be classified by it", "add rows by `mammoseek index add`")
    chosen = choose_targets(stored.records, targets, stored.identity.granularity)
    if source.row_id is not None:
        position = stored.position(source.row_id)
        vector: npt.NDArray[np.float32] = stored.vectors[position]
        exclusion = exclude_woman(stored, stored.patient_keys[position])
    else:
        spacing_mm, view = _what_the_gallery_knows(stored, source, spacing_mm, view)
        embedder = gallery_embedder(gallery, model=model, device=device)
        embedded = embedder.embed(_path(source), source.box, spacing_mm=spacing_mm, view=view)
        vector = embedded.vector
        named = [name for name in (patient, embedded.patient_id) if name]
        exclusion = exclude_image(
            stored,
            path=embedded.path,
            sop_uid=embedded.header.sop_uid,
            patients=list(dict.fromkeys(named)),
            dataset=dataset,
        )
    keys = set(stored.patient_keys[exclusion.rows].tolist())
    return [classify(stored, vector, target=target, patient_keys=keys) for target in chosen]


def draw_answer(
    answer: Answer,
    gallery: Gallery,
    preparation: PreparationConfig,
    path: Path,
    *,
    spacing_mm: float | None = None,
    view: str | None = None,
) -> None:
    """Draw a montage of an answer: the query and its neighbours, with outcome, similarity and scale.

    A neighbour's picture comes from its image, else from the thumbnail that the gallery keeps of it, else its place
    stays empty.

    Args:
        answer: The answer.
        gallery: The gallery that gave it.
        preparation: The model's preparation.
        path: The picture to write.
        spacing_mm: Millimetres per pixel of the query's image, where the file does not say.
        view: The view of the query's image, where the file does not say.

    Raises:
        MontageError: The picture can't be written.
    """
    question = answer.question
    known: dict[str, Any] = {}
    if question.row_id is not None:
        known = gallery.record(gallery.position(question.row_id))
        spacing_mm, view = known.get("spacing_mm"), known.get("view")
    crop = _crop(gallery, question.row_id, question.path, question.box, preparation, spacing_mm, view)
    query = Panel(crop, "query", _lines(known), known.get("pathology"))
    panels = []
    for neighbour in answer.neighbours:
        record = neighbour.record
        crop = _crop(
            gallery,
            neighbour.row_id,
            neighbour.path,
            neighbour.box,
            preparation,
            record.get("spacing_mm"),
            record.get("view"),
        )
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


def _crop(
    gallery: Gallery,
    row_id: str | None,
    path: str | None,
    box: tuple[int, int, int, int] | None,
    preparation: PreparationConfig,
    spacing_mm: float | None,
    view: str | None,
) -> RoiCrop | None:
    """Cut a row's or a query's picture anew, or take the gallery's thumbnail where its image is not here."""
    if path is not None:
        try:
            place = None if box is None else Box(*box)
            return read_crop(Path(path), place, preparation, spacing_mm=spacing_mm, view=view)[0]
        except MammoseekError:
            pass  # the thumbnail, or an empty place, says so in the picture
    stored = gallery.thumbnail(row_id) if row_id is not None else None
    if stored is None:
        return None
    pixels = cv2.imdecode(np.frombuffer(stored, np.uint8), cv2.IMREAD_GRAYSCALE)
    if pixels is None:
        return None
    return RoiCrop(pixels.astype(np.float32) / np.float32(255), None, None, None)


def _what_the_gallery_knows(
    gallery: Gallery, source: Source, spacing_mm: float | None, view: str | None
) -> tuple[float | None, str | None]:
    """Complete the spacing and view of an image that the gallery holds: a plain picture file says neither.

    The same place then gives the same vector, whether it is asked by image or by row.
    """
    path = str(_path(source).resolve())
    same = np.zeros(len(gallery), np.bool_)
    if "path" in gallery.records:
        same = gallery.records["path"].to_numpy(dtype=object) == path
    if same.any():
        record = gallery.record(int(np.argmax(same)))
        spacing_mm = spacing_mm if spacing_mm is not None else record.get("spacing_mm")
        view = view if view is not None else record.get("view")
    return spacing_mm, view


def _path(source: Source) -> Path:
    if source.path is None:
        raise ClassificationError("query", "neither an image nor a row is named", "name one of them")
    return Path(source.path)


def _preparation(gallery: Path, model: Path | None) -> PreparationConfig:
    return read_card(model or Path(gallery) / MODEL_FOLDER)[0].preparation


def _identity(embedder: Embedder) -> GalleryIdentity:
    return GalleryIdentity(embedder.digest, embedder.preparation_digest, embedder.granularity, embedder.dimension)


def _keep_model(model: Path, gallery: Path) -> None:
    """Copy the model into the gallery, the card last: a copy that was cut short is no model, and is made again."""
    target = Path(gallery) / MODEL_FOLDER
    if (target / CARD_FILE).is_file():
        return
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
