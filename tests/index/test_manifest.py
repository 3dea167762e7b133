import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from index import GalleryError
from index.manifest import (
    MANIFEST_NAME,
    FileEntry,
    GalleryIdentity,
    IndexEntry,
    Manifest,
    SegmentEntry,
    check_identity,
    now,
    read_manifest,
    write_manifest,
)

IDENTITY = GalleryIdentity("model", "preparation", "finding", 8)


def file(place: str, suffix: str, digit: str, size: int) -> FileEntry:
    return FileEntry(f"{place}/{digit * 32}.{suffix}", digit * 64, size)


def segment(digit: str, rows: int, first: int, last: int, pictures: FileEntry | None = None) -> SegmentEntry:
    own = file("segments", "h5", digit, 2000)
    return SegmentEntry(
        own.file, own.sha256, own.bytes, rows, first, last, 1480, "f" * 64, file("segments", "keys", digit, 8 * rows),
        pictures,
    )  # fmt: skip


MANIFEST = Manifest(
    IDENTITY,
    3,
    12,
    (segment("a", 5, 0, 6), segment("b", 2, 7, 9, file("segments", "pictures", "b", 700))),
    {"row_id": "text", "age": "number", "shape": "unknown"},
    {"engine": "auto"},
    IndexEntry(file("cache", "faiss", "c", 99), 10, {"engine": "ivf", "recall": 0.98}),
    file("cache", "precedents", "d", 77),
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
    files = [("segments", "a", "h5"), ("segments", "a", "keys"), ("segments", "b", "h5"), ("segments", "b", "keys")]
    files += [("segments", "b", "pictures"), ("cache", "c", "faiss"), ("cache", "d", "precedents")]
    assert MANIFEST.files == {f"{folder}/{digit * 32}.{suffix}" for folder, digit, suffix in files}
    assert {entry.file for entry in MANIFEST.entries} == MANIFEST.files
    assert MANIFEST.vector_bytes == 7 * 8 * 4
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
        {"segments.0.file": f"segments/{'b' * 32}.h5"},
        {"segments.0.file": 7},
        {"segments.0.sha256": "x" * 64},
        {"segments.0.rest_sha256": "f" * 63},
        {"segments.0.rows": 0},
        {"segments.0.rows": True},
        {"segments.0.rows": 8},
        {"segments.0.rows": 10**30},
        {"segments.0.bytes": -1},
        {"segments.0.bytes": 1480 + 5 * 8 * 4 - 1},
        {"segments.0.vectors_at": 1481},
        {"segments.0.vectors_at": -4},
        {"segments.0.first": -1},
        {"segments.0.last": 3},
        {"segments.0.last": 7},
        {"segments.1.first": 6},
        {"segments.1.last": 12},
        {"segments.1.last": 10**30},
        {"segments.0.keys": None},
        {"segments.0.keys.file": f"segments/{'a' * 32}.h5"},
        {"segments.0.keys.bytes": 41},
        {"segments.1.pictures.file": "segments/../../x.pictures"},
        {"segments.1.pictures": []},
        {"segments.0.more": 1},
        {"segments": {}},
        {"segments": [[]]},
        {"index.cache.file": "cache/../../x.faiss"},
        {"index.cache.sha256": None},
        {"index.until": 0},
        {"index.until": 13},
        {"index.description": []},
        {"index": 5},
        {"precedents": 5},
        {"precedents.file": f"cache/{'c' * 32}.faiss"},
        {"engine": None},
        {"columns": []},
        {"columns.age": "complex"},
        {"columns.age": ["text"]},
        {"columns.a/b": "text"},
        {"columns.\udc80": "text"},
        {"columns.rank": "text"},
        {"next_number": 9},
        {"next_number": 2**70},
        {"created": "\x1b[2J"},
        {"created": None},
        {"updated": {}},
        {"identity.dimension": 0},
        {"identity.dimension": 8.0},
        {"identity.dimension": 10**9},
        {"identity.model_digest": None},
        {"identity": "model"},
        {"generation": -1},
        {"generation": "3"},
        {"generation": 10**4000},
        {"format": True},
        {"format": 0},
        {"format": "1"},
    ],
)
def test_a_hostile_manifest_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    written(tmp_path, change)
    with pytest.raises(GalleryError, match="damaged"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"[" * 100_000, b"\xff\xfe", b'{"format": 2}'])
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
    written(tmp_path, {"format": 3})
    with pytest.raises(GalleryError, match="update mammoseek"):
        read_manifest(tmp_path)


def test_an_earlier_format_asks_for_a_new_build(tmp_path: Path) -> None:
    written(tmp_path, {"format": 1})
    with pytest.raises(GalleryError, match=r"format 1 .* build it again"):
        read_manifest(tmp_path)


def test_what_nobody_could_read_back_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_manifest(tmp_path, MANIFEST)
    monkeypatch.setattr("index.manifest._LARGEST_MANIFEST", (tmp_path / MANIFEST_NAME).stat().st_size)
    write_manifest(tmp_path, MANIFEST)
    with pytest.raises(GalleryError, match=r"too many segments \(3\)"):
        write_manifest(tmp_path, replace(MANIFEST, segments=(*MANIFEST.segments, segment("e", 1, 10, 10))))
    assert read_manifest(tmp_path) == MANIFEST


def test_the_time_is_said_as_a_manifest_says_it(tmp_path: Path) -> None:
    write_manifest(tmp_path, replace(MANIFEST, created=now(), updated=now()))
    assert read_manifest(tmp_path).created <= now()


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
