"""Square pictures of places, all at one physical scale, in 16 bits: of the query, and of each neighbour beside it."""

import contextlib
import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from embedder.crops import Window
from errors import MammoseekError
from index.gallery import Gallery
from viewer import ViewerError
from viewer.catalogue import Catalogue, ImageEntry
from viewer.display import Pixels16, read_display_rows, reads_rows
from viewer.problems import NotFoundError
from viewer.pyramid import Pyramid, Pyramids
from viewer.questionbody import check_box

Corners = tuple[int, int, int, int]

CONTEXT = 1.5
"""Side of a picture as a multiple of the longer side of its box, as the model's crops have it."""

SMALLEST_PIXELS, LARGEST_PIXELS = 16, 2048
SMALLEST_MM, LARGEST_MM = 1.0, 1000.0

_FLOOR_MM, _CEILING_MM = 20.0, 100.0  # of the extent that is proposed for places
_BREAST_CEILING_MM = 350.0
_FLOOR_PIXELS = 96.0
_FINEST = 8  # stored pixels of one of a picture that is cut from stored rows: beyond, levels are faster


@dataclass(frozen=True)
class Crop:
    """A square picture.

    Attributes:
        pixels: uint16 (pixels, pixels), dense tissue bright; 0 beyond the image.
        mm_per_pixel: Of this picture; None where unknown.
        box: The place in pixels of this picture, x0, y0, x1, y1, fractions kept; None where it is the whole image.
        source: `image`, or `thumbnail` where the image is not here.
    """

    pixels: Pixels16
    mm_per_pixel: float | None
    box: tuple[float, float, float, float] | None
    source: str


@dataclass(frozen=True)
class CropRequest:
    """What a picture is to show.

    Attributes:
        mm: Its side in millimetres; None for the box with context.
        pixels: Its rows and columns.

    Raises:
        ViewerError: They are out of range.
    """

    mm: float | None
    pixels: int

    def __post_init__(self) -> None:
        if not SMALLEST_PIXELS <= self.pixels <= LARGEST_PIXELS:
            raise ViewerError("pixels", f"{self.pixels} is out of range", f"{SMALLEST_PIXELS} to {LARGEST_PIXELS}")
        if self.mm is not None and not SMALLEST_MM <= self.mm <= LARGEST_MM:  # NaN is neither
            raise ViewerError("mm", f"{self.mm} is out of range", f"{SMALLEST_MM:g} to {LARGEST_MM:g}")


def side_in_pixels(box: Corners | None, shape: tuple[int, int], spacing_mm: float | None, mm: float | None) -> float:
    """Return the side of a picture in stored pixels: what `mm` asks for, else the box with context, or the image.

    Args:
        box: The place; None for the whole image.
        shape: Rows and columns of the image.
        spacing_mm: Millimetres per pixel; None where unknown, and then `mm` can't be kept.
        mm: The side that is asked for.
    """
    if mm is not None and spacing_mm:
        return mm / spacing_mm
    if box is None:
        return float(max(shape))
    floor = _FLOOR_MM / spacing_mm if spacing_mm else _FLOOR_PIXELS
    return max(CONTEXT * max(box[2] - box[0], box[3] - box[1]), floor)


def suggested_mm(places: list[tuple[Corners | None, tuple[int, int] | None, float | None]]) -> float | None:
    """Return one side in millimetres at which several places can be compared: the largest of the boxes with context.

    Args:
        places: Of each its box (None for a whole image), its image's rows and columns, and its spacing.

    Returns:
        At least 20 and at most 100 for places, 350 for whole images; None where no spacing is known.
    """
    sides: list[float] = []
    ceiling = _CEILING_MM
    for box, shape, spacing in places:
        if not spacing or (box is None and shape is None):
            continue
        if box is None and shape is not None:
            sides.append(max(shape) * spacing)
            ceiling = _BREAST_CEILING_MM
        elif box is not None:
            sides.append(CONTEXT * max(box[2] - box[0], box[3] - box[1]) * spacing)
    return round(min(ceiling, max(_FLOOR_MM, *sides)), 1) if sides else None


def cut(pixels: npt.NDArray[np.uint16], window: Window, side: int) -> Pixels16:
    """Resample a square window of an image, areas averaged where it shrinks, 0 beyond the image.

    Args:
        pixels: uint16 (rows, columns).
        window: Of the image, in the coordinates of pixel edges; it may reach beyond it.
        side: Rows and columns of the picture.

    Returns:
        uint16 (side, side).
    """
    rows, columns = pixels.shape
    top, bottom = max(0, math.floor(window.y0) - 1), min(rows, math.ceil(window.y0 + window.height) + 1)
    left, right = max(0, math.floor(window.x0) - 1), min(columns, math.ceil(window.x0 + window.width) + 1)
    if bottom <= top or right <= left:
        return np.zeros((side, side), np.uint16)
    part = np.ascontiguousarray(pixels[top:bottom, left:right])
    # So many samples a pixel that none of the image lies between two of them; their mean is the area's.
    samples = max(1, math.ceil(window.width / side - 1e-9))
    pitch = window.width / (side * samples)
    # Pixel centres: sample i looks at (i + 0.5) · pitch + offset − 0.5.
    transform = np.array(
        [[pitch, 0, window.x0 - left + 0.5 * pitch - 0.5], [0, pitch, window.y0 - top + 0.5 * pitch - 0.5]]
    )
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    size = side * samples, side * samples
    shown = cv2.warpAffine(part, transform, size, flags=flags, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
    if samples > 1:
        shown = cv2.resize(shown, (side, side), interpolation=cv2.INTER_AREA)
    return np.asarray(shown, np.uint16)


class Pictures:
    """Cuts pictures of images and of the gallery's rows.

    A level of a decoded image is taken that is at least as fine as the picture. Of an uncompressed DICOM file that is
    not decoded the rows that are needed are read, which takes milliseconds; any other is decoded whole, and kept.

    Args:
        gallery: The gallery, for the thumbnails of rows whose image is not here.
        catalogue: The images.
        pyramids: Those that are decoded.
    """

    def __init__(self, gallery: Gallery, catalogue: Catalogue, pyramids: Pyramids) -> None:
        self._gallery, self._catalogue, self._pyramids = gallery, catalogue, pyramids

    def of_image(self, entry: ImageEntry, box: Corners | None, request: CropRequest) -> Crop:
        """Cut a picture of a place on an image.

        Args:
            entry: The image, with its details.
            box: The place in pixels of the stored image; None for the whole image.
            request: What the picture shows.

        Raises:
            MammoseekError: The file can't be read, or the box does not lie inside the image.
        """
        assert entry.details is not None, "whoever asks has looked at its header"
        header, spacing = entry.details.header, entry.details.spacing_mm
        shape = header.rows, header.columns
        if box is not None:
            check_box(box, *shape)
        side = side_in_pixels(box, shape, spacing, request.mm)
        x0, y0, x1, y1 = box or (0, 0, shape[1], shape[0])
        window = Window((x0 + x1) / 2 - side / 2, (y0 + y1) / 2 - side / 2, side, side)
        scale = request.pixels / side
        place = None
        if box is not None:
            place = (
                (x0 - window.x0) * scale,
                (y0 - window.y0) * scale,
                (x1 - window.x0) * scale,
                (y1 - window.y0) * scale,
            )
        pixels = self._pixels(entry, window, request.pixels)
        return Crop(pixels, spacing / scale if spacing else None, place, "image")

    def of_row(self, position: int, request: CropRequest) -> Crop:
        """Cut a picture of a row of the gallery from its image, else enlarge or shrink its thumbnail.

        Raises:
            NotFoundError: There is neither.
        """
        entry = self._catalogue.of_row(position)
        box = row_box(self._gallery, position)
        if entry is not None:
            try:
                return self.of_image(self._catalogue.detailed(entry.image), box, request)
            except (OSError, ValueError, ViewerError) as error:
                problem: Exception = error
            except Exception as error:  # a damaged file: the thumbnail may be there
                problem = error
        else:
            problem = NotFoundError("row", "its image is not here")
        small = self._gallery.thumbnail(self._gallery.row_id(position))
        pixels = None if small is None else cv2.imdecode(np.frombuffer(small, np.uint8), cv2.IMREAD_GRAYSCALE)
        if pixels is None:
            raise NotFoundError(
                f"row {self._gallery.row_id(position)}", "has no picture here", "serve the folder of its image"
            ) from problem
        height, width = pixels.shape
        longest = float(max(height, width))
        window = Window((width - longest) / 2, (height - longest) / 2, longest, longest)
        return Crop(cut(pixels.astype(np.uint16) * 257, window, request.pixels), None, None, "thumbnail")

    def prefetch(self, positions: list[int]) -> None:
        """Begin to decode the images of some rows, of which single rows can't be read."""
        for position in positions:
            entry = self._catalogue.of_row(position)
            if entry is None:
                continue
            if entry.details is not None and reads_rows(entry.details.header):
                continue
            try:
                self._pyramids.ask_ahead(self._pyramids.version(entry.path, entry.frame))
            except NotFoundError:
                continue

    def _pixels(self, entry: ImageEntry, window: Window, side: int) -> Pixels16:
        assert entry.details is not None
        version = self._pyramids.version(entry.path, entry.frame)
        pyramid = self._pyramids.kept(version)
        header = entry.details.header
        if pyramid is None and reads_rows(header):
            top = max(0, math.floor(window.y0) - 1)
            bottom = min(header.rows, math.ceil(window.y0 + window.height) + 1)
            if 2 * (bottom - top) <= header.rows and window.width <= _FINEST * side:
                image = read_display_rows(Path(entry.path), top, bottom, frame=entry.frame)
                return cut(image.pixels, Window(window.x0, window.y0 - top, window.width, window.height), side)
        if pyramid is None:
            with contextlib.suppress(MammoseekError):  # decoding it tells what is wrong with it
                coarse = self._pyramids.glimpse(version, header).result()
                if coarse is not None and window.width / 2**coarse.first >= side:
                    pyramid = coarse
        if pyramid is None:
            pyramid = self._pyramids.ask(version).result()
        return from_pyramid(pyramid, window, side)


def from_pyramid(pyramid: Pyramid, window: Window, side: int) -> Pixels16:
    """Resample a square window of an image from the coarsest level that is at least as fine as the picture.

    Args:
        pyramid: The image; of a glimpse its finest level is taken where none is fine enough.
        window: Of the image, in the coordinates of pixel edges.
        side: Rows and columns of the picture.
    """
    level = pyramid.first
    while level + 1 < pyramid.first + len(pyramid.levels) and window.width / 2 ** (level + 1) >= side:
        level += 1
    part = 2.0**level
    scaled = Window(window.x0 / part, window.y0 / part, window.width / part, window.height / part)
    return cut(pyramid.levels[level - pyramid.first], scaled, side)


def row_box(gallery: Gallery, position: int) -> Corners | None:
    """Return the place of a row in pixels of its stored image; None where it is the whole breast."""
    corners = [
        gallery.table.cell(name, position) if name in gallery.table else None for name in ("x0", "y0", "x1", "y1")
    ]
    if any(corner is None for corner in corners):
        return None
    x0, y0, x1, y1 = (int(corner) for corner in corners if corner is not None)
    return x0, y0, x1, y1
