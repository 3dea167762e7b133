"""Detections as DICOM Mammography CAD SR documents (PS3.3 A.35.5, PS3.16 TID 4000): one for each study.

Image, study and woman are those of the images' own headers. What the documents say: `exchange.cadtemplates`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import ExplicitVRLittleEndian

from embedder import dicomheader, dicomvalues
from embedder.findings import Box
from embedder.quiet import quiet_libraries
from exchange import ExchangeError
from exchange.cadcodes import MAMMOGRAPHY_CAD_SR
from exchange.cadtemplates import ALGORITHM, CadMark, Detector, LibraryEntry, document_content
from exchange.detections import Detection
from exchange.dicomtext import clean_line
from exchange.imagefolders import list_images
from exchange.regions import MOST_CORNERS
from exchange.reportcodes import SCHEME, SCHEME_NAME, SCHEME_VERSION
from exchange.results import ResultOptions, set_time, structured_reporting
from exchange.sourceheader import SourceHeader, source_header
from exchange.spatialcoordinates import box_of
from exchange.uids import derived_uid

SERIES_DESCRIPTION = "mammoseek detections, RESEARCH USE, not for diagnosis"
REMARK = (
    "For research use only. Not a medical device, and nothing in this document is a diagnosis. Nobody has verified it."
    " The certainty of a finding is its detector's score, and no probability of cancer."
)
MOST_FINDINGS = 4_000
"""Detections of a study: each takes some 13 content items and 31 items of sequences, of which readers have limits."""

_SERIES = 2  # after those of reports and of captures
_OUTSIDE = 0.01  # pixels that an outline may stand out of its box: a box is rounded, see `exchange.formats.places`


@dataclass(frozen=True)
class Examined:
    """What a detector looked at, whether it found something there or not.

    Attributes:
        images: The files.
        detector: Who looked, where no detection says so.
        detector_version: Its version.
    """

    images: tuple[Path, ...] = ()
    detector: str | None = None
    detector_version: str | None = None

    @classmethod
    def below(
        cls, places: Iterable[Path], detector: str | None = None, detector_version: str | None = None
    ) -> "Examined":
        """Return what was looked at where files are named, or folders with all images below them.

        Raises:
            ExchangeError: A folder holds no image.
        """
        images: list[Path] = []
        for place in places:
            found = [Path(path) for path, _ in list_images(place.resolve())] if place.is_dir() else [place]
            if not found:
                raise ExchangeError(place, "holds no images", "name the folder of the images that were looked at")
            images += found
        return cls(tuple(images), detector, detector_version)


@dataclass(frozen=True, eq=False)
class _Image:
    path: str
    header: Dataset

    @property
    def sop_uid(self) -> str:
        return str(dicomvalues.text(self.header, "SOPInstanceUID"))

    @property
    def frames(self) -> int:
        return dicomvalues.integer(self.header, "NumberOfFrames") or 1


def cad_reports(
    detections: Iterable[Detection], examined: Examined | None = None, options: ResultOptions | None = None
) -> list[Dataset]:
    """Return a CAD SR document for each study, ready to be saved, in the order in which the studies come.

    Each detection is a single image finding that is to be presented; those that share a `lesion_id` in a study are one
    composite feature. A study of which images were examined and nothing was found gets a document without findings: an
    image that nobody says was looked at is never said to be without findings. SOP Instance UIDs follow from what a
    document says, not from the time.

    Args:
        detections: What was found, on DICOM images; the files must be there.
        examined: What was looked at besides the images of the detections.
        options: How the documents are written.

    Raises:
        ExchangeError: highdicom is not installed, there is nothing to write, an image is no DICOM file or lacks its
            UIDs, a study has several women or too many detections, or a detection has no box, does not lie on its
            image, has a score outside 0 to 1, or is of another image, side or woman than its file.
    """
    sr = structured_reporting()
    options, examined = options or ResultOptions(), examined or Examined()
    given = list(detections)
    if not given and not examined.images:
        raise ExchangeError(
            "CAD report", "there is no detection, and no image that was looked at", "name the images that were"
        )
    known: dict[str, _Image] = {}
    studies: dict[str, list[Detection]] = {}
    for path in (*(one.path for one in given), *map(str, examined.images)):
        if path not in known:
            known[path] = _Image(path, _header(path))
            studies.setdefault(_study_uid(known[path]), [])
    for one in given:
        studies[_study_uid(known[one.path])].append(one)
    looked_at: dict[str, list[_Image]] = {}
    for image in (known[str(path)] for path in examined.images):
        looked_at.setdefault(_study_uid(image), []).append(image)
    searchers = list(dict.fromkeys(map(_detector, given))) or [(examined.detector, examined.detector_version)]
    return [
        _Study(uid, found, known, looked_at.get(uid, []), searchers).document(sr, options)
        for uid, found in studies.items()
    ]


@dataclass(frozen=True, eq=False)
class _Study:
    """What there is to say of one study."""

    uid: str
    detections: Sequence[Detection]
    images: dict[str, _Image]
    examined: Sequence[_Image]
    searchers: Sequence[Detector]

    def document(self, sr: Any, options: ResultOptions) -> Dataset:
        """Return its document."""
        from embedder.checkpoint import code_version

        header = self._source()
        library = self._library()
        positions = {key: position for position, key in enumerate(library)}
        marks = [
            CadMark(one, line_around(one, image.header), positions[self._key(one)])
            for one, image in zip(self.detections, self._own_images(), strict=True)
        ]
        lesions: dict[object, list[CadMark]] = {}
        for mark in marks:
            lesion = mark.detection.lesion_id
            lesions.setdefault(id(mark) if lesion is None else lesion, []).append(mark)
        looked_at: dict[Detector, dict[int, None]] = {}
        for mark in marks:
            looked_at.setdefault(mark.detector, {})[mark.image] = None
        for detector in self.searchers if self.examined else ():
            looked_at.setdefault(detector, {}).update((positions[image.sop_uid, 0], None) for image in self.examined)
        content = document_content(
            sr,
            list(library.values()),
            list(lesions.values()),
            {detector: sorted(places) for detector, places in looked_at.items()},
            version=code_version(),
            remarks=" ".join((REMARK, *header.notes)),
        )
        return _document(header, content, code_version(), options)

    def _source(self) -> SourceHeader:
        if len(self.detections) > MOST_FINDINGS:
            raise ExchangeError(
                f"study {self.uid}",
                f"has {len(self.detections):,} detections: {MOST_FINDINGS:,} are the most of one document",
                "keep those with the highest scores",
            )
        women = sorted({one.patient_id for one in self.detections})
        if len(women) > 1:
            raise ExchangeError(
                f"study {self.uid}",
                f"its detections name several women: {women[0][:64]!r} and {women[1][:64]!r}",
                "find out whose images they are before anything is written about them",
            )
        images = [image.header for image in (*self._own_images(), *self.examined)]
        return source_header(images, study_uid=self.uid, patient_id=women[0] if women else None)

    def _own_images(self) -> list[_Image]:
        return [self.images[one.path] for one in self.detections]

    def _key(self, one: Detection) -> tuple[str, int]:
        image = self.images[one.path]
        return image.sop_uid, _frame(one, image) or 0

    def _library(self) -> dict[tuple[str, int], LibraryEntry]:
        """Return the images by SOP Instance UID and frame (0 for the whole image), sorted by them."""
        found: dict[tuple[str, int], LibraryEntry] = {}
        for one, image in zip(self.detections, self._own_images(), strict=True):
            if one.score is not None and not 0 <= one.score <= 1:
                raise ExchangeError(
                    f"detection {one.detection_id[:80]!r}",
                    f"its score {one.score:g} is not in 0 to 1",
                    "scale the detector's scores",
                )
            if one.sop_uid is not None and one.sop_uid != image.sop_uid:
                raise ExchangeError(
                    image.path,
                    f"it is the image {image.sop_uid}, and the detection {one.detection_id[:80]!r} lies on"
                    f" {one.sop_uid}",
                    "find out which of them is wrong",
                )
            found.setdefault(self._key(one), _entry(image, one, _frame(one, image)))
        for image in self.examined:
            found.setdefault((image.sop_uid, 0), _entry(image, None, None))
        return {key: found[key] for key in sorted(found)}


def line_around(detection: Detection, header: Dataset) -> npt.NDArray[np.float32]:
    """Return the closed line around a detection: (corners, 2) columns and rows, as SCOORD counts them.

    Its outline, where the box around that is the detection's box once both are float32, which SCOORD has; else the box
    itself, which is what an image is cropped by.

    Args:
        detection: What was found.
        header: The header of its image.

    Raises:
        ExchangeError: It has no box, or does not lie on its image, or the image does not say how large it is.
    """
    name = f"detection {detection.detection_id[:80]!r}"
    if detection.x0 is None or detection.y0 is None or detection.x1 is None or detection.y1 is None:
        raise ExchangeError(name, "has no box, and a CAD report needs a place", "write csv or json")
    rows, columns = (dicomvalues.integer(header, keyword) for keyword in ("Rows", "Columns"))
    if not rows or not columns:
        raise ExchangeError(detection.path, "it does not say how many rows and columns it has", "copy it again")
    x0, y0, x1, y1 = detection.x0, detection.y0, detection.x1, detection.y1
    if not (0 <= x0 < x1 <= columns and 0 <= y0 < y1 <= rows):
        raise ExchangeError(
            name,
            f"its box {x0},{y0},{x1},{y1} does not lie on its image of {columns} × {rows} pixels",
            "check that it is of this image, in pixels of the stored image",
        )
    box = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], np.float32)
    outline = np.array(detection.outline or (), np.float64).reshape(-1, 2)
    if len(outline) > 1 and (outline[0] == outline[-1]).all():
        outline = outline[:-1]
    line = box
    if 3 <= len(outline) <= MOST_CORNERS:
        inside = np.clip(outline, (x0, y0), (x1, y1)).astype(np.float32)
        corners = [(float(x), float(y)) for x, y in inside]
        if np.abs(inside - outline).max() <= _OUTSIDE and box_of(corners, rows, columns) == Box(x0, y0, x1, y1):
            line = inside
    return np.concatenate([line, line[:1]])


def _entry(image: _Image, detection: Detection | None, frame: int | None) -> LibraryEntry:
    """Return an image's entry: what its header says, else what the detection knows."""
    place = (frame or 1) - 1
    side, view = dicomheader.laterality(image.header, place), dicomheader.view(image.header)
    spacing = dicomheader.spacing(image.header, place)[0]
    if detection is None:
        return LibraryEntry(image.header, frame, side, view, spacing)
    if side is not None and detection.laterality is not None and side != detection.laterality:
        raise ExchangeError(
            image.path,
            f"it shows the breast {side}, and the detection {detection.detection_id[:80]!r} lies in"
            f" {detection.laterality}",
            "find out which of them is wrong",
        )
    return LibraryEntry(
        image.header, frame, side or detection.laterality, view or detection.view, spacing or detection.spacing_mm
    )


def _frame(detection: Detection, image: _Image) -> int | None:
    """Return the frame that a reference must name; None where the image has one alone."""
    if image.frames == 1 and detection.frame_number in (None, 1):
        return None
    if detection.frame_number is None or not 1 <= detection.frame_number <= image.frames:
        raise ExchangeError(
            image.path,
            f"it has {image.frames} frames, and the detection {detection.detection_id[:80]!r} names"
            f" {detection.frame_number or 'none'}",
            f"give its frame_number, 1 to {image.frames}",
        )
    return detection.frame_number


def _header(path: str) -> Dataset:
    remedy = "write csv, json or coco, or name the DICOM files"
    try:
        with quiet_libraries():
            return dcmread(path, stop_before_pixels=True)
    except InvalidDicomError as error:
        raise ExchangeError(
            path, "it is no DICOM file, and a CAD report names images and study by their UIDs", remedy
        ) from error
    except OSError as error:
        raise ExchangeError(path, f"can't be read ({error.strerror or error})", remedy) from error
    except Exception as error:  # pydicom raises whatever a damaged file leads it to
        raise ExchangeError(
            path, f"its header can't be read ({error})"[:300], "copy it again from its source"
        ) from error


def _study_uid(image: _Image) -> str:
    return dicomvalues.text(image.header, "StudyInstanceUID") or ""


def _detector(detection: Detection) -> Detector:
    return detection.detector, detection.detector_version


def _document(header: SourceHeader, content: Dataset, version: str, options: ResultOptions) -> Dataset:
    """Return the object around a content (PS3.3 A.35.5)."""
    document = Dataset()
    document.update(header.attributes)
    document.update(content)
    study = str(header.attributes.StudyInstanceUID)
    images = [str(image.SOPInstanceUID) for image in header.images]
    document.SpecificCharacterSet = "ISO_IR 192"
    document.SOPClassUID = MAMMOGRAPHY_CAD_SR
    document.SOPInstanceUID = derived_uid(options.uid_root, "cad report", study, *images, content.to_json())
    document.SeriesInstanceUID = derived_uid(options.uid_root, "cad report series", study, version)
    document.Modality = "SR"
    document.SeriesNumber = options.series_number + _SERIES
    document.InstanceNumber = 1
    document.SeriesDescription = SERIES_DESCRIPTION
    document.ReferencedPerformedProcedureStepSequence = []
    document.PerformedProcedureCodeSequence = []
    document.Manufacturer = ALGORITHM
    document.SoftwareVersions = clean_line(version, 64) or "unknown"
    document.CompletionFlag = "COMPLETE"
    document.VerificationFlag = "UNVERIFIED"
    document.ContentQualification = "RESEARCH"
    document.CurrentRequestedProcedureEvidenceSequence = [_evidence(header)]
    document.CodingSchemeIdentificationSequence = [_scheme()]
    if header.requests:
        document.ReferencedRequestSequence = list(header.requests)
    set_time(document, options.created)
    document.file_meta = FileMetaDataset()
    document.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return document


def _evidence(header: SourceHeader) -> Dataset:
    """Return the study with its series and images (PS3.3 C.17.2.3)."""
    series: dict[str, list[Dataset]] = {}
    for image in header.images:
        one = Dataset()
        one.ReferencedSOPClassUID, one.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
        series.setdefault(str(image.SeriesInstanceUID), []).append(one)
    study = Dataset()
    study.StudyInstanceUID = header.attributes.StudyInstanceUID
    study.ReferencedSeriesSequence = []
    for uid, images in series.items():
        item = Dataset()
        item.SeriesInstanceUID, item.ReferencedSOPSequence = uid, images
        study.ReferencedSeriesSequence.append(item)
    return study


def _scheme() -> Dataset:
    """Return what a document says of mammoseek's own codes (PS3.3 C.12.1.1.17)."""
    scheme = Dataset()
    scheme.CodingSchemeDesignator = SCHEME
    scheme.CodingSchemeName = SCHEME_NAME
    scheme.CodingSchemeVersion = SCHEME_VERSION
    scheme.CodingSchemeResponsibleOrganization = ALGORITHM
    return scheme
