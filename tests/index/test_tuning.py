import numpy as np
import pytest

from index.approximate import ApproximateEngine
from index.faissfile import add_rows
from index.nearest import Hits
from index.presets import make_index
from index.tuning import Choice, Sample, tune
from index.vectors import StoredVectors

ROWS = 5000


def names(positions: np.ndarray) -> np.ndarray:
    return positions.astype(str).astype(object)


@pytest.fixture(scope="module")
def vectors() -> StoredVectors:
    rng = np.random.default_rng(0)
    found = rng.normal(size=(50, 16))[rng.integers(0, 50, ROWS)] + 0.5 * rng.normal(size=(ROWS, 16))
    return StoredVectors([(found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)], 16)


def engine_without(sample: Sample, vectors: StoredVectors) -> ApproximateEngine:
    index = make_index("IVF32,SQ4", 16)
    index.train(vectors.blocks[0])
    add_rows(index, vectors, np.arange(ROWS), ~sample.held_out)
    return ApproximateEngine(index, {"search": {}}, ROWS, vectors, np.arange(ROWS), names)


def test_whole_women_are_held_out(vectors: StoredVectors) -> None:
    groups = np.random.default_rng(1).permutation(np.repeat(np.arange(ROWS // 5), 5))
    sample = Sample(vectors, names, groups)
    women, counts = np.unique(groups[sample.held_out], return_counts=True)
    assert (counts == 5).all()
    assert 20 <= len(women) <= ROWS // 5 * 0.15
    assert 500 < len(sample.queries) <= 1000


def test_one_woman_at_least_and_never_all(vectors: StoredVectors) -> None:
    for groups in (np.arange(ROWS) % 2, np.arange(ROWS) // 2000):
        held_out = Sample(vectors, names, groups).held_out
        assert 0 < held_out.sum() < ROWS
        assert len(np.unique(groups[held_out])) == 1


def test_single_rows_are_held_out_where_women_are_not_known(vectors: StoredVectors) -> None:
    for groups in (None, np.zeros(ROWS, int)):
        sample = Sample(vectors, names, groups)
        assert sample.held_out.sum() == len(sample.queries) == 500


def test_recall_is_the_share_of_what_exact_search_finds(vectors: StoredVectors) -> None:
    sample = Sample(vectors, names)
    truth = sample._truth
    assert (sample.recalls(truth) == 1).all()
    assert not sample.held_out[truth.positions].any()
    half = Hits(np.where(np.arange(10) < 5, truth.similarities, -np.inf).astype(np.float32), truth.positions)
    assert (sample.recalls(half) == 0.5).all()


def test_the_cheapest_parameters_that_reach_the_recall_are_taken(vectors: StoredVectors) -> None:
    sample = Sample(vectors, names)
    engine = engine_without(sample, vectors)
    low, high = tune(engine, sample, 0.8, {}), tune(engine, sample, 0.99, {})
    assert low.interval[0] >= 0.8
    assert high.interval[0] >= 0.99
    assert low.cost < high.cost
    narrower = tune(
        engine, sample, 0.8, {"nprobe": max(1, low.search["nprobe"] - 1), "candidates": low.search["candidates"]}
    )
    assert narrower.interval[0] < 0.8 or low.search["nprobe"] == 1
    assert tune(engine, sample, 0.99, {"nprobe": 2}).search["nprobe"] == 2


def test_the_best_there_is_where_the_recall_is_out_of_reach(vectors: StoredVectors) -> None:
    sample = Sample(vectors, names)
    choice = tune(engine_without(sample, vectors), sample, 1.0, {"nprobe": 1})
    assert 0.1 < choice.recall < 1


def test_the_interval_holds_the_mean() -> None:
    recalls = np.random.default_rng(2).choice([0.8, 0.9, 1.0], 400)
    low, high = Choice({}, recalls, np.arange(400), 0.0).interval
    assert low < recalls.mean() < high < low + 0.03


def test_the_interval_is_over_women_where_they_are_known(vectors: StoredVectors) -> None:
    groups = np.repeat(np.arange(50), ROWS // 50)
    sample = Sample(vectors, names, groups)
    asked = np.flatnonzero(sample.held_out)
    assert len(np.unique(groups[asked])) == 7
    assert len(np.unique(sample.units)) == len(sample.queries)  # seven women are too few
    sample = Sample(vectors, names, np.repeat(np.arange(250), ROWS // 250))
    assert len(np.unique(sample.units)) == 37
    # Women who are found or not as a whole say less than as many rows that each go their own way.
    found = (np.arange(400) // 40 % 2).astype(float)
    by_woman, by_row = Choice({}, found, np.arange(400) // 40, 0.0), Choice({}, found, np.arange(400), 0.0)
    assert by_woman.interval[0] < by_row.interval[0] < 0.5 < by_row.interval[1] < by_woman.interval[1]
