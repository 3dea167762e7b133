"""Inflate a DICOM file of the transfer syntax Deflated Explicit VR Little Endian (PS3.5 A.5)."""

import struct
import zlib
from pathlib import Path

from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_file_meta_info
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import ExplicitVRLittleEndian

from exchange import ExchangeError

LARGEST = 2**31
"""A data set that would be inflated to more bytes is refused: a small file may ask for any size."""

_PREFIX = 132
_GROUP_LENGTH = struct.Struct("<HH2sHL")  # (0002,0000), UL, of 4 bytes


def inflate(path: Path, inflated: Path, *, largest: int = LARGEST) -> Path:
    """Write a deflated file as Explicit VR Little Endian.

    Args:
        path: The deflated file.
        inflated: The file to write.
        largest: The most bytes that its data set may have.

    Returns:
        `inflated`.

    Raises:
        ExchangeError: It can't be inflated.
        OSError: It can't be read or written.
    """
    content = path.read_bytes()
    damaged = ExchangeError(path, "its deflated data are damaged", "copy it again from its source")
    try:
        group, element, vr, _, length = _GROUP_LENGTH.unpack_from(content, _PREFIX)
        stream = zlib.decompressobj(-zlib.MAX_WBITS)
        dataset = stream.decompress(content[_PREFIX + _GROUP_LENGTH.size + length :], largest)
    except (struct.error, zlib.error) as error:
        raise damaged from error
    if (group, element, vr) != (2, 0, b"UL") or not (stream.eof or stream.unconsumed_tail):
        raise damaged
    if not stream.eof:
        raise ExchangeError(path, f"would be inflated to more than {largest} bytes", "check the file")
    meta = read_file_meta_info(path)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header = DicomBytesIO()
    write_file_meta_info(header, meta, enforce_standard=False)
    with inflated.open("xb") as file:
        file.write(bytes(128) + b"DICM")
        file.write(header.getvalue())
        file.write(dataset)
    return inflated
