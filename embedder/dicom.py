"""Read mammograms from DICOM files."""

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom.uid as uid
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.filereader import read_file_meta_info, read_partial
from pydicom.pixels import get_decoder, pixel_array
from pydicom.tag import Tag

from embedder import dicomheader, dicomrendering, dicomvalues
from embedder.codestreams import StreamError, check_streams, find_fragments
from embedder.grayscale import Rendering, UnusableError, render
from embedder.header import Header, Mammogram, MammogramError, check_size, choose_frame
from embedder.jpeg2000 import decode_halved
from embedder.quiet import quiet_libraries
from embedder.rasters import merge_channels

NATIVE = (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian)
"""Transfer syntaxes whose pixels are not compressed."""

_STREAMS = (
    *(uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1),
    *(uid.JPEGLSLossless, uid.JPEGLSNearLossless, uid.JPEG2000Lossless, uid.JPEG2000),
)
JPEG_2000 = (uid.JPEG2000Lossless, uid.JPEG2000)
"""Transfer syntaxes whose images can be read at a fraction of their size."""

_TRANSFER_SYNTAXES = (*NATIVE, uid.RLELossless, *_STREAMS)
_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_PIXEL_DATA = 0x7FE00010
_UNDEFINED = 0xFFFFFFFF
_EXTRA = "install the decoders with pip install 'mammoseek[dicom]'"
_COPY_AGAIN = "copy it again from its source"

_IMAGE_KEYWORDS = (
    *("SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "Rows", "Columns"),
    *("BitsAllocated", "BitsStored", "HighBit"),
)
_TAGS: list[Any] = [Tag(keyword) for keyword in (*dicomheader.KEYWORDS, *dicomrendering.KEYWORDS, *_IMAGE_KEYWORDS)]


class BoundedReader(io.BufferedReader):
    """A file that never allocates more than it holds, whatever length an attribute declares."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self.size = os.fstat(self.fileno()).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        """Read at most what is left of the file."""
        left = max(0, self.size - self.tell())
        return super().read(left if size is None or size < 0 else min(size, left))


@dataclass(frozen=True)
class _DicomFile:
    dataset: Dataset
    header: Header
    samples: int
    pixels_at: int


@dataclass(frozen=True, eq=False)
class StoredImage:
    """A mammogram as it is stored.

    Attributes:
        header: What the file says of itself.
        stored: (rows, columns) of 8 or 16 bits, signed or not; of a colour image uint8 (rows, columns, 3).
        rendering: How the values become brightness; None for colour.
    """

    header: Header
    stored: npt.NDArray[np.integer]
    rendering: Rendering | None


@dataclass
class _PixelData:
    """Where Pixel Data lies in a file; filled in while the file is parsed."""

    start: int = -1
    length: int = 0


def read_dicom_header(path: Path) -> Header:
    """Read what a DICOM file says of itself; its pixels are neither read nor decoded.

    Raises:
        MammogramError: The file can't be read or is no mammogram.
    """
    with quiet_libraries(), BoundedReader(path) as file:
        return _open(path, file).header


def read_attributes(path: Path, keywords: Sequence[str]) -> Dataset:
    """Read some attributes of any DICOM file, a mammogram or not; its pixels are neither read nor decoded.

    Args:
        path: The file.
        keywords: Which attributes; what they hold is not checked, see `embedder.dicomvalues`.

    Raises:
        MammogramError: The file can't be read.
    """
    with quiet_libraries(), BoundedReader(path) as file:
        _check_syntax(path)
        try:
            return read_partial(
                file, stop_when=lambda tag, *_: tag >= _PIXEL_DATA, specific_tags=[Tag(name) for name in keywords]
            )
        except Exception as error:  # as in `_open`
            raise MammogramError(path, f"its DICOM header is damaged ({_reason(error)})", _COPY_AGAIN) from error


def read_dicom(path: Path, *, frame: int | None, allow_for_processing: bool) -> Mammogram:
    """Read a mammogram from a DICOM file; see `embedder.mammogram.read_mammogram`.

    Raises:
        MammogramError: The file can't be read, is no mammogram, or is refused.
    """
    with quiet_libraries(), BoundedReader(path) as file:
        opened = _open(path, file)
        header, dataset = opened.header, opened.dataset
        position = choose_frame(path, header.frames, frame)
        if header.image_intent == "FOR PROCESSING" and not allow_for_processing:
            raise MammogramError(
                path,
                "it is a For Processing image: raw detector values, not made to be looked at or compared",
                "give the For Presentation image of the same view, or ask for processing images",
            )
        if header.photometric not in ("MONOCHROME1", "MONOCHROME2") and opened.samples == 1:
            raise MammogramError(
                path,
                f"its photometric interpretation is {header.photometric or 'missing'}",
                "give a MONOCHROME1 or MONOCHROME2 image",
            )
        stored = _decode(path, file, header, position)
        if opened.samples == 3:
            return Mammogram(**vars(header), pixels=merge_channels(path, stored))
        rendering, notes = dicomrendering.read_rendering(dataset, header, position)
        try:
            pixels, unused = render(np.ascontiguousarray(stored), rendering)
        except UnusableError as error:
            raise MammogramError(path, f"{error}: there is nothing to see", "give another image") from error
    return Mammogram(**vars(replace(header, notes=(*header.notes, *notes, *unused))), pixels=pixels)


def read_stored(path: Path, *, frame: int | None, rows: tuple[int, int] | None = None) -> StoredImage:
    """Read the stored values of a mammogram, For Processing or not, and how they ask to be shown.

    Args:
        path: The file.
        frame: Which image of a multi-frame file, counted from 1; None where there is only one.
        rows: The first row that is wanted and the one after the last. Of an uncompressed file only these are read.

    Raises:
        MammogramError: The file can't be read, is no mammogram, or has no such rows.
    """
    with quiet_libraries(), BoundedReader(path) as file:
        opened = _open(path, file)
        header = opened.header
        position = choose_frame(path, header.frames, frame)
        if opened.samples == 1 and header.photometric not in ("MONOCHROME1", "MONOCHROME2"):
            cause = f"its photometric interpretation is {header.photometric or 'missing'}"
            raise MammogramError(path, cause, "give a MONOCHROME1 or MONOCHROME2 image")
        first, last = rows or (0, header.rows)
        if not 0 <= first < last <= header.rows:
            raise MammogramError(path, f"it has no rows {first} to {last}", f"it has {header.rows} of them")
        if opened.samples == 1 and header.transfer_syntax in NATIVE:
            stored = _rows(path, file, opened, position, first, last)
        else:
            stored = _decode(path, file, header, position)[first:last]
        if opened.samples == 3:
            return StoredImage(header, stored, None)
        rendering, notes = dicomrendering.read_rendering(opened.dataset, header, position)
    return StoredImage(replace(header, notes=(*header.notes, *notes)), stored, rendering)


def read_halved(path: Path, *, frame: int | None, halvings: int) -> StoredImage | None:
    """Read a mammogram at 1 / 2^halvings of its rows and columns, rounded up, in a fraction of the time.

    Args:
        path: The file.
        frame: Which image of a multi-frame file, counted from 1; None where there is only one.
        halvings: How often it is halved.

    Returns:
        As `read_stored`; None of a file that has to be decoded whole: all but grey, unsigned JPEG 2000.

    Raises:
        MammogramError: The file can't be read, is no mammogram, or has no such frame.
    """
    with quiet_libraries(), BoundedReader(path) as file:
        opened = _open(path, file)
        header = opened.header
        position = choose_frame(path, header.frames, frame)
        grey = opened.samples == 1 and header.photometric in ("MONOCHROME1", "MONOCHROME2")
        unsigned = dicomvalues.integer(opened.dataset, "PixelRepresentation") == 0
        if header.transfer_syntax not in JPEG_2000 or not (grey and unsigned):
            return None
        rendering, notes = dicomrendering.read_rendering(opened.dataset, header, position)
        if not _is_dark_padding(rendering, header.bits):
            return None  # it is known by its very value, which is mixed with tissue's at a fraction of the size
        file.seek(opened.pixels_at)
        try:
            stored = decode_halved(get_frame(file, position, number_of_frames=header.frames), halvings)
        except (StreamError, ValueError):  # pydicom finds no offsets of frames that lie in several fragments each
            return None
    expected = tuple(-(-size // 2**halvings) for size in (header.rows, header.columns))
    allocated = dicomvalues.integer(opened.dataset, "BitsAllocated")
    if stored.shape != expected or 8 * stored.dtype.itemsize != allocated:
        return None
    return StoredImage(replace(header, notes=(*header.notes, *notes)), stored, rendering)


def _is_dark_padding(rendering: Rendering, bits: int) -> bool:
    """Tell whether there is no padding, or one at the dark end of the scale: what is mixed with it is dark as well."""
    if rendering.padding is None:
        return True
    low, high = rendering.padding
    rising = rendering.modality is None and rendering.slope > 0
    return rising and (high >= (1 << bits) - 1 if rendering.inverted else low <= 0)


def _rows(
    path: Path, file: BoundedReader, opened: _DicomFile, position: int, first: int, last: int
) -> npt.NDArray[np.integer]:
    """Read some rows of one frame of an uncompressed file."""
    header, dataset = opened.header, opened.dataset
    size = (dicomvalues.integer(dataset, "BitsAllocated") or 8) // 8
    order = ">" if header.transfer_syntax == uid.ExplicitVRBigEndian else "<"
    kind = "i" if dicomvalues.integer(dataset, "PixelRepresentation") == 1 else "u"
    count = (last - first) * header.columns
    file.seek(opened.pixels_at + ((position * header.rows + first) * header.columns) * size)
    data = file.read(count * size)
    if len(data) < count * size:
        raise MammogramError(path, "its pixel data are cut short", _COPY_AGAIN)
    stored = np.frombuffer(data, f"{order}{kind}{size}").reshape(last - first, header.columns)
    return stored.astype(stored.dtype.newbyteorder("="), copy=False)


def _open(path: Path, file: BoundedReader) -> _DicomFile:
    """Parse a file up to its pixels and check that it is a mammogram that can be decoded."""
    pixel_data = _PixelData()

    def at_pixels(tag: int, _: str | None, length: int) -> bool:
        if tag == _PIXEL_DATA:
            pixel_data.start, pixel_data.length = file.tell(), length
        return tag >= _PIXEL_DATA

    syntax = _check_syntax(path)
    try:
        dataset = read_partial(file, stop_when=at_pixels, specific_tags=_TAGS)
    except Exception as error:  # a damaged file makes pydicom raise of many kinds, which mean the same here
        raise MammogramError(path, f"its DICOM header is damaged ({_reason(error)})", _COPY_AGAIN) from error
    reason = dicomheader.why_not_mammogram(dataset)
    if reason is not None and (pixel_data.start >= 0 or "Modality" in dataset):
        raise MammogramError(path, f"it is not a mammogram: {reason}", "give mammograms only")
    if pixel_data.start < 0:
        raise MammogramError(
            path, "it has no pixel data: it is cut short, or no image", f"{_COPY_AGAIN}, or leave it out"
        )
    header = _header(path, dataset, syntax)
    samples = _check_pixels(path, dataset, header)
    stored_samples = 2 if header.photometric == "YBR_FULL_422" else samples
    bytes_a_pixel = stored_samples * (dicomvalues.integer(dataset, "BitsAllocated") or 8) // 8
    _check_length(path, file, pixel_data, header, bytes_a_pixel)
    return _DicomFile(dataset, header, samples, pixel_data.start)


def _check_syntax(path: Path) -> str:
    """Return a file's transfer syntax; refuse those that can't be read.

    Done before the data set is parsed: a deflated one would be inflated whole, to whatever size.
    """
    try:
        syntax = read_file_meta_info(path).get("TransferSyntaxUID")
        known = syntax is not None and syntax in _TRANSFER_SYNTAXES
        name = "missing" if syntax is None else uid.UID(str(syntax)).name
    except Exception as error:  # as in `_open`
        raise MammogramError(path, f"its DICOM header is damaged ({_reason(error)})", _COPY_AGAIN) from error
    if not known:
        raise MammogramError(
            path,
            f"its transfer syntax is {name}",
            "convert it to Explicit VR Little Endian, for example with dcmconv or gdcmconv",
        )
    return str(syntax)


def _header(path: Path, dataset: Dataset, syntax: str) -> Header:
    rows, columns = (dicomvalues.integer(dataset, keyword) for keyword in ("Rows", "Columns"))
    if rows is None or columns is None:
        raise MammogramError(path, "it does not say how many rows and columns it has", _COPY_AGAIN)
    check_size(path, rows, columns)
    spacing, note = dicomheader.spacing(dataset)
    burned_in = dicomheader.burned_in_annotation(dataset)
    notes = [note] if note is not None else []
    if burned_in:
        notes.append("text is burnt into its pixels (Burned In Annotation): a name may be readable")
    return Header(
        path=path,
        format="DICOM",
        rows=rows,
        columns=columns,
        frames=dicomvalues.integer(dataset, "NumberOfFrames") or 1,
        bits=dicomvalues.integer(dataset, "BitsStored") or 0,
        spacing_mm=spacing,
        laterality=dicomheader.laterality(dataset),
        view=dicomheader.view(dataset),
        patient_id=dicomheader.patient_id(dataset),
        study_uid=dicomvalues.text(dataset, "StudyInstanceUID"),
        series_uid=dicomvalues.text(dataset, "SeriesInstanceUID"),
        sop_uid=dicomvalues.text(dataset, "SOPInstanceUID"),
        age=dicomheader.age(dataset),
        manufacturer=dicomvalues.text(dataset, "Manufacturer"),
        image_intent=dicomheader.intent(dataset),
        burned_in_annotation=burned_in,
        photometric=dicomvalues.text(dataset, "PhotometricInterpretation"),
        transfer_syntax=syntax,
        notes=tuple(notes),
    )


def _check_pixels(path: Path, dataset: Dataset, header: Header) -> int:
    """Refuse pixels that are no greyscale of 8 to 16 bits (PS3.3 C.7.6.3); return the samples of a pixel."""
    samples = dicomvalues.integer(dataset, "SamplesPerPixel") or 1
    allocated = dicomvalues.integer(dataset, "BitsAllocated")
    high = dicomvalues.integer(dataset, "HighBit")
    cause = None
    if header.frames < 1:
        cause = f"it declares {header.frames} frames"
    elif allocated not in (8, 16) or not 8 <= header.bits <= allocated:
        cause = f"its pixels have {header.bits} bits stored in {allocated}, and 8 to 16 bits can be read"
    elif samples == 1 and high is not None and high != header.bits - 1:
        cause = f"its high bit is {high} and its pixels have {header.bits} bits: one of the two is wrong"
    elif samples == 3 and (header.photometric not in _COLOURS or allocated != 8):
        cause = f"it is a colour image ({header.photometric}, {allocated} bits)"
    elif samples not in (1, 3):
        cause = f"its pixels have {samples} samples"
    elif dicomvalues.integer(dataset, "PixelRepresentation") not in (0, 1):
        cause = "it does not say whether its pixels are signed"
    if cause is not None:
        raise MammogramError(path, cause, "convert it to a greyscale image of 8 to 16 bits")
    return samples


def _check_length(path: Path, file: BoundedReader, pixel_data: _PixelData, header: Header, bytes_a_pixel: int) -> None:
    """Refuse pixel data that are cut short, or that declare another size than the header."""
    try:
        if header.transfer_syntax in NATIVE:
            needed = header.rows * header.columns * header.frames * bytes_a_pixel
            if pixel_data.length == _UNDEFINED or needed > min(pixel_data.length, file.size - pixel_data.start):
                raise StreamError("its pixel data are cut short")
        elif pixel_data.length != _UNDEFINED:
            raise StreamError("its pixel data are not encapsulated, as its transfer syntax asks")
        else:
            fragments = find_fragments(file, pixel_data.start, file.size)
            if header.transfer_syntax in _STREAMS:
                check_streams(file, fragments, header.rows, header.columns)
    except StreamError as error:
        raise MammogramError(path, str(error), _COPY_AGAIN) from error


def _decode(path: Path, file: BoundedReader, header: Header, position: int) -> npt.NDArray[np.integer]:
    """Decode one frame: (rows, columns), or (rows, columns, 3) for colour."""
    name = uid.UID(str(header.transfer_syntax)).name
    decoder = get_decoder(uid.UID(str(header.transfer_syntax)))
    if not decoder.is_available:
        raise MammogramError(path, f"no decoder is installed for {name}", _EXTRA)
    file.seek(0)
    try:
        stored: npt.NDArray[np.integer] = pixel_array(file, index=position)
    except Exception as error:  # every decoder raises its own kinds
        remedy = "give it uncompressed, JPEG 2000 or JPEG lossless"
        if any("pylibjpeg" in missing for missing in decoder.missing_dependencies):
            remedy = _EXTRA
        raise MammogramError(path, f"its pixels can't be decoded ({name}: {_reason(error)})", remedy) from error
    if stored.shape[:2] != (header.rows, header.columns):
        raise MammogramError(path, "its pixels do not have the size that its header says", _COPY_AGAIN)
    return stored.astype(stored.dtype.newbyteorder("="), copy=False)


def _reason(error: Exception) -> str:
    """Return the first line of what a library says, kept short."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:160]
