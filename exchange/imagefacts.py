"""What is known of an image: from a manifest, from the file's header, or from both."""

from dataclasses import dataclass

import pandas as pd

from embedder.mammogram import Header
from exchange.text import LONGEST_ID, TextError, clean_text


@dataclass(frozen=True)
class ImageFacts:
    """What is known of one image; what is not is None.

    Attributes:
        path: The file, absolute.
        dataset: Where the woman's id is unique.
        patient_id: The woman.
        study_id: The examination.
        sop_uid: SOP Instance UID.
        laterality: `L` or `R`.
        view: One of `embedder.findings.VIEWS`.
        spacing_mm: Millimetres per pixel.
        rows: Rows of the stored image.
        columns: Columns of the stored image.
        frames: Images in the file.
        dataset_assumed: The data set is only the name of the image's folder.
    """

    path: str
    dataset: str
    patient_id: str | None = None
    study_id: str | None = None
    sop_uid: str | None = None
    laterality: str | None = None
    view: str | None = None
    spacing_mm: float | None = None
    rows: int | None = None
    columns: int | None = None
    frames: int | None = None
    dataset_assumed: bool = False


def manifest_images(manifest: pd.DataFrame) -> list[ImageFacts]:
    """Return the images of a manifest, each once.

    Args:
        manifest: As `embedder.manifest.read_manifest` gives it: paths absolute. A column `sop_uid` of its own counts.
    """
    columns = ("path", "dataset", "patient_id", "study_id", "sop_uid", "laterality", "view", "spacing_mm")
    first = manifest.drop_duplicates("path")
    cells = {
        name: first[name].astype("object").where(first[name].notna(), None).tolist()
        for name in (*columns, "image_rows", "image_columns")
        if name in first
    }
    lacking = [None] * len(first)
    facts = []
    for position in range(len(first)):
        of_row = {name: cells.get(name, lacking)[position] for name in columns}
        size = [cells[name][position] for name in ("image_rows", "image_columns")]
        rows, width = (None if side is None else int(side) for side in size)
        of_row["sop_uid"] = None if of_row["sop_uid"] is None else str(of_row["sop_uid"])
        facts.append(ImageFacts(**of_row, rows=rows, columns=width))
    return facts


def completed(known: ImageFacts, header: Header) -> ImageFacts:
    """Return what a manifest knows of an image, completed by its file; the size is the file's."""
    return ImageFacts(
        path=known.path,
        dataset=known.dataset,
        patient_id=known.patient_id,
        study_id=known.study_id or header.study_uid,
        sop_uid=known.sop_uid or header.sop_uid,
        laterality=known.laterality or header.laterality,
        view=known.view or header.view,
        spacing_mm=known.spacing_mm or header.spacing_mm,
        rows=header.rows,
        columns=header.columns,
        frames=header.frames,
    )


def known_woman(name: str | None) -> str | None:
    """Return a woman's id; None where it is a placeholder that names nobody, or can't be a cell of a manifest."""
    try:
        return clean_text(name, "the woman's id", longest=LONGEST_ID)
    except TextError:
        return None
