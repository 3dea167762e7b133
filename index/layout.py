"""Where things lie in a gallery's folder, and which files there belong to no generation.

gallery.json         the manifest: which files make up the generation that stands
segments/*.h5        the vectors and records, immutable, each named after its digest
segments/*.keys      hashes of the row ids of a segment
segments/*.pictures  the small pictures of a segment's rows
cache/*.faiss        the index of an approximate engine, made again at any time
cache/*.dense        known places as a search of whole images sees them; the next writer deletes it
cache/*.precedents   how near the women of the gallery come to each other, made again at any time
removals.log         what was removed, when, and that it was proven; names nobody
writer.lock          held by the one process that writes
model/               a copy of the model that the gallery is bound to, where its user keeps one there
"""

import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from index import GalleryError
from index.durable import TEMPORARY_SUFFIX, storage_error, sync_folder

if TYPE_CHECKING:
    from index.manifest import Manifest

MANIFEST_NAME = "gallery.json"
SEGMENT_FOLDER = "segments"
CACHE_FOLDER = "cache"
LOCK_NAME = "writer.lock"
REMOVALS_NAME = "removals.log"
MODEL_FOLDER = "model"

SEGMENT_FILE = re.compile(r"segments/[0-9a-f]{32}\.h5")
KEYS_FILE = re.compile(r"segments/[0-9a-f]{32}\.keys")
PICTURES_FILE = re.compile(r"segments/[0-9a-f]{32}\.pictures")
INDEX_FILE = re.compile(r"cache/[0-9a-f]{32}\.faiss")
PRECEDENTS_FILE = re.compile(r"cache/[0-9a-f]{32}\.precedents")
DENSE_SUFFIX = "dense"
DENSE_FILE = re.compile(rf"cache/[0-9a-f]{{32}}\.{DENSE_SUFFIX}")

_OWN_FILE = re.compile(
    r"(segments/[0-9a-f]+\.(h5|keys|pictures)|cache/[0-9a-f]+\.(faiss|precedents|dense)|gallery\.json)"
    rf"(\.\d+{re.escape(TEMPORARY_SUFFIX)})?"
)


def file_name(folder: str, sha256: str, suffix: str) -> str:
    """Return where a file with some digest lies, relative to the gallery.

    >>> file_name("cache", "0a" * 32, "faiss")
    'cache/0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a.faiss'
    """
    return f"{folder}/{sha256[:32]}.{suffix}"


def all_files(folder: Path) -> list[str]:
    """Return every file under a gallery's folder, relative to it, sorted; links are not followed."""
    found = []
    for path in folder.rglob("*"):
        try:
            if not stat.S_ISDIR(path.lstat().st_mode):
                found.append(path.relative_to(folder).as_posix())
        except FileNotFoundError:
            continue  # a writer has just replaced it
    return sorted(found)


def stray_files(folder: Path, manifest: "Manifest") -> list[str]:
    """Return the files that belong neither to a generation nor to the gallery's own keeping."""
    known = manifest.files | {MANIFEST_NAME, LOCK_NAME, REMOVALS_NAME}
    return [n for n in all_files(folder) if n not in known and not n.startswith(f"{MODEL_FOLDER}/")]


def is_unfinished(name: str) -> bool:
    """Return whether a stray file is what a killed writer, or a removal cut short, leaves behind.

    >>> is_unfinished("segments/0a1b.h5"), is_unfinished("notes.txt")
    (True, False)
    """
    return _OWN_FILE.fullmatch(name) is not None


def check_folders(folder: Path) -> None:
    """Refuse a gallery whose folders are links: a writer that cleans up would delete files elsewhere.

    Raises:
        GalleryError: One is a link.
    """
    for name in (SEGMENT_FOLDER, CACHE_FOLDER):
        if (folder / name).is_symlink():
            raise GalleryError(
                folder / name, "is a link", "a gallery that is written to keeps its files in its own folder"
            )


def sweep(folder: Path, manifest: "Manifest") -> tuple[str, ...]:
    """Delete what no generation needs any more; for the holder of the writer's lock only.

    A file that is not of mammoseek's making stays.

    Returns:
        The names of the deleted files.

    Raises:
        GalleryError: One can't be deleted.
    """
    check_folders(folder)
    unfinished = [name for name in stray_files(folder, manifest) if is_unfinished(name)]
    for name in unfinished:
        try:
            (folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(folder / name, error) from error
    for parent in {(folder / name).parent for name in unfinished}:
        try:
            sync_folder(parent)
        except OSError as error:
            raise storage_error(parent, error) from error
    return tuple(unfinished)
