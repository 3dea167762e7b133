"""The table of detections: places on mammograms that a detector or a reader marked, each with a score."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

import pandas as pd

from embedder.findings import COLUMNS, Finding, findings_frame


@dataclass(frozen=True)
class Detection:
    """One place that a detector marked on one image; what is unknown is None.

    Args:
        detection_id: Names the detection, unique in its table.
        path: The image file.
        dataset: Where the woman's id is unique, as in a manifest.
        patient_id: The woman.
        x0: Box in pixels of the stored image, half-open; None for a finding without coordinates.
        y0: Box.
        x1: Box.
        y1: Box.
        outline: Corners (x, y) of the marked outline in the same coordinates, where there is one.
        score: The detector's own, in [0, 1].
        lesion_type: One of `embedder.findings.TERMS`.
        native_label: The detector's own word.
        detector: The detector's name.
        detector_version: Its version.
        lesion_id: Detections with one id are views of one lesion (a composite feature of a CAD report).
        sop_uid: SOP instance UID of the image.
        study_id: The examination.
        laterality: `L` or `R`.
        view: One of `embedder.findings.VIEWS`.
        spacing_mm: Millimetres per pixel.
        image_rows: Rows of the stored image.
        image_columns: Columns of the stored image.
        frame_number: Which image of a multi-frame file, from 1.
        note: What a reader should know of it.
    """

    detection_id: str
    path: str
    dataset: str
    patient_id: str
    x0: int | None = None
    y0: int | None = None
    x1: int | None = None
    y1: int | None = None
    outline: tuple[tuple[float, float], ...] | None = None
    score: float | None = None
    lesion_type: str | None = None
    native_label: str | None = None
    detector: str | None = None
    detector_version: str | None = None
    lesion_id: str | None = None
    sop_uid: str | None = None
    study_id: str | None = None
    laterality: str | None = None
    view: str | None = None
    spacing_mm: float | None = None
    image_rows: int | None = None
    image_columns: int | None = None
    frame_number: int | None = None
    note: str | None = None


OWN_COLUMNS = tuple(
    field.name for field in fields(Detection) if field.name not in COLUMNS and field.name != "detection_id"
)
"""Columns of a table of detections that a manifest does not have."""


def detections_frame(detections: Iterable[Detection]) -> pd.DataFrame:
    """Return detections as a table that is a manifest of findings too: `row_id` is the detection's id.

    What a detector says of a place is no proven label: `lesion_type` is its opinion, and `pathology` is unknown.
    """
    given = list(detections)
    shared = [field.name for field in fields(Finding) if field.name in {part.name for part in fields(Detection)}]
    frame = findings_frame(
        Finding(row_id=one.detection_id, granularity="finding", **{name: getattr(one, name) for name in shared})
        for one in given
    )
    for name in OWN_COLUMNS:
        frame[name] = pd.Series([getattr(one, name) for one in given], dtype="object")
    frame["score"] = pd.to_numeric(frame["score"]).astype("float64")
    frame["frame_number"] = pd.to_numeric(frame["frame_number"]).astype("Int64")
    return frame


def known_cell(row: pd.Series, name: str) -> Any:
    """Return a cell of a table of detections or of a manifest; None where it is unknown, or there is no such column."""
    cell = row.get(name)
    if isinstance(cell, tuple | list):  # an outline
        return cell
    return None if cell is None or pd.isna(cell) else cell
