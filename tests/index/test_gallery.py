import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from index import GalleryError, QueryError
from index.cache import cache_state
from index.durable import WriterLock
from index.gallery import Gallery
from index.layout import LOCK_NAME, all_files
from index.manifest import MANIFEST_NAME, GalleryIdentity, read_manifest, write_manifest
from index.retrieval import query_row
from index.upkeep import remove_rows
from index.writer import GalleryWriter, create_gallery


def answer(folder: Path) -> bytes:
    """Return the bytes of one answer."""
    found = query_row(Gallery.open(folder), "row-0007", k=12)
    return json.dumps(found.to_dict(), sort_keys=True, allow_nan=False).encode()


def test_a_gallery_holds_what_was_put_into_it(
    make_gallery: Callable[..., Path], make_findings: Callable[..., Any], identity: GalleryIdentity
) -> None:
    first, second = make_findings(20), make_findings(13, first=20)
    gallery = Gallery.open(make_gallery(first, second))
    assert len(gallery) == 33
    assert gallery.identity == identity
    assert gallery.generation == 2
    assert gallery.created <= gallery.updated
    np.testing.assert_array_equal(gallery.vectors, np.concatenate([first.vectors, second.vectors]))
    assert gallery.vectors.dtype == np.float32
    assert not gallery.vectors.flags.writeable
    expected = pd.concat([first.records, second.records], ignore_index=True)
    pd.testing.assert_frame_equal(gallery.records, expected, check_dtype=False)
    assert gallery.row_ids.tolist() == expected["row_id"].tolist()
    assert gallery.patient_keys[3] == "films/W001"
    assert gallery.thumbnail("row-0021") == second.thumbnails[1]
    assert gallery.record(0)["density"] is None
    json.dumps([gallery.record(i) for i in range(33)], allow_nan=False)


def test_a_row_that_is_not_there_brings_up_those_like_it(gallery_folder: Path) -> None:
    gallery = Gallery.open(gallery_folder)
    assert gallery.position("row-0021") == 21
    with pytest.raises(QueryError, match="row-0021"):
        gallery.position("row-021")
    with pytest.raises(QueryError, match="no row 'zzz'"):
        gallery.thumbnail("zzz")


def test_without_thumbnails_there_is_none(make_gallery: Callable[..., Path], make_findings: Callable[..., Any]) -> None:
    batch = make_findings(4)
    batch.thumbnails = None
    assert Gallery.open(make_gallery(batch)).thumbnail("row-0001") is None


def test_an_empty_gallery_opens(tmp_path: Path, identity: GalleryIdentity) -> None:
    create_gallery(tmp_path / "empty", identity)
    gallery = Gallery.open(tmp_path / "empty")
    assert len(gallery) == 0
    assert gallery.vectors.shape == (0, identity.dimension)
    assert gallery.patient_keys.shape == (0,)
    assert len(gallery.index.search(np.zeros((1, identity.dimension), np.float32), 3).positions) == 1


def test_opening_changes_nothing(gallery_folder: Path) -> None:
    (gallery_folder / "segments" / "0a.h5.1.tmp").write_bytes(b"left by a killed writer")
    before = {name: (gallery_folder / name).read_bytes() for name in all_files(gallery_folder)}
    _ = Gallery.open(gallery_folder).index
    assert {name: (gallery_folder / name).read_bytes() for name in all_files(gallery_folder)} == before


def test_an_open_gallery_does_not_change_under_its_reader(gallery_folder: Path) -> None:
    gallery = Gallery.open(gallery_folder)
    before = query_row(gallery, "row-0007", k=12).to_dict()
    remove_rows(gallery_folder, patient="W003")
    assert query_row(gallery, "row-0007", k=12).to_dict() == before
    with pytest.raises(GalleryError, match="has changed"):
        gallery.thumbnail("row-0009")
    assert len(Gallery.open(gallery_folder)) == 30


def test_a_removal_while_opening_is_waited_for(gallery_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stale = read_manifest(gallery_folder)
    remove_rows(gallery_folder, patient="W003")
    manifests = iter([stale, read_manifest(gallery_folder)])
    monkeypatch.setattr("index.gallery.read_manifest", lambda folder: next(manifests))
    assert len(Gallery.open(gallery_folder)) == 30


def test_a_missing_segment_is_named_with_its_rows(gallery_folder: Path) -> None:
    entry = read_manifest(gallery_folder).segments[1]
    (gallery_folder / entry.file).unlink()
    with pytest.raises(GalleryError, match=rf"{entry.file}: the segment is missing \(13 rows\)"):
        Gallery.open(gallery_folder)


def test_flipped_bytes_in_segments_and_manifest_are_refused(gallery_folder: Path) -> None:
    manifest = read_manifest(gallery_folder)
    rng = np.random.default_rng(0)
    for name in [MANIFEST_NAME, *(entry.file for entry in manifest.segments)]:
        path = gallery_folder / name
        data = path.read_bytes()
        for place in rng.choice(len(data), 12, replace=False):
            path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
            with pytest.raises(GalleryError, match=f"{name}.* damaged"):
                Gallery.open(gallery_folder)
        path.write_bytes(data[:-2])
        with pytest.raises(GalleryError, match=f"{name}.* damaged"):
            Gallery.open(gallery_folder)
        path.write_bytes(data)
    assert len(Gallery.open(gallery_folder)) == 33


def test_every_state_of_the_cache_gives_the_same_bytes(gallery_folder: Path) -> None:
    def state() -> str:
        return cache_state(gallery_folder, read_manifest(gallery_folder))

    expected = answer(gallery_folder)
    assert answer(gallery_folder) == expected
    cache = gallery_folder / read_manifest(gallery_folder).cache.file  # type: ignore[union-attr]
    good = cache.read_bytes()
    for damage in (None, b"", good[:100], good[:-1] + b"\0", b"nonsense"):
        cache.unlink()
        if damage is not None:
            cache.write_bytes(damage)
        assert state() == ("missing" if damage is None else "damaged")
        assert answer(gallery_folder) == expected
        assert state() == "good"
        assert cache.read_bytes() == good


def test_a_cache_of_other_contents_is_not_read(
    gallery_folder: Path, make_gallery: Callable[..., Path], make_findings: Callable[..., Any]
) -> None:
    """Its digest may match: it must also belong to these segments, and hold these vectors."""
    other = make_gallery(make_findings(33, seed=5), name="other")
    expected = answer(gallery_folder)
    ours, theirs = read_manifest(gallery_folder), read_manifest(other)
    assert ours.cache is not None
    assert theirs.cache is not None
    shutil.copy(other / theirs.cache.file, gallery_folder / theirs.cache.file)
    for segments in (theirs.segments_digest, ours.segments_digest):
        write_manifest(gallery_folder, replace(ours, cache=replace(theirs.cache, segments=segments)))
        assert answer(gallery_folder) == expected
        assert cache_state(gallery_folder, read_manifest(gallery_folder)) == "good"


def test_a_reader_leaves_the_cache_to_a_writer_at_work(gallery_folder: Path) -> None:
    expected = answer(gallery_folder)
    cache = gallery_folder / read_manifest(gallery_folder).cache.file  # type: ignore[union-attr]
    cache.unlink()
    with WriterLock(gallery_folder / LOCK_NAME):
        assert answer(gallery_folder) == expected
        assert not cache.exists()
    assert answer(gallery_folder) == expected
    assert cache.exists()


@pytest.fixture
def read_only(gallery_folder: Path, tmp_path: Path) -> Iterator[Path]:
    """A gallery without a cache, on a read-only file system."""
    shutil.rmtree(gallery_folder / "cache")
    (gallery_folder / LOCK_NAME).unlink()
    if os.geteuid() != 0:
        for path in (gallery_folder, *gallery_folder.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        yield gallery_folder
        for path in (gallery_folder, *gallery_folder.rglob("*")):
            path.chmod(0o755)
        return
    mount = tmp_path / "mount"
    mount.mkdir()
    steps = [["mount", "--bind", gallery_folder, mount], ["mount", "-o", "remount,bind,ro", mount]]
    if subprocess.run(steps[0], capture_output=True, check=False).returncode != 0:
        pytest.skip("root ignores modes, and nothing can be mounted here")
    try:
        if subprocess.run(steps[1], capture_output=True, check=False).returncode != 0:
            pytest.skip("root ignores modes, and nothing can be mounted read-only here")
        yield mount
    finally:
        subprocess.run(["umount", mount], check=True)


def test_a_read_only_gallery_answers(read_only: Path, make_gallery: Callable[..., Path]) -> None:
    assert answer(read_only) == answer(make_gallery(name="writable"))
    with pytest.raises(GalleryError, match="can't be written"), GalleryWriter(read_only):
        pass
    assert "cache" not in [path.name for path in read_only.iterdir()]
