"""What is left of a gallery when its writer is killed, interrupted, out of room or on a failing disk."""

import contextlib
import errno
import gc
import os
import resource
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import gallery_crashes
from benchmarks.gallery_crashes import (
    IDENTITY,
    LAST,
    OPERATIONS,
    STORED,
    Operation,
    append,
    build,
    check,
    files_that_hold,
    in_child,
    prepare,
    stopping_at,
    try_kills,
)
from index import GalleryError, buffering
from index.layout import REMOVALS_NAME, stray_files
from index.manifest import MANIFEST_NAME, read_manifest
from index.upkeep import remove_rows, verify_gallery
from index.writer import GalleryWriter, create_gallery

BY_NAME = {operation.name: operation for operation in OPERATIONS}


@pytest.fixture(autouse=True)
def small_segments_with_an_index(monkeypatch: pytest.MonkeyPatch, index_engine: Any) -> None:
    monkeypatch.setattr(buffering, "SEGMENT_ROWS", 8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A gallery of rows 0 to 59 in three segments, with an index."""
    prepare(tmp_path / "gallery", BY_NAME["add"])
    return tmp_path / "gallery"


class TestKills:
    """A few here; `python -m benchmarks.gallery_crashes` tries every call, and more moments."""

    @pytest.mark.parametrize("name", sorted(BY_NAME))
    def test_what_is_left_is_a_whole_generation(self, tmp_path: Path, name: str) -> None:
        seed = [sorted(BY_NAME).index(name)]
        calls = {"build": 60, "build on": 80, "repair": 12, "add": 12}.get(name, 20)
        found = try_kills(BY_NAME[name], tmp_path, every=calls, moments=1, generator=np.random.default_rng(seed))
        assert found.problems == []
        assert (found.lost, found.torn, found.remains) == (0, 0, 0)
        assert found.kills_at_a_call >= 1
        assert found.kills_at_a_moment == 1

    def test_they_are_found_before_and_after_the_commit_and_leave_something_to_clean(self, tmp_path: Path) -> None:
        found = try_kills(BY_NAME["add"], tmp_path, every=5, moments=0, generator=np.random.default_rng(0))
        assert set(found.generations) == {3, 4}
        assert found.left_files > 0

    def test_what_is_wrong_would_be_found(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A writer that overwrites its manifest in place tears it; one that never sweeps leaves what was removed."""

        def in_place(path: Path, data: bytes) -> None:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.write(descriptor, data[:100])
            os.write(descriptor, data[100:])
            os.close(descriptor)

        with monkeypatch.context() as patch:
            patch.setattr("index.manifest.write_whole", in_place)
            found = try_kills(BY_NAME["add"], tmp_path / "torn", every=2, moments=0, generator=np.random.default_rng(0))
        assert found.torn > 0
        monkeypatch.setattr("index.writer.sweep", lambda folder, manifest: ())
        monkeypatch.setattr("index.writer.prove_removed", lambda folder, manifest, removed: None)
        found = try_kills(
            BY_NAME["remove a woman"], tmp_path / "left", every=25, moments=0, generator=np.random.default_rng(0)
        )
        assert found.remains + found.torn > 0

    def test_a_removal_that_was_cut_short_is_said_to_be_so(self, folder: Path) -> None:
        states = set()
        with stopping_at(0, False, lambda: None) as count:
            shutil.copytree(folder, folder.parent / "whole")
            remove_rows(folder.parent / "whole", patient="woman 000003")
        for call in [*range(1, count[0], 7), count[0]]:
            copy = folder.parent / f"killed-{call}"
            shutil.copytree(folder, copy)

            def run(copy: Path = copy, call: int = call) -> None:
                with stopping_at(call, True, gallery_crashes.kill_myself):
                    remove_rows(copy, patient="woman 000003")

            in_child(run)
            with GalleryWriter(copy):
                pass
            log = copy / REMOVALS_NAME
            last = log.read_text().splitlines()[-1] if log.exists() else ""
            state = next((s for s in ("undone", "unproven", "proven") if f'"{s}"' in last), "")
            assert (state in ("unproven", "proven")) == (12 not in check(copy))
            states.add(state)
        assert states == {"", "undone", "unproven", "proven"}


class TestPowerCuts:
    @pytest.mark.parametrize("name", sorted(BY_NAME))
    def test_all_is_durable_before_it_is_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        """The bytes of a file before its name, its name before the manifest that names it, the manifest in the end."""
        operation, folder = BY_NAME[name], tmp_path / "gallery"
        prepare(folder, operation)
        dirty: set[int] = set()  # inodes with bytes that a power cut could take
        undurable: dict[Path, set[str]] = {}  # by folder, names that it could take
        commits = 0
        write, replace, unlink = os.write, Path.replace, Path.unlink

        def note_write(descriptor: int, data: Any) -> int:
            dirty.add(os.fstat(descriptor).st_ino)
            return write(descriptor, data)

        def note_fsync(descriptor: int) -> None:
            dirty.discard(os.fstat(descriptor).st_ino)
            undurable.pop(Path(f"/proc/self/fd/{descriptor}").readlink(), None)

        def note_replace(path: Path, target: Path) -> Path:
            nonlocal commits
            assert path.stat().st_ino not in dirty
            if target.name == MANIFEST_NAME:
                commits += 1
                assert undurable == {}
                assert dirty == set()
            undurable.setdefault(target.parent.resolve(), set()).add(target.name)
            return replace(path, target)

        def note_unlink(path: Path, missing_ok: bool = False) -> None:
            # What the manifest on the disk may still name must not go.
            assert not any(MANIFEST_NAME in names for names in undurable.values())
            unlink(path, missing_ok=missing_ok)

        monkeypatch.setattr(os, "write", note_write)
        monkeypatch.setattr(os, "fsync", note_fsync)
        monkeypatch.setattr(Path, "replace", note_replace)
        monkeypatch.setattr(Path, "unlink", note_unlink)
        operation.run(folder)
        assert commits > 0
        assert (undurable, dirty) == ({}, set())


def states_of(operation: Operation, folder: Path) -> list[list[int]]:
    """Return the rows before an operation and after it."""
    before = check(folder)
    copy = folder.parent / "in peace"
    shutil.copytree(folder, copy)
    operation.run(copy)
    after = check(copy)
    shutil.rmtree(copy)
    return [before, after]


@pytest.mark.parametrize("name", ["add", "remove a woman", "compact", "rebuild the index"])
@pytest.mark.parametrize("failing", [False, True])
def test_an_interrupt_or_a_failing_disk_leaves_a_writer_that_can_go_on(folder: Path, name: str, failing: bool) -> None:
    operation = BY_NAME[name]
    states = states_of(operation, folder)
    with stopping_at(0, False, lambda: None) as count:
        shutil.copytree(folder, folder.parent / "counted")
        operation.run(folder.parent / "counted")

    def fail() -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO)) if failing else KeyboardInterrupt

    met = 0
    for call in range(2, count[0] + 1, 9):
        copy = folder.parent / f"failed-{call}"
        shutil.copytree(folder, copy)
        told = None
        try:
            with stopping_at(call, call % 4 == 1, fail):
                operation.run(copy)
        except (KeyboardInterrupt, GalleryError) as error:
            told = str(error)
        if told is not None:
            met += 1
            assert not failing or "Input/output error" in told
        rows = check(copy)
        assert rows in states
        with GalleryWriter(copy) as writer:
            append(writer, [LAST + 1, LAST + 2])
            assert writer.remove([f"row {LAST + 1:06d}"]) == 1
        assert check(copy) == [*rows, LAST + 2]
        assert stray_files(copy, read_manifest(copy)) == []
        assert verify_gallery(copy).ok
        shutil.rmtree(copy)
    assert met > 0


def test_the_same_writer_goes_on_after_an_interrupt(folder: Path) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with GalleryWriter(folder) as writer:
        for call in range(1, 60, 7):
            number = STORED + call
            try:
                with stopping_at(call, call % 2 == 0, interrupt):
                    append(writer, [number])
                    writer.remove([f"row {number:06d}"])
            except KeyboardInterrupt:
                continue
        append(writer, [LAST + 1])
        kept = check(folder)
        assert kept[:STORED] == list(range(STORED))
        assert kept[-1] == LAST + 1
        writer.remove([f"row {LAST + 1:06d}"])
        assert stray_files(folder, read_manifest(folder)) == []


@pytest.mark.parametrize("name", ["add", "compact", "remove a woman"])
def test_a_file_size_limit_leaves_what_was_stored(folder: Path, name: str) -> None:
    said = folder.parent / "said"
    before = check(folder)
    limit = 9000

    def run() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        try:
            if name == "add":
                with GalleryWriter(folder) as writer:
                    append(writer, range(STORED, STORED + 20))
            else:
                BY_NAME[name].run(folder)
        except GalleryError as error:
            said.write_text(str(error))

    assert in_child(run) == 0
    assert "larger than this system allows" in said.read_text()
    assert check(folder) == before
    assert stray_files(folder, read_manifest(folder)) == []


def on_a_small_disk(folder: Path, size: str, test: Callable[[Path], None]) -> None:
    """Run a test on a file system of a few hundred kilobytes."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("a small file system can be mounted by root only")
    try:
        test(folder)
    finally:
        gc.collect()  # what is still mapped keeps it busy
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_leaves_what_was_stored(tmp_path: Path) -> None:
    def test(mount: Path) -> None:
        folder = mount / "gallery"
        create_gallery(folder, IDENTITY)
        rows = 0
        with GalleryWriter(folder) as writer, contextlib.suppress(GalleryError):
            while rows < 5000:
                append(writer, range(rows, rows + 200))
                rows += 200
        assert 0 < rows < 5000
        assert check(folder) == list(range(rows))
        assert stray_files(folder, read_manifest(folder)) == []
        with GalleryWriter(folder) as writer, pytest.raises(GalleryError, match="the disk is full"):
            writer.compact()
        assert check(folder) == list(range(rows))
        with GalleryWriter(folder) as writer:  # a removal frees some space
            assert writer.remove([f"row {n:06d}" for n in range(200)]) == 200
            append(writer, [5000])
        assert check(folder) == [*range(200, rows), 5000]
        assert stray_files(folder, read_manifest(folder)) == []
        assert verify_gallery(folder).ok

    on_a_small_disk(tmp_path / "small", "300k", test)


def test_a_disk_that_fills_during_a_build_keeps_what_was_committed(tmp_path: Path) -> None:
    def test(mount: Path) -> None:
        folder = mount / "gallery"
        with pytest.raises(GalleryError, match="the disk is full"):
            build(folder, range(LAST))
        rows = check(folder)
        assert rows == list(range(len(rows)))
        assert 0 < len(rows) < LAST
        assert stray_files(folder, read_manifest(folder)) == []

    on_a_small_disk(tmp_path / "small", "100k", test)


def test_what_was_killed_leaves_nothing_of_a_removed_row(folder: Path) -> None:
    """What the check of the kills itself relies on."""
    assert files_that_hold(folder, [13]) != []
    remove_rows(folder, patient="woman 000003")
    assert files_that_hold(folder, [12, 13, 14, 15]) == []
    assert files_that_hold(folder, [16]) != []
