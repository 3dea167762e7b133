"""Searching a large gallery on a GPU by the public query call, beside FAISS itself there and on the processor.

    python -m benchmarks.gallery_gpu --parts exact --threads 16 --repeats 3 --seconds 0.7 -o RESULTS/gallery-gpu.csv

All ways of asking are timed in turn within one process on the same queries, at 1, 64 and 1,000 queries a call; `ratio`
is to FAISS on the processor beside it in the same turn (`faiss.IndexFlatIP` for exact search, the same inverted file
for cells), `of_bare_gpu` to FAISS itself on the GPU, by the medians; above 1 is faster. Every query of ours names a
woman of the gallery, whose rows must not answer; bare FAISS neither filters nor excludes.

- `exact`: float32 on the processor and on the GPU, and float16 on the GPU. `same` is the share of 1,000 queries whose
  ten rows and similarities are those of the processor, bit for bit. FAISS's own answers are compared by rows alone.
- `cells`: the inverted file of the preset `ivf-sq`, built on the processor and on the GPU (`build_seconds`, once each),
  with the search parameters that were found for it on the processor. `same` is the share of the ten exact nearest rows
  that is found.

The vectors are drawn by a seed about the centres of many clusters. How fast exact search is does not depend on them;
how many cells must be looked at does: `benchmarks.gallery_search` measures that on embeddings of real films.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss as _faiss
import numpy as np
import torch
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from benchmarks.gallery_turns import Way, calls_for, in_turn, write_table
from benchmarks.peer_data import Floats, Numbers, plain_search, recalls
from benchmarks.peer_engines import Source
from benchmarks.peer_mammoseek import make_gallery, positions_of, women_asked
from benchmarks.setting import errors_told
from errors import MammoseekError
from index import faissfile, gpu
from index.answers import Question
from index.engines import EngineConfig, build_engine, exact_engine, open_engine
from index.gallery import Gallery
from index.nearest import Engine
from index.proposals import search_index
from index.retrieval import ask_many

faiss: Any = _faiss  # Its Python wrappers take other arguments than the C++ classes that its stubs describe.

BATCHES = (1, 64, 1000)
K = 10
PLAIN = Question(K, per_group=0)

_ROWS_OF_A_WOMAN = 4
_CLUSTERS = 4096
_SPREAD = 0.6  # of a vector about its cluster's centre, both of about unit length
_PART = 50_000


def main() -> None:
    """Run the benchmark, print its table and write it."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument(
        "--parts", nargs="+", choices=("exact", "cells"), default=["exact", "cells"], help="what to measure (both)"
    )
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the gallery (1000000)")
    parser.add_argument("--dimension", type=int, default=512, help="numbers of a vector (512)")
    parser.add_argument("--device", default="cuda:0", help="the GPU (cuda:0)")
    parser.add_argument("--threads", type=int, default=2, help="threads (2)")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each measurement (5)")
    parser.add_argument("--seconds", type=float, default=1.0, help="about how long the slowest is asked in a turn (1)")
    parser.add_argument("-o", "--output", type=Path, help="CSV file to write")
    with errors_told():
        run(parser.parse_args())


def run(arguments: argparse.Namespace) -> None:
    """Measure, print and write; what is measured is written before the next part begins.

    Args:
        arguments: As `main` parses them.

    Raises:
        MammoseekError: There is no GPU.
    """
    if not gpu.count_gpus():
        raise MammoseekError(arguments.device, "FAISS finds no GPU", "run this where there is one")
    faiss.omp_set_num_threads(arguments.threads)
    about = {"rows": arguments.rows, "dimension": arguments.dimension, "device": torch.cuda.get_device_name()}
    rows: list[dict[str, Any]] = []
    with threadpool_limits(arguments.threads), tempfile.TemporaryDirectory(prefix="mammoseek-gpu-") as work:
        folder, queries = made_gallery(Path(work), arguments.rows, arguments.dimension)
        for name in arguments.parts:
            part = {"exact": exact_rows, "cells": cell_rows}[name]
            rows += [{**about, **row} for row in part(folder, queries, arguments)]
            write_table(rows, arguments.output, arguments.threads)


def made_gallery(work: Path, rows: int, dimension: int) -> tuple[Path, Floats]:
    """Make vectors and a gallery of them with made-up records; return its folder and 1,000 queries of other women.

    Args:
        work: Where it is made.
        rows: How many.
        dimension: Length of a vector.
    """
    random = np.random.default_rng(0)
    centres = random.standard_normal((_CLUSTERS, dimension), np.float32)
    vectors = np.lib.format.open_memmap(work / "vectors.npy", "w+", np.float32, (rows, dimension))
    for start in range(0, rows, _PART):
        vectors[start : start + _PART] = _drawn(random, centres, min(_PART, rows - start))
    vectors.flush()
    source = Source(work / "vectors.npy", rows, (np.arange(rows) // _ROWS_OF_A_WOMAN).astype(np.int32))
    make_gallery(work / "gallery", source)
    return work / "gallery", _drawn(random, centres, BATCHES[-1])


def _drawn(random: np.random.Generator, centres: Floats, rows: int) -> Floats:
    drawn = random.standard_normal((rows, centres.shape[1]), np.float32) * np.float32(_SPREAD)
    drawn += centres[random.integers(0, len(centres), rows)]
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    return drawn


def exact_rows(folder: Path, queries: Floats, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the table of exact search.

    Args:
        folder: The gallery.
        queries: float32 (1000, d).
        arguments: As `main` parses them.
    """
    gallery = Gallery.open(folder)
    flat = faiss.IndexFlatIP(gallery.identity.dimension)
    for _, block in gallery.vectors.parts(0, len(gallery), rows=_PART):
        flat.add(np.ascontiguousarray(block))
    single, half = (on_gpu(flat, half=kind) for kind in (False, True))
    config = EngineConfig("float16", threads=arguments.threads, search={"candidates": 64})
    engines = {
        "ask_many, exact, processor": exact_engine(gallery.vectors, gallery.names_of),
        "ask_many, exact, GPU": exact_engine(gallery.vectors, gallery.names_of, device=arguments.device),
        "ask_many, float16, GPU": build_engine(
            config, gallery.vectors, gallery.numbers, gallery.names_of, device=arguments.device
        ),
    }
    bare = {
        "faiss.IndexFlatIP, processor": plain_search(flat),
        "faiss.GpuIndexFlatIP, float32": lambda asked, k: search_index(single, asked, k),
        "faiss.GpuIndexFlatIP, float16": lambda asked, k: search_index(half, asked, k),
    }
    expected = answers(gallery, engines["ask_many, exact, processor"], queries)
    nearest = bare["faiss.IndexFlatIP, processor"](queries, K)[1]
    same = {name: float(recalls(search(queries, K)[1], nearest).mean()) for name, search in bare.items()}
    for name, engine in engines.items():
        found = answers(gallery, engine, queries)
        same[name] = float(np.mean([a == b for a, b in zip(found, expected, strict=True)]))
    ways = {name: _bare(search) for name, search in bare.items()} | ways_of(gallery, engines)
    yardsticks = "faiss.IndexFlatIP, processor", "faiss.GpuIndexFlatIP, float32"
    return timed("exact", ways, yardsticks, same, queries, arguments)


def cell_rows(folder: Path, queries: Floats, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the table of search in cells.

    Args:
        folder: The gallery.
        queries: float32 (1000, d).
        arguments: As `main` parses them.
    """
    gallery = Gallery.open(folder)
    places = gallery.vectors, gallery.numbers, gallery.names_of
    built: dict[str, Engine] = {}
    seconds: dict[str, float] = {}
    for name, device in (("processor", "cpu"), ("GPU", arguments.device)):
        config = EngineConfig("ivf-sq", threads=arguments.threads)
        if built:  # what is slow to find is the same for both
            config = EngineConfig("ivf-sq", threads=arguments.threads, search=built["processor"].description["search"])
        start = time.perf_counter()
        built[name] = build_engine(config, *places, groups=gallery.women, device=device)
        seconds[f"ask_many, cells, {name}"] = round(time.perf_counter() - start, 1)
    own = built["processor"]
    there = open_engine(own.to_bytes(), own.description, own.until, *places, device=arguments.device)
    engines = {"ask_many, cells, processor": own, "ask_many, cells, GPU": there}
    index = faissfile.read_index(own.to_bytes(), gallery.identity.dimension, gallery.numbers)
    moved = on_gpu(index, half=True)
    probes = faiss.SearchParametersIVF(nprobe=int(own.description["search"]["nprobe"]))
    bare = {
        "faiss.IndexIVF, processor": lambda asked, k: search_index(index, asked, k, probes),
        "faiss.GpuIndexIVF": lambda asked, k: search_index(moved, asked, k, probes),
    }
    nobody = [None] * len(queries)
    gallery.__dict__["index"] = exact_engine(gallery.vectors, gallery.names_of, device=arguments.device)
    nearest = positions_of(ask_many(gallery, queries, nobody, PLAIN), K)
    same = {name: float(recalls(search(queries, K)[1], nearest).mean()) for name, search in bare.items()}
    for name, engine in (*engines.items(), ("built on the GPU", built["GPU"])):
        gallery.__dict__["index"] = engine
        same[name] = float(recalls(positions_of(ask_many(gallery, queries, nobody, PLAIN), K), nearest).mean())
    ways = {name: _bare(search) for name, search in bare.items()} | ways_of(gallery, engines)
    yardsticks = "faiss.IndexIVF, processor", "faiss.GpuIndexIVF"
    rows = timed("cells", ways, yardsticks, same, queries, arguments)
    described = ", ".join(f"{name} {own.description[name]}" for name in ("factory", "search"))
    for row in rows:
        row |= {"engine": described, "build_seconds": seconds.get(row["way"])}
        if row["way"] == "ask_many, cells, GPU":
            row["same_if_built_there"] = round(same["built on the GPU"], 4)
    return rows


def on_gpu(index: Any, *, half: bool) -> Any:
    """Return FAISS's own copy of an index on the first GPU."""
    options = faiss.GpuClonerOptions()
    options.useFloat16 = half
    return faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index, options)


def answers(gallery: Gallery, engine: Engine, queries: Floats) -> list[tuple[list[int], list[float]]]:
    """Return the rows and similarities that an engine answers, each query taken for a woman of the gallery."""
    gallery.__dict__["index"] = engine
    found = ask_many(gallery, queries, women_asked(gallery, len(queries)), PLAIN)
    return [(list(map(int, one.positions)), list(map(float, one.similarities))) for one in found]


def ways_of(gallery: Gallery, engines: dict[str, Engine]) -> dict[str, Way]:
    """Return the public query call with each engine."""
    women = women_asked(gallery, BATCHES[-1])

    def asking(engine: Engine) -> Way:
        def ask(asked: Floats, place: slice) -> object:
            gallery.__dict__["index"] = engine
            return ask_many(gallery, asked, women[place], PLAIN)

        return ask

    return {name: asking(engine) for name, engine in engines.items()}


def _bare(search: Callable[[Floats, int], tuple[Floats, Numbers]]) -> Way:
    return lambda asked, place: search(asked, K)


def timed(
    part: str,
    ways: dict[str, Way],
    yardsticks: tuple[str, str],
    same: dict[str, float],
    queries: Floats,
    arguments: argparse.Namespace,
) -> list[dict[str, Any]]:
    """Return the rows of the table, one for each way at each size of a call.

    Args:
        part: `exact` or `cells`.
        ways: By name.
        yardsticks: FAISS itself on the processor and on the GPU.
        same: What the table says of each way's answers.
        queries: float32 (1000, d).
        arguments: As `main` parses them.
    """
    here, there = yardsticks
    rows: list[dict[str, Any]] = []
    for batch in BATCHES:
        asked = np.ascontiguousarray(queries[:batch])
        ways[here](asked, slice(0, batch))
        start = time.perf_counter()
        ways[here](asked, slice(0, batch))
        calls = calls_for(time.perf_counter() - start, arguments.seconds)
        found = in_turn(ways, queries, batch, arguments.repeats, calls, here)
        for name, one in found.items():
            beside = float(f"{one.per_second / found[there].per_second:.4g}")
            columns = {**one.columns(), "of_bare_gpu": beside, "same": round(same[name], 4)}
            rows.append({"part": part, "batch": batch, "way": name, **columns})
    return rows


if __name__ == "__main__":
    main()
