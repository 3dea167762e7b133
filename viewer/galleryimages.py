"""Which image each row of the gallery is on, as far as the image is on this machine."""

import os
import stat
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from index.gallery import Gallery


@dataclass(frozen=True)
class GalleryPlace:
    """An image of the gallery that is here.

    Attributes:
        image: Its id.
        path: The file, links followed.
        frame: Which image of a multi-frame file, from 1; None where there is only one.
        dataset: Its woman's data set.
        rows: Positions of the rows on it.
    """

    image: str
    path: str
    frame: int | None
    dataset: str
    rows: tuple[int, ...]


class GalleryImages:
    """The images of a gallery's rows.

    A gallery that names files without their folders is matched by file name, where one file of the folders of images
    has it and one name of the gallery does.

    Args:
        gallery: The gallery.
        listed: Files of the folders of images, with their names below these.
    """

    def __init__(self, gallery: Gallery, listed: Mapping[str, str]) -> None:
        from viewer.catalogue import image_id

        self._images: list[str | None] = []
        self._code_of: npt.NDArray[np.int64] = np.full(len(gallery), -1, np.int64)
        self.places: tuple[GalleryPlace, ...] = ()
        if not len(gallery) or "path" not in gallery.table:
            return
        column = gallery.table.column("path")
        if column.codes is None:
            return
        files = _files_here([str(path) for path in column.distinct], listed)
        frames = _frames(gallery)
        keys = np.stack([column.codes.astype(np.int64), frames], axis=1)
        distinct, self._code_of = np.unique(keys, axis=0, return_inverse=True)
        self._code_of = self._code_of.reshape(-1).astype(np.int64)
        order = np.argsort(self._code_of, kind="stable")
        starts = np.searchsorted(self._code_of[order], np.arange(len(distinct) + 1))
        places: dict[str, GalleryPlace] = {}
        for number, (code, frame) in enumerate(distinct.tolist()):
            path = None if code < 0 else files[code]
            if path is None:
                self._images.append(None)
                continue
            rows = tuple(order[starts[number] : starts[number + 1]].tolist())
            which = frame or None
            image = image_id(path, which)
            self._images.append(image)
            known = places.get(image)
            dataset = str(gallery.table.cell("dataset", rows[0]))
            places[image] = GalleryPlace(
                image, path, which, dataset, tuple(sorted((*known.rows, *rows))) if known is not None else rows
            )
        self.places = tuple(places.values())

    def image_of(self, position: int) -> str | None:
        """Return the image that a row is on; None where it is not here."""
        code = int(self._code_of[position])
        return self._images[code] if 0 <= code < len(self._images) else None


def _frames(gallery: Gallery) -> npt.NDArray[np.int64]:
    """Return the frame of each row, int64 (n,); 0 where its image has only one."""
    if "frame" not in gallery.table:
        return np.zeros(len(gallery), np.int64)
    column = gallery.table.column("frame")
    if column.codes is not None or not column.known:
        return np.zeros(len(gallery), np.int64)
    return np.where(column.missing, 0, np.nan_to_num(np.asarray(column.cells, np.float64))).astype(np.int64)


def _files_here(paths: list[str], listed: Mapping[str, str]) -> list[str | None]:
    """Return for each of the gallery's paths the file that is here, links followed; None where there is none."""
    by_name: dict[str, list[str]] = {}
    for file in listed:
        by_name.setdefault(file.rpartition("/")[2], []).append(file)
    wanted = Counter(path.rpartition("/")[2] for path in paths)
    folders: dict[str, str] = {}
    found: list[str | None] = []
    for path in paths:
        folder, _, name = path.rpartition("/")
        real = _real(path, folder, name, folders) if path.startswith("/") else None
        if real is None and wanted[name] == 1 and len(by_name.get(name, ())) == 1:
            real = by_name[name][0]
        found.append(real)
    return found


def _real(path: str, folder: str, name: str, folders: dict[str, str]) -> str | None:
    try:
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode):
            return os.path.realpath(path) if os.path.isfile(path) else None  # noqa: PTH113 - of thousands of paths
        if not stat.S_ISREG(status.st_mode):
            return None
    except (OSError, ValueError):
        return None
    if folder not in folders:
        folders[folder] = os.path.realpath(folder)
    return f"{folders[folder].rstrip('/')}/{name}"
