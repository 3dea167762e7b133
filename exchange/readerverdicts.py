"""What readers decided of a study, as a report says it: a person's observation beside mammoseek's, never mixed with it.

Each verdict is a measurement group of its own that names its reader as the observer (PS3.16 TID 1002, 1003), which is
how the standard takes a part of a document out of the observation context of the whole (PS3.3 C.17.5). The assessment
is a code of PS3.16 CID 6027 (Assessment from BI-RADS) under (111005, DCM, "Assessment Category").
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from embedder import dicomvalues
from exchange import ExchangeError
from exchange import reportcodes as rc
from exchange.dicomtext import clean_line, clean_text
from exchange.opinions import SecondOpinion
from exchange.regions import closed_line, frame_of

ASSESSMENT_CODES: dict[str, Code] = {
    "0": Code("397138000", "SCT", "0 - Incomplete - Need additional imaging evaluation +/- priors"),
    "1": Code("397140005", "SCT", "1 - Negative"),
    "2": Code("397141009", "SCT", "2 - Benign"),
    "3": Code("397143007", "SCT", "3 - Probably Benign"),
    "4": Code("397144001", "SCT", "4 - Suspicious"),
    "4A": Code("MA.II.A.5.4A", "BI", "4A - Low suspicion", "4.0"),
    "4B": Code("MA.II.A.5.4B", "BI", "4B - Intermediate suspicion", "4.0"),
    "4C": Code("MA.II.A.5.4C", "BI", "4C - Moderate suspicion", "4.0"),
    "5": Code("397145000", "SCT", "5 - Highly suggestive of malignancy"),
    "6": Code("MA.II.A.5.6", "BI", "6 - Known biopsy proven malignancy", "4.0"),
}
"""Codes of `embedder.findings.TERMS["assessment"]`: PS3.16 CID 6027."""

DECISIONS = {"accept": "ACCEPTED", "reject": "REJECTED"}
"""Private codes of what a reader decides of a detection."""

ASSESSMENT = Code("111005", "DCM", "Assessment Category")
OBSERVER_TYPE = Code("121005", "DCM", "Observer Type")
PERSON = Code("121006", "DCM", "Person")
PERSON_NAME = Code("121008", "DCM", "Person Observer Name")


@dataclass(frozen=True)
class ReaderVerdict:
    """What one reader decided; what is unknown is None.

    Args:
        verdict_id: Names it, unique in its study.
        reader: The reader's name.
        time: When it was decided.
        sop_uid: SOP Instance UID of its image; None where it is of the whole study.
        frame_number: Which image of a multi-frame file, from 1.
        box: x0, y0, x1, y1 in pixels of the stored image, half-open.
        laterality: `L` or `R`.
        detection_id: The detection that it is of.
        assessment: BI-RADS category, one of `embedder.findings.TERMS["assessment"]`.
        decision: What becomes of the detection, `accept` or `reject`.
        text: Free text.

    Raises:
        ExchangeError: The assessment or decision is none, or the verdict has no name or reader.
    """

    verdict_id: str
    reader: str
    time: datetime
    sop_uid: str | None = None
    frame_number: int | None = None
    box: tuple[int, int, int, int] | None = None
    laterality: str | None = None
    detection_id: str | None = None
    assessment: str | None = None
    decision: str | None = None
    text: str = ""

    def __post_init__(self) -> None:
        subject = f"verdict {self.verdict_id[:80]!r}"
        if not clean_text(self.verdict_id) or not clean_line(self.reader, 64):
            raise ExchangeError(subject, "it has no name or no reader", "name both")
        if self.assessment is not None and self.assessment not in ASSESSMENT_CODES:
            told = ", ".join(ASSESSMENT_CODES)
            raise ExchangeError(subject, f"its assessment is {self.assessment!r:.40}", f"give one of {told}")
        if self.decision is not None and self.decision not in DECISIONS:
            raise ExchangeError(subject, f"its decision is {self.decision!r:.40}", "give accept or reject")

    @property
    def place(self) -> SecondOpinion:
        """Where it lies, as findings lie."""
        return SecondOpinion(
            self.verdict_id,
            sop_uid=self.sop_uid,
            frame_number=self.frame_number,
            box=self.box,
            laterality=self.laterality,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {**asdict(self), "time": self.time.isoformat()}


def verdict_group(
    sr: Any, verdict: ReaderVerdict, image: Dataset | None, laterality: str | None, tracking_uid: str
) -> Any:
    """Return a verdict's measurement group (TID 1410; TID 1501 where it is of no place).

    Args:
        sr: highdicom.sr.
        verdict: The verdict.
        image: The header of its image; None where it is of the whole study.
        laterality: `L` or `R`; None where nobody knows.
        tracking_uid: Names it to whoever follows it.

    Raises:
        ExchangeError: It does not lie on its image.
    """
    common: dict[str, Any] = {
        "tracking_identifier": sr.TrackingIdentifier(tracking_uid, clean_text(verdict.verdict_id)),
        "finding_type": rc.UNCHARACTERISED,
        "finding_sites": [sr.FindingSite(rc.BREAST, rc.LATERALITY_CODES.get(laterality or ""))],
        "qualitative_evaluations": [*_evaluations(sr, verdict)],
    }
    line = None if image is None else closed_line(verdict.place, image)
    frame = None if image is None else frame_of(verdict.place, image)
    source = {
        "referenced_sop_class_uid": None if image is None else dicomvalues.text(image, "SOPClassUID"),
        "referenced_sop_instance_uid": verdict.sop_uid,
        "referenced_frame_numbers": None if frame is None else [frame],
    }
    if line is not None:
        region = sr.ImageRegion(sr.GraphicTypeValues.POLYLINE, line, sr.SourceImageForRegion(**source))
        group = sr.PlanarROIMeasurementsAndQualitativeEvaluations(**common, referenced_region=region)
    else:
        images = None if image is None else [sr.SourceImageForMeasurementGroup(**source)]
        group = sr.MeasurementsAndQualitativeEvaluations(**common, source_images=images)
    content = group[0].ContentSequence
    content.extend(_observer(sr, verdict))
    for name, text in ((rc.private_code("OF-DETECTION"), verdict.detection_id), (rc.COMMENT, verdict.text)):
        if text is not None and clean_text(text):
            content.append(sr.TextContentItem(name, clean_text(text), relationship_type="CONTAINS"))
    group[0].ObservationDateTime = verdict.time.strftime("%Y%m%d%H%M%S.%f")
    return group


def is_verdict(group: Dataset) -> bool:
    """Return whether a measurement group is a person's."""
    return any(
        _is(item, OBSERVER_TYPE) and item.ConceptCodeSequence[0].CodeValue == PERSON.value
        for item in group.get("ContentSequence", [])
    )


def read_assessments(document: Dataset) -> list[tuple[str, str | None]]:
    """Return the reader and the BI-RADS category of each verdict of a report, in its order."""
    by_code = {(code.value, code.scheme_designator): name for name, code in ASSESSMENT_CODES.items()}
    found = []
    for part in document.get("ContentSequence", []):
        for group in filter(is_verdict, part.get("ContentSequence", [])):
            reader = next(str(item.PersonName) for item in group.ContentSequence if _is(item, PERSON_NAME))
            codes = (item.ConceptCodeSequence[0] for item in group.ContentSequence if _is(item, ASSESSMENT))
            category = next((by_code.get((str(c.CodeValue), str(c.CodingSchemeDesignator))) for c in codes), None)
            found.append((reader, category))
    return found


def _evaluations(sr: Any, verdict: ReaderVerdict) -> Iterator[Any]:
    if verdict.assessment is not None:
        yield sr.QualitativeEvaluation(ASSESSMENT, ASSESSMENT_CODES[verdict.assessment])
    if verdict.decision is not None:
        yield sr.QualitativeEvaluation(rc.private_code("DECISION"), rc.private_code(DECISIONS[verdict.decision]))


def _observer(sr: Any, verdict: ReaderVerdict) -> Iterator[Any]:
    context = "HAS OBS CONTEXT"
    # A name of one part is a family name; its separators have no meaning in a user's name.
    name = clean_line(verdict.reader, 64).replace("^", " ").replace("=", " ").strip() or "unknown"
    yield sr.CodeContentItem(OBSERVER_TYPE, PERSON, relationship_type=context)
    yield sr.PnameContentItem(PERSON_NAME, f"{name}^", relationship_type=context)


def _is(item: Dataset, name: Code) -> bool:
    names = item.get("ConceptNameCodeSequence", [])
    return bool(names) and (names[0].get("CodeValue"), names[0].CodingSchemeDesignator) == (
        name.value,
        name.scheme_designator,
    )
