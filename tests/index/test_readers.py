"""Many processes read a gallery while one writes to it: whatever they are told was true of some generation."""

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.gallery_crashes import IDENTITY, append, vectors_of
from index import GalleryError
from index.filters import parse_filter
from index.gallery import Gallery
from index.indexing import rebuild_index
from index.upkeep import remove_rows, verify_gallery
from index.writer import GalleryWriter, create_gallery

READERS = 50
AT_ONCE = 10
K = 5
QUERIES = vectors_of([9001, 9002, 9003])


def expected(rows: Sequence[int]) -> list[list[str]]:
    """Return the nearest rows of each query by the slow obvious way: those of an even number may answer."""
    even = np.array([row for row in rows if row % 2 == 0])
    similarities = QUERIES.astype(np.float64) @ vectors_of(even.tolist()).astype(np.float64).T
    return [[f"row {row:06d}" for row in even[np.argsort(-line)[:K]]] for line in similarities]


def answer(gallery: Gallery) -> list[list[str]]:
    even = gallery.table.column("age").cells % 2 == 0
    hits = gallery.index.search(QUERIES, K, allowed=even)
    return [gallery.names_of(line[line >= 0]).tolist() for line in hits.positions]


def read(folder: Path, until: Path, notes: Path) -> None:
    """Open the gallery again and again, ask it at once and once more a little later, and write down what it said."""
    told: list[Any] = []
    changed = 0
    while not until.exists() or not told:
        gallery = Gallery.open(folder, checked=len(told) % 2 == 0)
        first = answer(gallery)
        passing = int(gallery.passing(parse_filter("age >= 0")).sum())
        time.sleep(0.002)
        assert answer(gallery) == first
        assert passing == len(gallery) == len(gallery.records)
        try:
            assert gallery.thumbnail(gallery.row_id(0)) is not None
        except GalleryError as error:
            if "has changed" not in str(error):
                raise
            changed += 1
        told.append([gallery.generation, len(gallery), first])
    notes.write_text(json.dumps({"told": told, "changed": changed}))


def write(folder: Path, until: Path, notes: Path) -> None:
    """Add, remove, compact and index for a while, and write down which rows there are in each generation."""
    rows: dict[int, list[int]] = {}

    def note() -> None:
        gallery = Gallery.open(folder)
        rows[gallery.generation] = [int(row_id[4:]) for row_id in gallery.row_ids]

    note()
    following = 40
    while not until.exists() or len(rows) < 12:
        with GalleryWriter(folder) as writer:
            for _ in range(3):
                append(writer, range(following, following + 8))
                following += 8
                note()
            writer.remove([f"row {following - 3:06d}", f"row {following - 12:06d}"])
            note()
            if len(rows) % 3 == 0:
                writer.compact()
                note()
        gallery = Gallery.open(folder)
        if len(gallery) > 60:
            remove_rows(folder, row_ids=gallery.row_ids[10:40].tolist())
            note()
        if len(rows) % 4 == 0:
            rebuild_index(folder, {})
    notes.write_text(json.dumps(rows))


def test_every_answer_is_that_of_a_committed_generation(tmp_path: Path, index_engine: Any) -> None:
    folder, until, notes = tmp_path / "gallery", tmp_path / "stop", tmp_path / "notes"
    notes.mkdir()
    create_gallery(folder, IDENTITY)
    with GalleryWriter(folder) as writer:
        append(writer, range(40))
    rebuild_index(folder, {})
    children = [start(lambda: write(folder, until, notes / "writer.json"))]
    left = [f"reader-{number}.json" for number in range(READERS)]
    # A few readers at once; each of the fifty reads for a part of the time.
    while left:
        stop = tmp_path / f"stop-{len(left)}"
        batch, left = left[:AT_ONCE], left[AT_ONCE:]
        readers = [start(lambda name=name, stop=stop: read(folder, stop, notes / name)) for name in batch]
        time.sleep(0.25)
        stop.touch()
        assert [os.waitpid(reader, 0)[1] for reader in readers] == [0] * len(batch)
    until.touch()
    assert os.waitpid(children[0], 0)[1] == 0
    generations = {int(key): rows for key, rows in json.loads((notes / "writer.json").read_text()).items()}
    answers = {generation: [len(rows), expected(rows)] for generation, rows in generations.items()}
    seen, count = set(), 0
    for number in range(READERS):
        for generation, rows, told in json.loads((notes / f"reader-{number}.json").read_text())["told"]:
            assert [rows, told] == answers[generation]
            seen.add(generation)
            count += 1
    assert count >= READERS
    assert len(seen) >= 5
    assert verify_gallery(folder).ok


def start(action: Any) -> int:
    """Start a forked process; its errors go to the test's own output."""
    child = os.fork()
    if child == 0:
        import traceback

        try:
            action()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return child


def test_a_reader_that_meets_a_change_at_every_step_still_gets_a_generation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of its first attempts finds the files of its manifest replaced."""
    folder = tmp_path / "gallery"
    create_gallery(folder, IDENTITY)
    with GalleryWriter(folder) as writer:
        append(writer, range(40))
    read_manifest, left = Gallery.open.__globals__["read_manifest"], [3]

    def read_and_change(place: Path) -> Any:
        manifest = read_manifest(place)
        if left[0]:
            left[0] -= 1
            monkeypatch.setattr("index.gallery.read_manifest", read_manifest)
            remove_rows(folder, row_ids=[f"row {left[0]:06d}"])
            monkeypatch.setattr("index.gallery.read_manifest", read_and_change)
        return manifest

    monkeypatch.setattr("index.gallery.read_manifest", read_and_change)
    assert len(Gallery.open(folder)) == 37
