"""mini-MIAS: 322 digitised films of 161 women, one MLO view of each breast.

Suckling J. et al., The Mammographic Image Analysis Society Digital Mammogram Database, Exerpta Medica
International Congress Series 1069, 375-378, 1994. Its own `Info.txt` tells the format of the ground truth.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from embedder.datasets.reading import DatasetError, DatasetReading, Progress
from embedder.findings import Box, Finding, findings_frame
from embedder.mammogram import read_header
from errors import MammoseekError

USUAL_PLACES = (Path("../shared/data/mini-mias"), Path("data/mini-mias"))
"""Where the demo and the benchmarks look for mini-MIAS unless told otherwise."""

NAME = "mini-mias"
IMAGES = 322
SIZE = 1024
"""Rows and columns of every image."""
SPACING_MM = 0.2
LICENCE = "mini-MIAS is for research only (Licence.txt): it may not be rented, leased or sold"

_TRUTH_NAMES = ("Info.txt", "README")
_SUFFIXES = (".pgm", ".png")
_TRUTH_LIMIT = 1_000_000  # bytes; the real file has 10 thousand
_DENSITIES = {"F": "fatty", "G": "glandular", "D": "dense"}
_PATHOLOGIES = {"B": "benign", "M": "malignant"}
# Class of abnormality → lesion type and margin. MISC is "other, ill-defined masses": BI-RADS says indistinct.
_CLASSES: dict[str, tuple[str, str | None]] = {
    "CALC": ("calcification", None),
    "CIRC": ("mass", "circumscribed"),
    "SPIC": ("mass", "spiculated"),
    "MISC": ("mass", "indistinct"),
    "ARCH": ("architectural distortion", None),
    "ASYM": ("asymmetry", None),
}
_NORMAL = "NORM"

Term = TypeVar("Term")


@dataclass(frozen=True)
class Lesion:
    """One abnormality as the ground truth gives it.

    Attributes:
        kind: Its class, as the file spells it: CALC, CIRC, SPIC, MISC, ARCH or ASYM.
        severity: B (benign) or M (malignant).
        circle: Centre x and y from the bottom left, and radius, in pixels; None where it has no one place.
    """

    kind: str
    severity: str
    circle: tuple[int, int, int] | None

    @property
    def box(self) -> Box | None:
        """The square around the circle, clipped to the image; None without a place."""
        if self.circle is None:
            return None
        x, y, radius = self.circle
        row = SIZE - 1 - y
        return Box(
            max(x - radius, 0),
            max(row - radius, 0),
            min(x + radius + 1, SIZE),
            min(row + radius + 1, SIZE),
        )


@dataclass(frozen=True)
class Film:
    """One image as the ground truth describes it.

    Attributes:
        number: 1 to 322; odd numbers are right breasts, the next even number is the same woman's left breast.
        tissue: Background tissue, F (fatty), G (fatty-glandular) or D (dense-glandular).
        lesions: What is in it; nothing where the breast is normal.
    """

    number: int
    tissue: str
    lesions: tuple[Lesion, ...]

    @property
    def name(self) -> str:
        """The image's file name without its suffix."""
        return f"mdb{self.number:03d}"


def find_mini_mias(data: Path | None = None) -> Path | None:
    """Return the folder that is named, else the first of the usual places that is there, else None."""
    return data or next((place for place in USUAL_PLACES if place.is_dir()), None)


def read_mini_mias(path: Path, *, progress: Progress | None = None) -> DatasetReading:
    """Read mini-MIAS as it is distributed: `Info.txt` (or `README`) and `mdb001.pgm` … `mdb322.pgm`.

    Images may also be PNG, and lie in a folder `images` below.

    Args:
        path: The folder.
        progress: Called with images done and images in all.

    Returns:
        A `breast` row for every image, and a `finding` row for every lesion with a place. A breast is
        malignant where any of its lesions is, those without a place included; of the other labels it has the
        ones on which its lesions agree.

    Raises:
        DatasetError: There is no ground truth, it is garbled (the error names the line), or no image.
    """
    truth = find_truth(Path(path))
    films, repeated = parse_truth(truth)
    rows: list[Finding] = []
    left_out = []
    for done, film in enumerate(films, 1):
        try:
            rows += _film_rows(film, find_image(truth.parent, film.name))
        except MammoseekError as error:
            left_out.append((film.name, error.cause))
        else:
            left_out += [
                (f"{film.name}-{position}", "a lesion without a place (its breast keeps the label)")
                for position, lesion in enumerate(film.lesions, 1)
                if lesion.box is None
            ]
        if progress is not None:
            progress(done, len(films))
    if not rows:
        cause = f"no image of mini-MIAS can be read (of {left_out[0][0]}: {left_out[0][1]})"
        raise DatasetError(path, cause, "unpack the whole of all-mias.tar.gz there")
    notes = [LICENCE]
    if repeated:
        places = ", ".join(map(str, repeated))
        notes.insert(0, f"lines of {truth.name} that repeat an earlier one count once: {places}")
    return DatasetReading(NAME, findings_frame(rows), tuple(left_out), tuple(notes))


def find_truth(folder: Path) -> Path:
    """Return the file with the ground truth.

    Raises:
        DatasetError: There is none.
    """
    if not folder.is_dir():
        cause = "is not a folder" if folder.exists() else "there is no such folder"
        raise DatasetError(folder, cause, "name the folder into which all-mias.tar.gz was unpacked")
    present = [folder / name for name in _TRUTH_NAMES if (folder / name).is_file()]
    if not present:
        cause = "has no Info.txt or README with the ground truth"
        raise DatasetError(folder, cause, "name the folder into which all-mias.tar.gz was unpacked")
    # The archive has both files, and only one of them has the list.
    return next((path for path in present if any(_truth_lines(_lines(path)))), present[0])


def find_image(folder: Path, name: str) -> Path:
    """Return the image of one film.

    Raises:
        DatasetError: There is none.
    """
    for parent in (folder, folder / "images"):
        for suffix in _SUFFIXES:
            if (parent / f"{name}{suffix}").is_file():
                return (parent / f"{name}{suffix}").resolve()
    raise DatasetError(folder / name, "the image file is missing")


def parse_truth(path: Path) -> tuple[list[Film], list[int]]:
    """Read the ground truth.

    Args:
        path: `Info.txt` or `README` of mini-MIAS: prose, then one line for each lesion or normal image.

    Returns:
        The films by number, and the numbers of the lines that repeat an earlier one and were dropped.

    Raises:
        DatasetError: A line is garbled or contradicts an earlier one (the error names it), or there is none.
    """
    tissues: dict[int, str] = {}
    entries: dict[int, list[Lesion | None]] = {}
    repeated = []
    for position, words in _truth_lines(_lines(path)):
        try:
            number, tissue, lesion = _parse_words(words)
            known = entries.setdefault(number, [])
            if tissues.setdefault(number, tissue) != tissue:
                raise ValueError(f"an earlier line gives the same film the tissue {tissues[number]}")
            if lesion in known:
                repeated.append(position)
                continue
            if known and None in (*known, lesion):
                raise ValueError("the same film can't be normal and have a lesion")
            known.append(lesion)
        except ValueError as error:
            raise DatasetError(path, f"line {position} ({' '.join(words)[:80]!r}): {error}") from error
    if not entries:
        raise DatasetError(path, "has no line of ground truth (such as 'mdb001 G CIRC B 535 425 197')")
    films = [
        Film(number, tissues[number], tuple(lesion for lesion in entries[number] if lesion is not None))
        for number in sorted(entries)
    ]
    return films, repeated


def _lines(path: Path) -> list[str]:
    try:
        if path.stat().st_size > _TRUTH_LIMIT:
            raise DatasetError(path, "is too large to be the ground truth of mini-MIAS")
        return path.read_text(encoding="latin-1").splitlines()
    except OSError as error:
        raise DatasetError(path, f"can't be read ({error.strerror or error})") from error


def _truth_lines(lines: list[str]) -> Iterator[tuple[int, list[str]]]:
    """Give line numbers and words from the first film on, to the ruler that ends the list."""
    started = False
    for position, line in enumerate(lines, 1):
        words = line.split()
        started = started or bool(words and re.fullmatch(r"mdb\d+", words[0]))
        if started and set(line.strip()) == {"="}:
            return
        if started and words:
            yield position, words


def _parse_words(words: list[str]) -> tuple[int, str, Lesion | None]:
    reference = re.fullmatch(r"mdb(\d{3})", words[0])
    if reference is None or not 1 <= int(reference[1]) <= IMAGES:
        raise ValueError(f"a film is named mdb001 to mdb{IMAGES}")
    number = int(reference[1])
    if len(words) < 3 or words[1] not in _DENSITIES:
        raise ValueError(f"the second word is one of {', '.join(_DENSITIES)}, the third the class")
    if words[2:] == [_NORMAL]:
        return number, words[1], None
    if words[2] not in _CLASSES or len(words) < 4 or words[3] not in _PATHOLOGIES:
        raise ValueError(f"the class is {_NORMAL}, or one of {', '.join(_CLASSES)} and then B or M")
    place = words[4:]
    # "*NOTE 3*" stands for a place that the file's notes explain to be inappropriate.
    if not place or place == ["*NOTE", "3*"]:
        return number, words[1], Lesion(words[2], words[3], None)
    if len(place) != 3 or not all(re.fullmatch(r"\d{1,4}", word) for word in place):
        raise ValueError("the place is x, y and radius, three whole numbers")
    x, y, radius = map(int, place)
    if x >= SIZE or y >= SIZE or not 0 < radius < SIZE:
        raise ValueError(f"the place lies outside the image of {SIZE} by {SIZE}")
    return number, words[1], Lesion(words[2], words[3], (x, y, radius))


def _film_rows(film: Film, image: Path) -> list[Finding]:
    header = read_header(image)
    if (header.rows, header.columns) != (SIZE, SIZE):
        raise DatasetError(image, f"the image is not {SIZE} by {SIZE} as the places in the ground truth need it")
    breast = Finding(
        row_id=film.name,
        path=str(image),
        granularity="breast",
        dataset=NAME,
        patient_id=f"mias-{(film.number + 1) // 2:03d}",
        image_rows=SIZE,
        image_columns=SIZE,
        spacing_mm=SPACING_MM,
        laterality="L" if film.number % 2 == 0 else "R",
        view="MLO",
        density=_DENSITIES[film.tissue],
        native_density=film.tissue,
    )
    severities = {lesion.severity for lesion in film.lesions}
    severity = "M" if "M" in severities else "B" if severities else None
    kinds = {lesion.kind for lesion in film.lesions}
    types = {_CLASSES[kind][0] for kind in kinds}
    margins = {_CLASSES[kind][1] for kind in kinds}
    rows = [
        replace(
            breast,
            pathology=_PATHOLOGIES[severity] if severity else "normal",
            native_pathology=severity,
            lesion_type=_only(types),
            margin=_only(margins),
            native_lesion_type=_only(kinds) if kinds else _NORMAL,
        )
    ]
    for position, lesion in enumerate(film.lesions, 1):
        if lesion.box is None:
            continue
        lesion_type, margin = _CLASSES[lesion.kind]
        rows.append(
            replace(
                breast,
                row_id=f"{film.name}-{position}",
                granularity="finding",
                x0=lesion.box.x0,
                y0=lesion.box.y0,
                x1=lesion.box.x1,
                y1=lesion.box.y1,
                lesion_type=lesion_type,
                margin=margin,
                native_lesion_type=lesion.kind,
                pathology=_PATHOLOGIES[lesion.severity],
                native_pathology=lesion.severity,
            )
        )
    return rows


def _only(terms: set[Term]) -> Term | None:
    """Return the term on which all agree; None where they don't."""
    return next(iter(terms)) if len(terms) == 1 else None
