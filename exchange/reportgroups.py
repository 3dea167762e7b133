"""One finding of a report as a measurement group: its region, its measurements, and the cases that it is like."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from embedder import dicomvalues
from embedder.findings import TERM_SEPARATOR
from exchange import reportcodes as rc
from exchange.dicomtext import clean_text
from exchange.opinions import SecondOpinion, SimilarCase, StudyOpinions
from exchange.regions import closed_line, frame_of

ALGORITHM = "mammoseek"

PARAMETERS = ("model_digest", "preparation_digest", "gallery_digest", "gallery_generation")
"""Fields of the opinions that the algorithm's parameters give, each as `name=value`."""

_CONTAINS = "CONTAINS"
_UNKNOWN = "unknown"


def measurement_group(
    sr: Any, study: StudyOpinions, opinion: SecondOpinion, image: Dataset, laterality: str | None, tracking_uid: str
) -> Any:
    """Return the measurement group of one finding (PS3.16 TID 1410; TID 1501 for one without coordinates).

    Args:
        sr: highdicom.sr.
        study: What is said of its study.
        opinion: What is said of it.
        image: The header of its image.
        laterality: `L` or `R`; None where nobody knows.
        tracking_uid: Names it to whoever follows it.

    Raises:
        ExchangeError: It does not lie on its image.
    """
    types = opinion.lesion_type.split(TERM_SEPARATOR) if opinion.lesion_type else []
    line, frame = closed_line(opinion, image), frame_of(opinion, image)
    source = {
        "referenced_sop_class_uid": dicomvalues.text(image, "SOPClassUID"),
        "referenced_sop_instance_uid": opinion.sop_uid,
        "referenced_frame_numbers": None if frame is None else [frame],
    }
    common = {
        "tracking_identifier": sr.TrackingIdentifier(tracking_uid, clean_text(opinion.detection_id)),
        "finding_type": rc.LESION_CODES.get(types[0], rc.UNCHARACTERISED) if types else rc.UNCHARACTERISED,
        "finding_sites": [sr.FindingSite(rc.BREAST, rc.LATERALITY_CODES.get(laterality or ""))],
        "algorithm_id": sr.AlgorithmIdentification(
            ALGORITHM,
            clean_text(study.version) or _UNKNOWN,
            parameters=[clean_text(f"{name}={getattr(study, name)}") for name in PARAMETERS],
            manufacturer=ALGORITHM,
        ),
        "measurements": [*_measurements(sr, opinion)],
        "qualitative_evaluations": []
        if opinion.no_close_precedent is None
        else [sr.QualitativeEvaluation(rc.private_code("NO-PRECEDENT"), rc.ANSWERS[opinion.no_close_precedent])],
    }
    if line is None:
        group = sr.MeasurementsAndQualitativeEvaluations(
            **common, source_images=[sr.SourceImageForMeasurementGroup(**source)]
        )
    else:
        region = sr.ImageRegion(sr.GraphicTypeValues.POLYLINE, line, sr.SourceImageForRegion(**source))
        group = sr.PlanarROIMeasurementsAndQualitativeEvaluations(**common, referenced_region=region)
    # The templates are extensible: what they have no row for follows under codes of one's own.
    content = group[0].ContentSequence
    further = types if types and types[0] not in rc.LESION_CODES else types[1:]
    content.extend(
        _term(sr, rc.private_code("FURTHER-TYPE"), word, rc.LESION_CODES) for word in further if word.strip()
    )
    content.extend(
        _text(sr, name, text)
        for name, text in (
            (rc.LESION_IDENTIFIER, opinion.lesion_id),
            (rc.private_code("DETECTOR"), opinion.detector),
            (rc.private_code("DETECTOR-VERSION"), opinion.detector_version),
            *((rc.COMMENT, note) for note in opinion.notes),
        )
        if text is not None and clean_text(text)
    )
    content.extend(_similar_case(sr, case) for case in opinion.similar)
    return group


def comment(sr: Any, text: str) -> Any:
    """Return a remark as a content item."""
    return _text(sr, rc.COMMENT, text)


def _measurements(sr: Any, opinion: SecondOpinion) -> Iterator[Any]:
    """Yield the numbers of a finding (TID 300); what is unknown is left out."""
    if opinion.risk is not None:
        risk = sr.Measurement(
            rc.PROBABILITY_OF_CANCER,
            _percent(opinion.risk.probability),
            rc.PERCENT,
            derivation=rc.ESTIMATED,
            method=rc.private_code("RISK-METHOD"),
        )
        if clean_text(opinion.risk.basis):
            _add(risk, _text(sr, rc.private_code("BASIS"), opinion.risk.basis, "HAS PROPERTIES"))
        yield risk
    if opinion.score is not None:
        # Without this the score would count as mammoseek's own.
        detector = sr.AlgorithmIdentification(
            clean_text(opinion.detector or "") or _UNKNOWN, clean_text(opinion.detector_version or "") or _UNKNOWN
        )
        yield sr.Measurement(
            rc.private_code("DETECTOR-SCORE"), float(opinion.score), rc.NO_UNITS, algorithm_id=detector
        )
    if opinion.rescored is not None:
        yield sr.Measurement(rc.private_code("RESCORED"), float(opinion.rescored), rc.NO_UNITS)
    if opinion.similar:
        nearest = max(case.similarity for case in opinion.similar)
        yield sr.Measurement(rc.private_code("NEAREST"), float(nearest), rc.NO_UNITS)
    if opinion.vote is not None:
        yield sr.Measurement(rc.private_code("VOTE-NEIGHBOURS"), opinion.vote.neighbours, rc.NO_UNITS)
        yield sr.Measurement(rc.private_code("VOTE-WOMEN"), opinion.vote.women, rc.NO_UNITS)
        yield from _by_class(sr, "VOTE", opinion.vote.probabilities)
    if opinion.head_probabilities is not None:
        yield from _by_class(sr, "HEAD", opinion.head_probabilities)
    counts = Counter(case.outcome for case in opinion.similar)
    for outcome, count in sorted(counts.items(), key=lambda item: item[0] or ""):
        counted = sr.Measurement(rc.private_code("OUTCOME-COUNT"), count, rc.NO_UNITS)
        yield _of_class(sr, counted, outcome)


def _by_class(sr: Any, name: str, probabilities: Mapping[str, float]) -> Iterator[Any]:
    for outcome, probability in probabilities.items():
        yield _of_class(sr, sr.Measurement(rc.private_code(name), _percent(probability), rc.PERCENT), outcome)


def _of_class(sr: Any, measurement: Any, outcome: str | None) -> Any:
    """Say of which outcome a measurement is."""
    _add(measurement, _outcome(sr, outcome, "HAS CONCEPT MOD"))
    return measurement


def _similar_case(sr: Any, case: SimilarCase) -> Any:
    container = sr.ContainerContentItem(rc.private_code("SIMILAR-CASE"), relationship_type=_CONTAINS)
    parts = [
        sr.NumContentItem(
            rc.private_code("SIMILARITY"), float(case.similarity), rc.NO_UNITS, relationship_type=_CONTAINS
        ),
        _outcome(sr, case.outcome),
    ]
    if case.lesion_type is not None and case.lesion_type.strip():
        words = case.lesion_type.split(TERM_SEPARATOR)
        parts += [_term(sr, rc.private_code("LESION-TYPE"), word, rc.LESION_CODES) for word in words if word.strip()]
    if case.may_be_shown:
        for name, text in (("CASE-ID", case.row_id), ("CASE-DATASET", case.dataset)):
            if text is not None and clean_text(text):
                parts.append(_text(sr, rc.private_code(name), text))
        if case.has_reference:
            parts.append(
                sr.ImageContentItem(
                    rc.private_code("CASE-IMAGE"), case.sop_class_uid, case.sop_uid, relationship_type=_CONTAINS
                )
            )
        elif case.sop_uid is not None:
            parts.append(
                sr.UIDRefContentItem(rc.private_code("CASE-IMAGE-UID"), case.sop_uid, relationship_type=_CONTAINS)
            )
    container.ContentSequence = sr.ContentSequence(parts)
    return container


def _outcome(sr: Any, outcome: str | None, relationship: str = _CONTAINS) -> Any:
    if outcome is None or not clean_text(outcome).strip():
        return sr.CodeContentItem(
            rc.private_code("OUTCOME"), rc.private_code("UNKNOWN"), relationship_type=relationship
        )
    return _term(sr, rc.private_code("OUTCOME"), outcome, rc.OUTCOME_CODES, relationship)


def _term(sr: Any, name: Code, word: str, known: Mapping[str, Code], relationship: str = _CONTAINS) -> Any:
    """Return a term as its code; a data set's own word as text."""
    if word in known:
        return sr.CodeContentItem(name, known[word], relationship_type=relationship)
    return _text(sr, name, word, relationship)


def _text(sr: Any, name: Code, text: str, relationship: str = _CONTAINS) -> Any:
    return sr.TextContentItem(name, clean_text(text), relationship_type=relationship)


def _add(measurement: Any, item: Any) -> None:
    """Put an item under a measurement's number."""
    number = measurement[0]
    if "ContentSequence" not in number:
        number.ContentSequence = []
    number.ContentSequence.append(item)


def _percent(probability: float) -> float:
    return 100.0 * probability
