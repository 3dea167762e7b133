"""The crop that the network sees: centred on a finding or around a breast, at one scale both ways."""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from embedder.breast import Pixels
from embedder.findings import Box
from embedder.preparation import PreparationConfig, PreparationError, Prepared
from embedder.superresolution import packaged_network
from embedder.superresolution.network import MARGIN, SCALE


@dataclass(frozen=True, eq=False)
class RoiCrop:
    """What the network will see of one finding or breast.

    Attributes:
        pixels: float32 (height, width) in [0, 1].
        extent_mm: Height in mm on the patient of the crop without its margin; None where the spacing is
            unknown.
        mm_per_pixel: Millimetres per pixel of the crop; None where unknown.
        box: The marked place in pixels of the crop (x0, y0, x1, y1, fractions kept); None for a whole breast.
        descriptors: float32 (features,), what the preparation asks to be measured besides; None where nothing.
    """

    pixels: Pixels
    extent_mm: float | None
    mm_per_pixel: float | None
    box: tuple[float, float, float, float] | None
    descriptors: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Window:
    """A rectangle of the prepared image, in the coordinates of pixel edges; it may reach beyond the image."""

    x0: float
    y0: float
    width: float
    height: float


def crop_shape(config: PreparationConfig, margin: float = 1.0) -> tuple[int, int]:
    """Return rows and columns of a crop with a margin.

    The margin is whole pixels, as many at each side as at the opposite one: the middle of the enlarged crop
    is the crop without it.

    Args:
        config: The preparation.
        margin: See `crop_roi`.

    >>> crop_shape(PreparationConfig(height=224, width=160), 1.24)
    (278, 198)
    """
    height = config.height + 2 * round(config.height * (margin - 1) / 2)
    width = config.width + 2 * round(config.width * (margin - 1) / 2)
    return height, width


def crop_roi(prepared: Prepared, box: Box | None, config: PreparationConfig, *, margin: float = 1.0) -> RoiCrop:
    """Cut out what the network sees, at one scale in both directions, padded with background at the borders.

    Args:
        prepared: The prepared mammogram.
        box: The finding in pixels of the stored image; None for the whole breast.
        config: Size, context and floors of the crop.
        margin: Enlarges the crop and its pixel size alike, to leave room for augmentation; 1 for none.

    Raises:
        PreparationError: A finding without a box, a breast with one, or a box that lies outside the image.
    """
    known = checked_box(prepared, box, config.granularity)
    marked = None if known is None else prepared.place(known)
    view = _breast_window(prepared, config) if marked is None else finding_window(prepared, marked, config)
    scale = config.height / view.height
    height, width = crop_shape(config, margin)
    x0 = view.x0 - (width - config.width) / 2 / scale
    y0 = view.y0 - (height - config.height) / 2 / scale
    window = Window(x0, y0, width / scale, height / scale)
    pixels = resample_window(prepared, marked, window, height, width, config.super_resolution)
    place = None
    if marked is not None:
        place = (
            (marked.x0 - x0) * scale,
            (marked.y0 - y0) * scale,
            (marked.x1 - x0) * scale,
            (marked.y1 - y0) * scale,
        )
    spacing = prepared.spacing_mm
    return RoiCrop(pixels, view.height * spacing if spacing else None, spacing / scale if spacing else None, place)


def checked_box(prepared: Prepared, box: Box | None, granularity: str) -> Box | None:
    """Return a finding's box, or None for a whole breast, after checking that it is what the granularity needs.

    Raises:
        PreparationError: A finding without a box, a breast with one, or a box that lies outside the image.
    """
    if granularity == "breast":
        if box is not None:
            raise PreparationError("crop", f"the box {box} is given for a whole breast", "leave it out")
        return None
    if box is None:
        raise PreparationError("crop", "a finding needs a box", "name it as x0,y0,x1,y1")
    rows, columns = prepared.pixels.shape
    if box.x0 < 0 or box.y0 < 0 or box.x1 > columns or box.y1 > rows:
        raise PreparationError(
            "crop",
            f"the box {box} does not lie inside the image of {columns} × {rows} pixels",
            "give it as x0,y0,x1,y1 in pixels of the stored image",
        )
    return box


def finding_window(prepared: Prepared, marked: Box, config: PreparationConfig) -> Window:
    """Return a window centred on a finding, its shorter side no less than context and floor ask for.

    Args:
        prepared: The mammogram.
        marked: The finding, in pixels of the prepared image.
        config: Its context and floors.
    """
    aspect = config.width / config.height
    floor = config.floor_mm / prepared.spacing_mm if prepared.spacing_mm else float(config.floor_pixels)
    side = max(config.context * max(marked.width, marked.height), floor)
    height = side if aspect >= 1 else side / aspect
    x, y = marked.centre
    return Window(x - height * aspect / 2, y - height / 2, height * aspect, height)


def _breast_window(prepared: Prepared, config: PreparationConfig) -> Window:
    """Return a window around the breast: chest wall at its left edge, spare room at the nipple's side."""
    aspect = config.width / config.height
    breast = breast_bounds(prepared)
    height = config.context * max(breast.height, breast.width / aspect)
    x, y = breast.centre
    x0 = float(breast.x0) if config.chest_wall_left else x - height * aspect / 2
    return Window(x0, y - height / 2, height * aspect, height)


def breast_bounds(prepared: Prepared) -> Box:
    """Return the bounding box of the breast; the whole image where none was looked for or found."""
    rows, columns = prepared.pixels.shape
    if prepared.mask is None or not prepared.mask.any():
        return Box(0, 0, columns, rows)
    across = np.flatnonzero(prepared.mask.any(axis=0))
    down = np.flatnonzero(prepared.mask.any(axis=1))
    return Box(int(across[0]), int(down[0]), int(across[-1]) + 1, int(down[-1]) + 1)


def resample_window(
    prepared: Prepared, marked: Box | None, window: Window, height: int, width: int, super_resolution: str
) -> Pixels:
    """Resample a window without aliasing, zero outside the image and, where that is blanked, outside the
    breast.

    Where a super-resolution network is named and the window has fewer pixels than asked for, the network enlarges it
    once, by two; what remains is resampled.

    Only pixels of the image are touched, however far the window reaches beyond it.
    """
    rows, columns = prepared.pixels.shape
    # One pixel more than the window, which the interpolation at its edge looks at.
    top, bottom = max(0, int(np.floor(window.y0)) - 1), min(rows, int(np.ceil(window.y0 + window.height)) + 1)
    left, right = (
        max(0, int(np.floor(window.x0)) - 1),
        min(columns, int(np.ceil(window.x0 + window.width)) + 1),
    )
    scale = window.height / height
    offset_x, offset_y = window.x0 - left, window.y0 - top
    grown = 1
    if scale < 1 and super_resolution != "none":
        grown, scale, offset_x, offset_y = SCALE, SCALE * scale, SCALE * offset_x, SCALE * offset_y
        pixels = _enlarged(prepared.pixels, top, bottom, left, right, super_resolution)
    else:
        pixels = prepared.pixels[top:bottom, left:right]
    if prepared.blank_outside and prepared.mask is not None:
        shown = prepared.mask[top:bottom, left:right]
        if marked is not None:
            shown = shown.copy()
            shown[marked.y0 - top : marked.y1 - top, marked.x0 - left : marked.x1 - left] = True
        pixels = np.where(shown.repeat(grown, axis=0).repeat(grown, axis=1), pixels, np.float32(0))
    step_x = step_y = 1.0
    if scale > 1:
        # Areas are averaged first; the affine step that follows places them to a fraction of a pixel.
        reduced = max(1, round(pixels.shape[1] / scale)), max(1, round(pixels.shape[0] / scale))
        step_x, step_y = pixels.shape[1] / reduced[0], pixels.shape[0] / reduced[1]
        # Of an array that is one number broadcast, the library reads what lies behind it.
        whole = np.ascontiguousarray(pixels)
        pixels = np.asarray(cv2.resize(whole, reduced, interpolation=cv2.INTER_AREA), np.float32)
    # Pixel centres: output pixel i looks at (i + 0.5) · scale + offset − 0.5 of the reduced image.
    transform = np.array(
        [
            [scale / step_x, 0, (offset_x + 0.5 * scale) / step_x - 0.5],
            [0, scale / step_y, (offset_y + 0.5 * scale) / step_y - 0.5],
        ],
        np.float64,
    )
    resampled = cv2.warpAffine(
        np.ascontiguousarray(pixels),
        transform,
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=0,
    )
    # Interpolation in fixed point may overshoot by a rounding error.
    return np.asarray(np.clip(resampled, 0, 1), np.float32)


def _enlarged(pixels: Pixels, top: int, bottom: int, left: int, right: int, name: str) -> Pixels:
    """Return a part of the image at twice its size; the network sees what lies around it, blanked or not."""
    above, before = min(MARGIN, top), min(MARGIN, left)
    around = pixels[top - above : bottom + MARGIN, left - before : right + MARGIN]
    found = packaged_network(name).enlarge(around)[SCALE * above :, SCALE * before :]
    return found[: SCALE * (bottom - top), : SCALE * (right - left)]
