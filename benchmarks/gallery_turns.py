"""Timing of several ways to do the same, in turn, so that what else the machine does meets all of them."""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.peer_data import Floats
from benchmarks.setting import describe_machine
from index.metrics import Estimate

Way = Callable[[Floats, slice], object]
"""Takes queries, float32 (b, d), and which of all queries they are."""


@dataclass(frozen=True)
class Timed:
    """How fast one way was.

    Attributes:
        per_second: Queries a second, median over the repeats.
        ratio: To the yardstick beside it in the same repeat, median.
        ratio_low: The lowest of them.
        ratio_high: The highest of them.
        milliseconds: Of one call, median.
    """

    per_second: float
    ratio: float
    ratio_low: float
    ratio_high: float
    milliseconds: float

    def columns(self) -> dict[str, float]:
        """Return the figures, rounded for a table."""
        return {name: float(f"{value:.4g}") for name, value in vars(self).items()}


def in_turn(
    ways: Mapping[str, Way], queries: Floats, batch: int, repeats: int, calls: int, yardstick: str
) -> dict[str, Timed]:
    """Time each way on the same queries, one after the other, after a call of each that does not count.

    Args:
        ways: By name.
        queries: float32 (q, d); each repeat takes the next ones, and begins again where they end.
        batch: Queries in a call.
        repeats: Turns.
        calls: Calls of each way in a turn.
        yardstick: The way that the others are compared with.
    """
    batch = min(batch, len(queries))
    places = [slice(first, first + batch) for first in range(0, len(queries) - batch + 1, batch)]
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way(np.ascontiguousarray(queries[places[-1]]), places[-1])
    names = list(ways)
    for turn in range(repeats):
        chosen = [places[(turn * calls + call) % len(places)] for call in range(calls)]
        asked = [np.ascontiguousarray(queries[place]) for place in chosen]
        # Who comes first changes from turn to turn: none is always the one after the slowest.
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            start = time.perf_counter()
            for part, place in zip(asked, chosen, strict=True):
                ways[name](part, place)
            spent[name].append((time.perf_counter() - start) / calls)
    result = {}
    for name, seconds in spent.items():
        ratios = [yard / own for own, yard in zip(seconds, spent[yardstick], strict=True)]
        median = statistics.median(seconds)
        result[name] = Timed(batch / median, statistics.median(ratios), min(ratios), max(ratios), 1000 * median)
    return result


def calls_for(seconds: float, allowance: float) -> int:
    """Return how many calls of so many seconds fit in a turn; one at least."""
    return max(1, min(200, round(allowance / max(seconds, 1e-6))))


def recall_columns(recall: Estimate) -> dict[str, float]:
    """Return a mean recall and its interval, rounded for a table."""
    found = {"recall": recall.value, "recall_low": recall.low, "recall_high": recall.high}
    return {name: round(value, 4) for name, value in found.items()}


def machine_columns(threads: int) -> dict[str, object]:
    """Return what the figures were measured on and when, for the columns of a table."""
    found = describe_machine(torch.device("cpu"))
    machine = {name: found[name] for name in ("processor", "cores", "system", "python")}
    return {**machine, "threads": threads, "measured": time.strftime("%Y-%m-%d %H:%M", time.gmtime())}


def write_table(rows: list[dict[str, Any]], path: Path | None, threads: int) -> None:
    """Print a table and write it with the machine's name in each row.

    Args:
        rows: The table.
        path: CSV file; none where it is only to be printed.
        threads: How many were used.
    """
    machine = machine_columns(threads)
    table = pd.DataFrame(rows)
    print(table.to_string(index=False))
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame([{**row, **machine} for row in rows]).to_csv(path, index=False)


def gallery_parser(text: str) -> argparse.ArgumentParser:
    """Return the options that all benchmarks of a large gallery have.

    Args:
        text: The benchmark's docstring.
    """
    parser = argparse.ArgumentParser(description=text.splitlines()[0])
    parser.add_argument("--vectors", type=Path, required=True, help="folder that benchmarks.gallery_vectors wrote")
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the gallery (1000000)")
    parser.add_argument("--work", type=Path, help="folder where the gallery is made, and kept for the next run")
    parser.add_argument("--threads", type=int, default=2, help="threads (2)")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each measurement (5)")
    parser.add_argument("-o", "--output", type=Path, help="CSV file to write")
    return parser
