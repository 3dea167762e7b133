"""A mammogram as the page shows it: 16 bits, dense tissue bright, nothing windowed away, and windows to look with.

The embedder sees what the file's window leaves of an image (`embedder.mammogram`). A reader chooses the window, so here
the whole range of values that the stored bits can have lies between 0 and 65535, evenly: no value is clipped, two that
differ stay different, and the scale is known before a pixel is read, so that a few rows can be read by themselves.
"""

import math
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embedder.breast import chest_wall_is_right, shrink, small_breast_mask
from embedder.dicom import JPEG_2000, NATIVE, StoredImage, read_halved, read_stored
from embedder.grayscale import Rendering, Table, UnusableError, Window, modality_values
from embedder.header import Header
from embedder.mammogram import is_dicom, read_mammogram
from embedder.rasters import merge_channels

Pixels16 = npt.NDArray[np.uint16]

BRIGHTEST = 65_535

_DARKEST_PERCENTILE, _BRIGHTEST_PERCENTILE = 0.5, 99.9
_ROWS_AT_ONCE = 64
_NARROWEST = 16.0  # of a window, in units of the 16 bits


@dataclass(frozen=True)
class DisplayWindow:
    """A window on the scale of 0 to 65535, as the page's own.

    Attributes:
        name: What the reader is told.
        centre: Its middle.
        width: From black to white.
    """

    name: str
    centre: float
    width: float

    def to_dict(self) -> dict[str, str | float]:
        """Return it as plain values for JSON."""
        return {"name": self.name, "centre": round(self.centre, 1), "width": round(self.width, 1)}


@dataclass(frozen=True, eq=False)
class DisplayImage:
    """An image, or some rows of it, ready to be shown.

    Attributes:
        header: What its file says.
        pixels: uint16 (rows, columns), dense tissue bright.
        windows: The file's own windows.
        notes: What a reader should know.
    """

    header: Header
    pixels: Pixels16
    windows: tuple[DisplayWindow, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Appearance:
    """What the page needs to know of an image besides its pixels.

    Attributes:
        chest_wall: The side of the stored image at which the chest wall is, `left` or `right`.
        windows: The windows on offer, the one to begin with first.
    """

    chest_wall: str
    windows: tuple[DisplayWindow, ...]


def read_display(path: Path, *, frame: int | None = None) -> DisplayImage:
    """Read a whole image.

    Args:
        path: A DICOM, PNG, JPEG, PGM or TIFF file.
        frame: Which image of a multi-frame file, from 1; None where there is only one.

    Raises:
        MammogramError: The file can't be read, or is no mammogram.
    """
    if is_dicom(path):
        return _shown(path, read_stored(path, frame=frame))
    mammogram = read_mammogram(path, frame=frame)
    pixels = np.rint(mammogram.pixels * np.float32(BRIGHTEST)).astype(np.uint16)
    notes = mammogram.notes
    if mammogram.inverted:
        notes += ("the file keeps the film inverted: it is shown with dense tissue bright",)
    # Without its pixels, which would else live as long as it.
    header = Header(**{field.name: getattr(mammogram, field.name) for field in fields(Header)})
    return DisplayImage(header, pixels, (), notes)


def read_display_halved(path: Path, halvings: int, *, frame: int | None = None) -> DisplayImage | None:
    """Read an image at 1 / 2^halvings of its rows and columns in a fraction of the time, where its file allows that.

    Args:
        path: The file.
        halvings: How often it is halved.
        frame: As for `read_display`.

    Returns:
        The image, its header that of the whole; None where it has to be decoded whole.

    Raises:
        MammogramError: The file can't be read.
    """
    image = read_halved(path, frame=frame, halvings=halvings) if is_dicom(path) else None
    return None if image is None else _shown(path, image)


def read_display_rows(path: Path, first: int, last: int, *, frame: int | None = None) -> DisplayImage:
    """Read some rows of an image that `reads_rows` says can be read so, in milliseconds.

    Args:
        path: The file.
        first: The first row.
        last: The one after the last.
        frame: As for `read_display`.

    Raises:
        MammogramError: The file can't be read, or has no such rows.
    """
    return _shown(path, read_stored(path, frame=frame, rows=(first, last)))


def reads_rows(header: Header) -> bool:
    """Return whether single rows of an image can be read without decoding all of it: of uncompressed grey DICOM."""
    grey = header.photometric in ("MONOCHROME1", "MONOCHROME2")
    return header.format == "DICOM" and grey and header.transfer_syntax in NATIVE


def reads_halved(header: Header) -> bool:
    """Return whether an image may be read at a fraction of its size: of JPEG 2000 in DICOM."""
    return header.format == "DICOM" and header.transfer_syntax in JPEG_2000


def _shown(path: Path, image: StoredImage) -> DisplayImage:
    header = image.header
    if image.rendering is None:
        pixels = np.rint(merge_channels(path, image.stored) * np.float32(BRIGHTEST)).astype(np.uint16)
        return DisplayImage(header, pixels, (), header.notes)
    scale = _Scale(image.rendering, image.stored.dtype, header.bits)
    notes = header.notes
    if header.image_intent == "FOR PROCESSING":
        notes += ("it is a For Processing image: raw values, not made to be looked at or compared",)
    return DisplayImage(header, scale.apply(image.stored), scale.windows(), notes)


class _Scale:
    """From stored values to 0 to 65535, evenly over all values that the stored bits can have.

    Args:
        rendering: How stored values become brightness; its windows are left to the reader.
        kind: The stored values' type.
        bits: Bits stored.
    """

    def __init__(self, rendering: Rendering, kind: np.dtype[np.integer], bits: int) -> None:
        self.unsigned = np.dtype(f"u{kind.itemsize}")
        self._rendering = rendering
        every = np.arange(1 << 8 * kind.itemsize, dtype=self.unsigned).view(kind).astype(np.float64)
        least = -float(1 << bits - 1) if kind.kind == "i" else 0.0
        possible = (every >= least) & (every < least + float(1 << bits))
        values = modality_values(every, rendering)
        self._low, high = float(values[possible].min()), float(values[possible].max())
        self._unit = BRIGHTEST / (high - self._low) if high > self._low else 1.0
        scaled = np.clip((values - self._low) * self._unit, 0, BRIGHTEST)
        if rendering.inverted:
            scaled = BRIGHTEST - scaled
        if rendering.padding is not None:
            scaled[(every >= rendering.padding[0]) & (every <= rendering.padding[1])] = 0
        self.table: Pixels16 = np.rint(scaled).astype(np.uint16)

    def apply(self, stored: npt.NDArray[np.integer]) -> Pixels16:
        """Return stored values (rows, columns) on this scale."""
        place = np.ascontiguousarray(stored).view(self.unsigned)
        shown = np.empty(place.shape, np.uint16)
        for start in range(0, len(place), _ROWS_AT_ONCE):  # numpy looks values up by 64-bit copies of them
            part = slice(start, start + _ROWS_AT_ONCE)
            np.take(self.table, place[part], out=shown[part], mode="clip")
        return shown

    def windows(self) -> tuple[DisplayWindow, ...]:
        """Return the file's own windows and tables on this scale."""
        found: list[DisplayWindow] = []
        for voi in self._rendering.voi:
            ends = _table_ends(voi) if isinstance(voi, Table) else _window_ends(voi)
            if ends is None:
                continue
            first, last = ((end - self._low) * self._unit for end in ends)
            middle = (first + last) / 2
            if self._rendering.inverted:
                middle = BRIGHTEST - middle
            name = "from the file" if not found else f"from the file, {len(found) + 1}"
            if last - first >= 1 and -BRIGHTEST < middle < 2 * BRIGHTEST:
                found.append(DisplayWindow(name, middle, min(last - first, 2.0 * BRIGHTEST)))
        return tuple(found)


def _window_ends(window: Window) -> tuple[float, float] | None:
    """Return the modality values that a window shows black and white."""
    try:
        window.apply(np.zeros(1))
    except UnusableError:
        return None
    if window.function == "LINEAR":
        half = (window.width - 1) / 2
        return window.center - 0.5 - half, window.center - 0.5 + half
    return window.center - window.width / 2, window.center + window.width / 2


def _table_ends(table: Table) -> tuple[float, float] | None:
    """Return the ends of the straight line that comes nearest to a VOI LUT: where it leaves black and reaches white."""
    low, high = float(table.entries.min()), float(table.entries.max())
    if not high > low:
        return None
    rising = (table.entries - low) / (high - low)
    dark, bright = (int(np.argmax(rising >= share)) for share in (0.02, 0.98))
    return (float(table.first + dark), float(table.first + bright)) if bright > dark else None


def appearance(small: Pixels16, windows: tuple[DisplayWindow, ...]) -> Appearance:
    """Look at a small copy of an image: where its chest wall is, and which windows show what.

    Args:
        small: uint16 (rows, columns), the image at a coarse level.
        windows: The file's own windows.
    """
    low, high = np.percentile(small, (_DARKEST_PERCENTILE, _BRIGHTEST_PERCENTILE))
    span = max(1.0, float(high - low))
    grey = shrink(np.clip((small.astype(np.float32) - np.float32(low)) / np.float32(span), 0, 1))
    mask = small_breast_mask(grey)
    inside = low + grey[mask] * span
    outside = low + grey[~mask] * span if not mask.all() else np.array([low])
    quantile = {share: float(np.percentile(inside, share)) for share in (1, 35, 50, 99.5, 99.9)}
    air = float(np.median(outside))
    offered = [
        *windows,
        _between("breast", quantile[1], quantile[99.5]),
        _between("whole range", float(small.min()), float(small.max())),
        _between("dense tissue", quantile[50], quantile[99.9]),
        _between("skin line", min(air, quantile[1]), quantile[35]),
    ]
    side = "right" if chest_wall_is_right(grey, mask) else "left"
    return Appearance(side, tuple(offered))


def _between(name: str, low: float, high: float) -> DisplayWindow:
    width = max(_NARROWEST, high - low)
    return DisplayWindow(name, low + width / 2 if math.isfinite(low) else width / 2, width)
