"""Searching a large gallery by the public query call: exact beside bare FAISS, and the engine `auto` beside exact.

    python -m benchmarks.gallery_search --vectors FOLDER --work WORK --parts exact -o RESULTS/gallery-exact.csv
    python -m benchmarks.gallery_search --vectors FOLDER --work WORK --parts auto -o RESULTS/gallery-auto.csv

All ways of asking are timed in turn within one process on the same queries with the same threads, at 1, 64 and 1,000
queries a call; ratios are to the yardstick beside it in the same turn, above 1 is faster.

- `exact`: `index.retrieval.ask_many` with exact search beside `faiss.IndexFlatIP`, which neither filters nor excludes.
  Each query names a woman of the gallery, whose rows must not answer. The filter lets all rows pass, so that no row
  less is compared; a second one lets half of them pass; the third way is the question as it is asked by default, at
  most one row of each woman. At one query a call, `own_ms` is what our call takes beside the search of its engine:
  checks, exclusion and the description of the answer.
- `auto`: the same call with the engine that `auto` chose beside the same call with exact search, and which share of the
  10 nearest rows it finds, with a 95 % interval over the queries' women. Its parameters were found on other questions:
  rows of the gallery.
"""

import argparse
import shutil
import statistics
import time
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from benchmarks.gallery_turns import Way, calls_for, gallery_parser, in_turn, recall_columns, write_table
from benchmarks.peer_data import Floats, VectorSet, load_vectors, plain_search, recalls
from benchmarks.peer_engines import Source
from benchmarks.peer_mammoseek import make_gallery, positions_of, women_asked
from benchmarks.setting import errors_told, work_folder
from index.answers import Question
from index.engines import exact_engine
from index.filters import parse_filter
from index.gallery import Gallery
from index.indexing import rebuild_index
from index.layout import MANIFEST_NAME
from index.metrics import bootstrap_interval
from index.retrieval import ask_many

_faiss: Any = faiss  # Its Python wrappers take other arguments than the C++ classes that its stubs describe.

BATCHES = (1, 64, 1000)
PLAIN = Question(per_group=0)
EVERYTHING_PASSES = Question(per_group=0, where="age >= 18")
HALF_PASSES = Question(per_group=0, where="view == 'CC'")


def main() -> None:
    """Run the benchmark, print its table and write it."""
    parser = gallery_parser(str(__doc__))
    parser.add_argument("--seconds", type=float, default=4.0, help="about how long a way is asked in one turn (4)")
    parser.add_argument(
        "--parts", nargs="+", choices=("exact", "auto"), default=["exact", "auto"], help="what to measure (both)"
    )
    arguments = parser.parse_args()
    with errors_told():
        run(arguments)


def run(arguments: argparse.Namespace) -> None:
    """Measure, print and write.

    Args:
        arguments: As the parser gives them.

    Raises:
        MammoseekError: The vectors are not there, or the gallery can't be made.
    """
    faiss.omp_set_num_threads(arguments.threads)
    with threadpool_limits(arguments.threads), work_folder(arguments.work) as work:
        folder = prepared_gallery(work, arguments.vectors, arguments.rows, arguments.threads)
        vectors = load_vectors(arguments.vectors, arguments.rows)
        exact, auto = Gallery.open(folder), Gallery.open(folder)
        exact.__dict__["index"] = exact_engine(exact.vectors, exact.names_of)
        rows = []
        if "exact" in arguments.parts:
            rows += exact_rows(exact, vectors, arguments.repeats, arguments.seconds)
        if "auto" in arguments.parts:
            rows += auto_rows(auto, exact, vectors, arguments.repeats, arguments.seconds)
    write_table([{"rows": len(vectors.gallery), **row} for row in rows], arguments.output, arguments.threads)


def exact_rows(gallery: Gallery, vectors: VectorSet, repeats: int, seconds: float) -> list[dict[str, Any]]:
    """Return the table of exact search beside bare FAISS.

    Args:
        gallery: With an exact engine.
        vectors: The same rows, and the queries.
        repeats: Turns.
        seconds: About how long a way is asked in one turn.
    """
    bare = faiss.IndexFlatIP(vectors.gallery.shape[1])
    bare.add(vectors.gallery)
    women = women_asked(gallery, len(vectors.queries))
    half = gallery.passing(parse_filter(str(HALF_PASSES.where)))
    passing = _faiss.IDSelectorBitmap(np.packbits(half, bitorder="little"))

    def asking(question: Question) -> Way:
        return lambda asked, place: ask_many(gallery, asked, women[place], question)

    ways: dict[str, Way] = {
        "faiss.IndexFlatIP": lambda asked, place: plain_search(bare)(asked, 10),
        "faiss.IndexFlatIP, half of the rows": lambda asked, place: plain_search(bare)(
            asked, 10, params=_faiss.SearchParameters(sel=passing)
        ),
        "ask_many, filter that all rows pass, her rows excluded": asking(EVERYTHING_PASSES),
        "ask_many, filter that half of the rows pass, her rows excluded": asking(HALF_PASSES),
        "ask_many, as asked by default: one row of each woman": asking(Question()),
    }
    rows = []
    for batch in BATCHES:
        rows += _table("exact", ways, vectors.queries, batch, repeats, seconds, "faiss.IndexFlatIP")
        if batch == 1:
            own = own_milliseconds(gallery, vectors.queries[:100], women, EVERYTHING_PASSES)
            for row in rows:
                row["own_ms"] = round(own, 3) if "all rows pass" in row["way"] else None
    return rows


def auto_rows(auto: Gallery, exact: Gallery, vectors: VectorSet, repeats: int, seconds: float) -> list[dict[str, Any]]:
    """Return the table of the engine that was chosen beside exact search.

    Args:
        auto: The gallery with that engine.
        exact: The same with exact search.
        vectors: The same rows, and the queries.
        repeats: Turns.
        seconds: About how long a way is asked in one turn.
    """
    nobody = [None] * len(vectors.queries)

    def asking(gallery: Gallery) -> Way:
        return lambda asked, place: ask_many(gallery, asked, nobody[place], PLAIN)

    ways = {"ask_many, exact": asking(exact), "ask_many, auto": asking(auto)}
    rows = []
    for batch in BATCHES:
        rows += _table("auto", ways, vectors.queries, batch, repeats, seconds, "ask_many, exact")
    found = positions_of(ask_many(auto, vectors.queries, nobody, PLAIN), 10)
    each = recalls(found, vectors.neighbours[:, : found.shape[1]])
    scored = bootstrap_interval(each, vectors.query_women)
    described = auto.index.description
    for row in rows:
        if row["way"] == "ask_many, auto":
            row |= recall_columns(scored)
            row["engine"] = ", ".join(f"{name} {value}" for name, value in described.items())
    return rows


def own_milliseconds(gallery: Gallery, queries: Floats, women: list[str], question: Question) -> float:
    """Return what a query call takes beside its engine's search, median over single queries.

    Args:
        gallery: Whom to ask.
        queries: float32 (q, d).
        women: Whom each query is taken for.
        question: What is asked.
    """
    engine = gallery.index
    clock = _Clock(engine)
    gallery.__dict__["index"] = clock
    spent = []
    try:
        for place in range(len(queries)):
            clock.seconds = 0.0
            start = time.perf_counter()
            ask_many(gallery, queries[place : place + 1], women[place : place + 1], question)
            spent.append(time.perf_counter() - start - clock.seconds)
    finally:
        gallery.__dict__["index"] = engine
    return 1000 * statistics.median(spent)


def prepared_gallery(work: Path, vectors: Path, rows: int, threads: int, rows_of_a_woman: int | None = None) -> Path:
    """Return a gallery of the first rows with the engine `auto`; one that is there already is taken as it is.

    Args:
        work: Where it is made.
        vectors: Folder that `benchmarks.gallery_vectors` wrote.
        rows: How many.
        threads: For building its index.
        rows_of_a_woman: As `peer_data.make_records` takes it.
    """
    folder = work / (f"gallery-{rows}" if rows_of_a_woman is None else f"gallery-{rows}-by-{rows_of_a_woman}")
    if not (folder / MANIFEST_NAME).is_file():
        making = folder.with_name(f"{folder.name}-unfinished")
        shutil.rmtree(making, ignore_errors=True)  # of a run that was stopped
        make_gallery(making, Source.of_folder(vectors, rows), rows_of_a_woman)
        rebuild_index(making, {"engine": "auto", "threads": threads})
        making.rename(folder)
    return folder


class _Clock:
    """An engine that takes the time of its searches."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.seconds = 0.0

    def search(self, *arguments: Any, **options: Any) -> Any:
        start = time.perf_counter()
        try:
            return self._engine.search(*arguments, **options)
        finally:
            self.seconds += time.perf_counter() - start

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


def _table(
    part: str, ways: dict[str, Way], queries: Floats, batch: int, repeats: int, seconds: float, yardstick: str
) -> list[dict[str, Any]]:
    asked = np.ascontiguousarray(queries[:batch])
    start = time.perf_counter()
    ways[yardstick](asked, slice(0, len(asked)))
    calls = calls_for(time.perf_counter() - start, seconds)
    timed = in_turn(ways, queries, batch, repeats, calls, yardstick)
    return [{"part": part, "batch": batch, "way": name, **found.columns()} for name, found in timed.items()]


if __name__ == "__main__":
    main()
