import contextlib
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
from index.filters import parse_filter
from index.gallery import Gallery
from index.indexing import rebuild_index
from index.layout import LOCK_NAME, all_files
from index.manifest import MANIFEST_NAME, GalleryIdentity, read_manifest, write_manifest
from index.repair import repair_gallery
from index.upkeep import remove_rows, verify_gallery
from index.writer import GalleryWriter, create_gallery


def nearest(gallery: Gallery) -> bytes:
    """Return the bytes of what a gallery answers."""
    hits = gallery.index.search(gallery.matrix[[-1, -2]], 12, allowed=gallery.passing(parse_filter("age is not None")))
    names = [gallery.names_of(positions).tolist() for positions in hits.positions]
    return json.dumps([names, hits.similarities.tolist()], allow_nan=False).encode()


def answer(folder: Path) -> bytes:
    return nearest(Gallery.open(folder))


def test_a_gallery_holds_what_was_put_into_it(
    make_gallery: Callable[..., Path], make_findings: Callable[..., Any], identity: GalleryIdentity
) -> None:
    first, second = make_findings(20), make_findings(13, first=20)
    gallery = Gallery.open(make_gallery(first, second))
    assert len(gallery) == 33
    assert gallery.identity == identity
    assert gallery.generation == 2
    assert gallery.created <= gallery.updated
    np.testing.assert_array_equal(gallery.matrix, np.concatenate([first.vectors, second.vectors]))
    assert gallery.matrix.dtype == np.float32
    assert not any(block.flags.writeable for block in gallery.vectors.blocks)
    assert gallery.numbers.tolist() == list(range(33))
    expected = pd.concat([first.records, second.records], ignore_index=True)
    pd.testing.assert_frame_equal(gallery.records, expected, check_dtype=False)
    assert gallery.row_ids.tolist() == expected["row_id"].tolist()
    assert gallery.patient_keys[3] == gallery.patient_key(3) == "films/W001"
    assert gallery.women.tolist() == [row // 3 for row in range(33)]
    assert gallery.row_id(32) == "row-0032"
    assert gallery.names_of(np.array([21, 0])).tolist() == ["row-0021", "row-0000"]
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
    assert gallery.matrix.shape == (0, identity.dimension)
    assert gallery.women.shape == gallery.numbers.shape == (0,)
    assert (gallery.datasets, gallery.has_dataset("films")) == ([], False)
    assert gallery.rows_of([]).tolist() == gallery.women_called("W001").tolist() == []
    assert gallery.patient_keys.shape == (0,)
    assert len(gallery.index.search(np.zeros((1, identity.dimension), np.float32), 3).positions) == 1


def test_opening_changes_nothing(gallery_folder: Path) -> None:
    (gallery_folder / "segments" / "0a.h5.1.tmp").write_bytes(b"left by a killed writer")
    before = {name: (gallery_folder / name).read_bytes() for name in all_files(gallery_folder)}
    _ = Gallery.open(gallery_folder).index
    assert {name: (gallery_folder / name).read_bytes() for name in all_files(gallery_folder)} == before


def test_an_open_gallery_does_not_change_under_its_reader(gallery_folder: Path) -> None:
    gallery = Gallery.open(gallery_folder)
    before = nearest(gallery)
    remove_rows(gallery_folder, patient="W003")
    assert nearest(gallery) == before
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


def test_women_and_their_rows(make_gallery: Callable[..., Path], make_findings: Callable[..., Any]) -> None:
    """A patient id is a woman's within its data set only; her name may be mistyped a little."""
    first, second = make_findings(9), make_findings(9, first=9)
    first.records["patient_id"] = ["A", "B", "a ", "A", "C", "B", "A", "C", "B"]
    second.records["patient_id"] = "A"
    second.records["dataset"] = ["Digital", "films", "Digital"] * 3
    gallery = Gallery.open(make_gallery(first, second))
    records = pd.concat([first.records, second.records], ignore_index=True)
    keys = [f"{d}/{p}" for d, p in zip(records["dataset"], records["patient_id"], strict=True)]
    assert gallery.patient_keys.tolist() == keys
    assert gallery.women.tolist() == pd.factorize(np.array(keys, object))[0].tolist()
    for woman in range(int(gallery.women.max()) + 1):
        rows = np.flatnonzero(gallery.women == woman)
        assert gallery.rows_of([woman]).tolist() == rows.tolist()
        assert gallery.first_row(woman) == rows[0]
    assert gallery.rows_of([2, 0, 2]).tolist() == np.flatnonzero(np.isin(gallery.women, (0, 2))).tolist()
    named = {gallery.patient_key(gallery.first_row(woman)) for woman in gallery.women_called(" a")}
    assert named == {"films/A", "films/a ", "Digital/A"}
    of_one = gallery.women_called("A", "DIGITAL ")
    assert [gallery.patient_key(gallery.first_row(woman)) for woman in of_one] == ["Digital/A"]
    assert gallery.women_called("D").tolist() == []
    assert gallery.datasets == ["Digital", "films"]
    assert [gallery.has_dataset(name) for name in (" digital", "Films", "film")] == [True, True, False]


def test_filters_are_remembered_but_not_for_ever(gallery_folder: Path) -> None:
    gallery = Gallery.open(gallery_folder)
    condition = parse_filter("view == 'CC'")
    passing = gallery.passing(condition)
    assert passing.tolist() == [row % 2 == 0 for row in range(33)]
    assert gallery.passing(condition) is passing
    for age in range(40):
        assert gallery.passing(parse_filter(f"age > {age}")).sum() == gallery.passing(parse_filter("age > 0")).sum()
    assert gallery.passing(condition) is not passing


class TestUnchecked:
    """Opened without its vectors being read."""

    def test_the_answers_are_the_same(self, gallery_folder: Path) -> None:
        one, other = Gallery.open(gallery_folder, checked=True), Gallery.open(gallery_folder, checked=False)
        np.testing.assert_array_equal(one.matrix, other.matrix)
        pd.testing.assert_frame_equal(one.records, other.records)
        assert nearest(one) == nearest(other)

    def test_a_damaged_vector_is_not_met(self, gallery_folder: Path) -> None:
        entry = read_manifest(gallery_folder).segments[1]
        with (gallery_folder / entry.file).open("r+b") as file:
            file.seek(entry.vectors_at + 70)
            file.write(b"\x41")
        with pytest.raises(GalleryError, match=rf"{entry.file}: the segment is damaged.*\(13 rows\)"):
            Gallery.open(gallery_folder)
        assert len(Gallery.open(gallery_folder, checked=False)) == 33
        [damaged] = verify_gallery(gallery_folder).damaged
        assert (damaged.file, damaged.rows) == (entry.file, 13)
        assert damaged.row_ids == tuple(f"row-{row:04d}" for row in range(20, 33))

    def test_a_damaged_record_is(self, gallery_folder: Path) -> None:
        entry = read_manifest(gallery_folder).segments[1]
        path = gallery_folder / entry.file
        path.write_bytes(path.read_bytes().replace(b"row-0025", b"row-0026"))
        with pytest.raises(GalleryError, match=rf"{entry.file}: the segment is damaged.*\(13 rows\)"):
            Gallery.open(gallery_folder, checked=False)
        [damaged] = verify_gallery(gallery_folder).damaged
        assert (damaged.file, damaged.row_ids) == (entry.file, ())

    def test_large_ones_are_opened_so_by_themselves(
        self, gallery_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        entry = read_manifest(gallery_folder).segments[0]
        with (gallery_folder / entry.file).open("r+b") as file:
            file.seek(entry.vectors_at)
            file.write(b"\x41\x41")
        for free, met in ((1 << 40, True), (4000, False)):
            monkeypatch.setattr("index.gallery.available_memory", lambda free=free: free)
            with pytest.raises(GalleryError) if met else contextlib.nullcontext():
                Gallery.open(gallery_folder)


class TestSkippingDamage:
    @pytest.mark.parametrize("damage", ["cut", "gone", "flipped", "other columns"])
    def test_the_rest_answers_and_the_loss_is_named(self, gallery_folder: Path, damage: str) -> None:
        manifest = read_manifest(gallery_folder)
        entry = manifest.segments[0]
        path = gallery_folder / entry.file
        data = path.read_bytes()
        if damage == "gone":
            path.unlink()
        elif damage == "other columns":
            columns = {name: kind for name, kind in manifest.columns.items() if name != "age"}
            write_manifest(gallery_folder, replace(manifest, columns=columns))
        else:
            path.write_bytes(data[:-1] if damage == "cut" else data[:3000] + bytes([data[3000] ^ 1]) + data[3001:])
        with pytest.raises(GalleryError, match=entry.file):
            Gallery.open(gallery_folder)
        gallery = Gallery.open(gallery_folder, skip_damaged=True)
        if damage == "other columns":
            assert (len(gallery), len(gallery.notes)) == (0, 2)
            return
        assert gallery.row_ids.tolist() == [f"row-{row:04d}" for row in range(20, 33)]
        assert gallery.numbers.tolist() == list(range(20, 33))
        [note] = gallery.notes
        assert entry.file in note
        assert "20 rows" in note
        assert gallery.index.search(gallery.matrix[:1], 30).positions.max() == 12
        assert gallery.thumbnail("row-0025") is not None

    def test_nothing_is_said_of_a_sound_gallery(self, gallery_folder: Path) -> None:
        gallery = Gallery.open(gallery_folder, skip_damaged=True)
        assert (len(gallery), gallery.notes) == (33, ())


@pytest.mark.parametrize("damage", ["gone", "cut", "flipped", "nonsense"])
def test_an_index_that_cannot_be_used_costs_time_only(gallery_folder: Path, index_engine: Any, damage: str) -> None:
    expected = answer(gallery_folder)
    rebuild_index(gallery_folder, {})
    entry = read_manifest(gallery_folder).index
    assert entry is not None
    gallery = Gallery.open(gallery_folder)
    assert gallery.index.description["engine"] == "stub"
    assert answer(gallery_folder) == expected
    path = gallery_folder / entry.cache.file
    data = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes({"cut": data[:-1], "flipped": b"X" + data[1:], "nonsense": b""}[damage])
    gallery = Gallery.open(gallery_folder)
    assert gallery.index.description["engine"] == "exact"
    [note] = gallery.notes
    assert "index rebuild" in note
    assert answer(gallery_folder) == expected
    [damaged] = verify_gallery(gallery_folder).damaged
    assert damaged.file == entry.cache.file
    repair_gallery(gallery_folder)
    assert verify_gallery(gallery_folder).ok
    assert Gallery.open(gallery_folder).index.description["engine"] == "stub"


def test_an_index_of_other_rows_is_not_used(
    gallery_folder: Path, index_engine: Any, make_gallery: Callable[..., Path], make_findings: Callable[..., Any]
) -> None:
    """Its digest may match: it must also be of these rows."""
    other = make_gallery(make_findings(31, seed=5), name="other")
    for folder in (gallery_folder, other):
        rebuild_index(folder, {})
    ours, theirs = read_manifest(gallery_folder), read_manifest(other)
    assert theirs.index is not None
    shutil.copy(other / theirs.index.cache.file, gallery_folder / theirs.index.cache.file)
    write_manifest(gallery_folder, replace(ours, index=theirs.index))
    gallery = Gallery.open(gallery_folder)
    assert gallery.index.description["engine"] == "exact"
    assert len(gallery.notes) == 1


@pytest.fixture
def read_only(gallery_folder: Path, tmp_path: Path) -> Iterator[Path]:
    """A gallery on a read-only file system."""
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
    before = all_files(read_only)
    with pytest.raises(GalleryError, match="can't be written"), GalleryWriter(read_only):
        pass
    for change in (remove_rows, repair_gallery):
        with pytest.raises(GalleryError, match="can't be written"):
            change(read_only, **({"patient": "W003"} if change is remove_rows else {}))
    assert verify_gallery(read_only).ok
    assert all_files(read_only) == before
