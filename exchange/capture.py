"""A montage as a secondary capture, for viewers that show no structured report (PS3.3 A.8.1).

The object is a single-frame Secondary Capture Image in colour: of the secondary captures the one that every viewer
shows. A line is burnt in above the picture, where it covers nothing. Whoever the picture names is burnt in as well.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from embedder.quiet import quiet_libraries
from exchange import ExchangeError
from exchange.dicomtext import clean_line
from exchange.opinions import StudyOpinions
from exchange.reportgroups import ALGORITHM
from exchange.results import ResultOptions, set_time
from exchange.sourceheader import source_header
from exchange.uids import derived_uid

SERIES_DESCRIPTION = "mammoseek montage, RESEARCH USE, not for diagnosis"
BURNT_IN = "NOT FOR DIAGNOSIS. Research use only. The other pictures are of other women."
"""What is burnt in above the picture."""

_LARGEST_FILE = 256 << 20  # bytes
_MOST_PIXELS = 40_000_000  # 120 MB in colour; a montage of 60 pictures has some 4 million
_FEWEST_COLUMNS = 240  # narrower, and nobody could read the line
_STRIP = 0.045  # height of the line's strip, of the picture's width
_FEWEST_STRIP_ROWS = 18
_LETTERS = (255, 214, 10)  # amber on black


def montage_capture(
    picture: Path,
    opinions: StudyOpinions,
    images: Iterable[Dataset],
    options: ResultOptions | None = None,
    *,
    instance_number: int = 1,
) -> Dataset:
    """Return a montage as a secondary capture in a series of its own in its study, ready to be saved.

    Its SOP Instance UID follows from study, picture and model: the same made twice gives the same one.

    Args:
        picture: A PNG file, as `embedder.montage.draw_montage` writes it.
        opinions: What the montage shows.
        images: Headers of the study's images; pixels are not needed.
        options: How it is written; its series has the number after the report's.
        instance_number: Its place in that series, from 1: a study may have a montage of each finding.

    Raises:
        ExchangeError: The picture can't be read or is too large, or the images are not of the study, as in
            `exchange.reports.study_report`.
    """
    options = options or ResultOptions()
    header = source_header(images, study_uid=opinions.study_uid, patient_id=opinions.patient_id)
    pixels = with_warning(read_picture(Path(picture)))
    capture = Dataset()
    capture.update(header.attributes)
    capture.SpecificCharacterSet = "ISO_IR 192"
    digest = hashlib.sha256(pixels.tobytes()).hexdigest()
    study, model = opinions.study_uid, opinions.model_digest
    capture.SOPClassUID = SecondaryCaptureImageStorage
    capture.SOPInstanceUID = derived_uid(options.uid_root, "capture", study, model, str(pixels.shape), digest)
    capture.SeriesInstanceUID = derived_uid(options.uid_root, "capture series", study, model)
    capture.SeriesNumber = options.series_number + 1
    capture.InstanceNumber = instance_number
    capture.SeriesDescription = SERIES_DESCRIPTION
    capture.Modality = "OT"
    capture.ConversionType = "SYN"
    capture.Manufacturer = ALGORITHM
    capture.ManufacturerModelName = ALGORITHM
    version = clean_line(opinions.version, 64)
    if version:
        capture.SoftwareVersions = version
    capture.SecondaryCaptureDeviceManufacturer = ALGORITHM
    capture.ContentQualification = "RESEARCH"
    capture.ImageType = ["DERIVED", "SECONDARY"]
    capture.PatientOrientation = capture.Laterality = ""  # the pictures are of many breasts
    capture.BurnedInAnnotation = "YES"
    capture.DerivationDescription = (
        "Montage of a detection and of similar findings of other women, made for research and not for diagnosis. "
        f"Model {clean_line(model, 64)}, gallery {clean_line(opinions.gallery_digest, 64)}."
    )
    capture.SourceImageSequence = [_source(image) for image in header.images]
    _put_pixels(capture, pixels)
    set_time(capture, options.created)
    capture.file_meta = _meta(capture)
    return capture


def read_picture(path: Path) -> npt.NDArray[np.uint8]:
    """Return a PNG file's pixels: (rows, columns, 3); what is transparent becomes white.

    Raises:
        ExchangeError: It is none, is damaged, or is too small or too large.
    """
    try:
        if not path.is_file():
            raise ExchangeError(path, "there is no such file", "name the montage's PNG file")
        if path.stat().st_size > _LARGEST_FILE:
            raise ExchangeError(path, "it is too large for a montage", "draw fewer neighbours")
        with quiet_libraries(), Image.open(path, formats=("PNG",)) as opened:
            width, height = opened.size
            if width * height > _MOST_PIXELS or width < _FEWEST_COLUMNS or max(width, height) > 60_000:
                raise ExchangeError(path, f"a picture of {width} × {height} pixels is no montage", "draw it anew")
            opened.load()
            drawn = opened.convert("RGBA")
    except ExchangeError:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ExchangeError(path, f"it can't be read as PNG ({error})"[:200], "draw the montage again") from error
    ground = Image.new("RGBA", drawn.size, "white")
    return np.asarray(Image.alpha_composite(ground, drawn).convert("RGB"))


def with_warning(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return a picture with a strip above it, into which BURNT_IN is burnt; the picture itself stays as it was.

    Args:
        pixels: (rows, columns, 3).
    """
    width = pixels.shape[1]
    rows = max(_FEWEST_STRIP_ROWS, round(_STRIP * width))
    size = 0.7 * rows
    while size > 4 and ImageFont.load_default(size).getlength(BURNT_IN) > 0.96 * width:
        size *= 0.9
    strip = Image.new("RGB", (width, rows), "black")
    ImageDraw.Draw(strip).text(
        (width / 2, rows / 2), BURNT_IN, fill=_LETTERS, font=ImageFont.load_default(size), anchor="mm"
    )
    return np.concatenate([np.asarray(strip), pixels])


def _source(image: Dataset) -> Dataset:
    source = Dataset()
    source.ReferencedSOPClassUID = image.SOPClassUID
    source.ReferencedSOPInstanceUID = image.SOPInstanceUID
    return source


def _put_pixels(capture: Dataset, pixels: npt.NDArray[np.uint8]) -> None:
    capture.SamplesPerPixel = 3
    capture.PhotometricInterpretation = "RGB"
    capture.PlanarConfiguration = 0
    capture.Rows, capture.Columns = pixels.shape[:2]
    capture.BitsAllocated = capture.BitsStored = 8
    capture.HighBit = 7
    capture.PixelRepresentation = 0
    data = pixels.tobytes()
    capture.add_new("PixelData", "OB", data + b"\0" * (len(data) % 2))


def _meta(capture: Dataset) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = capture.SOPClassUID
    meta.MediaStorageSOPInstanceUID = capture.SOPInstanceUID
    return meta
