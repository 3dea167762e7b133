"""YOLO's text files: one for each image, in shares of its width and height."""

import os
from collections.abc import Mapping
from pathlib import Path

from exchange import ExchangeError
from exchange.formats.classnames import NAMES_FILES, find_names, read_names
from exchange.formats.marks import Mark, Parsed, ReadOptions, RowError, number, read_text

_MOST_FILES = 1_000_000
_LONGEST_LINE = 400_000  # characters: an outline of 20,000 corners
_NOT_LABELS = {*NAMES_FILES, "readme.txt", "train.txt", "val.txt", "test.txt", "labels.txt"}


def label_files(folder: Path) -> list[Path]:
    """Return the label files of a folder and those below it, sorted; lists of classes and of images are none.

    Raises:
        ExchangeError: There are more than are read.
    """
    files: list[Path] = []
    for place, below, names in os.walk(folder):  # follows no links: a loop of them has no end
        below[:] = sorted(name for name in below if not name.startswith("."))
        files += [Path(place) / name for name in sorted(names) if is_label_name(name)]
        if len(files) > _MOST_FILES:
            raise ExchangeError(folder, f"has more than {_MOST_FILES:,} label files", "divide it")
    return files


def is_label_name(name: str) -> bool:
    """Tell whether a file of this name holds labels: lists of classes and of images do not."""
    folded = name.lower()
    return folded.endswith(".txt") and not name.startswith(".") and folded not in _NOT_LABELS


def is_label_line(line: str) -> bool:
    """Tell whether a line may be a label: a whole number, then at least four numbers.

    >>> is_label_line("0 0.5 0.5 0.1 0.1 0.93"), is_label_line("path,x0,y0")
    (True, False)
    """
    try:
        _parse(line)
    except RowError:
        return False
    return True


def read_yolo(path: Path, options: ReadOptions) -> Parsed:
    """Read one label file, or a folder of them; a file without lines is an image without detections.

    A line is `class cx cy width height [score]`, or `class x y x y x y ... [score]` for an outline. The file's name
    without suffix is the image's. Boxes are as exact as the file's digits: six of them on 6,000 pixels are off by
    0.005 pixels at most, which is rounded away (see `exchange.formats.places.SNAP`).

    Raises:
        ExchangeError: The path or the names of classes can't be read, or there are no label files.
    """
    parsed = Parsed(path)
    folder = path if path.is_dir() else path.parent
    files = label_files(path) if path.is_dir() else [path]
    if not files:
        raise ExchangeError(path, "holds no label files (.txt)", "name the folder of YOLO's labels")
    names_file = options.names or find_names(folder)
    names = read_names(names_file) if names_file is not None else {}
    if names_file is None:
        parsed.notes.append("the classes have no names, only numbers: name them in a file classes.txt")
    empty = 0
    for file in files:
        place = file.relative_to(folder).as_posix()
        image = place.removesuffix(file.suffix)
        try:
            text = read_text(file, may_be_empty=True)
        except ExchangeError as error:
            parsed.refuse(place, error.cause)
            continue
        lines = text.split("\n")
        empty += not text.strip()
        for position, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                parsed.add(_mark(f"{place} line {position}", image, line, names))
            except RowError as error:
                parsed.refuse(f"{place} line {position}", error)
    if empty:
        parsed.notes.append(f"{empty:,} of {len(files):,} images have no detections")
    return parsed


def _mark(place: str, image: str, line: str, names: Mapping[int, str]) -> Mark:
    kind, values = _parse(line)
    word = names.get(kind, str(kind))
    note = f"the names have no class {kind}" if names and kind not in names else None
    if len(values) in (4, 5):
        x, y, width, height = values[:4]
        box = x - width / 2, y - height / 2, x + width / 2, y + height / 2
        score = values[4] if len(values) == 5 else None
        return Mark(place, image, box=box, normalised=True, score=score, word=word, note=note)
    score = values[-1] if len(values) % 2 else None
    corners = values[: len(values) - len(values) % 2]
    outline = tuple(zip(corners[::2], corners[1::2], strict=True))
    return Mark(place, image, outline=outline, normalised=True, score=score, word=word, note=note)


def _parse(line: str) -> tuple[int, list[float]]:
    if len(line) > _LONGEST_LINE:
        raise RowError(f"the line has {len(line):,} characters")
    words = line.split()
    if len(words) < 5:
        raise RowError(f"has {len(words)} values: class, cx, cy, width and height are needed")
    if not (words[0].isascii() and words[0].isdigit() and len(words[0]) <= 6):
        raise RowError(f"the class {words[0][:40]!r} is no number")
    values = [number(word, "a coordinate") for word in words[1:]]
    if None in values:
        raise RowError("a coordinate is missing")
    return int(words[0]), [value for value in values if value is not None]
