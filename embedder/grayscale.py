"""From stored DICOM pixel values to brightness: modality LUT, VOI LUT, padding (PS3.3 C.11.1, C.11.2,
C.7.5.1.1.2).

A stored pixel has at most 16 bits, so the whole chain is one table that is looked up once for every pixel: it
is as exact as the formulas, and as fast as one copy of the image.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
WindowFunction = Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"]

_OUTLIERS = 1e-5  # of the pixels, at each end


class UnusableError(ValueError):
    """A window or table that the standard forbids, or that shows nothing of this image."""


@dataclass(frozen=True)
class Window:
    """A window of PS3.3 C.11.2.1.2.

    Args:
        center: Window Center, in modality values.
        width: Window Width.
        function: VOI LUT Function.
    """

    center: float
    width: float
    function: str = "LINEAR"

    def apply(self, values: Values) -> Values:
        """Map modality values to [0, 1].

        Raises:
            UnusableError: The width is not allowed, or the function is unknown.
        """
        smallest = 1.0 if self.function == "LINEAR" else np.finfo(np.float32).tiny
        if not (np.isfinite(self.center) and np.isfinite(self.width) and self.width >= smallest):
            raise UnusableError(f"the window (center {self.center:g}, width {self.width:g}) is not allowed")
        if self.function == "LINEAR":
            if self.width == 1:
                return (values > self.center - 0.5).astype(np.float64)
            return np.clip((values - (self.center - 0.5)) / (self.width - 1) + 0.5, 0, 1)
        if self.function == "LINEAR_EXACT":
            return np.clip((values - self.center) / self.width + 0.5, 0, 1)
        if self.function == "SIGMOID":
            exponent = np.clip(-4 * (values - self.center) / self.width, -700, 700)
            return np.asarray(1 / (1 + np.exp(exponent)))
        raise UnusableError(f"the VOI LUT function {self.function} is unknown")


@dataclass(frozen=True, eq=False)
class Table:
    """A lookup table of PS3.3 C.11.1.1 or C.11.2.1.1.

    Args:
        first: The input value that the first entry stands for; values beyond either end take the end's entry.
        entries: float64 (entries,).
        bits: Bits that an entry has.
    """

    first: int
    entries: Values
    bits: int

    def apply(self, values: Values) -> Values:
        """Look values up; the result is in the table's own units."""
        place = np.clip(np.floor(values) - self.first, 0, len(self.entries) - 1).astype(np.int64)
        return self.entries[place]

    def apply_scaled(self, values: Values) -> Values:
        """Look values up and scale the result to [0, 1] by the bits of an entry.

        Raises:
            UnusableError: An entry is larger than its bits allow.
        """
        largest = 2**self.bits - 1
        if self.entries.max() > largest:
            raise UnusableError(f"the VOI LUT has entries larger than its {self.bits} bits")
        return self.apply(values) / largest


@dataclass(frozen=True, eq=False)
class Rendering:
    """How stored values become brightness.

    Args:
        modality: Modality LUT; None for the rescale.
        slope: Rescale Slope.
        intercept: Rescale Intercept.
        voi: What to try in turn, the first that shows something of the image is taken: a VOI LUT, then
            windows. Where nothing is left, the range of the image's values is used, without the outermost
            pixel of 100,000 at each end, so that a few dead pixels do not take the contrast.
        padding: Stored values, from the first to the last, that are no part of the image: background.
        exposure: For For Processing images, whose values grow with the X-rays that reached the detector:
            `LINEAR` takes the negative logarithm, `LOG` the negative, which makes dense tissue bright. None
            for what is made to be looked at.
        inverted: The lowest value is meant to be white (MONOCHROME1).
    """

    modality: Table | None = None
    slope: float = 1.0
    intercept: float = 0.0
    voi: tuple[Table | Window, ...] = ()
    padding: tuple[int, int] | None = None
    exposure: Literal["LINEAR", "LOG"] | None = None
    inverted: bool = False


def render(stored: npt.NDArray[np.integer], rendering: Rendering) -> tuple[npt.NDArray[np.float32], tuple[str, ...]]:
    """Turn stored values into brightness.

    Args:
        stored: (rows, columns) of uint8, int8, uint16 or int16.
        rendering: How.

    Returns:
        float32 (rows, columns) in [0, 1]; padding is 0. And notes on windows and tables that could not be
        used.

    Raises:
        UnusableError: Every pixel is padding, or all have one value.
    """
    unsigned = np.dtype(f"u{stored.dtype.itemsize}")
    place = stored.view(unsigned)
    levels = 1 << (8 * unsigned.itemsize)
    # Every value that a stored pixel can have, at the place of its bit pattern.
    every = np.arange(levels, dtype=unsigned).view(stored.dtype).astype(np.float64)
    counts = _histogram(place, levels)
    if rendering.padding is not None:
        padded = (every >= rendering.padding[0]) & (every <= rendering.padding[1])
        counts[padded] = 0
    present = counts > 0
    if present.sum() < 2:
        raise UnusableError("all its pixels have one value")
    values = modality_values(every, rendering)
    brightness, notes = _voi(values, counts, present, rendering)
    if rendering.inverted:
        brightness = 1 - brightness
    if rendering.padding is not None:
        brightness[padded] = 0
    return np.take(brightness.astype(np.float32), place), notes


def _histogram(place: npt.NDArray[np.unsignedinteger], levels: int) -> npt.NDArray[np.int64]:
    counts = np.zeros(levels, np.int64)
    # In parts: numpy counts in 64-bit copies.
    for part in np.array_split(place.ravel(), max(1, place.size // (1 << 20))):
        counts += np.bincount(part, minlength=levels)
    return counts


def modality_values(every: Values, rendering: Rendering) -> Values:
    """Return what stored values stand for: after modality LUT or rescale, and the logarithm of raw exposures.

    Args:
        every: float64 (n,) stored values.
        rendering: How.
    """
    if rendering.modality is not None:
        values = rendering.modality.apply(every)
    else:
        values = every * rendering.slope + rendering.intercept
    if rendering.exposure == "LINEAR":
        return -np.log(np.maximum(values, 1))
    return -values if rendering.exposure == "LOG" else values


def _voi(
    values: Values, counts: npt.NDArray[np.int64], present: npt.NDArray[np.bool_], rendering: Rendering
) -> tuple[Values, tuple[str, ...]]:
    notes: list[str] = []
    for voi in rendering.voi:
        try:
            brightness = voi.apply_scaled(values) if isinstance(voi, Table) else voi.apply(values)
        except UnusableError as error:
            notes.append(f"{error}: not used")
            continue
        if np.ptp(brightness[present]) > 0:
            return brightness, tuple(notes)
        notes.append("a window or VOI LUT leaves nothing of the image to see: not used")
    low, high = _range(values[present], counts[present])
    if high == low:
        raise UnusableError("all its pixels have one value")
    return np.clip((values - low) / (high - low), 0, 1), tuple(notes)


def _range(values: Values, counts: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Return the lowest and highest value without outliers; with them where nothing else differs."""
    order = np.argsort(values, kind="stable")
    values, below = values[order], np.cumsum(counts[order])
    outside = int(_OUTLIERS * below[-1])
    low = float(values[np.searchsorted(below, outside, side="right")])
    high = float(values[np.searchsorted(below, below[-1] - outside, side="left")])
    return (low, high) if high > low else (float(values[0]), float(values[-1]))
