"""Images in halving sizes, cut into tiles: decoded once by background threads, kept in bounded memory.

Level 0 is the image as it is stored; each further level has half the rows and columns, rounded up, every pixel the mean
of 2 × 2 (the last row or column repeated where it has no partner), until one tile holds it all. So a pixel of level n
covers exactly 2ⁿ × 2ⁿ stored pixels. All levels together take a third more memory than the image; they are made as soon
as the image is decoded, which costs a tenth of the decoding.
"""

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np

from embedder.header import Header
from index.memory import available_memory
from viewer.display import Appearance, DisplayImage, DisplayWindow, Pixels16, appearance, read_display
from viewer.problems import NotFoundError

Read = Callable[[Path, int | None], DisplayImage]
"""From a file and its frame to the image."""

TILE = 512
"""Rows and columns of a tile; the last of a row or column may have fewer."""

_COARSE = 1024  # pixels a side, about: the level that is looked at for chest wall and windows
_THREADS = 2
_MOST_AHEAD = 3  # images that are being decoded, beyond which none is decoded ahead of time
_FEWEST_BYTES, _MOST_BYTES = 256 << 20, 2 << 30
_FORMAT = b"1"  # of what a tile holds: part of its tag


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
        levels: uint16 (rows, columns) each, full size first.
        file_windows: The file's own windows.
        notes: What a reader should know.
        tag: Changes with the file.
    """

    header: Header
    levels: tuple[Pixels16, ...]
    file_windows: tuple[DisplayWindow, ...]
    notes: tuple[str, ...]
    tag: str

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
            NotFoundError: There is no such level or tile.
        """
        if not 0 <= level < len(self.levels):
            raise NotFoundError(f"level {level}", f"the image has {len(self.levels)} levels, from 0")
        pixels = self.levels[level]
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
    levels = [image.pixels]
    while max(levels[-1].shape) > TILE:
        levels.append(halve(levels[-1]))
    for level in levels:
        level.setflags(write=False)
    return Pyramid(image.header, tuple(levels), image.windows, image.notes, tag)


def default_budget() -> int:
    """Return the bytes that decoded images may take: an eighth of what is free, 256 MiB at least and 2 GiB at most."""
    return int(min(_MOST_BYTES, max(_FEWEST_BYTES, available_memory() // 8)))


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
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="mammoseek-decode")

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
                done: Future[Pyramid] = Future()
                done.set_result(found)
                return done
            if tag not in self._making:
                self._making[tag] = self._pool.submit(self._make, version)
            return self._making[tag]

    def ask_ahead(self, version: Version) -> None:
        """Decode an image that may be wanted soon, unless several are being decoded already."""
        with self._lock:
            busy = len(self._making) >= _MOST_AHEAD
        if not busy:
            self.ask(version)

    def close(self) -> None:
        """End the threads; what is not begun is left."""
        self._pool.shutdown(wait=True, cancel_futures=True)

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
            taken = sum(pyramid.nbytes for pyramid in self._kept.values())
            while taken > self.budget and len(self._kept) > 1:
                taken -= self._kept.popitem(last=False)[1].nbytes
        return made
