"""Opening a large gallery, and adding to it beside adding to an empty one.

    python -m benchmarks.gallery_upkeep --vectors FOLDER --work WORK -o benchmarks/results/gallery-upkeep.csv

The gallery's rows are of patients of four rows each, as in an archive. Each measurement is a process of its own, which
begins to take the time when all modules are loaded.

- `open`: `Gallery.open` with its index, digests of all vectors checked or not; seconds, the most memory that the
  process held meanwhile as a share of the vectors' bytes, and the same after a first answered query.
- `add`: 1,000 findings by `index.upkeep.build_gallery`, which is what `mammoseek index add` calls once vectors are
  there, until they are durable: segment, manifest, and the caches where they are due. In turn to the large gallery and
  to an empty one; the ratio is within each turn. `append`: the same by `GalleryWriter.append` alone. What is added is
  removed again after the turns, so that the gallery can be used again.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.peer_data import Floats, make_records
from benchmarks.peer_process import peak_bytes
from errors import MammoseekError
from index.answers import Question
from index.gallery import Gallery
from index.manifest import read_manifest
from index.retrieval import ask
from index.upkeep import build_gallery
from index.writer import GalleryWriter, create_gallery

ADDED = 1000
ROWS_OF_A_WOMAN = 4


@dataclass(frozen=True, eq=False)
class Embedded:
    """Findings with vectors, as `index.upkeep.build_gallery` takes them from an embedder."""

    records: pd.DataFrame
    vectors: Floats
    thumbnails: list[bytes] | None = None
    failures: list[tuple[str, str]] = field(default_factory=list)


def main() -> None:
    """Run the benchmark, or one measurement of it in this process."""
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(**json.loads(sys.argv[2]))))
        return
    from benchmarks.gallery_turns import gallery_parser
    from benchmarks.setting import errors_told

    arguments = gallery_parser(str(__doc__)).parse_args()
    with errors_told():
        run(arguments)


def run(arguments: argparse.Namespace) -> None:
    """Measure, print and write.

    Args:
        arguments: As the parser gives them.

    Raises:
        MammoseekError: The vectors are not there, the gallery can't be made, or a measurement failed.
    """
    from benchmarks.gallery_search import prepared_gallery
    from benchmarks.gallery_turns import write_table
    from benchmarks.setting import work_folder

    with work_folder(arguments.work) as work:
        folder = prepared_gallery(work, arguments.vectors, arguments.rows, arguments.threads, ROWS_OF_A_WOMAN)
        rows = open_rows(folder, arguments.repeats) + add_rows(folder, arguments.repeats)
    write_table([{"rows": arguments.rows, **row} for row in rows], arguments.output, arguments.threads)


def open_rows(folder: Path, repeats: int) -> list[dict[str, Any]]:
    """Return the table of opening a gallery.

    Args:
        folder: The gallery.
        repeats: Processes of each kind.
    """
    vector_bytes = read_manifest(folder).vector_bytes
    rows = []
    for checked in (True, False):
        found = [apart("open", folder, checked=checked) for _ in range(repeats)]
        middle = {name: statistics.median(each[name] for each in found) for name in found[0]}
        rows.append(
            {
                "what": "open, every vector's digest checked" if checked else "open, vectors not digested",
                "repeats": repeats,
                "seconds": round(middle["seconds"], 3),
                "vector_megabytes": round(vector_bytes / 1e6),
                "peak_megabytes": round(middle["peak"] / 1e6),
                "megabytes_before": round(middle["before"] / 1e6),
                "peak_to_vectors": round(middle["peak"] / vector_bytes, 3),
                "first_answer_seconds": round(middle["answer_seconds"], 3),
                "peak_to_vectors_after_answer": round(middle["answer_peak"] / vector_bytes, 3),
            }
        )
    return rows


def add_rows(folder: Path, repeats: int) -> list[dict[str, Any]]:
    """Return the table of adding, and leave the gallery with the rows that it had.

    Args:
        folder: The gallery.
        repeats: Turns.
    """
    rows = []
    for way in ("add", "append"):
        spent: dict[str, list[float]] = {"large": [], "empty": []}
        for turn in range(repeats):
            with tempfile.TemporaryDirectory(prefix="empty-", dir=folder.parent) as place:
                empty = Path(place) / "gallery"
                create_gallery(empty, read_manifest(folder).identity)
                for name, gallery in (("large", folder), ("empty", empty)):
                    spent[name].append(apart(way, gallery, seed=turn)["seconds"])
        with GalleryWriter(folder) as writer:
            writer.remove([row for seed in range(repeats) for row in new_rows(seed)["row_id"]], reason="rows")
        ratios = [large / empty for large, empty in zip(spent["large"], spent["empty"], strict=True)]
        rows.append(
            {
                "what": f"{ADDED} rows, {way}",
                "repeats": repeats,
                "seconds": round(statistics.median(spent["large"]), 3),
                "seconds_empty": round(statistics.median(spent["empty"]), 3),
                "ratio": round(statistics.median(ratios), 2),
                "ratio_low": round(min(ratios), 2),
                "ratio_high": round(max(ratios), 2),
            }
        )
    return rows


def apart(what: str, folder: Path, **options: Any) -> dict[str, float]:
    """Measure in a process of its own.

    Raises:
        MammoseekError: It failed; its last words are in the message.
    """
    asked = json.dumps({"what": what, "folder": str(folder), **options})
    command = [sys.executable, "-m", "benchmarks.gallery_upkeep", "--measure", asked]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise MammoseekError(what, f"the process failed: {'; '.join(done.stderr.strip().splitlines()[-3:])}")
    found: dict[str, float] = json.loads(done.stdout)
    return found


def measure(what: str, folder: str, *, checked: bool = True, seed: int = 0) -> dict[str, float]:
    """Do one thing to a gallery and say what it took.

    Args:
        what: open, add or append.
        folder: The gallery.
        checked: For open: whether every vector is digested.
        seed: For add and append: which rows.

    Returns:
        `seconds`; for open also `peak`, and `answer_seconds` and `answer_peak` after a first query, in bytes,
        and `before`, what the process held when all modules were loaded.
    """
    place = Path(folder)
    if what == "open":
        before = peak_bytes()
        start = time.perf_counter()
        gallery = Gallery.open(place, checked=checked)
        gallery.index  # noqa: B018 - reads the index, which is part of opening
        opened, peak = time.perf_counter() - start, peak_bytes()
        ask(gallery, unit_vectors(0, 1, gallery.identity.dimension)[0], Question(), patient_key=gallery.patient_key(0))
        answered = time.perf_counter() - start
        found = {"seconds": opened, "before": before, "peak": peak}
        return {**found, "answer_seconds": answered, "answer_peak": peak_bytes()}
    identity = read_manifest(place).identity
    embedded = Embedded(new_rows(seed), unit_vectors(seed, ADDED, identity.dimension))
    start = time.perf_counter()
    if what == "add":
        build_gallery(place, identity, embedded.records, lambda rows: [embedded])
    else:
        with GalleryWriter(place) as writer:
            writer.append(embedded.vectors, embedded.records)
    return {"seconds": time.perf_counter() - start}


def new_rows(seed: int) -> pd.DataFrame:
    """Return records of rows that no gallery has yet."""
    records = make_records(np.arange(1, ADDED + 1, dtype=np.int32))
    names = [f"new-{seed:03d}-{number:04d}" for number in range(ADDED)]
    return records.assign(row_id=names, patient_id=[f"new-{name}" for name in names])


def unit_vectors(seed: int, rows: int, dimension: int) -> npt.NDArray[np.float32]:
    """Return float32 (rows, dimension) at random, of unit length."""
    vectors = np.random.default_rng(seed).standard_normal((rows, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


if __name__ == "__main__":
    main()
