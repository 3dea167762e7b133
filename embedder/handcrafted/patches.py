"""The squares around a finding that its hand-crafted descriptors are taken from, at a scale they ask for."""

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from embedder.breast import Mask, Pixels
from embedder.crops import crop_roi
from embedder.findings import Box
from embedder.preparation import PreparationConfig, Prepared

NOMINAL_HEIGHT_MM = 230.0
"""How high a breast is taken to be on an image whose spacing is unknown."""


@dataclass(frozen=True, eq=False)
class Patch:
    """A square of a prepared mammogram, centred on a finding.

    Attributes:
        pixels: float32 (side, side) in [0, 1]; where the breast or the image ends, its nearest pixel goes on,
            for its edge would be described as if it were the finding's.
        valid: bool (side, side), True on the breast and on the marked place; never False everywhere. A marked
            place beside the breast makes all of the image valid.
        mm_per_pixel: Millimetres per pixel of the patch; nominal where the image's spacing is unknown.
        box: The marked place in pixels of the patch (x0, y0, x1, y1, fractions kept).
    """

    pixels: Pixels
    valid: Mask
    mm_per_pixel: float
    box: tuple[float, float, float, float]

    @property
    def side(self) -> int:
        """Rows, and columns."""
        return int(self.pixels.shape[0])

    def from_centre(self) -> tuple[Pixels, Pixels]:
        """Return how far each pixel lies to the right of and below the centre, as two float32 (side, side)."""
        steps = np.arange(self.side, dtype=np.float32) - np.float32((self.side - 1) / 2)
        across, down = np.meshgrid(steps, steps)
        return across, down


def nominal_spacing(prepared: Prepared) -> float:
    """Return millimetres per pixel, or a stand-in where they are unknown.

    The stand-in takes the breast to be `NOMINAL_HEIGHT_MM` high, so that what is described does not depend on
    how finely the image was stored.
    """
    if prepared.spacing_mm:
        return prepared.spacing_mm
    height = prepared.pixels.shape[0]
    if prepared.mask is not None:
        rows = np.flatnonzero(prepared.mask.any(axis=1))
        height = int(rows[-1] - rows[0]) + 1 if rows.size else height
    return NOMINAL_HEIGHT_MM / height


def cut_patch(prepared: Prepared, box: Box, *, side: int, context: float, floor_mm: float) -> Patch:
    """Cut a square around a finding and bring it to a number of pixels.

    Args:
        prepared: The prepared mammogram.
        box: The finding in pixels of the stored image.
        side: Pixels a side of the patch, at least 32.
        context: Side of the patch as a multiple of the finding's longer side.
        floor_mm: Smallest side of the patch in mm.
    """
    config = PreparationConfig(height=side, width=side, context=context, floor_mm=floor_mm)
    seen = replace(prepared, spacing_mm=nominal_spacing(prepared), blank_outside=False)
    crop = crop_roi(seen, box, config)
    # The same crop of ones is 1 where all of a pixel was seen.
    ones = np.broadcast_to(np.float32(1), prepared.pixels.shape)
    shown = crop_roi(replace(seen, pixels=ones, blank_outside=_is_in_breast(prepared, box)), box, config).pixels
    valid = shown >= min(0.99, float(shown.max()))
    pixels = crop.pixels
    if not valid.all():
        nearest = ndimage.distance_transform_edt(~valid, return_distances=False, return_indices=True)
        pixels = pixels[tuple(nearest)]
    assert crop.mm_per_pixel is not None, "the spacing was given"
    assert crop.box is not None, "a finding was cropped"
    return Patch(pixels, valid, crop.mm_per_pixel, crop.box)


def _is_in_breast(prepared: Prepared, box: Box) -> bool:
    """Tell whether the breast, as far as it was found, covers most of a marked place: else it was not found there."""
    if prepared.mask is None:
        return False
    place = prepared.place(box)
    return bool(prepared.mask[place.y0 : place.y1, place.x0 : place.x1].mean() > 0.5)
