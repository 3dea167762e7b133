"""What a result takes over from the images that it is about: patient, study and request (PS3.3 C.7.1, C.7.2, C.17.2).

A result must lie in its images' study, so identifiers are taken over as they are or not at all. An attribute that the
standard wants to be there is left empty where no image has it, or has it in a form that the standard forbids; a patient
id in such a form is refused.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pydicom.config import RAISE
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pydicom.valuerep import validate_value

from embedder import dicomheader, dicomvalues
from exchange import ExchangeError
from exchange.dicomtext import is_line
from exchange.uids import is_uid

IMAGE_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")

# Type 2: there, and empty where unknown.
_ALWAYS = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber"),
)
_WHERE_KNOWN = (
    *("IssuerOfPatientID", "PatientIdentityRemoved", "DeidentificationMethod", "StudyDescription"),
    *("PatientAge", "PatientSize", "PatientWeight"),
)
_SEXES = ("M", "F", "O")
_REQUEST = ("AccessionNumber", "RequestedProcedureID", "RequestedProcedureDescription")
_CODE = ("CodeValue", "CodingSchemeDesignator", "CodingSchemeVersion", "CodeMeaning")
_ISSUER = ("LocalNamespaceEntityID", "UniversalEntityID", "UniversalEntityIDType")


@dataclass(frozen=True, eq=False)
class SourceHeader:
    """What the images of one study have in common.

    Attributes:
        attributes: Patient and study, as text that any character set can be made of, and the UIDs of the first image.
        images: The UIDs of each image, sorted by its own.
        requests: Items of the Referenced Request Sequence; empty where the images name no request.
        notes: What was left out, and why.
    """

    attributes: Dataset
    images: tuple[Dataset, ...]
    requests: tuple[Dataset, ...]
    notes: tuple[str, ...]


def source_header(images: Iterable[Dataset], *, study_uid: str, patient_id: str | None = None) -> SourceHeader:
    """Return what a result takes over from images.

    Args:
        images: The images, pixels not needed; repetitions count once.
        study_uid: The study that they must be of.
        patient_id: The woman that they must be of, as mammoseek knows her; None where that is not known.

    Raises:
        ExchangeError: There are none, one is no image, they are of another study, of several or of several women, or
            the patient's id has no form that DICOM allows.
    """
    given = _by_uid(images)
    if not given:
        raise ExchangeError(
            f"study {study_uid}", "no image of it was given", "pass the headers of the images that the findings lie on"
        )
    _check_study(given, study_uid)
    _check_patient(given, patient_id)
    notes: list[str] = []
    attributes = Dataset()
    for keyword in (*_ALWAYS, *_WHERE_KNOWN):
        known = _first(given, keyword, notes)
        if known is not None or keyword in _ALWAYS:
            setattr(attributes, keyword, known or "")
    _tell_removal(attributes)
    codes = next(filter(None, (_items(image, "ProcedureCodeSequence", _CODE) for image in given)), [])
    if codes:
        attributes.ProcedureCodeSequence = codes
    issuers = next(filter(None, (_items(image, "IssuerOfAccessionNumberSequence", _ISSUER) for image in given)), [])
    if issuers and attributes.AccessionNumber:
        attributes.IssuerOfAccessionNumberSequence = issuers[:1]
    for keyword in IMAGE_UIDS:
        setattr(attributes, keyword, dicomvalues.text(given[0], keyword))
    return SourceHeader(
        attributes,
        tuple(_uids(image) for image in given),
        tuple(_requests(given, attributes)),
        tuple(dict.fromkeys(notes)),
    )


def image_name(image: Dataset) -> str:
    """Return what an error calls an image: its file where it was read from one, else its UID."""
    file = getattr(image, "filename", None)
    return str(file) if isinstance(file, str) and file else f"image {dicomvalues.text(image, 'SOPInstanceUID')}"


def _by_uid(images: Iterable[Dataset]) -> list[Dataset]:
    found: dict[str, Dataset] = {}
    for image in images:
        for keyword in IMAGE_UIDS:
            uid = dicomvalues.text(image, keyword)
            if uid is None or not is_uid(uid):
                what = "has none" if uid is None else f"has {uid[:80]!r}, which is no UID"
                raise ExchangeError(
                    image_name(image),
                    f"it must have a {keyword}, and {what}",
                    "give the images as the archive has them",
                )
        kind = UID(str(dicomvalues.text(image, "SOPClassUID")))
        if "ImageStorage" not in kind.keyword:
            raise ExchangeError(image_name(image), f"it is no image of the standard ({kind.name})", "give images only")
        found.setdefault(str(dicomvalues.text(image, "SOPInstanceUID")), image)
    return [found[uid] for uid in sorted(found)]


def _check_study(images: Sequence[Dataset], study_uid: str) -> None:
    for image in images:
        own = dicomvalues.text(image, "StudyInstanceUID")
        if own != study_uid:
            raise ExchangeError(
                image_name(image), f"it is of the study {own}, not of {study_uid}", "make one result for each study"
            )


def _check_patient(images: Sequence[Dataset], patient_id: str | None) -> None:
    for keyword, what in (
        ("PatientID", "patients"),
        ("IssuerOfPatientID", "issuers of the patient's id"),
        ("PatientBirthDate", "dates of birth"),
    ):
        said = sorted({told for image in images if (told := dicomvalues.text(image, keyword)) is not None})
        if len(said) > 1:
            raise ExchangeError(
                f"study {dicomvalues.text(images[0], 'StudyInstanceUID')}",
                f"its images name several {what}: {said[0][:64]!r} and {said[1][:64]!r}",
                "find out whose images they are before anything is written about them",
            )
        if keyword == "PatientID" and said:
            problem = _problem("LO", said[0])
            if problem is not None:
                raise ExchangeError(
                    image_name(images[0]),
                    f"its patient id {problem}, and what is written under another id is lost",
                    "correct it in the images",
                )
    if patient_id is None:
        return
    for image in images:
        names = {dicomvalues.text(image, "PatientID"), dicomheader.patient_id(image)} - {None}
        if names and patient_id not in names:
            raise ExchangeError(
                image_name(image),
                f"it is of the patient {min(map(str, names))[:64]!r}, and the findings are of {patient_id[:64]!r}",
                "give the images that the findings lie on",
            )


def _first(images: Sequence[Dataset], keyword: str, notes: list[str]) -> str | None:
    """Return an attribute of the first image that has it in a form that the standard allows."""
    for image in images:
        said = dicomvalues.text(image, keyword)
        if said is None:
            continue
        problem = _problem(dictionary_VR(keyword), said)
        if problem is None and keyword == "PatientSex" and said not in _SEXES:
            problem = "is none of M, F and O"
        if problem is None:
            return said
        notes.append(f"{keyword} of the images was left out: it {problem}.")
    return None


def _problem(vr: str, text: str) -> str | None:
    """Return what the standard has against a text as a value of this representation."""
    if not is_line(text):
        return "holds control characters"
    if vr == "PN" and any(len(group) > 64 for group in text.split("=")):
        return "has more than 64 characters in a group"
    try:
        validate_value(vr, text, RAISE)
    except ValueError:
        return f"is no value of {vr}, as the standard has them"
    return None


def _tell_removal(attributes: Dataset) -> None:
    removed = attributes.get("PatientIdentityRemoved")
    if removed not in (None, "YES", "NO"):
        del attributes.PatientIdentityRemoved
    if removed == "YES" and "DeidentificationMethod" not in attributes:
        attributes.DeidentificationMethod = "not told by the images"  # required where the identity was removed


def _items(image: Dataset, keyword: str, parts: Sequence[str]) -> list[Dataset]:
    """Return the items of a sequence with the parts that are named, as text; items that say nothing are dropped."""
    plain = []
    for item in _all_items(image, keyword):
        copy = Dataset()
        for part in parts:
            said = dicomvalues.text(item, part)
            if said is not None and _problem(dictionary_VR(part), said) is None:
                setattr(copy, part, said)
        is_code = "CodeMeaning" in copy and "CodingSchemeDesignator" in copy and "CodeValue" in copy
        if is_code if parts is _CODE else len(copy) > 0:
            plain.append(copy)
    return plain


def _all_items(image: Dataset, keyword: str) -> Iterator[Dataset]:
    position = 0
    while (item := dicomvalues.item(image, keyword, position)) is not None:
        yield item
        position += 1


def _uids(image: Dataset) -> Dataset:
    copy = Dataset()
    for keyword in IMAGE_UIDS:
        setattr(copy, keyword, dicomvalues.text(image, keyword))
    return copy


def _requests(images: Sequence[Dataset], attributes: Dataset) -> list[Dataset]:
    """Return the requests that the images were made for; one of the accession number where they name none."""
    requests: dict[tuple[str, ...], Dataset] = {}
    for image in images:
        for asked in _all_items(image, "RequestAttributesSequence"):
            told = []
            for keyword in _REQUEST:
                said = dicomvalues.text(asked, keyword)
                told.append(said if said is not None and _problem(dictionary_VR(keyword), said) is None else "")
            told[0] = told[0] or attributes.AccessionNumber
            codes = _items(asked, "RequestedProcedureCodeSequence", _CODE)
            if any(told):
                requests.setdefault(tuple(told), _request(attributes, told, codes))
    if not requests and attributes.AccessionNumber:
        return [_request(attributes, [attributes.AccessionNumber, "", ""], [])]
    return list(requests.values())


def _request(attributes: Dataset, told: Sequence[str], codes: list[Dataset]) -> Dataset:
    request = Dataset()
    request.ReferencedStudySequence = []
    request.PlacerOrderNumberImagingServiceRequest = ""
    request.FillerOrderNumberImagingServiceRequest = ""
    for keyword, said in zip(_REQUEST, told, strict=True):
        setattr(request, keyword, said)
    request.RequestedProcedureCodeSequence = codes
    request.StudyInstanceUID = attributes.StudyInstanceUID
    return request
