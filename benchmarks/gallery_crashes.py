"""Kills every write operation of a gallery, at each call that touches the disk and at random moments, and looks.

    python -m benchmarks.gallery_crashes -o benchmarks/results/gallery-crashes.csv

Every row's vector, record and picture follow from its number, so that any gallery can be checked whole. An operation
runs in a child process that is ended by SIGKILL: before or after the n-th call that writes, renames, deletes or makes
durable, for every n, and then at moments drawn at random. What is left must be the last generation that was committed,
complete: it opens, every digest is right, its index answers, every row is what it was. The next writer deletes what
the dead one left, says so, and goes on; no byte of a row that is not stored is in any file then. No step of this is
done by hand.

A kill leaves what was written to the system, as a power cut does not: that every file is made durable before the
manifest names it is tested by the order of the calls, in tests/index/test_crashes.py.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from errors import MammoseekError
from index import buffering
from index.gallery import Gallery
from index.indexing import rebuild_index, refresh_precedents
from index.layout import all_files, stray_files
from index.manifest import MANIFEST_NAME, GalleryIdentity, read_manifest
from index.repair import repair_gallery
from index.segments import PNG_SIGNATURE
from index.upkeep import build_gallery, remove_rows, verify_gallery
from index.writer import GalleryWriter, create_gallery

DIMENSION = 16
IDENTITY = GalleryIdentity("a" * 64, "b" * 64, "finding", DIMENSION)
STORED = 60
"""Rows of the gallery that is operated on; rows up to `LAST` are what an operation may add."""
LAST = 100

ENGINE = "IDMap,SQfp16"
"""An index for few rows, which holds a copy of each vector."""

CALLS: tuple[tuple[Any, str], ...] = (
    (os, "open"), (os, "write"), (os, "pwrite"), (os, "fsync"), (os, "ftruncate"),
    (Path, "replace"), (Path, "unlink"), (Path, "mkdir"),
)  # fmt: skip
"""Every call by which a gallery's writer touches the disk."""


def vectors_of(numbers: Sequence[int]) -> npt.NDArray[np.float32]:
    """Return the vectors of some rows, float32 (n, 16)."""
    vectors = np.stack([np.random.default_rng(n).normal(size=DIMENSION) for n in numbers]).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def records_of(numbers: Sequence[int]) -> pd.DataFrame:
    """Return the records of some rows: four of each woman."""
    ids = [f"row {n:06d}" for n in numbers]
    women = [f"woman {n // 4:06d}" for n in numbers]
    return pd.DataFrame({"row_id": ids, "granularity": "finding", "patient_id": women, "age": numbers}).assign(
        dataset="d"
    )


def pictures_of(numbers: Sequence[int]) -> list[bytes]:
    """Return the pictures of some rows."""
    return [PNG_SIGNATURE + np.random.default_rng([n, 1]).bytes(40) for n in numbers]


def append(writer: GalleryWriter, numbers: Sequence[int]) -> None:
    """Store some rows as one segment."""
    writer.append(vectors_of(numbers), records_of(numbers), pictures_of(numbers))


def build(folder: Path, numbers: Sequence[int]) -> None:
    """Build a gallery of some rows, eight at a time."""

    def embed(todo: pd.DataFrame) -> Iterator[Any]:
        for start in range(0, len(todo), 8):
            part = todo.iloc[start : start + 8]
            own = part["age"].tolist()
            yield SimpleNamespace(records=part, vectors=vectors_of(own), thumbnails=pictures_of(own), failures=[])

    build_gallery(folder, IDENTITY, records_of(numbers), embed)


def check(folder: Path) -> list[int]:
    """Return the numbers of the stored rows, having checked all of their content.

    Raises:
        AssertionError: Something is not as it was stored.
    """
    gallery = Gallery.open(folder)
    numbers = [int(row_id[4:]) for row_id in gallery.row_ids]
    if numbers:
        assert gallery.matrix.tobytes() == vectors_of(numbers).tobytes()
        expected = records_of(numbers)
        assert all(gallery.records[name].tolist() == expected[name].tolist() for name in expected)
        assert [gallery.thumbnail(row_id) for row_id in gallery.row_ids] == pictures_of(numbers)
        nearest = gallery.index.search(gallery.matrix[:3], 1)
        assert nearest.positions[:, 0].tolist() == list(range(min(3, len(numbers))))
    assert (np.diff(gallery.numbers) > 0).all()
    assert gallery.notes == ()
    return numbers


@dataclass(frozen=True)
class Operation:
    """Something that changes a gallery.

    Attributes:
        name: What it is.
        run: Does it, given the gallery's folder.
        empty: Whether it starts where there is no gallery.
    """

    name: str
    run: Callable[[Path], object]
    empty: bool = False


def _add(folder: Path) -> None:
    with GalleryWriter(folder) as writer:
        append(writer, range(STORED, STORED + 20))


def _compact(folder: Path) -> None:
    with GalleryWriter(folder) as writer:
        writer.compact()


def _store_precedents(folder: Path) -> None:
    with GalleryWriter(folder) as writer:
        writer.store_precedents(b"other precedents")
        refresh_precedents(writer)


OPERATIONS = (
    Operation("build", lambda folder: build(folder, range(40)), empty=True),
    Operation("build on", lambda folder: build(folder, range(LAST))),
    Operation("add", _add),
    Operation("remove a woman", lambda folder: remove_rows(folder, patient="woman 000003")),
    Operation("remove rows of every segment", lambda folder: remove_rows(folder, where="age in (1, 33, 59)")),
    Operation("remove a whole segment", lambda folder: remove_rows(folder, where="age < 32")),
    Operation("compact", _compact),
    Operation("rebuild the index", lambda folder: rebuild_index(folder, {})),
    Operation("store precedents", _store_precedents),
    Operation("repair", lambda folder: repair_gallery(folder, drop_damaged=True)),
)


def prepare(folder: Path, operation: Operation) -> None:
    """Make the gallery that an operation starts from: several segments, one of them in need of removal, an index."""
    if operation.empty:
        return
    create_gallery(folder, IDENTITY)
    with GalleryWriter(folder) as writer:
        for start, stop in ((0, 32), (32, 40), (40, STORED)):
            append(writer, range(start, stop))
    rebuild_index(folder, {"engine": ENGINE})
    if operation.name == "repair":
        (folder / read_manifest(folder).segments[1].file).write_bytes(b"damaged")


@contextlib.contextmanager
def stopping_at(call: int, after: bool, stop: Callable[[], None]) -> Iterator[list[int]]:
    """Call `stop` before or after the given one of all calls that touch the disk; yield how many there were so far."""
    count = [0]
    originals = [(owner, name, getattr(owner, name)) for owner, name in CALLS]

    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            count[0] += 1
            here = count[0] == call
            if here and not after:
                stop()
            try:
                return original(*arguments, **options)
            finally:
                if here and after:
                    stop()

        return wrapped

    try:
        for owner, name, original in originals:
            setattr(owner, name, wrap(original))
        yield count
    finally:
        for owner, name, original in originals:
            setattr(owner, name, original)


def in_child(action: Callable[[], object], *, killed_after: float | None = None) -> int:
    """Run something in a forked process, kill it after some seconds, and return its wait status."""
    child = os.fork()
    if child == 0:
        try:
            action()
        except BaseException:
            os._exit(1)
        os._exit(0)
    if killed_after is not None:
        time.sleep(killed_after)
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def kill_myself() -> None:
    """End this process as `kill -9` does."""
    os.kill(os.getpid(), signal.SIGKILL)


@dataclass
class Found:
    """What the kills of one operation left.

    Attributes:
        operation: Its name.
        disk_calls: Calls by which it touches the disk.
        kills_at_a_call: Kills before or after one of these.
        kills_at_a_moment: Kills at a random moment.
        too_late: Of these, how many came when it had finished.
        generations: Which generations were found, and how often each.
        left_files: Files that a killed writer had left behind, and that the next one deleted and named.
        lost: Galleries that lacked a committed row, or held one of an uncommitted generation.
        torn: Galleries that did not open, failed a digest or had a row of another content.
        remains: Galleries in which, after the next writer, a row that is not stored was in a file.
    """

    operation: str
    disk_calls: int = 0
    kills_at_a_call: int = 0
    kills_at_a_moment: int = 0
    too_late: int = 0
    generations: dict[int, int] = field(default_factory=dict)
    left_files: int = 0
    lost: int = 0
    torn: int = 0
    remains: int = 0
    problems: list[str] = field(default_factory=list)


class Trial:
    """One operation, killed again and again.

    Args:
        operation: Which.
        workplace: A folder for its galleries.
    """

    def __init__(self, operation: Operation, workplace: Path) -> None:
        self._operation = operation
        self._template, self._folder = workplace / "template", workplace / "killed"
        prepare(self._template, operation)
        self.found = Found(operation.name)
        self._expected = self._watch(workplace / "watched")

    def _watch(self, folder: Path) -> dict[int, list[int]]:
        """Run the operation in peace and return the rows of every generation; those before it too."""
        self._copy(folder)
        rows: dict[int, list[int]] = {}

        def note() -> None:
            if (folder / MANIFEST_NAME).exists():
                with contextlib.suppress(MammoseekError):  # a segment that is to be repaired
                    gallery = Gallery.open(folder)
                    rows[gallery.generation] = [int(row_id[4:]) for row_id in gallery.row_ids]

        note()
        replace = Path.replace

        def replace_and_note(path: Path, target: Path) -> Path:
            result = replace(path, target)
            if Path(target).name == MANIFEST_NAME:
                note()
            return result

        start = time.perf_counter()
        with stopping_at(0, False, lambda: None) as count:
            self._operation.run(folder)
        self.seconds = time.perf_counter() - start
        self.found.disk_calls = count[0]
        shutil.rmtree(folder)
        self._copy(folder)
        Path.replace = replace_and_note  # type: ignore[method-assign, assignment]
        try:
            self._operation.run(folder)
        finally:
            Path.replace = replace  # type: ignore[method-assign]
        shutil.rmtree(folder)
        return rows

    def kill_at_call(self, call: int, after: bool) -> None:
        """Kill it before or after one of its calls, and look."""

        def run() -> None:
            with stopping_at(call, after, kill_myself):
                self._operation.run(self._folder)

        self._copy(self._folder)
        status = in_child(run)
        assert os.WIFSIGNALED(status), f"{self._operation.name} was not killed at call {call}"
        self.found.kills_at_a_call += 1
        self._look(f"{'after' if after else 'before'} call {call}")

    def kill_at_moment(self, share: float) -> None:
        """Kill it after a share of the time that it takes, and look."""
        self._copy(self._folder)
        status = in_child(lambda: self._operation.run(self._folder), killed_after=share * self.seconds)
        self.found.kills_at_a_moment += 1
        self.found.too_late += not os.WIFSIGNALED(status)
        self._look(f"after {share:.2f} of its time")

    def _copy(self, folder: Path) -> None:
        if folder.exists():
            shutil.rmtree(folder)
        if self._template.exists():
            shutil.copytree(self._template, folder)

    def _look(self, when: str) -> None:
        folder, found = self._folder, self.found
        if not (folder / MANIFEST_NAME).exists():
            if not self._operation.empty:
                found.torn += 1
                found.problems.append(f"{when}: no manifest")
                return
            found.generations[-1] = found.generations.get(-1, 0) + 1
            create_gallery(folder, IDENTITY)  # an interrupted creation is taken over
        if self._operation.name == "repair":
            repair_gallery(folder, drop_damaged=True)  # said again, as a user would
        try:
            rows = check(folder)
            assert verify_gallery(folder).ok
            generation = read_manifest(folder).generation
            strays = stray_files(folder, read_manifest(folder))
            with GalleryWriter(folder) as writer:
                assert list(writer.cleaned) == strays
                append(writer, [LAST + 1])
            assert check(folder) == [*rows, LAST + 1]
            assert stray_files(folder, read_manifest(folder)) == []
        except (AssertionError, MammoseekError) as error:
            found.torn += 1
            found.problems.append(f"{when}: {error!r}")
            return
        found.left_files += len(strays)
        found.generations[generation] = found.generations.get(generation, 0) + 1
        if generation and rows != self._expected.get(generation):
            found.lost += 1
            found.problems.append(f"{when}: generation {generation} holds the rows {rows}")
        gone = sorted(set(range(LAST)) - set(rows))
        if gone and (names := files_that_hold(folder, gone)):
            found.remains += 1
            found.problems.append(f"{when}: {names[0]} still holds a row that is not stored")


def files_that_hold(folder: Path, numbers: Sequence[int]) -> list[str]:
    """Return the files in which something of some rows stands: its name, its picture, its vector in any precision."""
    vectors = vectors_of(numbers)
    needles = [v.tobytes() for v in vectors] + [v.tobytes() for v in vectors.astype(np.float16)]
    needles += [f"row {n:06d}".encode() for n in numbers] + pictures_of(numbers)
    found = []
    for name in all_files(folder):
        data = (folder / name).read_bytes()
        if any(needle in data for needle in needles):
            found.append(name)
    return found


def try_kills(
    operation: Operation, workplace: Path, *, every: int, moments: int, generator: np.random.Generator
) -> Found:
    """Kill an operation at every n-th call, in turn before and after it, and at some random moments.

    Args:
        operation: Which.
        workplace: An empty folder.
        every: 1 for each call and both sides of it; n for every n-th of these.
        moments: How many random moments.
        generator: Draws them.
    """
    trial = Trial(operation, workplace)
    sides = [(call, after) for call in range(1, trial.found.disk_calls + 1) for after in (False, True)]
    for call, after in sides[int(generator.integers(every)) :: every]:
        trial.kill_at_call(call, after)
    for _ in range(moments):
        trial.kill_at_moment(float(generator.uniform()))
    return trial.found


def main() -> None:
    """Run the benchmark, print its table and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, help="a CSV file for the table")
    parser.add_argument("--moments", type=int, default=30, help="random moments of each operation")
    parser.add_argument("--every", type=int, default=1, help="kill at every n-th call only")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    generator = np.random.default_rng(arguments.seed)
    buffering.SEGMENT_ROWS = 8
    found = []
    for operation in OPERATIONS:
        with tempfile.TemporaryDirectory(prefix="mammoseek-crashes-") as folder:
            found.append(
                try_kills(
                    operation, Path(folder), every=arguments.every, moments=arguments.moments, generator=generator
                )
            )
        print(_line(found[-1]), flush=True)
    report(found, arguments.output)
    if any(one.problems for one in found):
        sys.exit("\n".join(problem for one in found for problem in one.problems))


def report(found: Sequence[Found], output: Path | None) -> None:
    """Print how many kills there were in all, and write the table with the machine's name below it."""
    from benchmarks.setting import machine_line  # loads torch, which a process that forks is better without

    table = pd.DataFrame([asdict(one) for one in found]).drop(columns="problems")
    table["generations"] = [json.dumps(generations) for generations in table["generations"]]
    kills = int(table["kills_at_a_call"].sum() + table["kills_at_a_moment"].sum())
    bad = int(table[["lost", "torn", "remains"]].to_numpy().sum())
    left = int(table["left_files"].sum())
    print(f"{kills} kills, {left} files left behind and cleaned, {bad} galleries not as they should be")
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(table.to_csv(index=False) + f"# {machine_line()}\n")


def _line(found: Found) -> str:
    kills = found.kills_at_a_call + found.kills_at_a_moment
    bad = found.lost + found.torn + found.remains
    return f"{found.operation}: {kills} kills, {found.left_files} files cleaned, {bad} bad; found {found.generations}"


if __name__ == "__main__":
    main()
