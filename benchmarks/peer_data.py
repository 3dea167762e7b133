"""What engines are measured on: vectors that were made beforehand, records made up for them, and what is right."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import pandas as pd

from errors import MammoseekError

Floats = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.int64]

NEIGHBOURS = 100
"""Exact neighbours of each query that are kept."""


@dataclass(frozen=True, eq=False)
class VectorSet:
    """What the benchmarks search in and for.

    Attributes:
        gallery: float32 (n, d), unit length.
        queries: float32 (q, d), unit length, of other women.
        women: int32 (n,), the woman of each row of the gallery.
        query_women: int32 (q,), the woman of each query.
        neighbours: int64 (q, 100), the exact nearest rows of each query, best first.
    """

    gallery: Floats
    queries: Floats
    women: npt.NDArray[np.int32]
    query_women: npt.NDArray[np.int32]
    neighbours: Numbers


def load_vectors(folder: Path, rows: int | None = None, queries: int | None = None) -> VectorSet:
    """Read what `run` wrote, or its first rows.

    Args:
        folder: Where it lies.
        rows: How many rows of the gallery; None for all. The nearest rows are computed anew where it is fewer.
        queries: How many queries; None for all.

    Raises:
        MammoseekError: There is nothing there, or fewer rows than asked for.
    """
    try:
        gallery = np.load(folder / "gallery.npy", mmap_mode="r")
        found = np.load(folder / "queries.npy", mmap_mode="r")
        women = np.load(folder / "gallery-rows.npy", mmap_mode="r")["woman"]
        query_women = np.load(folder / "queries-rows.npy", mmap_mode="r")["woman"]
        neighbours = np.load(folder / "neighbours.npy")
    except (OSError, ValueError) as error:
        raise MammoseekError(folder, f"holds no vectors ({error})", "make them: benchmarks.gallery_vectors") from error
    rows, queries = rows or len(gallery), queries or len(found)
    if rows > len(gallery) or queries > len(found):
        raise MammoseekError(folder, f"has {len(gallery)} rows and {len(found)} queries", "ask for fewer")
    asked = np.array(found[:queries])
    chosen = np.array(gallery[:rows])
    if rows < len(gallery):
        neighbours = nearest(chosen, asked, min(NEIGHBOURS, rows))[1]
    return VectorSet(chosen, asked, np.array(women[:rows]), np.array(query_women[:queries]), neighbours[:queries])


def nearest(gallery: Floats, queries: Floats, k: int) -> tuple[Floats, Numbers]:
    """Return the exact nearest rows: similarities float32 (q, k) and rows int64 (q, k), best first."""
    index = faiss.IndexFlatIP(gallery.shape[1])
    index.add(gallery)
    return plain_search(index)(queries, k)


def plain_search(index: Any) -> Callable[..., tuple[Floats, Numbers]]:
    """Return the search of a FAISS index that knows parameters: faiss.contrib.torch_utils puts another in its place."""
    return getattr(index, "search_numpy", index.search)


def make_records(women: npt.NDArray[np.int32], rows_of_a_woman: int | None = None, seed: int = 0) -> pd.DataFrame:
    """Make up a record for every row, in the shape of a screening archive's.

    Density and age go with the real woman, and so with where in the space her vectors lie: a filter on them is not
    independent of the query. The column `share` is: each value holds a known share of all rows.

    Args:
        women: int32 (n,), the real woman of each row.
        rows_of_a_woman: So many rows of one real woman at a time stand for one patient: many patients of few rows, as
            in an archive, but such patients resemble each other as no two women do. A patient is a woman when None.
        seed: For what is drawn.

    Returns:
        n rows with row_id, granularity, patient_id, dataset, density, view, lesion_type, pathology, age and share;
        `share` is one of half, tenth, hundredth, thousandth, ten-thousandth, rest.
    """
    random = np.random.default_rng(seed)
    count = len(women)
    order = np.argsort(women, kind="stable")
    first = np.flatnonzero(np.r_[True, np.diff(women[order]) != 0])
    within = np.arange(count) - np.repeat(first, np.diff(np.r_[first, count]))
    patients = women.astype(np.int64)
    if rows_of_a_woman is not None:
        patients[order] = np.cumsum(within % rows_of_a_woman == 0) - 1
    places = np.empty(count, np.int64)
    places[order] = within % 4
    highest = int(women.max(initial=0)) + 1
    densities = np.array(["fatty", "glandular", "dense"])[random.integers(0, 3, highest)]
    ages = random.integers(40, 75, highest)
    pathology = np.array(["benign", "malignant"])[(random.random(count) < 0.2).astype(int)]
    types = np.array(["mass", "calcification", "asymmetry", "architectural distortion"])
    return pd.DataFrame(
        {
            "row_id": [f"row-{number:07d}" for number in range(count)],
            "granularity": "finding",
            "patient_id": [f"woman-{number:06d}" for number in patients],
            "dataset": "benchmark",
            "density": densities[women],
            "view": np.where(places % 2 == 0, "CC", "MLO"),
            "lesion_type": types[random.choice(4, count, p=(0.5, 0.3, 0.12, 0.08))],
            "pathology": pathology,
            "age": ages[women],
            "share": make_shares(count),
        }
    )


def make_shares(rows: int) -> npt.NDArray[np.object_]:
    """Return the column `share` of made-up records: which rows have which value is drawn, how many is not."""
    shares = np.full(rows, "rest", dtype=object)
    order = np.random.default_rng(1).permutation(rows)
    taken = 0
    for name, share in SHARES.items():
        size = max(round(share * rows), 1)
        shares[order[taken : taken + size]] = name
        taken += size
    return shares


SHARES = {"half": 0.5, "tenth": 0.1, "hundredth": 0.01, "thousandth": 0.001, "ten-thousandth": 0.0001}
"""The values of the column `share` of made-up records, and the share of rows that each holds."""


def recall(found: Numbers, neighbours: Numbers) -> float:
    """Return which share of the nearest rows was found.

    Args:
        found: int64 (q, k), -1 where there is none.
        neighbours: int64 (q, k or more), exact, best first.
    """
    return float(recalls(found, neighbours).mean())


def recalls(found: Numbers, neighbours: Numbers) -> npt.NDArray[np.float64]:
    """Return the same for each query, (q,)."""
    exact = neighbours[:, : found.shape[1]]
    return (found[:, :, None] == exact[:, None, :]).any(axis=1).mean(axis=1)
