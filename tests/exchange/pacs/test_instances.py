"""Who an instance is, and names that lead nowhere else."""

import io
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.listener_parts import make_instance
from exchange import ExchangeError
from exchange.pacs.instances import Instance, identify, identify_file, safe_name


def encoded(**attributes) -> bytes:
    buffer = io.BytesIO()
    make_instance("1.2", "1.2.3", "1.2.3.4", **attributes).save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


hostile = st.text(max_size=400) | st.sampled_from(
    [
        "",
        ".",
        "..",
        "../../x",
        "/etc/passwd",
        "1.2/../../3",
        "a\0b",
        "1" * 300,
        "1.2\n",
        "~",
        "C:\\x",
        "\udcff",
        "１.２",
    ]
)


@given(hostile, hostile, hostile)
def test_no_uid_leads_out_of_the_folder(study, series, sop):
    path = PurePosixPath(Instance(study, series, sop).path)
    assert len(path.parts) == 3
    assert all(part not in ("", ".", "..") and len(part) < 70 and part.isascii() for part in path.parts)
    assert not path.is_absolute()
    assert "\0" not in str(path)


@given(hostile, hostile)
def test_different_uids_have_different_names(one, other):
    assert (safe_name(one) == safe_name(other)) == (one == other)


def test_an_instance_is_known_from_its_bytes():
    found = identify(encoded(), "a")
    assert (found.study_uid, found.series_uid, found.sop_uid) == ("1.2", "1.2.3", "1.2.3.4")
    assert (found.sop_class, found.syntax) == ("1.2.840.10008.5.1.4.1.1.1.2", "1.2.840.10008.1.2.1")


@given(st.integers(0, 600) | st.none(), st.binary(max_size=300))
def test_any_bytes_are_an_instance_or_one_clear_error(length, tail):
    try:
        told = identify(encoded()[:length] + tail, "some file").sop_uid
    except ExchangeError as error:
        told = str(error).partition("some file: ")[2]
    assert told


@pytest.mark.parametrize("kind", ["absent", "folder", "empty", "text", "loop", "pipe", "large"])
def test_what_is_no_dicom_file_is_told_by_its_name(tmp_path, kind):
    import os

    path: Path = tmp_path / "thing.dcm"
    if kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind != "absent":
        path.write_bytes({"empty": b"", "text": b"hello" * 99, "large": encoded()}[kind])
    with pytest.raises(ExchangeError, match=r"thing\.dcm"):
        identify_file(path, 500)
