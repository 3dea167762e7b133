"""The verdict on one image, what of its attributes it is made from, and the manifest with its verdicts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from pydicom.dataset import Dataset

from embedder import dicomheader, dicomvalues
from exchange import ExchangeError

ACCEPT, NOTE, REFUSE = "accept", "accept with a note", "refuse"
VERDICTS = (ACCEPT, NOTE, REFUSE)

# PS3.16 CID 4015, in SNOMED CT and in SNOMED RT, which older equipment writes.
_MODIFIERS = {
    code: meaning
    for meaning, codes in {
        "magnification": ("399163009", "R-102D6"),
        "spot compression": ("399055006", "R-102D7"),
        "implant displaced": ("399209000", "R-102D5"),
        "cleavage": ("399161006", "R-102D2"),
        "axillary tail": ("399011000", "R-102D1"),
        "axillary tissue": ("442580003", "R-40AB2"),
        "rolled lateral": ("399197002", "R-102D3"),
        "rolled medial": ("399226006", "R-102D4"),
        "rolled superior": ("415670009", "R-102C9"),
        "rolled inferior": ("414493004", "R-102CA"),
        "tangential": ("399110001", "R-102C2"),
        "nipple in profile": ("442581004", "R-40AB3"),
        "anterior compression": ("441752004", "P2-00161"),
        "infra-mammary fold": ("442593008", "R-40ABE"),
    }.items()
    for code in codes
}
_MOST_MODIFIERS = 16

KEYWORDS = (
    *dicomheader.KEYWORDS,
    *("PhotometricInterpretation", "Rows", "Columns", "NumberOfFrames", "BreastImplantPresent", "PartialView"),
    *("LossyImageCompression", "LossyImageCompressionRatio", "PixelIntensityRelationship"),
)
"""Attributes that a verdict is made from."""


@dataclass(frozen=True)
class Verdict:
    """What becomes of one image, why, and what was read of it; what is unknown is None.

    Attributes:
        path: The file.
        sop_uid: SOP Instance UID.
        verdict: One of VERDICTS.
        reasons: What speaks against the image, gravest first; empty where it is simply accepted.
        modality: Modality.
        sop_class: UID of the SOP class.
        intent: `FOR PRESENTATION` or `FOR PROCESSING`.
        photometric: Photometric Interpretation.
        rows: Rows of the stored image.
        columns: Columns of the stored image.
        frames: Images in the file.
        spacing_mm: Millimetres per pixel in the breast's plane.
        spacing_source: The attribute that says so.
        magnification: Estimated Radiographic Magnification Factor.
        view: One of `embedder.findings.VIEWS`.
        laterality: `L` or `R`.
        view_modifiers: Meanings of CID 4015; a code that is not of it stands as it is.
        implant: Breast Implant Present, True for `YES`, False for `NO`.
        burned_in: Burned In Annotation, likewise.
        text_found: Whether the pixel check found lines of text; None where no pixels were looked at.
    """

    path: Path
    sop_uid: str | None = None
    verdict: str = ACCEPT
    reasons: tuple[str, ...] = ()
    modality: str | None = None
    sop_class: str | None = None
    intent: str | None = None
    photometric: str | None = None
    rows: int | None = None
    columns: int | None = None
    frames: int | None = None
    spacing_mm: float | None = None
    spacing_source: str | None = None
    magnification: float | None = None
    view: str | None = None
    laterality: str | None = None
    view_modifiers: tuple[str, ...] = ()
    implant: bool | None = None
    burned_in: bool | None = None
    text_found: bool | None = None


def read_verdict(path: Path, dataset: Dataset) -> Verdict:
    """Return what a data set says of itself as a verdict that is still open."""
    spacing, source, _ = dicomheader.sourced_spacing(dataset)
    return Verdict(
        path,
        sop_uid=dicomvalues.text(dataset, "SOPInstanceUID"),
        modality=dicomvalues.text(dataset, "Modality"),
        sop_class=dicomvalues.text(dataset, "SOPClassUID"),
        intent=dicomheader.intent(dataset),
        photometric=dicomvalues.text(dataset, "PhotometricInterpretation"),
        rows=dicomvalues.integer(dataset, "Rows"),
        columns=dicomvalues.integer(dataset, "Columns"),
        frames=dicomvalues.integer(dataset, "NumberOfFrames") or 1,
        spacing_mm=spacing,
        spacing_source=source,
        magnification=dicomvalues.number(dataset, "EstimatedRadiographicMagnificationFactor"),
        view=dicomheader.view(dataset),
        laterality=dicomheader.laterality(dataset),
        view_modifiers=_view_modifiers(dataset),
        implant=said_yes(dataset, "BreastImplantPresent"),
        burned_in=dicomheader.burned_in_annotation(dataset),
    )


def _view_modifiers(dataset: Dataset) -> tuple[str, ...]:
    code = dicomvalues.item(dataset, "ViewCodeSequence")
    found = []
    for position in range(_MOST_MODIFIERS):
        modifier = None if code is None else dicomvalues.item(code, "ViewModifierCodeSequence", position)
        if modifier is None:
            break
        value = dicomvalues.text(modifier, "CodeValue")
        if value is not None:
            found.append(_MODIFIERS.get(value, value))
    return tuple(found)


def said_yes(dataset: Dataset, keyword: str) -> bool | None:
    """Return True for `YES` and False for `NO`; None where the file says neither."""
    return {"YES": True, "NO": False}.get((dicomvalues.text(dataset, keyword) or "").upper())


def gate_manifest(frame: pd.DataFrame, verdicts: Sequence[Verdict]) -> tuple[pd.DataFrame, tuple[Verdict, ...]]:
    """Keep the rows of a manifest whose image is let in.

    Args:
        frame: A manifest as `embedder.manifest.read_manifest` gives it.
        verdicts: One for every image of it.

    Returns:
        The rows let in, with columns `gate` (the verdict) and `gate_note` (the reasons; unknown where there are none),
        and the verdicts of the images that were refused.

    Raises:
        ExchangeError: An image of the manifest has no verdict.
    """
    known = {str(verdict.path.absolute()): verdict for verdict in verdicts}
    found = [known.get(str(Path(name).absolute())) for name in frame["path"]]
    for name, verdict in zip(frame["path"], found, strict=True):
        if verdict is None:
            raise ExchangeError(name, "has not been judged", "judge all images of the manifest")
    judged = [verdict for verdict in found if verdict is not None]
    gated = frame.assign(
        gate=pd.Series([one.verdict for one in judged], index=frame.index, dtype="str"),
        gate_note=pd.Series([_joined(one.reasons) for one in judged], index=frame.index, dtype="object"),
    )
    refused = {str(one.path): one for one in judged if one.verdict == REFUSE}
    return gated[gated["gate"] != REFUSE].reset_index(drop=True), tuple(refused.values())


def _joined(reasons: Sequence[str]) -> str | None:
    return "; ".join(reasons) or None
