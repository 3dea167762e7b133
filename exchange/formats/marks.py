"""What every reader of a detection file makes of it: marks, not yet checked against their images."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from embedder.manifestrules import MISSING_WORDS, quoted
from exchange import ExchangeError
from exchange.caddetections import CadConfig
from exchange.detections import Detection, detections_frame
from exchange.text import TextError, clean_text

MAXIMUM_ROWS = 1_000_000
"""Detections in one file: a detector that marks more on its images says nothing."""

MAXIMUM_BYTES = 512 * 1024 * 1024
"""Bytes of one file: a JSON document takes some ten times as much memory."""

Corners = tuple[float, float, float, float]
Outline = tuple[tuple[float, float], ...]

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_SHOWN_PROBLEMS = 50


class RowError(ValueError):
    """Why one row can't be used; the others go on."""


@dataclass(frozen=True, slots=True)
class Mark:
    """One row of a detection file: where it stands, the image's name, and what it says; the rest is None.

    Attributes:
        place: Where in the file it stands, as a person would look for it.
        image: The image's name.
        box: x0, y0, x1, y1 at pixels' edges.
        outline: Corners (x, y).
        normalised: Box and outline are shares of the image's width and height.
        term: The lesion type in our own terms, where the file gives it.
        word: Its own word for what it is.
        rows: Rows of the image that the file was made for.
        columns: Its columns.
        whose: Data set and woman, for an image whose woman nothing else tells.
    """

    place: str
    image: str
    box: Corners | None = None
    outline: Outline | None = None
    normalised: bool = False
    score: float | None = None
    word: str | None = None
    term: str | None = None
    detection_id: str | None = None
    detector: str | None = None
    detector_version: str | None = None
    lesion_id: str | None = None
    frame_number: int | None = None
    note: str | None = None
    sop_uid: str | None = None
    dataset: str | None = None
    patient_id: str | None = None
    study_id: str | None = None
    laterality: str | None = None
    view: str | None = None
    spacing_mm: float | None = None
    rows: int | None = None
    columns: int | None = None
    whose: tuple[str, str] | None = None


@dataclass
class Parsed:
    """A file, parsed: its marks, what of it can't be used and why, and what its reader should know."""

    path: Path
    marks: list[Mark] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, mark: Mark) -> None:
        """Take a mark.

        Raises:
            ExchangeError: There are too many.
        """
        if len(self.marks) >= MAXIMUM_ROWS:
            raise too_many(self.path)
        self.marks.append(mark)

    def refuse(self, place: str, reason: object) -> None:
        """Note a row that can't be used.

        Raises:
            ExchangeError: There are too many.
        """
        if len(self.problems) >= MAXIMUM_ROWS:
            raise too_many(self.path)
        self.problems.append((place, str(reason)))


@dataclass(frozen=True)
class ReadOptions:
    """What a detection file does not say itself.

    Attributes:
        companion: For COCO results: the COCO dataset whose ids they use. Unless given, the file of the name that
            `exchange.formats.coco.companion_path` says is used where it is there.
        names: Names of classes, in the order of their numbers: a text file of one a line, or a YAML file's `names`.
            Unless given, YOLO's are looked for in the folder and the one above it.
        labels: Lesion types for labels that mammoseek does not know: `{"birads4": "mass"}`.
        detector: The detector's name, where the file does not give one.
        detector_version: Its version, likewise.
        minimum_area: Parts of a mask with fewer pixels are no lesions.
        masks: For tables of CBIS-DDSM: the folder of the mask files; the table's own unless given.
        cad: Which findings of a CAD report are detections.
    """

    companion: Path | None = None
    names: Path | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    detector: str | None = None
    detector_version: str | None = None
    minimum_area: int = 16
    masks: Path | None = None
    cad: CadConfig = field(default_factory=CadConfig)


@dataclass(frozen=True)
class Reading:
    """A detection file, read.

    Attributes:
        kind: What it was taken for, one of `exchange.formats.KINDS`.
        because: Why.
        detections: In the order of the file.
        problems: (place in the file, reason) of each row that could not be used.
        notes: What its reader should know.
    """

    kind: str
    because: str
    detections: tuple[Detection, ...]
    problems: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    def frame(self) -> pd.DataFrame:
        """Return the detections as a table that is a manifest too."""
        return detections_frame(self.detections)

    def to_dict(self) -> dict[str, Any]:
        """Return an account of what was read as plain values."""
        return {
            "kind": self.kind,
            "because": self.because,
            "detections": len(self.detections),
            "images": len({one.path for one in self.detections}),
            "women": len({(one.dataset, one.patient_id) for one in self.detections}),
            "without_score": sum(one.score is None for one in self.detections),
            "problems": len(self.problems),
            "first_problems": [{"place": place, "reason": reason} for place, reason in self.problems[:_SHOWN_PROBLEMS]],
            "notes": list(self.notes),
        }


def too_many(path: Path) -> ExchangeError:
    """Return the error of a file with more rows than are read."""
    return ExchangeError(path, f"has more than {MAXIMUM_ROWS:,} rows", "keep the detections with the highest scores")


def read_bytes(path: Path) -> bytes:
    """Return a file's bytes.

    Raises:
        ExchangeError: It is no plain file, too large, or can't be read.
    """
    try:
        if not path.is_file():
            cause = "is no plain file" if path.exists() else "there is no such file"
            raise ExchangeError(path, cause, "check its name")
        size = path.stat().st_size
        if size > MAXIMUM_BYTES:
            limit = MAXIMUM_BYTES // 1024**2
            raise ExchangeError(path, f"has {size // 1024**2} MiB: {limit} are the most", "divide it")
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise ExchangeError(path, f"can't be read ({reason})", "check its name and permissions") from error


def read_text(path: Path, *, may_be_empty: bool = False) -> str:
    """Return a file's text, UTF-8 with or without a byte-order mark.

    Raises:
        ExchangeError: It can't be read, or is no such text.
    """
    data = read_bytes(path)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ExchangeError(path, f"is not UTF-8 (byte {error.start})", "save it again as UTF-8") from error
    if not may_be_empty and not text.strip():
        raise ExchangeError(path, "is empty", "write it again")
    return text


def number(value: object, what: str) -> float | None:
    """Return a number of JSON or a cell of text; None where it is missing. NaN and infinity are refused.

    Raises:
        RowError: It is no finite number.

    >>> number("0.5", "score"), number("", "score"), number(3, "x0")
    (0.5, None, 3.0)
    """
    if value is None:
        return None
    if isinstance(value, str):
        text = value.strip()
        if not text:
            return None
        if _NUMBER.fullmatch(text) is None:
            if text in MISSING_WORDS and "nan" not in text.casefold():
                return None
            raise RowError(f"{what} {quoted(text)} is not a finite number")
        found = float(text)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        try:
            found = float(value)
        except OverflowError as error:
            raise RowError(f"{what} is not a finite number") from error
    else:
        raise RowError(f"{what} {quoted(value)} is no number")
    if not math.isfinite(found):
        raise RowError(f"{what} {quoted(value)} is not a finite number")
    return found


def whole(value: object, what: str) -> int | None:
    """Return a whole number; None where it is missing.

    Raises:
        RowError: It is something else.
    """
    found = number(value, what)
    if found is not None and not found.is_integer():
        raise RowError(f"{what} {quoted(value)} is no whole number")
    return None if found is None else int(found)


def text_of(value: object, what: str, *, longest: int = 256) -> str | None:
    """Return text; None where it is missing.

    Raises:
        RowError: It can't be a cell of a table.
    """
    try:
        return clean_text(value, what, longest=longest)
    except TextError as error:
        raise RowError(str(error)) from error


def corners_of(values: Iterable[object], names: Iterable[str]) -> Corners | None:
    """Return four numbers; None where all are missing.

    Raises:
        RowError: Some are missing, or one is no finite number.
    """
    names = tuple(names)
    found = [number(value, name) for value, name in zip(values, names, strict=True)]
    lacking = [name for name, value in zip(names, found, strict=True) if value is None]
    if len(lacking) == len(names):
        return None
    if lacking:
        raise RowError(f"the box lacks {', '.join(lacking)}")
    x0, y0, x1, y1 = (value for value in found if value is not None)
    return x0, y0, x1, y1


def outline_of(values: object) -> Outline | None:
    """Return the corners of [[x, y], ...] or of [x, y, x, y, ...]; None where there are none.

    Raises:
        RowError: They are something else.
    """
    if values is None or values == []:
        return None
    if not isinstance(values, list | tuple):
        raise RowError("the outline is no list of corners")
    flat: list[object] = []
    for value in values:
        if isinstance(value, list | tuple):
            if len(value) != 2:
                raise RowError("a corner of the outline is not x and y")
            flat += value
        else:
            flat.append(value)
    numbers = [number(value, "a corner of the outline") for value in flat]
    if len(numbers) % 2 or None in numbers:
        raise RowError("the outline has a corner without x or y")
    points = [value for value in numbers if value is not None]
    return tuple(zip(points[::2], points[1::2], strict=True))
