import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from index import GalleryError, QueryError
from index.gallery import Gallery
from index.layout import LOCK_NAME, all_files, stray_files
from index.manifest import MANIFEST_NAME, GalleryIdentity, read_manifest
from index.writer import GalleryWriter, create_gallery


def holds(folder: Path, needle: bytes) -> list[str]:
    """Return the files of a folder in which some bytes stand, at any offset."""
    return [name for name in all_files(folder) if needle in (folder / name).read_bytes()]


class TestCreation:
    def test_again_with_the_same_identity_is_fine(self, gallery_folder: Path, identity: GalleryIdentity) -> None:
        create_gallery(gallery_folder, identity)
        assert len(Gallery.open(gallery_folder)) == 33

    def test_another_model_is_refused_and_both_are_named(self, gallery_folder: Path, identity: GalleryIdentity) -> None:
        with pytest.raises(GalleryError) as error:
            create_gallery(gallery_folder, replace(identity, model_digest="f" * 64))
        assert identity.model_digest in str(error.value)
        assert "f" * 64 in str(error.value)

    def test_a_folder_with_something_else_is_left_alone(self, tmp_path: Path, identity: GalleryIdentity) -> None:
        (tmp_path / "thesis.txt").write_text("precious")
        with pytest.raises(GalleryError, match=r"not empty \(it holds thesis.txt\)"):
            create_gallery(tmp_path, identity)
        assert all_files(tmp_path) == ["thesis.txt"]
        with pytest.raises(GalleryError, match="not a folder"):
            create_gallery(tmp_path / "thesis.txt", identity)

    def test_what_an_interrupted_creation_left_is_taken_over(self, tmp_path: Path, identity: GalleryIdentity) -> None:
        (tmp_path / "segments").mkdir()
        (tmp_path / LOCK_NAME).write_text("{}")
        (tmp_path / f"{MANIFEST_NAME}.77.tmp").write_text("{")
        create_gallery(tmp_path, identity)
        with GalleryWriter(tmp_path) as writer:
            assert writer.cleaned == (f"{MANIFEST_NAME}.77.tmp",)

    def test_no_lock_is_left_in_a_folder_that_is_no_gallery(self, tmp_path: Path) -> None:
        with pytest.raises(GalleryError, match="not a gallery"), GalleryWriter(tmp_path):
            pass
        assert list(tmp_path.iterdir()) == []


class TestAppending:
    @pytest.fixture
    def writer(self, gallery_folder: Path) -> Iterator[GalleryWriter]:
        with GalleryWriter(gallery_folder) as writer:
            yield writer

    def test_each_append_is_one_generation(self, writer: GalleryWriter, make_findings: Callable[..., Any]) -> None:
        before = writer.generation
        for first in (40, 50):
            batch = make_findings(5, first=first)
            writer.append(batch.vectors, batch.records)
        gallery = Gallery.open(writer.folder)
        assert gallery.generation == writer.generation == before + 2
        assert len(gallery) == 43
        np.testing.assert_array_equal(gallery.vectors[-5:], batch.vectors)

    def test_nothing_is_no_generation(self, writer: GalleryWriter, make_findings: Callable[..., Any]) -> None:
        batch = make_findings(0)
        before = writer.generation
        writer.append(batch.vectors, batch.records)
        assert writer.generation == before
        assert writer.present(batch.records).stored.shape == (0,)

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda v: v.astype(np.float64), "float64"),
            (lambda v: v[:, :-1], "wanted"),
            (lambda v: v[:-1], "wanted"),
            (lambda v: v * np.float32(1.01), "row 1 is not of length 1"),
            (lambda v: np.where(np.arange(len(v))[:, None] == 3, np.nan, v).astype(np.float32), "row 4 is not"),
            (lambda v: v * np.float32(0), "row 1 is not of length 1"),
        ],
    )
    def test_vectors_that_do_not_fit(
        self, writer: GalleryWriter, make_findings: Callable[..., Any], change: Callable[..., Any], words: str
    ) -> None:
        batch = make_findings(5, first=40)
        with pytest.raises(GalleryError, match=words):
            writer.append(change(batch.vectors), batch.records)
        assert len(Gallery.open(writer.folder)) == 33

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"granularity": "breast"}, "keep findings and breasts in two galleries"),
            ({"row_id": "row-0099"}, "row-0099 stands twice"),
            ({"row_id": [f"row-{i:04d}" for i in range(30, 35)]}, "row-0030 is already stored"),
            ({"age": "old"}, "column age is of another kind"),
            ({"rank": 1}, "rank"),
            ({"patient_id": None}, "patient_id"),
        ],
    )
    def test_records_that_do_not_fit(
        self, writer: GalleryWriter, make_findings: Callable[..., Any], change: dict[str, Any], words: str
    ) -> None:
        batch = make_findings(5, first=40)
        with pytest.raises(GalleryError, match=words):
            writer.append(batch.vectors, batch.records.assign(**change))
        assert len(Gallery.open(writer.folder)) == 33

    @pytest.mark.parametrize("pictures", [[b"\x89PNG\r\n\x1a\n"] * 4, [b"GIF"] * 5])
    def test_thumbnails_that_do_not_fit(
        self, writer: GalleryWriter, make_findings: Callable[..., Any], pictures: list[bytes]
    ) -> None:
        batch = make_findings(5, first=40)
        with pytest.raises(GalleryError, match="one PNG file per row"):
            writer.append(batch.vectors, batch.records, pictures)

    def test_columns_may_come_and_go(self, writer: GalleryWriter, make_findings: Callable[..., Any]) -> None:
        batch = make_findings(5, first=40)
        records = batch.records.drop(columns="view").assign(age=[1, 2, 3, 4, 5], shape="round")
        writer.append(batch.vectors, records)
        stored = Gallery.open(writer.folder).records
        assert stored["view"].notna().sum() == 33
        assert stored["shape"].tolist()[-5:] == ["round"] * 5
        assert stored["age"].tolist()[-5:] == [1, 2, 3, 4, 5]


class TestTwoWriters:
    def test_the_second_is_refused_and_told_who_is_first(self, gallery_folder: Path) -> None:
        code = "import sys; from index.writer import GalleryWriter\nfrom pathlib import Path\n"
        code += "with GalleryWriter(Path(sys.argv[1])):\n print('in', flush=True); sys.stdin.read()"
        with subprocess.Popen(
            [sys.executable, "-c", code, str(gallery_folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as first:
            assert first.stdout is not None
            assert first.stdout.readline() == b"in\n"
            with pytest.raises(GalleryError, match=f"process {first.pid} on"), GalleryWriter(gallery_folder):
                pass
            assert len(Gallery.open(gallery_folder)) == 33  # readers are not kept waiting
            first.kill()
        with GalleryWriter(gallery_folder):
            pass


class TestRemoval:
    @pytest.mark.parametrize("rows", [[4], [0, 5, 21, 32], list(range(20)), list(range(33))])
    def test_nothing_is_left_in_any_file(
        self, gallery_folder: Path, make_findings: Callable[..., Any], rows: list[int]
    ) -> None:
        before = Gallery.open(gallery_folder)
        first, second = make_findings(20), make_findings(13, first=20)
        pictures = first.thumbnails + second.thumbnails
        with GalleryWriter(gallery_folder) as writer:
            writer.rebuild_cache()
            for row in rows:
                assert holds(gallery_folder, before.vectors[row].tobytes())
                assert holds(gallery_folder, pictures[row])
            assert writer.remove([f"row-{row:04d}" for row in rows]) == len(rows)
            writer.rebuild_cache()
        for row in rows:
            assert holds(gallery_folder, before.vectors[row].tobytes()) == []
            assert holds(gallery_folder, pictures[row]) == []
            assert holds(gallery_folder, f"row-{row:04d}".encode()) == []
        after = Gallery.open(gallery_folder)
        kept = [row for row in range(33) if row not in rows]
        np.testing.assert_array_equal(after.vectors, before.vectors[kept])
        assert after.row_ids.tolist() == before.row_ids[kept].tolist()
        assert [after.thumbnail(row_id) for row_id in after.row_ids] == [pictures[row] for row in kept]
        assert stray_files(gallery_folder, after.manifest) == []
        assert after.generation == before.generation + 1

    def test_a_mask_does_the_same(self, gallery_folder: Path) -> None:
        with GalleryWriter(gallery_folder) as writer:
            assert writer.remove(np.arange(33) % 2 == 0) == 17
            assert writer.row_ids == [f"row-{i:04d}" for i in range(1, 33, 2)]
            assert writer.remove(np.zeros(16, np.bool_)) == 0
            with pytest.raises(GalleryError, match="does not fit 16 rows"):
                writer.remove(np.ones(33, np.bool_))

    def test_a_row_that_is_not_there_removes_nothing(self, gallery_folder: Path) -> None:
        with GalleryWriter(gallery_folder) as writer, pytest.raises(QueryError, match="did you mean"):
            writer.remove(["row-0001", "row-00001"])
        assert len(Gallery.open(gallery_folder)) == 33

    def test_a_twin_that_stays_is_no_leftover(
        self, tmp_path: Path, identity: GalleryIdentity, make_findings: Callable[..., Any]
    ) -> None:
        batch = make_findings(4)
        batch.vectors[3] = batch.vectors[0]
        create_gallery(tmp_path, identity)
        with GalleryWriter(tmp_path) as writer:
            writer.append(batch.vectors, batch.records, [batch.thumbnails[0]] * 4)
            assert writer.remove(["row-0000"]) == 1

    def test_a_leftover_is_found(self, gallery_folder: Path) -> None:
        vector = Gallery.open(gallery_folder).vectors[4].tobytes()
        (gallery_folder / "copy.bin").write_bytes(b"abc" + vector + b"def")
        with GalleryWriter(gallery_folder) as writer, pytest.raises(GalleryError, match=r"copy\.bin: still holds"):
            writer.remove(["row-0004"])


# ---- Kills, interrupts and full disks. Each row's vector follows from its number, so that any state can be checked.


def numbered(numbers: list[int], dimension: int = 16) -> tuple[np.ndarray, pd.DataFrame]:
    vectors = np.stack([np.random.default_rng(n).normal(size=dimension) for n in numbers]).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    records = pd.DataFrame(
        {"row_id": [str(n) for n in numbers], "granularity": "finding", "patient_id": [str(n // 2) for n in numbers]}
    ).assign(dataset="d")
    return vectors, records


def stored(folder: Path) -> list[int]:
    """Return the numbers of the stored rows, having checked all of their content."""
    gallery = Gallery.open(folder)
    numbers = [int(row_id) for row_id in gallery.row_ids]
    if numbers:
        vectors, records = numbered(numbers)
        np.testing.assert_array_equal(gallery.vectors, vectors)
        assert gallery.records["patient_id"].tolist() == records["patient_id"].tolist()
    return numbers


@pytest.fixture
def numbered_gallery(tmp_path: Path, identity: GalleryIdentity) -> Path:
    folder = tmp_path / "numbered"
    create_gallery(folder, identity)
    with GalleryWriter(folder) as writer:
        writer.append(*numbered([0, 1, 2, 3]))
        writer.append(*numbered([4, 5]))
        writer.rebuild_cache()
    return folder


def change(writer: GalleryWriter) -> None:
    """Add rows, remove rows of several segments, and make the cache anew."""
    writer.append(*numbered([6, 7, 8]))
    writer.remove(["1", "4", "8"])
    writer.rebuild_cache()


STEPS = [[0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5, 6, 7, 8], [0, 2, 3, 5, 6, 7]]
CALLS = [(os, "write"), (os, "fsync"), (Path, "replace"), (Path, "unlink")]


@contextlib.contextmanager
def stopping_at(call: int, after: bool, stop: Callable[[], None]) -> Iterator[list[int]]:
    """Call `stop` before or after the given one of all calls that touch the disk."""
    count = [0]
    originals = [(owner, name, getattr(owner, name)) for owner, name in CALLS]

    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            count[0] += 1
            here = count[0] == call
            if here and not after:
                stop()
            result = original(*arguments, **options)
            if here and after:
                stop()
            return result

        return wrapped

    try:
        for owner, name, original in originals:
            setattr(owner, name, wrap(original))
        yield count
    finally:
        for owner, name, original in originals:
            setattr(owner, name, original)


def kill_myself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def in_child(action: Callable[[], None]) -> int:
    """Run something in a forked process; return its wait status."""
    child = os.fork()
    if child == 0:
        try:
            action()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def calls_of_a_change(folder: Path) -> int:
    with GalleryWriter(folder) as writer, stopping_at(0, False, lambda: None) as count:
        change(writer)
    return count[0]


def test_a_kill_at_every_call_leaves_a_whole_generation(
    tmp_path: Path, numbered_gallery: Path, identity: GalleryIdentity
) -> None:
    template = tmp_path / "template"
    shutil.copytree(numbered_gallery, template)
    calls = calls_of_a_change(numbered_gallery)
    assert stored(numbered_gallery) == STEPS[-1]
    seen, cleaned = set(), 0
    for call in range(1, calls + 1):
        folder = tmp_path / f"killed-{call}"
        shutil.copytree(template, folder)

        def run(folder: Path = folder, call: int = call) -> None:
            with GalleryWriter(folder) as writer, stopping_at(call, call % 2 == 0, kill_myself):
                change(writer)

        assert os.WTERMSIG(in_child(run)) == signal.SIGKILL
        rows = stored(folder)
        assert rows in STEPS
        seen.add(len(rows))
        strays = stray_files(folder, read_manifest(folder))
        with GalleryWriter(folder) as writer:
            assert list(writer.cleaned) == strays
            cleaned += len(strays)
            writer.append(*numbered([90]))
        assert stored(folder) == [*rows, 90]
        assert stray_files(folder, read_manifest(folder)) == []
        for number in {0, 1, 2, 3, 4, 5, 6, 7, 8} - set(rows):
            assert holds(folder, numbered([number])[0].tobytes()) == []
        shutil.rmtree(folder)
    assert seen == {6, 9} | {len(STEPS[-1])}
    assert cleaned > 5


def test_kills_at_random_moments(numbered_gallery: Path) -> None:
    rng = np.random.default_rng(0)
    rows = stored(numbered_gallery)

    def run() -> None:
        with GalleryWriter(numbered_gallery) as writer:
            while True:
                start = max(map(int, writer.row_ids)) + 1
                writer.append(*numbered(list(range(start, start + 40))))
                writer.remove([str(start + 3)])

    for _ in range(12):
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                run()
            os._exit(1)
        time.sleep(float(rng.uniform(0.01, 0.15)))
        os.kill(child, signal.SIGKILL)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
        after = stored(numbered_gallery)
        assert set(rows) <= {*after, *(row for row in rows if (row - 6) % 40 == 3)}
        assert len(set(after)) == len(after)
        rows = after
    assert len(rows) > 40
    with GalleryWriter(numbered_gallery):
        pass
    assert stray_files(numbered_gallery, read_manifest(numbered_gallery)) == []


def test_an_interrupt_at_any_call_leaves_a_writer_that_can_go_on(tmp_path: Path, numbered_gallery: Path) -> None:
    template = tmp_path / "template"
    shutil.copytree(numbered_gallery, template)
    calls = calls_of_a_change(numbered_gallery)

    def interrupt() -> None:
        raise KeyboardInterrupt

    for call in range(1, calls + 1, 2):
        folder = tmp_path / f"interrupted-{call}"
        shutil.copytree(template, folder)
        with GalleryWriter(folder) as writer:
            with pytest.raises(KeyboardInterrupt), stopping_at(call, call % 4 == 1, interrupt):
                change(writer)
            rows = stored(folder)
            assert rows in STEPS
            writer.append(*numbered([90, 91]))
            assert writer.remove(["90"]) == 1
        assert stored(folder) == [*rows, 91]
        assert stray_files(folder, read_manifest(folder)) == []
        shutil.rmtree(folder)


def test_a_file_size_limit_leaves_what_was_stored(numbered_gallery: Path) -> None:
    said = numbered_gallery.parent / "said"

    def run() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (16_384, 16_384))
        with GalleryWriter(numbered_gallery) as writer:
            try:
                writer.append(*numbered(list(range(10, 400))))
            except GalleryError as error:
                said.write_text(str(error))

    assert in_child(run) == 0
    assert "larger than this system allows" in said.read_text()
    assert stored(numbered_gallery) == STEPS[0]
    assert stray_files(numbered_gallery, read_manifest(numbered_gallery)) == []


def test_a_full_disk_leaves_what_was_stored(tmp_path: Path, identity: GalleryIdentity) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", str(mount)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("a small file system can be mounted by root only")
    try:
        folder = mount / "gallery"
        create_gallery(folder, identity)
        committed = 0

        def fill(writer: GalleryWriter) -> None:
            nonlocal committed
            while True:
                writer.append(*numbered(list(range(committed, committed + 200))))
                committed += 200

        with GalleryWriter(folder) as writer, pytest.raises(GalleryError, match="the disk is full"):
            fill(writer)
        assert committed > 0
        assert stored(folder) == list(range(committed))
        assert stray_files(folder, read_manifest(folder)) == []
        with GalleryWriter(folder) as writer:  # a removal frees some space
            assert writer.remove([str(n) for n in range(200)]) == 200
            writer.append(*numbered([5000]))
        assert stored(folder) == [*range(200, committed), 5000]
    finally:
        subprocess.run(["umount", mount], check=True)
