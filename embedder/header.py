"""What a mammogram file says of itself, and the one error of reading."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from errors import MammoseekError

MINIMUM_SIDE = 16
"""An image with fewer rows or columns is no mammogram."""

MAXIMUM_PIXELS = 150_000_000
"""A larger image is refused before it is decoded: a film of 24 × 30 cm at 25 µm has 115 million pixels."""

MAXIMUM_SPACING_MM = 1.0
"""A coarser spacing than this is a mistake in the file: detectors and film scanners have 0.025 to 0.2 mm."""


class MammogramError(MammoseekError):
    """A file that is no readable mammogram, or that is refused for a reason that it gives."""


@dataclass(frozen=True)
class Header:
    """What a file says of itself; what it does not say is None.

    Attributes:
        path: The file.
        format: `DICOM`, `PNG`, `JPEG`, `PGM` or `TIFF`.
        rows: Rows of the stored image.
        columns: Columns of the stored image.
        frames: Images in the file.
        bits: Bits of grey that a stored pixel has.
        spacing_mm: Millimetres per pixel in the breast's plane, the same in both directions.
        laterality: `L` or `R`.
        view: A view code of `embedder.findings.VIEWS`.
        patient_id: The woman: one name for both breasts and all views.
        study_uid: Study Instance UID.
        series_uid: Series Instance UID.
        sop_uid: SOP Instance UID.
        age: The woman's age in years on the day of the study.
        manufacturer: Maker of the equipment.
        image_intent: `FOR PRESENTATION` or `FOR PROCESSING`.
        burned_in_annotation: Whether the file says that text is burnt into its pixels.
        photometric: DICOM's Photometric Interpretation.
        transfer_syntax: UID of DICOM's transfer syntax.
        notes: What the reader should know: spacing that made no sense, burnt-in text, a window that was not
            usable.
    """

    path: Path
    format: str
    rows: int
    columns: int
    frames: int
    bits: int
    spacing_mm: float | None = None
    laterality: str | None = None
    view: str | None = None
    patient_id: str | None = None
    study_uid: str | None = None
    series_uid: str | None = None
    sop_uid: str | None = None
    age: float | None = None
    manufacturer: str | None = None
    image_intent: str | None = None
    burned_in_annotation: bool | None = None
    photometric: str | None = None
    transfer_syntax: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Mammogram(Header):
    """A mammogram: its header and its pixels.

    Attributes:
        pixels: float32 (rows, columns) in [0, 1], dense tissue bright.
        inverted: The file kept the film inverted without saying so, and it was turned.
    """

    pixels: npt.NDArray[np.float32] = field(kw_only=True, repr=False)
    inverted: bool = field(default=False, kw_only=True)


def check_size(path: Path, rows: int, columns: int) -> None:
    """Refuse an image that is too small to be a mammogram, or too large to be decoded.

    Raises:
        MammogramError: It is.
    """
    if rows < MINIMUM_SIDE or columns < MINIMUM_SIDE:
        raise MammogramError(
            path,
            f"an image of {columns} × {rows} pixels is no mammogram",
            f"give an image of at least {MINIMUM_SIDE} pixels a side",
        )
    if rows * columns > MAXIMUM_PIXELS:
        raise MammogramError(
            path,
            f"it declares {columns} × {rows} pixels, more than the {MAXIMUM_PIXELS // 1_000_000} million that are read",
            "check the file: a film of 24 × 30 cm at 25 µm has 115 million",
        )


def choose_frame(path: Path, frames: int, frame: int | None) -> int:
    """Return the position of the frame to read, from 0.

    Args:
        path: The file.
        frames: Images in the file.
        frame: The one asked for, counted from 1; None for the only one.

    Raises:
        MammogramError: Several images and none named, or one named that is not there.
    """
    if frame is None:
        if frames != 1:
            raise MammogramError(
                path,
                f"it holds {frames} frames, as tomosynthesis and cine do, and one mammogram is one image",
                f"name the frame, 1 to {frames}",
            )
        return 0
    if not 1 <= frame <= frames:
        raise MammogramError(path, f"it has no frame {frame}", f"name one of 1 to {frames}")
    return frame - 1
