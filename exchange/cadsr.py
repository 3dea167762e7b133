"""Read a Mammography CAD SR document (PS3.3 A.35.5, PS3.16 TID 4000): what a detector found, where, and how sure."""

from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import UID

from embedder import dicomheader, dicomvalues
from embedder.quiet import quiet_libraries
from exchange import ExchangeError, cadcodes
from exchange.cadreport import (
    Algorithm,
    CadFinding,
    CadReport,
    CompositeFeature,
    Impression,
    LibraryImage,
    Performed,
    Place,
    Problem,
)
from exchange.contentitems import Concept, ContentItem, ContentTree, Identifier, printable, read_content_tree, sequence
from exchange.srfile import read_sr_file

_COPY_AGAIN = "copy it again from its source"


def read_cad_sr(document: Path | str | Dataset) -> CadReport:
    """Read a Mammography CAD SR document.

    SNOMED RT codes are read as SNOMED CT. What is malformed but not needed is left unknown and named in the report's
    problems; a document that is cut short is refused, so that no finding gets lost unsaid.

    Args:
        document: The DICOM file, or its data set.

    Raises:
        ExchangeError: It can't be read, is another kind of document, is damaged, or is beyond any report's size.
    """
    source = "CAD SR" if isinstance(document, Dataset) else str(document)
    with quiet_libraries():
        dataset = document if isinstance(document, Dataset) else read_sr_file(Path(document))
        _check_kind(source, dataset)
        tree = read_content_tree(dataset, source)
        if tree.root.name != cadcodes.REPORT:
            raise ExchangeError(source, f"it is no mammography CAD report but: {tree.root.name or 'untitled'}")
        return _Reading(source, dataset, tree).report()


def _check_kind(source: str, dataset: Dataset) -> None:
    kind = dicomvalues.text(dataset, "SOPClassUID")
    if kind != cadcodes.MAMMOGRAPHY_CAD_SR:
        raise ExchangeError(
            source,
            f"it is no Mammography CAD SR but {UID(kind).name if kind else 'an object of no class'}",
            "give the report of a mammography CAD system",
        )
    template = dicomvalues.item(dataset, "ContentTemplateSequence")
    number = dicomvalues.text(template, "TemplateIdentifier") if template is not None else None
    if number is not None and number != "4000":
        raise ExchangeError(source, f"its template is {number}, and that of mammography CAD is 4000")


@dataclass
class _Reading:
    """One pass over a document's tree."""

    source: str
    dataset: Dataset
    tree: ContentTree
    problems: list[Problem] = field(default_factory=list)

    def report(self) -> CadReport:
        root = self.tree.root
        sop_uid = dicomvalues.text(self.dataset, "SOPInstanceUID")
        if sop_uid is None:
            raise ExchangeError(self.source, "it has no SOP Instance UID", _COPY_AGAIN)
        summary = root.first(cadcodes.SUMMARY)
        if summary is None or summary.code is None:
            raise ExchangeError(self.source, "it has no CAD Processing and Findings Summary", _COPY_AGAIN)
        library = root.first(cadcodes.IMAGE_LIBRARY)
        studies = _evidence(self.dataset, self.source)
        images = [self._image(entry, studies) for entry in (library.children if library is not None else ())]
        intents = _intents(root)
        # Only below the summary: the lists of algorithms name kinds of findings, too.
        below = list(summary.walk())
        findings = [
            CadFinding(**self._feature(item, intents, cadcodes.FINDING_CERTAINTY))
            for item in below
            if item.value_type == "CODE" and item.name == cadcodes.SINGLE_IMAGE_FINDING
        ]
        composites = [
            CompositeFeature(
                **self._feature(item, intents, cadcodes.FEATURE_CERTAINTY),
                relation=_code(item, cadcodes.COMPOSITE_TYPE),
                scope=_code(item, cadcodes.FEATURE_SCOPE),
            )
            for item in below
            if item.value_type == "CODE" and item.name == cadcodes.COMPOSITE_FEATURE
        ]
        if summary.code in cadcodes.WITH_FINDINGS and not findings and not composites:
            self._note(summary, f"its summary says «{summary.code}», and there are none")
        return CadReport(
            source=self.source,
            sop_uid=sop_uid,
            summary=summary.code,
            patient_id=dicomheader.patient_id(self.dataset),
            study_uid=dicomvalues.text(self.dataset, "StudyInstanceUID"),
            series_uid=dicomvalues.text(self.dataset, "SeriesInstanceUID"),
            manufacturer=dicomvalues.text(self.dataset, "Manufacturer"),
            model=dicomvalues.text(self.dataset, "ManufacturerModelName"),
            software=tuple(str(version) for version in dicomvalues.values(self.dataset, "SoftwareVersions")),
            overall=self._impression(summary, None),
            images=tuple(image for image in images if image is not None),
            impressions=tuple(
                self._impression(item, intents[item.identifier]) for item in below if item.name == cadcodes.IMPRESSION
            ),
            composites=tuple(composites),
            findings=tuple(findings),
            detections_status=_code(root, cadcodes.DETECTIONS_SUMMARY),
            analyses_status=_code(root, cadcodes.ANALYSES_SUMMARY),
            performed=tuple(self._performed(root)),
            problems=tuple(self.problems),
        )

    def _note(self, item: ContentItem, message: str) -> None:
        self.problems.append(Problem(self.source, printable(f"item {item.path}: {message}", 400)))

    def _image(self, entry: ContentItem, studies: dict[str, str]) -> LibraryImage | None:
        if entry.image is None:
            self._note(entry, "it is no image, and stands in the image library")
            return None
        view = entry.first(cadcodes.IMAGE_VIEW)
        return LibraryImage(
            sop_uid=entry.image.sop_uid,
            laterality=cadcodes.laterality_of(_code(entry, cadcodes.IMAGE_LATERALITY)),
            view=cadcodes.view_of(view.code if view is not None else None),
            # TID 4020 has the modifier below the view; some makers write it beside.
            view_modifiers=tuple(
                modifier.code
                for owner in (view, entry)
                for modifier in (owner.named(cadcodes.IMAGE_VIEW_MODIFIER) if owner is not None else ())
                if modifier.code is not None
            ),
            orientation=(_text(entry, cadcodes.ORIENTATION_ROW), _text(entry, cadcodes.ORIENTATION_COLUMN)),
            spacing_mm=(
                self._positive(entry, cadcodes.VERTICAL_SPACING),
                self._positive(entry, cadcodes.HORIZONTAL_SPACING),
            ),
            study_uid=studies.get(entry.image.sop_uid),
        )

    def _feature(self, item: ContentItem, intents: dict[Identifier, str | None], certainty: Concept) -> dict[str, Any]:
        """Return the fields that a finding and a composite feature share."""
        if item.code is None:
            self._note(item, "it does not say what was found")
        taken = {certainty, cadcodes.CANCER_PROBABILITY, cadcodes.RENDERING_INTENT, *cadcodes.AREAS}
        taken |= {cadcodes.ALGORITHM_NAME, cadcodes.ALGORITHM_VERSION, cadcodes.ALGORITHM_MAKER}
        taken |= {cadcodes.COMPOSITE_TYPE, cadcodes.FEATURE_SCOPE}
        areas = [child for name in cadcodes.AREAS for child in item.named(name) if child.value_type == "NUM"]
        return {
            "item": item.path,
            "kind": item.code or Concept("", "", "unnamed finding"),
            "intent": intents[item.identifier],
            "algorithm": _algorithm(item),
            "certainty": self._fraction(item, certainty),
            "probability": self._fraction(item, cadcodes.CANCER_PROBABILITY),
            "places": self._places(item),
            "area_mm2": next((_square_millimetres(area) for area in areas), None),
            "descriptors": tuple(
                (child.name, value)
                for child in item.children
                if child.name is not None and child.name not in taken and child.relationship == "HAS PROPERTIES"
                for value in (child.code, child.number, child.text)
                if value is not None
            ),
            "parts": tuple(self._parts(item)),
        }

    def _parts(self, item: ContentItem) -> list[str]:
        kinds = (cadcodes.SINGLE_IMAGE_FINDING, cadcodes.COMPOSITE_FEATURE)
        found = []
        for child in item.children:
            if child.relationship != "INFERRED FROM":
                continue
            target = self.tree.resolve(child)
            if target is None:
                self._note(child, "it refers to an item that is not in the document")
            elif target.name in kinds and target is not item:
                found.append(target.path)
        return list(dict.fromkeys(found))

    def _places(self, item: ContentItem) -> tuple[Place, ...]:
        """Return the places of a finding: each centre begins one, an outline of the same image belongs to it."""
        places: list[Place] = []
        for child in item.children:
            if child.value_type != "SCOORD" or child.name not in (cadcodes.CENTRE, cadcodes.OUTLINE):
                continue
            image, frames = self._source(child)
            drawn = (child.graphic, child.points)
            if child.name == cadcodes.CENTRE:
                places.append(Place(image, frames, centre=drawn))
            elif places and places[-1].image == image and places[-1].outline is None:
                places[-1] = Place(image, frames or places[-1].frames, places[-1].centre, drawn)
            else:
                places.append(Place(image, frames, outline=drawn))
        return tuple(places)

    def _source(self, item: ContentItem) -> tuple[str | None, tuple[int, ...]]:
        """Return the image that coordinates were selected from, given here or in the library."""
        for child in item.children:
            target = self.tree.resolve(child) if child.relationship == "SELECTED FROM" else None
            if target is not None and target.image is not None:
                return target.image.sop_uid, target.image.frames
        return None, ()

    def _impression(self, item: ContentItem, intent: str | None) -> Impression:
        return Impression(
            item=item.path,
            intent=intent,
            assessment=_code(item, cadcodes.ASSESSMENT),
            follow_up=tuple(one.code for one in item.named(cadcodes.FOLLOW_UP) if one.code is not None),
            text=_text(item, cadcodes.IMPRESSION_TEXT),
            certainty=self._fraction(item, cadcodes.IMPRESSION_CERTAINTY),
        )

    def _performed(self, root: ContentItem) -> list[Performed]:
        found = []
        for summary in (root.first(cadcodes.DETECTIONS_SUMMARY), root.first(cadcodes.ANALYSES_SUMMARY)):
            for group in summary.children if summary is not None else ():
                if group.name not in (*cadcodes.SUCCESSFUL, *cadcodes.FAILED):
                    continue
                for item in group.children:
                    if item.name not in cadcodes.PERFORMED or item.code is None:
                        continue
                    targets = [self.tree.resolve(child) for child in item.children]
                    images = [
                        target.image.sop_uid for target in targets if target is not None and target.image is not None
                    ]
                    succeeded = group.name in cadcodes.SUCCESSFUL
                    found.append(Performed(item.code, succeeded, _algorithm(item), tuple(dict.fromkeys(images))))
        return found

    def _fraction(self, item: ContentItem, name: Concept) -> float | None:
        """Return a measurement in percent (or, of unit 1, a fraction) in [0, 1]."""
        child = item.first(name)
        if child is None:
            return None
        whole = 1.0 if child.unit is not None and child.unit.value == "1" else 100.0
        if child.number is None or not 0 <= child.number <= whole:
            given = "no number" if child.number is None else f"{child.number:g}, not in 0 to {whole:g}"
            self._note(child, f"its {name} is {given}: taken as unknown")
            return None
        # By decimals, so that 28.9 % are 0.289 and not the next binary number beside it.
        return float(Decimal(repr(child.number)) / int(whole))

    def _positive(self, item: ContentItem, name: Concept) -> float | None:
        child = item.first(name)
        return child.number if child is not None and child.number is not None and child.number > 0 else None


def _code(item: ContentItem, name: Concept) -> Concept | None:
    child = item.first(name)
    return child.code if child is not None else None


def _text(item: ContentItem, name: Concept) -> str | None:
    child = item.first(name)
    return child.text if child is not None else None


def _algorithm(item: ContentItem) -> Algorithm | None:
    found = Algorithm(
        *(_text(item, name) for name in (cadcodes.ALGORITHM_NAME, cadcodes.ALGORITHM_VERSION, cadcodes.ALGORITHM_MAKER))
    )
    return found if found != Algorithm() else None


_SQUARE_MILLIMETRES = {"mm2": 1.0, "cm2": 100.0}


def _square_millimetres(item: ContentItem) -> float | None:
    factor = _SQUARE_MILLIMETRES.get(item.unit.value) if item.unit is not None else None
    return item.number * factor if item.number is not None and factor is not None else None


def _intents(root: ContentItem) -> dict[Identifier, str | None]:
    """Return each item's rendering intent: the least of its own and of those of the items that it lies in.

    PS3.4 O.2.1.1 forbids an item to ask for more than what it lies in.
    """
    order = list(cadcodes.INTENTS.values())
    found: dict[Identifier, str | None] = {}
    for item in root.walk():
        code = _code(item, cadcodes.RENDERING_INTENT)
        own = cadcodes.INTENTS.get(code) if code is not None else None
        above = found.get(item.identifier[:-1])
        said = [intent for intent in (own, above) if intent is not None]
        found[item.identifier] = max(said, key=order.index) if said else None
    return found


def _evidence(dataset: Dataset, source: str) -> dict[str, str]:
    """Return the study of every object that the document's evidence lists (PS3.3 C.17.2.3)."""
    found: dict[str, str] = {}
    for keyword in ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence"):
        for study in sequence(dataset, keyword, source):
            uid = dicomvalues.text(study, "StudyInstanceUID")
            for series in sequence(study, "ReferencedSeriesSequence", source):
                for one in sequence(series, "ReferencedSOPSequence", source):
                    sop_uid = dicomvalues.text(one, "ReferencedSOPInstanceUID")
                    if uid is not None and sop_uid is not None:
                        found[sop_uid] = uid
    return found
