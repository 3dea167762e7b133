"""`gallery.json`: the one file that says what a gallery is, replaced in one step at every change."""

import hashlib
import json
import os
import re
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from index import GalleryError, layout
from index.durable import open_plain, storage_error, write_whole
from index.layout import MANIFEST_NAME
from index.records import is_column_name

GALLERY_FORMAT = 2

_HEX = re.compile(r"[0-9a-f]{64}")
_KINDS = {"text", "integer", "number", "boolean", "unknown"}
_LARGEST_MANIFEST = 32 << 20  # bytes; a segment takes some 1,000
_LONGEST_VECTOR = 65_536
_LARGEST_COUNT = 2**62
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00")


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
class FileEntry:
    """One file of a gallery: its name within it, its digest and its size."""

    file: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class SegmentEntry:
    """One segment, see `index.segments`.

    Attributes:
        file: Its HDF5 file, within the gallery.
        sha256: The file's digest.
        bytes: The file's size.
        rows: How many findings it holds.
        first: The number of its first row.
        last: The number of its last row.
        vectors_at: Where its vectors start in the file.
        rest_sha256: Digest of all of the file but its vectors.
        keys: The hashes of its row ids.
        pictures: Its pictures; None where it has none.
    """

    file: str
    sha256: str
    bytes: int
    rows: int
    first: int
    last: int
    vectors_at: int
    rest_sha256: str
    keys: FileEntry
    pictures: FileEntry | None = None

    @property
    def files(self) -> tuple[FileEntry, ...]:
        """All its files."""
        own = FileEntry(self.file, self.sha256, self.bytes)
        return (own, self.keys) if self.pictures is None else (own, self.keys, self.pictures)


@dataclass(frozen=True)
class IndexEntry:
    """The index of an approximate engine: a cache, made from the segments and made again at any time.

    Attributes:
        cache: Its file.
        until: It holds exactly the gallery's rows with a number below this one.
        description: What the engine says of itself, see `index.engines`.
    """

    cache: FileEntry
    until: int
    description: dict[str, Any]


@dataclass(frozen=True)
class Manifest:
    """One generation of a gallery.

    Attributes:
        identity: What the gallery is bound to.
        generation: Counts the changes of its content.
        next_number: The number of the next row that is added.
        segments: Its segments, in row order.
        columns: What each column's values are; `unknown` where no row has had any.
        engine: Which engine its user asked for, see `index.engines.EngineConfig`.
        index: The index of an approximate engine, None where it has none.
        precedents: A cache of how near the women of the gallery come to each other, see `index.precedents`.
        created: When it was made, ISO 8601 in UTC.
        updated: When it last changed.
    """

    identity: GalleryIdentity
    generation: int
    next_number: int
    segments: tuple[SegmentEntry, ...]
    columns: dict[str, str]
    engine: dict[str, Any]
    index: IndexEntry | None
    precedents: FileEntry | None
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
        return {entry.file for entry in self.entries}

    @property
    def entries(self) -> tuple[FileEntry, ...]:
        """The same with their digests and sizes."""
        return (*(entry for segment in self.segments for entry in segment.files), *self.caches)

    @property
    def caches(self) -> tuple[FileEntry, ...]:
        """Those of them that can be made again at any time."""
        index = None if self.index is None else self.index.cache
        return tuple(entry for entry in (index, self.precedents) if entry is not None)

    @property
    def vector_bytes(self) -> int:
        """Bytes that all vectors take."""
        return self.rows * self.identity.dimension * 4


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Commit a generation.

    Raises:
        OSError: It could not be written; the generation before it stands.
        GalleryError: It has more segments than a manifest may name; the generation before it stands.
    """
    content = {"format": GALLERY_FORMAT, **asdict(manifest)}
    content["checksum"] = _checksum(content)
    data = (json.dumps(content, indent=2) + "\n").encode()
    if len(data) > _LARGEST_MANIFEST:
        # Nobody would read it back.
        raise GalleryError(folder, f"has too many segments ({len(manifest.segments)})", "compact it")
    write_whole(folder / MANIFEST_NAME, data)


def read_manifest(folder: Path) -> Manifest:
    """Read the generation that stands.

    Raises:
        GalleryError: There is no gallery, it is damaged, or a newer mammoseek wrote it.
    """
    path = folder / MANIFEST_NAME
    damaged = GalleryError(path, "is damaged", "restore the gallery from a copy or build it again")
    try:
        with open_plain(path) as file:
            if os.fstat(file.fileno()).st_size > _LARGEST_MANIFEST:
                raise damaged
            data = file.readall()
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
    if content["format"] < GALLERY_FORMAT:
        raise GalleryError(
            folder,
            f"has format {content['format']} of an earlier mammoseek, and this one knows format {GALLERY_FORMAT}",
            "build it again from its manifest; the old gallery was left as it is",
        )
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
    texts = (identity.model_digest, identity.preparation_digest, identity.granularity)
    _require(all(isinstance(text, str) and text for text in texts), "identity")
    _require(_is_count(identity.dimension, 1) and identity.dimension <= _LONGEST_VECTOR, "identity")
    _require(_is_count(content["generation"], 0) and _is_count(content["next_number"], 0), "numbers")
    _require(isinstance(content["segments"], list), "segments")
    segments = tuple(_segment(entry, identity.dimension) for entry in content["segments"])
    # Numbers only increase: that is how an index finds its rows again.
    ends = [-1, *(segment.last for segment in segments)]
    _require(all(entry.first > end for entry, end in zip(segments, ends, strict=False)), "numbers of rows")
    _require(ends[-1] < content["next_number"], "numbers of rows")
    columns = content["columns"]
    _require(isinstance(columns, dict) and all(map(is_column_name, columns)), "columns")
    _require(all(isinstance(kind, str) and kind in _KINDS for kind in columns.values()), "columns")
    _require(isinstance(content["engine"], dict), "engine")
    manifest = Manifest(
        identity,
        content["generation"],
        content["next_number"],
        segments,
        columns,
        content["engine"],
        None if content["index"] is None else _index(content["index"]),
        None if content["precedents"] is None else _file(content["precedents"], layout.PRECEDENTS_FILE),
        content["created"],
        content["updated"],
    )
    _require(_matches(_MOMENT, manifest.created) and _matches(_MOMENT, manifest.updated), "times")
    _require(manifest.index is None or manifest.index.until <= manifest.next_number, "index")
    _require(len({segment.file for segment in segments}) == len(segments), "a segment stands twice")
    return manifest


def _segment(content: dict[str, Any], dimension: int) -> SegmentEntry:
    content = dict(content)
    keys = _file(content.pop("keys"), layout.KEYS_FILE)
    pictures = content.pop("pictures")
    entry = SegmentEntry(
        **content, keys=keys, pictures=None if pictures is None else _file(pictures, layout.PICTURES_FILE)
    )
    own = _file({"file": entry.file, "sha256": entry.sha256, "bytes": entry.bytes}, layout.SEGMENT_FILE)
    _require(_is_count(entry.rows, 1) and _is_count(entry.vectors_at, 1) and entry.vectors_at % 4 == 0, own)
    _require(_matches(_HEX, entry.rest_sha256), own)
    # What a size says must fit the file before memory is taken for it.
    _require(entry.vectors_at + entry.rows * dimension * 4 <= entry.bytes and keys.bytes == entry.rows * 8, own)
    _require(_is_count(entry.first, 0) and _is_count(entry.last, 0), own)
    _require(entry.rows - 1 <= entry.last - entry.first and (entry.rows > 1 or entry.first == entry.last), own)
    return entry


def _index(content: dict[str, Any]) -> IndexEntry:
    entry = IndexEntry(**{**content, "cache": _file(content["cache"], layout.INDEX_FILE)})
    _require(_is_count(entry.until, 1) and isinstance(entry.description, dict), "index")
    return entry


def _file(content: dict[str, Any], pattern: re.Pattern[str]) -> FileEntry:
    entry = FileEntry(**content)
    # A name that leads out of the gallery's folder must never be opened, nor deleted.
    _require(_matches(pattern, entry.file) and _matches(_HEX, entry.sha256) and _is_count(entry.bytes, 1), entry)
    return entry


def _require(holds: bool, what: object) -> None:
    if not holds:
        raise ValueError(what)


def _matches(pattern: re.Pattern[str], text: object) -> bool:
    return isinstance(text, str) and pattern.fullmatch(text) is not None


def _is_count(number: object, least: int) -> bool:
    return type(number) is int and least <= number <= _LARGEST_COUNT
