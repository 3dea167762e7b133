import subprocess
import sys

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.engines import ExactEngine, exact_similarities, unit_length


def unit(rng: np.random.Generator, rows: int, dimension: int) -> np.ndarray:
    vectors = rng.normal(size=(rows, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def names(rng: np.random.Generator, rows: int) -> np.ndarray:
    """Return row ids in no order at all."""
    return np.array([f"r{i}" for i in rng.permutation(rows)], dtype=object)


def slow_search(
    vectors: np.ndarray, row_ids: np.ndarray, query: np.ndarray, k: int, allowed: np.ndarray
) -> list[tuple[float, int]]:
    """Return (similarity, position) of the k nearest: one row at a time, one product at a time."""
    scored = []
    for position in np.flatnonzero(allowed):
        total = 0.0
        for a, b in zip(vectors[position].tolist(), query.tolist(), strict=True):
            total += a * b
        scored.append((-float(np.float32(total)), row_ids[position], int(position)))
    return [(-similarity, position) for similarity, _, position in sorted(scored)[:k]]


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 9), st.integers(1, 70))
def test_the_slow_obvious_search_finds_the_same(seed: int, rows: int, dimension: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    # Few distinct vectors, so that many similarities are equal.
    vectors = unit(rng, max(1, rows // 4), dimension)[rng.integers(0, max(1, rows // 4), rows)]
    row_ids, allowed = names(rng, rows), rng.random(rows) < rng.random()
    queries = np.concatenate([vectors[:3], unit(rng, 3, dimension)])
    hits = ExactEngine(vectors, row_ids).search(queries, k, allowed)
    for query, similarities, positions in zip(queries, hits.similarities, hits.positions, strict=True):
        expected = slow_search(vectors, row_ids, query, k, allowed)
        found = positions >= 0
        assert list(zip(similarities[found].tolist(), positions[found].tolist(), strict=True)) == expected
        assert (similarities[~found] == -np.inf).all()


def test_thousands_of_equal_rows_are_ordered_by_their_ids() -> None:
    rng = np.random.default_rng(1)
    vectors = unit(rng, 6000, 64)
    vectors[rng.permutation(6000)[:4000]] = vectors[0]
    row_ids = names(rng, 6000)
    twins = sorted(row_ids[(vectors == vectors[0]).all(axis=1)])
    hits = ExactEngine(vectors, row_ids).search(vectors[:1], 10)
    assert row_ids[hits.positions[0]].tolist() == twins[:10]
    assert len(set(hits.similarities[0].tolist())) == 1


def test_nearly_equal_rows_are_ordered_by_their_exact_similarity() -> None:
    rng = np.random.default_rng(2)
    query = unit(rng, 1, 512)
    # One step of float32 in one coordinate of many: below what a float32 sum can tell.
    vectors = np.repeat(query, 400, axis=0)
    places = rng.integers(0, 512, 400)
    vectors[np.arange(400), places] = np.nextafter(vectors[np.arange(400), places], np.float32(2))
    row_ids = names(rng, 400)
    hits = ExactEngine(vectors, row_ids).search(query, 7)
    expected = slow_search(vectors, row_ids, query[0], 7, np.ones(400, bool))
    assert list(zip(hits.similarities[0].tolist(), hits.positions[0].tolist(), strict=True)) == expected


def test_the_same_bits_for_any_batch_and_number_of_threads() -> None:
    rng = np.random.default_rng(3)
    vectors, queries = unit(rng, 3000, 96), unit(rng, 150, 96)
    vectors[1000:1500] = vectors[:500]
    engine = ExactEngine(vectors, names(rng, 3000))
    allowed = rng.random(3000) < 0.7
    before = faiss.omp_get_max_threads()
    try:
        for mask in (None, allowed):
            answers = set()
            for threads, size in ((1, 150), (2, 150), (1, 1), (2, 7), (1, 40)):
                faiss.omp_set_num_threads(threads)
                parts = [engine.search(queries[i : i + size], 12, mask) for i in range(0, 150, size)]
                similarities = np.concatenate([part.similarities for part in parts])
                positions = np.concatenate([part.positions for part in parts])
                answers.add((similarities.tobytes(), positions.tobytes()))
            assert len(answers) == 1
    finally:
        faiss.omp_set_num_threads(before)


def test_faiss_reports_what_the_margin_allows() -> None:
    """The margin is wide enough for FAISS's own sums, in every way that it computes them."""
    rng = np.random.default_rng(4)
    for dimension in (16, 1280):
        vectors, queries = unit(rng, 2000, dimension), unit(rng, 64, dimension)
        engine = ExactEngine(vectors, names(rng, 2000))
        for part in (queries, queries[:1]):
            scores, found = engine._index.search(part, 50)
            for query, line, rows in zip(part, scores, found, strict=True):
                off = np.abs(exact_similarities(query, vectors, rows) - line)
                assert off.max() < engine._margin / 2


@pytest.mark.parametrize("allowed", [np.zeros(5, bool), np.array([False, True, False, False, False])])
def test_fewer_allowed_than_asked_for(allowed: np.ndarray) -> None:
    vectors = unit(np.random.default_rng(5), 5, 8)
    hits = ExactEngine(vectors, names(np.random.default_rng(5), 5)).search(vectors, 3, allowed)
    count = int(allowed.sum())
    assert (hits.positions[:, :count] == 1).all()
    assert (hits.positions[:, count:] == -1).all()
    assert np.isneginf(hits.similarities[:, count:]).all()


def test_the_cache_holds_the_index_or_is_refused() -> None:
    rng = np.random.default_rng(6)
    vectors, row_ids = unit(rng, 50, 8), names(rng, 50)
    engine = ExactEngine(vectors, row_ids)
    data = engine.to_bytes()
    again = ExactEngine.from_bytes(data, vectors, row_ids)
    assert again.to_bytes() == data
    assert again.search(vectors, 5).positions.tobytes() == engine.search(vectors, 5).positions.tobytes()
    other = vectors.copy()
    other[7, 3] = np.nextafter(other[7, 3], np.float32(2))
    for wrong in (other, vectors[:49], vectors[:, :7]):
        with pytest.raises(ValueError):
            ExactEngine.from_bytes(data, wrong, row_ids)
    euclidean = faiss.IndexFlatL2(8)
    euclidean.add(vectors)
    for content in (b"", b"nonsense", data[:100], faiss.serialize_index(euclidean).tobytes()):
        with pytest.raises(ValueError):
            ExactEngine.from_bytes(content, vectors, row_ids)


def test_unit_length_knows_what_is_not() -> None:
    vectors = np.array([[1, 0], [0.9995, 0], [0.99, 0], [0, 0], [np.nan, 1], [np.inf, 0]], np.float32)
    assert unit_length(vectors).tolist() == [True, True, False, False, False, False]


def test_a_library_that_replaces_faiss_search_changes_nothing() -> None:
    """`faiss.contrib.torch_utils` does, and pytorch-metric-learning imports it."""
    pytest.importorskip("torch")
    code = "import faiss.contrib.torch_utils, numpy as np; from index.engines import ExactEngine\n"
    code += "engine = ExactEngine(np.eye(5, dtype=np.float32), np.array(list('abcde'), object))\n"
    code += "print(engine.search(np.eye(5, dtype=np.float32)[:1], 2, np.arange(5) > 1).positions.tolist())"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[[2, 3]]\n"
