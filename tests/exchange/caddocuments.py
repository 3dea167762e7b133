"""Mammography CAD SR documents built to PS3.16 TID 4000, row by row, from what they should say."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pydicom.uid as uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.sr._snomed_dict import mapping
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

MAMMOGRAM = "1.2.840.10008.5.1.4.1.1.1.2"
REPORT_UID = "1.2.826.0.1.3680043.8.498.99"
STUDY_UID = "1.2.826.0.1.3680043.8.498.7"
ALGORITHM = ("mass finder", "2.1")


@dataclass(frozen=True)
class Shown:
    """An image of the library."""

    uid: str
    laterality: str = "LeftBreast"
    view: str = "CranioCaudalProjection"
    spacing: float | None = 0.1
    study: str = STUDY_UID
    frame: int | None = None


CC = Shown("1.2.3.1")
MLO = Shown("1.2.3.2", view="MedioLateralObliqueProjection")
RIGHT = Shown("1.2.3.3", laterality="RightBreast")


@dataclass(frozen=True)
class Mark:
    """A single image finding."""

    image: Shown | None = CC
    kind: str = "MammographyBreastDensity"
    centre: tuple[float, ...] | None = (50.0, 40.0)
    outline: tuple[str, tuple[float, ...]] | None = None
    intent: str | None = "PresentationRequired"
    probability: object = None
    certainty: object = None
    unit: str = "Percent"
    area: float | None = None
    specks: tuple["Mark", ...] = ()
    by_value: bool = False  # the image stands below the coordinates instead of a reference to the library


@dataclass(frozen=True)
class Feature:
    """A composite feature of marks and features."""

    parts: tuple["Mark | Feature", ...]
    kind: str = "MammographicBreastMass"
    intent: str | None = "PresentationRequired"
    probability: object = None
    certainty: object = None
    relation: str = "TargetContentItemsAreRelatedSpatially"
    by_reference: bool = False
    places: tuple[Mark, ...] = ()


@dataclass(frozen=True)
class CadDocument:
    """A report."""

    found: tuple[Mark | Feature, ...] = ()
    images: tuple[Shown, ...] = (CC, MLO, RIGHT)
    summary: str = "AllAlgorithmsSucceededWithFindings"
    succeeded: tuple[str, ...] = ("MammographyBreastDensity", "CalcificationCluster")
    failed: tuple[str, ...] = ()
    analyses: tuple[str, ...] = ()
    scheme: str = "SCT"
    patient: str | None = "W7"
    impression_intent: str = "PresentationRequired"


def code_item(keyword: str, scheme: str = "SCT") -> Dataset:
    """Return a code sequence's item for a keyword of pydicom's dictionary."""
    if keyword == "English":  # CID 5000, which pydicom's dictionary does not have
        code = Code("en", "RFC5646", "English")
    else:
        code = next(getattr(one, keyword) for one in (codes.SCT, codes.DCM, codes.UCUM) if hasattr(one, keyword))
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator = code.value, code.scheme_designator
    if scheme == "SRT" and code.scheme_designator == "SCT":
        item.CodeValue, item.CodingSchemeDesignator = mapping["SCT"][code.value], "SRT"
    item.CodeMeaning = code.meaning.replace("\u200b", "")
    return item


@dataclass(eq=False)
class Node:
    """A content item before its place in the tree is known."""

    relationship: str | None
    value_type: str | None
    name: str | None = None
    value: object = None
    unit: str | None = None
    children: list["Node"] = field(default_factory=list)
    target: "Node | None" = None
    place: tuple[int, ...] = ()

    def settle(self, place: tuple[int, ...]) -> None:
        self.place = place
        for position, child in enumerate(self.children, start=1):
            child.settle((*place, position))

    def dataset(self, scheme: str) -> Dataset:
        item = Dataset()
        if self.relationship is not None:
            item.RelationshipType = self.relationship
        if self.target is not None:
            item.ReferencedContentItemIdentifier = list(self.target.place)
            return item
        item.ValueType = self.value_type
        if self.name is not None:
            item.ConceptNameCodeSequence = [code_item(self.name, scheme)]
        if self.value_type == "CONTAINER":
            item.ContinuityOfContent = "SEPARATE"
        elif self.value_type == "CODE":
            item.ConceptCodeSequence = [code_item(str(self.value), scheme)]
        elif self.value_type == "TEXT":
            item.TextValue = self.value
        elif self.value_type == "NUM":
            measured = Dataset()
            measured.MeasurementUnitsCodeSequence = [code_item(str(self.unit))]
            measured.NumericValue = self.value
            item.MeasuredValueSequence = [measured]
        elif self.value_type == "SCOORD":
            item.GraphicType, values = self.value  # type: ignore[misc]
            item.GraphicData = list(values)
        elif self.value_type == "IMAGE":
            referenced = Dataset()
            referenced.ReferencedSOPClassUID, referenced.ReferencedSOPInstanceUID = MAMMOGRAM, self.value.uid  # type: ignore[attr-defined]
            if self.value.frame is not None:  # type: ignore[attr-defined]
                referenced.ReferencedFrameNumber = self.value.frame  # type: ignore[attr-defined]
            item.ReferencedSOPSequence = [referenced]
        if self.children:
            item.ContentSequence = [child.dataset(scheme) for child in self.children]
        return item


class Builder:
    """Makes the tree of one document; `nodes` tells where each mark and feature went."""

    def __init__(self, document: CadDocument) -> None:
        self.document = document
        self.library = {image: self._image(image) for image in document.images}
        self.nodes: dict[int, Node] = {}

    def tree(self) -> Node:
        """TID 4000."""
        document = self.document
        root = Node(None, "CONTAINER", "MammographyCADReport")
        language = Node("HAS CONCEPT MOD", "CODE", "LanguageOfContentItemAndDescendants", "English")
        library = Node("CONTAINS", "CONTAINER", "ImageLibrary", children=list(self.library.values()))
        summary = Node("CONTAINS", "CODE", "CADProcessingAndFindingsSummary", document.summary)
        for one in document.found:  # TID 4001 and 4003
            impression = Node("INFERRED FROM", "CONTAINER", "IndividualImpressionRecommendation")
            impression.children = [self._intent(document.impression_intent), self._found("CONTAINS", one)]
            summary.children.append(impression)
        root.children = [
            language,
            library,
            summary,
            self._ran("Detection", document.succeeded, document.failed),
            self._ran("Analysis", document.analyses, ()),
        ]
        root.settle((1,))
        return root

    def _image(self, image: Shown) -> Node:
        """TID 4020."""
        context = "HAS ACQ CONTEXT"
        children = [
            Node(context, "CODE", "ImageLaterality", image.laterality),
            Node(context, "CODE", "ImageView", image.view),
            Node(context, "TEXT", "PatientOrientationRow", "A"),
            Node(context, "TEXT", "PatientOrientationColumn", "F"),
        ]
        if image.spacing is not None:
            for name in ("HorizontalPixelSpacing", "VerticalPixelSpacing"):
                children.append(Node(context, "NUM", name, image.spacing, "Millimeter"))
        return Node("CONTAINS", "IMAGE", value=image, children=children)

    def _intent(self, keyword: str | None) -> Node:
        # pydicom's keywords carry the whole meaning.
        whole = {
            "PresentationRequired": "PresentationRequiredRenderingDeviceIsExpectedToPresent",
            "PresentationOptional": "PresentationOptionalRenderingDeviceMayPresent",
            "NotForPresentation": "NotForPresentationRenderingDeviceExpectedNotToPresent",
        }
        return Node("HAS CONCEPT MOD", "CODE", "RenderingIntent", whole[str(keyword)])

    def _algorithm(self) -> Iterator[Node]:
        """TID 4019."""
        for name, text in zip(("AlgorithmName", "AlgorithmVersion"), ALGORITHM, strict=True):
            yield Node("HAS PROPERTIES", "TEXT", name, text)

    def _found(self, relationship: str, one: Mark | Feature) -> Node:
        node = self._feature(relationship, one) if isinstance(one, Feature) else self._mark(relationship, one)
        self.nodes[id(one)] = node
        return node

    def _mark(self, relationship: str, mark: Mark) -> Node:
        """TID 4006."""
        node = Node(relationship, "CODE", "SingleImageFinding", mark.kind)
        node.children = [self._intent(mark.intent)] if mark.intent is not None else []
        node.children += self._algorithm()
        for name, value in (("CertaintyOfFinding", mark.certainty), ("ProbabilityOfCancer", mark.probability)):
            if value is not None:
                node.children.append(Node("HAS PROPERTIES", "NUM", name, value, mark.unit))
        node.children += self._geometry(mark)
        if mark.area is not None:
            node.children.append(Node("HAS PROPERTIES", "NUM", "AreaOfDefinedRegion", mark.area, "SquareMillimeter"))
        if mark.kind == "CalcificationCluster":  # TID 4010
            if mark.specks:
                number = Node("HAS PROPERTIES", "NUM", "NumberOfCalcifications", len(mark.specks), "NoUnits")
                node.children.append(number)
            node.children += [self._found("INFERRED FROM", speck) for speck in mark.specks]
        return node

    def _geometry(self, mark: Mark) -> Iterator[Node]:
        """TID 4021."""
        drawn = [("Center", ("POINT", mark.centre))] if mark.centre is not None else []
        drawn += [("Outline", mark.outline)] if mark.outline is not None else []  # type: ignore[list-item]
        for name, value in drawn:
            node = Node("HAS PROPERTIES", "SCOORD", name, value)
            if mark.image is not None and mark.by_value:
                node.children = [Node("SELECTED FROM", "IMAGE", value=mark.image)]
            elif mark.image is not None:
                node.children = [Node("SELECTED FROM", None, target=self.library[mark.image])]
            yield node

    def _feature(self, relationship: str, feature: Feature) -> Node:
        """TID 4004 and 4005."""
        node = Node(relationship, "CODE", "CompositeFeature", feature.kind)
        node.children = [self._intent(feature.intent)] if feature.intent is not None else []
        scope = "FeatureDetectedOnMultipleImages"
        node.children.append(Node("HAS PROPERTIES", "CODE", "CompositeType", feature.relation))
        node.children.append(Node("HAS PROPERTIES", "CODE", "ScopeOfFeature", scope))
        node.children += self._algorithm()
        for name, value in (("CertaintyOfFeature", feature.certainty), ("ProbabilityOfCancer", feature.probability)):
            if value is not None:
                node.children.append(Node("HAS PROPERTIES", "NUM", name, value, "Percent"))
        for place in feature.places:
            node.children += self._geometry(place)
        for part in feature.parts:
            if feature.by_reference:
                node.children.append(Node("INFERRED FROM", None, target=self.nodes[id(part)]))
            else:
                node.children.append(self._found("INFERRED FROM", part))
        return node

    def _ran(self, what: str, succeeded: tuple[str, ...], failed: tuple[str, ...]) -> Node:
        """TID 4015 to 4018."""
        plural = {"Detection": "Detections", "Analysis": "Analyses"}[what]
        status = ("NotAttempted", "Failed", "Succeeded", "PartiallySucceeded")[2 * bool(succeeded) + bool(failed)]
        summary = Node("CONTAINS", "CODE", f"SummaryOf{plural}", status)
        for prefix, kinds in (("Successful", succeeded), ("Failed", failed)):
            if not kinds:
                continue
            group = Node("INFERRED FROM", "CONTAINER", f"{prefix}{plural}")
            for kind in kinds:
                one = Node("CONTAINS", "CODE", f"{what}Performed", kind, children=list(self._algorithm()))
                one.children += [Node("HAS PROPERTIES", None, target=image) for image in self.library.values()]
                group.children.append(one)
            summary.children.append(group)
        return summary


def build(document: CadDocument, tree: Node | None = None) -> Dataset:
    """Return the whole document."""
    root = tree if tree is not None else Builder(document).tree()
    dataset = root.dataset(document.scheme)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    template = Dataset()
    template.MappingResource, template.TemplateIdentifier = "DCMR", "4000"
    dataset.ContentTemplateSequence = [template]
    dataset.SOPClassUID, dataset.SOPInstanceUID = uid.MammographyCADSRStorage, REPORT_UID
    dataset.PatientName, dataset.PatientBirthDate, dataset.PatientSex = "", "", "F"
    dataset.PatientID = document.patient or ""
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = STUDY_UID, STUDY_UID + ".1"
    dataset.StudyDate = dataset.StudyTime = dataset.StudyID = dataset.AccessionNumber = ""
    dataset.ReferringPhysicianName = ""
    dataset.Modality, dataset.SeriesNumber, dataset.InstanceNumber = "SR", 1, 1
    dataset.ReferencedPerformedProcedureStepSequence = []
    dataset.Manufacturer, dataset.ManufacturerModelName = "mammoseek tests", "builder"
    dataset.DeviceSerialNumber, dataset.SoftwareVersions = "1", "1.0"
    dataset.CompletionFlag, dataset.VerificationFlag = "COMPLETE", "UNVERIFIED"
    dataset.ContentDate, dataset.ContentTime = "20260102", "101500"
    dataset.PerformedProcedureCodeSequence = []
    studies = []
    for number, name in enumerate(dict.fromkeys(image.study for image in document.images)):
        study, series = Dataset(), Dataset()
        series.SeriesInstanceUID = f"{STUDY_UID}.2.{number}"
        series.ReferencedSOPSequence = []
        for image in document.images:
            if image.study == name:
                one = Dataset()
                one.ReferencedSOPClassUID, one.ReferencedSOPInstanceUID = MAMMOGRAM, image.uid
                series.ReferencedSOPSequence.append(one)
        study.StudyInstanceUID, study.ReferencedSeriesSequence = name, [series]
        studies.append(study)
    dataset.CurrentRequestedProcedureEvidenceSequence = Sequence(studies)
    return dataset


SPECKS = tuple(
    Mark(CC, "IndividualCalcification", (x, y), ("POLYLINE", (x - 1, y - 1, x + 1, y - 1, x + 1, y + 1, x - 1, y - 1)))
    for x, y in ((20.0, 30.0), (24.0, 33.0), (22.0, 38.0))
)
ONE_MASS = Mark(outline=("POLYLINE", (40.0, 30.0, 60.0, 30.0, 60.0, 52.0, 40.0, 30.0)), probability=87, certainty=93)
CLUSTER = Mark(CC, "CalcificationCluster", (22.0, 34.0), certainty=40, specks=SPECKS)
IN_MLO = replace(ONE_MASS, image=MLO, outline=None, probability=None, certainty=None)
BOTH_VIEWS = Feature((ONE_MASS, IN_MLO), probability=75)

DOCUMENTS = {
    "one mass": CadDocument((ONE_MASS,)),
    "a cluster with its calcifications": CadDocument((CLUSTER,)),
    "one mass in CC and MLO": CadDocument((BOTH_VIEWS,)),
    "two masses, then by reference one feature": CadDocument(
        (ONE_MASS, IN_MLO, Feature((ONE_MASS, IN_MLO), certainty=66, by_reference=True))
    ),
    "no findings": CadDocument(summary="AllAlgorithmsSucceededWithoutFindings"),
    "a failed algorithm": CadDocument(
        (ONE_MASS,),
        summary="NotAllAlgorithmsSucceededWithFindings",
        succeeded=("MammographyBreastDensity",),
        failed=("CalcificationCluster",),
    ),
    "all algorithms failed": CadDocument(
        summary="NoAlgorithmsSucceededWithoutFindings", succeeded=(), failed=("CalcificationCluster",)
    ),
    "an analysis": CadDocument((ONE_MASS,), analyses=("TemporalCorrelation",)),
    "the nipple": CadDocument((Mark(kind="Nipple"), ONE_MASS)),
    "every graphic type": CadDocument(
        (
            replace(ONE_MASS, outline=("CIRCLE", (50.0, 40.0, 60.0, 40.0))),
            replace(ONE_MASS, outline=("ELLIPSE", (30.0, 40.0, 70.0, 40.0, 50.0, 30.0, 50.0, 50.0))),
            replace(ONE_MASS, outline=("MULTIPOINT", (30.0, 40.0, 70.0, 41.0))),
        )
    ),
    "images by value": CadDocument((replace(ONE_MASS, by_value=True),)),
}
"""Documents by what they say; each must be a valid DICOM object."""
