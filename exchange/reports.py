"""A study's second opinions, and its readers' verdicts, as a DICOM structured report: a Measurement Report (TID 1500).

The object is a Comprehensive SR (PS3.3 A.35.3). A projection mammogram has no frame of reference, so that all regions
are two-dimensional and Comprehensive 3D SR would add nothing; of the two that are left, more archives and viewers take
this one than Enhanced SR. Each finding is a measurement group of TID 1410 (planar region) or, without coordinates,
of TID 1501. Codes: `exchange.reportcodes`. What readers decided follows in groups of their own, each by its observer
(`exchange.readerverdicts`).

No other woman's id is written: a similar case is named by its row in the gallery, and only where it may be shown.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydicom.dataset import Dataset

from embedder import dicomheader, dicomvalues
from exchange import ExchangeError
from exchange import reportcodes as rc
from exchange.dicomtext import clean_line, clean_text
from exchange.opinions import SecondOpinion, SimilarCase, StudyOpinions
from exchange.readerverdicts import ReaderVerdict, verdict_group
from exchange.reportgroups import ALGORITHM, comment, measurement_group
from exchange.results import ResultOptions, set_time, structured_reporting
from exchange.sourceheader import SourceHeader, image_name, source_header
from exchange.uids import derived_uid

SERIES_DESCRIPTION = "mammoseek similar cases, RESEARCH USE, not for diagnosis"
RESEARCH_NOTE = (
    "For research use only. Not a medical device, and nothing in this document is a diagnosis. Nobody has verified it."
)


def study_report(
    opinions: StudyOpinions,
    images: Iterable[Dataset],
    options: ResultOptions | None = None,
    *,
    verdicts: Sequence[ReaderVerdict] = (),
) -> Dataset:
    """Return a study's second opinions as a structured report, ready to be saved.

    Its SOP Instance UID follows from study, content and model: the same triage made twice gives the same one. It is
    PARTIAL and UNVERIFIED, and says in its title, its series and its text that it is for research. All text is UTF-8.

    Args:
        opinions: What there is to say; one detection at least where there are no verdicts.
        images: Headers of the study's images, those of all detections among them; pixels are not needed.
        options: How it is written.
        verdicts: What readers decided of it.

    Raises:
        ExchangeError: highdicom is not installed, there is nothing to say, an image is missing, is of another study or
            woman or has another side than its detection, or a detection does not lie on its image.
    """
    sr = structured_reporting()
    options = options or ResultOptions()
    if not opinions.opinions and not verdicts:
        raise ExchangeError(
            f"study {opinions.study_uid}", "there is no finding to report", "write reports of studies with detections"
        )
    _check_names(opinions)
    given = list(images)
    header = source_header(given, study_uid=opinions.study_uid, patient_id=opinions.patient_id)
    by_uid = {dicomvalues.text(image, "SOPInstanceUID"): image for image in given}
    groups = []
    cases: dict[str | None, Dataset] = {}
    for opinion in opinions.opinions:
        image = _image_of(opinion, by_uid)
        tracking = derived_uid(options.uid_root, "finding", opinions.study_uid, opinion.detection_id)
        groups.append(measurement_group(sr, opinions, opinion, image, _side(opinion, image), tracking))
        cases |= {case.sop_uid: _case_image(case) for case in opinion.similar if case.has_reference}
    for verdict in verdicts:
        seen = None if verdict.sop_uid is None else _image_of(verdict.place, by_uid)
        side = verdict.laterality if seen is None else _side(verdict.place, seen)
        tracking = derived_uid(options.uid_root, "verdict", opinions.study_uid, verdict.verdict_id)
        groups.append(verdict_group(sr, verdict, seen, side, tracking))
    content = sr.MeasurementReport(
        observation_context=_observer(sr, opinions, options),
        procedure_reported=rc.MAMMOGRAPHY,
        imaging_measurements=groups,
        title=rc.REPORT_TITLE,
    )
    _say_research(sr, content[0].ContentSequence, header)
    patient_name = header.attributes.PatientName
    header.attributes.PatientName = ""  # highdicom warns of names without a caret, which are as good as others
    document: Dataset = sr.ComprehensiveSR(
        evidence=[header.attributes, *header.images[1:], *cases.values()],
        content=content,
        series_instance_uid=derived_uid(options.uid_root, "report series", opinions.study_uid, opinions.model_digest),
        series_number=options.series_number,
        sop_instance_uid=derived_uid(options.uid_root, "report", *_content(opinions, header, verdicts)),
        instance_number=1,
        manufacturer=ALGORITHM,
        manufacturer_model_name=ALGORITHM,
        software_versions=clean_line(opinions.version, 64) or None,
        series_description=SERIES_DESCRIPTION,
        content_qualification="RESEARCH",
        coding_schemes=[_scheme()],
        requested_procedures=header.requests or None,
        specific_character_set="ISO_IR 192",
    )
    document.PatientName = patient_name
    set_time(document, options.created)
    return document


def _check_names(opinions: StudyOpinions) -> None:
    """Refuse detections whose names are one and the same as DICOM has them."""
    names: dict[str, str] = {}
    for opinion in opinions.opinions:
        other = names.setdefault(clean_text(opinion.detection_id), opinion.detection_id)
        if other != opinion.detection_id:
            raise ExchangeError(
                f"detection {opinion.detection_id[:80]!r}",
                f"its name differs from {other[:80]!r} only by characters that DICOM does not have",
                "rename it",
            )


def _image_of(opinion: SecondOpinion, by_uid: Mapping[str | None, Dataset]) -> Dataset:
    name = f"detection {opinion.detection_id[:80]!r}"
    if opinion.sop_uid is None:
        raise ExchangeError(
            name,
            f"its image {opinion.path or ''} has no SOP Instance UID, as DICOM files have",
            "report findings on DICOM images",
        )
    if opinion.sop_uid not in by_uid:
        raise ExchangeError(
            name, f"its image {opinion.sop_uid} is not among those given", "give the headers of all images of the study"
        )
    return by_uid[opinion.sop_uid]


def _side(opinion: SecondOpinion, image: Dataset) -> str | None:
    """Return the breast that a finding lies in; refuse one that its image contradicts."""
    frame = (opinion.frame_number or 1) - 1
    own = dicomheader.laterality(image, frame)
    if own is not None and opinion.laterality is not None and own != opinion.laterality:
        raise ExchangeError(
            image_name(image),
            f"it shows the breast {own}, and the detection {opinion.detection_id[:80]!r} lies in {opinion.laterality}",
            "find out which of them is wrong",
        )
    return opinion.laterality or own


def _case_image(case: SimilarCase) -> Dataset:
    image = Dataset()
    image.StudyInstanceUID, image.SeriesInstanceUID = case.study_uid, case.series_uid
    image.SOPInstanceUID, image.SOPClassUID = case.sop_uid, case.sop_class_uid
    return image


def _observer(sr: Any, opinions: StudyOpinions, options: ResultOptions) -> Any:
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=derived_uid(options.uid_root, "device", opinions.version, opinions.model_digest),
        name=ALGORITHM,
        manufacturer_name=ALGORITHM,
        model_name=clean_text(f"{ALGORITHM} {opinions.version}"),
    )
    context = sr.ObserverContext(rc.DEVICE, device)
    return sr.ObservationContext(observer_device_context=context)


def _say_research(sr: Any, root: Any, header: SourceHeader) -> None:
    """Say at the head of a document that it is for research, and at its end what its images did not tell."""
    modifier = sr.CodeContentItem(
        rc.TITLE_MODIFIER, rc.private_code("RESEARCH-ONLY"), relationship_type="HAS CONCEPT MOD"
    )
    root.insert(1, modifier)
    root.extend(comment(sr, text) for text in (RESEARCH_NOTE, *header.notes))


def _scheme() -> Any:
    from highdicom.coding_schemes import CodingSchemeIdentificationItem

    return CodingSchemeIdentificationItem(
        rc.SCHEME, name=rc.SCHEME_NAME, version=rc.SCHEME_VERSION, responsible_organization=ALGORITHM
    )


def _content(opinions: StudyOpinions, header: SourceHeader, verdicts: Sequence[ReaderVerdict]) -> tuple[str, ...]:
    """Return what a report's UID follows from: all that is said, but not where the files lie, and of which images."""
    said = opinions.to_dict()
    for opinion in said["opinions"]:
        del opinion["path"]
    images = [str(image.SOPInstanceUID) for image in header.images]
    decided = [json.dumps(verdict.to_dict(), sort_keys=True) for verdict in verdicts]
    return json.dumps(said, sort_keys=True), *images, rc.SCHEME_VERSION, *decided
