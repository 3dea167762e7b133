"""What results take over from the images that they are about."""

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from exchange import ExchangeError
from exchange.sourceheader import source_header
from tests.exchange.report_cases import IMAGE, STUDY, some_image

# pydicom warns of malformed values when they are set; the tests set them on purpose.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")


def attributes_of(*images: Dataset) -> Dataset:
    return source_header(images, study_uid=STUDY).attributes


def item(**attributes: object) -> Dataset:
    made = Dataset()
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    return made


def code(value: str, meaning: str) -> Dataset:
    return item(CodeValue=value, CodingSchemeDesignator="99LOCAL", CodeMeaning=meaning)


def test_patient_and_study_come_over_as_they_are():
    image = some_image(IssuerOfPatientID="CLINIC", PatientAge="063Y", StudyDescription="Screening")
    taken = attributes_of(image)
    for keyword in (
        *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "IssuerOfPatientID", "PatientAge"),
        *("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName", "StudyDescription"),
    ):
        assert str(taken[keyword].value) == str(image[keyword].value)
    assert "ImageLaterality" not in taken
    assert source_header([image], study_uid=STUDY).notes == ()


def test_what_must_be_there_is_empty_where_no_image_has_it():
    taken = attributes_of(some_image(PatientName=None, StudyID=None, AccessionNumber=None, PatientSex=""))
    assert [taken[keyword].value for keyword in ("StudyID", "AccessionNumber", "PatientSex")] == ["", "", ""]
    assert str(taken.PatientName) == ""


def test_what_one_image_lacks_another_may_have():
    lacking = some_image(AccessionNumber=None, PatientID="")
    taken = attributes_of(lacking, some_image(SOPInstanceUID="1.2.9"))
    assert (taken.AccessionNumber, taken.PatientID) == ("A123", "W7")


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("AccessionNumber", "A" * 17),
        ("StudyID", "a\x1bb"),
        ("StudyDate", "31.01.2024"),
        ("PatientBirthDate", "19990230X"),
        ("PatientSex", "weiblich"),
        ("PatientName", "N" * 65),
    ],
)
def test_what_the_standard_forbids_is_left_empty_and_said(keyword, value):
    header = source_header([some_image(**{keyword: value})], study_uid=STUDY)
    assert str(header.attributes[keyword].value) == ""
    assert len(header.notes) == 1
    assert header.notes[0].startswith(f"{keyword} of the images was left out")


def test_a_patient_id_that_dicom_does_not_allow_is_refused_and_never_cut():
    with pytest.raises(ExchangeError, match="another id is lost"):
        attributes_of(some_image(PatientID="P" * 65))


@pytest.mark.parametrize(
    ("keyword", "one", "other"),
    [
        ("PatientID", "W7", "W8"),
        ("PatientID", "W7", "w7"),
        ("IssuerOfPatientID", "EAST", "WEST"),
        ("PatientBirthDate", "19600101", "19600102"),
    ],
)
def test_images_of_several_women_are_refused(keyword, one, other):
    images = [some_image(**{keyword: one}), some_image(SOPInstanceUID="1.2.9", **{keyword: other})]
    with pytest.raises(ExchangeError, match="several"):
        attributes_of(*images)


def test_a_woman_is_known_by_her_own_id_and_by_the_one_of_cbis_ddsm():
    image = some_image(PatientID="Mass-Test_P_00173_LEFT_CC")
    for name in ("Mass-Test_P_00173_LEFT_CC", "P_00173", None):
        source_header([image], study_uid=STUDY, patient_id=name)
    with pytest.raises(ExchangeError, match="P_00174"):
        source_header([image], study_uid=STUDY, patient_id="P_00174")


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"SOPInstanceUID": None}, "must have a SOPInstanceUID, and has none"),
        ({"SeriesInstanceUID": ""}, "must have a SeriesInstanceUID"),
        ({"StudyInstanceUID": "study 7"}, "'study 7', which is no UID"),
        ({"SOPClassUID": None}, "must have a SOPClassUID"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.33"}, r"no image of the standard \(Comprehensive SR"),
        ({"SOPClassUID": "1.2.3.4"}, "no image of the standard"),
        ({"StudyInstanceUID": "1.2.5"}, f"of the study 1.2.5, not of {STUDY}"),
    ],
)
def test_images_that_are_none_or_of_another_study_are_refused(attributes, message):
    with pytest.raises(ExchangeError, match=message):
        attributes_of(some_image(**attributes))


def test_an_error_names_the_file_that_an_image_was_read_from(tmp_path):
    image = some_image(StudyInstanceUID="1.2.5")
    image.file_meta = pydicom.dataset.FileMetaDataset()
    image.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    image.save_as(tmp_path / "cc.dcm", enforce_file_format=True)
    with pytest.raises(ExchangeError, match=r"cc\.dcm: it is of the study"):
        attributes_of(pydicom.dcmread(tmp_path / "cc.dcm"))


def test_images_are_sorted_and_repetitions_count_once():
    second = some_image(SOPInstanceUID="1.2.9")
    header = source_header([second, some_image(), second], study_uid=STUDY)
    assert [image.SOPInstanceUID for image in header.images] == sorted([IMAGE, "1.2.9"])
    assert header.attributes.SOPInstanceUID == header.images[0].SOPInstanceUID


def test_each_request_comes_over_once():
    first = item(
        RequestedProcedureID="P1",
        RequestedProcedureDescription="Screening",
        AccessionNumber="R55",
        RequestedProcedureCodeSequence=[code("MG", "Mammography")],
    )
    second = item(RequestedProcedureID="P2")
    images = [
        some_image(RequestAttributesSequence=[first]),
        some_image(SOPInstanceUID="1.2.9", RequestAttributesSequence=[first, second]),
    ]
    requests = source_header(images, study_uid=STUDY).requests
    assert [(one.RequestedProcedureID, one.AccessionNumber) for one in requests] == [("P1", "R55"), ("P2", "A123")]
    assert requests[0].RequestedProcedureCodeSequence[0].CodeMeaning == "Mammography"
    assert all(one.StudyInstanceUID == STUDY for one in requests)


def test_an_accession_number_alone_is_a_request_and_nothing_is_none():
    (request,) = source_header([some_image()], study_uid=STUDY).requests
    assert (request.AccessionNumber, request.RequestedProcedureID) == ("A123", "")
    assert source_header([some_image(AccessionNumber="")], study_uid=STUDY).requests == ()


def test_codes_and_issuers_come_over_and_broken_ones_do_not():
    image = some_image(
        ProcedureCodeSequence=[code("MG", "Mammographie"), item(CodeValue="X")],
        IssuerOfAccessionNumberSequence=[item(LocalNamespaceEntityID="RIS")],
    )
    taken = attributes_of(image)
    assert [one.CodeMeaning for one in taken.ProcedureCodeSequence] == ["Mammographie"]
    assert taken.IssuerOfAccessionNumberSequence[0].LocalNamespaceEntityID == "RIS"


def test_a_removed_identity_says_how():
    assert (
        attributes_of(some_image(PatientIdentityRemoved="YES", DeidentificationMethod="A")).DeidentificationMethod
        == "A"
    )
    assert "not told" in attributes_of(some_image(PatientIdentityRemoved="YES")).DeidentificationMethod
    assert "PatientIdentityRemoved" not in attributes_of(some_image(PatientIdentityRemoved="MAYBE"))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    values=st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(
            ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID"),
            st.text(max_size=70),
        )
        | dict.fromkeys(("AccessionNumber", "PatientAge", "DeidentificationMethod"), st.text(max_size=20)),
    )
)
def test_whatever_the_headers_hold_what_is_taken_over_can_be_written(values, tmp_path_factory):
    try:
        taken = attributes_of(some_image(**values))
    except ExchangeError:
        return  # a patient id that DICOM does not allow
    for element in taken:
        pydicom.valuerep.validate_value(element.VR, str(element.value), pydicom.config.RAISE)
    taken.SpecificCharacterSet = "ISO_IR 192"
    taken.save_as(tmp_path_factory.getbasetemp() / "taken.dcm", implicit_vr=False, little_endian=True)
