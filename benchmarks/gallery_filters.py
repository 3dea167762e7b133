"""Searching among some of the rows: recall and speed at 50 % to 0.01 % of a large gallery, by the public query call.

    python -m benchmarks.gallery_filters --vectors FOLDER --work WORK -o benchmarks/results/gallery-filters.csv

The engine is the one that `auto` chose. Each filter is timed in turn with the unfiltered question and with
`faiss.IndexFlatIP` among the same rows (a bitmap selector; at 1 and 64 queries), in one process on the same queries
with the same threads, at 1, 64 and 1,000 queries a call. Recall@10 is measured against an exact search among the
allowed rows, and `filled` is the share of answers that have the 10 neighbours asked for. The shares are drawn at
random; the filter on density is not independent of the vectors, for density goes with the woman. `filter_ms` is what
the record table takes for the filter the first time; an answered filter is remembered. Engines that filter are compared
in `benchmarks.peers --filters`.
"""

import argparse
import statistics
import time
from typing import Any

import faiss
import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from benchmarks.gallery_search import BATCHES, PLAIN, prepared_gallery
from benchmarks.gallery_turns import Way, calls_for, gallery_parser, in_turn, recall_columns, write_table
from benchmarks.peer_data import SHARES, VectorSet, load_vectors, nearest, plain_search, recalls
from benchmarks.peer_mammoseek import positions_of
from benchmarks.setting import errors_told, work_folder
from index.answers import Question
from index.filters import parse_filter
from index.gallery import Gallery
from index.metrics import bootstrap_interval
from index.retrieval import ask_many

_faiss: Any = faiss  # Its Python wrappers take other arguments than the C++ classes that its stubs describe.

LARGE = 1000
"""From this batch size on the flat index with a selector is left out: without a matrix product it takes minutes."""

FILTERS = {
    **{f"{share:.2%} of rows": f"share == '{name}'" for name, share in SHARES.items()},
    "a density, which goes with the woman": "density == 'dense'",
}


def main() -> None:
    """Run the benchmark, print its table and write it."""
    parser = gallery_parser(str(__doc__))
    parser.add_argument("--seconds", type=float, default=2.0, help="about how long a way is asked in one turn (2)")
    parser.add_argument("--queries", type=int, default=2000, help="queries for recall (2000)")
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
        gallery = Gallery.open(folder)
        bare = faiss.IndexFlatIP(vectors.gallery.shape[1])
        bare.add(vectors.gallery)
        rows = []
        for name, where in FILTERS.items():
            found = filter_rows(gallery, bare, vectors, where, arguments.queries, arguments.repeats, arguments.seconds)
            rows += [{"rows": len(gallery), "filter": name, "where": where, **row} for row in found]
    write_table(rows, arguments.output, arguments.threads)


def filter_rows(
    gallery: Gallery,
    bare: faiss.IndexFlatIP,
    vectors: VectorSet,
    where: str,
    queries: int,
    repeats: int,
    seconds: float,
) -> list[dict[str, Any]]:
    """Return the table of one filter, one row for each batch size.

    Args:
        gallery: Whom to ask.
        bare: A flat index of the same rows.
        vectors: The same rows, and the queries.
        where: The filter.
        queries: How many for recall.
        repeats: Turns.
        seconds: About how long a way is asked in one turn.
    """
    condition = parse_filter(where)
    milliseconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        mask = condition.mask(gallery.table)
        milliseconds.append(1000 * (time.perf_counter() - start))
    allowed = np.flatnonzero(mask)
    question = Question(per_group=0, where=where)
    nobody: list[None] = [None] * len(vectors.queries)
    asked = vectors.queries[:queries]
    k = min(10, len(allowed))
    right = allowed[nearest(np.ascontiguousarray(vectors.gallery[allowed]), asked, k)[1]]
    found = positions_of(ask_many(gallery, asked, nobody[:queries], question), 10)
    each = recalls(found[:, :k], right)
    scored = bootstrap_interval(each, vectors.query_women[:queries])
    selector = _faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
    ways: dict[str, Way] = {
        "filtered": lambda part, place: ask_many(gallery, part, nobody[place], question),
        "unfiltered": lambda part, place: ask_many(gallery, part, nobody[place], PLAIN),
    }
    rows = []
    for batch in BATCHES:
        if batch < LARGE:
            ways["flat"] = lambda part, place: plain_search(bare)(
                part, 10, params=_faiss.SearchParameters(sel=selector)
            )
        else:
            ways.pop("flat", None)
        part = np.ascontiguousarray(vectors.queries[:batch])
        slowest = 0.0
        for way in ways.values():
            start = time.perf_counter()
            way(part, slice(0, len(part)))
            slowest = max(slowest, time.perf_counter() - start)
        calls = calls_for(slowest, seconds)
        timed = in_turn(ways, vectors.queries, batch, repeats, calls, "filtered")
        own = timed["filtered"]
        rows.append(
            {
                "allowed": len(allowed),
                "batch": batch,
                **recall_columns(scored),
                "filled": round(float((found >= 0).all(axis=1).mean()), 4),
                "per_second": float(f"{own.per_second:.4g}"),
                "to_unfiltered": round(1 / timed["unfiltered"].ratio, 3),
                "to_faiss_flat_with_selector": round(1 / timed["flat"].ratio, 3) if "flat" in timed else None,
                "filter_ms": round(statistics.median(milliseconds), 2),
            }
        )
    return rows


if __name__ == "__main__":
    main()
