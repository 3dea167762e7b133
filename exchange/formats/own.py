"""Our own JSON: every field of every detection, as `exchange.detections.Detection` names it."""

from pathlib import Path
from typing import Any

from exchange import ExchangeError
from exchange.formats.documents import read_document
from exchange.formats.marks import (
    MAXIMUM_ROWS,
    Mark,
    Parsed,
    ReadOptions,
    RowError,
    corners_of,
    number,
    outline_of,
    text_of,
    too_many,
    whole,
)
from exchange.formats.tables import laterality_of

FORMAT = "mammoseek detections"
VERSION = 1


def is_own(document: object) -> bool:
    """Tell whether a JSON document is one of ours."""
    return isinstance(document, dict) and document.get("format") == FORMAT


def read_own_json(path: Path, options: ReadOptions) -> Parsed:
    """Read a JSON file of detections that mammoseek wrote.

    Raises:
        ExchangeError: It is none, or of a later version.
    """
    document = read_document(path)
    if not is_own(document):
        raise ExchangeError(path, "is no JSON of mammoseek's detections", f'its "format" would be {FORMAT!r}')
    if document.get("version") != VERSION:
        raise ExchangeError(
            path, f"is of version {str(document.get('version'))[:20]}", "read it with a later mammoseek"
        )
    entries = document.get("detections")
    if not isinstance(entries, list):
        raise ExchangeError(path, "has no list of detections", "write it again")
    if len(entries) > MAXIMUM_ROWS:
        raise too_many(path)
    parsed = Parsed(path)
    for position, entry in enumerate(entries, 1):
        place = f"detection {position}"
        try:
            if not isinstance(entry, dict):
                raise RowError("is no object")
            parsed.add(_mark(place, entry))
        except RowError as error:
            parsed.refuse(place, error)
    return parsed


def _mark(place: str, entry: dict[str, Any]) -> Mark:
    def text(name: str, longest: int = 256) -> str | None:
        return text_of(entry.get(name), name, longest=longest)

    corners = ("x0", "y0", "x1", "y1")
    return Mark(
        place=place,
        image=text("path", 4096) or "",
        box=corners_of([entry.get(name) for name in corners], corners),
        outline=outline_of(entry.get("outline")),
        score=number(entry.get("score"), "score"),
        word=text("native_label"),
        term=text("lesion_type"),
        detection_id=text("detection_id"),
        detector=text("detector"),
        detector_version=text("detector_version"),
        lesion_id=text("lesion_id"),
        frame_number=whole(entry.get("frame_number"), "frame_number"),
        note=text("note", 4096),
        sop_uid=text("sop_uid"),
        dataset=text("dataset"),
        patient_id=text("patient_id"),
        study_id=text("study_id"),
        laterality=laterality_of(entry.get("laterality")),
        view=text("view"),
        spacing_mm=number(entry.get("spacing_mm"), "spacing_mm"),
        rows=whole(entry.get("image_rows"), "image_rows"),
        columns=whole(entry.get("image_columns"), "image_columns"),
    )
