"""The structured report: what it says, of whom, where, and that the validator and highdicom take it."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from pydicom.dataset import Dataset

from exchange import ExchangeError
from exchange.opinions import Risk, SecondOpinion, StudyOpinions
from exchange.reportcodes import LESION_CODES, PRIVATE_CODES, SCHEME
from exchange.reports import study_report
from exchange.results import ResultOptions, write_result
from exchange.uids import derived_uid
from tests.exchange.report_cases import (
    IMAGE,
    NAMED,
    OPINION,
    SHOWN,
    STUDY,
    TOMOSYNTHESIS,
    WITHHELD,
    dciodvfy_errors,
    some_image,
    some_opinions,
    studies,
)

pytest.importorskip("highdicom", reason="install mammoseek[exchange] for structured reports")
WHEN = ResultOptions(created=datetime(2024, 2, 1, 8, 30))


def items_of(item: Dataset) -> Iterator[Dataset]:
    for child in item.get("ContentSequence", []):
        yield child
        yield from items_of(child)


def meanings(item: Dataset) -> list[str]:
    return [str(child.ConceptNameCodeSequence[0].CodeMeaning) for child in items_of(item)]


def texts(document: Dataset) -> str:
    """Return all values of a document as one text."""
    return str(document)


def saved(document: Dataset, folder: Path) -> Path:
    path = folder / "report.dcm"
    write_result(document, path)
    return path


def group_of(document: Dataset) -> Dataset:
    return next(item for item in items_of(document) if item.get("ContentTemplateSequence"))


def test_highdicom_reads_back_region_finding_site_and_measurements(tmp_path):
    from highdicom.sr import srread

    document = srread(saved(study_report(some_opinions(), [some_image()]), tmp_path))
    (group,) = document.content.get_planar_roi_measurement_groups()
    assert group.roi.value.tolist() == [[10, 20], [110, 20], [110, 140], [10, 140], [10, 20]]
    assert group.roi.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == IMAGE
    assert group.tracking_identifier == "finding 1"
    assert group.finding_type == LESION_CODES["mass"]
    (site,) = group.finding_sites
    assert (site.value.meaning, site.laterality.meaning) == ("Breast", "Left")
    numbers = {measurement.name.meaning: measurement for measurement in group.get_measurements()}
    risk = numbers["Probability of cancer"]
    assert (risk.value, risk.unit.value, risk.derivation.meaning) == (62.5, "%", "Estimated")
    assert numbers["Score of the detector, 0 to 1"].value == 0.71
    assert numbers["Score of the detector after similar cases, 0 to 1"].value == 0.8
    assert numbers["Similarity of the nearest case, cosine from -1 to 1"].value == 0.93
    (evaluation,) = group.get_qualitative_evaluations(name=None)[:1]
    assert (evaluation.name.meaning, evaluation.value.meaning) == ("No close precedent", "No")


def test_a_score_is_the_detectors_and_all_else_mammoseeks():
    group = group_of(study_report(some_opinions(), [some_image()]))
    own = [child.TextValue for child in group.ContentSequence if child.ValueType == "TEXT"]
    assert {"mammoseek", "0.1.0", "gallery_generation=3", f"model_digest={'m' * 64}"} <= set(own)
    (score,) = [
        child for child in group.ContentSequence if child.ConceptNameCodeSequence[0].CodeValue == "DETECTOR-SCORE"
    ]
    assert [child.TextValue for child in score.ContentSequence] == ["finder", "2.1"]


def test_outcomes_are_counted_over_the_similar_cases():
    cases = (SHOWN, NAMED, replace(NAMED, row_id="x"), WITHHELD, replace(NAMED, row_id="y", outcome=None))
    group = group_of(study_report(some_opinions(replace(OPINION, similar=cases)), [some_image()]))
    counts = {
        child.ContentSequence[0].ConceptCodeSequence[0].CodeMeaning: child.MeasuredValueSequence[0].NumericValue
        for child in group.ContentSequence
        if child.ConceptNameCodeSequence[0].CodeValue == "OUTCOME-COUNT"
    }
    assert counts == {"Malignant": 2, "Benign": 2, "Outcome unknown": 1}


def test_title_series_and_text_say_that_it_is_for_research_and_nobody_verified_it():
    document = study_report(some_opinions(), [some_image()])
    assert "RESEARCH" in document.SeriesDescription
    assert (document.CompletionFlag, document.VerificationFlag) == ("PARTIAL", "UNVERIFIED")
    assert document.PreliminaryFlag == "PRELIMINARY"
    assert document.ContentQualification == "RESEARCH"
    (title,) = [child for child in document.ContentSequence if child.ConceptNameCodeSequence[0].CodeValue == "113011"]
    assert title.ConceptCodeSequence[0].CodeMeaning == "Research use only, not for diagnosis"
    assert any(child.get("TextValue", "").startswith("For research use only") for child in document.ContentSequence)


def test_patient_study_and_request_are_the_images_and_the_series_is_its_own():
    asked = Dataset()
    asked.RequestedProcedureID, asked.RequestedProcedureDescription = "P9", "Screening"
    document = study_report(some_opinions(), [some_image(RequestAttributesSequence=[asked])])
    assert str(document.PatientName) == "Mustermann^Erika"
    assert (document.PatientID, document.PatientBirthDate, document.PatientSex) == ("W7", "19600229", "F")
    assert (document.StudyInstanceUID, document.StudyDate, document.StudyID) == (STUDY, "20240131", "17")
    assert (document.AccessionNumber, str(document.ReferringPhysicianName)) == ("A123", "Arzt^Anna")
    (request,) = document.ReferencedRequestSequence
    assert (request.RequestedProcedureID, request.AccessionNumber) == ("P9", "A123")
    assert request.StudyInstanceUID == STUDY
    assert document.Modality == "SR"
    assert document.SeriesInstanceUID not in (some_image().SeriesInstanceUID, document.SOPInstanceUID)


def test_all_images_of_the_study_are_evidence():
    second = some_image(SOPInstanceUID="1.2.826.0.1.1.1.2", ImageLaterality="R")
    document = study_report(some_opinions(), [second, some_image()])
    (study,) = document.CurrentRequestedProcedureEvidenceSequence
    images = [image.ReferencedSOPInstanceUID for image in study.ReferencedSeriesSequence[0].ReferencedSOPSequence]
    assert images == [IMAGE, second.SOPInstanceUID]


def test_no_other_woman_is_named_and_a_withheld_case_not_at_all():
    document = study_report(some_opinions(), [some_image()])
    said = texts(document)
    assert "other-woman" not in said
    assert "secret" not in said
    assert "case-1" in said
    assert "/images/left-cc.dcm" not in said


def test_a_case_that_may_be_shown_is_referred_to_as_an_image_and_listed_as_evidence():
    document = study_report(some_opinions(), [some_image()])
    (other,) = document.PertinentOtherEvidenceSequence
    (series,) = other.ReferencedSeriesSequence
    assert (other.StudyInstanceUID, series.SeriesInstanceUID) == (SHOWN.study_uid, SHOWN.series_uid)
    assert [image.ReferencedSOPInstanceUID for image in series.ReferencedSOPSequence] == [SHOWN.sop_uid]
    withheld = study_report(some_opinions(replace(OPINION, similar=(WITHHELD,))), [some_image()])
    assert "PertinentOtherEvidenceSequence" not in withheld
    assert SHOWN.sop_uid not in texts(withheld)


def test_the_same_triage_gives_the_same_bytes_and_another_model_another_report(tmp_path):
    images = [some_image(SOPInstanceUID="1.2.826.0.1.1.1.2"), some_image()]
    first = saved(study_report(some_opinions(), images, WHEN), tmp_path).read_bytes()
    moved = some_opinions(replace(OPINION, path="/elsewhere/a.dcm"))
    again = saved(study_report(moved, images[::-1], WHEN), tmp_path).read_bytes()
    assert first == again
    uids = {
        study_report(study, images).SOPInstanceUID
        for study in (
            some_opinions(),
            some_opinions(),
            some_opinions(model_digest="other"),
            some_opinions(gallery_generation=4),
            some_opinions(replace(OPINION, rescored=0.81)),
        )
    }
    assert len(uids) == 4


def test_uids_lie_below_the_root_that_is_asked_for():
    root = "1.2.276.0.99999"
    document = study_report(some_opinions(), [some_image()], ResultOptions(uid_root=root))
    own = [document.SOPInstanceUID, document.SeriesInstanceUID]
    own += [item.UID for item in items_of(document) if item.ValueType == "UIDREF" and NAMED.sop_uid != item.UID]
    assert len(own) == 4
    assert all(uid.startswith(f"{root}.") and len(uid) <= 64 for uid in own)
    assert own[3] == derived_uid(root, "finding", STUDY, "finding 1")


def test_own_codes_are_declared_and_stand_in_the_table():
    document = study_report(some_opinions(), [some_image()])
    (scheme,) = document.CodingSchemeIdentificationSequence
    assert scheme.CodingSchemeDesignator == SCHEME
    used = {}
    for item in items_of(document):
        for code in (*item.ConceptNameCodeSequence, *item.get("ConceptCodeSequence", [])):
            if code.CodingSchemeDesignator == SCHEME:
                used[code.CodeValue] = code.CodeMeaning
    assert used.items() <= PRIVATE_CODES.items()
    assert len(used) > 15


def test_an_unknown_risk_has_no_number():
    group = group_of(study_report(some_opinions(SecondOpinion("d", IMAGE, box=(1, 1, 9, 9))), [some_image()]))
    assert [child for child in group.ContentSequence if child.ValueType == "NUM"] == []


def test_a_finding_without_coordinates_is_said_of_the_whole_image():
    from highdicom.sr import ComprehensiveSR

    document = study_report(some_opinions(replace(OPINION, box=None)), [some_image()])
    content = ComprehensiveSR.from_dataset(document).content
    assert content.get_planar_roi_measurement_groups() == []
    (group,) = content.get_image_measurement_groups()
    assert group.tracking_identifier == "finding 1"


def test_a_region_on_a_frame_names_it():
    image = some_image(SOPClassUID=TOMOSYNTHESIS, NumberOfFrames=40)
    document = study_report(some_opinions(replace(OPINION, frame_number=7)), [image])
    (region,) = [item for item in items_of(document) if item.ValueType == "SCOORD"]
    assert region.ContentSequence[0].ReferencedSOPSequence[0].ReferencedFrameNumber == 7


def test_a_finding_of_unknown_type_is_a_selected_region_and_each_further_type_is_said():
    unknown = study_report(some_opinions(replace(OPINION, lesion_type=None)), [some_image()])
    assert "Selected region" in texts(unknown)
    several = replace(OPINION, lesion_type="asymmetry + calcification + something else")
    said = [
        child.ConceptCodeSequence[0].CodeMeaning if child.ValueType == "CODE" else child.TextValue
        for child in group_of(study_report(some_opinions(several), [some_image()])).ContentSequence
        if child.ConceptNameCodeSequence[0].CodeMeaning in ("Finding", "Further lesion type")
    ]
    assert said == ["Asymmetric breast tissue", "Calcification of breast", "something else"]


def test_side_comes_from_the_image_where_the_detection_does_not_say():
    document = study_report(some_opinions(replace(OPINION, laterality=None)), [some_image(ImageLaterality="R")])
    assert "24028007" in texts(document)
    document = study_report(some_opinions(replace(OPINION, laterality=None)), [some_image(ImageLaterality=None)])
    assert "Laterality" not in meanings(document)


@pytest.mark.parametrize(
    ("opinions", "images", "cause"),
    [
        (some_opinions(), [], "no image of it was given"),
        (replace(some_opinions(), opinions=()), [some_image()], "no finding to report"),
        (some_opinions(replace(OPINION, sop_uid="1.2.3")), [some_image()], "1.2.3 is not among those given"),
        (some_opinions(replace(OPINION, sop_uid=None)), [some_image()], "left-cc.dcm has no SOP Instance UID"),
        (some_opinions(study_uid="1.2.3"), [some_image()], "not of 1.2.3"),
        (
            some_opinions(),
            [some_image(), some_image(SOPInstanceUID="1.5", StudyInstanceUID="1.2.5")],
            "it is of the study 1.2.5",
        ),
        (
            some_opinions(),
            [some_image(), some_image(SOPInstanceUID="1.5", PatientID="W8")],
            "several patients: 'W7' and 'W8'",
        ),
        (some_opinions(patient_id="W9"), [some_image()], "the findings are of 'W9'"),
        (some_opinions(), [some_image(ImageLaterality="R")], "it shows the breast R"),
        (some_opinions(replace(OPINION, box=(900, 0, 990, 9))), [some_image()], "does not lie on its 300 × 400"),
        (some_opinions(), [some_image(NumberOfFrames=2)], "names none"),
        (
            some_opinions(OPINION, replace(OPINION, detection_id="finding 1 ")),
            [some_image()],
            "differs from 'finding 1'",
        ),
        (some_opinions(replace(OPINION, frame_number=3)), [some_image(NumberOfFrames=2)], "no frame 3"),
        (some_opinions(), [some_image(Rows=None)], "how many rows"),
    ],
)
def test_what_can_not_be_reported_is_refused_in_a_sentence(opinions, images, cause):
    with pytest.raises(ExchangeError, match=cause):
        study_report(opinions, images)


def test_without_highdicom_the_message_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "highdicom.sr", None)
    with pytest.raises(ExchangeError, match=r"mammoseek\[exchange\]"):
        study_report(some_opinions(), [some_image()])


def real_study(path: Path) -> tuple[StudyOpinions, Dataset]:
    """Return a finding in the middle of a real image, and its header."""
    image = pydicom.dcmread(path, stop_before_pixels=True)
    box = (image.Columns // 3, image.Rows // 3, image.Columns // 2, image.Rows // 2)
    finding = replace(OPINION, sop_uid=image.SOPInstanceUID, box=box, laterality=None)
    return some_opinions(finding, study_uid=image.StudyInstanceUID, patient_id=image.PatientID), image


def test_reports_of_real_images_are_valid_and_read_back(cbis_dicom, tmp_path):
    from highdicom.sr import srread

    for path in cbis_dicom:
        opinions, image = real_study(path)
        file = saved(study_report(opinions, [image]), tmp_path)
        (group,) = srread(file).content.get_planar_roi_measurement_groups()
        x0, y0, x1, y1 = opinions.opinions[0].box
        assert np.array_equal(group.roi.value[:3], [[x0, y0], [x1, y0], [x1, y1]])
        assert group.finding_sites[0].laterality.meaning == ("Left" if "LEFT" in image.PatientID else "Right")
        assert (errors := dciodvfy_errors(file)) == "", errors


ODD = {
    "no laterality": {"ImageLaterality": None},
    "an empty name": {"PatientName": ""},
    "no patient at all": dict.fromkeys(("PatientName", "PatientID", "PatientBirthDate", "PatientSex")),
    "no accession number": {"AccessionNumber": None},
    "no study": dict.fromkeys(("StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName")),
    "a name without a caret": {"PatientName": "Erika Mustermann"},
    "the longest ids": {"PatientID": "P" * 64, "StudyID": "S" * 16, "AccessionNumber": "A" * 16},
    "ids that are too long": {"StudyID": "S" * 17, "AccessionNumber": "A" * 40, "PatientName": "N" * 70},
    "dates that are none": {"PatientBirthDate": "19601399", "StudyDate": "yesterday", "StudyTime": "25:61"},
    "another sex": {"PatientSex": "female"},
    "an age and a weight": {"PatientAge": "063Y", "PatientWeight": "71.5", "PatientSize": "1.65"},
    "an identity removed without saying how": {"PatientIdentityRemoved": "YES"},
    "a character set of several": {"SpecificCharacterSet": ["", "ISO 2022 IR 87"]},
    "a frame of many": {"SOPClassUID": TOMOSYNTHESIS, "NumberOfFrames": 3},
    "control characters": {"StudyID": "a\x1bb", "StudyDescription": "two\r\nlines"},
}


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
@pytest.mark.parametrize("attributes", ODD.values(), ids=ODD)
def test_reports_of_images_with_odd_headers_are_valid(attributes, tmp_path):
    image = some_image(**attributes)
    finding = replace(OPINION, laterality=None, frame_number=2 if "NumberOfFrames" in attributes else None)
    file = saved(study_report(some_opinions(finding), [image]), tmp_path)
    assert (errors := dciodvfy_errors(file)) == "", errors


@pytest.mark.parametrize(
    ("character_set", "name"),
    [
        ("ISO_IR 100", "Éluard^Zoë"),
        ("ISO_IR 192", "Nguyễn^Thị"),
        (["", "ISO 2022 IR 87"], "Yamada^Hanako=山田^花子=やまだ^はなこ"),
        (["ISO 2022 IR 13", "ISO 2022 IR 87"], "ﾔﾏﾀﾞ^ﾊﾅｺ=山田^花子=やまだ^はなこ"),
        (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
        ("GB18030", "Wang^XiaoDong=王^小东"),
    ],
)
def test_names_in_other_character_sets_come_over_in_utf_8(character_set, name, tmp_path):
    source = some_image(SpecificCharacterSet=character_set, PatientName=name)
    source.file_meta = pydicom.dataset.FileMetaDataset()
    source.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    source.save_as(tmp_path / "source.dcm", enforce_file_format=True)
    image = pydicom.dcmread(tmp_path / "source.dcm")
    noted = replace(OPINION, notes=("花子 żółć",))
    file = saved(study_report(some_opinions(noted), [image]), tmp_path)
    back = pydicom.dcmread(file)
    assert str(back.PatientName) == name
    assert back.SpecificCharacterSet == "ISO_IR 192"
    assert "花子 żółć" in texts(back)
    assert (errors := dciodvfy_errors(file)) == "", errors


# Shrinking starts the validator hundreds of times.
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.reuse, Phase.generate])
@given(opinions=studies)
def test_whatever_is_said_the_report_is_valid(opinions, tmp_path_factory):
    file = saved(study_report(opinions, [some_image()]), tmp_path_factory.getbasetemp())
    assert (errors := dciodvfy_errors(file)) == "", errors


def test_texts_of_blanks_are_left_out(tmp_path):
    blank = replace(OPINION, notes=("\n", "\f ", "a\n"), lesion_id="\r", risk=Risk(0.5, "\f"), detector="\n")
    file = saved(study_report(some_opinions(blank), [some_image()]), tmp_path)
    group = group_of(pydicom.dcmread(file))
    said = [
        (item.ConceptNameCodeSequence[0].CodeMeaning, item.TextValue) for item in items_of(group) if "TextValue" in item
    ]
    assert ("Comment", "a") in said
    assert all(text.strip() for _, text in said)
    assert not {"Lesion Identifier", "Detector", "What the value rests on"} & {name for name, _ in said}
    assert (errors := dciodvfy_errors(file)) == "", errors


def test_two_hundred_findings_fit_into_one_report(tmp_path):
    from highdicom.sr import srread

    bare = [SecondOpinion(f"d{number}", IMAGE, box=(1, 1, 2 + number, 9)) for number in range(199)]
    many = some_opinions(OPINION, *bare)
    file = saved(study_report(many, [some_image()]), tmp_path)
    assert len(srread(file).content.get_planar_roi_measurement_groups()) == 200
    assert (errors := dciodvfy_errors(file)) == "", errors
