import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index import GalleryError
from index.records import to_columns, to_frame
from index.segments import Segment, decode_segment, encode_segment, select

TEXT = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=6)
CELLS = [TEXT, st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False), st.booleans()]


@pytest.fixture
def segment(make_findings: Callable[..., SimpleNamespace]) -> Segment:
    batch = make_findings(5)
    return Segment(batch.vectors, to_columns(batch.records, "test"), tuple(batch.thumbnails))


def decoded(data: bytes, rows: int = 5, dimension: int = 16) -> Segment:
    return decode_segment(data, rows=rows, dimension=dimension, subject="segment")


def tampered(segment: Segment, change: Callable[[h5py.File], Any]) -> bytes:
    """Return a segment's bytes after something was done to its HDF5 file."""
    buffer = io.BytesIO(encode_segment(segment))
    with h5py.File(buffer, "r+") as file:
        change(file)
    return buffer.getvalue()


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_a_segment_comes_back_bit_for_bit(data: st.DataObject) -> None:
    rows = data.draw(st.integers(1, 5))
    dimension = data.draw(st.integers(1, 4))
    numbers = st.floats(width=32, allow_nan=False, allow_infinity=False)
    flat = data.draw(st.lists(numbers, min_size=rows * dimension, max_size=rows * dimension))
    vectors = np.array(flat, np.float32).reshape(rows, dimension)
    names = ("row_id", "granularity", "patient_id", "dataset")
    records = pd.DataFrame({name: [f"{name}{i}" for i in range(rows)] for name in names})
    for number, kind in enumerate(data.draw(st.lists(st.integers(0, 3), max_size=4))):
        cells = data.draw(st.lists(st.none() | CELLS[kind], min_size=rows, max_size=rows))
        records[f"ü {number}"] = pd.Series(cells, dtype=object)
    pictures = data.draw(st.none() | st.lists(st.binary(max_size=9), min_size=rows, max_size=rows).map(tuple))
    columns = to_columns(records, "test")
    content = encode_segment(Segment(vectors, columns, pictures))
    assert content == encode_segment(Segment(vectors, columns, pictures))
    back = decode_segment(content, rows=rows, dimension=dimension, subject="segment")
    assert back.vectors.tobytes() == vectors.tobytes()
    assert back.thumbnails == pictures
    assert list(back.columns) == list(records.columns)
    pd.testing.assert_frame_equal(to_frame([(rows, back.columns)]), to_frame([(rows, columns)]))


def test_thumbnails_are_left_out_unless_wanted(segment: Segment) -> None:
    content = encode_segment(segment)
    assert decode_segment(content, rows=5, dimension=16, subject="s", thumbnails=False).thumbnails is None
    assert decoded(content).thumbnails == segment.thumbnails


def test_rows_are_selected_in_every_part(segment: Segment) -> None:
    chosen = select(segment, [3, 0])
    np.testing.assert_array_equal(chosen.vectors, segment.vectors[[3, 0]])
    assert chosen.columns["row_id"].cells.tolist() == ["row-0003", "row-0000"]
    assert chosen.thumbnails == (segment.thumbnails[3], segment.thumbnails[0])


def test_another_size_than_the_manifest_says_is_refused(segment: Segment) -> None:
    content = encode_segment(segment)
    for rows, dimension in ((4, 16), (6, 16), (5, 15)):
        with pytest.raises(GalleryError, match="vectors"):
            decoded(content, rows, dimension)


def test_external_links_are_refused(segment: Segment, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["vectors"] = segment.vectors
        other.create_group("records")["row_id"] = np.array([b"r"] * 5)

    def link_vectors(file: h5py.File) -> None:
        del file["vectors"]
        file["vectors"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "vectors")

    def link_records(file: h5py.File) -> None:
        del file["records"]
        file["records"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "records")

    def soft_column(file: h5py.File) -> None:
        file["records/more"] = h5py.SoftLink("/vectors")

    for change in (link_vectors, link_records, soft_column):
        with pytest.raises(GalleryError, match="link"):
            decoded(tampered(segment, change))


def test_data_that_lie_outside_the_file_are_refused(segment: Segment, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(5 * 16 * 4))

    def external(file: h5py.File) -> None:
        del file["vectors"]
        file.create_dataset("vectors", (5, 16), "float32", external=[(str(secret), 0, 5 * 16 * 4)])

    def virtual(file: h5py.File) -> None:
        del file["vectors"]
        layout = h5py.VirtualLayout((5, 16), "float32")
        layout[:] = h5py.VirtualSource(str(secret), "vectors", (5, 16), "float32")
        file.create_virtual_dataset("vectors", layout)

    for change in (external, virtual):
        with pytest.raises(GalleryError, match="not stored in one piece"):
            decoded(tampered(segment, change))


def replaced(name: str, **options: Any) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        if name in file:
            del file[name]
        file.create_dataset(name, **options)

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (replaced("vectors", shape=(5, 16), dtype="f4", chunks=(1, 16), compression="gzip"), "one piece"),
        (replaced("vectors", data=np.zeros((5, 16))), "float64"),
        (replaced("vectors", data=np.full((5, 16), np.nan, np.float32)), "not finite"),
        (replaced("records/age", data=np.zeros(4)), "age"),
        (replaced("records/age", data=np.zeros((5, 1))), "age"),
        (replaced("records/age", data=np.zeros(5, ">f8")), "age"),
        (replaced("records/more", data=["text"] * 5, dtype=h5py.string_dtype()), "more"),
        (replaced("records/text", data=np.array([b"\xff"] * 5)), "damaged"),
        (replaced("missing/strange", data=np.zeros(5, np.uint8)), "not there"),
        (replaced("missing/row_id", data=np.zeros(3, np.uint8)), "row_id"),
        (replaced("more", data=np.zeros(5)), "it holds 'more'"),
        (replaced("thumbnails/more", data=np.zeros(5)), "thumbnails"),
        (replaced("thumbnails/ends", data=np.array([9, 3, 5, 7, 9])), "cut wrongly"),
        (replaced("thumbnails/ends", data=np.array([-9, 3, 5, 7, 9])), "cut wrongly"),
        (replaced("thumbnails/ends", data=np.arange(5)), "cut wrongly"),
        (lambda file: file.attrs.create("format", 2, dtype=np.int64), "newer"),
        (lambda file: file.attrs.create("more", 2), "format"),
        (lambda file: file["vectors"].attrs.create("more", 2), "attributes"),
        (lambda file: file.attrs.__delitem__("format"), "format"),
        (lambda file: file.__delitem__("records"), "damaged"),
        (lambda file: file.__delitem__("missing"), "damaged"),
    ],
)
def test_whatever_is_not_as_the_layout_says_is_refused(
    segment: Segment, change: Callable[[h5py.File], Any], words: str
) -> None:
    with pytest.raises(GalleryError, match=words):
        decoded(tampered(segment, change))


def test_a_dataset_that_claims_more_than_the_file_holds_is_refused(segment: Segment) -> None:
    change = replaced("thumbnails/bytes", shape=(1 << 40,), dtype=np.uint8)
    with pytest.raises(GalleryError, match="larger than the file"):
        decoded(tampered(segment, change))


def test_flipped_bytes_and_cuts_never_cause_anything_but_a_clear_error(segment: Segment) -> None:
    content = encode_segment(segment)
    rng = np.random.default_rng(0)
    for place in rng.choice(len(content), 120, replace=False):
        broken = bytearray(content)
        broken[place] ^= 1 << int(rng.integers(8))
        with contextlib.suppress(GalleryError):
            assert decoded(bytes(broken)).rows == 5
    for length in (0, 1, 8, 100, len(content) // 2, len(content) - 1):
        with pytest.raises(GalleryError):
            decoded(content[:length])
