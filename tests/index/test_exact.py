import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from index import QueryError, exact
from index.exact import ExactEngine
from index.nearest import exact_similarities, rounding_margin
from index.vectors import StoredVectors


def unit(rng: np.random.Generator, rows: int, dimension: int) -> np.ndarray:
    vectors = rng.normal(size=(rows, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def row_names(rng: np.random.Generator, rows: int) -> np.ndarray:
    """Return row ids in no order at all."""
    return np.array([f"r{i}" for i in rng.permutation(rows)], dtype=object)


def engine_of(vectors: np.ndarray, row_ids: np.ndarray, blocks: int = 1) -> ExactEngine:
    return ExactEngine(StoredVectors(np.array_split(vectors, blocks), vectors.shape[1]), row_ids.__getitem__)


def slow_search(
    vectors: np.ndarray, row_ids: np.ndarray, query: np.ndarray, k: int, allowed: np.ndarray
) -> list[tuple[float, int]]:
    """Return (similarity, position) of the k nearest: one row at a time, one product at a time."""
    scored = []
    for position in np.flatnonzero(allowed):
        terms = [a * b for a, b in zip(vectors[position].tolist(), query.tolist(), strict=True)]
        while len(terms) > 1:
            half = len(terms) // 2
            odd = terms[2 * half :]
            terms = [terms[i] + terms[half + i] for i in range(half)]
            terms[0] += sum(odd)
        scored.append((-float(np.float32(terms[0])), row_ids[position], int(position)))
    return [(-similarity, position) for similarity, _, position in sorted(scored)[:k]]


def found(similarities: np.ndarray, positions: np.ndarray) -> list[tuple[float, int]]:
    there = positions >= 0
    assert np.isneginf(similarities[~there]).all()
    return list(zip(similarities[there].tolist(), positions[there].tolist(), strict=True))


@settings(deadline=None, max_examples=50)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 60),
    st.integers(1, 9),
    st.integers(1, 70),
    st.sampled_from([0.0, 0.1, 0.4, 0.8, 1.0]),
    st.sampled_from([(1 << 22, 1 << 22), (64, 1 << 22), (1 << 22, 10)]),
)
def test_the_slow_obvious_search_finds_the_same(
    seed: int, rows: int, dimension: int, k: int, share: float, sizes: tuple[int, int]
) -> None:
    rng = np.random.default_rng(seed)
    # Few distinct vectors, so that many similarities are equal.
    vectors = unit(rng, max(1, rows // 4), dimension)[rng.integers(0, max(1, rows // 4), rows)]
    row_ids, allowed = row_names(rng, rows), rng.random(rows) < share
    queries = np.concatenate([vectors[:3], unit(rng, 3, dimension)])
    barred = [rng.integers(0, rows, rng.integers(0, 6)) for _ in queries]
    engine = engine_of(vectors, row_ids, blocks=int(rng.integers(1, 4)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact, "_SCORES", sizes[0])
        patch.setattr(exact, "_PAIRS", sizes[1])
        patch.setattr(exact, "_GATHERED", 7)
        hits = engine.search(queries, k, allowed=allowed, barred=barred)
        least = max(-1.0, float(hits.similarities[rng.integers(0, len(queries)), 0]))
        ranges = engine.within(queries, least, allowed=allowed, barred=barred)
    for number, query in enumerate(queries):
        answering = allowed.copy()
        answering[barred[number]] = False
        expected = slow_search(vectors, row_ids, query, rows, answering)
        assert found(hits.similarities[number], hits.positions[number]) == expected[:k]
        enough = [pair for pair in expected if pair[0] >= np.float32(least)]
        assert found(ranges[number].similarities, ranges[number].positions) == enough


def test_thousands_of_equal_rows_are_ordered_by_their_ids() -> None:
    rng = np.random.default_rng(1)
    vectors = unit(rng, 6000, 64)
    vectors[rng.permutation(6000)[:4000]] = vectors[0]
    row_ids = row_names(rng, 6000)
    twins = sorted(row_ids[(vectors == vectors[0]).all(axis=1)])
    hits = engine_of(vectors, row_ids).search(vectors[:1], 10)
    assert row_ids[hits.positions[0]].tolist() == twins[:10]
    assert len(set(hits.similarities[0].tolist())) == 1


def test_row_ids_are_asked_for_only_where_similarities_are_equal() -> None:
    rng = np.random.default_rng(1)
    vectors = unit(rng, 500, 16)
    vectors[400] = vectors[20]
    asked: list[int] = []

    def names(positions: np.ndarray) -> np.ndarray:
        asked.extend(positions.tolist())
        return positions.astype(str).astype(object)

    engine = ExactEngine(StoredVectors([vectors], 16), names)
    engine.search(vectors[:20], 5)
    assert set(asked) <= {20, 400}
    engine.search(vectors[20:21], 5)
    assert set(asked) == {20, 400}


def test_nearly_equal_rows_are_ordered_by_their_exact_similarity() -> None:
    rng = np.random.default_rng(2)
    query = unit(rng, 1, 512)
    # One step of float32 in one coordinate of many: below what a float32 sum can tell.
    vectors = np.repeat(query, 400, axis=0)
    places = rng.integers(0, 512, 400)
    vectors[np.arange(400), places] = np.nextafter(vectors[np.arange(400), places], np.float32(2))
    row_ids = row_names(rng, 400)
    hits = engine_of(vectors, row_ids).search(query, 7)
    expected = slow_search(vectors, row_ids, query[0], 7, np.ones(400, bool))
    assert found(hits.similarities[0], hits.positions[0]) == expected


def test_the_same_bits_for_any_batch_number_of_threads_and_segments() -> None:
    rng = np.random.default_rng(3)
    vectors, queries, row_ids = unit(rng, 3000, 96), unit(rng, 150, 96), row_names(rng, 3000)
    vectors[1000:1500] = vectors[:500]
    barred = [rng.integers(0, 3000, 4) for _ in queries]
    for share in (1.0, 0.7, 0.2):
        allowed, answers = rng.random(3000) < share, set()
        for threads, size, blocks in ((1, 150, 1), (2, 150, 3), (1, 1, 1), (2, 7, 2), (1, 40, 1)):
            engine = engine_of(vectors, row_ids, blocks)
            with threadpool_limits(threads):
                parts = [
                    engine.search(queries[i : i + size], 12, allowed=allowed, barred=barred[i : i + size])
                    for i in range(0, 150, size)
                ]
            similarities = np.concatenate([part.similarities for part in parts])
            positions = np.concatenate([part.positions for part in parts])
            answers.add((similarities.tobytes(), positions.tobytes()))
        assert len(answers) == 1


@pytest.mark.parametrize("dimension", [16, 512, 1280])
def test_the_margin_is_wider_than_what_a_float32_product_is_off_by(dimension: int) -> None:
    rng = np.random.default_rng(4)
    vectors, queries = unit(rng, 2000, dimension), unit(rng, 64, dimension)
    owners, rows = np.divmod(np.arange(64 * 2000), 2000)
    similarities = exact_similarities(queries, StoredVectors([vectors], dimension), owners, rows).reshape(64, 2000)
    for scores in (queries @ vectors.T, np.stack([vectors @ query for query in queries])):
        assert np.abs(similarities - scores).max() < rounding_margin(dimension) / 2


@pytest.mark.parametrize("order", [1, -1])
def test_rows_allowed_at_one_end_only_are_found(order: int) -> None:
    """Whole blocks without an allowed row are passed over, before the first k are found and after."""
    rng = np.random.default_rng(8)
    vectors = unit(rng, 4000, 8)
    allowed = (np.arange(4000) < 2500)[::order]
    row_ids = row_names(rng, 4000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact, "_SCORES", 500)
        hits = engine_of(vectors, row_ids).search(vectors[:5], 6, allowed=allowed)
    for query, positions in zip(vectors[:5], hits.positions, strict=True):
        scores = np.where(allowed, vectors.astype(np.float64) @ query, -2)
        assert positions.tolist() == np.argsort(-scores)[:6].tolist()


@pytest.mark.parametrize("allowed", [np.zeros(5, bool), np.array([False, True, False, False, False])])
def test_fewer_allowed_than_asked_for(allowed: np.ndarray) -> None:
    rng = np.random.default_rng(5)
    vectors = unit(rng, 5, 8)
    hits = engine_of(vectors, row_names(rng, 5)).search(vectors, 3, allowed=allowed)
    count = int(allowed.sum())
    assert (hits.positions[:, :count] == 1).all()
    assert (hits.positions[:, count:] == -1).all()
    assert np.isneginf(hits.similarities[:, count:]).all()


def test_no_queries_and_no_rows() -> None:
    vectors = unit(np.random.default_rng(6), 5, 8)
    engine = engine_of(vectors, row_names(np.random.default_rng(6), 5))
    assert engine.search(vectors[:0], 3).positions.shape == (0, 3)
    assert engine.within(vectors[:0], 0.5) == []
    empty = ExactEngine(StoredVectors([], 8), lambda positions: positions.astype(object))
    assert empty.search(vectors, 2).positions.tolist() == [[-1, -1]] * 5
    assert [len(hits.positions) for hits in empty.within(vectors, -1)] == [0] * 5


def test_a_range_that_holds_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "_MOST_WITHIN", 20)
    vectors = unit(np.random.default_rng(7), 30, 8)
    engine = engine_of(vectors, row_names(np.random.default_rng(7), 30))
    assert len(engine.within(vectors[:3], 0.99)) == 3
    with pytest.raises(QueryError, match="more than 20 rows"):
        engine.within(vectors[:3], -1)


def test_it_has_nothing_beside_the_vectors() -> None:
    engine = engine_of(np.eye(3, dtype=np.float32), np.array(list("abc"), object))
    assert engine.to_bytes() == b""
    assert engine.without(np.array([1])) is None
    assert engine.extended() is engine
    assert (engine.description["engine"], engine.description["recall"]) == ("exact", 1.0)
