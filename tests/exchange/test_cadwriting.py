"""Detections as CAD SR: the documents are valid, and what is read from them is what was written."""

import itertools
import math
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import pydicom
import pydicom.uid as uid
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from embedder.findings import TERM_SEPARATOR, TERMS
from exchange import ExchangeError, cadwriting
from exchange.cadreport import Algorithm, CadReport
from exchange.cadsr import read_cad_sr
from exchange.cadtemplates import as_percent
from exchange.cadwriting import Examined, cad_reports, line_around
from exchange.contentitems import Concept
from exchange.detections import Detection, detections_frame
from exchange.formats import read_detections, write_detections
from exchange.images import ImageCatalogue
from exchange.results import ResultOptions, write_result
from exchange.text import clean_text
from tests.conftest import mammography_dataset
from tests.exchange.report_cases import dciodvfy_errors

STUDY = "1.2.826.0.1.7"
ROWS, COLUMNS = 80, 100


@dataclass(frozen=True)
class Study:
    """A folder of three images of one study and one of another woman's, by name."""

    folder: Path
    catalogue: ImageCatalogue

    def mark(self, name: str = "cc", **told: object) -> Detection:
        whole = {"detection_id": name, "x0": 10, "y0": 20, "x1": 30, "y1": 45, "score": 0.5, "detector": "finder"}
        woman = "W8" if name == "other" else "W7"
        path = str(self.folder / f"{name}.dcm")
        return Detection(**({"path": path, "dataset": "clinic", "patient_id": woman} | whole | told))  # type: ignore[arg-type]

    def read(self, folder: Path) -> tuple[Detection, ...]:
        reading = read_detections(folder, self.catalogue)
        assert (reading.kind, reading.problems, reading.notes) == ("cad-sr", (), ())
        return reading.detections


def image(folder: Path, name: str, number: int, **attributes: object) -> Path:
    """Write an image with all that a report takes over from it."""
    dataset = mammography_dataset(np.zeros((ROWS, COLUMNS), np.uint16), bits=12, syntax=uid.ExplicitVRLittleEndian)
    told = {
        "SpecificCharacterSet": "ISO_IR 100",
        "StudyInstanceUID": STUDY,
        "SeriesInstanceUID": f"{STUDY}.1",
        "SOPInstanceUID": f"{STUDY}.1.{number}",
        "PatientName": "Müller^Erika",
        "PatientBirthDate": "19600229",
        "PatientSex": "F",
        "StudyDate": "20240131",
        "StudyTime": "101500",
        "StudyID": "17",
        "AccessionNumber": "A123",
        "ContentDate": "20240131",
        "ContentTime": "101501.5",
        "ImageLaterality": "L",
        "ViewPosition": "CC",
        "PatientOrientation": ["A", "R"],
        "ImagerPixelSpacing": [0.5, 0.5],
        **attributes,
    }
    for keyword, value in told.items():
        setattr(dataset, keyword, value)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    path = folder / f"{name}.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("study")
    image(folder, "cc", 1)
    image(folder, "mlo", 2, ViewPosition="MLO", SeriesInstanceUID=f"{STUDY}.2")
    image(folder, "right", 3, ImageLaterality="R", ImagerPixelSpacing=[0.25, 0.25])
    image(folder, "other", 4, PatientID="W8", PatientName="Other", StudyInstanceUID=f"{STUDY}.9")
    return Study(folder, ImageCatalogue(folders=[folder], dataset="clinic"))


def report_of(document: Dataset) -> CadReport:
    report = read_cad_sr(document)
    assert report.problems == ()
    return report


def only(documents: list[Dataset]) -> CadReport:
    (document,) = documents
    return report_of(document)


def some_marks(study: Study) -> dict[str, list[Detection]]:
    """Return sets of marks by what is to be checked of them."""
    pair = [study.mark(name, detection_id=name, lesion_id="a", lesion_type="mass") for name in ("cc", "mlo")]
    kinds = [*TERMS["lesion_type"], "mass + calcification", "mass + asymmetry", None]
    return {
        "one": [study.mark()],
        "kinds": [study.mark(detection_id=f"a {kind}", lesion_type=kind) for kind in kinds],
        "bare": [study.mark(score=None, detector=None)],
        "outline": [study.mark(outline=((10.0, 20.0), (29.5, 20.5), (30.0, 45.0), (12.0, 44.0)))],
        "two views": pair,
        "two views of an asymmetry": [replace(one, lesion_type="asymmetry") for one in pair],
        "two views, of which one is a calcification": [pair[0], replace(pair[1], lesion_type="calcification")],
        "two places of one image": [pair[0], replace(pair[0], detection_id="b", x0=50, x1=60)],
        "two detectors": [study.mark(), study.mark("right", detector="B", detector_version="2")],
        "two studies": [study.mark(), study.mark("other")],
    }


@pytest.fixture(params=[*some_marks(Study(Path(), ImageCatalogue()))])
def marks(study: Study, request: pytest.FixtureRequest) -> list[Detection]:
    return some_marks(study)[request.param]


def test_documents_are_valid(study: Study, marks: list[Detection], tmp_path: Path) -> None:
    write_detections(tmp_path / "out", detections_frame(marks), "cad-sr")
    files = list((tmp_path / "out").iterdir())
    assert len(files) == len({one.patient_id for one in marks})
    for file in files:
        assert (errors := dciodvfy_errors(file)) == "", errors


def test_relationships_are_those_of_the_object(study: Study, marks: list[Detection], tmp_path: Path) -> None:
    """By dsrdump (DCMTK), which knows PS3.3 A.35.5.3.1.3."""
    if shutil.which("dsrdump") is None:
        pytest.skip("dsrdump (DCMTK) is not installed")
    write_detections(tmp_path / "out", detections_frame(marks), "cad-sr")
    for file in (tmp_path / "out").iterdir():
        said = subprocess.run(["dsrdump", str(file)], capture_output=True, text=True, errors="replace", timeout=60)
        output = said.stderr + said.stdout
        assert said.returncode == 0, output
        assert not any(line.startswith(("E:", "F:")) for line in output.splitlines()), output


def test_no_findings_are_written_only_of_what_was_looked_at(study: Study, tmp_path: Path) -> None:
    paths = tuple(study.folder / f"{name}.dcm" for name in ("cc", "other"))
    marked, empty = cad_reports([study.mark("mlo", lesion_type="mass")], Examined(paths))
    write_result(empty, tmp_path / "empty.dcm")
    assert (errors := dciodvfy_errors(tmp_path / "empty.dcm")) == "", errors
    report = report_of(empty)
    assert str(report.summary) == "All algorithms succeeded; without findings"
    assert (report.findings, report.patient_id, report.study_uid) == ((), "W8", f"{STUDY}.9")
    (performed,) = report.performed
    assert (performed.succeeded, performed.images) == (True, (f"{STUDY}.1.4",))
    assert performed.algorithm == Algorithm("finder", "unknown")
    report = report_of(marked)
    assert str(report.summary) == "All algorithms succeeded; with findings"
    assert [one.sop_uid for one in report.images] == [f"{STUDY}.1.1", f"{STUDY}.1.2"]
    assert [(str(one.kind), one.images) for one in report.performed] == [
        ("Mammography breast density", (f"{STUDY}.1.1", f"{STUDY}.1.2"))
    ]
    # What nobody says was looked at is not named.
    assert [one.sop_uid for one in only(cad_reports([study.mark("mlo")])).images] == [f"{STUDY}.1.2"]


def test_who_looked_can_be_said_where_nothing_was_found(study: Study) -> None:
    report = only(cad_reports([], Examined((study.folder / "cc.dcm",), "quiet", "3")))
    assert report.algorithms == (Algorithm("quiet", "3"),)
    assert str(report.detections_status) == "Succeeded"
    assert str(report.analyses_status) == "Not Attempted"
    unknown = only(cad_reports([], Examined((study.folder / "cc.dcm",))))
    assert unknown.algorithms == (Algorithm("unknown", "unknown"),)


def test_patient_study_and_request_are_the_images(study: Study) -> None:
    (document,) = cad_reports([study.mark(), study.mark("mlo")])
    assert (str(document.PatientName), document.PatientID, document.PatientSex) == ("Müller^Erika", "W7", "F")
    assert (document.StudyInstanceUID, document.StudyDate, document.AccessionNumber) == (STUDY, "20240131", "A123")
    assert document.ReferencedRequestSequence[0].AccessionNumber == "A123"
    assert document.ContentQualification == "RESEARCH"
    assert "RESEARCH USE" in document.SeriesDescription
    (evidence,) = document.CurrentRequestedProcedureEvidenceSequence
    series = [
        (one.SeriesInstanceUID, [image.ReferencedSOPInstanceUID for image in one.ReferencedSOPSequence])
        for one in evidence.ReferencedSeriesSequence
    ]
    assert series == [(f"{STUDY}.1", [f"{STUDY}.1.1"]), (f"{STUDY}.2", [f"{STUDY}.1.2"])]
    report = report_of(document)
    assert report.overall.text is not None
    assert report.overall.text.startswith("For research use only.")
    library = [(one.laterality, one.view, one.orientation, one.spacing_mm) for one in report.images]
    assert library == [("L", "CC", ("A", "R"), (0.5, 0.5)), ("L", "MLO", ("A", "R"), (0.5, 0.5))]


def test_view_modifiers_are_kept(tmp_path: Path, study: Study) -> None:
    view, modifiers = Dataset(), []
    for code in (codes.SCT.Magnification, codes.SCT.Nipple):  # the second is none
        modifiers.append(Dataset())
        modifiers[-1].CodeValue, modifiers[-1].CodingSchemeDesignator = code.value, "SCT"
        modifiers[-1].CodeMeaning = code.meaning
    view.CodeValue, view.CodingSchemeDesignator, view.CodeMeaning = "399162004", "SCT", "cranio-caudal"
    view.ViewModifierCodeSequence = modifiers
    path = image(tmp_path, "cc", 1, ViewCodeSequence=[view])
    report = only(cad_reports([replace(study.mark(), path=str(path))]))
    assert [str(one) for one in report.images[0].view_modifiers] == [codes.SCT.Magnification.meaning]


def test_what_the_header_does_not_say_the_detection_does(tmp_path: Path, study: Study) -> None:
    path = image(tmp_path, "cc", 1, ImageLaterality="", ViewPosition="", ImagerPixelSpacing=None)
    mark = replace(study.mark(), path=str(path))
    (bare,) = only(cad_reports([mark])).images
    assert (bare.laterality, bare.view, bare.spacing_mm) == (None, None, (None, None))
    (told,) = only(cad_reports([replace(mark, laterality="R", view="XCCL", spacing_mm=0.1)])).images
    assert (told.laterality, told.view, told.spacing_mm) == ("R", "XCCL", (0.1, 0.1))


def test_a_document_says_the_same_under_the_same_uid_whenever_it_is_made(study: Study) -> None:
    def made(*marks: Detection, root: str = "2.25", day: int = 1) -> Dataset:
        (document,) = cad_reports(marks, options=ResultOptions(root, created=datetime(2024, 1, day)))
        return document

    first, later = made(study.mark()), made(study.mark(), day=2)
    assert first.SOPInstanceUID == later.SOPInstanceUID
    assert (first.ContentDate, later.ContentDate) == ("20240101", "20240102")
    assert first.to_json() == made(study.mark()).to_json()
    assert first.SeriesInstanceUID == made(study.mark(score=0.6)).SeriesInstanceUID
    others = [made(study.mark(score=0.6)), made(study.mark(x1=31)), made(study.mark(), root="1.2.3")]
    assert len({str(one.SOPInstanceUID) for one in (first, *others)}) == 4
    assert others[-1].SOPInstanceUID.startswith("1.2.3.")


KEPT = ("path", "dataset", "patient_id", "x0", "y0", "x1", "y1", "outline", "score", "detector", "detector_version")


def test_marks_are_read_as_they_were_written(study: Study, marks: list[Detection], tmp_path: Path) -> None:
    write_detections(tmp_path / "out", detections_frame(marks), "cad-sr")
    found = study.read(tmp_path / "out")
    for name in KEPT:
        assert Counter(getattr(one, name) for one in found) == Counter(getattr(one, name) for one in marks), name
    lesions = Counter(one.lesion_id for one in found if one.lesion_id is not None)
    assert sorted(lesions.values()) == sorted(Counter(one.lesion_id for one in marks if one.lesion_id).values())


def test_lesion_types_are_kept(study: Study, tmp_path: Path) -> None:
    marks = some_marks(study)["kinds"]
    write_detections(tmp_path / "out", detections_frame(marks), "cad-sr")
    found = [one.lesion_type for one in study.read(tmp_path / "out")]
    assert found[:5] == [one.lesion_type for one in marks][:5]
    assert found[5:] == ["mass", None]  # of several types without a common code the first; nobody said


def test_codes_are_those_that_the_standard_has_for_them(study: Study) -> None:
    report = only(cad_reports(some_marks(study)["kinds"]))
    single = {Concept.of(code.value, code.scheme_designator) for code in codes.cid6014.concepts.values()}
    both = single | {Concept.of(code.value, code.scheme_designator) for code in codes.cid6016.concepts.values()}
    kinds = [finding.kind for finding in report.findings]
    assert [kind in single for kind in kinds] == [True, True, True, False, False, True, False]
    assert [kind in both for kind in kinds] == [True] * 6 + [False]
    assert kinds[-1].scheme == "99MAMMOSEEK"
    report = only(cad_reports(some_marks(study)["two views"]))
    (feature,) = report.composites
    assert str(feature.kind) == "Mammographic breast mass"
    assert [str(one.kind) for one in report.findings] == ["Mammography breast density"] * 2
    assert str(feature.scope) == "Feature detected on multiple images"
    assert [str(one.kind) for one in report.performed][-1] == "Spatial collocation analysis"
    assert all(one.intent == "required" for one in (feature, *report.findings, *report.impressions))


@pytest.mark.parametrize(
    ("lesion_types", "feature"),
    [
        (("mass", "mass"), "Mammographic breast mass"),
        (("asymmetry", "asymmetry"), "Asymmetric breast tissue"),
        (("mass", "calcification"), "Finding of unspecified type"),
        (("mass", None), "Finding of unspecified type"),
        ((None, None), "Finding of unspecified type"),
        (("mass + calcification", "asymmetry"), "Finding of unspecified type"),
    ],
)
def test_views_of_a_lesion_keep_their_own_types(
    study: Study, tmp_path: Path, lesion_types: tuple[str | None, str | None], feature: str
) -> None:
    marks = [
        study.mark(name, lesion_id="a", lesion_type=kind)
        for name, kind in zip(("cc", "mlo"), lesion_types, strict=True)
    ]
    write_detections(tmp_path / "out", detections_frame(marks), "cad-sr")
    found = study.read(tmp_path / "out")
    assert tuple(one.lesion_type for one in found) == lesion_types
    assert found[0].lesion_id == found[1].lesion_id is not None
    assert str(only(cad_reports(marks)).composites[0].kind) == feature


def test_views_of_an_asymmetry_on_an_unknown_side_are_not_taken_for_one_lesion(study: Study, tmp_path: Path) -> None:
    paths = [image(tmp_path, name, number, ImageLaterality="") for number, name in enumerate(("cc", "mlo"), 1)]
    marks = [
        study.mark(lesion_id="a", lesion_type="asymmetry", path=str(path), detection_id=path.stem) for path in paths
    ]
    write_detections(tmp_path / "out", detections_frame(marks), "cad-sr")
    reading = read_detections(tmp_path / "out", ImageCatalogue(folders=[tmp_path]), "cad-sr")
    assert [one.lesion_id for one in reading.detections] == [None, None]


names = st.none() | st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=20).filter(
    lambda text: text != "unknown" and clean_text(text, "name") == text and not {"\ufffe", "\uffff"} & set(text)
)


@st.composite
def drawn_marks(draw: st.DrawFn, study: Study) -> list[Detection]:
    found = []
    for number in range(draw(st.integers(1, 5))):
        x0, y0 = draw(st.integers(0, COLUMNS - 1)), draw(st.integers(0, ROWS - 1))
        x1, y1 = draw(st.integers(x0 + 1, COLUMNS)), draw(st.integers(y0 + 1, ROWS))
        outline = None
        if draw(st.booleans()):
            inner = draw(st.lists(st.tuples(st.floats(x0, x1, width=32), st.floats(y0, y1, width=32)), max_size=4))
            outline = ((float(x0), float(y0)), (float(x1), y0 + 0.5), *inner, (x0 + 0.5, float(y1)))
        kinds = [*TERMS["lesion_type"], TERM_SEPARATOR.join(TERMS["lesion_type"][:2]), None]
        found.append(
            study.mark(
                draw(st.sampled_from(["cc", "mlo", "right", "other"])),
                detection_id=str(number),
                **dict(zip(("x0", "y0", "x1", "y1"), (x0, y0, x1, y1), strict=True)),
                outline=outline,
                score=draw(st.none() | st.floats(0, 1) | st.integers(0, 10**6).map(lambda part: part / 10**6)),
                lesion_type=draw(st.sampled_from(kinds)),
                lesion_id=draw(st.sampled_from([None, None, "a", "b"])),
                detector=draw(names),
                detector_version=draw(names),
            )
        )
    return found


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_round_trip_gives_the_same_detections(
    data: st.DataObject, study: Study, tmp_path_factory: pytest.TempPathFactory
) -> None:
    marks = data.draw(drawn_marks(study))
    folder = tmp_path_factory.mktemp("round")
    write_detections(folder / "out", detections_frame(marks), "cad-sr")
    found = study.read(folder / "out")
    told = [name for name in KEPT if name != "score"] + ["lesion_type"]

    def key(one: Detection) -> str:
        return str([getattr(one, name) for name in told]) + f"{one.score}"[:14]

    wanted, found = sorted(marks, key=key), tuple(sorted(found, key=key))
    assert [[getattr(one, name) for name in told] for one in found] == [
        [getattr(one, name) for name in told] for one in wanted
    ]
    for one, other in zip(wanted, found, strict=True):
        assert (one.score is None) == (other.score is None)
        if one.score is not None and other.score is not None:
            assert abs(one.score - other.score) <= math.ulp(one.score)
    for (one, first), (two, second) in itertools.combinations(zip(wanted, found, strict=True), 2):
        in_one = one.lesion_id is not None and one.lesion_id == two.lesion_id and one.patient_id == two.patient_id
        if (one.lesion_type, two.lesion_type) != ("asymmetry", "asymmetry"):  # see the tests of these
            assert (first.lesion_id is not None and first.lesion_id == second.lesion_id) == in_one


@pytest.mark.parametrize("digits", [2, 6, 15])
def test_a_score_of_up_to_fifteen_digits_is_the_same_to_the_last_bit(digits: int) -> None:
    parts = np.random.default_rng(0).integers(0, 10**digits, 2000, endpoint=True).tolist()
    scores = [float(f"{part / 10**digits:.{digits}f}") for part in parts]
    assert [float(Decimal(repr(as_percent(score))) / 100) for score in scores] == scores


def outline(*corners: tuple[float, float]) -> tuple[tuple[float, float], ...]:
    return corners


@pytest.mark.parametrize(
    ("drawn", "kept"),
    [
        (outline((10, 20), (30, 20), (30, 45)), True),
        (outline((10, 20), (30, 20), (30, 45), (10, 20)), True),  # closed
        (outline((9.995, 20), (30.009, 20), (30, 45)), True),  # a box is rounded
        (outline((10.4, 20.4), (29.2, 21), (29.5, 44.1)), True),
        (outline((12, 22), (28, 22), (28, 40)), False),  # the box is another one
        (outline((5, 20), (30, 20), (30, 45)), False),
        (outline((10, 20), (30, 45)), False),  # a line
        (outline(*[(10 + 20 * (n % 2), 20 + 25 * n / 9000) for n in range(9001)]), False),  # too many corners
    ],
)
def test_the_box_is_kept_and_the_outline_where_it_fits(
    study: Study, drawn: tuple[tuple[float, float], ...], kept: bool
) -> None:
    header = pydicom.dcmread(study.folder / "cc.dcm", stop_before_pixels=True)
    line = line_around(study.mark(outline=drawn), header)
    assert line.dtype == np.float32
    assert (line[0] == line[-1]).all()
    low, high = np.floor(line.min(axis=0)), np.ceil(line.max(axis=0))
    assert (*low.tolist(), *high.tolist()) == (10, 20, 30, 45)
    assert (len(line) - 1 == len(dict.fromkeys(drawn)) and len(line) != 5) == kept


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"x0": None}, "has no box, and a CAD report needs a place; write csv or json"),
        ({"x1": COLUMNS + 1}, "does not lie on its image of 100 × 80 pixels"),
        ({"x0": -1}, "does not lie on its image"),
        ({"x1": 10}, "does not lie on its image"),
        ({"score": 1.2}, "score 1.2 is not in 0 to 1"),
        ({"score": math.nan}, "score nan is not in 0 to 1"),
        ({"sop_uid": "1.2.3"}, "lies on 1.2.3"),
        ({"laterality": "R"}, "it shows the breast L, and the detection 'cc' lies in R"),
        ({"patient_id": "W9"}, "its detections name several women: 'W7' and 'W9'"),
        ({"frame_number": 2}, "it has 1 frames, and the detection 'cc' names 2"),
        ({"path": "/nowhere/a.dcm"}, "can't be read .No such file"),
    ],
)
def test_what_can_not_be_written_is_one_clear_error(study: Study, change: dict[str, object], reason: str) -> None:
    with pytest.raises(ExchangeError, match=reason):
        cad_reports([study.mark("right"), replace(study.mark(), **change)])  # type: ignore[arg-type]


def test_pictures_and_damaged_files_are_refused_with_what_to_do(study: Study, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG" + bytes(300))
    with pytest.raises(ExchangeError, match=r"is no DICOM file.*write csv, json or coco"):
        cad_reports([study.mark(path=str(tmp_path / "a.png"))])
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        path = image(tmp_path, "a", 1)
        dataset = pydicom.dcmread(path)
        delattr(dataset, keyword)
        dataset.save_as(path)
        with pytest.raises(ExchangeError, match=f"it must have a {keyword}, and has none"):
            cad_reports([study.mark(path=str(path))])
    with pytest.raises(ExchangeError, match="no detection, and no image that was looked at"):
        cad_reports([])
    with pytest.raises(ExchangeError, match="can't be read"):
        cad_reports([], Examined((tmp_path,)))


def test_two_women_in_one_study_are_refused(study: Study, tmp_path: Path) -> None:
    unnamed = [image(tmp_path, name, number, PatientID="") for number, name in enumerate("ab")]
    marks = [study.mark(path=str(path), patient_id=path.stem, detection_id=path.stem) for path in unnamed]
    with pytest.raises(ExchangeError, match="its detections name several women: 'a' and 'b'"):
        cad_reports(marks)
    path = image(tmp_path, "c", 5, PatientID="W9")
    with pytest.raises(ExchangeError, match="its images name several patients"):
        cad_reports([study.mark()], Examined((path,)))


def test_more_findings_than_readers_take_are_refused_and_the_most_are_read(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cadwriting, "MOST_FINDINGS", 100)
    marks = [study.mark(detection_id=str(number), lesion_id=f"{number // 2}") for number in range(100)]
    with pytest.raises(ExchangeError, match="has 101 detections: 100 are the most"):
        cad_reports([*marks, study.mark()])
    (document,) = cad_reports(marks)
    write_result(document, tmp_path / "a.dcm")
    assert len(read_cad_sr(tmp_path / "a.dcm").findings) == 100
    # 4,000 stay below the readers' limits.
    assert 4000 / 100 * (tmp_path / "a.dcm").read_bytes().count(b"\xfe\xff\x00\xe0") < 150_000
    assert 4000 / 100 * sum(1 for _ in _items(document)) < 60_000


def _items(item: Dataset) -> list[Dataset]:
    return [item, *(below for child in item.get("ContentSequence", []) for below in _items(child))]


def test_frames_are_named_where_there_are_several(
    study: Study, write_dicom: Callable[..., Path], tmp_path: Path
) -> None:
    path = write_dicom(
        np.zeros((3, ROWS, COLUMNS), np.uint16), SOPClassUID="1.2.840.10008.5.1.4.1.1.13.1.3", StudyInstanceUID=STUDY
    )
    mark = study.mark(path=str(path), frame_number=2)
    (document,) = cad_reports([mark, replace(mark, frame_number=3), mark])
    write_result(document, tmp_path / "report.dcm")
    assert (errors := dciodvfy_errors(tmp_path / "report.dcm")) == "", errors
    report = report_of(document)
    assert [one.places[0].frames for one in report.findings] == [(2,), (3,), (2,)]
    assert len(report.images) == 2
    with pytest.raises(ExchangeError, match="it has 3 frames, and the detection 'cc' names none"):
        cad_reports([replace(mark, frame_number=None)])


def test_a_document_is_of_its_folder_alone(study: Study, tmp_path: Path) -> None:
    frame = detections_frame([study.mark()])
    (tmp_path / "out").mkdir()
    assert write_detections(tmp_path / "out", frame, "cad-sr") == [tmp_path / "out"]
    with pytest.raises(ExchangeError, match="is there already"):
        write_detections(tmp_path / "out", frame, "cad-sr")
    with pytest.raises(ExchangeError, match="can't say what was looked at"):
        write_detections(tmp_path / "a.csv", frame, "csv", examined=Examined())
    assert [one.name for one in tmp_path.iterdir()] == ["out"]


def test_another_woman_than_the_images_is_refused(study: Study) -> None:
    with pytest.raises(ExchangeError, match="it is of the patient 'W7', and the findings are of 'W9'"):
        cad_reports([study.mark(patient_id="W9")])
