"""The images that the server may show: those of its folders, the gallery's own, and those that detections lie on.

An image has an opaque id. Ids that are asked for are looked up, never made into paths, so that no address leads
anywhere else; a link that leads out of a folder of images is not followed, when the folder is listed nor when the image
is opened.
"""

import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from exchange import ExchangeError
from exchange.imagefolders import list_images
from index.gallery import Gallery
from viewer.galleryimages import GalleryImages
from viewer.imagedetails import ImageDetails, read_details, stamp_of
from viewer.marks import Mark, read_marks
from viewer.problems import BusyError, NotFoundError, sayable
from viewer.settings import ServeConfig
from viewer.studies import Study, group_studies

_READERS = 4
_REFRESH_S = 60.0
_TOLD = 5  # files and rows that can't be shown, at each look


def image_id(path: str, frame: int | None = None) -> str:
    """Return an image's id: 16 hex that say nothing of where it lies.

    Args:
        path: The file, links followed.
        frame: Which image of a multi-frame file, from 1; None where there is only one.
    """
    said = f"{path}#{frame or 1}".encode("utf-8", "surrogateescape")
    return hashlib.sha256(said).hexdigest()[:16]


@dataclass(frozen=True)
class ImageEntry:
    """One image that may be shown.

    Attributes:
        image: Its id.
        path: The file, links followed.
        frame: Which image of a multi-frame file, from 1; None where there is only one.
        name: What the page calls it: the file's name below its folder.
        dataset: Where its woman's id is unique.
        listed: It lies in a folder of images or has detections, and belongs to the worklist.
        rows: Positions of the gallery's rows on it.
        details: What file and gallery say of it; None where nobody has looked yet.
        marks: The detections on it.
        problem: Why its header can't be read; None where it can.
        tried: When the file was last changed and its bytes, as its header could not be read.
    """

    image: str
    path: str
    frame: int | None
    name: str
    dataset: str
    listed: bool = False
    rows: tuple[int, ...] = ()
    details: ImageDetails | None = field(default=None, repr=False)
    marks: tuple[Mark, ...] = field(default=(), repr=False)
    problem: str | None = None
    tried: tuple[int, int] | None = None


class Catalogue:
    """All images that may be shown, and the studies of the worklist.

    Folders are listed at once; headers are read by `load`, which the server calls in the background, and of a single
    image when it is asked for.

    Args:
        gallery: The gallery.
        folders: Folders of images, looked through with all folders below them.
        tables: Files of detections.
        names_shown: Whether names of patients are kept at all.
        say: Told which files and rows can't be shown, and why.

    Raises:
        ExchangeError: A folder or table is not there.
    """

    def __init__(
        self,
        gallery: Gallery,
        folders: Sequence[Path] = (),
        tables: Sequence[Path] = (),
        *,
        names_shown: bool = False,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._gallery, self._tables, self._names_shown, self._say = gallery, tuple(tables), names_shown, say
        self._roots = [_root(folder) for folder in folders]
        for table in self._tables:
            if not table.exists():
                raise ExchangeError(table, "there is no such file of detections", "check its name")
        self._lock = threading.Lock()
        self._entries: dict[str, ImageEntry] = {}
        self._studies: dict[str, Study] = {}
        self._study_of: dict[str, str] = {}
        self._loaded = threading.Event()
        self._stop = threading.Event()
        self._done = self._all = 0
        self.problems: tuple[tuple[str, str], ...] = ()
        self._of_tables: list[tuple[str, str]] = []
        self._listed()
        self.gallery_images = GalleryImages(gallery, {entry.path: entry.name for entry in self._entries.values()})
        self._add_gallery()

    @classmethod
    def open(cls, config: ServeConfig, gallery: Gallery, say: Callable[[str], None] = lambda _: None) -> "Catalogue":
        """List what a configuration names.

        Args:
            config: Folders and tables.
            gallery: What is asked.
            say: Told which files and rows can't be shown, and why.

        Raises:
            ExchangeError: A folder or table is not there.
        """
        return cls(gallery, config.images, config.detections, names_shown=config.names_shown, say=say)

    def __len__(self) -> int:
        return len(self._entries)

    def entry(self, image: str) -> ImageEntry:
        """Return an image.

        Raises:
            NotFoundError: There is none of this id.
        """
        found = self._entries.get(image)
        if found is None:
            raise NotFoundError("image", "there is none of this id", "reload the worklist")
        return found

    def detailed(self, image: str) -> ImageEntry:
        """Return an image with what its file says; the header is read where nobody has yet, or the file has changed.

        Raises:
            NotFoundError: There is none of this id, or the file is gone.
            MammogramError: The file can't be read.
        """
        entry = self.entry(image)
        self.check_place(entry)
        if entry.details is not None and entry.details.stamp == stamp_of(entry.path):
            return entry
        details = self._details(entry)
        with self._lock:
            entry = replace(self._entries[image], details=details, problem=None)
            self._entries[image] = entry
        return entry

    def check_place(self, entry: ImageEntry) -> None:
        """Refuse a file that has become a link to another place since it was listed.

        Raises:
            NotFoundError: It has, or it is gone.
        """
        if not os.path.isfile(entry.path) or os.path.realpath(entry.path) != entry.path:  # noqa: PTH113 - of every tile
            raise NotFoundError(f"image {entry.image}", "its file is gone", "reload the worklist")

    def of_row(self, position: int) -> ImageEntry | None:
        """Return the image of a row of the gallery; None where it is not here."""
        image = self.gallery_images.image_of(position)
        return None if image is None else self._entries.get(image)

    def of_path(self, path: str, frame: int | None = None) -> ImageEntry | None:
        """Return the image of a file; None where it is not to be shown."""
        return self._entries.get(image_id(os.path.realpath(path), frame))

    def studies(self, patience_s: float = 0.0) -> Mapping[str, Study]:
        """Return the studies by their ids.

        Args:
            patience_s: How long to wait for headers that are still being read.

        Raises:
            BusyError: They are still being read.
        """
        if not self._loaded.wait(patience_s):
            raise BusyError(
                "worklist", f"headers are still being read: {self._done} of {self._all} images", "ask again soon", 2
            )
        return self._studies

    def study(self, study: str, patience_s: float = 0.0) -> Study:
        """Return one study.

        Raises:
            NotFoundError: There is none of this id.
            BusyError: Headers are still being read.
        """
        found = self.studies(patience_s).get(study)
        if found is None:
            raise NotFoundError("study", "there is none of this id", "reload the worklist")
        return found

    def study_of(self, image: str) -> str | None:
        """Return the study of an image; None where it has none, or where that is not known yet."""
        return self._study_of.get(image)

    def load(self) -> None:
        """Read the detections and the headers of all images of the worklist, and group them into studies.

        A file that can't be read costs itself alone: `problems` names it.
        """
        entries = dict(self._entries)
        problems: list[tuple[str, str]] = []
        for table in self._tables:
            problems += self._add_marks(entries, table)
        if not self._roots and not self._tables:  # a gallery by itself: its own women are looked at
            entries = {image: replace(entry, listed=bool(entry.rows)) for image, entry in entries.items()}
        elif not any(entry.listed for entry in entries.values()):
            self._say(f"No images in {', '.join(map(str, (*self._roots, *self._tables)))}")
        wanted = [entry for entry in entries.values() if entry.listed and entry.details is None]
        self._done, self._all = 0, len(wanted)
        with ThreadPoolExecutor(_READERS, thread_name_prefix="mammoseek-headers") as pool:
            for entry in pool.map(self._described, wanted):
                self._done += 1
                entries[entry.image] = entry
        self._of_tables = problems
        self._take(entries)
        self._loaded.set()

    def refresh(self) -> None:
        """Take in what was added to the folders or changed in them since, and leave out what is gone."""
        before = self._entries
        entries: dict[str, ImageEntry] = {image: one for image, one in before.items() if one.rows or one.marks}
        for path, name, dataset in self._files():
            image = image_id(path)
            old = before.get(image) or ImageEntry(image, path, None, name, dataset, listed=True)
            entries[image] = old if _is_known(old) else self._described(old)
        if entries != before:
            self._take(entries)

    def keep_fresh(self) -> None:
        """Load, and look into the folders again every minute until `stop`."""
        self.load()
        while self._roots and not self._stop.wait(_REFRESH_S):
            self.refresh()

    def stop(self) -> None:
        """End `keep_fresh`."""
        self._stop.set()

    def _take(self, entries: dict[str, ImageEntry]) -> None:
        of_files = [(one.name, one.problem) for one in entries.values() if one.listed and one.problem is not None]
        problems = tuple((sayable(name), sayable(cause)) for name, cause in (*self._of_tables, *of_files))
        before = set(self.problems)
        new = [problem for problem in problems if problem not in before]
        for name, cause in new[:_TOLD]:
            self._say(f"Not shown: {name}: {cause}")
        if len(new) > _TOLD:
            self._say(f"Not shown: {len(new) - _TOLD} more")
        self.problems = problems
        studies = group_studies([entry for entry in entries.values() if entry.listed and entry.details is not None])
        with self._lock:
            self._entries = entries
            self._studies = {study.study: study for study in studies}
            self._study_of = {image.image: study.study for study in studies for image in study.images}

    def _files(self) -> Iterable[tuple[str, str, str]]:
        """Yield the path, the name below its folder and the data set of each file of the folders."""
        for root in self._roots:
            inside = str(root).rstrip("/") + "/"
            folders: dict[str, str] = {}
            for path, relative in list_images(root):
                folder, _, name = path.rpartition("/")
                if folder not in folders:
                    folders[folder] = os.path.realpath(folder)
                real = f"{folders[folder]}/{name}"
                if real.startswith(inside):  # a link that leads out of the folder is not followed
                    yield real, sayable(relative), sayable(root.name or "images")

    def _listed(self) -> None:
        for path, name, dataset in self._files():
            image = image_id(path)
            self._entries.setdefault(image, ImageEntry(image, path, None, name, dataset, listed=True))

    def _add_gallery(self) -> None:
        for place in self.gallery_images.places:
            old = self._entries.get(place.image)
            if old is not None:
                self._entries[place.image] = replace(old, rows=place.rows)
            else:
                name = sayable(place.path.rpartition("/")[2])
                self._entries[place.image] = ImageEntry(
                    place.image, place.path, place.frame, name, place.dataset, rows=place.rows
                )

    def _add_marks(self, entries: dict[str, ImageEntry], table: Path) -> list[tuple[str, str]]:
        try:
            marks, problems = read_marks(table, self._roots, self._gallery)
        except Exception as error:  # as in `_described`
            return [(table.name, getattr(error, "cause", None) or type(error).__name__)]
        for path, frame, dataset, found in marks:
            image = image_id(path, frame)
            old = entries.get(image) or ImageEntry(image, path, frame, sayable(path.rpartition("/")[2]), dataset)
            entries[image] = replace(old, listed=True, marks=(*old.marks, *found))
        return problems

    def _described(self, entry: ImageEntry) -> ImageEntry:
        stamp = _stamp(entry.path)
        try:
            return replace(entry, details=self._details(entry), problem=None)
        except Exception as error:  # whatever a hostile file leads a reader to: it costs this file alone
            cause = str(getattr(error, "cause", None) or type(error).__name__)
            return replace(entry, details=None, problem=cause.replace(entry.path, "it"), tried=stamp)

    def _details(self, entry: ImageEntry) -> ImageDetails:
        record: dict[str, Any] | None = self._gallery.record(entry.rows[0]) if entry.rows else None
        return read_details(entry.path, record, entry.marks[0] if entry.marks else None, names=self._names_shown)


def _is_known(entry: ImageEntry) -> bool:
    """Tell whether what is known of an image is of its file as it is now."""
    stamp = _stamp(entry.path)
    return stamp == (entry.details.stamp if entry.details is not None else entry.tried) and stamp is not None


def _stamp(path: str) -> tuple[int, int] | None:
    try:
        return stamp_of(path)
    except OSError:
        return None  # it is being replaced, or gone


def _root(folder: Path) -> Path:
    try:
        root = folder.resolve(strict=True)
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: a loop of links
        raise ExchangeError(folder, "there is no such folder of images", "check its name") from error
    if not root.is_dir():
        raise ExchangeError(folder, "is no folder", "name the folder that holds the images")
    return root
