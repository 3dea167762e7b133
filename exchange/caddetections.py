"""The findings of a CAD report as detections on the images that a caller has."""

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from embedder.findings import Box
from exchange import ExchangeError, cadcodes
from exchange.cadreport import CadFinding, CadReport, CompositeFeature, LibraryImage, Place, Problem
from exchange.contentitems import printable
from exchange.detections import Detection
from exchange.spatialcoordinates import CoordinatesError, Point, box_around, box_of, outline_points

PRESENTATIONS = ("required", "optional", "all")


class ReferencedImage(Protocol):
    """An image that a report may refer to, as a caller has it: an `embedder.header.Header` with a data set's name."""

    @property
    def path(self) -> str:
        """The image file."""

    @property
    def dataset(self) -> str:
        """Where the woman's id is unique."""

    @property
    def patient_id(self) -> str | None:
        """The woman."""

    @property
    def rows(self) -> int:
        """Rows of the stored image."""

    @property
    def columns(self) -> int:
        """Its columns."""

    @property
    def spacing_mm(self) -> float | None:
        """Millimetres per pixel."""

    @property
    def laterality(self) -> str | None:
        """`L` or `R`."""

    @property
    def view(self) -> str | None:
        """One of `embedder.findings.VIEWS`."""


@dataclass(frozen=True)
class CadConfig:
    """Which findings become detections, and how large a finding without an outline is.

    Args:
        presentation: `required` takes the findings that a viewer is expected to present, `optional` also those that
            it may present, `all` also those not for presentation and those that say nothing (PS3.16 CID 6034).
        centre_mm: Side of the box around a centre, in millimetres.
        centre_pixels: Side of that box in pixels, where the millimetres per pixel are unknown.

    Raises:
        ExchangeError: A value makes no sense.
    """

    presentation: str = "required"
    centre_mm: float = 10.0
    centre_pixels: float | None = None

    def __post_init__(self) -> None:
        if self.presentation not in PRESENTATIONS:
            raise ExchangeError(
                "presentation", f"{self.presentation!r} is unknown", f"give one of {', '.join(PRESENTATIONS)}"
            )
        for name, value in (("centre_mm", self.centre_mm), ("centre_pixels", self.centre_pixels)):
            if value is not None and not 0 < value < 10_000:
                raise ExchangeError(name, f"{value} is no side of a box", "give a positive number")

    def takes(self, intent: str | None) -> bool:
        """Tell whether findings of a rendering intent are taken."""
        taken = {"required": ("required",), "optional": ("required", "optional")}.get(self.presentation)
        return taken is None or intent in taken


def cad_detections(
    report: CadReport, images: Mapping[str, ReferencedImage], config: CadConfig | None = None
) -> tuple[list[Detection], list[Problem]]:
    """Return a CAD report's findings as detections, in the document's order, features without shown findings last.

    A detection's box is that of the finding's outline, else (for a cluster) of the calcifications in it, else a square
    around its centre; an outline that is the box itself is none. Its score is the probability of cancer, else the
    certainty of the finding, else those of the composite feature that it belongs to. The findings of a composite
    feature are views of one lesion and share its id, unless they are related contralaterally and do not all lie in one
    breast. Of a feature whose findings are not presented, the feature's own places are taken. The calcifications of a
    cluster make no detections of their own, nor does what marks no lesion (nipple, breast geometry and composition,
    image quality, selected region, non-lesion).

    Args:
        report: The report.
        images: By SOP instance UID, the images at hand.
        config: Which findings, and the size of the box around a centre.

    Returns:
        The detections, and the problems: those of the report, then each finding that is no detection although it
        should be, and why.
    """
    return _Conversion(report, images, config or CadConfig()).run()


@dataclass(frozen=True)
class _Group:
    """The composite feature that a finding belongs to."""

    feature: CompositeFeature
    lesion_id: str | None


class _Conversion:
    def __init__(self, report: CadReport, images: Mapping[str, ReferencedImage], config: CadConfig) -> None:
        self.report, self.images, self.config = report, images, config
        self.library = {image.sop_uid: image for image in report.images}
        self.findings = {finding.item: finding for finding in report.findings}
        self.composites = {feature.item: feature for feature in report.composites}
        self.problems = list(report.problems)
        self.extents: dict[tuple[str, str | None], list[Point]] = {}

    def run(self) -> tuple[list[Detection], list[Problem]]:
        presented = {item for item, finding in self.findings.items() if self._is_presented(finding)}
        presented |= {item for item, feature in self.composites.items() if self._is_presented(feature)}
        groups: dict[str, _Group] = {}
        for feature in self.report.composites:
            # Outer features come first, and theirs is the widest group: one that was reached before adds nothing.
            if feature.item in presented and feature.item not in groups:
                reached = self._reach(feature, groups)
                # An asymmetry is always related to the other breast, and may be seen in two views of this one.
                related = feature.relation != cadcodes.CONTRALATERAL or self._in_one_breast(reached)
                group = _Group(feature, f"{self.report.sop_uid}#{feature.item}" if related else None)
                for item in reached:
                    groups[item] = group
        shown = [finding for finding in self.report.findings if finding.item in presented]
        in_clusters = {part for one in shown if one.kind not in cadcodes.SPECKS for part in one.parts}
        wanted: list[CadFinding] = [
            one for one in shown if not (one.item in in_clusters and one.kind in cadcodes.SPECKS)
        ]
        # What can only be shown by the feature itself.
        wanted += [
            feature
            for feature in self.report.composites
            if feature.item in presented and presented.isdisjoint(feature.parts)
        ]
        detections = [one for finding in wanted for one in self._detections(finding, groups.get(finding.item))]
        return detections, self.problems

    def _is_presented(self, finding: CadFinding) -> bool:
        return finding.kind not in cadcodes.NO_LESIONS and self.config.takes(finding.intent)

    def _reach(self, feature: CadFinding, known: Container[str]) -> list[str]:
        """Return a feature's item and those that it was inferred from, through features in it, without known ones."""
        seen, waiting = {feature.item: None}, list(feature.parts)
        while waiting:
            item = waiting.pop()
            if item not in seen and item not in known:  # a circle of references ends here
                seen[item] = None
                waiting.extend(self.composites[item].parts if item in self.composites else ())
        return list(seen)

    def _in_one_breast(self, items: list[str]) -> bool:
        """Tell whether all findings among some items lie in the same known breast."""
        places = [place for item in items if item in self.findings for place in self.findings[item].places]
        sides = {self.library[place.image].laterality if place.image in self.library else None for place in places}
        return len(sides) == 1 and None not in sides

    def _problem(self, finding: CadFinding, message: str) -> None:
        told = printable(f"item {finding.item} ({finding.kind}): {message}", 400)
        self.problems.append(Problem(self.report.source, told))

    def _detections(self, finding: CadFinding, group: _Group | None) -> Iterator[Detection]:
        if not finding.places:
            self._problem(finding, "it has no coordinates")
        for position, place in enumerate(finding.places):
            try:
                yield self._detection(finding, group, place, position)
            except CoordinatesError as error:
                self._problem(finding, str(error))

    def _detection(self, finding: CadFinding, group: _Group | None, place: Place, position: int) -> Detection:
        """Return the detection at one place.

        Raises:
            CoordinatesError: The place can't be used; the text says why.
        """
        notes: list[str] = []
        uid, image = self._image(place)
        said = self.library.get(uid, LibraryImage(uid))
        if self.report.patient_id is None:
            notes.append("the report does not name its patient")
        spacing = image.spacing_mm if image.spacing_mm is not None else said.square_spacing_mm
        box, outline = self._box(finding, place, image, spacing, notes)
        for name, ours, theirs in (
            ("laterality", image.laterality, said.laterality),
            ("view", image.view, said.view),
        ):
            if ours is not None and theirs is not None and ours != theirs:
                notes.append(f"its {name} is {ours} in the image and {theirs} in the report")
        if len(place.frames) > 1:
            notes.append(f"marked on {len(place.frames)} frames, of which this is the first")
        score, origin = _score(finding, group)
        if origin is not None:
            notes.append(origin)
        algorithm = finding.algorithm or (group.feature.algorithm if group is not None else None)
        suffix = f"/{position + 1}" if position else ""
        return Detection(
            detection_id=f"{self.report.sop_uid}#{finding.item}{suffix}",
            path=str(image.path),
            dataset=image.dataset,
            patient_id=str(image.patient_id),
            x0=box.x0,
            y0=box.y0,
            x1=box.x1,
            y1=box.y1,
            outline=outline,
            score=score,
            lesion_type=_lesion_type(finding, group),
            native_label=str(finding.kind),
            detector=_known(algorithm.name or self.report.model if algorithm is not None else self.report.model),
            detector_version=_known(algorithm.version if algorithm is not None else None),
            lesion_id=group.lesion_id if group is not None else None,
            sop_uid=uid,
            study_id=said.study_uid or self.report.study_uid,
            laterality=image.laterality or said.laterality,
            view=image.view or said.view,
            spacing_mm=spacing,
            image_rows=image.rows,
            image_columns=image.columns,
            frame_number=place.frames[0] if place.frames else None,
            note="; ".join(notes) or None,
        )

    def _image(self, place: Place) -> tuple[str, ReferencedImage]:
        if place.image is None:
            raise CoordinatesError("its coordinates name no image")
        image = self.images.get(place.image)
        if image is None:
            raise CoordinatesError(f"its image {place.image} is not here")
        if image.patient_id is None:
            raise CoordinatesError(f"its image {image.path} does not name its woman")
        if self.report.patient_id is not None and image.patient_id != self.report.patient_id:
            raise CoordinatesError(
                f"its image {image.path} is of the patient {image.patient_id}, and the report of"
                f" {self.report.patient_id}"
            )
        return place.image, image

    def _box(
        self, finding: CadFinding, place: Place, image: ReferencedImage, spacing: float | None, notes: list[str]
    ) -> tuple[Box, tuple[Point, ...] | None]:
        size = image.rows, image.columns
        if place.outline is not None:
            outline = outline_points(*place.outline, *size)
            box = box_of(outline, *size)
            return box, outline if len(outline) > 2 and not _is_rectangle(outline, box) else None
        # A composite feature's own centre is as good as the places of its findings, and they are not to be shown.
        parts = () if isinstance(finding, CompositeFeature) else finding.parts
        specks = [corner for part in parts for corner in self._extent(part, place.image, size)]
        if specks:
            notes.append("the box is that of the calcifications in it")
            return box_of(specks, *size), None
        if place.centre is None:  # a place has one of the two
            raise CoordinatesError("it has no coordinates")
        centre = outline_points(*place.centre, *size)[0]
        side = self.config.centre_mm / spacing if spacing is not None else self.config.centre_pixels
        if side is None:
            raise CoordinatesError(
                "it has a centre and no outline, and the pixel size is unknown: give a size in pixels"
            )
        notes.append("the box is a square of a set size around its centre")
        return box_around(centre, side, *size), None

    def _extent(self, part: str, image: str | None, size: tuple[int, int]) -> list[Point]:
        """Return the corners of a part's places on an image; worked out once, however often it is referred to."""
        key = (part, image)
        if key not in self.extents:
            places = self.findings[part].places if part in self.findings else ()
            drawn = [place.outline or place.centre for place in places if place.image == image]
            corners = [point for one in drawn if one is not None for point in outline_points(*one, *size)]
            x, y = [corner[0] for corner in corners], [corner[1] for corner in corners]
            self.extents[key] = [(min(x), min(y)), (max(x), max(y))] if corners else []
        return self.extents[key]


def _is_rectangle(outline: tuple[Point, ...], box: Box) -> bool:
    corners = {(box.x0, box.y0), (box.x1, box.y0), (box.x1, box.y1), (box.x0, box.y1)}
    return len(outline) == len(corners) and set(outline) == corners


def _known(name: str | None) -> str | None:
    """Return a name of TID 4019; None where it only says that nobody knows."""
    return None if name == cadcodes.UNKNOWN else name


def _score(finding: CadFinding, group: _Group | None) -> tuple[float | None, str | None]:
    """Return a score in [0, 1], and a note where it is not the finding's own probability of cancer."""
    if finding.probability is not None:
        return finding.probability, None
    if finding.certainty is not None:
        return finding.certainty, "the score is the certainty of the finding"
    if group is not None and group.feature.probability is not None:
        return group.feature.probability, "the score is that of the composite feature"
    if group is not None and group.feature.certainty is not None:
        return group.feature.certainty, "the score is the certainty of the composite feature"
    return None, None


def _lesion_type(finding: CadFinding, group: _Group | None) -> str | None:
    """Return the term for a finding; a density in one view is what the feature of several views says that it is."""
    own = cadcodes.LESION_TYPES.get(finding.kind)
    if group is not None and (own is None or finding.kind in cadcodes.DENSITIES):
        return cadcodes.LESION_TYPES.get(group.feature.kind, own)
    return own
