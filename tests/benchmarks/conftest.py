"""A folder of vectors as `benchmarks.gallery_vectors` writes it, small and drawn at random."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.gallery_vectors import ROW_TYPE
from benchmarks.peer_data import nearest

ROWS, QUERIES, DIMENSION = 1500, 60, 16


@pytest.fixture(scope="session")
def vector_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,500 rows of 20 women and 60 queries, float32 of 16 numbers, unit length."""
    folder = tmp_path_factory.mktemp("vectors")
    random = np.random.default_rng(3)
    vectors = random.standard_normal((ROWS + QUERIES, DIMENSION)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    gallery, queries = vectors[:ROWS], vectors[ROWS:]
    places = np.zeros(ROWS, ROW_TYPE)
    places["woman"] = random.integers(1, 21, ROWS)
    similarities, neighbours = nearest(gallery, queries, 100)
    arrays = {"gallery": gallery, "queries": queries, "gallery-rows": places}
    arrays["queries-rows"] = np.zeros(QUERIES, ROW_TYPE)
    arrays["queries-rows"]["woman"] = 21 + np.arange(QUERIES) % 6
    arrays |= {"neighbours": neighbours, "similarities": similarities}
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return folder
