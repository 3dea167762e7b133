"""Where things lie in a gallery's folder, and which files there belong to no generation.

gallery.json        the manifest: which segments and which cache make up the generation that stands
segments/*.h5       the vectors and records, immutable, each named after its digest
cache/*.faiss       the index, rebuilt at any time
writer.lock         held by the one process that writes
model/              a copy of the model that the gallery is bound to, where its user keeps one there
"""

import re
import stat
from pathlib import Path

from index import GalleryError
from index.durable import TEMPORARY_SUFFIX, storage_error, sync_folder
from index.manifest import MANIFEST_NAME, Manifest

SEGMENT_FOLDER = "segments"
CACHE_FOLDER = "cache"
LOCK_NAME = "writer.lock"
MODEL_FOLDER = "model"

_OWN_FILE = re.compile(
    rf"(segments/[0-9a-f-]+\.h5|cache/[0-9a-z-]+\.faiss|{re.escape(MANIFEST_NAME)})(\.\d+{re.escape(TEMPORARY_SUFFIX)})?"
)


def segment_name(sha256: str) -> str:
    """Return where a segment with some digest lies."""
    return f"{SEGMENT_FOLDER}/{sha256[:32]}.h5"


def cache_name(sha256: str) -> str:
    """Return where an index cache with some digest lies."""
    return f"{CACHE_FOLDER}/{sha256[:32]}.faiss"


def all_files(folder: Path) -> list[str]:
    """Return every file under a gallery's folder, relative to it, sorted; links are not followed."""
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if not stat.S_ISDIR(path.lstat().st_mode)
    )


def stray_files(folder: Path, manifest: Manifest) -> list[str]:
    """Return the files that belong neither to a generation nor to the gallery's own keeping."""
    known = manifest.files | {MANIFEST_NAME, LOCK_NAME}
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


def sweep(folder: Path, manifest: Manifest) -> tuple[str, ...]:
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
        sync_folder(parent)
    return tuple(unfinished)
