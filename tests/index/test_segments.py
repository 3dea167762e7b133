import contextlib
import io
from collections.abc import Callable
from dataclasses import replace
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
from index.segments import (
    Segment,
    decode_segment,
    digest,
    encode_segment,
    join_pictures,
    keys_of,
    select,
    split_segment,
    with_pictures,
)
from index.table import RecordTable, encode_columns

TEXT = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=6)
CELLS = [TEXT, st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False), st.booleans()]


@pytest.fixture
def segment(make_findings: Callable[..., SimpleNamespace]) -> Segment:
    batch = make_findings(5)
    columns = encode_columns(to_columns(batch.records.assign(implant=[True, None, False, None, True]), "test"))
    return Segment(batch.vectors, np.array([3, 4, 8, 9, 20]), columns, join_pictures(batch.thumbnails)[0])


def decoded(data: bytes, rows: int = 5, dimension: int = 16, vectors_at: int | None = None) -> Segment:
    """Parse a file of the same layout as that of the fixture, if nothing else is said."""
    if vectors_at is None:
        vectors_at = 1480 if rows * dimension * 4 < 4096 else 4096
    return decode_segment(split_segment(data, rows=rows, dimension=dimension, vectors_at=vectors_at), subject="segment")


def tampered(segment: Segment, change: Callable[[h5py.File], Any]) -> bytes:
    """Return a segment's bytes after something was done to its HDF5 file."""
    buffer = io.BytesIO(encode_segment(segment)[0])
    with h5py.File(buffer, "r+") as file:
        change(file)
    return buffer.getvalue()


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_a_segment_comes_back_bit_for_bit(data: st.DataObject) -> None:
    rows = data.draw(st.integers(1, 5))
    dimension = data.draw(st.integers(1, 4))
    floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
    flat = data.draw(st.lists(floats, min_size=rows * dimension, max_size=rows * dimension))
    vectors = np.array(flat, np.float32).reshape(rows, dimension)
    numbers = np.cumsum(data.draw(st.lists(st.integers(1, 2**40), min_size=rows, max_size=rows)))
    names = ("row_id", "granularity", "patient_id", "dataset")
    records = pd.DataFrame({name: [f"{name}{i}" for i in range(rows)] for name in names})
    for number, kind in enumerate(data.draw(st.lists(st.integers(0, 3), max_size=4))):
        cells = data.draw(st.lists(st.none() | CELLS[kind], min_size=rows, max_size=rows))
        records[f"ü {number}"] = pd.Series(cells, dtype=object)
    pictures = data.draw(st.none() | st.lists(st.binary(max_size=9), min_size=rows, max_size=rows))
    columns = to_columns(records, "test")
    own = None if pictures is None else join_pictures(pictures)[0]
    content, start = encode_segment(Segment(vectors, numbers, encode_columns(columns), own))
    assert (content, start) == encode_segment(Segment(vectors, numbers, encode_columns(columns), own))
    back = decoded(content, rows, dimension, start)
    assert back.vectors.tobytes() == vectors.tobytes()
    assert back.numbers.tolist() == numbers.tolist()
    assert list(back.columns) == list(records.columns)
    pd.testing.assert_frame_equal(RecordTable([back.columns], [rows]).frame(), to_frame([(rows, columns)]))
    if pictures is None or own is None or back.pictures is None:
        assert (own, back.pictures) == (None, None)
    else:
        blob = join_pictures(pictures)[1]
        spans = [back.pictures.span(row) for row in range(rows)]
        assert [blob[start:end] for start, end in spans] == pictures
        assert [row.tobytes().hex() for row in back.pictures.sha256] == [digest(picture) for picture in pictures]
    # What was read is written as it was.
    assert encode_segment(back) == (content, start)


def test_vectors_start_at_a_page_unless_they_are_few(make_findings: Callable[..., SimpleNamespace]) -> None:
    for rows in (64, 1000):
        batch = make_findings(rows)
        data, start = encode_segment(
            Segment(batch.vectors, np.arange(rows), encode_columns(to_columns(batch.records, "test")))
        )
        assert start % 4096 == 0
        assert data[start : start + batch.vectors.nbytes] == batch.vectors.tobytes()


def test_the_digests_of_a_file_in_pieces(segment: Segment) -> None:
    data, start = encode_segment(segment)
    pieces = split_segment(data, rows=5, dimension=16, vectors_at=start)
    end = start + segment.vectors.nbytes
    assert pieces.digests() == (digest(data), digest(data[:start] + data[end:]))
    assert pieces.digests(whole=False) == ("", digest(data[:start] + data[end:]))


def test_rows_are_selected_in_every_part_and_leave_no_text_behind(segment: Segment) -> None:
    chosen = select(segment, np.array([0, 3]))
    np.testing.assert_array_equal(chosen.vectors, segment.vectors[[0, 3]])
    assert chosen.numbers.tolist() == [3, 9]
    assert chosen.columns["row_id"].cells.to_pylist() == ["row-0000", "row-0003"]
    assert chosen.pictures is None
    content, _ = encode_segment(chosen)
    for text in (b"row-0001", b"row-0002", b"row-0004", b"/images/0002.png"):
        assert text in encode_segment(segment)[0]
        assert text not in content
    assert with_pictures(segment, None).pictures is None


def test_a_key_is_the_same_wherever_its_row_id_stands() -> None:
    keys = keys_of(["a", "b", "ü", "\udc80"])
    assert len(set(keys.tolist())) == 4
    assert keys_of(["ü"]).tolist() == keys[2:3].tolist()
    assert keys_of([]).shape == (0,)


def test_another_size_than_the_manifest_says_is_refused(segment: Segment) -> None:
    content, start = encode_segment(segment)
    for rows, dimension in ((4, 16), (6, 16), (5, 15)):
        with pytest.raises(GalleryError, match="vectors"):
            decoded(content, rows, dimension, start)
    with pytest.raises(GalleryError, match="not where they should be"):
        decoded(content, vectors_at=start + 4)


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
        (replaced("vectors", shape=(5, 16), dtype=np.float32), "not where they should be"),
        (replaced("numbers", data=np.array([3, 4, 8, 8, 20])), "numbered upwards"),
        (replaced("numbers", data=np.array([-1, 4, 8, 9, 20])), "numbered upwards"),
        (replaced("numbers", data=np.array([5, -(2**63) + 2, -1, 7, 20])), "numbered upwards"),
        (replaced("numbers", data=np.arange(5, dtype=np.int32)), "numbers"),
        (replaced("numbers", data=np.arange(4)), "numbers"),
        (replaced("numbers", shape=(5,), dtype=np.int64, chunks=(5,)), "one piece"),
        (replaced("records/age", data=np.zeros(4)), "age"),
        (replaced("records/age", data=np.zeros((5, 1))), "age"),
        (replaced("records/age", data=np.zeros(5, ">f8")), "age"),
        (replaced("records/more", data=["text"] * 5, dtype=h5py.string_dtype()), "more"),
        (replaced("records/more", data=np.array([b"a"] * 5)), "more"),
        (replaced("records/more", shape=(5,), dtype=h5py.ref_dtype), "more"),
        (replaced("records/view/text", data=np.frombuffer(b"MLO\xc3C", np.uint8)), "UTF8"),
        (replaced("records/view/ends", data=np.array([2, 4])), "cut wrongly"),
        (replaced("records/view/ends", data=np.array([6, 5])), "cut wrongly"),
        (replaced("records/view/ends", data=np.array([2**63 - 1, -(2**63) + 1, 5])), "cut wrongly"),
        (replaced("records/view/ends", data=np.array([], np.int64)), "cut wrongly"),
        (replaced("records/view/codes", data=np.array([0, 1, 2, 0, 1], np.int32)), "no such text"),
        (replaced("records/view/codes", data=np.array([0, 1, -2, 0, 1], np.int32)), "no such text"),
        (replaced("records/view/codes", data=np.zeros(4, np.int32)), "codes"),
        (replaced("records/view/more", data=np.zeros(5)), "the texts of view"),
        (lambda file: file["records/view"].attrs.create("more", 2), "attributes"),
        (lambda file: file["records"].__setitem__("more", file["records"]), "the texts of more"),
        (lambda file: file["records/view"].__delitem__("ends"), "the texts of view"),
        (replaced("missing/strange", data=np.zeros(5, np.uint8)), "not there"),
        (replaced("missing/row_id", data=np.zeros(5, np.uint8)), "row_id"),
        (replaced("missing/implant", data=np.zeros(3, np.uint8)), "implant"),
        (replaced("more", data=np.zeros(5)), "it holds 'more'"),
        (replaced("pictures/more", data=np.zeros(5)), "pictures"),
        (replaced("pictures/ends", data=np.array([9, 3, 5, 7, 9])), "cut wrongly"),
        (replaced("pictures/ends", data=np.array([-9, 3, 5, 7, 9])), "cut wrongly"),
        (replaced("pictures/ends", data=np.array([1, 2**63 - 1, -(2**63), -5, 9])), "cut wrongly"),
        (replaced("pictures/ends", data=np.arange(4)), "ends"),
        (replaced("pictures/sha256", data=np.zeros((5, 31), np.uint8)), "sha256"),
        (lambda file: file.attrs.create("format", 3, dtype=np.int64), "format 3"),
        (lambda file: file.attrs.create("format", [2, 2], dtype=np.int64), "format"),
        (lambda file: file.attrs.create("format", "2"), "format"),
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


def test_datasets_that_claim_more_than_the_file_holds_are_refused(
    segment: Segment, make_findings: Callable[..., SimpleNamespace]
) -> None:
    with pytest.raises(GalleryError, match="larger than the file"):
        decoded(tampered(segment, replaced("records/view/text", shape=(1 << 40,), dtype=np.uint8)))
    batch = make_findings(1000)
    large = Segment(batch.vectors, np.arange(1000), encode_columns(to_columns(batch.records, "test")))

    def linked(file: h5py.File) -> None:
        for number in range(60):
            file[f"records/more {number}"] = file["numbers"]

    def nowhere(file: h5py.File) -> None:
        for number in range(60):
            file.create_dataset(f"records/more {number}", (1000,), np.int64)

    for change in (linked, nowhere):
        with pytest.raises(GalleryError, match="larger than the file"):
            decoded(tampered(large, change), 1000)


def test_a_text_that_stands_there_twice_is_refused(segment: Segment) -> None:
    """Two codes for one woman would make two women of her."""

    def change(file: h5py.File) -> None:
        replaced("records/view/text", data=np.frombuffer(b"CCCC", np.uint8))(file)
        replaced("records/view/ends", data=np.array([2, 4]))(file)

    with pytest.raises(GalleryError, match="twice"):
        decoded(tampered(segment, change))


def test_flipped_bytes_and_cuts_never_cause_anything_but_a_clear_error(segment: Segment) -> None:
    content, start = encode_segment(segment)
    rng = np.random.default_rng(0)
    for place in rng.choice(len(content), 40, replace=False):
        broken = bytearray(content)
        broken[place] ^= 1 << int(rng.integers(8))
        with contextlib.suppress(GalleryError):
            assert decoded(bytes(broken)).rows == 5
    end = start + segment.vectors.nbytes
    for length in (end, end + 100, (end + len(content)) // 2, len(content) - 1):
        with pytest.raises(GalleryError):
            decoded(content[:length])


def test_pictures_of_another_segment_do_not_change_the_rest(segment: Segment) -> None:
    assert segment.pictures is not None
    without, _ = encode_segment(replace(segment, pictures=None))
    assert decoded(without).pictures is None
