"""The montage as a secondary capture: its pixels, whose it is, and that the validator takes it."""

import hashlib
from datetime import datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

from exchange import ExchangeError
from exchange.capture import BURNT_IN, montage_capture, read_picture, with_warning
from exchange.reports import study_report
from exchange.results import ResultOptions, write_result
from tests.exchange.report_cases import OPINION, STUDY, dciodvfy_errors, some_image, some_opinions
from tests.exchange.test_reports import ODD, real_study

WHEN = ResultOptions(created=datetime(2024, 2, 1, 8, 30))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A PNG file of 331 × 201 pixels: an odd number of bytes."""
    pixels = np.random.default_rng(7).integers(0, 256, (201, 331, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "montage.png")
    return tmp_path / "montage.png"


def test_the_picture_comes_back_whole_below_the_line(picture, tmp_path):
    capture = montage_capture(picture, some_opinions(), [some_image()])
    write_result(capture, tmp_path / "capture.dcm")
    pixels = pydicom.dcmread(tmp_path / "capture.dcm").pixel_array
    drawn = np.asarray(Image.open(picture))
    assert np.array_equal(pixels[-201:], drawn)
    strip = pixels[:-201]
    assert strip.shape[0] >= 18
    lit = (strip.max(axis=-1) > 128).mean()
    assert 0.02 < lit < 0.5


def test_the_line_is_whole_at_every_width():
    for width in (240, 600, 3000):
        marked = with_warning(np.zeros((30, width, 3), np.uint8))
        columns = np.flatnonzero(marked[:-30].max(axis=(0, 2)) > 100)
        assert columns[0] > 0
        assert columns[-1] < width - 1  # a line that is cut would touch the edge
        assert columns[-1] - columns[0] > width / 4


def test_series_and_picture_say_that_it_is_for_research(picture):
    capture = montage_capture(picture, some_opinions(), [some_image()])
    assert "RESEARCH" in capture.SeriesDescription
    assert "not for diagnosis" in capture.SeriesDescription
    assert capture.BurnedInAnnotation == "YES"
    assert (capture.ConversionType, list(capture.ImageType)) == ("SYN", ["DERIVED", "SECONDARY"])
    assert "not for diagnosis" in capture.DerivationDescription
    assert "NOT FOR DIAGNOSIS" in BURNT_IN


def test_patient_and_study_are_the_images_and_the_series_is_its_own(picture):
    image = some_image()
    capture = montage_capture(picture, some_opinions(), [image], instance_number=3)
    report = study_report(some_opinions(), [image])
    assert (capture.PatientID, capture.StudyInstanceUID, capture.AccessionNumber) == ("W7", STUDY, "A123")
    assert capture.SourceImageSequence[0].ReferencedSOPInstanceUID == image.SOPInstanceUID
    assert len({capture.SeriesInstanceUID, report.SeriesInstanceUID, image.SeriesInstanceUID}) == 3
    assert capture.SeriesNumber != report.SeriesNumber
    assert capture.InstanceNumber == 3


def test_the_same_picture_gives_the_same_bytes_and_another_one_another_capture(picture, tmp_path):
    files = []
    for number in range(2):
        write_result(montage_capture(picture, some_opinions(), [some_image()], WHEN), tmp_path / f"{number}.dcm")
        files.append(hashlib.sha256((tmp_path / f"{number}.dcm").read_bytes()).digest())
    assert files[0] == files[1]
    first = montage_capture(picture, some_opinions(), [some_image()])
    Image.new("RGB", (331, 201)).save(picture)
    other = montage_capture(picture, some_opinions(), [some_image()])
    assert other.SOPInstanceUID != first.SOPInstanceUID
    assert other.SeriesInstanceUID == first.SeriesInstanceUID


def test_captures_of_real_images_are_valid(picture, cbis_dicom, tmp_path):
    for path in cbis_dicom:
        opinions, image = real_study(path)
        write_result(montage_capture(picture, opinions, [image]), tmp_path / "capture.dcm")
        assert (errors := dciodvfy_errors(tmp_path / "capture.dcm")) == "", errors


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
@pytest.mark.parametrize("attributes", ODD.values(), ids=ODD)
def test_captures_of_images_with_odd_headers_are_valid(attributes, picture, tmp_path):
    write_result(montage_capture(picture, some_opinions(), [some_image(**attributes)]), tmp_path / "capture.dcm")
    assert (errors := dciodvfy_errors(tmp_path / "capture.dcm")) == "", errors


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_every_kind_of_png_is_read_in_colour(mode, tmp_path):
    Image.new("L", (300, 40), 200).convert(mode).save(tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png").shape == (40, 300, 3)


def test_what_is_transparent_becomes_white(tmp_path):
    Image.new("RGBA", (300, 40), (10, 20, 30, 0)).save(tmp_path / "a.png")
    assert (read_picture(tmp_path / "a.png") == 255).all()


def broken(folder: Path, name: str) -> Path:
    path = folder / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)).save(path)
    data = path.read_bytes()
    if name == "cut short":
        path.write_bytes(data[: len(data) // 2])
    elif name == "spoilt":
        path.write_bytes(data[:5000] + b"x" * 100 + data[5100:])
    elif name == "a JPEG":
        Image.new("RGB", (300, 300)).save(path, "JPEG")
    elif name == "narrow":
        Image.new("RGB", (100, 300)).save(path)
    elif name == "huge":
        Image.new("1", (8_000, 6_000)).save(path)
    elif name == "empty":
        path.write_bytes(b"")
    elif name == "missing":
        path.unlink()
    elif name == "a folder":
        path.unlink()
        path.mkdir()
    return path


@pytest.mark.parametrize("name", ["cut short", "spoilt", "a JPEG", "narrow", "huge", "empty", "missing", "a folder"])
def test_a_picture_that_can_not_be_used_is_refused_in_a_sentence(name, tmp_path):
    with pytest.raises(ExchangeError, match=r"a\.png"):
        montage_capture(broken(tmp_path, name), some_opinions(), [some_image()])


def test_a_capture_of_another_study_is_refused(picture):
    with pytest.raises(ExchangeError, match=r"not of 1\.2\.3"):
        montage_capture(picture, some_opinions(OPINION, study_uid="1.2.3"), [some_image()])
