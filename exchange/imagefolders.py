"""The files of a folder that may be mammograms."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from exchange.imagenames import IMAGE_SUFFIXES

_NUMBERED_SUFFIX = re.compile(r"\.\d+")


def list_images(root: Path) -> Iterator[tuple[str, str]]:
    """Yield the path of each file below a folder that may be an image, and the same below the folder, sorted.

    Files without a suffix, or with a number for one as a UID has, may be DICOM. A folder that links lead to twice, or
    in a loop, is listed once.
    """
    seen: set[tuple[int, int]] = set()
    for folder, below, files in os.walk(root, followlinks=True):
        try:
            status = os.stat(folder)  # noqa: PTH116 - as os.walk
        except OSError:
            below[:] = []
            continue
        if (status.st_dev, status.st_ino) in seen:
            below[:] = []
            continue
        seen.add((status.st_dev, status.st_ino))
        below[:] = sorted(name for name in below if not name.startswith("."))
        prefix = folder[len(str(root)) :].strip("/")
        for name in sorted(files):
            suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122 - as os.walk
            if name.startswith(".") or not _may_be_image(suffix):
                continue
            path = f"{folder}/{name}"
            if os.path.islink(path):  # noqa: PTH114 - as os.walk
                path = os.path.realpath(path)
            yield path, f"{prefix}/{name}" if prefix else name


def _may_be_image(suffix: str) -> bool:
    return suffix in IMAGE_SUFFIXES or not suffix or _NUMBERED_SUFFIX.fullmatch(suffix) is not None
