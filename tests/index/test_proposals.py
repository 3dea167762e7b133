import faiss
import numpy as np
import pytest

from index.presets import make_index
from index.proposals import (
    CellProposer,
    FlatProposer,
    GraphProposer,
    SingleProposer,
    faiss_threads,
    pair_scores,
    proposer_of,
)
from index.turning import prepare
from index.vectors import StoredVectors


def unit(rows: int, dimension: int = 16, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(rows, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def filled(factory: str) -> faiss.Index:
    index = make_index(factory, 16)
    prepare(index, unit(2000))
    index.train(unit(2000))
    index.add_with_ids(unit(2000), np.arange(2000) + 100)
    return index


@pytest.mark.parametrize(
    ("factory", "kind"),
    [
        ("IVF16,Flat", CellProposer),
        ("IVF16,SQ8", CellProposer),
        ("IVF16,PQ4x4fs", CellProposer),
        ("IVF16,PQ4x4fsr", CellProposer),
        ("IVF16,PQ4x5", CellProposer),
        ("OPQ4,IVF16,PQ4x4fsr", CellProposer),
        ("HNSW8", GraphProposer),
        ("HNSW8,SQ8", GraphProposer),
        ("SQfp16", FlatProposer),
        # Tables by a matrix product, cells by a graph, means taken away: one query at a time.
        ("IVF16,PQ1x4fs", SingleProposer),
        ("IVF16_HNSW8,Flat", SingleProposer),
        ("PCA8,IVF16,Flat", SingleProposer),
        ("IVF16,RaBitQ", SingleProposer),
        ("PCA8,Flat", SingleProposer),
    ],
)
def test_each_index_is_asked_in_its_own_way(factory: str, kind: type) -> None:
    proposer = proposer_of(filled(factory))
    assert type(proposer) is kind
    found = proposer.propose(unit(5), 8, 16, None)
    assert found.shape == (5, 8)
    if "PQ" not in factory and "PCA" not in factory and "RaBitQ" not in factory:
        assert found[:, 0].tolist() == [100, 101, 102, 103, 104]
    assert ((found >= 100) & (found < 2100)).all()


@pytest.mark.parametrize("factory", ["IVF16,Flat", "OPQ4,IVF16,PQ4x4fsr", "HNSW8", "SQ8"])
def test_a_selector_leaves_rows_out(factory: str) -> None:
    proposer = proposer_of(filled(factory))
    allowed = np.zeros(2200, bool)
    allowed[150:2100:3] = True
    selector = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
    found = proposer.propose(unit(20), 10, 16, selector)
    assert allowed[found[found >= 0]].all()
    assert (found >= 0).mean() > 0.9


def test_the_cells_are_the_nearest_even_where_float32_cannot_tell() -> None:
    centres = unit(24)
    centres[5:20] = centres[5]
    for number in range(5, 20):  # one step of float32 apart
        centres[number, number - 5] = np.nextafter(centres[number, number - 5], np.float32(2))
    quantizer = faiss.IndexFlatIP(16)
    quantizer.add(centres)
    index = faiss.IndexIVFFlat(quantizer, 16, 24, faiss.METRIC_INNER_PRODUCT)
    proposer = CellProposer(index)
    queries = np.concatenate([centres, unit(60, seed=1)])
    for breadth in (1, 3, 8, 19, 23, 24, 50):
        cells = proposer._cells(queries, breadth)
        exact = queries.astype(np.float64) @ centres.astype(np.float64).T
        for query, chosen in enumerate(cells.tolist()):
            order = sorted(range(24), key=lambda cell: (-np.float32(exact[query, cell]), cell))
            assert chosen == sorted(order[:breadth])
        assert np.array_equal(cells[:1], proposer._cells(queries[:1], breadth))


@pytest.mark.parametrize("blocks", [1, 3])
def test_scores_of_pairs(blocks: int) -> None:
    vectors, queries = unit(50), unit(7, seed=1)
    rows = np.random.default_rng(2).integers(-1, 50, (7, 30))
    scores = pair_scores(queries, StoredVectors(np.array_split(vectors, blocks), 16), rows)
    expected = np.where(rows < 0, -np.inf, (queries @ vectors.T)[np.arange(7)[:, None], rows])
    assert np.allclose(scores, expected, atol=1e-6)
    assert pair_scores(queries, StoredVectors([vectors], 16), rows[:, :0]).shape == (7, 0)


def test_threads_are_given_back() -> None:
    before = faiss.omp_get_max_threads()
    with faiss_threads(3):
        assert faiss.omp_get_max_threads() == 3
    with faiss_threads(None):
        assert faiss.omp_get_max_threads() == before
    assert faiss.omp_get_max_threads() == before
