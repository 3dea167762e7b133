"""The codes of mammography CAD (PS3.16, TID 4000 and the context groups that it invokes), from pydicom's dictionary."""

from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from embedder import dicomheader
from embedder.findings import TERM_SEPARATOR
from exchange.contentitems import Concept

MAMMOGRAPHY_CAD_SR = "1.2.840.10008.5.1.4.1.1.88.50"
"""SOP class Mammography CAD SR Storage."""


def _dcm(keyword: str) -> Concept:
    code = getattr(codes.DCM, keyword)
    return Concept.of(code.value, code.scheme_designator, code.meaning)


def _sct(keyword: str) -> Concept:
    code = getattr(codes.SCT, keyword)
    return Concept.of(code.value, code.scheme_designator, code.meaning)


# TID 4000, 4001 and 4003: the document.
REPORT = _dcm("MammographyCADReport")
SUMMARY = _dcm("CADProcessingAndFindingsSummary")
IMPRESSION = _dcm("IndividualImpressionRecommendation")
RENDERING_INTENT = _dcm("RenderingIntent")

# TID 4002: what an impression says.
ASSESSMENT = _dcm("AssessmentCategory")
FOLLOW_UP = _dcm("RecommendedFollowUp")
IMPRESSION_TEXT = _dcm("ImpressionDescription")
IMPRESSION_CERTAINTY = _dcm("CertaintyOfImpression")

# TID 4004 to 4006: features and findings.
COMPOSITE_FEATURE = _dcm("CompositeFeature")
SINGLE_IMAGE_FINDING = _dcm("SingleImageFinding")
COMPOSITE_TYPE = _dcm("CompositeType")
FEATURE_SCOPE = _dcm("ScopeOfFeature")
FEATURE_CERTAINTY = _dcm("CertaintyOfFeature")
FINDING_CERTAINTY = _dcm("CertaintyOfFinding")
CANCER_PROBABILITY = _dcm("ProbabilityOfCancer")

# TID 4021 (geometry) and 1401 (area): where.
CENTRE = _dcm("Center")
OUTLINE = _dcm("Outline")
AREAS = (_sct("AreaOfDefinedRegion"), _dcm("AreaOfDefinedRegion"), _sct("Area"))

# TID 4015 to 4019: which algorithms ran.
DETECTIONS_SUMMARY = _dcm("SummaryOfDetections")
ANALYSES_SUMMARY = _dcm("SummaryOfAnalyses")
SUCCESSFUL = (_dcm("SuccessfulDetections"), _dcm("SuccessfulAnalyses"))
FAILED = (_dcm("FailedDetections"), _dcm("FailedAnalyses"))
PERFORMED = (_dcm("DetectionPerformed"), _dcm("AnalysisPerformed"))
ALGORITHM_NAME = _dcm("AlgorithmName")
ALGORITHM_VERSION = _dcm("AlgorithmVersion")
ALGORITHM_MAKER = _dcm("AlgorithmManufacturer")
UNKNOWN = "unknown"
"""What stands where TID 4019 wants a name or a version that nobody knows."""

# TID 4020: the images.
IMAGE_LIBRARY = _dcm("ImageLibrary")
IMAGE_LATERALITY = _dcm("ImageLaterality")
IMAGE_VIEW = _dcm("ImageView")
IMAGE_VIEW_MODIFIER = _dcm("ImageViewModifier")
ORIENTATION_ROW = _dcm("PatientOrientationRow")
ORIENTATION_COLUMN = _dcm("PatientOrientationColumn")
HORIZONTAL_SPACING = _dcm("HorizontalPixelSpacing")
VERTICAL_SPACING = _dcm("VerticalPixelSpacing")

# CID 6034.
INTENTS = {
    Concept("111150", "DCM"): "required",
    Concept("111151", "DCM"): "optional",
    Concept("111152", "DCM"): "not for presentation",
}
"""Rendering intents, from the one that asks most for being shown."""

# CID 6047.
WITH_FINDINGS = (Concept("111242", "DCM"), Concept("111244", "DCM"))
"""Summaries that say that there are findings."""
NONE_SUCCEEDED = Concept("111245", "DCM")
"""The summary that says that no algorithm succeeded."""

# CID 6035.
CONTRALATERAL = Concept("111155", "DCM")
"""The composite type that relates places of both breasts, which are not views of one lesion."""

# CID 6014, 6015, 6016 and 6017; and the codes of the first edition, now retired, which older systems still write.
DENSITIES = {_sct("MammographyBreastDensity"), _dcm("Density_Retired")}
"""What BI-RADS' third edition called a mass that only one view shows."""

SPECKS = {_sct("IndividualCalcification"), _dcm("IndividualCalcification")}
"""Single calcifications, of which a cluster is made (TID 4010)."""

LESION_TYPES = {
    **dict.fromkeys(DENSITIES, "mass"),
    _sct("MammographicBreastMass"): "mass",
    _dcm("MassWithCalcifications"): TERM_SEPARATOR.join(("mass", "calcification")),
    _sct("CalcificationCluster"): "calcification",
    **dict.fromkeys(SPECKS, "calcification"),
    _dcm("CalcificationCluster"): "calcification",
    _sct("ArchitecturalDistortionOfBreast"): "architectural distortion",
    _sct("AsymmetricBreastTissue"): "asymmetry",
    _sct("FocalAsymmetricBreastTissue"): "asymmetry",
}
"""Kinds of findings as `embedder.findings.TERMS` has them; a kind that is not here keeps its own words only."""

NO_LESIONS = {
    _sct("BreastComposition"),
    _sct("Nipple"),
    *(_dcm(keyword) for keyword in ("BreastGeometry", "ImageQuality", "NonLesion", "SelectedRegion")),
}
"""Findings of CID 6014 that describe the image or the normal breast and mark no lesion."""

_LATERALITIES = {_sct("LeftBreast"): "L", _sct("RightBreast"): "R"}


def laterality_of(code: Concept | None) -> str | None:
    """Return `L` or `R` for a code of CID 6022; None for both breasts and for what is none.

    >>> laterality_of(Concept.of("T-04030", "SRT"))
    'L'
    """
    return _LATERALITIES.get(code) if code is not None else None


def view_of(code: Concept | None) -> str | None:
    """Return one of `embedder.findings.VIEWS` for a code of CID 4014.

    >>> view_of(Concept.of("R-10226", "SRT"))
    'MLO'
    """
    if code is None:
        return None
    # The reader of images has the table.
    item, image = Dataset(), Dataset()
    item.CodeValue = code.value[:16]
    image.ViewCodeSequence = [item]
    return dicomheader.view(image)
