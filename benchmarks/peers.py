"""Engines beside each other on one gallery: mammoseek, FAISS, hnswlib, usearch, LanceDB, Qdrant local, milvus-lite.

    python -m benchmarks.peers --vectors FOLDER --rows 1000000 -o benchmarks/results/gallery-peers.csv

Each runs in a process of its own, one after the other, on the same vectors (made by `benchmarks.gallery_vectors`) with
the same threads. Its search parameter is the smallest that reaches the recall asked for on queries that are not used
again; recall and speed are then measured on others. mammoseek chooses for itself and is asked through its public query
call, which also checks every query and describes every answer; the others return row numbers.

With --filters the same is done for searches among 50 % to 0.01 % of the rows, each tuned anew, for those that filter,
and written to a second table beside the first (NAME-filters.csv).

With --keep, engines that are in the table already and not measured now stay in it.

That the machine's speed did not change within the run is shown by the column `yardstick`: each process also measures
the same small piece of work, bare exact search in 20,000 of the vectors.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.peer_data import SHARES, VectorSet, load_vectors, make_shares, nearest
from benchmarks.peer_databases import MilvusPeer, QdrantPeer
from benchmarks.peer_process import PEERS, Job, peer_class
from benchmarks.setting import describe_machine, errors_told
from errors import MammoseekError

MODULES = {
    "hnswlib": "hnswlib",
    "usearch": "usearch",
    "lancedb": "lancedb",
    "lancedb-hnsw": "lancedb",
    "qdrant": "qdrant_client",
    "milvus-lite": "milvus_lite",
}
"""What must be installed for a peer."""

MOST_ROWS = {"qdrant": QdrantPeer.most_rows, "milvus-lite": MilvusPeer.most_rows}

THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS", "TOKIO_WORKER_THREADS",
    "LANCE_CPU_THREADS", "LANCE_IO_THREADS",
)  # fmt: skip
"""By these each library learns how many threads it may use, where its calls do not say."""


def main() -> None:
    """Measure, print and write."""
    with errors_told():
        run(_parse())


def run(arguments: argparse.Namespace) -> None:
    """Measure, print and write; the tables are written anew after each engine.

    Args:
        arguments: As `_parse` gives them.

    Raises:
        MammoseekError: The vectors are not there, or a name is not known.
    """
    chosen = choose(arguments.peers)
    machine = _machine(arguments.threads)
    shares = tuple(SHARES) if arguments.filters else ()
    beside = arguments.output.with_name(f"{arguments.output.stem}-filters.csv")
    rows, filtered = (_kept(path, chosen) if arguments.keep else [] for path in (arguments.output, beside))
    with tempfile.TemporaryDirectory(prefix="mammoseek-peers-") as folder:
        for peer in chosen:
            most = MOST_ROWS.get(peer)
            size = arguments.rows if most is None else min(most, arguments.rows)
            truth = Path(folder) / f"{size}.npz"
            if not truth.is_file():
                save_truth(truth, load_vectors(arguments.vectors, size, arguments.queries), shares)
            job = Job(
                peer, str(arguments.vectors), size, str(truth), arguments.threads, target=arguments.recall,
                seconds=arguments.seconds, shares=shares,
            )  # fmt: skip
            found = measure_apart(job, Path(folder))
            moment = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
            rows.append({**table_row(found), **machine, "measured": moment})
            filtered += [{**row, **machine, "measured": moment} for row in filter_rows(found)]
            _write(rows, arguments.output)
            if shares:
                _write(filtered, beside)
            print(_line(rows[-1]), flush=True)


def _kept(path: Path, measured: Sequence[str]) -> list[dict[str, Any]]:
    """Return the rows of a table that are not measured anew."""
    if not path.is_file():
        return []
    names = {peer_class(name).name for name in measured}
    rows: list[dict[str, Any]] = pd.read_csv(path).to_dict("records")  # type: ignore[assignment]
    return [row for row in rows if row["peer"] not in names]


def choose(names: str | None) -> list[str]:
    """Return the engines to measure: those named, or all that are installed.

    Raises:
        MammoseekError: A name is unknown, or its package is not installed.
    """
    there = [name for name in PEERS if name not in MODULES or find_spec(MODULES[name])]
    if names is None:
        return there
    chosen = names.split(",")
    for name in chosen:
        if name not in PEERS:
            raise MammoseekError("peers", f"{name!r} is none of them", f"there are {', '.join(PEERS)}")
        if name not in there:
            raise MammoseekError("peers", f"{name} is not installed", f"pip install {MODULES[name]}")
    return chosen


def save_truth(path: Path, vectors: VectorSet, shares: Iterable[str]) -> None:
    """Write the queries, their women and what is right for each, among all rows and among each share of them.

    Args:
        path: The file (.npz).
        vectors: The gallery and the queries.
        shares: Values of the column `share`.
    """
    right = {"all": vectors.neighbours}
    values = make_shares(len(vectors.gallery))
    for share in shares:
        there = np.flatnonzero(values == share)
        found = nearest(np.ascontiguousarray(vectors.gallery[there]), vectors.queries, min(10, len(there)))[1]
        right[share] = there[found]
    arrays: dict[str, Any] = {"queries": vectors.queries, "women": vectors.query_women, **right}
    np.savez(path, **arrays)


def measure_apart(job: Job, folder: Path) -> dict[str, Any]:
    """Measure one engine in a process of its own.

    Raises:
        MammoseekError: The process failed; its last words are in the message.
    """
    path = folder / f"{job.peer}.json"
    path.write_text(json.dumps(asdict(job)))
    environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(job.threads))}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.peer_process", str(path)], env=environment, capture_output=True, text=True
    )
    if done.returncode:
        words = "; ".join(done.stderr.strip().splitlines()[-3:])
        raise MammoseekError(job.peer, f"its process ended with {done.returncode}: {words}")
    result: dict[str, Any] = json.loads(path.with_suffix(".result.json").read_text())
    return result


def table_row(found: dict[str, Any]) -> dict[str, Any]:
    """Return an engine's row of the table."""
    return {
        "peer": found["name"],
        "rows": found["rows"],
        **_searched(found["all"]),
        "build_seconds": round(found["build_seconds"], 1),
        "saved_megabytes": round(found["index_bytes"] / 1e6),
        "resident_megabytes": round(found["resident_bytes"] / 1e6),
        "peak_megabytes": round(found["peak_bytes"] / 1e6),
        "yardstick": round(found["yardstick"]),
        "note": found["note"],
    }


def filter_rows(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Return an engine's rows of the table of filtered searches: one for each share, and all rows first."""
    if not found["shares"]:
        return []
    parts = {"all": found["all"], **found["shares"]}
    return [
        {
            "peer": found["name"],
            "rows": found["rows"],
            "share": SHARES.get(name, 1.0),
            **_searched(part),
            **{
                f"batch_{batch}_to_unfiltered": round(speed / found["all"]["speeds"][batch], 3)
                for batch, speed in part["speeds"].items()
                if batch in found["all"]["speeds"]
            },
        }
        for name, part in parts.items()
    ]


def _searched(part: dict[str, Any]) -> dict[str, Any]:
    """Return recall, speeds and parameters of one measurement."""
    return {
        "recall": round(part["recall"], 4),
        "recall_low": round(part["recall_low"], 4),
        "recall_high": round(part["recall_high"], 4),
        "queries": part["queries"],
        **{f"batch_{batch}_per_second": float(f"{speed:.4g}") for batch, speed in part["speeds"].items()},
        "single_ms_median": round(part["latency_ms"][0], 3),
        "single_ms_95": round(part["latency_ms"][1], 3),
        "parameters": part["parameters"],
    }


def _machine(threads: int) -> dict[str, object]:
    import torch

    found = describe_machine(torch.device("cpu"))
    return {name: found[name] for name in ("processor", "cores", "system", "python")} | {"threads": threads}


def _write(rows: list[dict[str, Any]], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(path, index=False)


def _line(row: dict[str, Any]) -> str:
    speeds = " ".join(f"{value:>9}" for name, value in row.items() if name.endswith("_per_second"))
    built = f"{row['build_seconds']:>7} s {row['peak_megabytes']:>6} MB"
    return f"{row['peer']:22}{row['rows']:>9}  {row['recall']:.4f}  {speeds}  {built}  {row['parameters']}"


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--vectors", type=Path, required=True, help="folder that benchmarks.gallery_vectors wrote")
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the gallery (1000000)")
    parser.add_argument("--queries", type=int, help="queries (all)")
    parser.add_argument("--peers", help=f"some of {','.join(PEERS)} (all that are installed)")
    parser.add_argument("--filters", action="store_true", help="measure searches among a share of the rows too")
    parser.add_argument("--keep", action="store_true", help="keep the table's other engines")
    parser.add_argument("--recall", type=float, default=0.98, help="recall@10 to reach (0.98)")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each speed is measured (10)")
    parser.add_argument("--threads", type=int, default=2, help="threads (2)")
    parser.add_argument("-o", "--output", type=Path, required=True, help="CSV file to write")
    return parser.parse_args()


if __name__ == "__main__":
    main()
