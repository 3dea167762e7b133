"""The index cache of a gallery: read only when every digest matches, written back when it can be."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from index import GalleryError
from index.durable import WriterLock, make_folder, storage_error, write_whole
from index.engines import ExactEngine
from index.layout import CACHE_FOLDER, LOCK_NAME, cache_name
from index.manifest import CacheEntry, Manifest, read_manifest, write_manifest
from index.segments import digest

CacheState = Literal["good", "none", "stale", "missing", "damaged"]


def _read(folder: Path, manifest: Manifest) -> tuple[CacheState, bytes]:
    entry = manifest.cache
    if entry is None:
        return "none", b""
    if entry.segments != manifest.segments_digest:
        return "stale", b""
    try:
        data = (folder / entry.file).read_bytes()
    except FileNotFoundError:
        return "missing", b""
    except OSError:
        return "damaged", b""
    return ("good", data) if digest(data) == entry.sha256 else ("damaged", b"")


def cache_state(folder: Path, manifest: Manifest) -> CacheState:
    """Return whether the cache can be used: `good`, or why it will be rebuilt."""
    return _read(folder, manifest)[0]


def load_engine(
    folder: Path, manifest: Manifest, vectors: npt.NDArray[np.float32], row_ids: npt.NDArray[np.object_]
) -> ExactEngine | None:
    """Return the engine that the cache holds, None where it can't be used."""
    state, data = _read(folder, manifest)
    if state != "good":
        return None
    try:
        return ExactEngine.from_bytes(data, vectors, row_ids)
    except ValueError:
        return None


def store_engine(folder: Path, segments_digest: str, engine: ExactEngine) -> None:
    """Write the cache of a generation, for the holder of the writer's lock.

    Nothing is written where the gallery has moved on to another content.

    Raises:
        GalleryError: It could not be written; the gallery stands as it was.
    """
    manifest = read_manifest(folder)
    if manifest.segments_digest != segments_digest:
        return
    data = engine.to_bytes()
    sha256 = digest(data)
    entry = CacheEntry(cache_name(sha256), sha256, segments_digest)
    if (folder / CACHE_FOLDER).is_symlink():
        raise GalleryError(folder / CACHE_FOLDER, "is a link", "a gallery keeps its files in its own folder")
    try:
        make_folder(folder / CACHE_FOLDER)
        write_whole(folder / entry.file, data)
        write_manifest(folder, replace(manifest, cache=entry))
    except OSError as error:
        raise storage_error(folder / CACHE_FOLDER, error) from error
    finally:
        named = read_manifest(folder).files
        for file in {entry.file} | (manifest.files if manifest.cache else set()):
            if file not in named:
                (folder / file).unlink(missing_ok=True)


def offer_engine(folder: Path, segments_digest: str, engine: ExactEngine) -> bool:
    """Write the cache where nobody else is writing and the folder allows it; a reader gets by without.

    Returns:
        Whether it was written.
    """
    try:
        with WriterLock(folder / LOCK_NAME):
            store_engine(folder, segments_digest, engine)
    except (GalleryError, OSError):
        return False
    return True
