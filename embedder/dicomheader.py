"""Whose breast a DICOM image shows, how, and at what scale: the standard's attributes, else CBIS-DDSM's."""

import re
from dataclasses import dataclass

from pydicom.dataset import Dataset

from embedder import dicomvalues
from embedder.findings import VIEWS
from embedder.header import MAXIMUM_SPACING_MM

# PS3.16 CID 4014 (View for Mammography): SNOMED CT, SNOMED RT, and the codes that an early edition gave.
_VIEW_CODES = {
    code: view
    for view, codes in {
        "CC": ("399162004", "R-10242"),
        "MLO": ("399368009", "R-10226"),
        "ML": ("399260004", "R-10224"),
        "LM": ("399352003", "R-10228"),
        "LMO": ("399099002", "R-10230"),
        "XCCL": ("399192008", "R-1024A", "Y-X1770"),
        "XCCM": ("399101009", "R-1024B", "Y-X1771"),
        "FB": ("399196006", "R-10244"),
        "SIO": ("399188001", "R-102D0"),
        "ISO": ("441555000", "R-40AAA"),
    }.items()
    for code in codes
}

_INTENTS = {
    "1.2.840.10008.5.1.4.1.1.1.2": "FOR PRESENTATION",  # Digital Mammography X-Ray Image Storage
    "1.2.840.10008.5.1.4.1.1.1.2.1": "FOR PROCESSING",
    "1.2.840.10008.5.1.4.1.1.13.1.4": "FOR PRESENTATION",  # Breast Projection X-Ray Image Storage
    "1.2.840.10008.5.1.4.1.1.13.1.5": "FOR PROCESSING",
}
_MAMMOGRAPHY_CLASSES = {*_INTENTS, "1.2.840.10008.5.1.4.1.1.13.1.3"}  # and Breast Tomosynthesis Image Storage

# Modalities under which scanned films and converted files come: mammograms where something else in the file
# says so.
_OTHER_MODALITIES = {None, "CR", "DX", "RG", "OT", "SC"}

# SNOMED RT and CT of the breast (PS3.16 CID 4013).
_BREAST_CODES = {"T-04000", "76752008", "T-04020", "73056007", "T-04030", "80248007", "T-04080", "63762007"}

# Lee et al., "A curated mammography data set", Sci Data 4:170177 (2017): Mass-Training_P_00001_LEFT_CC for a
# mammogram, with the number of the abnormality behind it for its crop and mask.
_CBIS = re.compile(r"(?:Mass|Calc)-(?:Training|Test)_(P_\d+)_(LEFT|RIGHT)_(CC|MLO)(?:_\d+)?", re.IGNORECASE)

_SPACING_SOURCES = ("ImagerPixelSpacing", "PixelSpacing", "NominalScannedPixelSpacing")
_AGE_UNITS = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}
_MAXIMUM_AGE = 120.0

KEYWORDS = (
    *("SpecificCharacterSet", "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"),
    *("StudyDate", "Modality", "PresentationIntentType", "Manufacturer", "PatientID", "PatientName"),
    *("PatientBirthDate", "PatientAge", "BodyPartExamined", "AnatomicRegionSequence", "ViewPosition"),
    *("ViewCodeSequence", "PatientOrientation", "Laterality", "ImageLaterality", "BurnedInAnnotation"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *(*_SPACING_SOURCES, "EstimatedRadiographicMagnificationFactor"),
)
"""Keywords of the attributes that this module reads."""


@dataclass(frozen=True)
class _CbisName:
    patient_id: str
    laterality: str
    view: str


def _cbis_name(dataset: Dataset) -> _CbisName | None:
    for keyword in ("PatientID", "PatientName"):
        match = _CBIS.fullmatch(dicomvalues.text(dataset, keyword) or "")
        if match is not None:
            patient, side, view = match.groups()
            return _CbisName(patient.upper(), side[0].upper(), view.upper())
    return None


def why_not_mammogram(dataset: Dataset) -> str | None:
    """Return why a data set is no mammogram; None where it is one.

    Modality MG, or an object class of mammography. Scanned and converted films (CR, DX, RG, OT, SC or
    nothing) are taken where the body part, the anatomic region, a mammographic view or CBIS-DDSM's name for
    the patient says so.
    """
    modality = dicomvalues.text(dataset, "Modality")
    if modality == "MG" or dicomvalues.text(dataset, "SOPClassUID") in _MAMMOGRAPHY_CLASSES:
        return None
    if modality not in _OTHER_MODALITIES:
        return f"its modality is {modality}, and a mammogram's is MG"
    region = dicomvalues.item(dataset, "AnatomicRegionSequence")
    if (
        "BREAST" in (dicomvalues.text(dataset, "BodyPartExamined") or "").upper()
        or (region is not None and dicomvalues.text(region, "CodeValue") in _BREAST_CODES)
        or view(dataset) in ("CC", "MLO")
    ):
        return None
    return f"its modality is {modality or 'missing'}, and nothing in it says that it shows a breast"


def patient_id(dataset: Dataset) -> str | None:
    """Return the woman's name in the file; for CBIS-DDSM without side, view and abnormality."""
    cbis = _cbis_name(dataset)
    return cbis.patient_id if cbis is not None else dicomvalues.text(dataset, "PatientID")


def laterality(dataset: Dataset, frame: int = 0) -> str | None:
    """Return `L` or `R`; None where the file does not say, or says both."""
    anatomy = dicomvalues.functional_group(dataset, "FrameAnatomySequence", frame)
    said = [dicomvalues.text(dataset, "ImageLaterality"), dicomvalues.text(dataset, "Laterality")]
    if anatomy is not None:
        said.append(dicomvalues.text(anatomy, "FrameLaterality"))
    for side in said:
        if side is not None:
            return side.upper() if side.upper() in ("L", "R") else None
    cbis = _cbis_name(dataset)
    return cbis.laterality if cbis is not None else None


def view(dataset: Dataset) -> str | None:
    """Return the view: ViewPosition, ViewCodeSequence, else CBIS-DDSM's PatientID or PatientOrientation."""
    position = (dicomvalues.text(dataset, "ViewPosition") or "").upper()
    if position in VIEWS:
        return position
    code = dicomvalues.item(dataset, "ViewCodeSequence")
    if code is not None and dicomvalues.text(code, "CodeValue") in _VIEW_CODES:
        return _VIEW_CODES[str(dicomvalues.text(code, "CodeValue"))]
    cbis = _cbis_name(dataset)
    if cbis is not None:
        return cbis.view
    # The standard has two directions here, CBIS-DDSM the view.
    orientation = (dicomvalues.text(dataset, "PatientOrientation") or "").upper()
    return orientation if orientation in ("CC", "MLO") else None


def age(dataset: Dataset) -> float | None:
    """Return the woman's age in years: PatientAge (`045Y`, `006M`), else from birth to the study."""
    said = dicomvalues.text(dataset, "PatientAge") or ""
    match = re.fullmatch(r"(\d{1,3})([YMWD])", said.upper())
    years: float | None = None
    if match is not None:
        years = int(match[1]) * _AGE_UNITS[match[2]]
    else:
        born, studied = dicomvalues.day(dataset, "PatientBirthDate"), dicomvalues.day(dataset, "StudyDate")
        if born is not None and studied is not None:
            years = round((studied - born).days / 365.25, 2)
    return years if years is not None and 0 < years <= _MAXIMUM_AGE else None


def intent(dataset: Dataset) -> str | None:
    """Return `FOR PRESENTATION` or `FOR PROCESSING`, from the attribute or the object class."""
    said = dicomvalues.text(dataset, "PresentationIntentType")
    if said is not None and said.upper() in ("FOR PRESENTATION", "FOR PROCESSING"):
        return said.upper()
    return _INTENTS.get(dicomvalues.text(dataset, "SOPClassUID") or "")


def spacing(dataset: Dataset, frame: int = 0) -> tuple[float | None, str | None]:
    """Return millimetres per pixel in the breast's plane, and a note on spacing that made no sense."""
    found, _, note = sourced_spacing(dataset, frame)
    return found, note


def sourced_spacing(dataset: Dataset, frame: int = 0) -> tuple[float | None, str | None, str | None]:
    """Return millimetres per pixel in the breast's plane, the attribute that says so, and a note as `spacing` does.

    Imager Pixel Spacing is measured at the detector and divided by the estimated magnification, where that is
    known; then Pixel Spacing (also in the functional groups), then Nominal Scanned Pixel Spacing of a film.
    """
    measures = dicomvalues.functional_group(dataset, "PixelMeasuresSequence", frame)
    sources = [(dataset, keyword) for keyword in _SPACING_SOURCES]
    if measures is not None:
        sources.insert(2, (measures, "PixelSpacing"))
    note = None
    for source, keyword in sources:
        pair = dicomvalues.numbers(source, keyword)
        if not pair:
            continue
        rows, columns = (pair * 2)[:2]
        if rows is None or columns is None or min(rows, columns) <= 0:
            note = f"{keyword} makes no sense: the spacing is taken as unknown"
            continue
        if abs(rows - columns) > 0.01 * max(rows, columns):
            note = f"{keyword} is {rows:g} by {columns:g} mm, not square: the spacing is taken as unknown"
            continue
        if keyword == "ImagerPixelSpacing":
            factor = dicomvalues.number(dataset, "EstimatedRadiographicMagnificationFactor")
            if factor is not None and 1 <= factor <= 3:
                rows /= factor
        if rows > MAXIMUM_SPACING_MM:
            note = f"{keyword} is {rows:g} mm, too coarse to be true: the spacing is taken as unknown"
            continue
        return rows, keyword, None
    return None, None, note


def burned_in_annotation(dataset: Dataset) -> bool | None:
    """Return whether the file says that text is burnt into its pixels."""
    return {"YES": True, "NO": False}.get((dicomvalues.text(dataset, "BurnedInAnnotation") or "").upper())
