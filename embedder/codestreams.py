"""Look into compressed DICOM pixel data without decoding them: are they whole, and as large as declared?

A decoder believes the size in the compressed stream: a small file may ask it for gigabytes. And decoders fill
what is missing of a truncated stream with grey. Both are found here, before one is called.
"""

import struct
from dataclasses import dataclass
from typing import BinaryIO

_ITEM = 0xE000
_SEQUENCE_END = 0xE0DD
_UNDEFINED = 0xFFFFFFFF
_END_OF_IMAGE = b"\xff\xd9"  # JPEG and JPEG-LS: EOI; JPEG 2000: EOC
_SOC_SIZ = b"\xff\x4f\xff\x51"
_STANDALONE = {0x01, *range(0xD0, 0xD9)}
_FRAME_HEADERS = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}


class StreamError(ValueError):
    """Compressed pixel data that are cut short or contradict the file."""


@dataclass(frozen=True)
class Fragment:
    """One fragment of encapsulated pixel data (PS3.5 A.4).

    Attributes:
        start: Where its bytes start in the file.
        length: How many they are.
    """

    start: int
    length: int


def find_fragments(file: BinaryIO, start: int, size: int) -> list[Fragment]:
    """List the fragments of encapsulated pixel data; the first is the offset table.

    Args:
        file: The file.
        start: Where the value of Pixel Data starts.
        size: Bytes in the file.

    Raises:
        StreamError: The data end before they should, or are no fragments.
    """
    fragments: list[Fragment] = []
    place = start
    while True:
        file.seek(place)
        header = file.read(8)
        if len(header) < 8:
            raise StreamError("its pixel data are cut short")
        group, element, length = struct.unpack("<HHL", header)
        if group == 0xFFFE and element == _SEQUENCE_END:
            return fragments
        if group != 0xFFFE or element != _ITEM or length == _UNDEFINED:
            raise StreamError("its pixel data are damaged")
        place += 8 + length
        if place > size:
            raise StreamError("its pixel data are cut short")
        fragments.append(Fragment(place - length, length))


def check_streams(file: BinaryIO, fragments: list[Fragment], rows: int, columns: int) -> None:
    """Check JPEG, JPEG-LS or JPEG 2000 streams against the file's header.

    Args:
        file: The file.
        fragments: As of `find_fragments`.
        rows: Rows that the file declares.
        columns: Columns that the file declares.

    Raises:
        StreamError: A stream does not end, is damaged, or has another size.
    """
    data = [fragment for fragment in fragments[1:] if fragment.length]
    if not data:
        raise StreamError("it has no pixel data")
    for number, fragment in enumerate(data):
        stream_size = _stream_size(file, fragment)
        if stream_size is None:
            # A stream may be split into fragments: only the first of them has a header.
            if number == 0:
                raise StreamError("its compressed pixel data have no header")
            continue
        if stream_size != (rows, columns):
            raise StreamError(
                f"its compressed pixel data are {stream_size[1]} × {stream_size[0]} pixels"
                f" and its header says {columns} × {rows}"
            )
    file.seek(max(data[-1].start, data[-1].start + data[-1].length - 64))
    tail = file.read(min(64, data[-1].length)).rstrip(b"\0")
    if not tail.endswith(_END_OF_IMAGE):
        raise StreamError("its compressed pixel data are cut short")


def _stream_size(file: BinaryIO, fragment: Fragment) -> tuple[int, int] | None:
    """Return rows and columns as a stream's own header says; None where no stream starts in this fragment."""
    file.seek(fragment.start)
    start = file.read(min(4096, fragment.length))
    codestream = start.find(_SOC_SIZ)  # not always at 0: some writers wrap it into a JP2 file
    if codestream == 0 or (codestream > 0 and start[4:8] == b"jP  "):
        return _jpeg2000_size(start[codestream + 4 :])
    if start[:3] == b"\xff\xd8\xff":
        return _jpeg_size(file, fragment)
    return None


def _jpeg2000_size(segment: bytes) -> tuple[int, int] | None:
    """Read the SIZ marker segment (ISO/IEC 15444-1 A.5.1)."""
    if len(segment) < 20:
        return None
    width, height, left, top = struct.unpack(">4L", segment[4:20])
    return height - top, width - left


def _jpeg_size(file: BinaryIO, fragment: Fragment) -> tuple[int, int] | None:
    """Read the frame header of JPEG (ISO/IEC 10918-1 B.2.2) or JPEG-LS (ISO/IEC 14495-1 C.2.2)."""
    place, end = fragment.start + 2, fragment.start + fragment.length
    while place + 9 <= end:
        file.seek(place)
        segment = file.read(9)
        if len(segment) < 9 or segment[0] != 0xFF:
            return None
        marker = segment[1]
        if marker == 0xFF or marker in _STANDALONE:
            place += 1 if marker == 0xFF else 2
            continue
        length = int.from_bytes(segment[2:4], "big")
        if marker in _FRAME_HEADERS:
            rows, columns = struct.unpack(">HH", segment[5:9])
            return rows, columns
        if marker == 0xDA or length < 2:
            return None
        place += 2 + length
    return None
