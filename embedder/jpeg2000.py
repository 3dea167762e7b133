"""JPEG 2000 at a fraction of its size: its wavelets hold the image in halving sizes, the coarse ones in few bytes.

A full-size mammogram takes a second or more to decode, an eighth of its rows and columns a fiftieth of that. Pillow
does it by OpenJPEG; what it returns is brought back to the scale of the stored values. Pillow reckons with sizes that
are rounded, and OpenJPEG's are rounded up: a size that these two make different can't be had.
"""

import io
import struct

import numpy as np
import numpy.typing as npt
from PIL import Image

from embedder.codestreams import StreamError

_SOC, _SIZ, _COD, _SOT = 0xFF4F, 0xFF51, 0xFF52, 0xFF90  # marker codes, ISO/IEC 15444-1 table A.2


def decode_halved(stream: bytes, halvings: int) -> npt.NDArray[np.uint16] | npt.NDArray[np.uint8]:
    """Decode a grey codestream at 1 / 2^halvings of its rows and columns, rounded up.

    Args:
        stream: A raw codestream, as DICOM encapsulates it.
        halvings: 0 for the whole image.

    Returns:
        (rows, columns) of unsigned stored values, 8 or 16 bits.

    Raises:
        StreamError: It can't be decoded so: it is damaged, of several components or signed, holds fewer sizes, or its
            rows or columns are less than half a pixel of the fraction beyond a whole number of them.
    """
    bits, sizes = _grey_bits(stream), _halvings(stream)
    if halvings > sizes:
        raise StreamError(f"its codestream holds {sizes} halvings")
    try:
        with Image.open(io.BytesIO(stream)) as image:
            image.reduce = halvings  # type: ignore[method-assign, assignment] # Pillow's plug-in has a number here
            pixels = np.asarray(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise StreamError(f"its codestream can't be decoded ({error})") from error
    if pixels.ndim != 2 or pixels.dtype not in (np.uint8, np.uint16):
        raise StreamError("its codestream is not grey")
    if bits > 8 * pixels.dtype.itemsize:
        raise StreamError(f"its codestream says {bits} bits")
    return np.right_shift(pixels, 8 * pixels.dtype.itemsize - bits)  # Pillow fills the type from the top


def _grey_bits(stream: bytes) -> int:
    """Return the bits of the only component (SIZ, ISO/IEC 15444-1 A.5.1)."""
    start, length = _segment(stream, _SIZ)
    components = struct.unpack_from(">H", stream, start + 34)[0] if length >= 39 else 0
    depth = stream[start + 36] if components == 1 else 0x80
    if depth & 0x80:
        raise StreamError("its codestream is signed, or not of one component")
    return depth + 1


def _halvings(stream: bytes) -> int:
    """Return how often the wavelets halve the image (COD, ISO/IEC 15444-1 A.6.1)."""
    start, length = _segment(stream, _COD)
    if length < 10:
        raise StreamError("its codestream is damaged")
    return stream[start + 5]


def _segment(stream: bytes, code: int) -> tuple[int, int]:
    """Return where the parameters of a marker segment of the main header start, and its length."""
    if len(stream) < 2 or struct.unpack_from(">H", stream)[0] != _SOC:
        raise StreamError("it holds no JPEG 2000 codestream")
    place = 2
    while place + 4 <= len(stream):
        found, length = struct.unpack_from(">HH", stream, place)
        if found == code and place + 2 + length <= len(stream):
            return place + 4, length
        if found == _SOT or length < 2:
            break
        place += 2 + length
    raise StreamError("its codestream is damaged")
