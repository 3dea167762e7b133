"""Files of structured reports: every transfer syntax, and files that are cut, are something else, or are bombs."""

import contextlib
import os
import time
import tracemalloc
import zlib
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pydicom.uid as uid
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange import ExchangeError, contentitems, srfile
from exchange.cadsr import read_cad_sr
from exchange.contentitems import read_content_tree
from exchange.srfile import read_sr_file
from tests.exchange import caddocuments

SYNTAXES = (
    *(uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian),
    uid.DeflatedExplicitVRLittleEndian,
)


def encode(syntax: str = uid.ExplicitVRLittleEndian, name: str = "one mass in CC and MLO") -> bytes:
    dataset = caddocuments.build(caddocuments.DOCUMENTS[name])
    dataset.file_meta.TransferSyntaxUID = syntax
    stream = BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


FILES = {syntax: encode(syntax) for syntax in SYNTAXES}


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_every_transfer_syntax_of_a_report_gives_the_same_report(tmp_path: Path, syntax: str) -> None:
    (tmp_path / "report.dcm").write_bytes(FILES[syntax])
    found = read_cad_sr(tmp_path / "report.dcm")
    reference = read_cad_sr(caddocuments.build(caddocuments.DOCUMENTS["one mass in CC and MLO"]))
    assert found.findings == reference.findings
    assert found.composites == reference.composites


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("undefined", [False, True])
def test_a_report_cut_short_anywhere_is_refused(tmp_path: Path, syntax: str, undefined: bool) -> None:
    dataset = caddocuments.build(caddocuments.DOCUMENTS["one mass"])
    dataset.file_meta.TransferSyntaxUID = syntax
    for element in dataset.iterall():
        if element.VR == "SQ":
            element.is_undefined_length = undefined
            for item in element.value:
                item.is_undefined_length_sequence_item = undefined
    stream = BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    whole = stream.getvalue()
    path = tmp_path / "cut.dcm"
    path.write_bytes(whole)
    report = read_cad_sr(path)
    assert len(report.findings) == 1
    # Every length near the end, and some of the others. Only the byte that makes a deflated file even may be missing.
    for length in [*range(0, len(whole), 211), *range(len(whole) - 18, len(whole) - 1)]:
        path.write_bytes(whole[:length])
        with pytest.raises(ExchangeError):
            read_cad_sr(path)
    path.write_bytes(whole[:-1])
    refusal = pytest.raises(ExchangeError)
    with contextlib.suppress(ExchangeError) if syntax == uid.DeflatedExplicitVRLittleEndian else refusal:
        assert read_cad_sr(path) == report


def test_a_deflated_bomb_is_refused_before_it_is_inflated(tmp_path: Path) -> None:
    head = encode(uid.DeflatedExplicitVRLittleEndian)
    start = 144 + int.from_bytes(head[140:144], "little")
    deflater = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    block = bytes(2**20)
    body = b"".join(deflater.compress(block) for _ in range(300)) + deflater.flush()
    (tmp_path / "bomb.dcm").write_bytes(head[:start] + body)
    tracemalloc.start()
    with pytest.raises(ExchangeError, match=r"bomb\.dcm: it has more than 32 MiB"):
        read_sr_file(tmp_path / "bomb.dcm")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100 * 2**20


def test_a_million_items_are_refused_before_one_is_made(tmp_path: Path) -> None:
    head = encode()
    start = 144 + int.from_bytes(head[140:144], "little")
    items = b"\xfe\xff\x00\xe0\x00\x00\x00\x00" * 1_000_000
    body = b"\x40\x00\x30\xa7SQ\x00\x00" + len(items).to_bytes(4, "little") + items
    (tmp_path / "many.dcm").write_bytes(head[:start] + body)
    started = time.process_time()
    with pytest.raises(ExchangeError, match="more than 150,000 items"):
        read_sr_file(tmp_path / "many.dcm")
    assert time.process_time() - started < 2


def test_sequences_nested_a_hundred_thousand_deep_are_refused(tmp_path: Path) -> None:
    head = encode()
    start = 144 + int.from_bytes(head[140:144], "little")
    level = b"\x40\x00\x30\xa7SQ\x00\x00\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    (tmp_path / "deep.dcm").write_bytes(head[:start] + level * 100_000)
    with pytest.raises(ExchangeError, match="cut short or damaged"):
        read_sr_file(tmp_path / "deep.dcm")


def test_a_file_that_is_too_large_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "large.dcm"
    path.write_bytes(encode())
    os.truncate(path, 5 * 2**30)  # sparse
    with pytest.raises(ExchangeError, match="more than 32 MiB"):
        read_sr_file(path)


def test_what_is_no_dicom_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.dcm"
    for content in (b"", b"DICM", bytes(200), b"\x89PNG" * 100, bytes(128) + b"DICM", encode()[128:]):
        path.write_bytes(content)
        with pytest.raises(ExchangeError, match=r"x\.dcm"):
            read_sr_file(path)


def test_what_is_no_plain_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.dcm")
    (tmp_path / "loop.dcm").symlink_to(tmp_path / "loop.dcm")
    for name in ("pipe.dcm", "loop.dcm", "absent.dcm", ".", "with\0null.dcm", "x" * 300):
        with pytest.raises(ExchangeError):
            read_sr_file(tmp_path / name)


def test_a_compressed_image_is_refused_by_its_transfer_syntax(tmp_path: Path) -> None:
    content = encode().replace(uid.ExplicitVRLittleEndian.encode() + b"\0", b"1.2.840.10008.1.2.5\0")
    assert len(content) == len(encode())
    (tmp_path / "image.dcm").write_bytes(content)
    with pytest.raises(ExchangeError, match="its transfer syntax is RLE Lossless"):
        read_sr_file(tmp_path / "image.dcm")


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_a_file_with_changed_bytes_is_read_or_refused_and_never_worse(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(FILES[data.draw(st.sampled_from(SYNTAXES))])
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "changed.dcm"
    path.write_bytes(content)
    with contextlib.suppress(ExchangeError):
        read_cad_sr(path)


def test_the_limits_leave_room_for_every_calcification_of_four_dense_mammograms() -> None:
    specks = tuple(caddocuments.Mark(centre=(20.0 + n, 30.0), kind="IndividualCalcification") for n in range(50))
    dataset = caddocuments.build(caddocuments.CadDocument((replace(caddocuments.CLUSTER, specks=specks),)))
    stream = BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    times = 4 * 800 / len(specks)  # 800 calcifications in each of four mammograms
    assert stream.getvalue().count(b"\xfe\xff\x00\xe0") * times < srfile.MAXIMUM_SEQUENCE_ITEMS
    assert sum(1 for _ in read_content_tree(dataset, "dense").root.walk()) * times < contentitems.MAXIMUM_ITEMS
    assert len(stream.getvalue()) * times < srfile.MAXIMUM_BYTES
