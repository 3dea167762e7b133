"""Whole folders: no planted identifier in any byte or name of the output."""

import io
import os
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pydicom.uid as uid
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from exchange import ExchangeError
from exchange.deflated import inflate
from exchange.deidentify import (
    DUPLICATE,
    FAILED,
    LEFT_OUT,
    REFUSED,
    REPORT_NAME,
    THERE,
    WRITTEN,
    DeidentifyConfig,
    deidentify_folder,
)
from exchange.pseudonyms import PseudonymKey

KEY = PseudonymKey(b"k" * 32)
Writer = Callable[..., Path]

PLANTS = {
    "PatientName": "Ōkawa^Hanako=大川^花子=おおかわ^はなこ",
    "PatientID": "MRN-4711-0815",
    "AccessionNumber": "ACC-99887766",
    "IssuerOfPatientID": "ISSUERHOSPITAL",
    "OtherPatientIDs": ["OTHER-1111", "OTHER-2222"],
    "PatientBirthDate": "19610302",
    "PatientAddress": "Plantstreet 5, Plantville",
    "ReferringPhysicianName": "Müllerplant^Jürgen",
    "InstitutionName": "PLANT CLINIC",
    "StationName": "PLANTSTATION",
    "StudyDescription": "plant study of Hanako",
    "SeriesDescription": "plant series",
    "ImageComments": "plant comment; seen by Müllerplant",
    "ProtocolName": "plantprotocol",
    "DeviceSerialNumber": "SERIAL-PLANT-1",
    "StudyID": "STUDY-PLANT",
    "PaddleDescription": "plantpaddle",
    "Manufacturer": "Maker of MRN-4711-0815",
    "StudyInstanceUID": "1.2.999.111.1",
    "SeriesInstanceUID": "1.2.999.222.1",
    "FrameOfReferenceUID": "1.2.999.444.1",
}
WORDS = (
    *(
        "ōkawa",
        "hanako",
        "大川",
        "花子",
        "おおかわ",
        "はなこ",
        "4711",
        "99887766",
        "issuerhospital",
        "other-1111",
        "other-2222",
    ),
    *("19610302", "plant", "müllerplant", "jürgen", "1.2.999", "1234567890", "20240301"),
)


@pytest.fixture
def planted_folder(write_dicom: Writer, ramp: np.ndarray, tmp_path: Path) -> Path:
    """A folder of six files: each character set, implicit and deflated syntaxes, and a nested folder; all planted."""
    source = tmp_path / "Hanako PLANT source"
    (source / "MRN-4711-0815").mkdir(parents=True)
    names = {
        "ISO_IR 192": PLANTS["PatientName"],
        "ISO_IR 100": "Müllerplant^Jürgen",
        "ISO 2022 IR 6\\ISO 2022 IR 87": "Okawa^Hanako=大川^花子=おおかわ^はなこ",
        "ISO_IR 13": "ﾔﾏﾀﾞ^Hanako",
    }
    syntaxes = (uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.DeflatedExplicitVRLittleEndian)
    cases = [(charset, syntaxes[0]) for charset in names] + [("ISO_IR 192", syntax) for syntax in syntaxes[1:]]
    for number, (charset, syntax) in enumerate(cases):
        path = write_dicom(ramp, bits=12, BodyPartExamined="BREAST")
        dataset = pydicom.dcmread(path)
        dataset.SpecificCharacterSet = charset.split("\\")
        for keyword, value in PLANTS.items():
            setattr(dataset, keyword, value if charset == "ISO_IR 192" or str(value).isascii() else "plant Hanako")
        dataset.ReferringPhysicianName = "Müllerplant^Jürgen" if charset.endswith(("192", "100")) else "plant"
        dataset.PatientName = names[charset]
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.999.333.{number}"
        dataset.StudyDate, dataset.ContentTime = "20240301", "101530"
        dataset.ViewPosition, dataset.ImageLaterality = "MLO", "R"
        item = Dataset()
        item.PatientName, item.TextValue = names[charset], "nested plant text"
        item.add_new(0x00130010, "LO", "PLANT CREATOR")
        item.ReferencedSOPInstanceUID = "1.2.999.333.1"
        dataset.ReferencedImageSequence = Sequence([item])
        dataset.RequestAttributesSequence = Sequence([item])
        dataset.add_new(0x00090010, "LO", "PLANT CREATOR")
        dataset.add_new(0x00091001, "UN", b"private plant value")
        dataset.add_new(0x60003000, "OW", b"overlay plant bytes ")
        dataset.file_meta.SourceApplicationEntityTitle = "PLANT_AE"
        dataset.file_meta.ImplementationVersionName = "PLANT_IMPL"
        dataset.file_meta.PrivateInformationCreatorUID = "1.2.999.5"
        dataset.file_meta.PrivateInformation = b"plant meta"
        dataset.preamble = b"plant preamble".ljust(128, b"\0")
        dataset.file_meta.TransferSyntaxUID = syntax
        path.unlink()
        target = source / "MRN-4711-0815" / f"Hanako {number}.dcm"
        pydicom.dcmwrite(target, dataset, enforce_file_format=False, little_endian=True, implicit_vr=(number == 4))
    return source


def output_files(output: Path) -> Iterator[tuple[str, bytes]]:
    for place, _, names in os.walk(output):
        for name in names:
            path = Path(place) / name
            yield str(path.relative_to(output)), path.read_bytes()


def assert_no_identity(output: Path) -> None:
    """Search names and bytes for every planted word in every encoding that it could have."""
    for name, content in output_files(output):
        for text in (name.encode(), content, _inflated(content)):
            lower = text.lower()
            for word in WORDS:
                for spelling in {word, word.upper(), word.title()}:
                    for encoding in ("utf-8", "latin-1", "shift_jis", "iso2022_jp", "utf-16-le", "utf-16-be"):
                        found = spelling.encode(encoding, "ignore").lower()
                        assert len(found) < 4 or found not in lower, (word, encoding, name)


def _inflated(content: bytes) -> bytes:
    if content[128:132] == b"DICM" and b"1.2.840.10008.1.2.1.99" in content[:600]:
        length = int.from_bytes(content[140:144], "little")
        return zlib.decompress(content[144 + length :], -zlib.MAX_WBITS)
    return b""


def test_no_planted_identifier_is_in_any_output_byte_or_name(planted_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        assert_no_identity(planted_folder)
    outcomes = deidentify_folder(planted_folder, tmp_path / "out", KEY)
    assert [(one.status, one.reason) for one in outcomes] == [(WRITTEN, "")] * 6
    assert_no_identity(tmp_path / "out")
    women = set()
    for one in outcomes:
        assert one.output is not None
        before, after = pydicom.dcmread(one.source), pydicom.dcmread(tmp_path / "out" / one.output)
        assert after.PixelData == before.PixelData
        assert (after.ViewPosition, after.ImageLaterality, after.BodyPartExamined) == ("MLO", "R", "BREAST")
        assert after.PatientID == after.PatientName == one.output.parts[0]
        assert one.output.parts[1:] == (after.StudyInstanceUID, after.SeriesInstanceUID, f"{after.SOPInstanceUID}.dcm")
        assert after.ReferencedImageSequence[0].ReferencedSOPInstanceUID == KEY.uid("1.2.999.333.1")
        assert after.preamble == bytes(128)
        women.add(after.PatientID)
    assert women == {KEY.woman("ISSUERHOSPITAL", "MRN-4711-0815")}


def test_deflated_files_are_inflated_and_bombs_are_refused(planted_folder: Path, tmp_path: Path) -> None:
    deflated = planted_folder / "MRN-4711-0815" / "Hanako 5.dcm"
    assert pydicom.dcmread(deflated).file_meta.TransferSyntaxUID == uid.DeflatedExplicitVRLittleEndian
    whole = pydicom.dcmread(inflate(deflated, tmp_path / "inflated.dcm"))
    assert whole.PixelData == pydicom.dcmread(deflated).PixelData
    with pytest.raises(ExchangeError, match="more than 100 bytes"):
        inflate(deflated, tmp_path / "again.dcm", largest=100)
    deflated.write_bytes(deflated.read_bytes()[:-60])
    with pytest.raises(ExchangeError, match="damaged"):
        inflate(deflated, tmp_path / "third.dcm")


def test_a_real_file_keeps_its_pixels_and_loses_its_names(cbis_dicom: list[Path], tmp_path: Path) -> None:
    before = pydicom.dcmread(cbis_dicom[0])
    before.PatientAddress, before.file_meta.SourceApplicationEntityTitle = "Plantstreet 5", "PLANT_AE"
    source = tmp_path / "one.dcm"
    before.save_as(source)
    # Its pixels are looked at in test_burntin.py.
    (outcome,) = deidentify_folder(source, tmp_path / "out", KEY, DeidentifyConfig(check_pixels=False))
    assert outcome.output is not None
    content = (tmp_path / "out" / outcome.output).read_bytes()
    for word in (b"plant", b"mass-t", b"p_00", b"1.3.6.1.4.1.9590", b"20161004", b"cbis-ddsm", b"dcm4che"):
        assert word not in content[:4000].lower()
    after = pydicom.dcmread(io.BytesIO(content))
    assert after.PixelData == before.PixelData
    assert after.Laterality == before.Laterality


@pytest.fixture
def simple_folder(write_dicom: Writer, ramp: np.ndarray, tmp_path: Path) -> Path:
    """Two women, two studies of the first, in a folder of their own."""
    (tmp_path / "in").mkdir()
    for number, (woman, day) in enumerate((("A-100", "20200115"), ("A-100", "20220115"), ("B-200", "20220115"))):
        write_dicom(
            ramp,
            bits=12,
            name=f"in/{number}.dcm",
            PatientID=woman,
            StudyDate=day,
            StudyInstanceUID=f"1.2.7.{number}",
            SOPInstanceUID=f"1.2.8.{number}",
        )
    return tmp_path / "in"


def test_a_woman_keeps_one_pseudonym_and_the_time_between_her_studies(simple_folder: Path, tmp_path: Path) -> None:
    outcomes = deidentify_folder(simple_folder, tmp_path / "out", KEY)
    first, second, other = (pydicom.dcmread(tmp_path / "out" / str(one.output)) for one in outcomes)
    assert first.PatientID == second.PatientID != other.PatientID
    days = [np.datetime64(f"{one.StudyDate[:4]}-{one.StudyDate[4:6]}-{one.StudyDate[6:]}") for one in (first, second)]
    assert (days[1] - days[0]).astype(int) == 731
    other_run = deidentify_folder(simple_folder, tmp_path / "again", KEY, workers=1)
    assert [one.output for one in other_run] == [one.output for one in outcomes]
    other_key = deidentify_folder(simple_folder, tmp_path / "keyed", PseudonymKey(b"l" * 32))
    assert not {one.output for one in other_key} & {one.output for one in outcomes}


def test_the_issuer_from_outside_counts_where_the_file_names_none(simple_folder: Path, tmp_path: Path) -> None:
    config = DeidentifyConfig(issuer="north")
    outcomes = deidentify_folder(simple_folder, tmp_path / "out", KEY, config)
    assert outcomes[0].output is not None
    assert outcomes[0].output.parts[0] == KEY.woman("north", "A-100")


def test_a_stopped_run_goes_on_and_one_bad_file_does_not_stop_the_rest(simple_folder: Path, tmp_path: Path) -> None:
    (simple_folder / "0-bad.dcm").write_bytes((simple_folder / "0.dcm").read_bytes()[:700])
    (simple_folder / "notes of Jane.txt").write_text("Jane")
    (simple_folder / "empty.dcm").touch()
    (simple_folder / "loop").symlink_to(simple_folder)
    (simple_folder / "nowhere").symlink_to(tmp_path / "gone")
    os.mkfifo(simple_folder / "pipe")
    (simple_folder / "copy of 2.dcm").write_bytes((simple_folder / "2.dcm").read_bytes())
    outcomes = deidentify_folder(simple_folder, tmp_path / "out", KEY)
    found = {one.source.name: one.status for one in outcomes}
    assert (found["0.dcm"], found["1.dcm"]) == (WRITTEN, WRITTEN)
    assert {found["2.dcm"], found["copy of 2.dcm"]} == {WRITTEN, DUPLICATE}
    # Of the object that it is a part of there may be a whole copy already: files are read by several threads.
    assert found["0-bad.dcm"] in (REFUSED, FAILED, DUPLICATE)
    assert {found[name] for name in ("notes of Jane.txt", "empty.dcm", "nowhere", "pipe")} == {LEFT_OUT}
    assert "loop" not in found
    gone = next(one.output for one in outcomes if one.source.name == "1.dcm")
    kept = next(one.output for one in outcomes if one.source.name == "0.dcm")
    assert gone is not None
    assert kept is not None
    before = (tmp_path / "out" / kept).stat().st_mtime_ns
    (tmp_path / "out" / gone).unlink()
    again = {one.source.name: one.status for one in deidentify_folder(simple_folder, tmp_path / "out", KEY)}
    assert (again["0.dcm"], again["1.dcm"]) == (THERE, WRITTEN)
    assert (tmp_path / "out" / kept).stat().st_mtime_ns == before
    report = (tmp_path / "out" / REPORT_NAME).read_text()
    assert len(report.splitlines()) == 1 + len(again)
    assert "Jane" not in report
    assert "1.dcm" not in re.sub(r"2\.25\.\d+\.dcm", "", report)


def test_text_in_the_pixels_keeps_a_file_back_unless_allowed(write_dicom: Writer, tmp_path: Path) -> None:
    y, x = np.mgrid[:700, :600]
    stored = np.where((y - 350) ** 2 + x**2 < 240**2, 1800, 10).astype(np.uint16)
    drawn = np.zeros(stored.shape, np.uint8)
    cv2.putText(drawn, "SURNAME 19610302", (280, 80), cv2.FONT_HERSHEY_SIMPLEX, 0.8, 255, 2)
    path = write_dicom(np.where(drawn > 127, 4095, stored).astype(np.uint16), bits=12)
    (outcome,) = deidentify_folder(path, tmp_path / "out", KEY)
    assert (outcome.status, outcome.code, outcome.output) == (REFUSED, "burned-in", None)
    (outcome,) = deidentify_folder(path, tmp_path / "out", KEY, DeidentifyConfig(allow_burned_in=True))
    assert outcome.status == WRITTEN


def test_bytes_behind_the_image_and_words_in_the_compressed_stream_keep_a_file_back(
    write_dicom: Writer, ramp: np.ndarray, tmp_path: Path
) -> None:
    path = write_dicom(ramp, bits=12, PatientName="Plantation^Jane")
    dataset = pydicom.dcmread(path)
    dataset.PixelData += b"Plantation Jane "
    dataset.save_as(path)
    (outcome,) = deidentify_folder(path, tmp_path / "out", KEY)
    assert (outcome.status, outcome.code) == (REFUSED, "pixel-excess")
    jpeg = cv2.imencode(".jpg", (ramp >> 4).astype(np.uint8))[1].tobytes()
    comment = b"\xff\xfe\x00\x11PLANTATION JANE"
    path = write_dicom(
        (ramp >> 4).astype(np.uint8),
        stream=jpeg[:2] + comment + jpeg[2:],
        syntax=uid.JPEGBaseline8Bit,
        PatientName="Plantation^Jane",
    )
    (outcome,) = deidentify_folder(path, tmp_path / "out", KEY)
    assert (outcome.status, outcome.code) == (REFUSED, "identity-left")


@pytest.mark.parametrize(
    ("attributes", "code"),
    [
        ({"Modality": "US", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.6.1"}, "refused-by-gatekeeper"),
        ({"BurnedInAnnotation": "YES"}, "burned-in"),
        ({"SOPClassUID": "1.2.999.1"}, "unknown-class"),
        ({"StudyInstanceUID": None}, "no-identifiers"),
    ],
)
def test_what_can_not_be_told_to_be_without_identity_is_left_out(
    write_dicom: Writer, ramp: np.ndarray, tmp_path: Path, attributes: dict, code: str
) -> None:
    (outcome,) = deidentify_folder(write_dicom(ramp, bits=12, **attributes), tmp_path / "out", KEY)
    assert (outcome.status, outcome.code) == (REFUSED, code)
    assert outcome.reason
    assert sorted(name for name, _ in output_files(tmp_path / "out")) == ["deidentification.json", "report.csv"]


def test_a_file_without_patient_id_is_its_examinations(write_dicom: Writer, ramp: np.ndarray, tmp_path: Path) -> None:
    (outcome,) = deidentify_folder(write_dicom(ramp, bits=12, PatientID=None), tmp_path / "out", KEY)
    assert outcome.output is not None
    assert outcome.output.parts[0] == KEY.woman("\0study", "1.2.3")


def test_another_key_is_refused_in_the_same_folder(simple_folder: Path, tmp_path: Path) -> None:
    deidentify_folder(simple_folder, tmp_path / "out", KEY)
    with pytest.raises(ExchangeError, match="another key"):
        deidentify_folder(simple_folder, tmp_path / "out", PseudonymKey(b"l" * 32))


def test_folders_that_lie_in_each_other_are_refused(simple_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(simple_folder)
    for output in (simple_folder, simple_folder / "out", simple_folder.parent, tmp_path / "link" / "out"):
        with pytest.raises(ExchangeError, match="apart from it"):
            deidentify_folder(simple_folder, output, KEY)
    with pytest.raises(ExchangeError, match="no such"):
        deidentify_folder(tmp_path / "gone", tmp_path / "out", KEY)
    (tmp_path / "file").touch()
    with pytest.raises(ExchangeError, match="is a file"):
        deidentify_folder(simple_folder, tmp_path / "file", KEY)
