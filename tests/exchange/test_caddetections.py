"""From a CAD report to detections: which findings, which box, which score, which woman."""

from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import pytest

from exchange import ExchangeError
from exchange.caddetections import CadConfig, cad_detections
from exchange.cadreport import Problem
from exchange.cadsr import read_cad_sr
from exchange.detections import Detection, detections_frame
from tests.exchange import caddocuments
from tests.exchange.caddocuments import (
    BOTH_VIEWS,
    CC,
    CLUSTER,
    IN_MLO,
    MLO,
    ONE_MASS,
    RIGHT,
    SPECKS,
    Builder,
    CadDocument,
    Feature,
    Mark,
    Node,
    Shown,
)


@dataclass(frozen=True)
class Image:
    path: str | Path
    dataset: str = "clinic"
    patient_id: str | None = "W7"
    rows: int = 80
    columns: int = 100
    spacing_mm: float | None = 0.5
    laterality: str | None = "L"
    view: str | None = "CC"


IMAGES = {
    "1.2.3.1": Image("cc.dcm"),
    "1.2.3.2": Image("mlo.dcm", view="MLO"),
    "1.2.3.3": Image("right.dcm", laterality="R"),
}


def detect(
    *found: Mark | Feature,
    images: dict[str, Image] | None = None,
    config: CadConfig | None = None,
    library: tuple[Shown, ...] = (CC, MLO, RIGHT),
    patient: str | None = "W7",
) -> tuple[list[Detection], list[Problem]]:
    report = read_cad_sr(caddocuments.build(CadDocument(tuple(found), images=library, patient=patient)))
    return cad_detections(report, IMAGES if images is None else images, config)


def box(detection: Detection) -> tuple[int | None, ...]:
    return detection.x0, detection.y0, detection.x1, detection.y1


def test_a_finding_becomes_a_detection_with_all_that_is_known_of_it() -> None:
    (found,), problems = detect(ONE_MASS)
    assert problems == []
    assert found == Detection(
        detection_id=f"{caddocuments.REPORT_UID}#1.3.1.2",
        path="cc.dcm",
        dataset="clinic",
        patient_id="W7",
        x0=40,
        y0=30,
        x1=60,
        y1=52,
        outline=((40.0, 30.0), (60.0, 30.0), (60.0, 52.0)),
        score=0.87,
        lesion_type="mass",
        native_label="Mammography breast density",
        detector="mass finder",
        detector_version="2.1",
        sop_uid="1.2.3.1",
        study_id=caddocuments.STUDY_UID,
        laterality="L",
        view="CC",
        spacing_mm=0.5,
        image_rows=80,
        image_columns=100,
    )


def test_detections_make_a_table_that_is_a_manifest() -> None:
    detections, _ = detect(ONE_MASS, CLUSTER, BOTH_VIEWS)
    frame = detections_frame(detections)
    assert len(frame) == 4
    assert frame["row_id"].is_unique
    assert list(frame["lesion_type"]) == ["mass", "calcification", "mass", "mass"]
    assert isinstance(frame, pd.DataFrame)


def test_a_centre_without_an_outline_gets_a_square_of_the_stated_millimetres() -> None:
    mark = replace(ONE_MASS, outline=None)
    (found,), _ = detect(mark)
    assert box(found) == (40, 30, 60, 50)  # 10 mm at 0.5 mm a pixel
    assert found.outline is None
    assert found.note == "the box is a square of a set size around its centre"
    (smaller,), _ = detect(mark, config=CadConfig(centre_mm=5))
    assert box(smaller) == (45, 35, 55, 45)


def test_the_pixel_size_is_the_images_own_else_the_reports_else_the_stated_pixels() -> None:
    mark = replace(ONE_MASS, outline=None)
    bare = {"1.2.3.1": Image("cc.dcm", spacing_mm=None)}
    (found,), _ = detect(mark, images=bare, config=CadConfig(centre_mm=1))
    assert (box(found), found.spacing_mm) == ((45, 35, 55, 45), 0.1)
    unknown = replace(CC, spacing=None)
    mark = replace(mark, image=unknown)
    (found,), _ = detect(mark, images=bare, config=CadConfig(centre_pixels=8), library=(unknown,))
    assert (box(found), found.spacing_mm) == ((46, 36, 54, 44), None)
    detections, (problem,) = detect(mark, images=bare, library=(unknown,))
    assert detections == []
    assert "the pixel size is unknown" in problem.message


def test_a_cluster_is_one_detection_with_the_box_of_its_calcifications() -> None:
    (found,), problems = detect(CLUSTER)
    assert problems == []
    assert box(found) == (19, 29, 25, 39)
    assert (found.lesion_type, found.score) == ("calcification", 0.4)
    assert found.note == "the box is that of the calcifications in it; the score is the certainty of the finding"


def test_findings_that_were_inferred_from_one_another_do_not_hide_each_other() -> None:
    marks = (ONE_MASS, replace(ONE_MASS, image=MLO))
    builder = Builder(CadDocument(marks))
    root = builder.tree()
    first, second = (builder.nodes[id(mark)] for mark in marks)
    first.children.append(Node("INFERRED FROM", None, target=second))
    second.children.append(Node("INFERRED FROM", None, target=first))
    found, problems = cad_detections(read_cad_sr(caddocuments.build(CadDocument(marks), root)), IMAGES)
    assert problems == []
    assert [one.path for one in found] == ["cc.dcm", "mlo.dcm"]


def test_calcifications_of_a_cluster_that_is_not_shown_are_shown_themselves() -> None:
    found, _ = detect(replace(CLUSTER, kind="Nipple"), *SPECKS)
    assert [box(one) for one in found] == [(19, 29, 21, 31), (23, 32, 25, 34), (21, 37, 23, 39)]


@pytest.mark.parametrize(
    ("presentation", "expected"),
    [("required", [0.1]), ("optional", [0.1, 0.2]), ("all", [0.1, 0.2, 0.3, 0.4])],
)
def test_only_what_asks_to_be_presented_becomes_a_detection(presentation: str, expected: list[float]) -> None:
    intents = ("PresentationRequired", "PresentationOptional", "NotForPresentation")
    marks = [replace(ONE_MASS, intent=intent, probability=10 * n) for n, intent in enumerate(intents, start=1)]
    report = read_cad_sr(caddocuments.build(CadDocument((*marks, replace(ONE_MASS, probability=40)))))
    silent = replace(report.findings[3], intent=None)
    report = replace(report, findings=(*report.findings[:3], silent))
    found, problems = cad_detections(report, IMAGES, CadConfig(presentation=presentation))
    assert [one.score for one in found] == expected
    assert problems == []


@pytest.mark.parametrize(
    ("finding", "feature", "score", "note"),
    [
        ((87, 93), (75, 66), 0.87, None),
        ((None, 93), (75, 66), 0.93, "the score is the certainty of the finding"),
        ((None, None), (75, 66), 0.75, "the score is that of the composite feature"),
        ((None, None), (None, 66), 0.66, "the score is the certainty of the composite feature"),
        ((None, None), (None, None), None, None),
        ((0, 93), (75, 66), 0.0, None),
    ],
)
def test_the_score_is_the_probability_of_cancer_else_a_certainty(
    finding: tuple[int | None, int | None],
    feature: tuple[int | None, int | None],
    score: float | None,
    note: str | None,
) -> None:
    mark = replace(ONE_MASS, probability=finding[0], certainty=finding[1])
    (found,), _ = detect(Feature((mark,), probability=feature[0], certainty=feature[1]))
    assert (found.score, found.note) == (score, note)


@pytest.mark.parametrize("by_reference", [False, True])
def test_the_findings_of_a_composite_feature_are_views_of_one_lesion(by_reference: bool) -> None:
    feature = Feature((ONE_MASS, IN_MLO), by_reference=by_reference)
    found, problems = detect(*((ONE_MASS, IN_MLO) if by_reference else ()), feature, replace(ONE_MASS, image=RIGHT))
    assert problems == []
    assert [one.path for one in found] == ["cc.dcm", "mlo.dcm", "right.dcm"]
    assert found[0].lesion_id is not None
    assert found[0].lesion_id == found[1].lesion_id
    assert found[2].lesion_id is None


def test_a_feature_in_a_feature_gives_the_lesion_of_the_outer_one() -> None:
    inner = Feature((ONE_MASS,))
    found, _ = detect(Feature((inner, IN_MLO)))
    assert len({one.lesion_id for one in found}) == 1
    assert str(found[0].lesion_id).endswith("#1.3.1.2")


def test_a_feature_in_a_feature_that_is_shown_by_its_own_place_is_of_the_lesion_of_the_outer_one() -> None:
    inner = Feature((replace(ONE_MASS, intent="NotForPresentation"),), places=(ONE_MASS,))
    found, _ = detect(Feature((inner, IN_MLO)))
    assert sorted(one.path for one in found) == ["cc.dcm", "mlo.dcm"]
    assert {str(one.lesion_id)[-8:] for one in found} == {"#1.3.1.2"}


def test_places_of_both_breasts_are_not_views_of_one_lesion() -> None:
    feature = Feature(
        (ONE_MASS, replace(ONE_MASS, image=RIGHT)),
        kind="AsymmetricBreastTissue",
        relation="TargetContentItemsAreRelatedContraLaterally",
    )
    found, _ = detect(feature)
    assert [(one.lesion_id, one.lesion_type) for one in found] == [(None, "asymmetry"), (None, "asymmetry")]


def test_an_asymmetry_in_two_views_of_one_breast_is_one_lesion() -> None:
    feature = Feature(
        (ONE_MASS, IN_MLO),
        kind="AsymmetricBreastTissue",
        relation="TargetContentItemsAreRelatedContraLaterally",
    )
    found, _ = detect(feature)
    assert [one.lesion_type for one in found] == ["asymmetry", "asymmetry"]
    assert found[0].lesion_id == found[1].lesion_id is not None
    unknown = replace(MLO, laterality="BothBreasts")
    found, _ = detect(
        Feature((ONE_MASS, replace(IN_MLO, image=unknown)), feature.kind, relation=feature.relation),
        library=(CC, unknown),
    )
    assert [one.lesion_id for one in found] == [None, None]


@pytest.mark.parametrize("corners", [(10, 20, 30, 20, 30, 40, 10, 40), (30, 40, 30, 20, 10, 20, 10, 40, 30, 40)])
def test_an_outline_that_is_the_box_is_none(corners: tuple[float, ...]) -> None:
    (found,), _ = detect(replace(ONE_MASS, outline=("POLYLINE", corners)))
    assert (box(found), found.outline) == ((10, 20, 30, 40), None)
    (found,), _ = detect(replace(ONE_MASS, outline=("POLYLINE", (10.5, 20, 30, 20, 30, 40, 10, 40))))
    assert (box(found), found.outline) == ((10, 20, 30, 40), ((10.5, 20), (30, 20), (30, 40), (10, 40)))


@pytest.mark.parametrize(
    ("said", "detector", "version"),
    [(("a", "unknown"), "a", None), (("unknown", "2"), None, "2"), (("", "2"), "builder", "2")],
)
def test_a_detector_that_nobody_knows_is_unknown(
    said: tuple[str, str], detector: str | None, version: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caddocuments, "ALGORITHM", said)
    (found,), _ = detect(ONE_MASS)
    assert (found.detector, found.detector_version) == (detector, version)


def test_a_feature_whose_findings_are_not_shown_is_shown_by_its_own_places() -> None:
    hidden = replace(ONE_MASS, intent="NotForPresentation")
    places = (replace(ONE_MASS, centre=(20.0, 20.0), outline=None), replace(IN_MLO, centre=(30.0, 30.0)))
    found, problems = detect(Feature((hidden,), places=places, probability=55))
    assert problems == []
    assert [(one.path, box(one), one.score) for one in found] == [
        ("cc.dcm", (10, 10, 30, 30), 0.55),
        ("mlo.dcm", (20, 20, 40, 40), 0.55),
    ]
    assert found[0].lesion_id == found[1].lesion_id
    assert [one.detection_id[-2:] for one in found] == [".2", "/2"]
    detections, (problem,) = detect(Feature((hidden,)))
    assert detections == []
    assert problem.message == "item 1.3.1.2 (Mammographic breast mass): it has no coordinates"


def test_what_marks_no_lesion_is_no_detection() -> None:
    kinds = ("Nipple", "BreastGeometry", "ImageQuality", "NonLesion", "SelectedRegion", "BreastComposition")
    assert detect(*(Mark(kind=kind) for kind in kinds)) == ([], [])


def test_every_finding_that_can_not_be_used_is_told_and_the_others_are_there() -> None:
    elsewhere = replace(CC, uid="1.2.3.77")
    found, problems = detect(
        replace(ONE_MASS, image=elsewhere),
        replace(ONE_MASS, centre=None, outline=None),
        replace(ONE_MASS, outline=("POLYLINE", (90.0, 10.0, 140.0, 10.0))),
        replace(ONE_MASS, outline=("POINT", (float("nan"), 10.0))),
        replace(ONE_MASS, image=None),
        replace(ONE_MASS, image=RIGHT),
        ONE_MASS,
        images={**IMAGES, "1.2.3.3": Image("right.dcm", patient_id="W8")},
        library=(CC, MLO, RIGHT, elsewhere),
    )
    assert [one.path for one in found] == ["cc.dcm"]
    assert [problem.message.split(": ", 1)[1] for problem in problems] == [
        "its image 1.2.3.77 is not here",
        "it has no coordinates",
        "its point 140\\10 is not in the image of 100 × 80 pixels",
        "its coordinates are not all numbers",
        "its coordinates name no image",
        "its image right.dcm is of the patient W8, and the report of W7",
    ]
    assert all(problem.message.startswith("item 1.3.") for problem in problems)
    assert {problem.subject for problem in problems} == {"CAD SR"}


def test_a_report_without_a_patient_is_taken_with_a_note_and_an_image_without_one_is_not() -> None:
    (found,), _ = detect(ONE_MASS, patient=None)
    assert (found.patient_id, found.note) == ("W7", "the report does not name its patient")
    detections, (problem,) = detect(ONE_MASS, images={"1.2.3.1": Image("cc.dcm", patient_id=None)})
    assert detections == []
    assert "does not name its woman" in problem.message


def test_a_report_and_an_image_that_disagree_on_the_side_are_told() -> None:
    (found,), _ = detect(ONE_MASS, images={"1.2.3.1": Image("cc.dcm", laterality="R", view=None)})
    assert (found.laterality, found.view) == ("R", "CC")
    assert found.note == "its laterality is R in the image and L in the report"


def test_a_frame_of_a_tomosynthesis_is_kept() -> None:
    (found,), _ = detect(replace(ONE_MASS, image=replace(CC, frame=17)), library=(replace(CC, frame=17),))
    assert found.frame_number == 17


def test_an_image_of_an_earlier_examination_keeps_its_study() -> None:
    prior = replace(MLO, study="1.2.8")
    found, _ = detect(Feature((ONE_MASS, replace(IN_MLO, image=prior))), library=(CC, prior))
    assert [one.study_id for one in found] == [caddocuments.STUDY_UID, "1.2.8"]


def test_the_images_of_a_folder_can_be_given_as_they_are_read(cbis_dicom: list[Path]) -> None:
    """A header of `embedder.mammogram` with the name of its data set is what the conversion asks for."""
    from embedder.mammogram import read_header

    @dataclass(frozen=True)
    class Read:
        header: object
        dataset: str = "cbis"

        def __getattr__(self, name: str) -> object:
            return getattr(self.header, name)

    header = read_header(cbis_dicom[0])
    shown = replace(CC, uid=str(header.sop_uid))
    mark = replace(ONE_MASS, image=shown, outline=("CIRCLE", (600.0, 900.0, 650.0, 900.0)))
    report = read_cad_sr(caddocuments.build(CadDocument((mark,), images=(shown,), patient=header.patient_id)))
    (found,), problems = cad_detections(report, {shown.uid: Read(header)})  # type: ignore[dict-item]
    assert problems == []
    assert box(found) == (550, 850, 650, 950)
    assert (found.path, found.image_rows, found.patient_id) == (str(cbis_dicom[0]), header.rows, header.patient_id)


@pytest.mark.parametrize(
    "wrong", [{"presentation": "some"}, {"centre_mm": 0}, {"centre_mm": float("nan")}, {"centre_pixels": -3}]
)
def test_a_configuration_that_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ExchangeError, match=next(iter(wrong))):
        CadConfig(**wrong)  # type: ignore[arg-type]


def test_what_a_report_says_can_neither_fill_the_screen_nor_steer_the_terminal() -> None:
    dataset = caddocuments.build(CadDocument((ONE_MASS,)))
    for element in dataset.iterall():
        if element.keyword == "CodeMeaning":
            element.VR, element.value = "UT", "\x1b[2J\n" + "x" * 10**6
        if element.keyword == "ReferencedSOPInstanceUID":
            element.VR, element.value = "UT", "9" * 10**6
    detections, problems = cad_detections(read_cad_sr(dataset), IMAGES)
    assert detections == []
    assert len(problems) == 1
    assert all(len(problem.message) <= 400 and problem.message.isprintable() for problem in problems)
