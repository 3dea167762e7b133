"""Mammography CAD SR documents as detections, on the images of a catalogue."""

from pathlib import Path
from typing import cast

from exchange import ExchangeError
from exchange.caddetections import CadConfig, ReferencedImage, cad_detections
from exchange.cadreport import CadReport
from exchange.cadsr import read_cad_sr
from exchange.detections import Detection
from exchange.formats.marks import Reading
from exchange.images import ImageCatalogue, ImageFacts, Progress


def read_cad(
    path: Path, catalogue: ImageCatalogue, config: CadConfig, because: str, progress: Progress | None = None
) -> Reading:
    """Read a CAD report, or all of a folder, as detections.

    Args:
        path: The file or folder.
        catalogue: The images, found by their SOP Instance UIDs.
        config: Which findings are taken, and how large one without an outline is.
        because: Why it was taken for reports.
        progress: Called with images read and images in all.

    Raises:
        ExchangeError: A file that is read alone is no CAD report.
    """
    detections: list[Detection] = []
    problems: list[tuple[str, str]] = []
    notes: list[str] = []
    for place in sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]:
        try:
            report = read_cad_sr(place)
        except ExchangeError as error:
            if place == path:
                raise
            problems.append((str(place), error.cause))
            continue
        images = catalogue.look_up(_image_uids(report), progress)
        known = {uid: facts for uid, facts in images.items() if isinstance(facts, ImageFacts) and facts.rows}
        found, wrong = cad_detections(report, cast("dict[str, ReferencedImage]", known), config)
        detections += found
        problems += [(f"{place.name}, {one.subject}", one.message) for one in wrong]
        if report.failed:
            kinds = ", ".join(dict.fromkeys(str(one.kind) for one in report.failed))
            notes.append(f"{place.name}: not all was looked for or analysed to the end: {kinds}")
    return Reading("cad-sr", because, tuple(_once(detections)), tuple(problems), tuple(notes))


def _image_uids(report: CadReport) -> list[str]:
    """Return the images that a report's findings lie on, each once."""
    places = [place for finding in (*report.findings, *report.composites) for place in finding.places]
    named = [place.image for place in places if place.image is not None]
    return list(dict.fromkeys([*(image.sop_uid for image in report.images), *named]))


def _once(detections: list[Detection]) -> list[Detection]:
    """Return detections without those that a copy of the same report says again."""
    return list({one.detection_id: one for one in detections}.values())
