"""What a Mammography CAD SR document says (PS3.16 TID 4000 and its children): findings, features, algorithms."""

from dataclasses import dataclass
from typing import NamedTuple

from exchange.contentitems import Concept


class Problem(NamedTuple):
    """Something that could not be used, while the rest could; a pair as `console.report_failures` lists them."""

    subject: str
    message: str


@dataclass(frozen=True)
class Algorithm:
    """An algorithm as TID 4019 names it."""

    name: str | None = None
    version: str | None = None
    maker: str | None = None


@dataclass(frozen=True)
class LibraryImage:
    """An image of the report's library (TID 4020); what it does not say is None.

    Args:
        sop_uid: SOP instance UID.
        laterality: `L` or `R`.
        view: One of `embedder.findings.VIEWS`.
        view_modifiers: Codes of CID 4015.
        orientation: Patient orientation of the rows and the columns, such as ("A", "F").
        spacing_mm: Millimetres per pixel (vertical, horizontal).
        study_uid: The examination, from the document's evidence sequences.
    """

    sop_uid: str
    laterality: str | None = None
    view: str | None = None
    view_modifiers: tuple[Concept, ...] = ()
    orientation: tuple[str | None, str | None] = (None, None)
    spacing_mm: tuple[float | None, float | None] = (None, None)
    study_uid: str | None = None

    @property
    def square_spacing_mm(self) -> float | None:
        """Millimetres per pixel; None where they are unknown or differ by more than 1 %."""
        vertical, horizontal = self.spacing_mm
        if vertical is None or horizontal is None or abs(vertical - horizontal) > 0.01 * max(vertical, horizontal):
            return None
        return vertical


@dataclass(frozen=True)
class Place:
    """Where a finding lies (TID 4021), as the document has it: graphic type and points (column, row).

    Args:
        image: SOP instance UID of the image; None where it names none.
        frames: Its frames, from 1; empty for all.
        centre: Points of the centre, most often one.
        outline: Graphic type and points of the outline.
    """

    image: str | None
    frames: tuple[int, ...] = ()
    centre: tuple[str | None, tuple[tuple[float, float], ...]] | None = None
    outline: tuple[str | None, tuple[tuple[float, float], ...]] | None = None


@dataclass(frozen=True)
class CadFinding:
    """A single image finding (TID 4006).

    Args:
        item: Its place in the content tree, such as `1.3.1.2`.
        kind: Code of CID 6014.
        intent: `required`, `optional` or `not for presentation`, the least of its own and of what it lies in; None
            where none of them says.
        algorithm: What found it.
        certainty: Certainty of the finding, in [0, 1].
        probability: Probability of cancer, in [0, 1].
        places: Where it is.
        area_mm2: Area of the defined region.
        descriptors: What else is said of it: name, and value as a code, a number, or a text.
        parts: Items of the findings and features that it was inferred from, in this document.
    """

    item: str
    kind: Concept
    intent: str | None = None
    algorithm: Algorithm | None = None
    certainty: float | None = None
    probability: float | None = None
    places: tuple[Place, ...] = ()
    area_mm2: float | None = None
    descriptors: tuple[tuple[Concept, Concept | float | str], ...] = ()
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class CompositeFeature(CadFinding):
    """A feature inferred from several findings (TID 4004 and 4005), such as one mass in CC and MLO.

    Args:
        relation: How they are related (CID 6035).
        scope: On how many images it was detected (CID 6036).
    """

    relation: Concept | None = None
    scope: Concept | None = None


@dataclass(frozen=True)
class Impression:
    """What the document concludes (TID 4002), overall or for one group of findings (TID 4003).

    Args:
        item: Its place in the content tree.
        intent: As of a finding; None for the overall impression.
        assessment: Category of CID 6026.
        follow_up: Recommended follow-up of CID 6028.
        text: Description.
        certainty: In [0, 1].
    """

    item: str
    intent: str | None = None
    assessment: Concept | None = None
    follow_up: tuple[Concept, ...] = ()
    text: str | None = None
    certainty: float | None = None


@dataclass(frozen=True)
class Performed:
    """A detection or analysis that was tried (TID 4017 and 4018).

    Args:
        kind: What was looked for (CID 6014) or analysed (CID 6043).
        succeeded: Whether it came to an end.
        algorithm: What did it.
        images: SOP instance UIDs of the images that it worked on.
    """

    kind: Concept
    succeeded: bool
    algorithm: Algorithm | None = None
    images: tuple[str, ...] = ()


@dataclass(frozen=True)
class CadReport:
    """A Mammography CAD SR document.

    Args:
        source: Where it was read from.
        sop_uid: Its SOP instance UID.
        patient_id: The woman; None where it does not name her.
        study_uid: The examination that the report belongs to.
        series_uid: Its series.
        manufacturer: Maker of the device.
        model: Model name of the device.
        software: Its software versions.
        summary: CAD Processing and Findings Summary, a code of CID 6047.
        overall: The overall impression; nothing but its item where the document has none.
        images: The image library.
        impressions: The individual impressions.
        composites: The composite features, outer ones before those in them.
        findings: The single image findings.
        detections_status: Summary of Detections, a code of CID 6042.
        analyses_status: Summary of Analyses.
        performed: The detections and analyses that were tried.
        problems: What could not be read.
    """

    source: str
    sop_uid: str
    summary: Concept
    overall: Impression
    patient_id: str | None = None
    study_uid: str | None = None
    series_uid: str | None = None
    manufacturer: str | None = None
    model: str | None = None
    software: tuple[str, ...] = ()
    images: tuple[LibraryImage, ...] = ()
    impressions: tuple[Impression, ...] = ()
    composites: tuple[CompositeFeature, ...] = ()
    findings: tuple[CadFinding, ...] = ()
    detections_status: Concept | None = None
    analyses_status: Concept | None = None
    performed: tuple[Performed, ...] = ()
    problems: tuple[Problem, ...] = ()

    @property
    def failed(self) -> tuple[Performed, ...]:
        """The detections and analyses that did not succeed: no finding of theirs is no absence of findings."""
        return tuple(one for one in self.performed if not one.succeeded)

    @property
    def algorithms(self) -> tuple[Algorithm, ...]:
        """Every algorithm that ran or found something, each once."""
        found = [one.algorithm for one in self.performed]
        found += [one.algorithm for one in (*self.findings, *self.composites)]
        return tuple(dict.fromkeys(one for one in found if one is not None))
