"""Open a file that holds a structured report, whatever it claims of its own size."""

import io
import os
import stat
import zlib
from pathlib import Path
from typing import Any

import pydicom.uid as uid
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset

from embedder.quiet import quiet_libraries
from exchange import ExchangeError

MAXIMUM_BYTES = 32 * 2**20
"""Bytes of a report, inflated: reports of mammography CAD have some ten kilobytes to a few megabytes."""

MAXIMUM_SEQUENCE_ITEMS = 150_000
"""Items of all its sequences, of which a content item has two or three. pydicom makes some 15,000 a second."""

_PREAMBLE = 128
_HEAD = _PREAMBLE + 4 + 12  # the preamble, DICM, and the element that tells the length of the rest of group 0002
_GROUP_LENGTH = b"\x02\x00\x00\x00UL\x04\x00"
_UNDEFINED = 0xFFFFFFFF
_COPY_AGAIN = "copy it again from its source"


def read_sr_file(path: Path) -> Dataset:
    """Read the data set of an SR document from a DICOM file (PS3.10), deflated or not.

    Values are converted when they are asked for: a caller reads them under `embedder.quiet.quiet_libraries`.

    Raises:
        ExchangeError: It is no DICOM file, is cut short, or is larger than a report can be.
    """
    content = _content(path)
    if content[_PREAMBLE : _PREAMBLE + 4] != b"DICM" or content[_PREAMBLE + 4 :][:8] != _GROUP_LENGTH:
        raise ExchangeError(path, "it is not a DICOM file", "give DICOM structured reports only")
    start = _HEAD + int.from_bytes(content[_HEAD - 4 : _HEAD], "little")
    try:
        with quiet_libraries():
            meta = read_dataset(io.BytesIO(content[_HEAD:start]), is_implicit_VR=False, is_little_endian=True)
            syntax = str(meta.get("TransferSyntaxUID", ""))
    except Exception as error:  # a damaged file makes pydicom raise of many kinds, which mean the same here
        raise ExchangeError(path, "its file meta information is damaged", _COPY_AGAIN) from error
    body = content[start:]
    if syntax == uid.DeflatedExplicitVRLittleEndian:
        body = _inflate(path, body)
    elif syntax not in (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian):
        name = uid.UID(syntax).name if syntax else "missing"
        raise ExchangeError(path, f"its transfer syntax is {name}", "convert it to Explicit VR Little Endian")
    little = syntax != uid.ExplicitVRBigEndian
    # Every item begins with its tag, so this counts at least as many as there are before any of them is made.
    if body.count(b"\xfe\xff\x00\xe0" if little else b"\xff\xfe\xe0\x00") > MAXIMUM_SEQUENCE_ITEMS:
        raise ExchangeError(
            path, f"it has more than {MAXIMUM_SEQUENCE_ITEMS:,} items", "ask its maker for a smaller one"
        )
    try:
        with quiet_libraries():
            dataset = read_dataset(io.BytesIO(body), syntax == uid.ImplicitVRLittleEndian, little)
        whole = _is_whole(dataset)
    except Exception as error:  # as above
        raise ExchangeError(path, "it is cut short or damaged", _COPY_AGAIN) from error
    if not whole:
        raise ExchangeError(path, "it is cut short or damaged", _COPY_AGAIN)
    return dataset


def _content(path: Path) -> bytes:
    try:
        with io.FileIO(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ExchangeError(path, "it is no plain file", "give a DICOM file")
            content = file.read(MAXIMUM_BYTES + 1) or b""
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise ExchangeError(path, f"can't be read ({getattr(error, 'strerror', None) or error})") from error
    if not content:
        raise ExchangeError(path, "it is empty", _COPY_AGAIN)
    if len(content) > MAXIMUM_BYTES:
        raise _too_large(path)
    return content


def _too_large(path: Path) -> ExchangeError:
    return ExchangeError(
        path, f"it has more than {MAXIMUM_BYTES // 2**20} MiB", "no report is so large: give structured reports only"
    )


def _inflate(path: Path, deflated: bytes) -> bytes:
    """Inflate a deflated data set (PS3.5 A.5), and stop where it grows beyond what a report can be."""
    inflater = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
    try:
        body = inflater.decompress(deflated, MAXIMUM_BYTES + 1)
    except zlib.error as error:
        raise ExchangeError(path, "its deflated data set is damaged", _COPY_AGAIN) from error
    if len(body) > MAXIMUM_BYTES:
        raise _too_large(path)
    if not inflater.eof:
        raise ExchangeError(path, "it is cut short or damaged", _COPY_AGAIN)
    return body


def _is_whole(dataset: Dataset) -> bool:
    """Tell whether every value of a data set has the length that was declared for it."""
    # As they lie in the file: iterating over the data set itself would convert them.
    raws: list[Any] = [dataset.get_item(tag) for tag in dataset.keys()]  # noqa: SIM118
    return all(
        len(raw.value or b"") == raw.length
        for raw in raws
        if isinstance(raw, RawDataElement) and raw.length != _UNDEFINED
    )
