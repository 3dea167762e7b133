"""Detections as the page draws them, and as questions are asked about them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from errors import MammoseekError
from exchange.detections import Detection
from exchange.formats import read_detections
from exchange.images import ImageCatalogue, manifest_images
from index.gallery import Gallery
from viewer import ViewerError

_IMAGE_FACTS = ("dataset", "patient_id", "study_id", "laterality", "view", "spacing_mm")
_KNOWN_COLUMNS = (
    *("path", "dataset", "patient_id", "study_id", "sop_uid", "laterality", "view", "spacing_mm"),
    *("image_rows", "image_columns"),
)


@dataclass(frozen=True)
class Mark:
    """One detection.

    Attributes:
        detection: Its id.
        box: x0, y0, x1, y1 in pixels of the stored image, half-open.
        outline: Corners (x, y); None where there is none.
        score: The detector's, 0 to 1.
        label: What it is: the lesion type, else the detector's own word.
        detector: The detector's name.
        lesion_id: Detections of one id are views of one lesion.
        image_facts: What the table says of the image.
        whole: The detection as `exchange` has it.
    """

    detection: str
    box: tuple[int, int, int, int]
    outline: tuple[tuple[float, float], ...] | None
    score: float | None
    label: str | None
    detector: str | None
    lesion_id: str | None
    image_facts: dict[str, Any] = field(repr=False)
    whole: Detection = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return {
            "detection": self.detection,
            "box": list(self.box),
            "outline": None if self.outline is None else [list(corner) for corner in self.outline],
            "score": self.score,
            "label": self.label,
            "detector": self.detector,
            "lesion_id": self.lesion_id,
        }


ImageMarks = tuple[str, int | None, str, tuple[Mark, ...]]
"""An image's file with links followed, its frame, its data set, and the detections on it."""


def read_marks(
    table: Path, folders: Sequence[Path], gallery: Gallery
) -> tuple[list[ImageMarks], list[tuple[str, str]]]:
    """Read a table of detections.

    Args:
        table: Any file that `mammoseek detections show` reads.
        folders: Folders of the images that they are on.
        gallery: Its images are known too.

    Returns:
        The detections by image, and what could not be used, with the reasons.

    Raises:
        ViewerError: The file can't be read at all.
    """
    try:
        reading = _read(table, folders, gallery)
    except MammoseekError as error:
        raise ViewerError(table.name, error.cause, error.remedy) from error
    problems = [(f"{table.name}, {place}", reason) for place, reason in reading.problems]
    by_image: dict[tuple[str, int | None], list[Detection]] = {}
    for one in reading.detections:
        if None in (one.x0, one.y0, one.x1, one.y1):
            problems.append((f"{table.name}, {one.detection_id}", "has no coordinates, so there is no place to show"))
            continue
        by_image.setdefault((os.path.realpath(one.path), one.frame_number), []).append(one)
    found = [
        (path, frame, ones[0].dataset, tuple(_mark(one) for one in ones)) for (path, frame), ones in by_image.items()
    ]
    return found, problems


def _read(table: Path, folders: Sequence[Path], gallery: Gallery) -> Any:
    columns = [name for name in _KNOWN_COLUMNS if name in gallery.table]
    known = []
    if len(gallery) and "path" in columns:
        frame = gallery.records[columns]
        frame = frame[frame["path"].notna() & frame["path"].astype(str).str.startswith("/")]
        for name in _KNOWN_COLUMNS:
            if name not in frame:
                frame = frame.assign(**{name: pd.Series(None, index=frame.index, dtype="object")})
        known = manifest_images(frame)
    if not folders:
        try:
            return read_detections(table)
        except MammoseekError:
            if not known:
                raise
    return read_detections(table, ImageCatalogue(known, folders))


def _mark(one: Detection) -> Mark:
    return Mark(
        one.detection_id,
        (one.x0, one.y0, one.x1, one.y1),  # type: ignore[arg-type]
        one.outline,
        one.score,
        one.lesion_type or one.native_label,
        one.detector,
        one.lesion_id,
        {name: getattr(one, name) for name in _IMAGE_FACTS if getattr(one, name) is not None},
        one,
    )
