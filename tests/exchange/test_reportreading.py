"""Reports read back: all that was written, and a sentence where it is something else."""

import io
from copy import deepcopy
from dataclasses import replace

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from pydicom.dataset import Dataset

from embedder.findings import TERM_SEPARATOR
from exchange import ExchangeError
from exchange.dicomtext import clean_text
from exchange.opinions import SecondOpinion, SimilarCase, StudyOpinions
from exchange.reportreading import read_opinions
from exchange.reports import study_report
from tests.exchange.report_cases import OPINION, SHOWN, some_image, some_opinions, studies

pytest.importorskip("highdicom", reason="install mammoseek[exchange] for structured reports")


def stored(document: Dataset) -> Dataset:
    """Return a document as it comes out of a file."""
    file = io.BytesIO()
    document.save_as(file, enforce_file_format=True)
    return pydicom.dcmread(io.BytesIO(file.getvalue()))


def text(given: str | None) -> str | None:
    return clean_text(given or "") or None


def words(given: str | None) -> str | None:
    told = (given or "").split(TERM_SEPARATOR)
    return TERM_SEPARATOR.join(clean_text(word) for word in told if word.strip()) or None


def case_as_reported(case: SimilarCase) -> SimilarCase:
    told = SimilarCase(
        case.similarity, outcome=clean_text(case.outcome) if case.outcome else None, lesion_type=words(case.lesion_type)
    )
    row, dataset = text(case.row_id), text(case.dataset)
    if not case.may_be_shown or not (row or dataset or case.sop_uid):
        return told
    told = replace(told, row_id=row, dataset=dataset, sop_uid=case.sop_uid, may_be_shown=True)
    if None in (case.sop_uid, case.sop_class_uid, case.series_uid, case.study_uid):
        return told
    return replace(told, sop_class_uid=case.sop_class_uid, series_uid=case.series_uid, study_uid=case.study_uid)


def opinion_as_reported(given: SecondOpinion) -> SecondOpinion:
    """Return what a report on a film of a left breast tells of an opinion."""
    box, outline = given.box, given.outline
    if outline is not None:
        outline = outline[:-1] if outline[0] == outline[-1] else outline
        left, top = (int(min(corner[axis] for corner in outline) // 1) for axis in (0, 1))
        right, bottom = (int(-(-max(corner[axis] for corner in outline) // 1)) for axis in (0, 1))
        box = (left, top, right, bottom)
        if outline == ((left, top), (right, top), (right, bottom), (left, bottom)):
            outline = None
    return replace(
        given,
        detection_id=clean_text(given.detection_id),
        path=None,
        frame_number=None,
        box=box,
        outline=outline,
        lesion_id=text(given.lesion_id),
        lesion_type=words(given.lesion_type),
        laterality="L",
        detector=text(given.detector),
        detector_version=text(given.detector_version),
        similar=tuple(map(case_as_reported, given.similar)),
        vote=given.vote and replace(given.vote, probabilities={}),
        head_probabilities=None,
        risk=given.risk and replace(given.risk, probability=0, basis=clean_text(given.risk.basis)),
        notes=tuple(clean_text(note) for note in given.notes if clean_text(note)),
    )


def test_a_report_gives_back_what_it_was_made_from():
    back = read_opinions(stored(study_report(some_opinions(), [some_image()])))
    assert back.study_uid == some_opinions().study_uid
    assert (back.model_digest, back.gallery_generation, back.version) == ("m" * 64, 3, "0.1.0")
    assert back.patient_id == "W7"
    (opinion,) = back.opinions
    assert opinion.similar[0] == replace(SHOWN, patient_id=None)
    assert opinion == replace(OPINION, path=None, similar=tuple(map(case_as_reported, OPINION.similar)))


def probabilities_of(opinion: SecondOpinion) -> list[dict[str, float]]:
    told = [opinion.vote.probabilities if opinion.vote else {}, opinion.head_probabilities or {}]
    return [*told, {"risk": opinion.risk.probability} if opinion.risk else {}]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(given_study=studies)
def test_whatever_is_said_comes_back(given_study: StudyOpinions):
    back = read_opinions(stored(study_report(given_study, [some_image()])))
    assert back.version == clean_text(given_study.version)
    assert back.gallery_digest == clean_text(given_study.gallery_digest)
    assert back.gallery_generation == given_study.gallery_generation
    assert len(back.opinions) == len(given_study.opinions)
    for one, said in zip(back.opinions, given_study.opinions, strict=True):
        for read, written in zip(probabilities_of(one), probabilities_of(said), strict=True):
            cleaned = {clean_text(name): value for name, value in written.items()}
            assert read == {name: pytest.approx(value, rel=1e-14, abs=1e-300) for name, value in cleaned.items()}
        bare = replace(
            one,
            vote=one.vote and replace(one.vote, probabilities={}),
            head_probabilities=None,
            risk=one.risk and replace(one.risk, probability=0),
        )
        assert bare == opinion_as_reported(said)


@pytest.mark.parametrize(
    "cut", ["ConceptNameCodeSequence", "MeasuredValueSequence", "ReferencedSOPSequence", "TextValue"]
)
def test_a_report_that_lacks_a_part_is_called_damaged_or_not_ours(cut):
    document = stored(study_report(some_opinions(), [some_image()]))

    def strip(item: Dataset) -> None:
        for child in item.get("ContentSequence", []):
            strip(child)
            if cut in child:
                delattr(child, cut)

    strip(document)
    with pytest.raises(ExchangeError, match=r"damaged|no report of mammoseek"):
        read_opinions(document)


def test_a_report_without_the_algorithms_parameters_is_refused():
    document = stored(study_report(some_opinions(), [some_image()]))
    measurements = next(item for item in document.ContentSequence if item.ValueType == "CONTAINER")
    group = measurements.ContentSequence[0]
    kept = [item for item in group.ContentSequence if item.ConceptNameCodeSequence[0].CodeValue != "111002"]
    group.ContentSequence = kept
    with pytest.raises(ExchangeError, match="model_digest"):
        read_opinions(document)


def test_what_is_no_report_of_mammoseek_is_refused():
    other = deepcopy(study_report(some_opinions(), [some_image()]))
    for item in next(part for part in other.ContentSequence if part.ValueType == "CONTAINER").ContentSequence:
        for child in item.ContentSequence:
            if child.ConceptNameCodeSequence[0].CodeValue == "111001":
                child.TextValue = "another program"
    for document in (Dataset(), some_image(), other):
        with pytest.raises(ExchangeError, match="no report of mammoseek"):
            read_opinions(document)
