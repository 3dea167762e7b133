"""Which FAISS index for how many rows: the presets, and checks of what may be asked for."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import faiss as _faiss
import numpy as np

from index import GalleryError

faiss: Any = _faiss  # Its Python wrappers take other arguments than the C++ classes that its stubs describe.

PRESETS = ("auto", "exact", "float16", "int8", "hnsw", "ivf", "ivf-sq", "ivf-pq")

EXACT_VALUES = 1 << 25
"""`auto` searches exactly up to so many numbers in all vectors (65,536 rows of 512), where one question takes some
milliseconds and a batch less than one each."""

LEAST_ROWS = 1000
"""Fewer rows are no ground to train an index on: they are searched exactly, whatever is asked for."""

TRAINING_PER_CELL = 64
_SMALLER = "ivf-pq in half the bytes"  # what `auto` takes where memory is short
_LONGEST_FACTORY = 100
_MOST_BITS = 12


@dataclass(frozen=True)
class Plan:
    """An index to build.

    Attributes:
        factory: In FAISS's own words.
        cells: Of an inverted file; 0 without one.
        bytes: About how much memory it takes.
    """

    factory: str
    cells: int
    bytes: int


def cells_for(rows: int) -> int:
    """Return how many cells suit a gallery: a power of two near 2 √n, at least 39 rows in each.

    >>> cells_for(1_000_000), cells_for(200_000), cells_for(2_000)
    (2048, 1024, 32)
    """
    wanted = 2.0 ** round(math.log2(max(1.0, 2 * math.sqrt(rows))))
    return max(1, int(min(wanted, 2.0 ** int(math.log2(max(1, rows // 39))))))


def parts_for(dimension: int, width: int = 4) -> int:
    """Return into how many parts product quantisation cuts a vector: of about so many numbers each.

    >>> parts_for(512), parts_for(512, 8), parts_for(1280), parts_for(30), parts_for(7)
    (128, 64, 320, 6, 1)
    """
    fitting = [number for number in range(1, 16) if dimension % number == 0]
    return dimension // min(fitting, key=lambda number: abs(np.log(number / width)))


def factory_of(engine: str, rows: int, dimension: int) -> str:
    """Return the FAISS factory string of a preset; any other engine is one itself."""
    cells, parts, fewer = cells_for(rows), parts_for(dimension), parts_for(dimension, 8)
    return {
        "float16": "IDMap,SQfp16",
        "int8": "IDMap,SQ8",
        "hnsw": "IDMap,HNSW16_SQbf16",
        "ivf": f"IVF{cells},Flat",
        "ivf-sq": f"IVF{cells},SQ8",
        "ivf-pq": f"OPQ{parts},IVF{cells},PQ{parts}x4fsr",
        _SMALLER: f"OPQ{fewer},IVF{cells},PQ{fewer}x4fsr",
    }.get(engine, engine)


def choose(engine: str, rows: int, dimension: int, target_recall: float, memory_bytes: int | None) -> Plan | None:
    """Return the index to build, None for exact search.

    Args:
        engine: A preset or a FAISS factory string.
        rows: Of the gallery.
        dimension: Of its vectors.
        target_recall: 1 asks for exact search.
        memory_bytes: What the index may take; any when None.

    Raises:
        GalleryError: There is no such engine, it does not suit the rows, or it takes more memory than it may.
    """
    if not 0 < target_recall <= 1:
        raise GalleryError("engine", f"a recall of {target_recall} can't be had", "ask for one above 0, at most 1")
    if engine == "exact":
        return None
    if engine == "auto":
        if target_recall == 1 or rows * dimension <= EXACT_VALUES:
            return None
        plans = [_plan(preset, rows, dimension) for preset in ("ivf-pq", _SMALLER)]
        return next((plan for plan in plans if memory_bytes is None or plan.bytes <= memory_bytes), None)
    plan = _plan(engine, max(rows, LEAST_ROWS), dimension)
    if rows < LEAST_ROWS:
        return None
    if memory_bytes is not None and plan.bytes > memory_bytes:
        raise GalleryError(
            "engine",
            f"{engine} takes about {plan.bytes:,} bytes, and {memory_bytes:,} are allowed",
            "allow more, or take one that takes less, such as ivf-pq",
        )
    return plan


def make_index(factory: str, dimension: int) -> Any:
    """Return an empty FAISS index that keeps the numbers of its rows.

    Raises:
        GalleryError: FAISS knows no such index, or it can't search by inner product.
    """
    try:
        index = faiss.index_factory(dimension, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise GalleryError("engine", f"FAISS can't make {factory} of {dimension} numbers a vector", _KNOWN) from error
    if index.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise GalleryError("engine", f"{factory} can't search by inner product", _KNOWN)
    if isinstance(index, faiss.IndexIDMap) or faiss.try_extract_index_ivf(index) is not None:
        return index
    whole = faiss.IndexIDMap(index)
    whole.own_fields = True
    index.this.disown()
    return whole


_KNOWN = f"take one of {', '.join(PRESETS)}, or a FAISS factory string such as IVF1024,SQ8"


def _plan(engine: str, rows: int, dimension: int) -> Plan:
    factory = factory_of(engine, rows, dimension)
    _check_numbers(factory, rows, dimension)
    index = make_index(factory, dimension)
    inverted = faiss.try_extract_index_ivf(index)
    cells = 0 if inverted is None else int(inverted.nlist)
    if cells * 4 > rows:
        raise GalleryError("engine", f"{cells} cells are too many for {rows} rows", "ask for fewer")
    return Plan(factory, cells, rows * (8 + _row_bytes(index)) + cells * dimension * 4)


def _row_bytes(index: Any) -> int:
    """Return about how many bytes an index keeps of one row."""
    inverted = faiss.try_extract_index_ivf(index)
    if inverted is not None:
        return int(faiss.downcast_index(inverted).code_size)
    inner = faiss.downcast_index(index.index)
    if isinstance(inner, faiss.IndexHNSW):
        return int(inner.storage.sa_code_size()) + 4 * int(inner.hnsw.nb_neighbors(0) * 1.1) + 8
    try:
        return int(inner.sa_code_size())
    except RuntimeError:
        return 4 * int(index.d)


def _check_numbers(factory: str, rows: int, dimension: int) -> None:
    """Refuse what would make FAISS take memory out of all proportion before it says so itself."""
    if len(factory) > _LONGEST_FACTORY or not re.fullmatch(r"[A-Za-z0-9_,+()]+", factory):
        raise GalleryError("engine", f"{factory[:_LONGEST_FACTORY]!r} is no index", _KNOWN)
    limits: Mapping[str, int] = {"IVF": rows, "HNSW": 128, "NSG": 128, "x": _MOST_BITS, "SQ": 16, "ITQ": dimension}
    for word, digits in re.findall(r"([A-Za-z]*)(\d+)", factory):
        most = limits.get(word, 4 * dimension)
        if len(digits) > 9 or not 1 <= int(digits) <= most:
            raise GalleryError("engine", f"{word}{digits[:12]} can't be had in {factory}", f"take 1 to {most}")
    if "IMI" in factory:
        raise GalleryError("engine", f"{factory} makes cells that don't grow with the rows", _KNOWN)
