"""One immutable HDF5 segment: some vectors, what is known of each, and perhaps a small picture of each.

Layout of the file, and of nothing else that may stand in it:

- attribute `format` (int64) of the root;
- `vectors`: float32 (rows, dimension), contiguous;
- `records/<column>`: (rows,) of fixed-width UTF-8 text, int64, float64 or uint8 (a truth value), in the
  table's order;
- `missing/<column>`: uint8 (rows,), 1 where a text, int64 or uint8 is missing (a float64 says it by NaN);
- `thumbnails/bytes`: uint8, all PNG files one after the other, and `thumbnails/ends`: int64 (rows,), where
  each ends.

Bytes are digested before they are parsed, and the same bytes are parsed: a file is read once.
"""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from index import GalleryError
from index.records import Column, Columns, Kind

SEGMENT_FORMAT = 1
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

_GROUPS = {"records", "missing", "thumbnails"}


@dataclass(frozen=True, eq=False)
class Segment:
    """What one segment holds.

    Attributes:
        vectors: float32 (rows, dimension).
        columns: The case records.
        thumbnails: PNG bytes of each row (empty where a row has none); None where the segment has none.
    """

    vectors: npt.NDArray[np.float32]
    columns: Columns
    thumbnails: tuple[bytes, ...] | None = None

    @property
    def rows(self) -> int:
        """Number of findings."""
        return len(self.vectors)


def digest(data: bytes) -> str:
    """Return the sha256 of some bytes as hexadecimal text."""
    return hashlib.sha256(data).hexdigest()


def encode_segment(segment: Segment) -> bytes:
    """Return a segment as the bytes of its HDF5 file; the same segment gives the same bytes.

    The file is made in memory, so that a full disk is met where plain bytes are written and nowhere else.
    """
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver=("earliest", "v110")) as file:
        file.attrs.create("format", SEGMENT_FORMAT, dtype=np.int64)
        file.create_dataset("vectors", data=np.ascontiguousarray(segment.vectors, np.float32))
        records = file.create_group("records", track_order=True)
        missing = file.create_group("missing")
        for name, column in segment.columns.items():
            records.create_dataset(name, data=_encode_column(column))
            if column.kind != "number" and column.missing.any():
                missing.create_dataset(name, data=column.missing.astype(np.uint8))
        if segment.thumbnails is not None:
            pictures = file.create_group("thumbnails")
            sizes = [len(picture) for picture in segment.thumbnails]
            pictures.create_dataset("ends", data=np.cumsum(sizes, dtype=np.int64))
            pictures.create_dataset("bytes", data=np.frombuffer(b"".join(segment.thumbnails), np.uint8))
    return buffer.getvalue()


def decode_segment(data: bytes, *, rows: int, dimension: int, subject: object, thumbnails: bool = True) -> Segment:
    """Parse the bytes of a segment and refuse whatever is not as its layout says.

    Args:
        data: The whole file.
        rows: How many rows it must have.
        dimension: How long its vectors must be.
        subject: What an error is about.
        thumbnails: Whether to return the pictures as well.

    Raises:
        GalleryError: The file is damaged, or holds something else than a segment.
    """
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            return _decode(file, _Checked(len(data), subject), rows, dimension, thumbnails)
    # What the HDF5 library raises for a damaged file is spread over these types.
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise GalleryError(subject, f"the segment is damaged ({error})", "restore it from a copy") from error


@dataclass(frozen=True)
class _Checked:
    """Reads datasets after checking that they are what they must be, and no larger than the file."""

    size: int
    subject: object

    def fail(self, cause: str) -> GalleryError:
        return GalleryError(
            self.subject, f"the segment is damaged or not of mammoseek: {cause}", "restore it from a copy"
        )

    def member(self, group: h5py.Group, name: str, kind: Any) -> Any:
        # Soft and external links could lead to any file of this machine.
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise self.fail(f"{name} is a link")
        member = group[name]
        if not isinstance(member, kind):
            raise self.fail(f"{name} is no {kind.__name__.lower()}")
        if len(member.attrs):
            raise self.fail(f"{name} has unexpected attributes")
        return member

    def read(self, group: h5py.Group, name: str, dtype: str, shape: tuple[int | None, ...]) -> npt.NDArray[Any]:
        dataset = self.member(group, name, h5py.Dataset)
        plain = dataset.chunks is None and not dataset.is_virtual and not dataset.external
        if not plain or dataset.id.get_create_plist().get_layout() == h5py.h5d.CHUNKED:
            raise self.fail(f"{name} is not stored in one piece")
        fits = len(dataset.shape) == len(shape) and all(
            w in (None, s) for s, w in zip(dataset.shape, shape, strict=True)
        )
        kind = "S" if dtype == "S" and dataset.dtype.kind == "S" else str(dataset.dtype)
        if kind != dtype or not fits:
            raise self.fail(f"{name} is {dataset.dtype} {dataset.shape}")
        if dataset.dtype.hasobject or dataset.dtype.itemsize * dataset.size > self.size:
            raise self.fail(f"{name} is larger than the file")
        return np.asarray(dataset[...])


def _decode(file: h5py.File, checked: _Checked, rows: int, dimension: int, thumbnails: bool) -> Segment:
    if set(file.attrs) != {"format"} or file.attrs.get_id("format").dtype != np.int64:
        raise checked.fail("it does not say its format")
    if (found := int(file.attrs["format"])) > SEGMENT_FORMAT:
        raise GalleryError(checked.subject, f"the segment has format {found}, which is newer", "update mammoseek")
    if unknown := set(file) - _GROUPS - {"vectors"}:
        raise checked.fail(f"it holds {sorted(unknown)[0]!r}")
    vectors = checked.read(file, "vectors", "float32", (rows, dimension))
    if not np.isfinite(vectors).all():
        raise checked.fail("a vector is not finite")
    records = checked.member(file, "records", h5py.Group)
    missing = checked.member(file, "missing", h5py.Group)
    columns: Columns = {name: _decode_column(checked, records, missing, name, rows) for name in records}
    if not set(missing) <= set(columns):
        raise checked.fail("it says what is missing in a column that is not there")
    if "thumbnails" not in file:
        return Segment(vectors, columns)
    pictures = checked.member(file, "thumbnails", h5py.Group)
    if set(pictures) != {"bytes", "ends"}:
        raise checked.fail("its thumbnails are not as they should be")
    if not thumbnails:
        return Segment(vectors, columns)
    ends = checked.read(pictures, "ends", "int64", (rows,))
    content = checked.read(pictures, "bytes", "uint8", (None,)).tobytes()
    starts = np.concatenate([[0], ends[:-1]])
    if (ends < starts).any() or starts.min(initial=0) < 0 or (rows and int(ends[-1]) != len(content)):
        raise checked.fail("its thumbnails are cut wrongly")
    return Segment(vectors, columns, tuple(content[a:b] for a, b in zip(starts, ends, strict=True)))


def _encode_column(column: Column) -> npt.NDArray[Any]:
    if column.kind == "text":
        encoded = [text.encode("utf-8") for text in column.cells]
        width = max(1, max(map(len, encoded), default=1))
        return np.array(encoded, dtype=h5py.string_dtype("utf-8", width))
    return column.cells.astype(np.uint8) if column.kind == "boolean" else column.cells


def _decode_column(checked: _Checked, records: h5py.Group, missing: h5py.Group, name: str, rows: int) -> Column:
    dtypes: dict[str, Kind] = {"S": "text", "int64": "integer", "float64": "number", "uint8": "boolean"}
    dtype = checked.member(records, name, h5py.Dataset).dtype
    stored = "S" if dtype.kind == "S" else str(dtype)
    if stored not in dtypes:
        raise checked.fail(f"{name} is {dtype}")
    values = checked.read(records, name, stored, (rows,))
    kind = dtypes[stored]
    if kind == "number":
        return Column(kind, values, np.isnan(values))
    gaps = np.zeros(rows, np.bool_)
    if name in missing:
        gaps = checked.read(missing, name, "uint8", (rows,)).astype(np.bool_)
    if kind == "text":
        return Column(kind, np.char.decode(values, "utf-8").astype(object), gaps)
    return Column(kind, values.astype(np.bool_) if kind == "boolean" else values, gaps)


def select(segment: Segment, rows: Sequence[int] | npt.NDArray[np.int64]) -> Segment:
    """Return some rows of a segment."""
    chosen = np.asarray(rows, dtype=np.int64)
    pictures = None if segment.thumbnails is None else tuple(segment.thumbnails[int(row)] for row in chosen)
    columns = {name: Column(c.kind, c.cells[chosen], c.missing[chosen]) for name, c in segment.columns.items()}
    return Segment(segment.vectors[chosen], columns, pictures)
