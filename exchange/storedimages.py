"""The images at hand by SOP instance UID, for documents that refer to images by it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from embedder.header import Header
from embedder.mammogram import MammogramError, read_header


@dataclass(frozen=True)
class StoredImage:
    """An image file: what `exchange.caddetections.ReferencedImage` asks for.

    Args:
        path: The file.
        dataset: Where the woman's id is unique.
        patient_id: The woman.
        rows: Rows of the stored image.
        columns: Its columns.
        spacing_mm: Millimetres per pixel.
        laterality: `L` or `R`.
        view: One of `embedder.findings.VIEWS`.
    """

    path: Path
    dataset: str
    patient_id: str | None
    rows: int
    columns: int
    spacing_mm: float | None = None
    laterality: str | None = None
    view: str | None = None

    @classmethod
    def of(cls, header: Header, dataset: str) -> "StoredImage":
        """Return the image that a header describes."""
        return cls(
            path=header.path,
            dataset=dataset,
            patient_id=header.patient_id,
            rows=header.rows,
            columns=header.columns,
            spacing_mm=header.spacing_mm,
            laterality=header.laterality,
            view=header.view,
        )


def images_by_uid(
    paths: Iterable[Path], dataset: str, progress: Callable[[int, int], object] | None = None
) -> tuple[dict[str, StoredImage], list[tuple[str, str]]]:
    """Read the headers of image files.

    Args:
        paths: The files; those that are no mammograms are told and left out.
        dataset: Where the ids of their women are unique.
        progress: Called with files read and files in all.

    Returns:
        The images by SOP instance UID, and (path, message) of each file that is none of them. Of two files with one
        UID the first in the order of their paths is taken.
    """
    found: dict[str, StoredImage] = {}
    left_out: list[tuple[str, str]] = []
    files: Sequence[Path] = sorted(set(paths))
    for position, path in enumerate(files, start=1):
        try:
            header = read_header(path)
            if header.sop_uid is None:
                left_out.append((str(path), "it has no SOP Instance UID: it is no DICOM file"))
            elif header.sop_uid in found:
                left_out.append((str(path), f"it is the same image as {found[header.sop_uid].path}"))
            else:
                found[header.sop_uid] = StoredImage.of(header, dataset)
        except MammogramError as error:
            left_out.append((str(path), f"{error.cause}; {error.remedy}" if error.remedy else error.cause))
        if progress is not None:
            progress(position, len(files))
    return found, left_out
