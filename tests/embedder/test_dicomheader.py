"""Identity, view, side, age and spacing, in every way that files tell them."""

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from embedder import dicomheader
from embedder.mammogram import MammogramError, read_header

# pydicom warns of malformed values when they are set; the tests set them on purpose.
pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR")


def dataset(**attributes: object) -> Dataset:
    made = Dataset()
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    return made


def code(value: str) -> Sequence:
    return Sequence([dataset(CodeValue=value)])


@pytest.mark.parametrize(
    ("attributes", "view"),
    [
        ({"ViewPosition": "MLO"}, "MLO"),
        ({"ViewPosition": " cc "}, "CC"),
        ({"ViewPosition": "AP"}, None),
        ({"ViewPosition": "AP", "ViewCodeSequence": code("R-10226")}, "MLO"),
        ({"ViewCodeSequence": code("399162004")}, "CC"),
        ({"ViewCodeSequence": code("Y-X1770")}, "XCCL"),
        ({"ViewCodeSequence": code("399101009")}, "XCCM"),
        ({"ViewCodeSequence": code("1")}, None),
        ({"ViewCodeSequence": Sequence()}, None),
        ({"PatientOrientation": "CC"}, "CC"),
        ({"PatientOrientation": ["A", "F"]}, None),
        ({"PatientOrientation": "S"}, None),
        ({"PatientID": "Calc-Test_P_00038_LEFT_MLO_2"}, "MLO"),
        ({}, None),
    ],
)
def test_view(attributes, view):
    assert dicomheader.view(dataset(**attributes)) == view


@pytest.mark.parametrize(
    ("attributes", "laterality"),
    [
        ({"ImageLaterality": "R", "Laterality": "L"}, "R"),
        ({"Laterality": "L"}, "L"),
        ({"ImageLaterality": "B"}, None),
        ({"ImageLaterality": "", "Laterality": "r"}, "R"),
        ({"PatientID": "Mass-Training_P_00001_LEFT_CC"}, "L"),
        ({"PatientName": "Mass-Training_P_00001_RIGHT_CC_1"}, "R"),
        ({"PatientID": "LEFT"}, None),
        ({}, None),
    ],
)
def test_laterality(attributes, laterality):
    assert dicomheader.laterality(dataset(**attributes)) == laterality


def test_laterality_of_a_frame_comes_before_the_shared_one():
    def group(side: str) -> Dataset:
        return dataset(FrameAnatomySequence=Sequence([dataset(FrameLaterality=side)]))

    enhanced = dataset(
        SharedFunctionalGroupsSequence=Sequence([group("L")]),
        PerFrameFunctionalGroupsSequence=Sequence([Dataset(), group("R")]),
    )
    assert dicomheader.laterality(enhanced, 0) == "L"
    assert dicomheader.laterality(enhanced, 1) == "R"


def test_a_woman_of_cbis_ddsm_has_one_name_in_all_her_files():
    names = [
        "Mass-Training_P_00001_LEFT_CC",
        "Mass-Training_P_00001_LEFT_MLO_1",
        "Calc-Training_P_00001_RIGHT_CC_12",
        "Mass-Test_P_00001_RIGHT_MLO",
    ]
    assert {dicomheader.patient_id(dataset(PatientID=name)) for name in names} == {"P_00001"}
    assert dicomheader.patient_id(dataset(PatientID="XMass-Test_P_00001_LEFT_CC")) == "XMass-Test_P_00001_LEFT_CC"
    assert dicomheader.patient_id(dataset(PatientID="  12 ")) == "12"
    assert dicomheader.patient_id(dataset(PatientID="")) is None


@pytest.mark.parametrize(
    ("attributes", "age"),
    [
        ({"PatientAge": "045Y"}, 45),
        ({"PatientAge": "006M"}, 0.5),
        ({"PatientAge": "52Y"}, 52),
        ({"PatientAge": "487D"}, 487 / 365.25),
        ({"PatientBirthDate": "19500615", "StudyDate": "20000615"}, 50),
        ({"PatientAge": "old", "PatientBirthDate": "19500615", "StudyDate": "20000615"}, 50),
        ({"PatientBirthDate": "19501345", "StudyDate": "20000615"}, None),
        ({"PatientBirthDate": "20100615", "StudyDate": "20000615"}, None),
        ({"PatientBirthDate": "19500615"}, None),
        ({"PatientAge": "000Y"}, None),
        ({"PatientAge": "450Y"}, None),
        ({}, None),
    ],
)
def test_age(attributes, age):
    assert dicomheader.age(dataset(**attributes)) == (None if age is None else pytest.approx(age, abs=0.01))


@pytest.mark.parametrize(
    ("attributes", "spacing", "noted"),
    [
        ({"ImagerPixelSpacing": [0.1, 0.1]}, 0.1, False),
        ({"ImagerPixelSpacing": [0.1, 0.1], "EstimatedRadiographicMagnificationFactor": 1.25}, 0.08, False),
        ({"ImagerPixelSpacing": [0.1, 0.1], "EstimatedRadiographicMagnificationFactor": 0}, 0.1, False),
        ({"ImagerPixelSpacing": [0.1, 0.1], "PixelSpacing": [0.07, 0.07]}, 0.1, False),
        ({"PixelSpacing": [0.07, 0.07], "EstimatedRadiographicMagnificationFactor": 1.25}, 0.07, False),
        ({"NominalScannedPixelSpacing": [0.05, 0.05]}, 0.05, False),
        ({"ImagerPixelSpacing": [0, 0], "PixelSpacing": [0.07, 0.07]}, 0.07, False),
        ({"PixelSpacing": [0.07, 0.09]}, None, True),
        ({"PixelSpacing": [-0.07, -0.07]}, None, True),
        ({"PixelSpacing": [70, 70]}, None, True),
        ({}, None, False),
    ],
)
def test_spacing(attributes, spacing, noted):
    found, note = dicomheader.spacing(dataset(**attributes))
    assert found == (None if spacing is None else pytest.approx(spacing))
    assert (note is not None) == noted


@pytest.mark.parametrize(
    "attributes",
    [
        {"Modality": "MG"},
        {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.13.1.3", "Modality": "CT"},
        {"Modality": "CR", "BodyPartExamined": "BREAST"},
        {"Modality": "RG", "BodyPartExamined": "left breast"},
        {"Modality": "OT", "ViewPosition": "MLO"},
        {"Modality": "DX", "AnatomicRegionSequence": code("T-04000")},
        {"PatientID": "Mass-Test_P_00173_LEFT_CC"},
    ],
)
def test_what_is_a_mammogram(attributes):
    assert dicomheader.why_not_mammogram(dataset(**attributes)) is None


@pytest.mark.parametrize(
    "attributes",
    [
        {"Modality": "CT", "BodyPartExamined": "BREAST"},
        {"Modality": "US", "BodyPartExamined": "BREAST"},
        {"Modality": "CR", "BodyPartExamined": "CHEST"},
        {"Modality": "DX"},
        {},
    ],
)
def test_what_is_none(attributes):
    assert dicomheader.why_not_mammogram(dataset(**attributes)) is not None


def test_malformed_attributes_are_missing_and_the_file_is_read(write_dicom, ramp):
    path = write_dicom(ramp, PixelSpacing=[0.07, 0.07], PatientAge="045Y", WindowCenter="12", WindowWidth="34")
    data = path.read_bytes().replace(b"0.07\\0.07", b"a.b7\\c.d7").replace(b"045Y", b"\xff\xfe\xfd\xfc")
    path.write_bytes(data)
    header = read_header(path)
    assert header.spacing_mm is None
    assert header.age is None
    assert header.patient_id == "W7"


def test_the_eight_films_of_cbis_ddsm(cbis_dicom):
    headers = [read_header(path) for path in cbis_dicom]
    assert {header.patient_id for header in headers} == {"P_00173", "P_00820"}
    for woman in ("P_00173", "P_00820"):
        hers = {(header.laterality, header.view) for header in headers if header.patient_id == woman}
        assert hers == {("L", "CC"), ("L", "MLO"), ("R", "CC"), ("R", "MLO")}
    assert {(header.format, header.bits, header.frames, header.photometric) for header in headers} == {
        ("DICOM", 16, 1, "MONOCHROME2")
    }
    # Secondary captures of films whose spacing and day of birth are not kept.
    assert {(header.spacing_mm, header.age, header.image_intent) for header in headers} == {(None, None, None)}
    assert len({header.sop_uid for header in headers}) == 8


def test_an_error_names_the_file_of_another_modality(write_dicom, ramp):
    path = write_dicom(ramp, Modality="US", SOPClassUID="1.2.840.10008.5.1.4.1.1.6.1")
    with pytest.raises(MammogramError, match=r"mammogram\.dcm: it is not a mammogram: its modality is US"):
        read_header(path)
