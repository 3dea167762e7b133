"""Plain image files without what they say beside their pixels: text, EXIF, thumbnails, anything after their end.

The compressed pixels are copied as they are: nothing is decoded, so nothing is lost.
"""

import struct
import zlib
from pathlib import Path

from exchange import ExchangeError

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# PNG (ISO/IEC 15948): what the pixels need, and how grey values are meant. All else is text, time, EXIF, profiles
# with names, animation, or unknown.
_PNG_KEPT = {b"IHDR": 13, b"PLTE": 768, b"tRNS": 256, b"gAMA": 4, b"sBIT": 4, b"IDAT": 2**31, b"IEND": 0}
# JPEG (ISO/IEC 10918-1 B.1): markers without a length.
_STANDALONE = {0x01, *range(0xD0, 0xD8)}
_SOI, _EOI, _SOS, _APP0, _APP14, _COM = 0xD8, 0xD9, 0xDA, 0xE0, 0xEE, 0xFE
_JFIF_HEADER = 14  # JFIF\0, version, units, two densities; a thumbnail follows
_ADOBE_HEADER = 12


def strip_image(path: Path) -> tuple[bytes, str]:
    """Return a PNG or JPEG file without its metadata, and the suffix that its name should have.

    Raises:
        ExchangeError: It is of another format, or damaged.
        OSError: It can't be read.
    """
    content = path.read_bytes()
    try:
        if content.startswith(_PNG_SIGNATURE):
            return _strip_png(content), ".png"
        if content.startswith(b"\xff\xd8\xff"):
            return _strip_jpeg(content), ".jpg"
    except (ValueError, struct.error, IndexError) as error:
        raise ExchangeError(path, "it is damaged", "copy it again from its source") from error
    raise ExchangeError(
        path, "only PNG and JPEG files can be freed of metadata without a change of their pixels", "save it as PNG"
    )


def _strip_png(content: bytes) -> bytes:
    kept, place = [_PNG_SIGNATURE], len(_PNG_SIGNATURE)
    while True:
        length, kind = struct.unpack_from(">L4s", content, place)
        chunk = content[place : place + 12 + length]
        if len(chunk) < 12 + length or zlib.crc32(chunk[4:-4]) != struct.unpack(">L", chunk[-4:])[0]:
            raise ValueError(kind)
        if kind in _PNG_KEPT and length <= _PNG_KEPT[kind]:
            kept.append(chunk)
        elif not kind[0] & 0x20 and kind not in _PNG_KEPT:
            raise ValueError(kind)  # a critical chunk that is not known: the pixels can't be read without it
        if kind == b"IEND":
            return b"".join(kept)
        place += len(chunk)


def _strip_jpeg(content: bytes) -> bytes:
    kept, place = [b"\xff\xd8"], 2
    while True:
        if content[place] != 0xFF:
            raise ValueError(place)
        while content[place + 1] == 0xFF:  # fill bytes
            place += 1
        marker = content[place + 1]
        if marker == _EOI:
            kept.append(b"\xff\xd9")
            return b"".join(kept)
        if marker in _STANDALONE or marker == _SOI:
            raise ValueError(marker)
        (length,) = struct.unpack_from(">H", content, place + 2)
        segment = content[place : place + 2 + length]
        if length < 2 or len(segment) < 2 + length:
            raise ValueError(marker)
        kept.append(_kept_segment(marker, segment))
        place += len(segment)
        if marker == _SOS:
            end = _scan_end(content, place)
            kept.append(content[place:end])
            place = end


def _kept_segment(marker: int, segment: bytes) -> bytes:
    """Return what of a segment stays: tables and frames whole, JFIF and Adobe headers without what follows them."""
    data = segment[4:]
    if marker == _APP0 and data.startswith(b"JFIF\0") and len(data) >= _JFIF_HEADER:
        return _segment(marker, data[: _JFIF_HEADER - 2] + b"\0\0")
    if marker == _APP14 and data.startswith(b"Adobe") and len(data) >= _ADOBE_HEADER:
        return _segment(marker, data[:_ADOBE_HEADER])
    if _APP0 <= marker <= _APP0 + 15 or marker == _COM:
        return b""
    return segment


def _segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def _scan_end(content: bytes, place: int) -> int:
    """Return where the entropy-coded data of a scan end: at the next marker that is no restart and no stuffed zero."""
    while True:
        place = content.index(b"\xff", place)
        if content[place + 1] != 0 and content[place + 1] not in _STANDALONE and content[place + 1] != 0xFF:
            return place
        place += 1 if content[place + 1] == 0xFF else 2
