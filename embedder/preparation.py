"""From a mammogram to pixels that can be compared: breast, chest wall to the left, pectoral muscle, contrast.

Every step is an option of one frozen `PreparationConfig`, which is saved with the model: a query is prepared
the way the gallery was, or it is refused.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

import cv2
import numpy as np
import numpy.typing as npt

from embedder.breast import (
    Mask,
    Pixels,
    chest_wall_is_right,
    enlarge,
    shrink,
    small_breast_mask,
    small_pectoral_mask,
)
from embedder.findings import Box
from errors import MammoseekError

Granularity = Literal["finding", "breast"]
SuperResolutionName = Literal["none", "srcnn-rsna"]

DESCRIPTOR_GROUPS = {
    "finding": ("shape", "margin", "texture", "hog", "hgd", "intensity", "calcification"),
    "breast": ("density", "zones", "texture", "intensity"),
}
"""Groups of hand-crafted descriptors by granularity."""

# Counts up whenever the same options begin to give other pixels: a model trained before is then refused.
_VERSION = 1
# Options that came later: switched off they are not described, so that earlier models keep their digests.
_LATER = {"super_resolution": "none"}
# Views that show the pectoral muscle.
_MUSCLE_VIEWS = ("MLO", "LMO", "ML", "LM")
_UNSHARP_MM, _UNSHARP_PIXELS = 0.5, 2.5


class PreparationError(MammoseekError):
    """A preparation that can't be carried out: an option out of its range, or a place outside the image."""


@dataclass(frozen=True)
class PreparationConfig:
    """How a mammogram becomes the network's input.

    Args:
        granularity: `finding` crops a marked place, `breast` the whole breast.
        height: Rows of the network's input, in pixels.
        width: Columns of the network's input, in pixels.
        context: Side of the crop as a multiple of the finding's longer side; for a breast, of its bounding
            box.
        floor_mm: Smallest side of a finding's crop in mm, where the spacing is known.
        floor_pixels: Smallest side of a finding's crop in stored pixels, where the spacing is unknown.
        chest_wall_left: Mirror the image where needed so that the chest wall is at the left.
        breast_only: Blank labels, film borders and background outside the breast; a marked place is never
            blanked.
        remove_pectoral: Blank the pectoral muscle too, on mediolateral views (Karssemeijer, Phys Med Biol 43,
            1998).
        normalise: Map the 1st to 99.5th percentile inside the breast to [0, 1].
        median: Side of a median filter in pixels, odd; 0 for none.
        clahe: Clip limit of a contrast-limited adaptive histogram equalisation on 8 × 8 tiles; 0 for none.
        unsharp: Amount of an unsharp mask (sigma 0.5 mm, or 2.5 pixels); 0 for none.
        descriptors: Groups of hand-crafted descriptors that go with the pixels, see `embedder.handcrafted`; how they
            join the vector is an option of the network.
        super_resolution: The network that enlarges a crop by two where the film has fewer pixels than the input, see
            `embedder.superresolution`; `none` interpolates linearly.

    Raises:
        PreparationError: An option is of another type, or out of its range.
    """

    granularity: Granularity = "finding"
    height: int = 160
    width: int = 160
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
    descriptors: tuple[str, ...] = ()
    super_resolution: SuperResolutionName = "none"

    def __post_init__(self) -> None:
        for field in fields(self):
            value, kind = getattr(self, field.name), type(field.default)
            # A whole number stands for a float too, and becomes one: 2 and 2.0 are the same option, of one
            # digest.
            if kind is float and type(value) is int:
                object.__setattr__(self, field.name, float(value))
            elif type(value) is not kind:
                raise PreparationError("preparation", f"{field.name} is {value!r}, not of type {kind.__name__}")
        checks = {
            "granularity is finding or breast": self.granularity in ("finding", "breast"),
            "height and width are 32 to 4096 pixels": min(self.height, self.width) >= 32
            and max(self.height, self.width) <= 4096,
            "context is 1 to 10": 1 <= self.context <= 10,
            "floor_mm is 1 to 1000": 1 <= self.floor_mm <= 1000,
            "floor_pixels is 33 to 10000": 33 <= self.floor_pixels <= 10000,
            "median is 0 or an odd number of pixels up to 31": self.median == 0
            or (self.median % 2 == 1 and 3 <= self.median <= 31),
            "clahe is 0 to 40": 0 <= self.clahe <= 40,
            "unsharp is 0 to 5": 0 <= self.unsharp <= 5,
            f"descriptors are some of {', '.join(DESCRIPTOR_GROUPS.get(self.granularity, ()))}": set(self.descriptors)
            <= set(DESCRIPTOR_GROUPS.get(self.granularity, ()))
            and len(set(self.descriptors)) == len(self.descriptors),
            f"super_resolution is {' or '.join(get_args(SuperResolutionName))}": self.super_resolution
            in get_args(SuperResolutionName),
        }
        for rule, holds in checks.items():
            if not holds:
                raise PreparationError("preparation", f"an option is out of range: {rule}")

    def to_dict(self) -> dict[str, Any]:
        """Return the options as plain values, for a model card."""
        described = {**asdict(self), "descriptors": list(self.descriptors)}
        return {name: value for name, value in described.items() if name not in _LATER or value != _LATER[name]}

    @classmethod
    def from_dict(cls, options: dict[str, Any]) -> "PreparationConfig":
        """Rebuild a configuration from a model card.

        Raises:
            PreparationError: An option is not known to this version, or wrong.
        """
        unknown = sorted(set(options) - {field.name for field in fields(cls)})
        if unknown:
            raise PreparationError("preparation", f"unknown options: {', '.join(unknown)}")
        groups = options.get("descriptors", ())
        return cls(**{**options, "descriptors": tuple(groups) if isinstance(groups, list) else groups})

    @property
    def digest(self) -> str:
        """SHA-256 of the options and the steps' version: what has one digest gives the same pixels."""
        described = {"version": _VERSION, **self.to_dict()}
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class Prepared:
    """A prepared mammogram, of the stored image's size.

    Attributes:
        pixels: float32 (rows, columns) in [0, 1]; not blanked, see `blank_outside`.
        mask: bool (rows, columns), True on the breast; None where no step asked for it.
        mirrored: The image was turned left to right to bring the chest wall to the left.
        spacing_mm: Millimetres per pixel; None where unknown.
        blank_outside: Crops show nothing outside the mask, save the marked place.
    """

    pixels: Pixels
    mask: Mask | None
    mirrored: bool
    spacing_mm: float | None
    blank_outside: bool

    def place(self, box: Box) -> Box:
        """Return a box of the stored image in the coordinates of the prepared one."""
        if not self.mirrored:
            return box
        columns = self.pixels.shape[1]
        return Box(columns - box.x1, box.y0, columns - box.x0, box.y1)


def prepare(
    pixels: Pixels, config: PreparationConfig, *, spacing_mm: float | None = None, view: str | None = None
) -> Prepared:
    """Apply the configured steps to a whole mammogram.

    Args:
        pixels: float32 (rows, columns) in [0, 1], dense tissue bright.
        config: The steps.
        spacing_mm: Millimetres per pixel, where known.
        view: The view; the pectoral muscle is looked for on MLO, LMO, ML and LM views only.
    """
    pixels = np.asarray(pixels, np.float32)
    blank = config.breast_only or config.remove_pectoral
    mask: Mask | None = None
    mirrored = False
    if blank or config.chest_wall_left or config.normalise or config.granularity == "breast":
        small = shrink(pixels)
        small_mask = small_breast_mask(small)
        mirrored = config.chest_wall_left and chest_wall_is_right(small, small_mask)
        if config.remove_pectoral and view in _MUSCLE_VIEWS:
            small_mask = small_mask & ~_muscle(small, small_mask, mirrored)
        if config.normalise:
            pixels = _normalised(pixels, small[small_mask])
        mask = enlarge(small_mask, pixels.shape)
        if mirrored:
            pixels, mask = pixels[:, ::-1], np.ascontiguousarray(mask[:, ::-1])
    pixels = np.ascontiguousarray(pixels)
    if config.median:
        pixels = _median(pixels, config.median)
    if config.clahe:
        equaliser = cv2.createCLAHE(clipLimit=config.clahe, tileGridSize=(8, 8))
        # In bytes: of 16 bits OpenCV makes a histogram of 65536 bins, where no clip limit has any effect.
        pixels = np.asarray(equaliser.apply(_as_bytes(pixels)), np.float32) / np.float32(255)
    if config.unsharp:
        # Bounded, for a wrong spacing would ask for a kernel larger than the image.
        sigma = float(np.clip(_UNSHARP_MM / spacing_mm, 0.3, 25.0)) if spacing_mm else _UNSHARP_PIXELS
        blurred = cv2.GaussianBlur(pixels, (0, 0), sigma)
        pixels = np.clip(pixels + np.float32(config.unsharp) * (pixels - blurred), 0, 1)
    return Prepared(pixels, mask, mirrored, spacing_mm, blank)


def _muscle(small: Pixels, mask: Mask, mirrored: bool) -> Mask:
    """Find the pectoral muscle where the chest wall is, without turning the image for good."""
    right = mirrored or chest_wall_is_right(small, mask)
    if not right:
        return small_pectoral_mask(small, mask)
    turned = small_pectoral_mask(np.ascontiguousarray(small[:, ::-1]), np.ascontiguousarray(mask[:, ::-1]))
    return turned[:, ::-1]


def _normalised(pixels: Pixels, inside: Pixels) -> Pixels:
    """Stretch an image so that the 1st to 99.5th percentile inside the breast become 0 to 1."""
    low, high = np.percentile(inside, (1.0, 99.5)) if inside.size else (0.0, 1.0)
    if high - low <= 1e-6:
        return pixels
    return np.asarray(np.clip((pixels - np.float32(low)) * np.float32(1.0 / (high - low)), 0, 1), np.float32)


def _median(pixels: Pixels, side: int) -> Pixels:
    """Median-filter an image; OpenCV takes float32 up to 5 × 5 and bytes beyond."""
    if side <= 5:
        return np.asarray(cv2.medianBlur(pixels, side), np.float32)
    return np.asarray(cv2.medianBlur(_as_bytes(pixels), side), np.float32) / np.float32(255)


def _as_bytes(pixels: Pixels) -> npt.NDArray[np.uint8]:
    return np.clip(np.rint(pixels * 255), 0, 255).astype(np.uint8)
