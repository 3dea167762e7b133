"""How a DICOM image asks to be shown: its modality LUT, VOI LUT and padding, read into a `Rendering`."""

from dataclasses import replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian

from embedder import dicomvalues
from embedder.grayscale import Rendering, Table, Window
from embedder.header import Header

KEYWORDS = (
    *("PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("PixelIntensityRelationship", "PixelIntensityRelationshipSign"),
    *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence"),
)
"""Keywords of the attributes that this module reads, besides the functional groups."""


def read_rendering(dataset: Dataset, header: Header, position: int) -> tuple[Rendering, tuple[str, ...]]:
    """Collect how stored values become brightness; of an enhanced image, for the frame that is read.

    Args:
        dataset: The image.
        header: Its header.
        position: Position of the frame, from 0.

    Returns:
        How, and notes on attributes that could not be used.
    """
    notes: list[str] = []
    signed = dicomvalues.integer(dataset, "PixelRepresentation") == 1
    big_endian = header.transfer_syntax == ExplicitVRBigEndian
    transformation = dicomvalues.functional_group(dataset, "PixelValueTransformationSequence", position)
    source = dataset if "RescaleSlope" in dataset or transformation is None else transformation
    slope = dicomvalues.number(source, "RescaleSlope")
    if slope == 0:
        notes.append("its rescale slope is 0: not used")
    rendering = Rendering(
        modality=_table(dataset, "ModalityLUTSequence", signed, big_endian, notes),
        slope=slope or 1.0,
        intercept=dicomvalues.number(source, "RescaleIntercept") or 0.0,
        padding=_padding(dataset, signed),
    )
    if header.image_intent == "FOR PROCESSING":
        # Its windows are for the raw values; MONOCHROME1 or 2 says how to show those, not what is dense.
        return replace(rendering, exposure=_exposure(dataset)), tuple(notes)
    voi: list[Table | Window] = []
    signed_input = signed or rendering.intercept < 0
    for group in (dataset, dicomvalues.functional_group(dataset, "FrameVOILUTSequence", position)):
        if group is None:
            continue
        table = _table(group, "VOILUTSequence", signed_input, big_endian, notes)
        voi += [table] if table is not None else []
        function = (dicomvalues.text(group, "VOILUTFunction") or "LINEAR").upper()
        centers, widths = (dicomvalues.numbers(group, keyword) for keyword in ("WindowCenter", "WindowWidth"))
        for center, width in zip(centers, widths, strict=False):
            if center is not None and width is not None:
                voi.append(Window(center, width, function))
            else:
                notes.append("a window is no number: not used")
    inverted = header.photometric == "MONOCHROME1"
    return replace(rendering, voi=tuple(voi), inverted=inverted), tuple(notes)


def _exposure(dataset: Dataset) -> Literal["LINEAR", "LOG"] | None:
    """Tell how raw values follow the X-rays (PS3.3 C.8.11.3.1.2); unless it is said, they grow with them."""
    if dicomvalues.integer(dataset, "PixelIntensityRelationshipSign") == -1:
        return None
    return "LOG" if dicomvalues.text(dataset, "PixelIntensityRelationship") == "LOG" else "LINEAR"


def _padding(dataset: Dataset, signed: bool) -> tuple[int, int] | None:
    value = dicomvalues.integer(dataset, "PixelPaddingValue")
    if value is None:
        return None
    limit = dicomvalues.integer(dataset, "PixelPaddingRangeLimit")
    first, last = (_as_stored(end, signed) for end in (value, value if limit is None else limit))
    return min(first, last), max(first, last)


def _as_stored(value: int, signed: bool) -> int:
    """Return a value of VR `US or SS` as the pixels' own signedness reads it: writers mix the two up."""
    value &= 0xFFFF
    return value - 0x10000 if signed and value >= 0x8000 else value


def _table(dataset: Dataset, keyword: str, signed: bool, big_endian: bool, notes: list[str]) -> Table | None:
    """Read the first lookup table of a sequence; note what can't be used."""
    if not dicomvalues.is_present(dataset, keyword):
        return None
    item = dicomvalues.item(dataset, keyword)
    if item is not None:
        descriptor = [int(entry) for entry in dicomvalues.numbers(item, "LUTDescriptor") if entry is not None]
        if len(descriptor) == 3:
            count = (descriptor[0] & 0xFFFF) or 0x10000
            entries = _entries(item, count, big_endian)
            if len(entries) >= count and 8 <= descriptor[2] <= 16:
                return Table(_as_stored(descriptor[1], signed), entries[:count], descriptor[2])
    notes.append(f"{keyword} is damaged: not used")
    return None


def _entries(item: Dataset, count: int, big_endian: bool) -> npt.NDArray[np.float64]:
    """Read LUT Data, which is numbers or, of VR OW, bytes: 8 or 16 bits an entry (PS3.3 C.11.1.1.2)."""
    data = dicomvalues.values(item, "LUTData")
    if len(data) == 1 and isinstance(data[0], bytes):
        if len(data[0]) < 2 * count:
            return np.frombuffer(data[0], np.uint8).astype(np.float64)
        return np.frombuffer(data[0], ">u2" if big_endian else "<u2", count).astype(np.float64)
    numbers = dicomvalues.numbers(item, "LUTData")
    return np.array([int(entry) & 0xFFFF for entry in numbers if entry is not None], np.float64)
