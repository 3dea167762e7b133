"""Detections as CSV: our own columns, and the names that others give them."""

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from exchange import ExchangeError
from exchange.formats.marks import (
    Corners,
    Mark,
    Parsed,
    ReadOptions,
    RowError,
    corners_of,
    number,
    outline_of,
    read_text,
    text_of,
    whole,
)

ALIASES: dict[str, tuple[str, ...]] = {
    "image": (
        *(
            "path",
            "image",
            "image_path",
            "image_file",
            "image_file_path",
            "image_name",
            "file",
            "file_name",
            "filename",
        ),
        *("file_path", "filepath", "img", "img_path", "image_id", "sop_instance_uid", "sop_uid", "dicom", "dcm"),
    ),
    "sop_uid": ("sop_uid", "sop_instance_uid"),
    "detection_id": ("detection_id", "row_id", "annotation_id", "id"),
    "score": ("score", "scores", "confidence", "conf", "probability", "prob"),
    "word": ("native_label", "label", "class", "class_name", "category", "category_name", "finding", "finding_type"),
    "term": ("lesion_type",),
    "detector": ("detector", "model", "algorithm"),
    "detector_version": ("detector_version", "model_version", "algorithm_version", "version"),
    "lesion_id": ("lesion_id", "lesion"),
    "frame_number": ("frame_number", "frame"),
    "outline": ("outline", "polygon"),
    "note": ("note", "notes", "comment"),
    "dataset": ("dataset",),
    "patient_id": ("patient_id", "patientid", "patient"),
    "study_id": ("study_id", "study_uid", "study_instance_uid"),
    "laterality": ("laterality", "side"),
    "view": ("view", "view_position"),
    "spacing_mm": ("spacing_mm",),
    "rows": ("image_rows", "image_height"),
    "columns": ("image_columns", "image_width"),
}
"""Column names, letter case aside and with `_` for spaces; the first that has something in the row counts."""

_CORNERS = (
    *(("x0", "y0", "x1", "y1"), ("xmin", "ymin", "xmax", "ymax"), ("x_min", "y_min", "x_max", "y_max")),
    *(("x1", "y1", "x2", "y2"), ("left", "top", "right", "bottom")),
)
_SIZED = (("x", "y", "w", "h"), ("x", "y", "width", "height"), ("left", "top", "width", "height"))
_CENTRED = (
    *(("cx", "cy", "w", "h"), ("cx", "cy", "width", "height")),
    *(("x_center", "y_center", "width", "height"), ("x_centre", "y_centre", "width", "height")),
)
_PREFIXES = ("", "bbox_", "box_")
_MOST_LINES = 12  # of one row: a path of CBIS-DDSM ends in a line break
_SEPARATORS = (",", ";", "\t", "|")
_NOT_A_NAME = re.compile(r"[^a-z0-9]+")
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")
_LATERALITIES = {"l": "L", "left": "L", "r": "R", "right": "R"}


@dataclass(frozen=True)
class Table:
    """A CSV file: its column names, normalised, and its separator."""

    names: tuple[str, ...]
    separator: str


def normal_name(name: str) -> str:
    """Return a column's name in small letters, with `_` for all that is no letter or digit.

    >>> normal_name(" SOP Instance-UID")
    'sop_instance_uid'
    """
    return _NOT_A_NAME.sub("_", name.strip().casefold()).strip("_")


def read_header(path: Path, line: str) -> Table:
    """Find a table's separator, the one that divides its first line furthest, and its column names.

    Raises:
        ExchangeError: Two columns have one name.
    """
    widths: dict[str, int] = {}
    for separator in _SEPARATORS:
        try:
            widths[separator] = len(next(csv.reader([line], delimiter=separator), []))
        except csv.Error:
            widths[separator] = 0
    separator = max(widths, key=lambda mark: widths[mark])
    if not widths[separator]:
        raise ExchangeError(path, "its first line can't be read as columns", "write a header of column names")
    names = tuple(normal_name(name) for name in next(csv.reader([line], delimiter=separator)))
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise ExchangeError(path, f"has two columns {twice[0]!r}", "leave one of them out")
    return Table(names, separator)


def table_rows(path: Path, parsed: Parsed) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield each row's place in the file and its cells by normalised column name; bad rows become problems.

    A quoted cell may run over a few lines, as in the tables of CBIS-DDSM; a quote that is never closed costs its own
    line only.

    Raises:
        ExchangeError: The file can't be read at all.
    """
    lines = io.StringIO(read_text(path)).readlines()
    start = next(place for place, line in enumerate(lines) if line.strip())
    table = read_header(path, lines[start])
    at, row = start + 1, 0
    while at < len(lines):
        cells, taken = _record(lines, at, table)
        at += taken
        if isinstance(cells, list) and not any(cell.strip() for cell in cells):
            continue
        row += 1
        if isinstance(cells, str):
            parsed.refuse(f"row {row}", cells)
            continue
        if table.separator == ";":
            cells = [cell.replace(",", ".") if _DECIMAL_COMMA.fullmatch(cell.strip()) else cell for cell in cells]
        yield f"row {row}", dict(zip(table.names, cells, strict=True))


def _record(lines: Sequence[str], at: int, table: Table) -> tuple[list[str] | str, int]:
    """Return the cells of the row that begins at a line, or why they can't be read; and how many lines it takes."""
    reason = ""
    for count in range(1, min(_MOST_LINES, len(lines) - at) + 1):
        text = "".join(lines[at : at + count])
        try:
            reader = csv.reader(io.StringIO(text), delimiter=table.separator, skipinitialspace=True, strict=True)
            cells = next(reader, [])
        except csv.Error as error:
            reason = reason or f"can't be read as CSV ({error})"
            if text.count('"') % 2 == 0:
                break  # no more lines would close a quote
            continue
        if len(cells) == len(table.names) or not any(cell.strip() for cell in cells):
            return cells, count
        reason = reason or f"has {len(cells)} cells, and the header {len(table.names)} columns"
        break
    return reason, 1


def read_csv(path: Path, options: ReadOptions) -> Parsed:
    """Read a table of detections.

    One row for each detection: an image (see ALIASES), and a box as x0, y0, x1, y1 (edges of pixels, so that
    x1 - x0 is the width), as x, y, w, h, or as cx, cy, w, h (its middle), or an `outline` as JSON [[x, y], ...].
    Separators may be commas, semicolons (then with decimal commas), tabs or bars.

    Raises:
        ExchangeError: It has no column for the image or for the box, or can't be read.
    """
    parsed = Parsed(path)
    layout = None
    for place, cells in table_rows(path, parsed):
        if layout is None:
            layout = _Layout(_box_columns(path, cells), _known_columns(cells))
        try:
            parsed.add(_mark(place, cells, layout))
        except RowError as error:
            parsed.refuse(place, error)
    return parsed


def laterality_of(value: object) -> str | None:
    """Return `L` or `R` for a side in any common spelling; None where it is missing.

    Raises:
        RowError: It is another word.
    """
    side = text_of(value, "laterality")
    if side is None:
        return None
    if side.casefold() not in _LATERALITIES:
        raise RowError(f"laterality {side!r} is neither L nor R")
    return _LATERALITIES[side.casefold()]


@dataclass(frozen=True)
class _BoxColumns:
    names: tuple[str, ...]
    kind: str

    def corners(self, cells: Mapping[str, str]) -> Corners | None:
        if not self.names:
            return None
        found = corners_of([cells[name] for name in self.names], self.names)
        if found is None or self.kind == "corners":
            return found
        x, y, width, height = found
        if self.kind == "centred":
            x, y = x - width / 2, y - height / 2
        return x, y, x + width, y + height


@dataclass(frozen=True)
class _Layout:
    """Where in a row what stands: the columns of the box, and for each key of ALIASES those that the table has."""

    box: _BoxColumns
    names: Mapping[str, tuple[str, ...]]


def _known_columns(cells: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    return {name: tuple(alias for alias in aliases if alias in cells) for name, aliases in ALIASES.items()}


def _box_columns(path: Path, cells: Mapping[str, str]) -> _BoxColumns:
    if not any(name in cells for name in ALIASES["image"]):
        cause = f"has no column for the image (its columns are {', '.join(cells)[:300]})"
        raise ExchangeError(path, cause, "name it `path` or `image`")
    for kind, groups in (("corners", _CORNERS), ("sized", _SIZED), ("centred", _CENTRED)):
        for prefix in _PREFIXES:
            for group in groups:
                names = tuple(prefix + name for name in group)
                if all(name in cells for name in names):
                    return _BoxColumns(names, kind)
    if any(name in cells for name in ALIASES["outline"]):
        return _BoxColumns((), "none")
    cause = f"has no columns for the box (its columns are {', '.join(cells)[:300]})"
    raise ExchangeError(path, cause, "name them x0, y0, x1, y1, or x, y, w, h, or cx, cy, w, h")


def _mark(place: str, cells: Mapping[str, str], layout: _Layout) -> Mark:
    def cell(name: str) -> str | None:
        for column in layout.names[name]:
            if text := cells[column].strip():
                return text
        return None

    score = cell("score")
    if score is not None and score.endswith("%"):
        raise RowError(f"score {score[:20]!r} is a percentage: write it as a share")
    view = text_of(cell("view"), "view")
    return Mark(
        place=place,
        image=cell("image") or "",
        box=layout.box.corners(cells),
        outline=_outline(cell("outline")),
        score=number(score, "score"),
        word=text_of(cell("word"), "label"),
        term=text_of(cell("term"), "lesion_type"),
        detection_id=text_of(cell("detection_id"), "id"),
        detector=text_of(cell("detector"), "detector"),
        detector_version=text_of(cell("detector_version"), "detector_version"),
        lesion_id=text_of(cell("lesion_id"), "lesion_id"),
        frame_number=whole(cell("frame_number"), "frame_number"),
        note=text_of(cell("note"), "note", longest=2000),
        sop_uid=text_of(cell("sop_uid"), "sop_uid"),
        dataset=text_of(cell("dataset"), "dataset"),
        patient_id=text_of(cell("patient_id"), "patient_id"),
        study_id=text_of(cell("study_id"), "study_id"),
        laterality=laterality_of(cell("laterality")),
        view=view and view.upper(),
        spacing_mm=number(cell("spacing_mm"), "spacing_mm"),
        rows=whole(cell("rows"), "image_rows"),
        columns=whole(cell("columns"), "image_columns"),
    )


def _outline(cell: str | None) -> tuple[tuple[float, float], ...] | None:
    if cell is None:
        return None
    try:
        values = json.loads(cell)
    except (ValueError, RecursionError) as error:
        raise RowError("the outline is no JSON list [[x, y], ...]") from error
    return outline_of(values)
