"""How large the lesions of a gallery are, as the few sizes at which an image is searched."""

from dataclasses import dataclass
from math import ceil, log
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from embedder.findings import BOX_COLUMNS
from embedder.preparation import PreparationConfig
from exchange import ExchangeError

_ENDS = (5.0, 95.0)  # percentiles of the lesions' sizes: beyond them one odd box would set the range


@dataclass(frozen=True)
class Scale:
    """One size at which an image is searched.

    Attributes:
        window: Side of what the network sees of a place, context included, in pixels of the stored image.
        box: Side of the box that is proposed there: the median of the lesions that are seen in such a window.
    """

    window: float
    box: float

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {"window": self.window, "box": self.box}


def lesion_scales(
    lesions: pd.DataFrame, preparation: PreparationConfig, spacing_mm: float | None, *, ratio: float, most: int
) -> tuple[Scale, ...]:
    """Return a geometric series of windows that covers the sizes of known lesions.

    A lesion's size is the longer side of its box, in mm where its own spacing and the image's are known, else in
    pixels. Windows go from that of the 5th percentile to that of the 95th; those of lesions too small for the
    preparation's floor are one.

    Args:
        lesions: Rows of a gallery.
        preparation: Says how much context a crop has, and its floor.
        spacing_mm: Millimetres per pixel of the image that is searched; None where unknown.
        ratio: Of neighbouring windows.
        most: Windows at most; the ratio is larger where these would not reach.

    Raises:
        ExchangeError: No lesion has a place.
    """
    placed = lesions[lesions["x0"].notna()]
    x0, y0, x1, y1 = placed[list(BOX_COLUMNS)].to_numpy(np.float64).T
    sizes = np.maximum(x1 - x0, y1 - y0)
    told = placed["spacing_mm"] if "spacing_mm" in placed.columns else pd.Series(np.nan, index=placed.index)
    known = pd.to_numeric(told).to_numpy(np.float64, na_value=np.nan)
    if spacing_mm is not None and np.isfinite(known).any():
        sizes = (sizes * known)[np.isfinite(known)] / spacing_mm
    sizes = sizes[sizes > 0]
    if not len(sizes):
        raise ExchangeError("gallery", "holds no lesion with a box, so sizes are not known", "add findings with boxes")
    windows = window_of(sizes, preparation, spacing_mm)
    low, high = np.percentile(windows, _ENDS)
    count = min(most, 1 + ceil(log(high / low) / log(ratio) - 1e-9))
    series = np.geomspace(low, high, count)
    nearest = np.abs(np.log(windows[:, None] / series[None])).argmin(axis=1)
    return tuple(
        Scale(float(window), float(np.median(own)) if len(own := sizes[nearest == i]) else window / preparation.context)
        for i, window in enumerate(series.tolist())
    )


def window_of(
    sizes: npt.NDArray[np.float64], preparation: PreparationConfig, spacing_mm: float | None
) -> npt.NDArray[np.float64]:
    """Return the shorter side of the crop around boxes of these longer sides, all in pixels of the stored image."""
    floor = preparation.floor_mm / spacing_mm if spacing_mm else float(preparation.floor_pixels)
    return np.maximum(preparation.context * sizes, floor)
