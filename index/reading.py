"""Reading the files of a gallery: sizes first, then digests, then content."""

import hashlib
import io
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from index import GalleryError
from index.durable import open_plain, storage_error
from index.engines import UNIT_TOLERANCE
from index.manifest import FileEntry, SegmentEntry
from index.memory import available_memory
from index.segments import Segment, decode_segment, digest, split_segment

_CHUNK = 1 << 20  # bytes digested at a time
_REMEDY = "restore it from a copy, or build the gallery again"


def read_file(folder: Path, entry: FileEntry) -> bytes:
    """Read one file of a gallery and check its digest.

    Raises:
        FileNotFoundError: It is not there, perhaps because a removal has just replaced it.
        GalleryError: It is damaged, can't be read, or is larger than the free memory.
    """
    path = folder / entry.file
    try:
        with open_plain(path) as file:
            # A file that has grown must not be taken into memory.
            whole = os.fstat(file.fileno()).st_size == entry.bytes
            if whole and entry.bytes > (free := available_memory()):
                needs = f"takes {entry.bytes / 2**30:,.1f} GiB of memory, and {free / 2**30:,.1f} GiB are free"
                raise GalleryError(path, needs, "use a machine with more memory")
            data = b"".join(bytes(piece) for piece in _pieces(file, 0, entry.bytes)) if whole else b""
    except FileNotFoundError:
        raise
    except OSError as error:
        raise storage_error(path, error) from error
    if not whole or digest(data) != entry.sha256:
        raise damaged_file(path)
    return data


def damaged_file(path: Path) -> GalleryError:
    """Return the error for a file whose bytes are not those that were written."""
    return GalleryError(path, "is damaged: its digest is not the one it was written with", _REMEDY)


def read_segment(folder: Path, entry: SegmentEntry, dimension: int, *, checked: bool = True) -> Segment:
    """Map one segment into memory and check its digest.

    Its vectors stay on the disk, and in the system's cache, which all processes share; they are read when they are
    used.

    Args:
        folder: The gallery.
        entry: The segment.
        dimension: Length of its vectors.
        checked: Read the vectors once and digest them too; all the rest is digested in any case.

    Raises:
        FileNotFoundError: It is not there, perhaps because a removal has just replaced it.
        GalleryError: It is damaged, or can't be read.
    """
    path, data = folder / entry.file, None
    end = entry.vectors_at + entry.rows * dimension * 4
    squares = float(entry.rows)
    try:
        with open_plain(path) as file:
            # A file that is not as large as it was must not be taken into memory.
            if os.fstat(file.fileno()).st_size == entry.bytes:
                rest, whole, squares = _digests(file, entry, end, whole=checked)
                if rest == entry.rest_sha256 and whole in ("", entry.sha256):
                    data = mmap.mmap(file.fileno(), entry.bytes, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise storage_error(path, error) from error
    except ValueError as error:
        raise GalleryError(path, "the segment shrank while it was read", _REMEDY) from error
    if data is None:
        cause = f"the segment is damaged: its digest is not the one it was written with ({entry.rows} rows)"
        raise GalleryError(path, cause, _REMEDY)
    # The squares of a vector of length 1 have the sum 1; they have not where a number is not finite.
    if not abs(squares - entry.rows) <= 2.1 * UNIT_TOLERANCE * entry.rows:
        raise GalleryError(path, "the segment is damaged: its vectors are not of length 1", _REMEDY)
    pieces = split_segment(data, rows=entry.rows, dimension=dimension, vectors_at=entry.vectors_at)
    segment = decode_segment(pieces, subject=path)
    if (int(segment.numbers[0]), int(segment.numbers[-1])) != (entry.first, entry.last):
        raise GalleryError(path, "the segment holds other rows than the gallery says", _REMEDY)
    # The proof of a removal relies on it: no byte of the pictures' file is nobody's.
    ends = 0 if segment.pictures is None else int(segment.pictures.ends[-1])
    if ends != (0 if entry.pictures is None else entry.pictures.bytes):
        raise GalleryError(path, "the segment's pictures are not those that the gallery says", _REMEDY)
    return segment


def _digests(file: io.FileIO, entry: SegmentEntry, end: int, *, whole: bool) -> tuple[str, str, float]:
    """Read a segment's file once; return the digest of all but its vectors, that of all, and the vectors' squares' sum.

    Args:
        file: The file.
        entry: What it must be.
        end: Where its vectors end.
        whole: Read the vectors too. Where they are left out, the second digest is empty and the sum what it must be.
    """
    rest, own, squares = hashlib.sha256(), hashlib.sha256(), 0.0
    for data in _pieces(file, 0, entry.vectors_at):
        rest.update(data)
        own.update(data)
    for data in _pieces(file, entry.vectors_at, end) if whole else ():
        own.update(data)
        numbers = np.frombuffer(data, np.float32)
        with np.errstate(over="ignore", invalid="ignore"):  # an infinite sum is met by whoever compares it
            squares += float(np.dot(numbers, numbers))
    for data in _pieces(file, end, entry.bytes):
        rest.update(data)
        own.update(data)
    return (rest.hexdigest(), own.hexdigest(), squares) if whole else (rest.hexdigest(), "", float(entry.rows))


def _pieces(file: io.FileIO, start: int, stop: int) -> Iterator[memoryview]:
    """Yield a part of a file; every piece but the last is of `_CHUNK` bytes. A file that ends before it yields less."""
    buffer = memoryview(bytearray(min(_CHUNK, max(0, stop - start))))
    file.seek(start)
    while start < stop:
        wanted, filled = min(_CHUNK, stop - start), 0
        while filled < wanted and (count := file.readinto(buffer[filled:wanted])):
            filled += count
        yield buffer[: filled - filled % 4] if filled < wanted else buffer[:wanted]
        if filled < wanted:
            return
        start += filled


def missing_segment(folder: Path, entry: SegmentEntry) -> GalleryError:
    """Return the error for a segment that is named and not there."""
    return GalleryError(folder / entry.file, f"the segment is missing ({entry.rows} rows)", _REMEDY)


def read_picture(folder: Path, entry: SegmentEntry, span: tuple[int, int], sha256: bytes) -> bytes:
    """Read one picture out of a segment's pictures and check its digest.

    Args:
        folder: The gallery.
        entry: The segment.
        span: Where the picture starts and ends.
        sha256: Its digest.

    Raises:
        FileNotFoundError: The file is not there, perhaps because a removal has just replaced it.
        GalleryError: It is damaged, or can't be read.
    """
    assert entry.pictures is not None, "who asks for a picture knows that there are some"
    path, (start, end) = folder / entry.pictures.file, span
    try:
        with open_plain(path) as file:
            whole = os.fstat(file.fileno()).st_size == entry.pictures.bytes
            data = os.pread(file.fileno(), end - start, start) if whole else b""
    except FileNotFoundError:
        raise
    except OSError as error:
        raise storage_error(path, error) from error
    if bytes.fromhex(digest(data)) != sha256:
        raise damaged_file(path)
    return data
