"""`gallery.json`: the one file that says what a gallery is, replaced in one step at every change."""

import hashlib
import json
import re
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from index import GalleryError
from index.durable import storage_error, write_whole

MANIFEST_NAME = "gallery.json"
GALLERY_FORMAT = 1

_SEGMENT_FILE = re.compile(r"segments/[0-9a-f-]+\.h5")
_CACHE_FILE = re.compile(r"cache/[0-9a-z-]+\.faiss")
_HEX = re.compile(r"[0-9a-f]{64}")
_LARGEST_MANIFEST = 64 << 20  # bytes; a segment takes some 200


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
    """The index cache: its name within the gallery, its digest, and that of the segments it is built from."""

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
    damaged = GalleryError(path, "is damaged", "restore the gallery from a copy or build it again")
    try:
        if path.stat().st_size > _LARGEST_MANIFEST:
            raise damaged
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        if not folder.exists():
            raise GalleryError(folder, "there is no such gallery", "make one with `mammoseek index build`") from error
        raise GalleryError(
            folder, f"is not a gallery: it has no {MANIFEST_NAME}", "name the gallery's folder"
        ) from error
    except OSError as error:
        raise storage_error(path, error) from error
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise damaged from error
    if not isinstance(content, dict) or not _is_count(content.get("format"), 1):
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


def check_identity(folder: Path, stored: GalleryIdentity, wanted: GalleryIdentity) -> None:
    """Refuse to mix the vectors of two models, two preparations or two granularities.

    Args:
        folder: The gallery.
        stored: What it is bound to.
        wanted: What the vectors at hand were made with.

    Raises:
        GalleryError: They differ; the message names both.
    """
    for field in fields(GalleryIdentity):
        ours, theirs = getattr(stored, field.name), getattr(wanted, field.name)
        if ours != theirs:
            name = field.name.removesuffix("_digest")
            raise GalleryError(
                folder,
                f"was made with the {name} {ours}, and this is the {name} {theirs}",
                "use the gallery's own model, or build a gallery for this one in another folder",
            )


def now() -> str:
    """Return the time as a manifest says it: ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _parse(content: dict[str, Any]) -> Manifest:
    identity = GalleryIdentity(**content["identity"])
    _require(isinstance(content["segments"], list), "segments")
    segments = tuple(SegmentEntry(**entry) for entry in content["segments"])
    cache = None if content["cache"] is None else CacheEntry(**content["cache"])
    for segment in segments:
        # A name that leads out of the gallery's folder must never be opened, nor deleted.
        _require(_matches(_SEGMENT_FILE, segment.file) and _matches(_HEX, segment.sha256), segment.file)
        _require(_is_count(segment.rows, 1) and _is_count(segment.bytes, 1), segment.file)
    _require(len({segment.file for segment in segments}) == len(segments), "a segment stands twice")
    if cache is not None:
        _require(_matches(_CACHE_FILE, cache.file) and _matches(_HEX, cache.sha256), cache.file)
        _require(_matches(_HEX, cache.segments), cache.segments)
    texts = (identity.model_digest, identity.preparation_digest, identity.granularity)
    _require(all(isinstance(text, str) and text for text in texts), "identity")
    _require(_is_count(identity.dimension, 1) and _is_count(content["generation"], 0), "numbers")
    return Manifest(identity, content["generation"], segments, cache, str(content["created"]), str(content["updated"]))


def _require(holds: bool, what: object) -> None:
    if not holds:
        raise ValueError(what)


def _matches(pattern: re.Pattern[str], text: object) -> bool:
    return isinstance(text, str) and pattern.fullmatch(text) is not None


def _is_count(number: object, least: int) -> bool:
    return type(number) is int and number >= least
