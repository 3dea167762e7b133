"""Results as files: whole or not at all."""

from datetime import datetime

import pydicom
import pytest

from exchange import ExchangeError
from exchange.capture import montage_capture
from exchange.results import ResultOptions, write_result
from tests.exchange.report_cases import some_image, some_opinions


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    from PIL import Image

    picture = tmp_path_factory.mktemp("picture") / "a.png"
    Image.new("RGB", (300, 30)).save(picture)
    return montage_capture(picture, some_opinions(), [some_image()], ResultOptions(created=datetime(2024, 2, 1, 8, 5)))


def test_a_result_is_a_dicom_file_with_its_time(result, tmp_path):
    write_result(result, tmp_path / "a.dcm")
    back = pydicom.dcmread(tmp_path / "a.dcm")
    assert (back.ContentDate, back.ContentTime) == ("20240201", "080500")
    assert (back.InstanceCreationDate, back.InstanceCreationTime) == ("20240201", "080500")
    assert back.file_meta.MediaStorageSOPInstanceUID == back.SOPInstanceUID
    assert [path.name for path in tmp_path.iterdir()] == ["a.dcm"]


@pytest.mark.parametrize("name", ["no/such/folder/a.dcm", "folder", "a\0b.dcm"])
def test_a_place_that_can_not_be_written_is_refused_and_nothing_is_left(name, result, tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(ExchangeError):
        write_result(result, tmp_path / name)
    assert [path.name for path in tmp_path.rglob("*")] == ["folder"]


@pytest.mark.parametrize("fields", [{"uid_root": "9.9"}, {"series_number": 0}, {"series_number": 2**31 - 1}])
def test_options_that_dicom_does_not_allow_are_refused(fields):
    with pytest.raises(ExchangeError):
        ResultOptions(**fields)
