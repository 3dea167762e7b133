import faiss
import numpy as np

from index.turning import balanced_axes, find_centres, nearest_centres, prepare


def uneven(rows: int = 6000, dimension: int = 32) -> np.ndarray:
    """Return unit vectors that vary far more along some directions than along others."""
    rng = np.random.default_rng(0)
    spread = np.linalg.qr(rng.normal(size=(dimension, dimension)))[0] * np.exp(-np.arange(dimension) / 5)[:, None]
    vectors = rng.normal(size=(rows, dimension)) @ spread + 0.3 * np.eye(dimension)[0]
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_the_axes_are_a_turn_and_the_parts_vary_equally() -> None:
    vectors = uneven()
    axes = balanced_axes(vectors, 8)
    assert np.allclose(axes @ axes.T, np.eye(32), atol=1e-5)
    variances = ((vectors @ axes.T) ** 2).mean(axis=0).reshape(8, 4)
    products = np.log(variances).sum(axis=1)
    assert np.ptp(products) < 1.5
    assert np.ptp(np.log((vectors**2).mean(axis=0).reshape(8, 4)).sum(axis=1)) > 1.5 * np.ptp(products)


def test_centres_are_the_mean_directions_of_their_cells() -> None:
    vectors = uneven()
    centres = find_centres(vectors, 20)
    assert np.allclose(np.linalg.norm(centres, axis=1), 1, atol=1e-5)
    cells = nearest_centres(vectors, centres)
    assert cells.tolist() == [int(np.argmax([centre @ vector for centre in centres])) for vector in vectors]
    mean = np.mean(np.einsum("nd,nd->n", vectors, centres[cells]))
    chosen = vectors[np.random.default_rng(1).choice(len(vectors), 20)]
    assert mean > np.mean(np.einsum("nd,nd->n", vectors, chosen[nearest_centres(vectors, chosen)])) + 0.01
    assert np.array_equal(centres, find_centres(vectors, 20))


def test_codes_lose_less_after_the_turn() -> None:
    vectors = uneven()
    truth = np.argsort(-(vectors[:200] @ vectors.T), axis=1)[:, :10]

    def recall(factory: str) -> float:
        index = faiss.index_factory(32, factory, faiss.METRIC_INNER_PRODUCT)
        prepare(index, vectors)
        index.train(vectors)
        index.add(vectors)
        faiss.extract_index_ivf(index).nprobe = 16
        found = index.search(vectors[:200], 10)[1]
        return float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found.tolist(), truth.tolist(), strict=True)]))

    assert recall("OPQ8,IVF16,PQ8x4fsr") > recall("IVF16,PQ8x4fs") + 0.05


def test_other_indexes_are_left_as_they_are() -> None:
    vectors = uneven(500)
    for factory in ("Flat", "IVF4,Flat", "PCA8,IVF4,Flat", "OPQ8,IVF4_HNSW8,PQ8x4fs"):
        index = faiss.index_factory(32, factory, faiss.METRIC_INNER_PRODUCT)
        prepare(index, vectors)
        assert index.ntotal == 0
        assert index.is_trained == (factory == "Flat")
