"""Detections written as files that other programs read."""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd

from exchange import ExchangeError
from exchange.cadwriting import Examined, cad_reports
from exchange.detections import Detection
from exchange.formats import own
from exchange.formats.coco import ATTRIBUTES, companion_path
from exchange.formats.marks import RowError, outline_of
from exchange.formats.yolo import is_label_name
from exchange.imagenames import stem_of
from exchange.results import write_result
from exchange.text import LONGEST_ID, TextError, clean_text
from index.durable import storage_error, write_whole

UNNAMED = "finding"
"""The class of detections without a label, in formats whose boxes must have one."""

_FIELDS = tuple(field.name for field in fields(Detection))
_BOX = ("x0", "y0", "x1", "y1")
_INTEGERS = (*_BOX, "image_rows", "image_columns", "frame_number")
_NUMBERS = ("score", "spacing_mm")
_IDS = ("detection_id", "dataset", "patient_id", "study_id", "lesion_id", "sop_uid")
# What COCO has words for itself.
_COCO_OWN = (*_BOX, "outline", "score", "path", "image_rows", "image_columns", "native_label")


def write_detections(path: Path, frame: pd.DataFrame, kind: str, *, examined: Examined | None = None) -> list[Path]:
    """Write a table of detections, each file whole or not at all.

    `csv` and `json` keep everything, and a CSV file is a manifest of findings too. `coco` writes a list of results and
    beside it the data set of their images and categories; what COCO has no word for stands under the key `mammoseek`.
    `yolo` makes a folder of text files and `classes.txt`: boxes, scores and labels are kept to every digit; ids,
    outlines and the rest are lost, and so is a lesion type that the label does not tell.
    `cad-sr` makes a folder of DICOM Mammography CAD SR documents, one for each study (`exchange.cadwriting`): boxes or
    outlines, scores, lesion types, detector and which detections are views of one lesion are kept; ids, native labels
    and notes are lost. Image paths are relative to
    the file's folder where the images lie below it.

    Args:
        path: The file; for FOLDERS a folder that is not there or empty.
        frame: As `exchange.detections.detections_frame` gives it.
        kind: One of WRITERS.
        examined: For `cad-sr`: what was looked at, whether something was found there or not.

    Returns:
        The files or the folder.

    Raises:
        ExchangeError: The kind is unknown, or a detection can't be written in it.
        GalleryError: The disk is full, or the place can't be written.
    """
    path = Path(path)
    if kind not in WRITERS:
        raise ExchangeError(f"kind {kind[:80]!r}", "can't be written", f"use one of {', '.join(WRITERS)}")
    if examined is not None and kind != "cad-sr":
        raise ExchangeError(f"kind {kind!r}", "can't say what was looked at", "write cad-sr, or leave that out")
    detections = detections_of(frame)
    try:
        if examined is not None:
            return _write_cad(path, detections, frame, examined)
        return WRITERS[kind](path, detections, frame)
    except OSError as error:
        raise storage_error(path, error) from error


def detections_of(frame: pd.DataFrame) -> list[Detection]:
    """Return the detections of a table, the inverse of `detections_frame`; also of one read back as a manifest.

    Raises:
        ExchangeError: An id stands there twice, or a cell can't be written so that it is read as the same.
    """
    columns = {name: "row_id" if name == "detection_id" else name for name in _FIELDS}
    lacking = [
        columns[name] for name in ("detection_id", "path", "dataset", "patient_id") if columns[name] not in frame
    ]
    if lacking:
        raise ExchangeError("table of detections", f"has no column {', '.join(lacking)}", "make it by detections_frame")
    cells = {
        name: frame[column].astype("object").where(frame[column].notna(), None).tolist()
        for name, column in columns.items()
        if column in frame
    }
    found: list[Detection] = []
    seen: set[str] = set()
    for position in range(len(frame)):
        given = {name: values[position] for name, values in cells.items()}
        try:
            one = Detection(**{name: _cell(name, value) for name, value in given.items()})
            if not (one.detection_id and one.path and one.dataset and one.patient_id):
                raise RowError("has no id, path, data set or woman")
            if one.detection_id in seen:
                raise RowError("has an id that stands there twice")
        except (RowError, TextError) as error:
            subject = f"detection {str(given.get('detection_id'))[:80]!r} (row {position + 1})"
            raise ExchangeError(subject, str(error), "correct it before writing") from error
        seen.add(one.detection_id)
        found.append(one)
    return found


def _cell(name: str, value: Any) -> Any:
    if value is None:
        return None
    if name == "outline":
        return outline_of(json.loads(value) if isinstance(value, str) else list(value))
    if name in _INTEGERS:
        return int(value)
    if name in _NUMBERS:
        return float(value)
    text = clean_text(value, name, longest=LONGEST_ID if name in _IDS else 4096)
    if text != str(value):
        raise RowError(f"{name} {str(value)[:80]!r} would not be read as the same")
    return text


def _write_csv(path: Path, detections: Sequence[Detection], frame: pd.DataFrame) -> list[Path]:
    outlines = [None if one.outline is None else json.dumps(one.outline, separators=(",", ":")) for one in detections]
    paths = [_written_path(path.parent, one.path) for one in detections]
    table = frame.assign(path=paths, outline=pd.Series(outlines, index=frame.index, dtype="object"))
    write_whole(path, table.to_csv(index=False).encode())
    return [path]


def _write_json(path: Path, detections: Sequence[Detection], frame: pd.DataFrame) -> list[Path]:
    entries = [
        {name: value for name in _FIELDS if (value := getattr(one, name)) is not None}
        | {"path": _written_path(path.parent, one.path)}
        for one in detections
    ]
    document = {"format": own.FORMAT, "version": own.VERSION, "detections": entries}
    write_whole(path, _document(document))
    return [path]


def _write_coco(path: Path, detections: Sequence[Detection], frame: pd.DataFrame) -> list[Path]:
    _check_boxes(detections, "COCO")
    images: dict[str, dict[str, Any]] = {}
    categories = {name: number for number, name in enumerate(sorted({_class_of(one) for one in detections}), 1)}
    results = []
    for one in detections:
        if one.path not in images:
            images[one.path] = {"id": len(images) + 1, "file_name": _written_path(path.parent, one.path)}
            if one.image_rows is not None and one.image_columns is not None:
                images[one.path] |= {"height": one.image_rows, "width": one.image_columns}
        results.append(_result(one, images[one.path]["id"], categories[_class_of(one)]))
    dataset = {
        "info": {"description": "Images and categories of detections"},
        "images": list(images.values()),
        "categories": [{"id": number, "name": name} for name, number in categories.items()],
        "annotations": [],
    }
    # First what the results refer to.
    write_whole(companion_path(path), _document(dataset))
    write_whole(path, _document(results))
    return [path, companion_path(path)]


def _result(one: Detection, image: int, category: int) -> dict[str, Any]:
    assert one.x0 is not None
    assert one.y0 is not None
    assert one.x1 is not None
    assert one.y1 is not None
    result: dict[str, Any] = {
        "image_id": image,
        "category_id": category,
        "bbox": [one.x0, one.y0, one.x1 - one.x0, one.y1 - one.y0],
    }
    if one.score is not None:
        result["score"] = one.score
    if one.outline is not None:
        result["segmentation"] = [[value for corner in one.outline for value in corner]]
    more = {name: value for name in _FIELDS if name not in _COCO_OWN and (value := getattr(one, name)) is not None}
    if _class_of(one) != one.native_label:
        more["native_label"] = one.native_label
    return result | {ATTRIBUTES: more}


def _write_yolo(path: Path, detections: Sequence[Detection], frame: pd.DataFrame) -> list[Path]:
    _check_boxes(detections, "YOLO")
    classes = sorted({_class_of(one) for one in detections})
    numbers = {name: number for number, name in enumerate(classes)}
    files: dict[str, tuple[str, list[str]]] = {}
    for one in detections:
        stem = stem_of(one.path.rpartition("/")[2])
        image, lines = files.setdefault(stem, (one.path, []))
        if image != one.path:
            raise ExchangeError(image, f"has the same name as {one.path}", "YOLO names labels so: rename one of them")
        if not is_label_name(f"{stem}.txt"):
            raise ExchangeError(one.path, "has a name that YOLO's tools keep for themselves", "rename it")
        lines.append(_yolo_line(one, numbers[_class_of(one)]))
    with _new_folder(path) as aside:
        for stem, (_, lines) in files.items():
            write_whole(aside / f"{stem}.txt", ("\n".join(lines) + "\n").encode())
        write_whole(aside / "classes.txt", "".join(f"{name}\n" for name in classes).encode())
    return [path]


def _write_cad(
    path: Path, detections: Sequence[Detection], frame: pd.DataFrame, examined: Examined | None = None
) -> list[Path]:
    reports = cad_reports(detections, examined)
    with _new_folder(path) as aside:
        for report in reports:
            write_result(report, aside / f"{report.SOPInstanceUID}.dcm")
    return [path]


def check_new_folder(path: Path) -> None:
    """Refuse a place where no new folder can be put.

    Raises:
        ExchangeError: Something is there already, or the folder above it is not.
    """
    if path.is_symlink() or (path.exists() and not path.is_dir()) or (path.is_dir() and any(path.iterdir())):
        raise ExchangeError(path, "is there already", "name a folder that is not")
    if not path.absolute().parent.is_dir():
        raise ExchangeError(path, "the folder above it is not there", "make it first, or name another one")


@contextmanager
def _new_folder(path: Path) -> Iterator[Path]:
    """Give a folder to write in that is put in its place when all is written.

    Raises:
        ExchangeError: See `check_new_folder`.
    """
    check_new_folder(path)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    aside.mkdir()
    try:
        yield aside
        aside.replace(path)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def _yolo_line(one: Detection, number: int) -> str:
    if one.image_rows is None or one.image_columns is None:
        raise ExchangeError(one.path, "has no known size, and YOLO gives shares of it", "write another kind")
    assert one.x0 is not None
    assert one.y0 is not None
    assert one.x1 is not None
    assert one.y1 is not None
    shares = (
        (one.x0 + one.x1) / 2 / one.image_columns,
        (one.y0 + one.y1) / 2 / one.image_rows,
        (one.x1 - one.x0) / one.image_columns,
        (one.y1 - one.y0) / one.image_rows,
    )
    values = [*shares] if one.score is None else [*shares, one.score]
    return " ".join([str(number), *(repr(value) for value in values)])


def _check_boxes(detections: Sequence[Detection], kind: str) -> None:
    for one in detections:
        if None in (one.x0, one.y0, one.x1, one.y1):
            raise ExchangeError(
                f"detection {one.detection_id!r}", f"has no box, and {kind} needs one", "write csv or json"
            )


def _class_of(one: Detection) -> str:
    return one.native_label or one.lesion_type or UNNAMED


def _written_path(folder: Path, name: str) -> str:
    image, home = Path(name).absolute(), folder.resolve()
    return (image.relative_to(home) if image.is_relative_to(home) else image).as_posix()


def _document(value: object) -> bytes:
    return (json.dumps(value, ensure_ascii=False, allow_nan=False, indent=1) + "\n").encode()


WRITERS: dict[str, Callable[[Path, Sequence[Detection], pd.DataFrame], list[Path]]] = {
    "csv": _write_csv,
    "json": _write_json,
    "coco": _write_coco,
    "yolo": _write_yolo,
    "cad-sr": _write_cad,
}
"""Kinds that can be written."""

FOLDERS = ("yolo", "cad-sr")
"""Those of them that are folders."""
