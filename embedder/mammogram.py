"""Read one mammogram from one file, or refuse it and say why.

>>> from embedder.mammogram import read_mammogram
>>> read_mammogram("nowhere.dcm")
Traceback (most recent call last):
    ...
embedder.header.MammogramError: nowhere.dcm: there is no such file; check the path
"""

import os
from pathlib import Path

from embedder.dicom import read_dicom, read_dicom_header
from embedder.header import MAXIMUM_PIXELS, MINIMUM_SIDE, Header, Mammogram, MammogramError
from embedder.rasters import read_raster, read_raster_header

__all__ = [
    "MAXIMUM_PIXELS",
    "MINIMUM_SIDE",
    "Header",
    "Mammogram",
    "MammogramError",
    "is_dicom",
    "read_header",
    "read_mammogram",
]

_DICOM_PREFIX = 132  # a preamble of 128 bytes, then DICM (PS3.10 7.1)
_SIGNATURES = (
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",
    *(b"P%d" % kind for kind in range(1, 7)),
    *(b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
)


def read_header(path: str | os.PathLike[str]) -> Header:
    """Read what a file says of itself; no pixel is decoded.

    Args:
        path: A DICOM, PNG, JPEG, PGM or TIFF file; told by its content, not its name.

    Raises:
        MammogramError: The file can't be read, or is no mammogram.
    """
    path = Path(path)
    return read_dicom_header(path) if is_dicom(path) else read_raster_header(path)


def read_mammogram(
    path: str | os.PathLike[str], *, frame: int | None = None, allow_for_processing: bool = False
) -> Mammogram:
    """Read a mammogram: float32 pixels in [0, 1] with dense tissue bright, and what the file says of itself.

    DICOM: modality LUT, then the first VOI LUT or window that shows something of the image, else the range of
    its values without padding (see `embedder.grayscale.Rendering`); MONOCHROME1 is turned, padding is 0. For
    Processing values are shown, where they are asked for, as the negative logarithm of the exposure over its
    range.

    Plain files: colour whose channels are equal becomes grey, transparency is dropped, and a film that is
    kept inverted is found and turned (see `embedder.films.is_inverted`). Resolution tags of plain files are
    not believed, and the orientation that a camera writes into a JPEG is not applied: boxes are in stored
    pixels.

    Args:
        path: A DICOM, PNG, JPEG, PGM or TIFF file; told by its content, not its name.
        frame: Which image of a multi-frame file, counted from 1; None where there is only one.
        allow_for_processing: Take For Processing images too, which are not made to be looked at.

    Raises:
        MammogramError: The file can't be read, is no mammogram, or is refused; the message says why.
    """
    path = Path(path)
    if is_dicom(path):
        mammogram = read_dicom(path, frame=frame, allow_for_processing=allow_for_processing)
    else:
        mammogram = read_raster(path, frame=frame)
    if mammogram.pixels.min() == mammogram.pixels.max():
        raise MammogramError(path, "all its pixels have one value: there is nothing to see", "give another image")
    return mammogram


def is_dicom(path: Path) -> bool:
    """Tell DICOM from plain image files by the first bytes.

    Raises:
        MammogramError: The file is neither, or can't be opened.
    """
    try:
        if path.is_dir():
            raise MammogramError(path, "it is a folder", "name an image file in it")
        if path.exists() and not path.is_file():
            raise MammogramError(path, "it is no regular file", "name an image file")
        with path.open("rb") as file:
            start = file.read(_DICOM_PREFIX)
    except FileNotFoundError as error:
        raise MammogramError(path, "there is no such file", "check the path") from error
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise MammogramError(path, f"it can't be opened ({reason})", "check the path and its permissions") from error
    if not start:
        raise MammogramError(path, "the file is empty", "copy it again from its source")
    if start[128:] == b"DICM":
        return True
    if start.startswith(_SIGNATURES):
        return False
    raise MammogramError(
        path, "it is no DICOM, PNG, JPEG, PGM or TIFF file, whatever its name says", "give one of these"
    )
