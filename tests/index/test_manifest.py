import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from index import GalleryError
from index.manifest import (
    MANIFEST_NAME,
    CacheEntry,
    GalleryIdentity,
    Manifest,
    SegmentEntry,
    check_identity,
    read_manifest,
    write_manifest,
)

IDENTITY = GalleryIdentity("model", "preparation", "finding", 8)
MANIFEST = Manifest(
    IDENTITY,
    3,
    (SegmentEntry("segments/0a.h5", "0" * 64, 5, 900), SegmentEntry("segments/0b.h5", "1" * 64, 2, 700)),
    CacheEntry("cache/0c.faiss", "2" * 64, "3" * 64),
    "2020-01-01T00:00:00+00:00",
    "2020-01-02T00:00:00+00:00",
)


def written(folder: Path, change: dict[str, Any]) -> None:
    """Write a manifest with some parts changed and a checksum that fits."""
    write_manifest(folder, MANIFEST)
    content = json.loads((folder / MANIFEST_NAME).read_text())
    del content["checksum"]
    for path, value in change.items():
        target = content
        *steps, last = path.split(".")
        for step in steps:
            target = target[int(step)] if isinstance(target, list) else target[step]
        target[last] = value
    content["checksum"] = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    (folder / MANIFEST_NAME).write_text(json.dumps(content))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_manifest(tmp_path, MANIFEST)
    assert read_manifest(tmp_path) == MANIFEST
    assert MANIFEST.rows == 7
    assert MANIFEST.files == {"segments/0a.h5", "segments/0b.h5", "cache/0c.faiss"}
    other_order = replace(MANIFEST, segments=MANIFEST.segments[::-1])
    assert other_order.segments_digest != MANIFEST.segments_digest


def test_any_flipped_byte_is_noticed(tmp_path: Path) -> None:
    write_manifest(tmp_path, MANIFEST)
    path = tmp_path / MANIFEST_NAME
    data = path.read_bytes()
    for place in range(0, len(data), 3):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(GalleryError):
            read_manifest(tmp_path)
    for length in range(0, len(data) - 2, 29):
        path.write_bytes(data[:length])
        with pytest.raises(GalleryError, match="damaged"):
            read_manifest(tmp_path)


def test_the_helper_of_these_tests_writes_a_manifest_that_passes(tmp_path: Path) -> None:
    written(tmp_path, {"generation": 9})
    assert read_manifest(tmp_path) == replace(MANIFEST, generation=9)


@pytest.mark.parametrize(
    "change",
    [
        {"segments.0.file": "../../etc/passwd"},
        {"segments.0.file": "segments/../../x.h5"},
        {"segments.0.file": "/segments/0a.h5"},
        {"segments.0.file": "segments/0a.h5\n"},
        {"segments.0.file": "segments/0b.h5"},
        {"segments.0.file": 7},
        {"segments.0.sha256": "x" * 64},
        {"segments.0.rows": 0},
        {"segments.0.rows": True},
        {"segments.0.bytes": -1},
        {"segments.0.more": 1},
        {"segments": {}},
        {"segments": [[]]},
        {"cache.file": "cache/../../x.faiss"},
        {"cache.segments": None},
        {"cache": 5},
        {"identity.dimension": 0},
        {"identity.dimension": 8.0},
        {"identity.model_digest": None},
        {"identity": "model"},
        {"generation": -1},
        {"generation": "3"},
        {"format": True},
        {"format": 0},
        {"format": "1"},
    ],
)
def test_a_hostile_manifest_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    written(tmp_path, change)
    with pytest.raises(GalleryError, match="damaged"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"[" * 100_000, b"\xff\xfe", b'{"format": 1}'])
def test_something_else_under_its_name_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / MANIFEST_NAME).write_bytes(content)
    with pytest.raises(GalleryError, match="damaged"):
        read_manifest(tmp_path)


def test_a_huge_file_is_not_even_read(tmp_path: Path) -> None:
    with (tmp_path / MANIFEST_NAME).open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(GalleryError, match="damaged"):
        read_manifest(tmp_path)


def test_a_newer_format_asks_for_an_update(tmp_path: Path) -> None:
    written(tmp_path, {"format": 2})
    with pytest.raises(GalleryError, match="update mammoseek"):
        read_manifest(tmp_path)


def test_no_gallery_says_so(tmp_path: Path) -> None:
    with pytest.raises(GalleryError, match="no such gallery"):
        read_manifest(tmp_path / "nothing")
    with pytest.raises(GalleryError, match="is not a gallery"):
        read_manifest(tmp_path)
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(GalleryError, match="is not a gallery"):
        read_manifest(tmp_path / "file")
    (tmp_path / MANIFEST_NAME).mkdir()
    with pytest.raises(GalleryError, match="directory"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("field", "value"),
    [("model_digest", "m2"), ("preparation_digest", "p2"), ("granularity", "breast"), ("dimension", 9)],
)
def test_another_identity_is_refused_and_both_are_named(field: str, value: Any) -> None:
    check_identity(Path("g"), IDENTITY, replace(IDENTITY))
    with pytest.raises(GalleryError) as error:
        check_identity(Path("g"), IDENTITY, replace(IDENTITY, **{field: value}))
    assert str(getattr(IDENTITY, field)) in str(error.value)
    assert str(value) in str(error.value)
