"""Detections in and out as files: what mammoseek reads from detectors and writes for others."""

import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from exchange import ExchangeError
from exchange.formats.assembly import assemble
from exchange.formats.cad import read_cad
from exchange.formats.cbis import read_cbis_folder, read_cbis_table
from exchange.formats.coco import read_coco_dataset, read_coco_results
from exchange.formats.kinds import KINDS, guess_kind
from exchange.formats.marks import Mark, Parsed, Reading, ReadOptions
from exchange.formats.masks import read_masks
from exchange.formats.own import read_own_json
from exchange.formats.tables import read_csv
from exchange.formats.vindr import read_vindr
from exchange.formats.writing import FOLDERS, WRITERS, check_new_folder, detections_of, write_detections
from exchange.formats.yolo import read_yolo
from exchange.imagenames import parse_name
from exchange.images import ImageCatalogue, ImageFacts, Progress

__all__ = [
    "FOLDERS",
    "KINDS",
    "WRITERS",
    "ReadOptions",
    "Reading",
    "check_new_folder",
    "detections_of",
    "read_detections",
    "write_detections",
]

_DIGITS = re.compile(r"(\d{1,9})")

_READERS: dict[str, Callable[[Path, ReadOptions], Parsed]] = {
    "csv": read_csv,
    "json": read_own_json,
    "coco-results": read_coco_results,
    "coco": read_coco_dataset,
    "yolo": read_yolo,
    "vindr": read_vindr,
    "masks": read_masks,
}


def read_detections(
    path: Path,
    catalogue: ImageCatalogue | None = None,
    kind: str | None = None,
    *,
    options: ReadOptions | None = None,
    progress: Progress | None = None,
) -> Reading:
    """Read a file or folder of detections; a row that can't be used is told of, and stops no other.

    Args:
        path: The file or folder.
        catalogue: Where the images and their women are known from. Unless given, the file must say them itself: each
            row its image's path, relative to the file's folder or absolute, its data set and its woman, as mammoseek's
            own files do.
        kind: One of KINDS; told by the content unless given.
        options: What the file does not say.
        progress: Called with images read and images in all.

    Raises:
        ExchangeError: The kind is unknown or not to be told, the file can't be read at all, or an option is wrong.
        DatasetError: A folder of CBIS-DDSM can't be read.
    """
    path, options = Path(path), options or ReadOptions()
    because = "it was said to be"
    if kind is None:
        kind, because = guess_kind(path)
    elif kind not in KINDS:
        raise ExchangeError(f"kind {kind[:80]!r}", "is unknown", f"the known ones are {', '.join(KINDS)}")
    if kind == "cad-sr":
        if catalogue is None:
            raise _without_images(path)
        return read_cad(path, catalogue, options.cad, because, progress)
    if kind != "cbis-ddsm":
        parsed = _READERS[kind](path, options)
    elif path.is_dir():
        parsed = read_cbis_folder(path, options)
    elif catalogue is not None:
        parsed = read_cbis_table(path, options, catalogue)
    else:
        raise _without_images(path)
    if catalogue is None:
        catalogue = _own_catalogue(parsed)
    detections = assemble(parsed, catalogue, options, progress)
    problems = sorted(parsed.problems, key=lambda problem: _natural(problem[0]))
    return Reading(kind, because, tuple(detections), tuple(problems), tuple(parsed.notes))


def _natural(place: str) -> list[tuple[int, str]]:
    """Return a key by which row 9 comes before row 10."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in _DIGITS.split(place)]


def _own_catalogue(parsed: Parsed) -> ImageCatalogue:
    """Return the images that the rows themselves name with their women, and make their names absolute."""
    folder = parsed.path if parsed.path.is_dir() else parsed.path.parent
    known: dict[str, ImageFacts] = {}
    marks: list[Mark] = []
    for mark in parsed.marks:
        if mark.dataset and mark.patient_id:
            try:
                parse_name(mark.image)
            except ExchangeError:
                pass  # whoever looks it up tells why
            else:
                place = os.path.abspath(folder / mark.image)  # noqa: PTH100 - resolving would follow links
                known.setdefault(place, ImageFacts(place, mark.dataset, mark.patient_id))
                mark = replace(mark, image=place)
        marks.append(mark)
    if parsed.marks and not known:
        raise _without_images(parsed.path)
    parsed.marks[:] = marks
    return ImageCatalogue(known.values())


def _without_images(path: Path) -> ExchangeError:
    return ExchangeError(
        path,
        "does not say which images and women its detections are of",
        "give the folder of images, or a manifest",
    )
