"""From a mammogram to what the network sees: breast mask, chest wall to the left, pectoral muscle, contrast.

Every step is an option of one frozen `PreparationConfig`, which is saved with the model: a query is prepared the
way the gallery was, or it is refused.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from embedder.findings import Box
from errors import MammoseekError

Granularity = Literal["finding", "breast"]
Pixels = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

# Geometry is found on a copy of at most this many pixels a side: a breast has no edge finer than that.
_GEOMETRY_SIDE = 256


class PreparationError(MammoseekError):
    """A preparation that cannot be carried out: options that contradict each other, or an image without a breast."""


@dataclass(frozen=True)
class PreparationConfig:
    """How a mammogram becomes the network's input.

    Args:
        granularity: `finding` crops a marked place, `breast` the whole breast.
        height: Rows of the network's input, in pixels.
        width: Columns of the network's input, in pixels.
        context: Side of the crop as a multiple of the finding's longer side; for a breast, of its bounding box.
        floor_mm: Smallest side of a finding's crop in mm, where the spacing is known.
        floor_pixels: Smallest side of a finding's crop in stored pixels, where the spacing is unknown.
        chest_wall_left: Mirror the image where needed so that the chest wall is at the left.
        breast_only: Blank labels, film borders and background outside the breast.
        remove_pectoral: Blank the pectoral muscle too, on MLO views (Karssemeijer, Phys Med Biol 43, 1998).
        normalise: Map the 1st to 99.5th percentile inside the breast to [0, 1].
        median: Side of a median filter in pixels, odd; 0 for none.
        clahe: Clip limit of a contrast-limited adaptive histogram equalisation on 8 × 8 tiles; 0 for none.
        unsharp: Amount of an unsharp mask (sigma 0.5 mm, or 2.5 pixels); 0 for none.

    Raises:
        PreparationError: An option is out of its range.
    """

    granularity: Granularity = "finding"
    height: int = 224
    width: int = 224
    context: float = 1.5
    floor_mm: float = 20.0
    floor_pixels: int = 96
    chest_wall_left: bool = True
    breast_only: bool = True
    remove_pectoral: bool = False
    normalise: bool = True
    median: int = 0
    clahe: float = 0.0
    unsharp: float = 0.0

    def __post_init__(self) -> None:
        checks = {
            "granularity is finding or breast": self.granularity in ("finding", "breast"),
            "height and width are 32 to 4096 pixels": 32 <= min(self.height, self.width)
            and max(self.height, self.width) <= 4096,
            "context is 1 to 10": 1 <= self.context <= 10,
            "floor_mm and floor_pixels are positive": self.floor_mm > 0 and self.floor_pixels > 0,
            "median is 0 or an odd number of pixels up to 31": self.median == 0
            or (self.median % 2 == 1 and 3 <= self.median <= 31),
            "clahe is 0 to 40": 0 <= self.clahe <= 40,
            "unsharp is 0 to 5": 0 <= self.unsharp <= 5,
        }
        for rule, holds in checks.items():
            if not holds:
                raise PreparationError("preparation", f"an option is out of range: {rule}")

    def to_dict(self) -> dict[str, Any]:
        """Return the options as plain values, for a model card."""
        return asdict(self)

    @classmethod
    def from_dict(cls, options: dict[str, Any]) -> "PreparationConfig":
        """Rebuild a configuration from a model card.

        Raises:
            PreparationError: An option is not known to this version, or out of its range.
        """
        unknown = sorted(set(options) - {field.name for field in fields(cls)})
        if unknown:
            raise PreparationError("preparation", f"unknown options: {', '.join(unknown)}")
        return cls(**options)

    @property
    def digest(self) -> str:
        """SHA-256 of the options: two preparations with one digest give the same pixels."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class Prepared:
    """A prepared mammogram, of the stored image's size.

    Attributes:
        pixels: float32 (rows, columns) in [0, 1].
        mask: bool (rows, columns), True on the breast; None where no step asked for it.
        mirrored: The image was turned left to right to bring the chest wall to the left.
        spacing_mm: Millimetres per pixel; None where unknown.
    """

    pixels: Pixels
    mask: Mask | None
    mirrored: bool
    spacing_mm: float | None

    def place(self, box: Box) -> Box:
        """Return a box of the stored image in the coordinates of the prepared one."""
        if not self.mirrored:
            return box
        columns = self.pixels.shape[1]
        return Box(columns - box.x1, box.y0, columns - box.x0, box.y1)


@dataclass(frozen=True, eq=False)
class RoiCrop:
    """What the network will see of one finding or breast.

    Attributes:
        pixels: float32 (height, width) in [0, 1].
        extent_mm: Height of the crop on the patient in mm; None where the spacing is unknown.
        mm_per_pixel: Millimetres per pixel of the crop; None where unknown.
        box: The marked place in pixels of the crop (x0, y0, x1, y1, fractions kept); None for a whole breast.
    """

    pixels: Pixels
    extent_mm: float | None
    mm_per_pixel: float | None
    box: tuple[float, float, float, float] | None


def _shrink(pixels: Pixels) -> tuple[Pixels, float]:
    """Return a copy of at most _GEOMETRY_SIDE pixels a side, and the factor by which it was shrunk."""
    factor = max(1.0, max(pixels.shape) / _GEOMETRY_SIDE)
    if factor == 1.0:
        return pixels, 1.0
    size = (max(1, round(pixels.shape[1] / factor)), max(1, round(pixels.shape[0] / factor)))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.float32), factor


def _small_mask(small: Pixels) -> Mask:
    """Return the breast mask of a shrunken image: the largest bright region, closed and without holes."""
    smooth = cv2.GaussianBlur(small, (0, 0), 1.5)
    as_bytes = np.clip(smooth * 255, 0, 255).astype(np.uint8)
    # The darkest tenth of a film or a detector image is background; what stands clear of it is tissue or a label.
    # Otsu's threshold alone cuts the fatty rim off dense breasts, so only a part of its height is taken.
    background = float(np.percentile(as_bytes, 10))
    otsu, _ = cv2.threshold(as_bytes, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    threshold = background + max(4.0, 0.35 * max(0.0, otsu - background))
    bright = (as_bytes > threshold).astype(np.uint8)
    # Opening cuts thin bridges to labels and film borders.
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9))
    bright = cv2.morphologyEx(bright, cv2.MORPH_OPEN, kernel)
    count, components, stats, _ = cv2.connectedComponentsWithStats(bright, connectivity=4)
    if count < 2:
        return np.ones(small.shape, np.bool_)
    areas = stats[1:, cv2.CC_STAT_AREA]
    breast = (components == 1 + int(np.argmax(areas))).astype(np.uint8)
    if breast.mean() < 0.03:
        return np.ones(small.shape, np.bool_)
    contours, _ = cv2.findContours(breast, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    filled = cv2.drawContours(np.zeros_like(breast), contours, -1, 1, thickness=cv2.FILLED)
    # Two pixels of 256 are a few mm: the skin line stays inside, a lesion beneath it is not cut.
    return cv2.dilate(filled, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))).astype(np.bool_)


def _enlarge(mask: Mask, shape: tuple[int, ...]) -> Mask:
    enlarged = cv2.resize(mask.astype(np.uint8), (shape[1], shape[0]), interpolation=cv2.INTER_NEAREST)
    return np.asarray(enlarged, np.bool_)


def breast_mask(pixels: Pixels) -> Mask:
    """Return where the breast is, without labels, film borders and background.

    Args:
        pixels: float32 (rows, columns) in [0, 1], dense tissue bright.

    Returns:
        bool (rows, columns); all True where no region stands out from the background (a crop of tissue, say).
    """
    small, _ = _shrink(pixels)
    return _enlarge(_small_mask(small), pixels.shape)


def chest_wall_is_right(mask: Mask) -> bool:
    """Tell from a breast mask whether the chest wall is at the right side of the image.

    A breast tapers towards the nipple: its mass leans to the chest wall's side of its bounding box.
    """
    columns = np.flatnonzero(mask.any(axis=0))
    if columns.size == 0:
        return False
    profile = mask.sum(axis=0, dtype=np.float64)
    centre = float((profile * np.arange(mask.shape[1])).sum() / profile.sum())
    return centre > (columns[0] + columns[-1]) / 2


def pectoral_mask(pixels: Pixels, mask: Mask) -> Mask:
    """Return the pectoral muscle of an MLO view whose chest wall is at the left.

    The straight line with the strongest fall of brightness from the upper left corner outwards is sought among
    lines of 20° to 70° from the vertical that cut off a plausible triangle (after Karssemeijer, Phys Med Biol 43, 1998, who
    used a Hough transform). Where no line is strong enough nothing is masked.

    Args:
        pixels: float32 (rows, columns) in [0, 1], chest wall at the left.
        mask: bool (rows, columns), the breast.

    Returns:
        bool (rows, columns), True on the muscle.
    """
    small, _ = _shrink(pixels)
    small_mask = cv2.resize(mask.astype(np.uint8), small.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
    nothing = np.zeros(pixels.shape, np.bool_)
    rows, columns = np.nonzero(small_mask)
    if rows.size == 0:
        return nothing
    top, left = int(rows.min()), int(columns[rows < rows.min() + 8].min())
    height, width = int(rows.max()) - top + 1, int(columns.max()) - left + 1
    smooth = cv2.GaussianBlur(small, (0, 0), 2.0)
    grid_y, grid_x = np.mgrid[0 : small.shape[0], 0 : small.shape[1]].astype(np.float32)
    best_contrast, best = 0.0, None
    for across in np.linspace(0.15, 0.75, 25) * width:  # where the line meets the top of the breast
        for down in np.linspace(0.2, 0.9, 29) * height:  # where it meets the chest wall
            angle = np.degrees(np.arctan2(across, down))
            if not 12 <= angle <= 60:
                continue
            # Signed distance from the line, positive on the breast's side of it.
            distance = ((grid_x - left) * down + (grid_y - top) * across - across * down) / np.hypot(across, down)
            inner = small_mask & (distance > -5) & (distance < -1)
            outer = small_mask & (distance > 1) & (distance < 5)
            if inner.sum() < 40 or outer.sum() < 40:
                continue
            fall = float(smooth[inner].mean() - smooth[outer].mean())
            # A long line is better evidence than a short one of the same contrast.
            contrast = fall * float(np.hypot(across, down)) ** 0.5
            if contrast > best_contrast and fall > 0.03:
                best_contrast, best = contrast, small_mask & (distance < 0)
    if best is None or smooth[best].mean() < smooth[small_mask & ~best].mean():
        return nothing
    return _enlarge(best, pixels.shape)


def prepare(
    pixels: Pixels, config: PreparationConfig, *, spacing_mm: float | None = None, view: str | None = None
) -> Prepared:
    """Apply the configured steps to a whole mammogram.

    Args:
        pixels: float32 (rows, columns) in [0, 1], dense tissue bright.
        config: The steps.
        spacing_mm: Millimetres per pixel, where known.
        view: The view; the pectoral muscle is looked for on MLO and ML views only.
    """
    needs_mask = (
        config.chest_wall_left
        or config.breast_only
        or config.remove_pectoral
        or config.normalise
        or config.granularity == "breast"
    )
    mask: Mask | None = None
    mirrored = False
    if needs_mask:
        small, _ = _shrink(pixels)
        small_mask = _small_mask(small)
        mirrored = config.chest_wall_left and chest_wall_is_right(small_mask)
        if mirrored:
            pixels, small, small_mask = pixels[:, ::-1], small[:, ::-1], small_mask[:, ::-1]
        if config.remove_pectoral and view in ("MLO", "ML"):
            muscle = pectoral_mask(np.ascontiguousarray(small), np.ascontiguousarray(small_mask))
            small_mask = small_mask & ~muscle
        mask = _enlarge(np.ascontiguousarray(small_mask), pixels.shape)
    pixels = np.ascontiguousarray(pixels, np.float32)
    if config.median:
        pixels = _median(pixels, config.median)
    if config.normalise and mask is not None:
        inside = small[small_mask]
        low, high = np.percentile(inside, (1.0, 99.5)) if inside.size else (0.0, 1.0)
        if high - low > 1e-6:
            pixels = np.clip((pixels - np.float32(low)) * np.float32(1.0 / (high - low)), 0, 1)
    if config.clahe:
        equaliser = cv2.createCLAHE(clipLimit=config.clahe, tileGridSize=(8, 8))
        pixels = equaliser.apply((pixels * 65535).astype(np.uint16)).astype(np.float32) / np.float32(65535)
    if config.unsharp:
        sigma = 0.5 / spacing_mm if spacing_mm else 2.5
        blurred = cv2.GaussianBlur(pixels, (0, 0), sigma)
        pixels = np.clip(pixels + np.float32(config.unsharp) * (pixels - blurred), 0, 1)
    if mask is not None and (config.breast_only or config.remove_pectoral):
        pixels = np.where(mask, pixels, np.float32(0))
    return Prepared(np.asarray(pixels, np.float32), mask, mirrored, spacing_mm)


def _median(pixels: Pixels, side: int) -> Pixels:
    """Median-filter an image; OpenCV takes float32 up to 5 × 5 and bytes beyond."""
    if side <= 5:
        return np.asarray(cv2.medianBlur(pixels, side), np.float32)
    as_bytes = np.clip(pixels * 255, 0, 255).astype(np.uint8)
    return np.asarray(cv2.medianBlur(as_bytes, side), np.float32) / np.float32(255)


def crop_roi(prepared: Prepared, box: Box | None, config: PreparationConfig, *, margin: float = 1.0) -> RoiCrop:
    """Cut out what the network sees, at one scale in both directions, padded with background at the borders.

    Args:
        prepared: The prepared mammogram.
        box: The finding in pixels of the stored image; None for the whole breast.
        config: Size, context and floors of the crop.
        margin: Enlarges the crop and its pixel size alike, to leave room for augmentation; 1 for none.

    Raises:
        PreparationError: A finding without a box, or a box that lies outside the image.
    """
    rows, columns = prepared.pixels.shape
    aspect = config.width / config.height
    if config.granularity == "finding":
        if box is None:
            raise PreparationError("crop", "a finding needs a box", "name it as x0,y0,x1,y1")
        if box.x0 < 0 or box.y0 < 0 or box.x1 > columns or box.y1 > rows:
            raise PreparationError(
                "crop", f"the box {box} does not lie inside the image of {columns} × {rows} pixels"
            )
        placed = prepared.place(box)
        floor = config.floor_mm / prepared.spacing_mm if prepared.spacing_mm else float(config.floor_pixels)
        side = max(config.context * max(placed.width, placed.height), floor)
        window_height = side if aspect >= 1 else side / aspect
        centre_x, centre_y = placed.centre
    else:
        placed = _bounds(prepared)
        window_height = config.context * max(placed.height, placed.width / aspect)
        centre_x, centre_y = placed.centre
        # The chest wall stays at the crop's left edge; the room that is left over is background at the nipple's side.
        if config.chest_wall_left:
            centre_x = placed.x0 + window_height * aspect / 2
    window_height *= margin
    window_width = window_height * aspect
    if config.granularity == "breast" and config.chest_wall_left:
        centre_x -= (margin - 1) * window_width / margin / 2
    height, width = round(config.height * margin), round(config.width * margin)
    x0, y0 = centre_x - window_width / 2, centre_y - window_height / 2
    scale = height / window_height
    pixels = _resample(prepared.pixels, x0, y0, window_width, window_height, width, height)
    spacing = prepared.spacing_mm
    marked = None
    if config.granularity == "finding":
        marked = (
            (placed.x0 - x0) * scale,
            (placed.y0 - y0) * scale,
            (placed.x1 - x0) * scale,
            (placed.y1 - y0) * scale,
        )
    return RoiCrop(
        pixels,
        window_height / margin * spacing if spacing else None,
        spacing / scale if spacing else None,
        marked,
    )


def _bounds(prepared: Prepared) -> Box:
    """Return the bounding box of the breast."""
    rows, columns = prepared.pixels.shape
    if prepared.mask is None or not prepared.mask.any():
        return Box(0, 0, columns, rows)
    across = np.flatnonzero(prepared.mask.any(axis=0))
    down = np.flatnonzero(prepared.mask.any(axis=1))
    return Box(int(across[0]), int(down[0]), int(across[-1]) + 1, int(down[-1]) + 1)


def _resample(
    pixels: Pixels, x0: float, y0: float, window_width: float, window_height: float, width: int, height: int
) -> Pixels:
    """Resample a window of an image, zero outside of it, to width × height pixels without aliasing."""
    left, top = int(np.floor(x0)), int(np.floor(y0))
    right, bottom = int(np.ceil(x0 + window_width)), int(np.ceil(y0 + window_height))
    rows, columns = pixels.shape
    inside = pixels[max(0, top) : max(0, min(rows, bottom)), max(0, left) : max(0, min(columns, right))]
    window = cv2.copyMakeBorder(
        np.ascontiguousarray(inside),
        max(0, min(-top, bottom - top - inside.shape[0])),
        bottom - top - inside.shape[0] - max(0, min(-top, bottom - top - inside.shape[0])),
        max(0, min(-left, right - left - inside.shape[1])),
        right - left - inside.shape[1] - max(0, min(-left, right - left - inside.shape[1])),
        cv2.BORDER_CONSTANT,
        value=0,
    )
    # Shrinking by more than 2 averages areas first; the affine step that follows places the window to a fraction.
    shrink = max(1.0, min(window_width / width, window_height / height))
    if shrink > 1.0:
        reduced = (max(1, round(window.shape[1] / shrink)), max(1, round(window.shape[0] / shrink)))
        step_x, step_y = window.shape[1] / reduced[0], window.shape[0] / reduced[1]
        window = cv2.resize(window, reduced, interpolation=cv2.INTER_AREA)
    else:
        step_x = step_y = 1.0
    scale_x, scale_y = window_width / width / step_x, window_height / height / step_y
    # Pixel centres: output pixel i looks at (i + 0.5) · scale + offset − 0.5 of the window.
    offset_x = (x0 - left) / step_x + 0.5 * scale_x - 0.5
    offset_y = (y0 - top) / step_y + 0.5 * scale_y - 0.5
    transform = np.array([[scale_x, 0, offset_x], [0, scale_y, offset_y]], np.float64)
    return np.asarray(
        cv2.warpAffine(
            window,
            transform,
            (width, height),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        ),
        np.float32,
    )
