from collections.abc import Iterator
from contextlib import contextmanager

import faiss
import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from index import approximate
from index.approximate import ApproximateEngine
from index.engines import Engine, EngineConfig, build_engine, exact_engine, open_engine
from index.vectors import StoredVectors

ROWS, DIMENSION = 4000, 32
FACTORIES = (
    "OPQ8,IVF32,PQ8x4fsr",
    "IVF32,PQ8x4fs",
    "IVF32,Flat",
    "IVF32,SQ8",
    "IDMap,HNSW16_SQ8",
    "IDMap,SQ8",
    "PCA16,Flat",
)


def clustered(rng: np.random.Generator, rows: int, dimension: int = DIMENSION) -> np.ndarray:
    """Return unit vectors of which many are near to one another, as embeddings are."""
    centres = np.random.default_rng(0).normal(size=(60, dimension))
    vectors = centres[rng.integers(0, 60, rows)] + 0.4 * rng.normal(size=(rows, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count)
    try:
        with threadpool_limits(count):
            yield
    finally:
        faiss.omp_set_num_threads(before)


VECTORS = clustered(np.random.default_rng(1), ROWS)
QUERIES = clustered(np.random.default_rng(2), 1000)
NUMBERS = np.cumsum(np.random.default_rng(3).integers(1, 4, ROWS)) + 1_000_000
ROW_IDS = np.array([f"r{i}" for i in np.random.default_rng(4).permutation(ROWS)], object)
STORED = StoredVectors(np.split(VECTORS, [1100, 2500]), DIMENSION)
SEARCH = {"nprobe": 14, "efSearch": 60, "candidates": 100}


@pytest.fixture(scope="module")
def engines() -> dict[str, Engine]:
    """Return an engine of each kind over all rows, in three segments, whose numbers have gaps."""
    return {
        factory: build_engine(EngineConfig(factory, search=SEARCH), STORED, NUMBERS, ROW_IDS.__getitem__)
        for factory in FACTORIES
    }


@pytest.fixture(autouse=True)
def filters_are_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    """So few rows would be compared one by one otherwise."""
    monkeypatch.setattr(approximate, "FEW_ROWS", 30)


def packed_codes(index: faiss.Index) -> dict[tuple[int, int], bytes]:
    """Return the code of each row by cell and number, and that of each place of a block that is not taken."""
    inverted = faiss.downcast_index(faiss.extract_index_ivf(index))
    lists, found = faiss.downcast_InvertedLists(inverted.invlists), {}
    for cell in range(lists.nlist):
        size = lists.list_size(cell)
        blocks = -(-size // lists.n_per_block)
        if blocks:
            held = faiss.rev_swig_ptr(lists.get_ids(cell), size).tolist()
            codes = faiss.rev_swig_ptr(lists.get_codes(cell), blocks * lists.block_size).reshape(blocks, -1)
            for place in range(blocks * lists.n_per_block):
                name = held[place] if place < size else -place
                found[cell, name] = lists.packer.unpack_1(codes, place).tobytes()
    return found


def exact() -> Engine:
    return exact_engine(STORED, ROW_IDS.__getitem__)


def recall(found: np.ndarray, truth: np.ndarray) -> float:
    return float(
        np.mean([len(set(a) & set(b)) / len(set(b)) for a, b in zip(found.tolist(), truth.tolist(), strict=True)])
    )


@pytest.mark.parametrize("factory", FACTORIES)
def test_what_is_found_is_ordered_as_by_exact_search(engines: dict[str, Engine], factory: str) -> None:
    hits, truth = engines[factory].search(QUERIES, 10), exact().search(QUERIES, 10)
    assert recall(hits.positions, truth.positions) > 0.9
    everything = exact().search(QUERIES[:50], ROWS)
    for query in range(50):
        similarity = dict(
            zip(everything.positions[query].tolist(), everything.similarities[query].tolist(), strict=True)
        )
        rank = {row: place for place, row in enumerate(everything.positions[query].tolist())}
        rows = hits.positions[query].tolist()
        assert hits.similarities[query].tolist() == [similarity[row] for row in rows]
        assert rows == sorted(set(rows), key=rank.__getitem__)


@pytest.mark.parametrize("engine", ["hnsw", "ivf-pq"])
def test_a_filter_costs_no_recall(engine: str) -> None:
    # Hardly any two are near: a graph that stops as early as it does without a filter misses most.
    rows = 8_000
    random = np.random.default_rng(5)
    vectors = random.normal(size=(rows + 100, 48)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    stored, names = StoredVectors([vectors[:rows]], 48), np.arange(rows).astype(str).astype(object).__getitem__
    made = build_engine(EngineConfig(engine, target_recall=0.9), stored, np.arange(rows), names)
    for share in (1.0, 0.5, 0.1, 0.03):
        allowed = random.random(rows) < share
        found = made.search(vectors[rows:], 10, allowed=allowed)
        truth = exact_engine(stored, names).search(vectors[rows:], 10, allowed=allowed)
        assert recall(found.positions, truth.positions) > 0.87, share


@pytest.mark.parametrize("factory", FACTORIES)
@pytest.mark.parametrize("share", [1.0, 0.4])
def test_the_same_answer_in_any_batch_and_on_any_threads(
    engines: dict[str, Engine], factory: str, share: float
) -> None:
    rng = np.random.default_rng(5)
    allowed = None if share == 1 else rng.random(ROWS) < share
    barred = [rng.integers(0, ROWS, rng.choice([0, 1, 5, 20])) for _ in QUERIES]
    answers, order = set(), rng.permutation(1000)
    for count, size, asked in ((1, 1000, 1000), (2, 1000, 1000), (1, 1, 50), (2, 7, 210), (1, 64, 640)):
        with threads(count):
            parts = [
                engines[factory].search(QUERIES[i : i + size], 10, allowed=allowed, barred=barred[i : i + size])
                for i in range(0, asked, size)
            ]
        positions = np.concatenate([part.positions for part in parts])
        similarities = np.concatenate([part.similarities for part in parts])
        if asked == 1000:
            whole, scores = positions, similarities
            answers.add((whole.tobytes(), scores.tobytes()))
        assert np.array_equal(positions, whole[: len(positions)])
        assert np.array_equal(similarities, scores[: len(positions)])
    assert len(answers) == 1
    shuffled = engines[factory].search(QUERIES[order], 10, allowed=allowed, barred=[barred[i] for i in order])
    assert np.array_equal(shuffled.positions, whole[order])


@pytest.mark.parametrize("factory", FACTORIES)
@pytest.mark.parametrize("share", [0.5, 0.1, 0.01, 0.002, 0.0])
def test_k_come_back_wherever_k_may_answer(engines: dict[str, Engine], factory: str, share: float) -> None:
    rng = np.random.default_rng(6)
    allowed = rng.random(ROWS) < share
    barred = [rng.choice(ROWS, 30, replace=False) for _ in range(40)]
    for query in range(20):  # some are barred from what they would find
        barred[query] = np.concatenate([barred[query], exact().search(QUERIES[query : query + 1], 60).positions[0]])
    hits = engines[factory].search(QUERIES[:40], 12, allowed=allowed, barred=barred)
    truth = exact().search(QUERIES[:40], 12, allowed=allowed, barred=barred)
    assert np.array_equal(hits.positions >= 0, truth.positions >= 0)
    for query in range(40):
        found = hits.positions[query][hits.positions[query] >= 0]
        assert allowed[found].all()
        assert not np.isin(found, barred[query]).any()
    if truth.positions.max() >= 0:
        assert recall(hits.positions, truth.positions) > 0.85


def test_far_rows_alone_are_allowed(engines: dict[str, Engine]) -> None:
    """The cells near the query hold no row that may answer it."""
    order = np.argsort(-(VECTORS @ QUERIES[0]))
    allowed = np.ones(ROWS, bool)
    allowed[order[:3500]] = False
    truth = exact().search(QUERIES[:1], 10, allowed=allowed)
    for factory in FACTORIES:
        hits = engines[factory].search(QUERIES[:1], 10, allowed=allowed)
        assert (hits.positions >= 0).all()
        assert allowed[hits.positions[0]].all()
        assert np.isfinite(hits.similarities).all()
    assert (truth.positions >= 0).all()


@pytest.mark.parametrize("k", [1, 200, ROWS, ROWS + 5])
def test_any_number_of_neighbours(engines: dict[str, Engine], k: int) -> None:
    for factory in FACTORIES:
        hits = engines[factory].search(QUERIES[:3], k)
        assert np.count_nonzero(hits.positions >= 0) == 3 * min(k, ROWS)
        assert all(len(set(row.tolist())) == len(row) for row in hits.positions[:, : min(k, ROWS)])


@pytest.mark.parametrize("factory", ["OPQ8,IVF32,PQ8x4fsr", "IDMap,HNSW16_SQ8"])
def test_rows_that_were_added_later_are_found_exactly(engines: dict[str, Engine], factory: str) -> None:
    rng = np.random.default_rng(7)
    later = np.concatenate([clustered(rng, 100), QUERIES[:5]])
    vectors = StoredVectors([*STORED.blocks, later], DIMENSION)
    numbers = np.concatenate([NUMBERS, NUMBERS[-1] + 3 + np.arange(105)])
    row_ids = np.concatenate([ROW_IDS, np.array([f"later{i}" for i in range(105)], object)])
    before = engines[factory]
    arguments = vectors, numbers, row_ids.__getitem__
    engine = open_engine(before.to_bytes(), before.description, before.until, *arguments)
    truth = exact_engine(vectors, row_ids.__getitem__).search(QUERIES, 10)
    hits = engine.search(QUERIES, 10)
    assert hits.positions[:5, 0].tolist() == list(range(ROWS + 100, ROWS + 105))
    tail = truth.positions >= ROWS
    assert all(set(a[b]) <= set(c) for a, b, c in zip(truth.positions, tail, hits.positions, strict=True))
    allowed = np.arange(len(vectors)) >= ROWS
    only = engine.search(QUERIES[:9], 10, allowed=allowed, barred=[np.array([ROWS + 100])] * 9)
    assert (only.positions >= ROWS).all()
    assert (only.positions != ROWS + 100).all()
    extended = engine.extended()
    assert (extended.until, extended.description["rows"]) == (int(numbers[-1]) + 1, ROWS + 105)
    assert (engine.until, engine.description["rows"]) == (before.until, ROWS)
    again = open_engine(extended.to_bytes(), extended.description, extended.until, *arguments)
    assert np.array_equal(again.search(QUERIES, 10).positions, extended.search(QUERIES, 10).positions)
    assert recall(again.search(QUERIES, 10).positions, truth.positions) > 0.9
    assert extended.extended() is extended


@pytest.mark.parametrize("factory", FACTORIES)
def test_removed_rows_are_in_no_byte_of_the_index(engines: dict[str, Engine], factory: str) -> None:
    engine, rng = engines[factory], np.random.default_rng(8)
    gone = np.sort(rng.choice(ROWS, 37, replace=False))
    before = engine.to_bytes()
    left = engine.without(NUMBERS[gone])
    assert engine.to_bytes() == before
    if factory.startswith(("IDMap,HNSW", "PCA")):
        assert left is None
        return
    assert left is not None
    data = left.to_bytes()
    kept = np.setdiff1d(np.arange(ROWS), gone)
    assert all(int(NUMBERS[row]).to_bytes(8, "little") in before for row in gone)
    assert not any(int(NUMBERS[row]).to_bytes(8, "little") in data for row in gone)
    # What an index holds to which these rows were never added, but for the order within cells.
    assert isinstance(engine, ApproximateEngine)
    never = faiss.clone_index(engine.proposer.index)
    never.reset()
    never.add_with_ids(VECTORS[kept], NUMBERS[kept])
    assert len(data) == faiss.serialize_index(never).nbytes
    if "fs" in factory:
        assert packed_codes(faiss.deserialize_index(np.frombuffer(data, np.uint8))) == packed_codes(never)
    else:
        assert sorted(data) == sorted(faiss.serialize_index(never).tobytes())
    vectors = StoredVectors([VECTORS[kept]], DIMENSION)
    names = ROW_IDS[kept].__getitem__
    again = open_engine(data, left.description, left.until, vectors, NUMBERS[kept], names)
    truth = exact_engine(vectors, names).search(QUERIES, 10)
    assert recall(again.search(QUERIES, 10).positions, truth.positions) > 0.9
    assert again.description["rows"] == ROWS - 37


def test_ranges_are_exact(engines: dict[str, Engine]) -> None:
    for factory in FACTORIES:
        for hits, truth in zip(
            engines[factory].within(QUERIES[:5], 0.7), exact().within(QUERIES[:5], 0.7), strict=True
        ):
            assert np.array_equal(hits.positions, truth.positions)


def test_a_woman_with_more_rows_than_an_index_is_asked_for(engines: dict[str, Engine]) -> None:
    barred = [np.arange(3990), np.array([], int)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(approximate, "_BARRED_STEPS", (0, 16, 64))
        hits = engines["IVF32,Flat"].search(QUERIES[:2], 10, barred=barred)
    assert sorted(hits.positions[0].tolist()) == list(range(3990, 4000))
