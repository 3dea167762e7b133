"""Candidates of our own on the images of a study that came without a CAD report."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from classifiers.cases import Source
from embedder import dicomheader
from embedder.dicom import read_attributes
from errors import MammoseekError
from exchange import ExchangeError
from exchange.detecting import DETECTOR, Detector
from exchange.detections import Detection
from exchange.gatekeeper import judge_image
from exchange.images import ImageCatalogue, ImageFacts
from exchange.verdicts import REFUSE

DATASET = "pacs"
"""Data set of the women of received studies. Their ids count in every data set of the gallery."""

_TOLD = 3


def study_candidates(
    detector: Detector, folder: Path, catalogue: ImageCatalogue, say: Callable[[str], None]
) -> list[Detection]:
    """Propose places on the mammograms of a study that the gatekeeper lets in.

    Args:
        detector: Who proposes.
        folder: The study. What is no mammogram in it is passed over.
        catalogue: Its images.
        say: Told of images that are not searched, a line each.

    Returns:
        Candidates named by image and rank, wherever the folder lies; each says where it comes from, and how many
        images were not searched.

    Raises:
        ExchangeError: There are mammograms, of which none was refused and none can be searched.
    """
    found: list[Detection] = []
    refused, failed, searched = [], [], 0
    for path in sorted(one for one in Path(folder).rglob("*") if _is_mammogram(one)):
        verdict = judge_image(path)
        if verdict.verdict == REFUSE:
            refused.append(f"{path.name}: {'; '.join(verdict.reasons)}")
            continue
        try:
            found += _on_image(detector, path, catalogue)
            searched += 1
        except MammoseekError as error:
            failed.append(f"{path.name}: {error.cause}")
    for reason in (*refused, *failed):
        say(f"not searched: {reason}")
    if failed and not searched:
        raise ExchangeError(folder, f"none of its images can be searched ({failed[0]})")
    note = _note(searched, len(refused) + len(failed), [*refused, *failed])
    return [replace(one, note=note) for one in found]


def _on_image(detector: Detector, path: Path, catalogue: ImageCatalogue) -> list[Detection]:
    facts = catalogue.image(str(path.resolve()))
    if facts.patient_id is None:
        # As with a CAD report: who she is must be known, for she must not answer her own query.
        raise ExchangeError(path, "does not say whose it is (Patient ID)", "send it with the woman's id")
    answer = detector.detect(Source(path, patient=facts.patient_id))
    return [
        replace(one, detection_id=_name(facts, rank), path=facts.path, dataset=DATASET, patient_id=facts.patient_id)
        for rank, one in enumerate(answer.detections, start=1)
    ]


def _name(facts: ImageFacts, rank: int) -> str:
    return f"{facts.sop_uid or Path(facts.path).stem}-{rank:04d}"


def _is_mammogram(path: Path) -> bool:
    """Tell whether a file is a mammogram; reports and presentation states are not, a damaged file may be one."""
    if not path.is_file():
        return False
    try:
        return dicomheader.why_not_mammogram(read_attributes(path, dicomheader.KEYWORDS)) is None
    except MammoseekError:
        return True  # the gatekeeper refuses it, and says why


def _note(searched: int, left: int, reasons: list[str]) -> str:
    note = f"a candidate of {DETECTOR}: no CAD report came with the study; it misses many lesions"
    if left:
        note += f"; {left} of {searched + left} images were not searched ({reasons[0]})"
    return note
