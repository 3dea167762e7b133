"""The door to all engines: exact search, approximate indexes by FAISS, and both on a GPU.

Everything that asks for neighbours goes through an `Engine`; which one is a matter of rows, memory and recall.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import faiss as _faiss
import numpy as np
import numpy.typing as npt

from index import GalleryError, faissfile, gpu, turning
from index.approximate import MEASURED_AT, ApproximateEngine
from index.exact import ExactEngine
from index.nearest import Engine, Hits, Names
from index.presets import TRAINING_PER_CELL, Plan, choose, make_index
from index.proposals import faiss_threads
from index.tuning import Sample, tune
from index.vectors import Positions, StoredVectors

faiss: Any = _faiss  # Its Python wrappers take other arguments than the C++ classes that its stubs describe.

__all__ = ["Engine", "EngineConfig", "Hits", "build_engine", "exact_engine", "open_engine", "unit_length"]

UNIT_TOLERANCE = 1e-3
"""How far the length of a vector may be from 1."""

_TRAINING_SEED = 1
_TRAINING_ROWS = 100_000  # of an index without cells


@dataclass(frozen=True)
class EngineConfig:
    """Which engine a gallery is searched with.

    Attributes:
        engine: A preset (auto, exact, float16, int8, hnsw, ivf, ivf-sq, ivf-pq) or a FAISS factory string.
        target_recall: The share of the 10 nearest that an approximate engine should find, with its 95 % interval.
        memory_bytes: What the index may take beside the vectors; any when None.
        training_rows: How many rows an index is trained on; 64 for each of its cells when None.
        threads: Threads of FAISS in a build and a search; all when None.
        search: Search parameters: nprobe or efSearch, candidates; found by measuring where not given.
    """

    engine: str = "auto"
    target_recall: float = 0.98
    memory_bytes: int | None = None
    training_rows: int | None = None
    threads: int | None = None
    search: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {**asdict(self), "search": dict(self.search)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "EngineConfig":
        """Read what `to_dict` returned.

        Raises:
            GalleryError: It is something else.
        """
        unknown = set(values) - {known.name for known in fields(cls)}
        if unknown:
            raise GalleryError("engine", f"{', '.join(sorted(unknown))} is not known", "write the settings anew")
        config = cls(**values)
        counts = (config.memory_bytes, config.training_rows, config.threads)
        fits = isinstance(config.engine, str) and isinstance(config.search, Mapping)
        fits = fits and all(value is None or (type(value) is int and value > 0) for value in counts)
        fits = fits and all(type(value) in (int, float) for value in (config.target_recall, *config.search.values()))
        if not fits:
            raise GalleryError("engine", f"its settings are {dict(values)!r:.200}", "write the settings anew")
        return config


def exact_engine(vectors: StoredVectors, names: Names, *, device: str = "cpu") -> Engine:
    """Return exact search over the vectors.

    Args:
        vectors: Of n rows.
        names: Returns row ids, by which equal similarities are ordered.
        device: As for `build_engine`.
    """
    return gpu.moved(ExactEngine(vectors, names), device)


def build_engine(
    config: EngineConfig,
    vectors: StoredVectors,
    numbers: Positions,
    names: Names,
    *,
    groups: npt.NDArray[np.integer] | None = None,
    progress: Callable[[str], None] | None = None,
    device: str = "cpu",
) -> Engine:
    """Build the engine that is asked for; `auto` chooses here.

    Args:
        config: What is asked for.
        vectors: Of n rows.
        numbers: int64 (n,), increasing: the name of each row within an index.
        names: Returns row ids.
        groups: int (n,), the woman of each row: search parameters are then chosen for questions about another woman.
        progress: Told in a line what is being done.
        device: cpu, cuda (all GPUs), or cuda with the numbers of some, as in "cuda:0" or "cuda:0,1".

    Raises:
        GalleryError: There is no such engine, or it can't be built of these rows or within this memory.
    """
    tell = progress or (lambda line: None)
    rows = len(vectors)
    plan = choose(config.engine, rows, vectors.dimension, config.target_recall, config.memory_bytes)
    if plan is None or not rows:
        return exact_engine(vectors, names, device=device)
    began = time.monotonic()
    tell("searching exactly for what the index should find")
    sample = Sample(vectors, names, groups)
    with faiss_threads(config.threads):
        index, trained_on = _trained(plan, config, vectors, ~sample.held_out, tell, device)
        _add(index, vectors, numbers, ~sample.held_out, tell)
    description: dict[str, Any] = {
        "engine": config.engine,
        "factory": plan.factory,
        "threads": config.threads,
        "rows": rows,
        "trained_for": rows,
        "training_rows": trained_on,
        "target_recall": config.target_recall,
        "faiss": faiss.__version__,
    }
    until = int(numbers[-1]) + 1
    tell("choosing search parameters")
    engine = ApproximateEngine(index, description, until, vectors, numbers, names)
    choice = tune(engine, sample, config.target_recall, config.search)
    with faiss_threads(config.threads):
        _add(index, vectors, numbers, sample.held_out, tell)
    low, high = choice.interval
    description |= {
        "search": choice.search,
        "recall": round(choice.recall, 4),
        "recall_interval": [round(low, 4), round(high, 4)],
        "recall_at": MEASURED_AT,
        "recall_queries": len(choice.recalls),
        "bytes": int(faiss.serialize_index(index).nbytes),
        "build_seconds": round(time.monotonic() - began, 1),
    }
    return gpu.moved(ApproximateEngine(index, description, until, vectors, numbers, names), device)


def open_engine(
    data: bytes,
    description: Mapping[str, Any],
    until: int,
    vectors: StoredVectors,
    numbers: Positions,
    names: Names,
    *,
    device: str = "cpu",
) -> Engine:
    """Read an engine back.

    Args:
        data: What `Engine.to_bytes` returned. FAISS trusts it: check its digest first.
        description: The engine's.
        until: The engine's.
        vectors: Of n rows.
        numbers: int64 (n,), increasing.
        names: Returns row ids.
        device: As for `build_engine`.

    Raises:
        ValueError: The bytes are no index, or not one of these rows, or the description is not one of it.
    """
    held = numbers[: int(np.searchsorted(numbers, until))]
    index = faissfile.read_index(data, vectors.dimension, held)
    # Where it was built says nothing about where it is searched.
    said = {name: value for name, value in description.items() if name not in ("device", "note")}
    engine = ApproximateEngine(index, said, until, vectors, numbers, names)
    _check_search(said, engine.proposer.breadth)
    if len(held):
        try:  # a first question shows what no check of its parts does
            engine.search(vectors.take(np.zeros(1, np.int64)), 1)
        except (RuntimeError, ValueError, IndexError) as error:
            raise ValueError("it can't be searched") from error
    return gpu.moved(engine, device)


def unit_length(vectors: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_]:
    """Return which vectors are finite and of length 1, within the tolerance.

    Args:
        vectors: (n, d).

    Returns:
        bool (n,).
    """
    lengths = np.linalg.norm(np.asarray(vectors, np.float64), axis=1)
    return np.asarray(np.abs(lengths - 1) <= UNIT_TOLERANCE)


def _trained(
    plan: Plan,
    config: EngineConfig,
    vectors: StoredVectors,
    allowed: npt.NDArray[np.bool_],
    tell: Callable[[str], None],
    device: str,
) -> tuple[Any, int]:
    """Return an empty index that is ready for rows, and how many it was trained on."""
    wanted = config.training_rows or (TRAINING_PER_CELL * plan.cells or _TRAINING_ROWS)
    rows = np.flatnonzero(allowed)
    chosen = np.sort(np.random.default_rng(_TRAINING_SEED).choice(rows, min(len(rows), wanted), replace=False))
    index = make_index(plan.factory, vectors.dimension)
    tell(f"training {plan.factory} on {len(chosen):,} rows")
    sample = vectors.take(chosen)
    try:
        turning.prepare(index, sample)
        with gpu.training(index, device):
            index.train(sample)
    except (RuntimeError, MemoryError, ValueError) as error:
        raise GalleryError(
            "engine", f"FAISS can't train {plan.factory} on {len(chosen):,} rows", "take another, or more rows"
        ) from error
    return index, len(chosen)


def _add(
    index: Any, vectors: StoredVectors, numbers: Positions, chosen: npt.NDArray[np.bool_], tell: Callable[[str], None]
) -> None:
    tell(f"adding {np.count_nonzero(chosen):,} rows")
    try:
        faissfile.add_rows(index, vectors, numbers, chosen)
    except (RuntimeError, MemoryError) as error:
        raise GalleryError("engine", "FAISS can't add the rows", "take an index that needs less memory") from error


def _check_search(description: Mapping[str, Any], breadth: str | None) -> None:
    search, threads = description.get("search"), description.get("threads")
    if not isinstance(search, Mapping):
        raise ValueError("its search parameters are missing")
    for name in ("candidates", *([breadth] if breadth else [])):
        value = search.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= 1 << 20:
            raise ValueError(f"its search parameter {name} is {value!r}")
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= 1024):
        raise ValueError(f"its threads are {threads!r}")
