"""One immutable segment: some vectors, what is known of each, and perhaps a small picture of each.

It lies in two or three files, each named by the manifest with its digest.

`<name>.h5`, an HDF5 file, holds this and nothing else:

- attribute `format` (int64) of the root;
- `vectors`: float32 (rows, dimension), contiguous and aligned to a page, so that it can be mapped;
- `numbers`: int64 (rows,), increasing: each row's number in the gallery, which never changes;
- `records/<column>`: (rows,) of int64, float64 or uint8 (a truth value); or a group for a column of texts: `codes`,
  int32 (rows,), -1 where missing, `text`, uint8, its distinct values in UTF-8 one after the other, and `ends`, int64,
  where each ends;
- `missing/<column>`: uint8 (rows,), 1 where an int64 or uint8 is missing (a float64 says it by NaN);
- `pictures/ends`: int64 (rows,), where each row's picture ends in the pictures' file, and `pictures/sha256`: uint8
  (rows, 32), the digest of each; where the segment has pictures.

`<name>.keys`: uint64, little-endian, sorted: a hash of every row id, so that a writer knows what is stored without
reading the records.

`<name>.pictures`: PNG files, one after the other.

Bytes are digested before they are parsed. The vectors are mapped: a gallery may be larger than the memory.
"""

import hashlib
import io
import mmap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from index import GalleryError
from index.records import Kind
from index.table import Encoded, take_rows

SEGMENT_FORMAT = 2
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

Data = bytes | bytearray | memoryview | mmap.mmap

_GROUPS = {"records", "missing", "pictures"}
_PAGE = 4096
_REMEDY = "restore it from a copy, or build the gallery again"


@dataclass(frozen=True, eq=False)
class Pictures:
    """Where the small pictures of a segment's rows lie in the pictures' file.

    Attributes:
        ends: int64 (rows,) where each ends; a row without a picture has none of its own bytes.
        sha256: uint8 (rows, 32) the digest of each.
    """

    ends: npt.NDArray[np.int64]
    sha256: npt.NDArray[np.uint8]

    def span(self, row: int) -> tuple[int, int]:
        """Return where a row's picture starts and ends."""
        return (int(self.ends[row - 1]) if row else 0), int(self.ends[row])


@dataclass(frozen=True, eq=False)
class Segment:
    """What one segment holds.

    Attributes:
        vectors: float32 (rows, dimension).
        numbers: int64 (rows,), increasing.
        columns: The case records.
        pictures: Where the pictures lie; None where it has none.
    """

    vectors: npt.NDArray[np.float32]
    numbers: npt.NDArray[np.int64]
    columns: dict[str, Encoded]
    pictures: Pictures | None = None

    @property
    def rows(self) -> int:
        """Number of findings."""
        return len(self.vectors)


def digest(data: Data) -> str:
    """Return the sha256 of some bytes as hexadecimal text."""
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True, eq=False)
class Pieces:
    """The bytes of a segment's HDF5 file in three pieces, so that the vectors can lie where they are wanted.

    Attributes:
        head: All before the vectors.
        vectors: float32 (rows, dimension).
        rest: All after them.
    """

    head: Data
    vectors: npt.NDArray[np.float32]
    rest: Data

    def digests(self, *, whole: bool = True) -> tuple[str, str]:
        """Return the digest of the whole file ("" where it is not wanted), and that of all but the vectors."""
        own, other = hashlib.sha256(self.head), hashlib.sha256(self.head)
        other.update(self.rest)
        if whole:
            own.update(self.vectors.data.cast("B") if self.vectors.size else b"")
            own.update(self.rest)
        return own.hexdigest() if whole else "", other.hexdigest()


def keys_of(row_ids: Sequence[str]) -> npt.NDArray[np.uint64]:
    """Return the hash of each row id.

    >>> keys_of(["a"]).tolist() == keys_of(["b", "a"])[1:].tolist()
    True
    """
    hashes = b"".join(hashlib.sha256(row_id.encode("utf-8", "surrogatepass")).digest()[:8] for row_id in row_ids)
    return np.frombuffer(hashes, "<u8").astype(np.uint64)


def join_pictures(pictures: Sequence[bytes]) -> tuple[Pictures, bytes]:
    """Return where each picture lies, and the content of the pictures' file."""
    ends = np.cumsum([len(picture) for picture in pictures], dtype=np.int64)
    hashes = b"".join(hashlib.sha256(picture).digest() for picture in pictures)
    return Pictures(ends, np.frombuffer(hashes, np.uint8).reshape(-1, 32)), b"".join(pictures)


def encode_segment(segment: Segment) -> tuple[bytes, int]:
    """Return a segment as the bytes of its HDF5 file, and where its vectors start: the same bytes for the same segment.

    The file is made in memory, so that a full disk is met where plain bytes are written and nowhere else.
    """
    buffer = io.BytesIO()
    options = {"libver": ("earliest", "v110"), "alignment_threshold": _PAGE, "alignment_interval": _PAGE}
    with h5py.File(buffer, "w", **options) as file:
        file.attrs.create("format", SEGMENT_FORMAT, dtype=np.int64)
        vectors = file.create_dataset("vectors", data=np.ascontiguousarray(segment.vectors, np.float32))
        file.create_dataset("numbers", data=segment.numbers)
        records = file.create_group("records", track_order=True)
        missing = file.create_group("missing")
        for name, column in segment.columns.items():
            _write_column(records, missing, name, column)
        if segment.pictures is not None:
            pictures = file.create_group("pictures")
            pictures.create_dataset("ends", data=segment.pictures.ends)
            pictures.create_dataset("sha256", data=segment.pictures.sha256)
        file.flush()
        start = vectors.id.get_offset() or 0
    return buffer.getvalue(), start


def split_segment(data: Data, *, rows: int, dimension: int, vectors_at: int) -> Pieces:
    """Return the bytes of a segment's HDF5 file in their pieces, without copying them."""
    view, end = memoryview(data), vectors_at + rows * dimension * 4
    vectors = np.frombuffer(view, np.float32, rows * dimension, vectors_at).reshape(rows, dimension)
    return Pieces(view[:vectors_at], vectors, view[end:])


def decode_segment(pieces: Pieces, *, subject: object) -> Segment:
    """Parse a segment's HDF5 file and refuse whatever is not as its layout says.

    Args:
        pieces: The file. Its vectors are not copied; they say how many rows it must have, and how long.
        subject: What an error is about.

    Raises:
        GalleryError: The file is damaged, or holds something else than a segment.
    """
    reader = _PiecesFile(pieces)
    try:
        with h5py.File(reader, "r") as file:
            return _decode(file, _Checked(reader.size, subject), pieces)
    # What the HDF5 library raises for a damaged file is spread over these types.
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, MemoryError, pa.ArrowException) as error:
        raise GalleryError(subject, f"the segment is damaged ({error})", _REMEDY) from error


class _PiecesFile(io.RawIOBase):
    """Three pieces of memory as one file, without a copy of them."""

    def __init__(self, pieces: Pieces) -> None:
        vectors = pieces.vectors.data.cast("B") if pieces.vectors.size else memoryview(b"")
        self._views = (memoryview(pieces.head), vectors, memoryview(pieces.rest))
        self._starts = np.cumsum([0, *(view.nbytes for view in self._views)]).tolist()
        self.size, self._at = self._starts[-1], 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return int(self._at)

    def readinto(self, target: Any) -> int:
        into = memoryview(target).cast("B")
        done = 0
        for start, view in zip(self._starts, self._views, strict=False):
            part = view[max(0, self._at - start) : max(0, self._at + into.nbytes - done - start)]
            into[done : done + part.nbytes] = part
            done += part.nbytes
            self._at += part.nbytes
        return done


@dataclass
class _Checked:
    """Reads datasets after checking that they are what they must be, and all together no larger than the file.

    Attributes:
        left: Bytes of the file that no dataset has claimed so far. Many datasets may be made to lie in one place, or
            nowhere: memory is taken for as many bytes as the file has, and no more.
        subject: What an error is about.
    """

    left: int
    subject: object

    def fail(self, cause: str) -> GalleryError:
        return GalleryError(self.subject, f"the segment is damaged or not of mammoseek: {cause}", _REMEDY)

    def member(self, group: h5py.Group, name: str, *kinds: Any) -> Any:
        # Soft and external links could lead to any file of this machine.
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise self.fail(f"{name} is a link")
        member = group[name]
        if not isinstance(member, kinds):
            raise self.fail(f"{name} is no {kinds[0].__name__.lower()}")
        if len(member.attrs):
            raise self.fail(f"{name} has unexpected attributes")
        return member

    def dataset(self, group: h5py.Group, name: str, dtype: str, shape: tuple[int | None, ...]) -> h5py.Dataset:
        dataset = self.member(group, name, h5py.Dataset)
        plain = dataset.chunks is None and not dataset.is_virtual and not dataset.external
        if not plain or dataset.id.get_create_plist().get_layout() == h5py.h5d.CHUNKED:
            raise self.fail(f"{name} is not stored in one piece")
        fits = len(dataset.shape) == len(shape) and all(
            w in (None, s) for s, w in zip(dataset.shape, shape, strict=True)
        )
        if str(dataset.dtype) != dtype or not fits:
            raise self.fail(f"{name} is {dataset.dtype} {dataset.shape}")
        self.left -= dataset.dtype.itemsize * int(dataset.size)
        if self.left < 0:
            raise self.fail(f"with {name} it is larger than the file")
        return dataset

    def read(self, group: h5py.Group, name: str, dtype: str, shape: tuple[int | None, ...]) -> npt.NDArray[Any]:
        return np.asarray(self.dataset(group, name, dtype, shape)[...])


def _decode(file: h5py.File, checked: _Checked, pieces: Pieces) -> Segment:
    rows, vectors_at = len(pieces.vectors), memoryview(pieces.head).nbytes
    if set(file.attrs) != {"format"}:
        raise checked.fail("it does not say its format")
    version = file.attrs.get_id("format")
    if version.dtype != np.int64 or version.shape != ():
        raise checked.fail("it does not say its format")
    if (found := int(file.attrs["format"])) != SEGMENT_FORMAT:
        raise checked.fail(f"it has format {found}")
    if unknown := set(file) - _GROUPS - {"vectors", "numbers"}:
        raise checked.fail(f"it holds {sorted(unknown)[0]!r}")
    stored = checked.dataset(file, "vectors", "float32", pieces.vectors.shape)
    if rows and stored.id.get_offset() != vectors_at:
        raise checked.fail("its vectors are not where they should be")
    numbers = checked.read(file, "numbers", "int64", (rows,))
    # Differences could overflow.
    if rows and (int(numbers[0]) < 0 or (numbers[1:] <= numbers[:-1]).any()):
        raise checked.fail("its rows are not numbered upwards")
    records = checked.member(file, "records", h5py.Group)
    missing = checked.member(file, "missing", h5py.Group)
    columns = {name: _read_column(checked, records, missing, name, rows) for name in records}
    if not set(missing) <= set(columns):
        raise checked.fail("it says what is missing in a column that is not there")
    if "pictures" not in file:
        return Segment(pieces.vectors, numbers, columns)
    group = checked.member(file, "pictures", h5py.Group)
    if set(group) != {"ends", "sha256"}:
        raise checked.fail("its pictures are not as they should be")
    ends = checked.read(group, "ends", "int64", (rows,))
    if rows and (int(ends[0]) < 0 or (ends[1:] < ends[:-1]).any()):
        raise checked.fail("its pictures are cut wrongly")
    return Segment(pieces.vectors, numbers, columns, Pictures(ends, checked.read(group, "sha256", "uint8", (rows, 32))))


def _write_column(records: h5py.Group, missing: h5py.Group, name: str, column: Encoded) -> None:
    if column.codes is not None:
        texts = records.create_group(name)
        values = [value.encode("utf-8") for value in column.distinct]
        texts.create_dataset("codes", data=column.codes)
        texts.create_dataset("text", data=np.frombuffer(b"".join(values), np.uint8))
        texts.create_dataset("ends", data=np.cumsum([len(value) for value in values], dtype=np.int64))
        return
    records.create_dataset(name, data=column.cells.astype(np.uint8) if column.kind == "boolean" else column.cells)
    if column.kind != "number" and column.missing.any():
        missing.create_dataset(name, data=column.missing.astype(np.uint8))


def _read_column(checked: _Checked, records: h5py.Group, missing: h5py.Group, name: str, rows: int) -> Encoded:
    member = checked.member(records, name, h5py.Dataset, h5py.Group)
    if isinstance(member, h5py.Group):
        if name in missing or set(member) != {"codes", "text", "ends"}:
            raise checked.fail(f"the texts of {name} are not as they should be")
        return _read_texts(checked, member, name, rows)
    kinds: dict[str, Kind] = {"int64": "integer", "float64": "number", "uint8": "boolean"}
    if (stored := str(member.dtype)) not in kinds:
        raise checked.fail(f"{name} is {member.dtype}")
    cells, kind = checked.read(records, name, stored, (rows,)), kinds[stored]
    if kind == "number":
        return Encoded(kind, cells, None, np.isnan(cells))
    gaps = np.zeros(rows, np.bool_)
    if name in missing:
        gaps = checked.read(missing, name, "uint8", (rows,)).astype(np.bool_)
    return Encoded(kind, cells.astype(np.bool_) if kind == "boolean" else cells, None, gaps)


def _read_texts(checked: _Checked, group: h5py.Group, name: str, rows: int) -> Encoded:
    codes = checked.read(group, "codes", "int32", (rows,))
    content = checked.read(group, "text", "uint8", (None,))
    ends = checked.read(group, "ends", "int64", (None,))
    offsets = np.concatenate([np.zeros(1, np.int64), ends])
    if (offsets[1:] < offsets[:-1]).any() or int(offsets[-1]) != len(content):
        raise checked.fail(f"the texts of {name} are cut wrongly")
    if rows and (int(codes.min()) < -1 or int(codes.max()) >= len(ends)):
        raise checked.fail(f"a row of {name} has no such text")
    values = pa.LargeStringArray.from_buffers(len(ends), pa.py_buffer(offsets), pa.py_buffer(content))
    values.validate(full=True)
    if pc.count_distinct(values).as_py() != len(values):
        # A woman whose name stood there twice would not be known as one.
        raise checked.fail(f"a text of {name} stands there twice")
    return Encoded("text", values, codes, codes < 0)


def select(segment: Segment, rows: npt.NDArray[np.int64]) -> Segment:
    """Return some rows of a segment, without its pictures."""
    chosen = np.asarray(rows, dtype=np.int64)
    columns = {name: take_rows(column, chosen) for name, column in segment.columns.items()}
    return Segment(segment.vectors[chosen], segment.numbers[chosen], columns)


def with_pictures(segment: Segment, pictures: Pictures | None) -> Segment:
    """Return a segment whose pictures lie elsewhere."""
    return replace(segment, pictures=pictures)
