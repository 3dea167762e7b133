"""Images in halving sizes, cut into tiles: decoded once by background threads, kept in bounded memory.

Level 0 is the image as it is stored; each further level has half the rows and columns, rounded up, every pixel the mean
of 2 × 2 (the last row or column repeated where it has no partner), until one tile holds it all. So a pixel of level n
covers exactly 2ⁿ × 2ⁿ stored pixels. All levels together take a third more memory than the image; they are made as soon
as the image is decoded, which costs a tenth of the decoding. JPEG 2000 holds an image in halving sizes itself: coarse
levels are read alone, in hundredths of a second, and can be looked at while the image is decoded.
"""

import contextlib
import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np

from embedder.header import Header
from errors import MammoseekError
from viewer.display import (
    Appearance,
    DisplayImage,
    DisplayWindow,
    Pixels16,
    appearance,
    read_display,
    read_display_halved,
    reads_halved,
)
from viewer.keeping import default_budget, keep_within
from viewer.problems import NotFoundError

Value = TypeVar("Value")

Read = Callable[[Path, int | None], DisplayImage]
"""From a file and its frame to the image."""

TILE = 512
"""Rows and columns of a tile; the last of a row or column may have fewer."""

_COARSE = 1024  # pixels a side, about: the level that is looked at for chest wall and windows
_THREADS = 2
_GLIMPSES_KEPT = 16
_MOST_AHEAD = 3  # images that are being decoded, beyond which none is decoded ahead of time
_FORMAT = b"2"  # of what a tile holds: part of its tag


@dataclass(frozen=True)
class Version:
    """A file as it is now: what was made of another is not shown.

    Attributes:
        path: The file.
        frame: Which image of a multi-frame file, from 1; None where there is only one.
        changed_ns: When it last changed.
        size: Its bytes.
    """

    path: str
    frame: int | None
    changed_ns: int
    size: int

    @property
    def tag(self) -> str:
        """16 hex that change with the file."""
        said = f"{self.path}#{self.frame}#{self.changed_ns}#{self.size}".encode("utf-8", "surrogateescape")
        return hashlib.sha256(_FORMAT + said).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class Pyramid:
    """One image at all its levels.

    Attributes:
        header: What its file says.
        levels: uint16 (rows, columns) each, the finest first.
        file_windows: The file's own windows.
        notes: What a reader should know.
        tag: Changes with the file.
        first: Which level the finest is: 0, the full size; of a glimpse a coarser one.
    """

    header: Header
    levels: tuple[Pixels16, ...]
    file_windows: tuple[DisplayWindow, ...]
    notes: tuple[str, ...]
    tag: str
    first: int = 0

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Rows and columns of every level from the full size on, whether it is here or not."""
        return level_sizes(self.header.rows, self.header.columns)

    @property
    def nbytes(self) -> int:
        """Bytes of all levels."""
        return sum(level.nbytes for level in self.levels)

    @cached_property
    def appearance(self) -> Appearance:
        """Where the chest wall is, and the windows on offer."""
        coarse = next((level for level in self.levels if max(level.shape) <= _COARSE), self.levels[-1])
        return appearance(coarse, self.file_windows)

    def tile(self, level: int, row: int, column: int) -> Pixels16:
        """Return one tile, uint16 of at most TILE × TILE.

        Raises:
            NotFoundError: There is no such level or tile here.
        """
        if not self.first <= level < self.first + len(self.levels):
            raise NotFoundError(f"level {level}", f"the image has {self.first + len(self.levels)} levels, from 0")
        pixels = self.levels[level - self.first]
        if row < 0 or column < 0 or row * TILE >= pixels.shape[0] or column * TILE >= pixels.shape[1]:
            raise NotFoundError(f"tile {row}, {column}", f"level {level} has no such tile")
        return pixels[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE]


def halve(pixels: Pixels16) -> Pixels16:
    """Return an image at half its size, every pixel the rounded mean of 2 × 2.

    Args:
        pixels: uint16 (rows, columns); a last row or column without a partner is its own.

    Returns:
        uint16 (⌈rows / 2⌉, ⌈columns / 2⌉).
    """
    rows, columns = pixels.shape
    if rows % 2 or columns % 2:
        pixels = np.pad(pixels, ((0, rows % 2), (0, columns % 2)), mode="edge")
    size = (pixels.shape[1] // 2, pixels.shape[0] // 2)
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint16)


def level_sizes(rows: int, columns: int) -> list[tuple[int, int]]:
    """Return rows and columns of each level of an image.

    >>> level_sizes(1025, 600)
    [(1025, 600), (513, 300), (257, 150)]
    """
    sizes = [(rows, columns)]
    while max(sizes[-1]) > TILE:
        sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)))
    return sizes


def read_here(path: Path, frame: int | None) -> DisplayImage:
    """Read an image by this very thread."""
    return read_display(path, frame=frame)


def build_pyramid(path: Path, frame: int | None, tag: str, read: Read = read_here) -> Pyramid:
    """Read an image and halve it until one tile holds it.

    Args:
        path: The file.
        frame: Which image of a multi-frame file, from 1; None where there is only one.
        tag: Changes with the file.
        read: Reads it.

    Raises:
        MammoseekError: The file can't be read, or is no mammogram.
    """
    image = read(path, frame)
    # The coarse levels are those that were looked at before it was decoded: not quite the halves of the finer ones.
    seen = None
    if reads_halved(image.header):
        with contextlib.suppress(MammoseekError):  # it is decoded, whatever became of its file since
            seen = glimpse(path, frame, tag, image.header)
    coarse = seen.levels if seen is not None else ()
    levels = _halved(image.pixels, len(level_sizes(*image.pixels.shape)) - len(coarse)) + coarse
    return Pyramid(image.header, levels, image.windows, image.notes, tag)


def glimpse(path: Path, frame: int | None, tag: str, header: Header) -> Pyramid | None:
    """Read the coarse levels of an image alone, in a fraction of the time; None where it has to be decoded whole.

    Args:
        path: The file, of which `viewer.display.reads_halved` says that it may be read so.
        frame: Which image of a multi-frame file, from 1; None where there is only one.
        tag: Changes with the file.
        header: What it says.

    Raises:
        MammoseekError: The file can't be read, or is no mammogram.
    """
    sizes = level_sizes(header.rows, header.columns)
    first = next(level for level, size in enumerate(sizes) if max(size) <= _COARSE)
    image = read_display_halved(path, first, frame=frame) if first else None
    if image is None or level_sizes(image.header.rows, image.header.columns) != sizes:  # the file has changed since
        return None
    levels = _halved(image.pixels, len(sizes) - first)
    return Pyramid(image.header, levels, image.windows, image.notes, tag, first)


def _halved(pixels: Pixels16, count: int) -> tuple[Pixels16, ...]:
    """Return an image and so many less one of its halvings, none of which can be written to."""
    levels = [pixels]
    while len(levels) < count:
        levels.append(halve(levels[-1]))
    for level in levels:
        level.setflags(write=False)
    return tuple(levels)


class Pyramids:
    """Decoded images, those used last; each is decoded once however many ask for it at a time.

    Args:
        budget: Bytes that they may take together; the one used last stays in any case.
        threads: Images that are decoded at a time.
        read: Reads one.
    """

    def __init__(self, budget: int | None = None, *, threads: int = _THREADS, read: Read = read_here) -> None:
        self.budget = default_budget() if budget is None else budget
        self._read = read
        self._kept: OrderedDict[str, Pyramid] = OrderedDict()
        self._making: dict[str, Future[Pyramid]] = {}
        self._glimpses: OrderedDict[str, Future[Pyramid | None]] = OrderedDict()
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="mammoseek-decode")
        self._glimpser = ThreadPoolExecutor(1, thread_name_prefix="mammoseek-glimpse")

    @property
    def nbytes(self) -> int:
        """Bytes that are taken now."""
        with self._lock:
            return sum(pyramid.nbytes for pyramid in self._kept.values())

    def version(self, path: str, frame: int | None = None) -> Version:
        """Return a file as it is now.

        Raises:
            NotFoundError: It is gone.
        """
        try:
            status = os.stat(path)  # noqa: PTH116 - of every request
        except OSError as error:
            raise NotFoundError(
                Path(path).name, f"the image can't be opened ({error.strerror})", "look whether its folder is there"
            ) from error
        return Version(path, frame, status.st_mtime_ns, status.st_size)

    def kept(self, version: Version) -> Pyramid | None:
        """Return an image that is decoded already; None where it is not."""
        with self._lock:
            found = self._kept.get(version.tag)
            if found is not None:
                self._kept.move_to_end(version.tag)
            return found

    def ask(self, version: Version) -> "Future[Pyramid]":
        """Return an image as soon as it is decoded."""
        with self._lock:
            tag = version.tag
            found = self._kept.get(tag)
            if found is not None:
                self._kept.move_to_end(tag)
                return _done(found)
            if tag not in self._making:
                self._making[tag] = self._pool.submit(self._make, version)
            return self._making[tag]

    def glimpse(self, version: Version, header: Header) -> "Future[Pyramid | None]":
        """Return an image's coarse levels as soon as they are here; None where it has to be decoded whole first.

        Args:
            version: The file.
            header: What it says.
        """
        if not reads_halved(header):
            return _done(None)
        with self._lock:
            tag = version.tag
            before = self._glimpses.get(tag)
            if before is None or (before.done() and (before.cancelled() or before.exception() is not None)):
                self._glimpses[tag] = self._glimpser.submit(glimpse, Path(version.path), version.frame, tag, header)
                if len(self._glimpses) > _GLIMPSES_KEPT:
                    self._glimpses.popitem(last=False)
            return self._glimpses[tag]

    def glimpsed(self, version: Version) -> Pyramid | None:
        """Return an image's coarse levels where they are here already."""
        with self._lock:
            found = self._glimpses.get(version.tag)
        if found is None or not found.done() or found.cancelled() or found.exception() is not None:
            return None
        return found.result()

    def ask_ahead(self, version: Version) -> None:
        """Decode an image that may be wanted soon, unless several are being decoded already."""
        with self._lock:
            busy = len(self._making) >= _MOST_AHEAD
        if not busy:
            self.ask(version)

    def close(self) -> None:
        """End the threads; what is not begun is left."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._glimpser.shutdown(wait=True, cancel_futures=True)

    def _make(self, version: Version) -> Pyramid:
        try:
            made = build_pyramid(Path(version.path), version.frame, version.tag, self._read)
        except BaseException:
            with self._lock:
                self._making.pop(version.tag, None)
            raise
        with self._lock:
            self._making.pop(version.tag, None)
            self._kept[version.tag] = made
            keep_within(self._kept, self.budget)
        return made


def _done(value: Value) -> "Future[Value]":
    future: Future[Value] = Future()
    future.set_result(value)
    return future
