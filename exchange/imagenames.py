"""Names of images as detection files write them: from any system, and from anybody."""

import re
from dataclasses import dataclass
from typing import Protocol

from embedder.manifestrules import LONGEST_TEXT
from exchange import ExchangeError

IMAGE_SUFFIXES = frozenset({".dcm", ".dicom", ".png", ".jpg", ".jpeg", ".pgm", ".ppm", ".pnm", ".tif", ".tiff"})
"""Suffixes of files that may be mammograms."""

_DRIVE = re.compile(r"[A-Za-z]:")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_SHOWN = 120


class _File(Protocol):
    @property
    def path(self) -> str: ...

    @property
    def relative(self) -> str: ...


@dataclass(frozen=True)
class NamedPath:
    """A name, cut at its slashes.

    Attributes:
        text: Its parts, joined by slashes; with one in front where it is absolute.
        absolute: It began at the root of a system, or with a drive's letter.
        folders: The folders that it names.
        name: The last part.
        stem: The last part without the suffix of an image.
        shown: The name as an error shows it.
    """

    text: str
    absolute: bool
    folders: tuple[str, ...]
    name: str
    stem: str
    shown: str

    def agreeing_folders(self, file: _File) -> int | None:
        """Return how many folders, counted from the last, this name and a file's path share.

        None where they contradict each other: neither is the name a tail of the file's path, nor is the file's whole
        path below its root a tail of the name. Only folders are compared, not the file's own name.
        """
        theirs = file.path.split("/")[:-1]
        count = 0
        while count < min(len(self.folders), len(theirs)) and self.folders[-1 - count] == theirs[-1 - count]:
            count += 1
        if count == len(self.folders) or count >= file.relative.count("/"):
            return count
        return None


def parse_name(name: str) -> NamedPath:
    r"""Cut a name into its parts; backslashes are slashes.

    Raises:
        ExchangeError: It is empty, too long, holds control characters, or climbs by `..`.

    >>> parse_name("C:\\films\\mdb001.pgm").folders
    ('films',)
    >>> parse_name("../../etc/passwd")
    Traceback (most recent call last):
        ...
    exchange.ExchangeError: '../../etc/passwd': climbs out of its folder by ..; write the path below it
    """
    shown = repr(name if len(name) <= _SHOWN else f"{name[:_SHOWN]}...")
    if len(name) > LONGEST_TEXT:
        raise ExchangeError(shown, f"has {len(name)} characters, more than any path", "name one image")
    if _CONTROL.search(name):
        raise ExchangeError(shown, "contains a control character", "write the image's name without it")
    posix = name.strip().replace("\\", "/")
    drive = _DRIVE.match(posix)
    if drive is not None:
        posix = posix[drive.end() :]
    absolute = posix.startswith("/") and drive is None
    parts = [part for part in posix.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ExchangeError(shown, "climbs out of its folder by ..", "write the path below it")
    if not parts:
        raise ExchangeError(shown, "names no image", "name one")
    text = ("/" if absolute else "") + "/".join(parts)
    return NamedPath(text, absolute, tuple(parts[:-1]), parts[-1], stem_of(parts[-1]), shown)


def stem_of(name: str) -> str:
    """Return a file's name without the suffix of an image; other dots, as a UID has, stay.

    >>> stem_of("mdb001.PGM"), stem_of("1.2.840.5"), stem_of("scan.v2.dcm")
    ('mdb001', '1.2.840.5', 'scan.v2')
    """
    stem, dot, suffix = name.rpartition(".")
    return stem if stem and f"{dot}{suffix}".lower() in IMAGE_SUFFIXES else name
