"""Images of one examination together, hung as radiologists hang them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from viewer.catalogue import ImageEntry
    from viewer.marks import Mark

_SIDES = {"R": 0, "L": 1}
_VIEWS = {"CC": 0, "MLO": 1}
_UPPER_ROWS = 2  # CC above MLO; all that is neither hangs below


@dataclass(frozen=True)
class Place:
    """Where an image hangs: rows from the top, columns from the left of the screen."""

    row: int
    column: int

    def to_dict(self) -> dict[str, int]:
        """Return it as plain values for JSON."""
        return {"row": self.row, "column": self.column}


@dataclass(frozen=True)
class StudyImage:
    """One image of a study.

    Attributes:
        image: Its id.
        view: One of `embedder.findings.VIEWS`; None where unknown.
        laterality: `L` or `R`; None where unknown.
        place: Where it hangs.
        detections: What is marked on it.
    """

    image: str
    view: str | None
    laterality: str | None
    place: Place
    detections: "tuple[Mark, ...]"


@dataclass(frozen=True)
class Study:
    """One examination.

    Attributes:
        study: Its id.
        woman: Her id; of a picture that names nobody, the picture's name.
        name: Her name, where names are shown.
        date: YYYY-MM-DD.
        age: In years.
        images: Its images, in the order of the hanging.
        detections: How many there are.
        urgency: The highest score of a detection; None where there is none.
    """

    study: str
    woman: str
    name: str | None
    date: str | None
    age: float | None
    images: tuple[StudyImage, ...]
    detections: int
    urgency: float | None


def group_studies(entries: Sequence["ImageEntry"]) -> list[Study]:
    """Return the studies that images belong to.

    Images of one Study Instance UID are one study. Where a file names none they are, by woman and date; an image that
    names no woman either is a study by itself. An archive that gives every image of a woman a study of its own, as
    CBIS-DDSM does, is put right: single images of one woman and one date are one study.

    Args:
        entries: Images whose details are known.
    """
    groups: dict[str, list[ImageEntry]] = {}
    for entry in entries:
        groups.setdefault(_study_name(entry), []).append(entry)
    days: dict[str, list[str]] = {}
    for name, group in groups.items():
        days.setdefault(_day_name(group[0]), []).append(name)
    for day, names in days.items():
        if len(names) > 1 and all(len(groups[name]) == 1 and _is_dated(groups[name][0]) for name in names):
            groups[day] = [entry for name in names for entry in groups.pop(name)]
    return [_study(name, group) for name, group in groups.items()]


def _is_dated(entry: "ImageEntry") -> bool:
    return entry.details is not None and entry.details.date is not None and entry.details.woman is not None


def _woman(entry: "ImageEntry") -> str | None:
    return None if entry.details is None else entry.details.woman


def _study_name(entry: "ImageEntry") -> str:
    details = entry.details
    if details is not None and details.study_uid:
        return f"study {details.study_uid}"
    return _day_name(entry)


def _day_name(entry: "ImageEntry") -> str:
    details, woman = entry.details, _woman(entry)
    if woman is None or details is None:
        return f"image {entry.image}"
    return f"woman {entry.dataset}/{woman}/{details.date or ''}"


def _study(name: str, group: Sequence["ImageEntry"]) -> Study:
    hung = hang(group)
    details = [entry.details for entry, _ in hung if entry.details is not None]
    woman = next((one.woman for one in details if one.woman), None)
    scores = [mark.score for entry in group for mark in entry.marks if mark.score is not None]
    return Study(
        hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:16],
        woman or hung[0][0].name,
        next((one.name for one in details if one.name), None),
        next((one.date for one in details if one.date), None),
        next((one.age for one in details if one.age is not None), None),
        tuple(_hung(entry, place) for entry, place in hung),
        sum(len(entry.marks) for entry in group),
        max(scores) if scores else None,
    )


def _hung(entry: "ImageEntry", place: Place) -> StudyImage:
    details = entry.details
    view, side = (None, None) if details is None else (details.view, details.laterality)
    return StudyImage(entry.image, view, side, place, entry.marks)


def hang(group: Sequence["ImageEntry"]) -> list[tuple["ImageEntry", Place]]:
    """Return where each image hangs, in reading order.

    The right breast hangs at the left of the screen and the left one at its right, so that their chest walls meet; CC
    above MLO. A second image of a place, and those whose side or view is another or not known, hang below.

    Args:
        group: Images of one study.
    """
    taken: dict[tuple[int, int], ImageEntry] = {}
    below: list[ImageEntry] = []
    for entry in sorted(group, key=_order):
        details = entry.details
        row = None if details is None else _VIEWS.get(details.view or "")
        column = None if details is None else _SIDES.get(details.laterality or "")
        if row is None or column is None or (row, column) in taken:
            below.append(entry)
        else:
            taken[row, column] = entry
    first = _UPPER_ROWS if taken else 0
    for entry in below:
        side = None if entry.details is None else _SIDES.get(entry.details.laterality or "")
        columns = (side,) if side is not None else (0, 1)
        free = next(
            (row, column)
            for row in range(first, first + len(below) + 1)
            for column in columns
            if (row, column) not in taken
        )
        taken[free] = entry
    rows = {row: place for place, row in enumerate(sorted({row for row, _ in taken}))}
    return [(taken[key], Place(rows[key[0]], key[1])) for key in sorted(taken)]


def _order(entry: "ImageEntry") -> tuple[str, ...]:
    details = entry.details
    if details is None:
        return ("", "", entry.name)
    return (details.view or "~", details.laterality or "~", details.header.sop_uid or "", entry.name)


def needs_flip(laterality: str | None, chest_wall: str) -> bool:
    """Return whether an image has to be mirrored so that chest walls meet: the right breast's is at its right.

    Args:
        laterality: `L` or `R`; None where unknown, and then nothing is mirrored.
        chest_wall: The side of the stored image where it is, `left` or `right`.
    """
    wanted = {"R": "right", "L": "left"}.get(laterality or "")
    return wanted is not None and wanted != chest_wall
