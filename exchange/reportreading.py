"""Read mammoseek's structured reports back: what `exchange.reports` wrote of a study's findings.

A report does not hold where the files lie, and of a similar case no patient and, unless it may be shown, no name. All
else comes back, numbers to their last bit but for probabilities, which are written in per cent.
"""

from collections.abc import Iterator
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import ComprehensiveSRStorage

from embedder import dicomvalues
from embedder.findings import TERM_SEPARATOR
from exchange import ExchangeError
from exchange import reportcodes as rc
from exchange.opinions import Risk, SecondOpinion, SimilarCase, StudyOpinions, Vote
from exchange.readerverdicts import is_verdict
from exchange.regions import place_of
from exchange.reportgroups import ALGORITHM, PARAMETERS

Name = tuple[str, str]
"""Code value and scheme."""

_GROUP, _MEASUREMENTS = ("125007", "DCM"), ("126010", "DCM")
_TRACKING, _FINDING, _SITE = ("112039", "DCM"), ("121071", "DCM"), ("363698007", "SCT")
_LATERALITY, _REGION = ("272741003", "SCT"), ("111030", "DCM")
_ALGORITHM, _VERSION, _PARAMETER = ("111001", "DCM"), ("111003", "DCM"), ("111002", "DCM")
_SOURCES = (("260753009", "SCT"), ("121112", "DCM"))


def read_opinions(document: Dataset) -> StudyOpinions:
    """Return what a report of mammoseek says.

    Args:
        document: The report, as `pydicom.dcmread` or `study_report` returns it.

    Raises:
        ExchangeError: It is no report of mammoseek, or is damaged.
    """
    subject = getattr(document, "filename", None) or f"report {dicomvalues.text(document, 'SOPInstanceUID')}"
    try:
        return _study(document, str(subject))
    except ExchangeError:
        raise
    except Exception as error:  # a damaged document makes pydicom raise of many kinds, which mean the same here
        raise ExchangeError(
            subject, f"the report is damaged ({type(error).__name__}: {error})"[:200], "get it again from its source"
        ) from error


def _study(document: Dataset, subject: str) -> StudyOpinions:
    measurements = [item for item in _children(document) if _name(item) == _MEASUREMENTS]
    groups = [group for item in measurements for group in _children(item) if _name(group) == _GROUP]
    groups = [group for group in groups if not is_verdict(group)]  # a person's, not mammoseek's
    by_mammoseek = bool(groups) and all(_text(group, _ALGORITHM) == ALGORITHM for group in groups)
    if document.get("SOPClassUID") != ComprehensiveSRStorage or not by_mammoseek:
        raise ExchangeError(subject, "it is no report of mammoseek", "give one that `exchange.reports` wrote")
    told = dict(str(part.TextValue).partition("=")[::2] for part in _named(groups[0], _PARAMETER))
    if lacking := [name for name in PARAMETERS if name not in told]:
        raise ExchangeError(subject, f"it does not tell the {lacking[0]}", "get it again from its source")
    return StudyOpinions(
        study_uid=str(document.StudyInstanceUID),
        model_digest=told["model_digest"],
        preparation_digest=told["preparation_digest"],
        gallery_digest=told["gallery_digest"],
        gallery_generation=int(told["gallery_generation"]),
        version=_text(groups[0], _VERSION) or "",
        patient_id=dicomvalues.text(document, "PatientID"),
        opinions=tuple(_opinion(group, _studies(document)) for group in groups),
    )


def _opinion(group: Dataset, studies: dict[str, tuple[str, str]]) -> SecondOpinion:
    image, line = _place(group)
    box, outline = (None, None) if line is None else place_of(line)
    frames = image.get("ReferencedFrameNumber")
    precedent = _code(group, _private("NO-PRECEDENT"))
    risk = next(_named(group, _key(rc.PROBABILITY_OF_CANCER)), None)
    vote = _by_class(group, "VOTE")
    counts = [_number(group, _private(name)) for name in ("VOTE-NEIGHBOURS", "VOTE-WOMEN")]
    return SecondOpinion(
        detection_id=_text(group, _TRACKING) or "",
        sop_uid=str(image.ReferencedSOPInstanceUID),
        frame_number=None if frames is None else int(frames),
        box=box,
        outline=outline,
        lesion_id=_text(group, _key(rc.LESION_IDENTIFIER)),
        lesion_type=_joined([*_words(group, _FINDING), *_words(group, _private("FURTHER-TYPE"))]),
        laterality=_side(group),
        detector=_text(group, _private("DETECTOR")),
        detector_version=_text(group, _private("DETECTOR-VERSION")),
        score=_number(group, _private("DETECTOR-SCORE")),
        similar=tuple(_similar(item, studies) for item in _named(group, _private("SIMILAR-CASE"))),
        vote=None if counts[0] is None or counts[1] is None else Vote(int(counts[0]), int(counts[1]), vote),
        head_probabilities=_by_class(group, "HEAD") or None,
        risk=None if risk is None else Risk(_value(risk) / 100, _text(risk, _private("BASIS")) or ""),
        no_close_precedent=None if precedent is None else precedent == _key(rc.ANSWERS[True]),
        rescored=_number(group, _private("RESCORED")),
        notes=tuple(str(item.TextValue) for item in _named(group, _key(rc.COMMENT))),
    )


def _place(group: Dataset) -> tuple[Dataset, list[list[float]] | None]:
    """Return the reference to a finding's image, and the line around it."""
    for region in _named(group, _REGION):
        numbers = [float(number) for number in region.GraphicData]
        line = [numbers[start : start + 2] for start in range(0, len(numbers), 2)]
        return _reference(next(item for item in _children(region) if _name(item) in _SOURCES)), line
    return _reference(next(item for item in _children(group) if _name(item) in _SOURCES)), None


def _similar(item: Dataset, studies: dict[str, tuple[str, str]]) -> SimilarCase:
    image = next(map(_reference, _named(item, _private("CASE-IMAGE"))), None)
    sop_uid = None if image is None else str(image.ReferencedSOPInstanceUID)
    study, series = studies.get(sop_uid or "", (None, None))
    uid = next(_named(item, _private("CASE-IMAGE-UID")), None)
    row_id, dataset = (_text(item, _private(name)) for name in ("CASE-ID", "CASE-DATASET"))
    return SimilarCase(
        similarity=_value(next(_named(item, _private("SIMILARITY")))),
        row_id=row_id,
        dataset=dataset,
        outcome=_joined(_words(item, _private("OUTCOME"))),
        lesion_type=_joined(_words(item, _private("LESION-TYPE"))),
        sop_uid=sop_uid if uid is None else str(uid.UID),
        sop_class_uid=None if image is None else str(image.ReferencedSOPClassUID),
        series_uid=series,
        study_uid=study,
        may_be_shown=any(known is not None for known in (row_id, dataset, image, uid)),
    )


def _studies(document: Dataset) -> dict[str, tuple[str, str]]:
    """Return study and series of each image of another study that a report refers to, by its UID."""
    return {
        str(image.ReferencedSOPInstanceUID): (str(study.StudyInstanceUID), str(series.SeriesInstanceUID))
        for study in document.get("PertinentOtherEvidenceSequence", [])
        for series in study.ReferencedSeriesSequence
        for image in series.ReferencedSOPSequence
    }


def _by_class(group: Dataset, name: str) -> dict[str, float]:
    return {
        _joined(_words(item, _private("OUTCOME"))) or "": _value(item) / 100 for item in _named(group, _private(name))
    }


def _side(group: Dataset) -> str | None:
    sides = {_key(code): side for side, code in rc.LATERALITY_CODES.items()}
    found = (_code(site, _LATERALITY) for site in _named(group, _SITE))
    return next((sides[code] for code in found if code in sides), None)


def _words(item: Dataset, name: Name) -> list[str]:
    """Return the terms that stand under a name: of codes ours, of texts what they say; none for what is unknown."""
    words = {_key(code): word for word, code in (*rc.LESION_CODES.items(), *rc.OUTCOME_CODES.items())}
    found = []
    for part in _named(item, name):
        if part.ValueType == "TEXT":
            found.append(str(part.TextValue))
        elif (code := _key_of(part.ConceptCodeSequence[0])) in words:
            found.append(words[code])
    return found


def _joined(words: list[str]) -> str | None:
    return TERM_SEPARATOR.join(words) or None


def _children(item: Dataset) -> Iterator[Dataset]:
    yield from item.get("ContentSequence", [])


def _named(item: Dataset, name: Name) -> Iterator[Dataset]:
    return (child for child in _children(item) if _name(child) == name)


def _name(item: Dataset) -> Name | None:
    names = item.get("ConceptNameCodeSequence", [])
    return _key_of(names[0]) if names else None


def _key_of(code: Dataset) -> Name:
    return str(code.get("CodeValue", "")), str(code.CodingSchemeDesignator)


def _key(code: Any) -> Name:
    return code.value, code.scheme_designator


def _private(value: str) -> Name:
    return value, rc.SCHEME


def _text(item: Dataset, name: Name) -> str | None:
    return next((str(child.TextValue) for child in _named(item, name)), None)


def _code(item: Dataset, name: Name) -> Name | None:
    return next((_key_of(child.ConceptCodeSequence[0]) for child in _named(item, name)), None)


def _number(item: Dataset, name: Name) -> float | None:
    return next((_value(child) for child in _named(item, name)), None)


def _value(item: Dataset) -> float:
    measured = item.MeasuredValueSequence[0]
    return float(measured.get("FloatingPointValue", measured.NumericValue))


def _reference(item: Dataset) -> Dataset:
    reference: Dataset = item.ReferencedSOPSequence[0]
    return reference
