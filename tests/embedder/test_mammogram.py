"""One function for all formats, and what it says of what is no mammogram."""

import os
import pickle

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from embedder.mammogram import Header, Mammogram, MammogramError, read_header, read_mammogram
from errors import MammoseekError

BOTH = pytest.mark.parametrize("read", [read_header, read_mammogram])


def refused(read, path) -> str:
    with pytest.raises(MammogramError) as caught:
        read(path)
    error = caught.value
    assert isinstance(error, MammoseekError)
    assert error.subject == str(path)
    assert error.cause
    assert error.remedy
    return str(error)


@BOTH
def test_missing_folder_empty_and_text(tmp_path, read):
    assert "no such file" in refused(read, tmp_path / "missing.dcm")
    assert "folder" in refused(read, tmp_path)
    (tmp_path / "empty.png").touch()
    assert "empty" in refused(read, tmp_path / "empty.png")
    (tmp_path / "text.dcm").write_text("Dear colleague,\n" * 40)
    assert "no DICOM, PNG, JPEG, PGM or TIFF" in refused(read, tmp_path / "text.dcm")
    (tmp_path / "gif.png").write_bytes(b"GIF89a" + bytes(200))
    refused(read, tmp_path / "gif.png")
    refused(read, tmp_path / "nul\0byte")
    refused(read, "n" * 5000)


@BOTH
def test_a_pipe_is_not_waited_for(tmp_path, read):
    os.mkfifo(tmp_path / "pipe")
    assert "regular file" in refused(read, tmp_path / "pipe")


@BOTH
@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path, read):
    path = tmp_path / "secret.png"
    path.touch(mode=0)
    assert "Permission denied" in refused(read, path)


@given(
    start=st.sampled_from(
        [
            b"\0" * 128 + b"DICM",
            b"\x89PNG\r\n\x1a\n",
            b"\xff\xd8\xff",
            b"P5\n20 20\n255\n",
            b"II*\0",
            b"MM\0*",
            b"II+\0",
            b"",
        ]
    ),
    rest=st.binary(max_size=300),
)
@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rubbish_is_refused_and_never_crashes(tmp_path, start, rest):
    path = tmp_path / "rubbish"
    path.write_bytes(start + rest)
    refused(read_mammogram, path)


@given(data=st.data())
@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_with_flipped_bytes_is_read_or_refused(tmp_path, write_dicom, ramp, data):
    path = tmp_path / "mammogram.dcm"
    whole = bytearray(
        write_dicom(ramp, bits=12, WindowCenter="900", WindowWidth="1800", PatientAge="045Y").read_bytes()
    )
    for _ in range(data.draw(st.integers(1, 6))):
        whole[data.draw(st.integers(128, 800))] = data.draw(st.integers(0, 255))
    path.write_bytes(whole)
    try:
        mammogram = read_mammogram(path)
    except MammogramError:
        return
    assert mammogram.pixels.dtype == np.float32
    assert 0 <= mammogram.pixels.min() < mammogram.pixels.max() <= 1


def test_a_mammogram_is_a_header_with_pixels(write_dicom, ramp):
    path = write_dicom(ramp, bits=12)
    header, mammogram = read_header(str(path)), read_mammogram(str(path))
    assert isinstance(mammogram, Header)
    assert isinstance(mammogram, Mammogram)
    assert {name: getattr(mammogram, name) for name in vars(header)} == vars(header)
    assert header.path == path
    assert (header.patient_id, header.study_uid, header.series_uid, header.sop_uid) == (
        "W7",
        "1.2.3",
        "1.2.3.3",
        "1.2.3.4",
    )
    assert "pixels" not in repr(mammogram)


def test_the_content_decides_and_not_the_name(tmp_path, write_dicom, ramp):
    path = write_dicom(ramp, name="mammogram.png")
    assert read_header(path).format == "DICOM"
    Image.fromarray((ramp % 256).astype(np.uint8)).save(tmp_path / "a.dcm", "PNG")
    assert read_header(tmp_path / "a.dcm").format == "PNG"


def test_the_error_crosses_a_process_boundary(tmp_path):
    with pytest.raises(MammogramError) as caught:
        read_header(tmp_path / "missing.dcm")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_reading_twice_gives_the_same_bytes(cbis_dicom):
    first, second = read_mammogram(cbis_dicom[0]), read_mammogram(cbis_dicom[0])
    assert first.pixels.tobytes() == second.pixels.tobytes()
    assert first.pixels.shape == (first.rows, first.columns)
    assert first.pixels.min() == 0
    assert first.pixels.max() == 1
    # A breast on a dark film: most of the image is dark, and the left breast lies at the left.
    assert first.pixels.mean() < 0.4


def test_the_films_of_mini_mias(mini_mias):
    for path in sorted((mini_mias / "images").glob("mdb*"))[::40]:
        mammogram = read_mammogram(path)
        assert mammogram.pixels.shape == (1024, 1024)
        assert not mammogram.inverted
