"""`gallery.json`: the one file that says what a gallery is, replaced in one step at every change."""

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from index import GalleryError
from index.durable import storage_error, write_whole

MANIFEST_NAME = "gallery.json"
GALLERY_FORMAT = 1

_SEGMENT_FILE = re.compile(r"segments/[0-9a-f-]+\.h5")
_CACHE_FILE = re.compile(r"cache/[0-9a-z-]+\.faiss")
_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class GalleryIdentity:
    """What a gallery is bound to for life.

    Attributes:
        model_digest: The checkpoint that made its vectors.
        preparation_digest: The preparation that its pixels went through.
        granularity: `finding` or `breast`: what a row is.
        dimension: Length of a vector.
    """

    model_digest: str
    preparation_digest: str
    granularity: str
    dimension: int


@dataclass(frozen=True)
class SegmentEntry:
    """One segment file: its name within the gallery, its digest, and how much it holds."""

    file: str
    sha256: str
    rows: int
    bytes: int


@dataclass(frozen=True)
class CacheEntry:
    """The index cache: its name within the gallery, its digest, and the digest of the segments it was built from."""

    file: str
    sha256: str
    segments: str


@dataclass(frozen=True)
class Manifest:
    """One generation of a gallery.

    Attributes:
        identity: What the gallery is bound to.
        generation: Counts the changes of its content.
        segments: Its segments, in row order.
        cache: Its index cache, None where it has none.
        created: When it was made, ISO 8601 in UTC.
        updated: When it last changed.
    """

    identity: GalleryIdentity
    generation: int
    segments: tuple[SegmentEntry, ...]
    cache: CacheEntry | None
    created: str
    updated: str

    @property
    def rows(self) -> int:
        """Number of findings."""
        return sum(segment.rows for segment in self.segments)

    @property
    def segments_digest(self) -> str:
        """One digest for all vectors and records, in their order."""
        return hashlib.sha256("\n".join(segment.sha256 for segment in self.segments).encode()).hexdigest()

    @property
    def files(self) -> set[str]:
        """The files that belong to this generation, relative to the gallery."""
        return {segment.file for segment in self.segments} | ({self.cache.file} if self.cache else set())


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Commit a generation.

    Raises:
        OSError: It could not be written; the generation before it stands.
    """
    content = {"format": GALLERY_FORMAT, **asdict(manifest)}
    content["checksum"] = _checksum(content)
    write_whole(folder / MANIFEST_NAME, (json.dumps(content, indent=2) + "\n").encode())


def read_manifest(folder: Path) -> Manifest:
    """Read the generation that stands.

    Raises:
        GalleryError: There is no gallery, it is damaged, or a newer mammoseek wrote it.
    """
    path = folder / MANIFEST_NAME
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        if not folder.exists():
            raise GalleryError(folder, "there is no such gallery", "make one with `mammoseek index build`") from error
        raise GalleryError(folder, f"is not a gallery: it has no {MANIFEST_NAME}", "name the gallery's folder") from error
    except OSError as error:
        raise storage_error(path, error) from error
    damaged = GalleryError(path, "is damaged", "restore the gallery from a copy or build it again")
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise damaged from error
    if not isinstance(content, dict) or not isinstance(content.get("format"), int):
        raise damaged
    if content["format"] > GALLERY_FORMAT:
        raise GalleryError(
            folder,
            f"has format {content['format']}, and this mammoseek knows formats up to {GALLERY_FORMAT}",
            "update mammoseek",
        )
    if content.pop("checksum", None) != _checksum(content):
        raise damaged
    try:
        return _parse(content)
    except (KeyError, TypeError, ValueError) as error:
        raise damaged from error


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _parse(content: dict[str, Any]) -> Manifest:
    identity = GalleryIdentity(**content["identity"])
    segments = tuple(SegmentEntry(**entry) for entry in content["segments"])
    cache = None if content["cache"] is None else CacheEntry(**content["cache"])
    for segment in segments:
        # A name that leads out of the gallery's folder must never be opened, nor deleted.
        if not _SEGMENT_FILE.fullmatch(segment.file) or not _HEX.fullmatch(segment.sha256):
            raise ValueError(segment.file)
        if not isinstance(segment.rows, int) or not isinstance(segment.bytes, int) or segment.rows < 1:
            raise ValueError(segment.file)
    if cache is not None and not (_CACHE_FILE.fullmatch(cache.file) and _HEX.fullmatch(cache.sha256)):
        raise ValueError(cache.file)
    if not isinstance(identity.dimension, int) or identity.dimension < 1 or not isinstance(content["generation"], int):
        raise ValueError("dimension")
    return Manifest(
        identity, content["generation"], segments, cache, str(content["created"]), str(content["updated"])
    )
