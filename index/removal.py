"""The proof that nothing of a removed finding is left in any file of its gallery, and the log that says so."""

import json
import mmap
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss as _faiss
import numpy as np
import numpy.typing as npt

from index import GalleryError
from index.durable import storage_error, sync_folder
from index.layout import MODEL_FOLDER, REMOVALS_NAME, all_files
from index.manifest import Manifest, now
from index.reading import read_segment
from index.segments import Segment
from index.vectors import Vectors

faiss: Any = _faiss  # Its Python wrappers take other arguments than the C++ classes that its stubs describe.

_SHORTEST_PATTERN = 32  # bytes: anything shorter could stand in other data by chance
_FEW_PATTERNS = 8  # up to as many are searched one by one
_CHUNK = 8 << 20  # bytes searched at a time
_LONGEST_LINE = 4096  # bytes of a line of the log
_REPORT = "tell the makers of mammoseek"


@dataclass(frozen=True, eq=False)
class Removed:
    """What was taken out of one segment.

    Attributes:
        segment: The rows.
        pictures: Their pictures.
    """

    segment: Segment
    pictures: tuple[bytes, ...]

    @property
    def row_ids(self) -> list[str]:
        """The rows' names."""
        return self.segment.columns["row_id"].dense().cells.tolist()

    @property
    def women(self) -> Iterator[tuple[str, str]]:
        """The data set and id of each row's woman."""
        columns = self.segment.columns
        return zip(columns["dataset"].dense().cells, columns["patient_id"].dense().cells, strict=True)


def prove_removed(folder: Path, manifest: Manifest, removed: Sequence[Removed]) -> None:
    """Read every file of a gallery back and search it for what was removed.

    The records must hold no removed row, and no text that is not a row's. The bytes of a vector (in float32, and in
    float16 and bfloat16 as an index may hold it) or a picture must be gone from every file at every offset, but for the
    vectors and pictures of rows that are kept: two findings can look the same. A link is not followed: what it leads to
    is no file of the gallery.

    Args:
        folder: The gallery.
        manifest: What it consists of now.
        removed: What was taken out.

    Raises:
        GalleryError: Something is left.
    """
    row_ids = {row_id for part in removed for row_id in part.row_ids}
    vectors = np.concatenate([part.segment.vectors for part in removed])
    numbers = np.concatenate([part.segment.numbers for part in removed])
    twins = _Twins(vectors)
    for entry in manifest.segments:
        segment = read_segment(folder, entry, manifest.identity.dimension)
        names = set(segment.columns["row_id"].cells.to_pylist())
        if not row_ids.isdisjoint(names) or np.isin(numbers, segment.numbers).any():
            raise GalleryError(folder / entry.file, "still holds a removed row", "remove it again")
        for name, column in segment.columns.items():
            if column.codes is not None and len(np.unique(column.codes[~column.missing])) < len(column.cells):
                raise GalleryError(folder / entry.file, f"still holds a text of {name} that is no row's", _REPORT)
        twins.note(segment.vectors)
    pictures = [picture for part in removed for picture in part.pictures]
    everything = _Search([*twins.forms, *pictures])
    in_caches = _Search([*twins.without_twin(), *pictures])
    # Whatever stands among the vectors or the pictures of a segment belongs to a row that is kept: the records say so.
    width = vectors.shape[1] * vectors.itemsize
    kept_vectors = {e.file: (e.vectors_at, e.vectors_at + e.rows * width) for e in manifest.segments}
    kept_pictures = {entry.pictures.file for entry in manifest.segments if entry.pictures}
    caches = {entry.file for entry in manifest.caches}
    for name in all_files(folder):
        # No writer of this room puts anything into the model's folder.
        if name in kept_pictures or name.startswith(f"{MODEL_FOLDER}/"):
            continue
        search = in_caches if name in caches else everything
        if _is_in_file(folder / name, search, kept_vectors.get(name)):
            raise GalleryError(folder / name, "still holds a part of a removed row", "delete this file by hand")


def holds_vector(data: bytes, removed: Sequence[Removed]) -> bool:
    """Return whether the bytes of a removed vector stand in some bytes, in any precision of `stored_forms`."""
    patterns = [form for part in removed for form in stored_forms(part.segment.vectors)]
    return _Search(patterns).finds(data, 0, len(data))


def log_removal(folder: Path, state: str, generation: int, rows: int, women: int, reason: str) -> None:
    """Add a line to the log of removals, durably. It holds no identity.

    Args:
        folder: The gallery.
        state: `begun` before the change is committed, `proven` after every file was searched. Where the process was
            killed between the two, the next writer adds `undone` (the rows are still there) or `unproven` (they are
            gone, and so are the files that held them, which nobody has searched for).
        generation: The generation without the rows.
        rows: How many were removed.
        women: Of how many women.
        reason: What kind of question chose them.

    Raises:
        GalleryError: It can't be written.
    """
    line = {"time": now(), "state": state, "generation": generation, "rows": rows, "women": women, "by": reason}
    path = folder / REMOVALS_NAME
    try:
        new = not path.exists()
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o666)
        try:
            size = os.fstat(descriptor).st_size
            # A line that a full disk or a power cut has left unfinished must not swallow this one.
            torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            rest = (b"\n" if torn else b"") + json.dumps(line).encode() + b"\n"
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if new:
            sync_folder(folder)
    except OSError as error:
        raise storage_error(path, error) from error


def settle_log(folder: Path, generation: int) -> None:
    """Say in the log what became of a removal whose process was killed; for the next holder of the writer's lock.

    Args:
        folder: The gallery.
        generation: The one that stands.

    Raises:
        GalleryError: It can't be written.
    """
    last = _last_line(folder / REMOVALS_NAME)
    if last is None or last["state"] != "begun":
        return
    state = "unproven" if last["generation"] <= generation else "undone"
    log_removal(folder, state, last["generation"], last["rows"], last["women"], last["by"])


def _last_line(path: Path) -> dict[str, Any] | None:
    """Return the last line of the log; None where there is none that can be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            tail = os.pread(descriptor, _LONGEST_LINE, max(0, os.fstat(descriptor).st_size - _LONGEST_LINE))
        finally:
            os.close(descriptor)
        line = json.loads(tail.splitlines()[-1])
    except (OSError, ValueError, IndexError, RecursionError):
        return None
    kinds = {"state": str, "generation": int, "rows": int, "women": int, "by": str}
    fits = isinstance(line, dict) and all(type(line.get(name)) is kind for name, kind in kinds.items())
    return line if fits else None


def stored_forms(vectors: Vectors) -> list[bytes]:
    """Return the bytes of each vector, float32 (m, d), in float32, and in float16 and bfloat16.

    FAISS rounds to the halves in its own way, which is not numpy's: the bytes are those that it would store.
    """
    vectors = np.ascontiguousarray(vectors)
    halves = [
        faiss.IndexScalarQuantizer(vectors.shape[1], kind).sa_encode(vectors)
        for kind in (faiss.ScalarQuantizer.QT_fp16, faiss.ScalarQuantizer.QT_bf16)
    ]
    return [row.tobytes() for form in (vectors, *halves) for row in form]


class _Twins:
    """Which removed vectors look like one that is kept, bit for bit, and may so stand in an index.

    Args:
        removed: float32 (m, d).
    """

    def __init__(self, removed: Vectors) -> None:
        self.forms = stored_forms(removed)
        # A number on either side of all: each kept one then has two neighbours.
        self._firsts = np.concatenate([[-np.inf], np.sort(removed[:, 0]), [np.inf]])
        self._kept: set[bytes] = set()

    def note(self, kept: Vectors) -> None:
        """Take note of some vectors that are kept."""
        # The first number tells most vectors apart, and it alone is read of them.
        # Vectors that are one in bfloat16, the coarsest form, are so near.
        first = kept[:, 0].astype(np.float64)
        place = np.searchsorted(self._firsts[1:-1], first) + 1
        gap = np.minimum(first - self._firsts[place - 1], self._firsts[place] - first)
        alike = kept[gap <= np.abs(first) * 2.0**-7 + 1e-37]
        if len(alike):
            self._kept |= set(stored_forms(alike))

    def without_twin(self) -> list[bytes]:
        """Return the bytes of the removed vectors, in every precision, that no kept one has."""
        return [form for form in self.forms if form not in self._kept]


def _is_in_file(path: Path, search: "_Search", skipped: tuple[int, int] | None) -> bool:
    """Return whether a pattern stands in a file, but for a part that is left out."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    except OSError as error:
        if path.is_symlink():
            return False
        raise storage_error(path, error) from error
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode) or not about.st_size:
            return False
        with mmap.mmap(descriptor, about.st_size, access=mmap.ACCESS_READ) as data:
            start, stop = skipped or (0, 0)
            return search.finds(data, 0, start) or search.finds(data, stop, about.st_size)
    except OSError as error:
        raise storage_error(path, error) from error
    finally:
        os.close(descriptor)


class _Search:
    """Looks for many patterns of bytes at every offset.

    Args:
        patterns: Those shorter than 32 bytes are left out: they could stand in other data by chance.
    """

    def __init__(self, patterns: Sequence[bytes]) -> None:
        self._patterns = [pattern for pattern in dict.fromkeys(patterns) if len(pattern) >= _SHORTEST_PATTERN]
        heads = np.array([int.from_bytes(p[:8], "little") for p in self._patterns], np.uint64)
        self._order = np.argsort(heads, kind="stable")
        self._heads = heads[self._order]
        self._maybe = np.zeros(1 << 16, np.bool_)
        self._maybe[_slot(heads)] = True

    def finds(self, data: bytes | mmap.mmap, start: int, stop: int) -> bool:
        """Return whether any pattern stands in a part of some bytes."""
        if len(self._patterns) <= _FEW_PATTERNS:
            return any(data.find(pattern, start, stop) >= 0 for pattern in self._patterns)
        return any(self._finds_at(data, first, stop) for first in range(start, min(start + 8, stop - 7)))

    def _finds_at(self, data: bytes | mmap.mmap, start: int, stop: int) -> bool:
        """Look at every eighth offset."""
        words = np.frombuffer(data, "<u8", (stop - start) // 8, start)
        for block in range(0, len(words), _CHUNK // 8):
            part = words[block : block + _CHUNK // 8]
            for place in np.flatnonzero(self._maybe[_slot(part)]).tolist():
                at = start + 8 * (block + place)
                first = int(np.searchsorted(self._heads, part[place]))
                last = int(np.searchsorted(self._heads, part[place], side="right"))
                for pattern in (self._patterns[int(n)] for n in self._order[first:last]):
                    if at + len(pattern) <= stop and data[at : at + len(pattern)] == pattern:
                        return True
        return False


def _slot(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Return a place in a table of 65,536 for each word, so that most words that are no pattern's are told at once."""
    return (words * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(48)
