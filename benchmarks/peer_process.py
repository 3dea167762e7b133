"""One engine measured in a process of its own, so that its memory is its own: what `benchmarks.peers` starts.

    python -m benchmarks.peer_process JOB.json

reads what is to be done from the file, and writes what was found beside it (JOB.result.json).
"""

import bisect
import ctypes
import gc
import importlib
import json
import math
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from benchmarks.peer_data import Floats, Numbers, recall, recalls
from benchmarks.peer_engines import Peer, Source
from index.metrics import bootstrap_interval

PEERS = {
    "mammoseek": ("peer_mammoseek", "MammoseekPeer"),
    "mammoseek-exact": ("peer_mammoseek", "MammoseekExactPeer"),
    "mammoseek-hnsw": ("peer_mammoseek", "MammoseekGraphPeer"),
    "faiss-flat": ("peer_engines", "FlatPeer"),
    "faiss-hnsw": ("peer_engines", "FaissGraphPeer"),
    "hnswlib": ("peer_engines", "HnswlibPeer"),
    "usearch": ("peer_engines", "UsearchPeer"),
    "lancedb": ("peer_databases", "LancePeer"),
    "lancedb-hnsw": ("peer_databases", "LanceGraphPeer"),
    "qdrant": ("peer_databases", "QdrantPeer"),
    "milvus-lite": ("peer_databases", "MilvusPeer"),
}
"""Module and class of each; a process imports its own alone."""

TUNED_ON = 1000
"""The first so many queries choose the search parameter and warm up; they are not measured."""
FILTERED_TUNED_ON = 100
LEAST_BATCHES = 3
MOST_SECONDS = 20.0
"""A batch that would take longer is not asked, and its speed stays empty."""

Search = Callable[[Floats], Numbers]


@dataclass(frozen=True)
class Job:
    """What is to be measured.

    Attributes:
        peer: A name in `PEERS`.
        vectors: Folder that `benchmarks.gallery_vectors` wrote.
        rows: Rows of the gallery.
        truth: File (.npz) with `queries`, their `women`, `all` (their exact nearest rows), and the same for each share.
        threads: For building and searching.
        k: Neighbours.
        target: Recall that the search parameter is to reach.
        seconds: How long each speed is measured.
        batches: Queries asked at a time.
        shares: Shares of the rows to search among, each measured too.
    """

    peer: str
    vectors: str
    rows: int
    truth: str
    threads: int = 2
    k: int = 10
    target: float = 0.98
    seconds: float = 10.0
    batches: tuple[int, ...] = (1, 64, 1000)
    shares: tuple[str, ...] = ()


@dataclass
class Found:
    """What was measured of one engine, or of its search among a share of the rows.

    Attributes:
        parameters: How it was built and is searched.
        recall: Share of the k nearest that were found, over the queries of the largest batch size.
        recall_low: Its 95 % interval,
        recall_high: over the queries' women.
        queries: How many these were.
        speeds: Queries a second by batch size, of those that are small enough for its pace.
        latency_ms: Median and 95th percentile of a query asked alone.
    """

    parameters: str
    recall: float
    recall_low: float
    recall_high: float
    queries: int
    speeds: dict[int, float] = field(default_factory=dict)
    latency_ms: tuple[float, float] = (math.nan, math.nan)


def main() -> None:
    """Do what the file named on the command line says."""
    path = Path(sys.argv[1])
    values = json.loads(path.read_text())
    values["batches"], values["shares"] = tuple(values["batches"]), tuple(values["shares"])
    path.with_suffix(".result.json").write_text(json.dumps(measure(Job(**values))))


def measure(job: Job) -> dict[str, object]:
    """Build one engine and measure it.

    Returns:
        name, note, build_seconds, index_bytes, resident_bytes and peak_bytes of the process, yardstick (queries a
        second of a fixed small piece of work), `all` (`Found` as a dictionary), and `shares` (the same by share).
    """
    kind = peer_class(job.peer)
    source = Source.of_folder(Path(job.vectors), job.rows)
    with np.load(job.truth) as truth, tempfile.TemporaryDirectory(prefix="mammoseek-peer-") as folder:
        peer = kind(Path(folder), job.threads)
        yard = yardstick(source, truth["queries"], job.threads)
        start = time.perf_counter()
        peer.build(source)
        seconds = time.perf_counter() - start
        result: dict[str, object] = {"name": kind.name, "note": kind.note, "rows": job.rows, "yardstick": yard}
        result |= {"build_seconds": seconds, "resident_bytes": resident_bytes(), "peak_bytes": peak_bytes()}
        try:
            result["all"] = asdict(_measure(job, peer, truth, None))
            result["index_bytes"] = peer.index_bytes()
            shares = job.shares if kind.filters else ()
            result["shares"] = {name: asdict(_measure(job, peer, truth, name)) for name in shares}
        finally:
            peer.close()
    return result


def peer_class(name: str) -> type[Peer]:
    """Return the class of an engine of `PEERS`."""
    module, kind = PEERS[name]
    found: type[Peer] = getattr(importlib.import_module(f"benchmarks.{module}"), kind)
    return found


def tune(reached: Callable[[int], float], grid: Sequence[int], target: float) -> int:
    """Return the smallest value that reaches a recall; the largest where none does.

    Args:
        reached: Returns the recall at a value; it does not fall as the value grows.
        grid: Values, upwards.
        target: The recall.
    """
    place = bisect.bisect_left(range(len(grid) - 1), True, key=lambda place: reached(grid[place]) >= target)
    return grid[place]


def timed(
    search: Search, queries: Floats, batch: int, seconds: float, least: int = LEAST_BATCHES
) -> tuple[Numbers, list[float]]:
    """Ask in batches until the time is over or each query has been asked once.

    Args:
        search: Returns int64 (q, k) for (q, d).
        queries: float32 (n, d).
        batch: Queries asked at a time.
        seconds: About how long.
        least: So many batches are asked however long it takes.

    Returns:
        What was found for the first queries, int64 (m, k), and the seconds of each batch.
    """
    spent: list[float] = []
    found = []
    for first in range(0, len(queries) - batch + 1, batch):
        if sum(spent) >= seconds and len(spent) >= least:
            break
        asked = np.ascontiguousarray(queries[first : first + batch])
        start = time.perf_counter()
        found.append(search(asked))
        spent.append(time.perf_counter() - start)
    return np.concatenate(found), spent


def yardstick(source: Source, queries: Floats, threads: int, rows: int = 20_000) -> float:
    """Return queries a second of bare exact search in a small part of the vectors: how fast the machine is now."""
    faiss.omp_set_num_threads(threads)
    index = faiss.IndexFlatIP(source.dimension)
    index.add(next(source.parts(min(rows, source.rows)))[1])
    asked = np.ascontiguousarray(queries[:256])
    index.search(asked, 10)
    _, spent = timed(lambda part: index.search(part, 10)[1], np.tile(asked, (8, 1)), len(asked), math.inf)
    return len(asked) / float(np.median(spent))


def resident_bytes() -> int:
    """Return the memory that this process holds now, after giving back what it can."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
    return _status("VmRSS") or peak_bytes()


def peak_bytes() -> int:
    """Return the most memory that this process has held."""
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _measure(job: Job, peer: Peer, truth: Mapping[str, Any], share: str | None) -> Found:
    queries: Floats = truth["queries"]
    neighbours: Numbers = truth[share or "all"]

    def search(asked: Floats) -> Numbers:
        return peer.search(asked, job.k, share)

    most = min(TUNED_ON if share is None else FILTERED_TUNED_ON, len(queries) // 2)

    def reached(value: int) -> float:
        peer.set(value)
        return recall(search(queries[:most]), neighbours[:most, : job.k])

    peer.set(tune(reached, peer.grid, job.target))
    asked, right = queries[most:], neighbours[most:]
    speeds: dict[int, float] = {}
    latency, each = (math.nan, math.nan), np.zeros(0)
    for batch in job.batches:
        if batch > len(asked) or (speeds and batch / speeds[max(speeds)] > MOST_SECONDS):
            continue
        search(np.ascontiguousarray(queries[: min(batch, most)]))
        found, spent = timed(search, asked, batch, job.seconds)
        speeds[batch] = batch * len(spent) / sum(spent)
        each = recalls(found, right[: len(found), : job.k])
        if batch == 1:
            latency = (1000 * float(np.median(spent)), 1000 * float(np.percentile(spent, 95)))
    scored = bootstrap_interval(each, truth["women"][most : most + len(each)])
    return Found(peer.parameters(), scored.value, scored.low, scored.high, len(each), speeds, latency)


def _status(name: str) -> int:
    path = Path("/proc/self/status")
    lines = path.read_text().splitlines() if path.is_file() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), 0)


if __name__ == "__main__":
    main()
