"""What is known of one image: by its file, by the gallery that holds it, and by the table of detections."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedder import dicomvalues
from embedder.dicom import read_attributes
from embedder.header import Header
from embedder.mammogram import read_header
from exchange.imagefacts import known_woman
from viewer.marks import Mark


@dataclass(frozen=True)
class ImageDetails:
    """What is known of an image; what is not is None.

    The gallery's word goes before the file's, which may say nothing (a plain picture) or too much (a name).

    Attributes:
        header: What its file says.
        woman: Her id.
        name: Her name, where names are shown.
        study_uid: The file's Study Instance UID, or the gallery's or the table's name of the examination.
        date: Of the examination, YYYY-MM-DD.
        age: Of the woman, in years.
        view: One of `embedder.findings.VIEWS`.
        laterality: `L` or `R`.
        spacing_mm: Millimetres per pixel.
        stated_spacing_mm: The same where the file does not say it: the embedder is told.
        stated_view: The view where the file does not say it, likewise.
        stamp: When the file last changed, in nanoseconds, and its bytes: of another one nothing of this is true.
    """

    header: Header
    woman: str | None
    name: str | None
    study_uid: str | None
    date: str | None
    age: float | None
    view: str | None
    laterality: str | None
    spacing_mm: float | None
    stated_spacing_mm: float | None
    stated_view: str | None
    stamp: tuple[int, int] = (0, 0)


def stamp_of(path: str) -> tuple[int, int]:
    """Return when a file last changed, in nanoseconds, and its bytes.

    Raises:
        OSError: It is gone.
    """
    status = os.stat(path)  # noqa: PTH116 - of every request
    return status.st_mtime_ns, status.st_size


def read_details(path: str, record: Mapping[str, Any] | None, mark: Mark | None, *, names: bool) -> ImageDetails:
    """Read what is known of an image; no pixel is decoded.

    Args:
        path: The file.
        record: The gallery's record of a row on it; None where it holds none.
        mark: A detection on it; None where there is none.
        names: Whether her name is read.

    Raises:
        MammogramError: The file can't be read, or is no mammogram.
    """
    try:
        stamp = stamp_of(path)
    except OSError:
        stamp = (0, 0)  # whoever reads it says why
    header = read_header(path)
    date = name = None
    if header.format == "DICOM":
        dataset = read_attributes(Path(path), ("StudyDate", "PatientName", "SpecificCharacterSet"))
        day = dicomvalues.day(dataset, "StudyDate")
        date = None if day is None else day.isoformat()
        name = dicomvalues.text(dataset, "PatientName") if names else None
    stored = dict(record or {})
    said: Mapping[str, Any] = {} if mark is None else mark.image_facts
    spacing, view = stored.get("spacing_mm"), stored.get("view")
    return ImageDetails(
        header=header,
        woman=stored.get("patient_id") or said.get("patient_id") or known_woman(header.patient_id),
        name=name,
        study_uid=header.study_uid or stored.get("study_id") or said.get("study_id"),
        date=date,
        age=stored.get("age") if stored.get("age") is not None else header.age,
        view=view or header.view or said.get("view"),
        laterality=stored.get("laterality") or header.laterality or said.get("laterality"),
        spacing_mm=spacing or header.spacing_mm or said.get("spacing_mm"),
        stated_spacing_mm=spacing or (None if header.spacing_mm else said.get("spacing_mm")),
        stated_view=view or (None if header.view else said.get("view")),
        stamp=stamp,
    )
