"""Engines on NVIDIA GPUs: candidates from there, exact similarities from the stored vectors as everywhere.

An exact search on a GPU, in float32 or float16, keeps every row that the rounding of its scores could hide: its answers
are those of the processor. What a GPU can't do is done beside it by design: it knows no filter, so it is asked for more
rows and those that may not answer are dropped; few allowed rows, range queries and the rare query that needs more rows
than a GPU returns are answered by the processor; an index is written and rid of rows as it is on the processor. FAISS's
indexes on a GPU take one search at a time: threads wait for each other.
"""

import re
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import faiss as _faiss
import numpy as np
import numpy.typing as npt

from index import GalleryError, faissfile
from index.approximate import FEW_ROWS, ApproximateEngine
from index.exact import ExactEngine
from index.nearest import Engine, Hits, Mask, rounding_margin, settle
from index.proposals import Proposer, search_index
from index.vectors import Positions, StoredVectors, Vectors

faiss: Any = _faiss  # Its Python wrappers take other arguments than the C++ classes that its stubs describe.

MOST_ROWS = 2048
"""So many rows of each query a GPU returns at most."""

_SPARE = 32  # rows asked for beyond k, so that rounding seldom makes a second search necessary
_HALF_MARGIN = 1.01 * 2.0**-9  # of two scores, in each of which both vectors are off by half a unit of float16
_ADDED = 1 << 16  # rows sent at a time


def devices_of(device: str) -> list[int] | None:
    """Return the numbers of the GPUs that a device names, None for the processor; none where none is named or here.

    >>> devices_of("cpu") is None, devices_of("cuda:0,1")
    (True, [0, 1])

    Raises:
        GalleryError: It names no device.
    """
    if device == "cpu":
        return None
    named = re.fullmatch(r"cuda(?::(\d{1,3}(?:,\d{1,3})*))?", device)
    if named is None:
        raise GalleryError("device", f"{device!r} is none", 'name cpu, cuda, or GPUs as in "cuda:0" or "cuda:0,1"')
    if named[1] is None:
        return list(range(count_gpus()))
    return sorted({int(number) for number in named[1].split(",")})


def count_gpus() -> int:
    """Return how many GPUs FAISS can use."""
    return int(faiss.get_num_gpus()) if hasattr(faiss, "StandardGpuResources") else 0


def moved(engine: Engine, device: str) -> Engine:
    """Return the engine on GPUs, or as it is with a note in its description where that can't be.

    Args:
        engine: On the processor.
        device: cpu, cuda, or cuda with numbers: each GPU then holds a part of the rows.

    Raises:
        GalleryError: There is no such device.
    """
    gpus = devices_of(device)
    if gpus is None:
        return engine
    if problem := _missing(gpus):
        return _noted(engine, f"{problem}, so the processor searches")
    half = isinstance(engine, ApproximateEngine) and engine.description.get("factory") == "IDMap,SQfp16"
    try:
        if half or isinstance(engine, ExactEngine):
            return GpuExactEngine(engine, gpus, half=half)
        if isinstance(engine, ApproximateEngine):
            engine.proposer = GpuProposer(engine.proposer, gpus)
            engine.description = {**engine.description, "device": device}
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1][:200]
        return _noted(engine, f"FAISS can't bring this index to a GPU, so the processor searches ({reason})")
    return engine


@contextmanager
def training(index: Any, device: str) -> Iterator[None]:
    """Let the cells of an index be found on a GPU, where there is one."""
    inverted = faissfile.cells_of(index)
    gpus = devices_of(device)
    if inverted is None or not gpus or _missing(gpus):
        yield
        return
    # Named here: FAISS keeps an address, and what Python has no name for any more is gone from under it.
    clustering = _on_gpus(faiss.IndexFlatIP(inverted.d), gpus, half=False)
    inverted.clustering_index = clustering
    try:
        yield
    finally:
        inverted.clustering_index = None


class GpuExactEngine(Engine):
    """Exact search whose candidates come from GPUs.

    Args:
        engine: The same search on the processor: exact, or over a reduced copy.
        gpus: Their numbers; each holds an equal part of the rows.
        half: Whether they hold float16.
    """

    def __init__(self, engine: Engine, gpus: Sequence[int], *, half: bool) -> None:
        assert isinstance(engine, ExactEngine | ApproximateEngine)
        self._engine = engine
        self._vectors, self._names = engine.vectors, engine.names
        self._exact = engine if isinstance(engine, ExactEngine) else ExactEngine(engine.vectors, engine.names)
        self._margin = rounding_margin(self._vectors.dimension) + np.float32(_HALF_MARGIN if half else 0)
        self._parts = [_flat_part(self._vectors, gpu, len(gpus), place, half) for place, gpu in enumerate(gpus)]
        self._alone = threading.Lock()
        self.until = engine.until
        self.description = {
            **engine.description,
            "device": "cuda:" + ",".join(str(gpu) for gpu in gpus),
            "device_storage": "float16" if half else "float32",
            "recall": 1.0,
        }

    def search(
        self,
        queries: Vectors,
        k: int,
        *,
        allowed: Mask | None = None,
        barred: Sequence[Positions] | None = None,
    ) -> Hits:
        """Return the k nearest rows of each query that may answer it; see `Engine.search`."""
        queries = np.ascontiguousarray(queries, np.float32)
        rows = len(self._vectors)
        answering = rows if allowed is None else int(np.count_nonzero(allowed))
        most_barred = max((len(bar) for bar in barred), default=0) if barred is not None else 0
        width = min(int((k + _SPARE + most_barred) * rows / max(1, answering)), rows)
        if not len(queries) or width > MOST_ROWS or (allowed is not None and answering <= FEW_ROWS):
            return self._exact.search(queries, k, allowed=allowed, barred=barred)
        with self._alone:
            scores, found = self._candidates(queries, width)
        last = scores.min(axis=1)
        if allowed is not None:
            scores[(found < 0) | ~allowed[found]] = -np.inf
        if barred is not None:
            for query, bar in enumerate(barred):
                scores[query, np.isin(found[query], bar)] = -np.inf
        kth = np.partition(scores, -k, axis=1)[:, -k] if width >= k else np.full(len(queries), -np.inf, np.float32)
        least = kth - self._margin
        # Nothing that was not returned can reach the k-th, unless all was returned.
        complete = (width == rows) | (last < least)
        owners, places = np.nonzero((scores >= least[:, None]) & np.isfinite(scores) & (found >= 0))
        hits = settle(queries, k, self._vectors, self._names, owners, found[owners, places])
        if not complete.all():
            rest = np.flatnonzero(~complete)
            own = None if barred is None else [barred[query] for query in rest.tolist()]
            exact = self._exact.search(queries[rest], k, allowed=allowed, barred=own)
            hits.similarities[rest], hits.positions[rest] = exact.similarities, exact.positions
        return hits

    def within(
        self,
        queries: Vectors,
        least: float,
        *,
        allowed: Mask | None = None,
        barred: Sequence[Positions] | None = None,
    ) -> list[Hits]:
        """Return all rows at least so similar to each query, found by the processor; see `Engine.within`."""
        return self._exact.within(queries, least, allowed=allowed, barred=barred)

    def to_bytes(self) -> bytes:
        """Return what the engine on the processor does."""
        return self._engine.to_bytes()

    def without(self, removed: Positions) -> Engine | None:
        """Return what the engine on the processor does."""
        return self._engine.without(removed)

    def extended(self) -> Engine:
        """Return what the engine on the processor does."""
        return self._engine.extended()

    def _candidates(self, queries: Vectors, width: int) -> tuple[npt.NDArray[np.float32], Positions]:
        def ask(part: tuple[int, Any]) -> tuple[npt.NDArray[np.float32], Positions]:
            start, index = part
            scores, found = search_index(index, queries, width)
            scores[found < 0] = -np.inf
            return scores, np.where(found < 0, -1, found + start)

        if len(self._parts) == 1:
            return ask(self._parts[0])
        with ThreadPoolExecutor(len(self._parts)) as pool:
            answers = list(pool.map(ask, self._parts))
        scores = np.concatenate([answer[0] for answer in answers], axis=1)
        found = np.concatenate([answer[1] for answer in answers], axis=1)
        # The best of all: what a part did not return is below the last of these, as below the last of its own.
        best = np.argpartition(-scores, width - 1, axis=1)[:, :width]
        return np.take_along_axis(scores, best, axis=1), np.take_along_axis(found, best, axis=1)


class GpuProposer(Proposer):
    """An inverted file on GPUs.

    Args:
        proposer: The same on the processor; its index is what is written and rid of rows.
        gpus: Their numbers.

    Raises:
        RuntimeError: FAISS has no such index on a GPU.
    """

    filters = False

    def __init__(self, proposer: Proposer, gpus: Sequence[int]) -> None:
        super().__init__(proposer.index)
        self.breadth, self.widest, self.step_bytes = proposer.breadth, proposer.widest, proposer.step_bytes
        self._copy = _on_gpus(proposer.index, gpus, half=True)
        self._alone = threading.Lock()

    def propose(self, queries: Vectors, count: int, breadth: int, selector: Any | None) -> Positions:
        """Return candidates; see `Proposer.propose`."""
        count = min(count, MOST_ROWS)
        parameters = faiss.SearchParametersIVF(nprobe=min(breadth, MOST_ROWS)) if self.breadth == "nprobe" else None
        with self._alone:
            return search_index(self._copy, queries, count, parameters)[1]


def _missing(gpus: Sequence[int]) -> str:
    """Return why GPUs can't be used; nothing where they can."""
    if not hasattr(faiss, "StandardGpuResources"):
        return "this FAISS is built without GPU support"
    here = count_gpus()
    if not here:
        return "FAISS finds no GPU"
    if absent := [gpu for gpu in gpus if gpu >= here]:
        return f"there is no GPU {absent[0]}: FAISS finds {here}"
    return ""


def _noted(engine: Engine, note: str) -> Engine:
    engine.description = {**engine.description, "device": "cpu", "note": note}
    return engine


def _flat_part(vectors: StoredVectors, gpu: int, parts: int, place: int, half: bool) -> tuple[int, Any]:
    """Return the first row and the flat index of the share of one GPU."""
    bounds = np.linspace(0, len(vectors), parts + 1).astype(int)
    index = _on_gpus(faiss.IndexFlatIP(vectors.dimension), [gpu], half=half)
    for _, block in vectors.parts(int(bounds[place]), int(bounds[place + 1]), rows=_ADDED):
        index.add(np.ascontiguousarray(block))
    return int(bounds[place]), index


def _on_gpus(index: Any, gpus: Sequence[int], *, half: bool) -> Any:
    """Return a copy of an index on GPUs, an equal part of its rows on each."""
    options = faiss.GpuMultipleClonerOptions()
    options.shard = len(gpus) > 1
    options.useFloat16 = half
    return faiss.index_cpu_to_gpus_list(index, options, list(gpus))
