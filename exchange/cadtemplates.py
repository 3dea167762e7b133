"""The content of a Mammography CAD SR document, template by template (PS3.16 TID 4000 and its children).

`exchange.cadsr` reads what stands here, `exchange.cadwriting` makes the document around it. An image is written once,
in the image library, and referred to from there, as these templates ask.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.config import RAISE
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.valuerep import validate_value

from embedder import dicomvalues
from embedder.findings import TERM_SEPARATOR
from exchange import cadcodes
from exchange.contentitems import Concept, Identifier, concept
from exchange.detections import Detection
from exchange.dicomtext import clean_text
from exchange.reportcodes import private_code

ALGORITHM = "mammoseek"

_MODIFIES, _CONTEXT, _CONTAINS = "HAS CONCEPT MOD", "HAS ACQ CONTEXT", "CONTAINS"
_PROPERTY, _INFERRED, _SELECTED = "HAS PROPERTIES", "INFERRED FROM", "SELECTED FROM"

_ENGLISH = Code("en", "RFC5646", "English")  # CID 5000
_ROOT, _LIBRARY = (1,), (1, 2)

UNSPECIFIED = private_code("FINDING")
"""A finding of which nobody said what it is; none of CID 6014's codes says so of a lesion."""

# CID 6014 has no mass, for what one image shows is a density in its edition of BI-RADS; nor has it an asymmetry or a
# mass with calcifications, whose codes are those of CID 6016.
_FINDINGS: dict[frozenset[str], Code] = {
    frozenset({"mass"}): codes.SCT.MammographyBreastDensity,
    frozenset({"calcification"}): codes.SCT.CalcificationCluster,
    frozenset({"architectural distortion"}): codes.SCT.ArchitecturalDistortionOfBreast,
    frozenset({"asymmetry"}): codes.SCT.AsymmetricBreastTissue,
    frozenset({"mass", "calcification"}): codes.DCM.MassWithCalcifications,
}
_FEATURES = {**_FINDINGS, frozenset({"mass"}): codes.SCT.MammographicBreastMass}

_SIDES = {"L": codes.SCT.LeftBreast, "R": codes.SCT.RightBreast}
_VIEWS = {
    view: code
    for code in codes.cid4014.concepts.values()
    if (view := cadcodes.view_of(Concept.of(code.value, code.scheme_designator))) is not None
}
_VIEW_MODIFIERS = {Concept.of(code.value, code.scheme_designator) for code in codes.cid4015.concepts.values()}

Detector = tuple[str | None, str | None]
"""Name and version."""


@dataclass(frozen=True, eq=False)
class LibraryEntry:
    """An image of the library (TID 4020); what is unknown is None.

    Args:
        header: The image's header.
        frame: Which of its frames, from 1; None for all.
        laterality: `L` or `R`.
        view: One of `embedder.findings.VIEWS`.
        spacing_mm: Millimetres per pixel.
    """

    header: Dataset
    frame: int | None = None
    laterality: str | None = None
    view: str | None = None
    spacing_mm: float | None = None


@dataclass(frozen=True, eq=False)
class CadMark:
    """A detection with its place in the document.

    Args:
        detection: What was found.
        line: float32 (corners, 2), columns and rows of the line around it, closed.
        image: Position of its image in the library, from 0.
    """

    detection: Detection
    line: npt.NDArray[np.float32]
    image: int

    @property
    def detector(self) -> Detector:
        """What found it."""
        return self.detection.detector, self.detection.detector_version


def document_content(
    sr: Any,
    library: Sequence[LibraryEntry],
    groups: Sequence[Sequence[CadMark]],
    looked_at: Mapping[Detector, Sequence[int]],
    *,
    version: str,
    remarks: str,
) -> Dataset:
    """Return the content of a document: its root item (TID 4000), ready to be merged into the object.

    Args:
        sr: highdicom.sr.
        library: The images.
        groups: Marks of one lesion each, in the order in which they are to stand; several are views of it.
        looked_at: For each detector the positions of the images that it looked at, those of its marks among them.
        version: mammoseek's.
        remarks: What a reader must know.
    """
    marks = [mark for group in groups for mark in group]
    found = codes.DCM.AllAlgorithmsSucceededWithFindings if marks else codes.DCM.AllAlgorithmsSucceededWithoutFindings
    summary = sr.CodeContentItem(_code(cadcodes.SUMMARY), found, relationship_type=_CONTAINS)
    _fill(
        summary,
        [
            # TID 4002
            _text(sr, cadcodes.IMPRESSION_TEXT, remarks),
            *_algorithm(sr, (ALGORITHM, version)),
            *(_impression(sr, group, library) for group in groups),
        ],
    )
    root = _container(sr, cadcodes.REPORT, None)
    root.ContentTemplateSequence = [_template("4000")]
    entries = _container(sr, cadcodes.IMAGE_LIBRARY, _CONTAINS)
    _fill(entries, [_library_entry(sr, entry) for entry in library])
    _fill(
        root,
        [
            sr.CodeContentItem(
                codes.DCM.LanguageOfContentItemAndDescendants, _ENGLISH, relationship_type=_MODIFIES
            ),  # TID 1204
            entries,
            summary,
            _detections(sr, marks, looked_at),
            _analyses(sr, groups),
        ],
    )
    return root


def _library_entry(sr: Any, entry: LibraryEntry) -> Dataset:
    """TID 4020; what the image does not say is left out."""
    header = entry.header
    item = _image(header, entry.frame)
    children = []
    if entry.laterality in _SIDES:
        side = _SIDES[entry.laterality]
        children.append(sr.CodeContentItem(_code(cadcodes.IMAGE_LATERALITY), side, relationship_type=_CONTEXT))
    if entry.view in _VIEWS:
        view = sr.CodeContentItem(_code(cadcodes.IMAGE_VIEW), _VIEWS[entry.view], relationship_type=_CONTEXT)
        modifiers = list(_view_modifiers(sr, header))
        if modifiers:
            _fill(view, modifiers)
        children.append(view)
    orientation = [str(part) for part in dicomvalues.values(header, "PatientOrientation")]
    if len(orientation) == 2 and all(orientation):
        names = (cadcodes.ORIENTATION_ROW, cadcodes.ORIENTATION_COLUMN)
        children += [_text(sr, name, part, _CONTEXT) for name, part in zip(names, orientation, strict=True)]
    children += _times(sr, header)
    if entry.spacing_mm is not None:
        children += [
            _number(sr, name, entry.spacing_mm, codes.UCUM.Millimeter, _CONTEXT)
            for name in (cadcodes.HORIZONTAL_SPACING, cadcodes.VERTICAL_SPACING)
        ]
    if children:
        _fill(item, children)
    return item


def _image(header: Dataset, frame: int | None) -> Dataset:
    """Return an IMAGE item without a name, as the library wants it and highdicom does not make it."""
    item, referenced = Dataset(), Dataset()
    item.RelationshipType, item.ValueType = _CONTAINS, "IMAGE"
    referenced.ReferencedSOPClassUID = str(dicomvalues.text(header, "SOPClassUID"))
    referenced.ReferencedSOPInstanceUID = str(dicomvalues.text(header, "SOPInstanceUID"))
    if frame is not None:
        referenced.ReferencedFrameNumber = frame
    item.ReferencedSOPSequence = [referenced]
    return item


def _times(sr: Any, header: Dataset) -> Iterator[Any]:
    """Yield when study and image were made, as far as the image says it as the standard has it."""
    for keyword, name, vr, kind in (
        ("StudyDate", codes.DCM.StudyDate, "DA", "Date"),
        ("StudyTime", codes.DCM.StudyTime, "TM", "Time"),
        ("ContentDate", codes.DCM.ContentDate, "DA", "Date"),
        ("ContentTime", codes.DCM.ContentTime, "TM", "Time"),
    ):
        said = dicomvalues.text(header, keyword)
        try:
            validate_value(vr, said, RAISE)
        except ValueError:
            said = None
        if said is not None:
            item = getattr(sr, f"{kind}ContentItem")(name, said, relationship_type=_CONTEXT)
            setattr(item, kind, said)  # text as all else here, and not highdicom's object
            yield item


def _view_modifiers(sr: Any, header: Dataset) -> Iterator[Any]:
    view = dicomvalues.item(header, "ViewCodeSequence")
    position = 0
    while view is not None and (said := concept(view, "ViewModifierCodeSequence", position)) is not None:
        if said in _VIEW_MODIFIERS:
            yield sr.CodeContentItem(_code(cadcodes.IMAGE_VIEW_MODIFIER), _code(said), relationship_type=_MODIFIES)
        position += 1


def _impression(sr: Any, group: Sequence[CadMark], library: Sequence[LibraryEntry]) -> Any:
    """TID 4003: one for each lesion."""
    item = _container(sr, cadcodes.IMPRESSION, _INFERRED)
    found = _finding(sr, group[0], _CONTAINS) if len(group) == 1 else _feature(sr, group, library)
    _fill(item, [_intent(sr), found])
    return item


def _feature(sr: Any, group: Sequence[CadMark], library: Sequence[LibraryEntry]) -> Any:
    """TID 4004 and 4005: the views of one lesion."""
    types = {mark.detection.lesion_type for mark in group}
    kind = _kind(types.pop(), _FEATURES) if len(types) == 1 else UNSPECIFIED
    item = sr.CodeContentItem(_code(cadcodes.COMPOSITE_FEATURE), kind, relationship_type=_CONTAINS)
    relation = codes.DCM.TargetContentItemsAreRelatedSpatially
    if kind == codes.SCT.AsymmetricBreastTissue:  # TID 4005: an asymmetry is one to the other breast
        relation = codes.DCM.TargetContentItemsAreRelatedContraLaterally
    if len({mark.image for mark in group}) > 1:
        scope = codes.DCM.FeatureDetectedOnMultipleImages
    elif len(library) > 1:
        scope = codes.DCM.FeatureDetectedOnOnlyOneOfTheImages
    else:
        scope = codes.DCM.FeatureDetectedOnTheOnlyImage
    _fill(
        item,
        [
            _intent(sr),
            sr.CodeContentItem(_code(cadcodes.COMPOSITE_TYPE), relation, relationship_type=_PROPERTY),
            sr.CodeContentItem(_code(cadcodes.FEATURE_SCOPE), scope, relationship_type=_PROPERTY),
            *_algorithm(sr, _common_detector(group)),
            *(_finding(sr, mark, _INFERRED) for mark in group),
        ],
    )
    return item


def _finding(sr: Any, mark: CadMark, relationship: str) -> Any:
    """TID 4006, with the geometry of TID 4021."""
    kind = _kind(mark.detection.lesion_type, _FINDINGS)
    item = sr.CodeContentItem(_code(cadcodes.SINGLE_IMAGE_FINDING), kind, relationship_type=relationship)
    children = [_intent(sr), *_algorithm(sr, mark.detector)]
    if mark.detection.score is not None:
        percent = as_percent(mark.detection.score)
        children.append(_number(sr, cadcodes.FINDING_CERTAINTY, percent, codes.UCUM.Percent, _PROPERTY))
    centre = (mark.line.min(axis=0, keepdims=True) + mark.line.max(axis=0, keepdims=True)) / 2
    for name, kind_of_graphic, points in (
        (cadcodes.CENTRE, "POINT", centre),
        (cadcodes.OUTLINE, "POLYLINE", mark.line),
    ):
        drawn = sr.ScoordContentItem(_code(name), kind_of_graphic, points, relationship_type=_PROPERTY)
        _fill(drawn, [_reference(mark.image, _SELECTED)])
        children.append(drawn)
    _fill(item, children)
    return item


def as_percent(score: float) -> float:
    """Return a score in percent: the decimal point moves, and no digit changes.

    >>> 0.57 * 100, as_percent(0.57)
    (56.99999999999999, 57.0)
    """
    return float(Decimal(repr(float(score))) * 100)


def _detections(sr: Any, marks: Iterable[CadMark], looked_at: Mapping[Detector, Sequence[int]]) -> Any:
    """TID 4015 and 4017: who looked at which images, and for what. All that is known of that is what was found."""
    kinds: dict[Detector, dict[str, Code]] = {detector: {} for detector in looked_at}
    for mark in marks:
        kind = _kind(mark.detection.lesion_type, _FINDINGS)
        kinds[mark.detector][kind.value] = kind
    performed = [
        _performed(sr, codes.DCM.DetectionPerformed, kind, detector, looked_at[detector])
        for detector, found in kinds.items()
        for kind in (found.values() or [UNSPECIFIED])
    ]
    return _attempted(sr, cadcodes.DETECTIONS_SUMMARY, cadcodes.SUCCESSFUL[0], performed)


def _analyses(sr: Any, groups: Iterable[Sequence[CadMark]]) -> Any:
    """TID 4016 and 4018: who found that places of several images are one lesion."""
    joined: dict[Detector, dict[int, None]] = {}
    for group in groups:
        if len(group) > 1:
            joined.setdefault(_common_detector(group), {}).update(dict.fromkeys(mark.image for mark in group))
    kind = codes.SCT.SpatialCollocationAnalysis
    performed = [
        _performed(sr, codes.DCM.AnalysisPerformed, kind, detector, list(images)) for detector, images in joined.items()
    ]
    return _attempted(sr, cadcodes.ANALYSES_SUMMARY, cadcodes.SUCCESSFUL[1], performed)


def _attempted(sr: Any, name: Concept, group: Concept, performed: Sequence[Any]) -> Any:
    status = codes.DCM.Succeeded if performed else codes.DCM.NotAttempted
    item = sr.CodeContentItem(_code(name), status, relationship_type=_CONTAINS)
    if performed:
        succeeded = _container(sr, group, _INFERRED)
        _fill(succeeded, list(performed))
        _fill(item, [succeeded])
    return item


def _performed(sr: Any, name: Code, kind: Code, detector: Detector, images: Sequence[int]) -> Any:
    item = sr.CodeContentItem(name, kind, relationship_type=_CONTAINS)
    _fill(item, [*_algorithm(sr, detector), *(_reference(image, _PROPERTY) for image in images)])
    return item


def _common_detector(group: Sequence[CadMark]) -> Detector:
    detectors = {mark.detector for mark in group}
    return detectors.pop() if len(detectors) == 1 else (None, None)


def _algorithm(sr: Any, detector: Detector) -> list[Any]:
    """TID 4019, which wants both name and version."""
    names = (cadcodes.ALGORITHM_NAME, cadcodes.ALGORITHM_VERSION)
    return [
        _text(sr, name, clean_text(said or "") or cadcodes.UNKNOWN) for name, said in zip(names, detector, strict=True)
    ]


def _intent(sr: Any) -> Any:
    required = codes.DCM.PresentationRequiredRenderingDeviceIsExpectedToPresent
    return sr.CodeContentItem(_code(cadcodes.RENDERING_INTENT), required, relationship_type=_MODIFIES)


def _kind(lesion_type: str | None, known: Mapping[frozenset[str], Code]) -> Code:
    """Return the code of a lesion type; of several types that have none together, that of the first."""
    terms = lesion_type.split(TERM_SEPARATOR) if lesion_type else []
    return known.get(frozenset(terms), known.get(frozenset(terms[:1]), UNSPECIFIED))


def _fill(item: Dataset, children: Sequence[Dataset]) -> None:
    """Put items below another. highdicom's own sequences take no items that only refer to others."""
    item.add_new("ContentSequence", "SQ", list(children))


def _reference(image: int, relationship: str) -> Dataset:
    """Return an item that refers to an image of the library (PS3.3 C.17.3.2.5)."""
    place: Identifier = (*_LIBRARY, image + 1)
    item = Dataset()
    item.RelationshipType = relationship
    item.ReferencedContentItemIdentifier = list(place)
    return item


def _template(identifier: str) -> Dataset:
    template = Dataset()
    template.MappingResource = "DCMR"
    template.TemplateIdentifier = identifier
    return template


def _container(sr: Any, name: Concept, relationship: str | None) -> Any:
    return sr.ContainerContentItem(_code(name), is_content_continuous=False, relationship_type=relationship)


def _text(sr: Any, name: Concept, text: str, relationship: str = _PROPERTY) -> Any:
    return sr.TextContentItem(_code(name), text, relationship_type=relationship)


def _number(sr: Any, name: Concept, value: float, unit: Code, relationship: str) -> Any:
    return sr.NumContentItem(_code(name), float(value), unit, relationship_type=relationship)


def _code(name: Concept) -> Code:
    return Code(name.value, name.scheme, name.meaning)
