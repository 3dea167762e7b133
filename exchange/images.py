"""Which image a name in a detection file means: its file, its woman, side, view and scale."""

import os
import re
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pydicom.filereader import read_file_meta_info

from embedder.mammogram import read_header
from embedder.quiet import quiet_libraries
from errors import MammoseekError
from exchange import ExchangeError
from exchange.imagefacts import ImageFacts, completed, known_woman, manifest_images
from exchange.imagefolders import list_images
from exchange.imagenames import NamedPath, parse_name, stem_of
from exchange.text import TextError, clean_text

__all__ = ["ImageCatalogue", "ImageFacts", "Progress", "manifest_images"]

_READERS = 8
_SHOWN = 3
_UID = re.compile(r"[0-2](\.\d+)+")  # PS3.5 chapter 9

Progress = Callable[[int, int], None]
"""Called with images done and images in all."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """A file of the catalogue: where it lies below its root, and what was known before its header is read."""

    path: str
    relative: str
    dataset: str
    known: ImageFacts | None


class ImageCatalogue:
    """The images that detections may lie on, found by path, file name, stem or SOP Instance UID.

    A name is only compared with the names of listed files; no path is ever built from it, so none leads elsewhere.
    Files are listed at once; headers are read when an image is asked for, and those of all files only when a SOP
    Instance UID is.

    Args:
        known: Images that a manifest describes (`manifest_images`). They need not be there to be found. What it says
            of side, view and scale goes before what the file says; the image's size is the file's.
        folders: Folders of images, looked through with all folders below them. Hidden files are left out.
        dataset: The data set of the women in the folders; the name of the folder unless given.
        patient_from_name: A regular expression with one group, searched in the path below the folder, that gives
            the woman of an image whose header does not name her.

    Raises:
        ExchangeError: A folder can't be listed, or the expression or the data set's name is wrong.
    """

    def __init__(
        self,
        known: Iterable[ImageFacts] = (),
        folders: Sequence[Path] = (),
        *,
        dataset: str | None = None,
        patient_from_name: str | None = None,
    ) -> None:
        self._patient_rule = _patient_rule(patient_from_name)
        self._dataset = dataset
        self._entries: list[_Entry] = []
        self._paths: dict[str, int] = {}
        self._relative: dict[str, list[int]] = {}
        self._names: dict[str, list[int]] = {}
        self._stems: dict[str, list[int]] = {}
        self._facts: dict[int, ImageFacts | ExchangeError] = {}
        self._uids: dict[str, list[int]] | None = None
        self._below: dict[str, list[int]] | None = None
        self._lock = threading.Lock()
        if dataset is not None:
            _checked_dataset(dataset)
        self._add_known(list(known))
        for folder in folders:
            self._add_folder(Path(folder))

    def __len__(self) -> int:
        return len(self._entries)

    def look_up(self, names: Iterable[str], progress: Progress | None = None) -> dict[str, ImageFacts | ExchangeError]:
        """Return what is known of the image that each name means, or why it can't be used; headers by threads."""
        found: dict[str, int | ExchangeError] = {}
        for name in dict.fromkeys(names):
            try:
                found[name] = self._find(name)
            except ExchangeError as error:
                found[name] = error
        wanted = list(dict.fromkeys(place for place in found.values() if isinstance(place, int)))
        with ThreadPoolExecutor(_READERS) as pool:
            for done, _ in enumerate(pool.map(self._read, wanted), 1):
                if progress is not None:
                    progress(done, len(wanted))
        return {name: self._facts[place] if isinstance(place, int) else place for name, place in found.items()}

    def image(self, name: str) -> ImageFacts:
        """Return what is known of the image that a name means.

        Raises:
            ExchangeError: No image, or several, have that name; or its header can't be read.
        """
        facts = self.look_up([name])[name]
        if isinstance(facts, ExchangeError):
            raise facts
        return facts

    def only_below(self, folder: str) -> ImageFacts:
        """Return what is known of the one image that lies in a folder of this name, or anywhere below it.

        Raises:
            ExchangeError: None or several do, or its header can't be read.
        """
        with self._lock:
            if self._below is None:
                below: dict[str, list[int]] = {}
                for place, entry in enumerate(self._entries):
                    for name in set(entry.path.split("/")[:-1]):
                        below.setdefault(name, []).append(place)
                self._below = below
        parsed = parse_name(folder)
        places = self._below.get(parsed.name, [])
        if not places:
            raise ExchangeError(parsed.shown, "no folder of this name holds an image", "check the folder of images")
        place = self._only(parsed, places)
        self._read(place)
        facts = self._facts[place]
        if isinstance(facts, ExchangeError):
            raise facts
        return facts

    def _add_known(self, known: list[ImageFacts]) -> None:
        if not known:
            return
        parents = {os.path.dirname(facts.path) for facts in known}  # noqa: PTH120 - 100,000 Path objects are slow
        try:
            root = os.path.commonpath(parents)
        except ValueError:  # several drives
            root = ""
        for facts in known:
            relative = facts.path[len(root) :].lstrip("/") if root else facts.path
            self._add(_Entry(facts.path, relative, facts.dataset, facts))

    def _add_folder(self, folder: Path) -> None:
        try:
            root = folder.resolve(strict=True)
            if not root.is_dir():
                raise ExchangeError(folder, "is no folder", "name the folder that holds the images")
        except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: a loop of links
            reason = getattr(error, "strerror", None) or str(error)
            raise ExchangeError(
                folder, f"can't be opened ({reason})", "name the folder that holds the images"
            ) from error
        dataset = self._dataset or _folder_dataset(root)
        for path, relative in list_images(root):
            self._add(_Entry(path, relative, dataset, None))

    def _add(self, entry: _Entry) -> None:
        if entry.path in self._paths:
            # Two folders that overlap, or a manifest of files in the folder: one image, under one more name.
            place = self._paths[entry.path]
            places = self._relative.setdefault(entry.relative, [])
            if place not in places:
                places.append(place)
            return
        place = len(self._entries)
        self._entries.append(entry)
        self._paths[entry.path] = place
        self._relative.setdefault(entry.relative, []).append(place)
        name = entry.path.rpartition("/")[2]
        self._names.setdefault(name, []).append(place)
        self._stems.setdefault(stem_of(name), []).append(place)

    def _find(self, name: str) -> int:
        parsed = parse_name(name)
        if parsed.absolute and parsed.text in self._paths:
            return self._paths[parsed.text]
        exact = self._relative.get(parsed.text, [])
        if exact:
            return self._only(parsed, exact)
        for index, key in ((self._names, parsed.name), (self._stems, parsed.stem)):
            places = self._longest_tails(parsed, index.get(key, []))
            if places:
                return self._only(parsed, places)
        uid = parsed.stem if not parsed.folders else ""
        if _UID.fullmatch(uid):
            places = self._by_uid().get(uid, [])
            if places:
                return self._only(parsed, places)
        raise ExchangeError(
            parsed.shown, "no image has this name", "check the name, and the folder or manifest of images"
        )

    def _longest_tails(self, name: NamedPath, places: list[int]) -> list[int]:
        """Return those files of which the name is a tail, or whose whole name below the folder is a tail of it.

        `case-1/1.dcm` never means `case-2/1.dcm`: she may be another woman.
        """
        lengths = {place: name.agreeing_folders(self._entries[place]) for place in places}
        fitting = {place: length for place, length in lengths.items() if length is not None}
        longest = max(fitting.values(), default=0)
        return [place for place, length in fitting.items() if length == longest]

    def _only(self, name: NamedPath, places: list[int]) -> int:
        if len(places) == 1:
            return places[0]
        paths = [self._entries[place].path for place in places]
        more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
        raise ExchangeError(
            name.shown,
            f"may mean {len(paths)} images: {', '.join(paths[:_SHOWN])}{more}",
            "write the path below the folder, with its suffix",
        )

    def _by_uid(self) -> dict[str, list[int]]:
        with self._lock:
            if self._uids is None:
                uids: dict[str, list[int]] = {}
                with ThreadPoolExecutor(_READERS) as pool:
                    for place, uid in enumerate(pool.map(_instance_uid, self._entries, chunksize=64)):
                        if uid is not None:
                            uids.setdefault(uid, []).append(place)
                self._uids = uids
            return self._uids

    def _read(self, place: int) -> None:
        if place not in self._facts:
            self._facts[place] = self._described(self._entries[place])

    def _described(self, entry: _Entry) -> ImageFacts | ExchangeError:
        try:
            header = read_header(entry.path)
        except MammoseekError as error:
            if entry.known is not None:
                return entry.known  # as with a manifest: whoever needs the pixels says that they are not there
            return ExchangeError(error.subject, error.cause, error.remedy)
        if entry.known is not None:
            return completed(entry.known, header)
        return ImageFacts(
            path=entry.path,
            dataset=entry.dataset,
            patient_id=known_woman(header.patient_id) or self._woman_by_name(entry),
            study_id=header.study_uid,
            sop_uid=header.sop_uid,
            laterality=header.laterality,
            view=header.view,
            spacing_mm=header.spacing_mm,
            rows=header.rows,
            columns=header.columns,
            frames=header.frames,
            dataset_assumed=self._dataset is None,
        )

    def _woman_by_name(self, entry: _Entry) -> str | None:
        match = self._patient_rule.search(entry.relative) if self._patient_rule is not None else None
        return known_woman(match.group(1)) if match is not None else None


def _instance_uid(entry: _Entry) -> str | None:
    if entry.known is not None and entry.known.sop_uid is not None:
        return entry.known.sop_uid
    try:
        with quiet_libraries():
            # PS3.10 7.1: the media storage SOP instance UID is that of the object, and stands at the file's start.
            return str(read_file_meta_info(entry.path).MediaStorageSOPInstanceUID)
    except Exception:  # no DICOM file, or a damaged one: pydicom raises of many kinds; it has no UID to be found by
        return None


def _patient_rule(pattern: str | None) -> re.Pattern[str] | None:
    if pattern is None:
        return None
    try:
        rule = re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ExchangeError(f"{pattern[:80]!r}", f"is no regular expression ({error})", r"such as '^(\d+)_'") from error
    if rule.groups != 1:
        raise ExchangeError(
            f"{pattern[:80]!r}", f"has {rule.groups} groups", r"put one around the woman's id: '^(\d+)_'"
        )
    return rule


def _checked_dataset(dataset: str) -> None:
    try:
        if clean_text(dataset, "the data set's name", longest=256) is None:
            raise TextError("names no data set")
    except TextError as error:
        raise ExchangeError(f"data set {dataset[:80]!r}", str(error), "give it a short name") from error


def _folder_dataset(root: Path) -> str:
    try:
        return clean_text(root.name, "folder", longest=256) or "images"
    except TextError:
        return "images"
