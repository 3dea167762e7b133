"""Mammography CAD SR: what the documents were built to say is what is read, and nothing else is taken for a report."""

import itertools
import math
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pydicom.uid as uid
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from exchange import ExchangeError, cadcodes
from exchange.caddetections import CadConfig, cad_detections
from exchange.cadreport import Algorithm, CadReport
from exchange.cadsr import read_cad_sr
from exchange.contentitems import Concept
from tests.exchange import caddocuments
from tests.exchange.caddocuments import (
    CC,
    CLUSTER,
    DOCUMENTS,
    MLO,
    ONE_MASS,
    RIGHT,
    Builder,
    CadDocument,
    Feature,
    Mark,
    Node,
)
from tests.exchange.test_caddetections import IMAGES


def read(document: CadDocument) -> CadReport:
    return read_cad_sr(caddocuments.build(document))


@pytest.mark.parametrize("scheme", ["SCT", "SRT"])
@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_documents_of_these_tests_are_valid(tmp_path: Path, name: str, scheme: str) -> None:
    """By dciodvfy (dicom3tools) for the object, and by dsrdump (DCMTK) for the relationships of PS3.3 A.35.5.3."""
    path = tmp_path / "report.dcm"
    caddocuments.build(replace(DOCUMENTS[name], scheme=scheme)).save_as(path, enforce_file_format=True)
    tools = [tool for tool in ("dciodvfy", "dsrdump") if shutil.which(tool)]
    if not tools:
        pytest.skip("neither dciodvfy (dicom3tools) nor dsrdump (DCMTK) is installed")
    for tool in tools:
        said = subprocess.run([tool, str(path)], capture_output=True, text=True, timeout=60)
        output = said.stderr + said.stdout
        assert said.returncode == 0, output
        assert not any(line.startswith(("Error", "E:", "F:")) for line in output.splitlines()), output


@pytest.mark.parametrize("name", DOCUMENTS)
def test_both_code_schemes_say_the_same(name: str) -> None:
    assert read(replace(DOCUMENTS[name], scheme="SRT")) == read(DOCUMENTS[name])


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_valid_document_leaves_no_problem(name: str) -> None:
    assert read(DOCUMENTS[name]).problems == ()


def test_who_the_report_is_of_and_what_made_it_is_read() -> None:
    report = read(DOCUMENTS["one mass"])
    assert (report.patient_id, report.sop_uid) == ("W7", caddocuments.REPORT_UID)
    assert (report.study_uid, report.series_uid) == (caddocuments.STUDY_UID, caddocuments.STUDY_UID + ".1")
    assert (report.manufacturer, report.model, report.software) == ("mammoseek tests", "builder", ("1.0",))
    assert report.algorithms == (Algorithm("mass finder", "2.1"),)


def test_the_image_library_is_read() -> None:
    prior = replace(MLO, uid="1.2.3.9", study="1.2.8", spacing=None)
    report = read(CadDocument((ONE_MASS,), images=(CC, MLO, RIGHT, prior)))
    assert [(one.sop_uid, one.laterality, one.view, one.study_uid) for one in report.images] == [
        ("1.2.3.1", "L", "CC", caddocuments.STUDY_UID),
        ("1.2.3.2", "L", "MLO", caddocuments.STUDY_UID),
        ("1.2.3.3", "R", "CC", caddocuments.STUDY_UID),
        ("1.2.3.9", "L", "MLO", "1.2.8"),
    ]
    assert report.images[0].orientation == ("A", "F")
    assert [one.square_spacing_mm for one in report.images] == [0.1, 0.1, 0.1, None]


def test_a_finding_is_read_with_its_place_and_how_sure_it_is() -> None:
    report = read(CadDocument((replace(ONE_MASS, area=12.5),)))
    (finding,) = report.findings
    assert finding.kind == Concept("129793001", "SCT")
    assert str(finding.kind) == "Mammography breast density"
    assert (finding.intent, finding.probability, finding.certainty) == ("required", 0.87, 0.93)
    assert finding.algorithm == Algorithm("mass finder", "2.1")
    assert finding.area_mm2 == 12.5
    (place,) = finding.places
    assert (place.image, place.frames) == ("1.2.3.1", ())
    assert place.centre == ("POINT", ((50.0, 40.0),))
    assert place.outline == ("POLYLINE", ((40.0, 30.0), (60.0, 30.0), (60.0, 52.0), (40.0, 30.0)))
    assert report.impressions[0].intent == "required"


def test_percent_are_divided_as_decimals() -> None:
    for percent in (7, 28.9, 56.99, 0.1, 99.999999):
        (finding,) = read(CadDocument((replace(ONE_MASS, probability=percent),))).findings
        assert finding.probability == float(f"{percent / 100:.12g}")


def items_of(item: Dataset) -> list[Dataset]:
    return [item, *(below for child in item.get("ContentSequence", []) for below in items_of(child))]


@pytest.mark.parametrize(
    ("text", "binary", "score"),
    [
        ("33.3333333333333", 100 / 3, 1 / 3),
        ("33.3", 50.0, 0.333),  # another number: what everybody else reads counts
        ("33.3", math.nan, 0.333),
    ],
)
def test_a_number_has_the_digits_of_its_binary_form(text: str, binary: float, score: float) -> None:
    dataset = caddocuments.build(CadDocument((replace(ONE_MASS, certainty=text),)))
    for item in items_of(dataset):
        if "MeasuredValueSequence" in item and item.MeasuredValueSequence[0].NumericValue == float(text):
            item.MeasuredValueSequence[0].FloatingPointValue = binary
    assert read_cad_sr(dataset).findings[0].certainty == pytest.approx(score, rel=1e-16)


def test_an_image_by_value_is_the_same_as_one_by_reference() -> None:
    assert read(DOCUMENTS["images by value"]).findings == read(DOCUMENTS["one mass"]).findings


def test_a_cluster_knows_its_calcifications() -> None:
    cluster, *specks = read(DOCUMENTS["a cluster with its calcifications"]).findings
    assert cluster.kind == Concept("129769006", "SCT")
    assert list(cluster.parts) == [speck.item for speck in specks]
    assert [str(speck.kind) for speck in specks] == ["Individual Calcification"] * 3
    assert (Concept("111038", "DCM"), 3.0) in cluster.descriptors


@pytest.mark.parametrize("name", ["one mass in CC and MLO", "two masses, then by reference one feature"])
def test_a_composite_feature_knows_its_findings_by_value_and_by_reference(name: str) -> None:
    report = read(DOCUMENTS[name])
    (feature,) = report.composites
    assert feature.parts == tuple(finding.item for finding in report.findings)
    assert [finding.places[0].image for finding in report.findings] == ["1.2.3.1", "1.2.3.2"]
    assert str(feature.relation) == "Target Content Items are related spatially"
    assert str(feature.scope) == "Feature detected on multiple images"
    assert (feature.probability, feature.certainty) in [(0.75, None), (None, 0.66)]


def test_no_findings_and_no_success_are_told_apart() -> None:
    none, failed, partly = (
        read(DOCUMENTS[name]) for name in ("no findings", "all algorithms failed", "a failed algorithm")
    )
    assert (none.findings, none.failed) == ((), ())
    assert str(none.summary) == "All algorithms succeeded; without findings"
    assert (failed.summary == cadcodes.NONE_SUCCEEDED, none.summary == cadcodes.NONE_SUCCEEDED) == (True, False)
    assert [str(one.kind) for one in failed.failed] == ["Calcification Cluster"]
    assert str(failed.detections_status) == "Failed"
    assert failed.failed[0].images == ("1.2.3.1", "1.2.3.2", "1.2.3.3")
    assert str(partly.detections_status) == "Partially Succeeded"
    assert [str(one.kind) for one in partly.failed] == ["Calcification Cluster"]
    assert [one.succeeded for one in partly.performed] == [True, False]
    assert [str(one.kind) for one in read(DOCUMENTS["an analysis"]).performed][-1] == "Temporal correlation"


@pytest.mark.parametrize(
    ("impression", "own", "least"),
    [
        ("PresentationRequired", "PresentationRequired", "required"),
        ("PresentationRequired", "NotForPresentation", "not for presentation"),
        ("PresentationOptional", "PresentationRequired", "optional"),
        ("NotForPresentation", None, "not for presentation"),
        ("PresentationOptional", None, "optional"),
    ],
)
def test_a_finding_is_shown_no_more_than_what_it_lies_in(impression: str, own: str | None, least: str) -> None:
    report = read(CadDocument((replace(ONE_MASS, intent=own),), impression_intent=impression))
    assert report.findings[0].intent == least


@pytest.mark.parametrize(
    ("probability", "unit", "read_as", "problem"),
    [
        ("87.5", "Percent", 0.875, None),
        ("0.25", "NoUnits", 0.25, None),
        ("0", "Percent", 0.0, None),
        ("100", "Percent", 1.0, None),
        ("101", "Percent", None, "101, not in 0 to 100"),
        ("-1", "Percent", None, "-1, not in 0 to 100"),
        ("87", "NoUnits", None, "87, not in 0 to 1"),
        ("", "Percent", None, "no number"),
    ],
)
def test_percents_become_fractions_and_nonsense_unknown(
    probability: str, unit: str, read_as: float | None, problem: str | None
) -> None:
    report = read(CadDocument((replace(ONE_MASS, probability=probability, unit=unit, certainty=None),)))
    assert report.findings[0].probability == read_as
    assert [problem in one.message for one in report.problems if problem] == ([True] if problem else [])
    assert len(report.problems) == bool(problem)


def test_a_text_where_a_number_is_meant_is_unknown_and_told() -> None:
    dataset = caddocuments.build(DOCUMENTS["one mass"])
    for element in dataset.iterall():
        if element.keyword == "NumericValue":
            element.VR, element.value = "LO", "very likely"
    report = read_cad_sr(dataset)
    assert report.findings[0].probability is None
    assert [one.message for one in report.problems] == [
        "item 1.3.1.2.4: its Certainty of Finding is no number: taken as unknown",
        "item 1.3.1.2.5: its Probability of cancer is no number: taken as unknown",
    ]


def test_a_summary_that_promises_findings_where_there_are_none_is_told() -> None:
    (problem,) = read(CadDocument()).problems
    assert "All algorithms succeeded; with findings" in problem.message


def test_a_reference_to_nothing_is_told_and_the_rest_is_read() -> None:
    builder = Builder(CadDocument((Feature((ONE_MASS,)),)))
    root = builder.tree()
    feature = root.children[2].children[0].children[1]
    feature.children.append(Node("INFERRED FROM", None, target=Node(None, None, place=(1, 99))))
    report = read_cad_sr(caddocuments.build(CadDocument((ONE_MASS,)), root))
    assert len(report.composites[0].parts) == 1
    (problem,) = report.problems
    assert "refers to an item that is not in the document" in problem.message


def test_features_that_refer_to_each_other_in_a_circle_are_read_and_end() -> None:
    first = Feature((ONE_MASS,))
    second = Feature((first,), by_reference=True)
    builder = Builder(CadDocument((first, second)))
    root = builder.tree()
    # The first refers to the second, and to itself.
    for target in (builder.nodes[id(second)], builder.nodes[id(first)]):
        builder.nodes[id(first)].children.append(Node("INFERRED FROM", None, target=target))
    report = read_cad_sr(caddocuments.build(CadDocument((first, second)), root))
    assert [len(feature.parts) for feature in report.composites] == [2, 1]


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"SOPClassUID": uid.ChestCADSRStorage}, "it is no Mammography CAD SR but Chest CAD SR Storage"),
        ({"SOPClassUID": uid.ComprehensiveSRStorage}, "it is no Mammography CAD SR but Comprehensive SR Storage"),
        ({"SOPClassUID": None}, "an object of no class"),
        ({"SOPInstanceUID": None}, "it has no SOP Instance UID"),
        ({"ConceptNameCodeSequence": [caddocuments.code_item("ChestCADReport")]}, "but: Chest CAD Report"),
        ({"ConceptNameCodeSequence": None}, "but: untitled"),
        ({"ContentSequence": None}, "no CAD Processing and Findings Summary"),
        ({"ContentSequence": []}, "no CAD Processing and Findings Summary"),
    ],
)
def test_another_document_is_refused(change: dict[str, Any], cause: str) -> None:
    dataset = caddocuments.build(DOCUMENTS["one mass"])
    for keyword, value in change.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    with pytest.raises(ExchangeError, match=cause):
        read_cad_sr(dataset)


def test_another_template_is_refused() -> None:
    dataset = caddocuments.build(DOCUMENTS["one mass"])
    dataset.ContentTemplateSequence[0].TemplateIdentifier = "1500"
    with pytest.raises(ExchangeError, match="its template is 1500"):
        read_cad_sr(dataset)


def test_a_mammogram_is_refused(cbis_dicom: list[Path]) -> None:
    with pytest.raises(ExchangeError):
        read_cad_sr(cbis_dicom[0])


def test_the_codes_of_this_reader_are_those_of_the_standard() -> None:
    """The context groups as pydicom's dictionary has them; what is no lesion is told apart from what is."""
    single = {Concept.of(one.value, one.scheme_designator) for one in codes.cid6014.concepts.values()}
    composite = {Concept.of(one.value, one.scheme_designator) for one in codes.cid6016.concepts.values()}
    assert single - composite == set()
    retired = {Concept(value, "DCM") for value in ("111103", "111104", "111105")}
    assert set(cadcodes.LESION_TYPES) | cadcodes.NO_LESIONS <= composite | retired
    assert not set(cadcodes.LESION_TYPES) & cadcodes.NO_LESIONS
    intents = {Concept.of(one.value, one.scheme_designator) for one in codes.cid6034.concepts.values()}
    assert intents == set(cadcodes.INTENTS)
    summaries = {Concept.of(one.value, one.scheme_designator) for one in codes.cid6047.concepts.values()}
    assert {*cadcodes.WITH_FINDINGS, cadcodes.NONE_SUCCEEDED} <= summaries
    for code in codes.cid6047.concepts.values():
        with_findings = "with findings" in code.meaning
        assert (Concept.of(code.value, code.scheme_designator) in cadcodes.WITH_FINDINGS) == with_findings
    assert cadcodes.CONTRALATERAL in {Concept.of(one.value, "DCM") for one in codes.cid6035.concepts.values()}


NAMES = [cadcodes.SUMMARY, cadcodes.IMPRESSION, cadcodes.RENDERING_INTENT, cadcodes.COMPOSITE_FEATURE]
NAMES += [cadcodes.SINGLE_IMAGE_FINDING, cadcodes.CENTRE, cadcodes.OUTLINE, cadcodes.CANCER_PROBABILITY]
NAMES += [cadcodes.IMAGE_LIBRARY, cadcodes.DETECTIONS_SUMMARY, cadcodes.FAILED[0], cadcodes.PERFORMED[0]]
CODES = [*cadcodes.LESION_TYPES, *cadcodes.INTENTS, cadcodes.WITH_FINDINGS[0], cadcodes.CONTRALATERAL]


def coded(concept: Concept) -> list[Dataset]:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = concept.value, concept.scheme, concept.meaning[:64]
    return [item]


@st.composite
def nodes(draw: st.DrawFn, depth: int = 0) -> Dataset:
    """Return a content item with anything in it."""
    item = Dataset()
    kind = draw(st.sampled_from(["CONTAINER", "CODE", "CODE", "NUM", "SCOORD", "IMAGE", "TEXT", None, "ODD"]))
    relations = ["CONTAINS", "INFERRED FROM", "SELECTED FROM", "HAS PROPERTIES", "HAS CONCEPT MOD"]
    item.RelationshipType = draw(st.sampled_from(relations))
    if kind is None:
        item.ReferencedContentItemIdentifier = draw(st.lists(st.integers(0, 4), min_size=1, max_size=5))
        return item
    item.ValueType = kind
    if draw(st.booleans()) or depth == 0:
        item.ConceptNameCodeSequence = coded(draw(st.sampled_from(NAMES)))
    if kind == "CODE":
        item.ConceptCodeSequence = draw(st.one_of(st.just([]), st.sampled_from(CODES).map(coded)))
    elif kind == "NUM":
        measured = Dataset()
        measured.add_new("NumericValue", "LO", draw(st.sampled_from(["50", "x", "", "1e400", "nan", "\0"])))
        item.MeasuredValueSequence = [measured]
    elif kind == "SCOORD":
        item.GraphicType = draw(st.sampled_from(["POINT", "POLYLINE", "CIRCLE", "ELLIPSE", "ODD", ""]))
        values = st.one_of(st.floats(-9, 120, width=32), st.sampled_from([math.nan, math.inf, 3e38]))
        item.GraphicData = draw(st.lists(values, max_size=9))
    elif kind == "IMAGE":
        image = Dataset()
        image.ReferencedSOPInstanceUID = draw(st.sampled_from(["1.2.3.1", "1.2.3.2", "9"]))
        image.ReferencedFrameNumber = draw(st.lists(st.integers(-3, 3), max_size=2))
        item.ReferencedSOPSequence = [image]
    if depth < 5:
        item.ContentSequence = draw(st.lists(nodes(depth=depth + 1), max_size=3))
    return item


@settings(deadline=None, max_examples=50)
@given(children=st.lists(nodes(), max_size=4))
def test_any_content_is_read_or_refused_and_gives_detections_or_problems(children: list[Dataset]) -> None:
    dataset = caddocuments.build(DOCUMENTS["no findings"])
    dataset.ContentSequence = [*dataset.ContentSequence[:1], *children, *dataset.ContentSequence[1:]]
    try:
        report = read_cad_sr(dataset)
    except ExchangeError:
        return
    detections, problems = cad_detections(report, IMAGES, CadConfig(presentation="all"))
    assert len({one.detection_id for one in detections}) == len(detections)
    assert all(isinstance(part, str) for problem in problems for part in problem)
    for one in detections:
        assert one.x0 is not None
        assert one.x1 is not None
        assert 0 <= one.x0 < one.x1 <= 100
        assert one.score is None or 0 <= one.score <= 1


def test_many_features_that_refer_to_one_another_take_no_more_than_their_number() -> None:
    """A chain of references, each feature to the one after it, must not be walked anew for each of them."""
    document = CadDocument(tuple(Feature((), intent="PresentationRequired") for _ in range(500)))
    builder = Builder(document)
    root = builder.tree()
    features = [impression.children[1] for impression in root.children[2].children]
    for one, after in itertools.pairwise(features):
        one.children.append(Node("INFERRED FROM", None, target=after))
    report = read_cad_sr(caddocuments.build(document, root))
    started = time.process_time()
    _, problems = cad_detections(report, {})
    assert time.process_time() - started < 0.5
    assert len(problems) == 1  # the last of the chain has nothing to show


def test_a_mark_of_the_right_breast_and_a_cluster_in_one_report_keep_apart() -> None:
    report = read(CadDocument((CLUSTER, Mark(RIGHT), ONE_MASS)))
    assert [
        finding.places[0].image for finding in report.findings if str(finding.kind) != "Individual Calcification"
    ] == [
        "1.2.3.1",
        "1.2.3.3",
        "1.2.3.1",
    ]
