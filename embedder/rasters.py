"""Read mammograms from plain image files: PNG, JPEG, PGM, TIFF of 8 and 16 bits."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from embedder.films import is_inverted
from embedder.header import MAXIMUM_PIXELS, Header, Mammogram, MammogramError, check_size, choose_frame
from embedder.quiet import quiet_libraries

_FORMATS = {
    "PNG": "PNG",
    "JPEG": "JPEG",
    "MPO": "JPEG",
    "PPM": "PGM",
    "TIFF": "TIFF",
}  # Pillow's names, and ours
_GREY_16 = ("I;16", "I;16B", "I;16L", "I;16N")
_EIGHT_BITS = ("L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBX", "YCbCr")
_COLOUR_TOLERANCE = 8  # levels of 255: chroma noise of a grey scan that a lossy codec has been through
_TIFF_PHOTOMETRIC, _MIN_IS_WHITE = 262, 0
# What libjpeg puts, without an error, where a stream ends early but has its end mark.
_JPEG_FILLING, _JPEG_BLOCK = 128, 8
_COPY_AGAIN = "copy it again from its source, or export it anew"


def read_raster_header(path: Path) -> Header:
    """Read the size and depth of a plain image file; its pixels are not decoded.

    Raises:
        MammogramError: The file can't be read.
    """
    with quiet_libraries(), _open(path) as image:
        return _header(path, image)


def read_raster(path: Path, *, frame: int | None) -> Mammogram:
    """Read a mammogram from a plain image file; see `embedder.mammogram.read_mammogram`.

    Raises:
        MammogramError: The file can't be read or is refused.
    """
    with quiet_libraries(), _open(path) as image:
        header = _header(path, image)
        position = choose_frame(path, header.frames, frame)
        try:
            if position:
                image.seek(position)
                header = _header(path, image)  # every page of a TIFF has its own size and depth
            image.load()
        except MammogramError:
            raise
        except Exception as error:  # every codec raises its own kinds, SyntaxError among them
            raise MammogramError(path, f"its pixels can't be decoded ({_reason(error)})", _COPY_AGAIN) from error
        pixels = _grey(path, image)
        if header.format == "JPEG" and (pixels[-_JPEG_BLOCK:] == np.float32(_JPEG_FILLING / 255)).all():
            raise MammogramError(path, "its lower part is missing", _COPY_AGAIN)
    inverted = is_inverted(pixels)
    return Mammogram(**vars(header), pixels=1 - pixels if inverted else pixels, inverted=inverted)


def merge_channels(path: Path, colours: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
    """Turn a grey image that is kept in colour into grey.

    Args:
        path: The file.
        colours: uint8 (rows, columns, 3).

    Returns:
        float32 (rows, columns) in [0, 1].

    Raises:
        MammogramError: It is really coloured.
    """
    red, green, blue = (colours[..., channel] for channel in range(3))
    spread = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    if int(spread.max()) > _COLOUR_TOLERANCE:
        raise MammogramError(
            path, "it is a colour image, and mammograms are grey", "give the image without marks drawn on it"
        )
    return (red.astype(np.float32) + green + blue) / np.float32(3 * 255)


def _open(path: Path) -> Image.Image:
    try:
        return Image.open(path, formats=["PNG", "JPEG", "PPM", "TIFF"])
    except Image.DecompressionBombError as error:
        raise MammogramError(
            path,
            f"it declares more than the {MAXIMUM_PIXELS // 1_000_000} million pixels that are read",
            "check the file: a film of 24 × 30 cm at 25 µm has 115 million",
        ) from error
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, its own kinds for a damaged header
        raise MammogramError(path, f"its header is damaged ({_reason(error)})", _COPY_AGAIN) from error


def _header(path: Path, image: Image.Image) -> Header:
    check_size(path, image.height, image.width)
    try:
        frames = int(getattr(image, "n_frames", 1)) if image.format in ("PNG", "TIFF") else 1
    except Exception as error:  # as in `_open`
        raise MammogramError(path, f"it is damaged ({_reason(error)})", _COPY_AGAIN) from error
    kind = _FORMATS[str(image.format)]
    deep = image.mode in _GREY_16 or (image.mode == "I" and kind == "PGM")
    # Pillow would read 16 bits of a colour channel as 8.
    deep_colour = not deep and any(";16" in str(tile[3]) for tile in getattr(image, "tile", []))
    if deep_colour or not (deep or image.mode in _EIGHT_BITS):
        what = {"1": "it has one bit a pixel, as a mask has", "F": "its pixels are floating-point numbers"}
        cause = f"it is colour ({image.mode}) of 16 bits" if deep_colour else f"its pixels are of kind {image.mode}"
        raise MammogramError(path, what.get(image.mode, cause), "export it as grey of 8 or 16 bits")
    return Header(path, kind, image.height, image.width, frames, 16 if deep else 8)


def _grey(path: Path, image: Image.Image) -> npt.NDArray[np.float32]:
    """Return a decoded image as float32 in [0, 1].

    8 bits are scaled by 255 and a PGM by its own maximum. 16 bits of PNG and TIFF often hold 10, 12 or 14:
    they are scaled by the smallest 2ⁿ − 1 that the brightest pixel fits into.
    """
    if image.mode in _GREY_16 or image.mode == "I":
        stored = np.asarray(image).astype(np.uint16)
        # Pillow has scaled a PGM by its own maximum.
        largest = 65535 if image.format == "PPM" else max(255, (1 << int(stored.max()).bit_length()) - 1)
        pixels = stored.astype(np.float32) / np.float32(largest)
        # Pillow turns MinIsWhite of 8 bits itself, and leaves it at 16.
        tags = getattr(image, "tag_v2", {})
        return 1 - pixels if tags.get(_TIFF_PHOTOMETRIC) == _MIN_IS_WHITE else pixels
    if image.mode in ("L", "LA", "La"):
        return np.asarray(image.getchannel(0), np.float32) / np.float32(255)
    return merge_channels(path, np.asarray(image if image.mode == "RGB" else image.convert("RGB")))


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:160]
