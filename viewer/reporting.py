"""A study's structured report: what its readers decided, and the last answers that they saw of it."""

import io
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset

from exchange import ExchangeError
from exchange.opinions import Risk, SecondOpinion, SimilarCase, StudyOpinions, Vote
from exchange.readerverdicts import ReaderVerdict
from exchange.reports import study_report
from index import QueryError
from viewer.facts import own_version
from viewer.problems import ConflictError
from viewer.state import ServerState
from viewer.verdicts import Verdict

_MOST_ANSWERS = 50
_TARGET = "pathology"


def study_document(state: ServerState, study: str) -> bytes:
    """Return a study's report as a DICOM file.

    Of each place that was asked about, the last answer is told: its similar cases, and votes and probabilities where
    a reader uncovered them. What nobody saw is not told. A study of the worklist whose images name several DICOM
    studies has a report where all that was asked and decided is of images of one of them.

    Args:
        state: The server's.
        study: The study's id.

    Raises:
        ConflictError: Its images are no DICOM files of one study, or there is nothing to say.
        NotFoundError: There is no such study.
    """
    known = [one.image for one in state.catalogue.study(study).images]
    decided = [one for one in state.verdicts.of_study(study) if one.stands]
    answers, uncovered = _last_answers(state, study)
    if not decided and not answers:
        raise ConflictError(f"study {study}", "nothing was asked or decided of it", "ask or decide first")
    used = {one.image for one in decided if one.image} | {image for image, _ in answers}
    if not used or any(one.image is None for one in decided):
        used |= set(known)
    headers = {image: _header(state, image) for image in known if image in used}
    uids = {str(header.get("StudyInstanceUID", "")) for header in headers.values()}
    if len(uids) != 1 or "" in uids:
        cause = "what was asked and decided is of images of several DICOM studies"
        raise ConflictError(f"study {study}", cause, "no report can be of several: export the verdicts as CSV")
    places = {
        image: (str(header.SOPInstanceUID), state.catalogue.detailed(image).frame) for image, header in headers.items()
    }
    opinions = StudyOpinions(
        study_uid=uids.pop(),
        model_digest=state.gallery.identity.model_digest,
        preparation_digest=state.gallery.identity.preparation_digest,
        gallery_digest=state.gallery.manifest.segments_digest,
        gallery_generation=state.gallery.generation,
        version=own_version(),
        opinions=tuple(
            _opinion(state, places[image], box, entry, uncovered.get(entry["question_id"], []))
            for (image, box), entry in answers.items()
            if image in places
        ),
    )
    images = {str(header.SOPInstanceUID): header for header in headers.values()}
    try:
        document = study_report(opinions, images.values(), verdicts=[_verdict(one, places) for one in decided])
    except ExchangeError as error:
        raise ConflictError(f"study {study}", f"no report can be made of it ({error.cause})", error.remedy) from error
    content = io.BytesIO()
    document.save_as(content, enforce_file_format=True)
    return content.getvalue()


def _header(state: ServerState, image: str) -> Dataset:
    entry = state.catalogue.detailed(image)
    try:
        header = dcmread(entry.path, stop_before_pixels=True)
    except Exception as error:  # pydicom raises whatever a file that is none leads it to
        raise ConflictError(f"image {image}", "is no DICOM file, and so has no study to report to") from error
    if "SOPInstanceUID" not in header:
        raise ConflictError(f"image {image}", "has no SOP Instance UID", "get it again from its archive")
    return header


def _verdict(verdict: Verdict, places: Mapping[str, tuple[str, int | None]]) -> ReaderVerdict:
    sop_uid, frame = places.get(verdict.image or "", (None, None))
    return ReaderVerdict(
        verdict_id=verdict.id,
        reader=verdict.user,
        time=datetime.fromisoformat(verdict.time),
        sop_uid=sop_uid,
        frame_number=frame,
        box=verdict.box,
        detection_id=verdict.detection,
        assessment=verdict.birads,
        decision=verdict.decision,
        text=verdict.text,
    )


def _last_answers(
    state: ServerState, study: str
) -> tuple[dict[tuple[str, tuple[int, ...]], dict[str, Any]], dict[str, list[dict[str, Any]]]]:
    """Return the last answer on each place of a study, oldest first, and the opinions that were uncovered, by question.

    The audit log says what was shown.
    """
    last: dict[tuple[str, tuple[int, ...]], dict[str, Any]] = {}
    uncovered: dict[str, list[dict[str, Any]]] = {}
    for record in state.audit.entries("query", "opinion"):
        entry = record.entry
        if entry.get("study") != study:
            continue
        if entry["action"] == "opinion":
            uncovered[str(entry["question_id"])] = entry["targets"]
            continue
        image, box = entry["question"].get("image"), entry["question"].get("box")
        if image and box:
            key = (str(image), tuple(int(corner) for corner in box))
            last.pop(key, None)
            last[key] = {**entry, "time": record.time}
    return dict(list(last.items())[-_MOST_ANSWERS:]), uncovered


def _opinion(
    state: ServerState,
    place: tuple[str, int | None],
    box: tuple[int, ...],
    entry: Mapping[str, Any],
    targets: list[dict[str, Any]],
) -> SecondOpinion:
    similar, gone = [], 0
    for row, similarity in zip(entry["rows"], entry["similarities"], strict=True):
        try:
            record = state.gallery.record_of(row)
        except QueryError:  # it was removed since
            gone += 1
            continue
        outcome = record.get("pathology") or ("normal" if record.get("tissue") == "normal" else None)
        similar.append(SimilarCase(similarity, row, outcome=outcome, lesion_type=record.get("lesion_type")))
    notes = [f"Asked by {entry['user']} at {entry['time']}, question {entry['question_id']}."]
    if gone:
        notes.append(f"{gone} of the cases that were shown have left the gallery since.")
    target = next((one for one in targets if one.get("target") == _TARGET), {})
    sop_uid, frame = place
    return SecondOpinion(
        detection_id=f"question {entry['question_id']}",
        sop_uid=sop_uid,
        frame_number=frame,
        box=box,  # type: ignore[arg-type]
        similar=tuple(similar),
        vote=_vote(target),
        head_probabilities=(target.get("head") or {}).get("probabilities"),
        risk=_risk(target),
        no_close_precedent=entry.get("no_close_precedent"),
        notes=tuple(notes),
    )


def _vote(target: Mapping[str, Any]) -> Vote | None:
    vote = target.get("vote")
    return None if not vote else Vote(int(vote["neighbours"]), int(vote["women"]), dict(vote["probabilities"]))


def _risk(target: Mapping[str, Any]) -> Risk | None:
    risk = target.get("calibrated")
    return None if not risk else Risk(float(risk["probability"]), str(target.get("basis") or ""))
