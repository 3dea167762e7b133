import faiss
import numpy as np
import pytest

from index import GalleryError, presets
from index.presets import choose, factory_of, make_index
from index.turning import prepare


@pytest.mark.parametrize("rows", [1000, 20_000, 1_000_000])
@pytest.mark.parametrize("dimension", [7, 30, 512, 1280])
@pytest.mark.parametrize("engine", [name for name in presets.PRESETS if name not in ("auto", "exact")])
def test_faiss_can_make_every_preset(engine: str, dimension: int, rows: int) -> None:
    plan = choose(engine, rows, dimension, 0.98, None)
    assert plan is not None
    index = make_index(plan.factory, dimension)
    assert (index.d, index.metric_type) == (dimension, faiss.METRIC_INNER_PRODUCT)
    assert plan.cells * 39 <= rows


@pytest.mark.parametrize("engine", ["ivf-pq", "ivf-sq", "int8", "float16", "hnsw", "ivf"])
def test_the_memory_that_is_announced_is_about_what_it_takes(engine: str) -> None:
    vectors = np.random.default_rng(0).normal(size=(4000, 32)).astype(np.float32)
    plan = choose(engine, 4000, 32, 0.98, None)
    assert plan is not None
    index = make_index(plan.factory, 32)
    prepare(index, vectors)
    index.train(vectors)
    index.add_with_ids(vectors, np.arange(4000))
    assert plan.bytes == pytest.approx(faiss.serialize_index(index).nbytes, rel=0.25)


def test_auto_is_exact_for_small_galleries_small_budgets_and_perfect_recall() -> None:
    assert choose("auto", 60_000, 512, 0.98, None) is None
    assert choose("auto", 1_000_000, 512, 1.0, None) is None
    assert choose("auto", 1_000_000, 512, 0.98, 1_000_000) is None
    plan = choose("auto", 1_000_000, 512, 0.98, 100_000_000)
    assert plan is not None
    assert plan.factory == "OPQ128,IVF2048,PQ128x4fsr"
    assert plan.bytes < 100_000_000
    smaller = choose("auto", 1_000_000, 512, 0.98, 60_000_000)
    assert smaller is not None
    assert smaller.factory == "OPQ64,IVF2048,PQ64x4fsr"
    assert smaller.bytes < 60_000_000


def test_a_preset_is_exact_where_there_is_nothing_to_train_on() -> None:
    assert choose("ivf-pq", 900, 512, 0.98, None) is None
    assert choose("Flat", 5, 512, 0.98, None) is None
    assert choose("exact", 10**7, 512, 0.5, 0) is None
    with pytest.raises(GalleryError):
        choose("nonsense", 5, 512, 0.98, None)


def test_a_budget_that_is_too_small_is_named() -> None:
    with pytest.raises(GalleryError, match=r"ivf takes about 2,0.* bytes, and 100,000,000 are allowed"):
        choose("ivf", 1_000_000, 512, 0.98, 100_000_000)


@pytest.mark.parametrize("recall", [0, -1, 1.5, float("nan")])
def test_a_recall_that_cannot_be_had_is_refused(recall: float) -> None:
    with pytest.raises(GalleryError, match="can't be had"):
        choose("auto", 10_000, 512, recall, None)


@pytest.mark.parametrize(
    "engine",
    [
        "",
        "fast",
        "IVF",
        "IVF0,Flat",
        "IVF999999999999,Flat",
        "IVF20000,Flat",
        "HNSW100000",
        "IVF16,PQ7x4fs",
        "IVF16,PQ8x30",
        "IMI2x10,Flat",
        "PCA100000,Flat",
        "Pad99999999,Flat",
        "IVF16,Flat; rm -rf",
        "IVF16," * 40 + "Flat",
        "Flat\n",
        "LSH",
        "../../index",
        "IVF16_HNSW100000,Flat",
    ],
)
def test_nonsense_is_refused(engine: str) -> None:
    with pytest.raises(GalleryError):
        choose(engine, 10_000, 32, 0.98, None)


@pytest.mark.parametrize("engine", ["IVF16,SQ4", "HNSW16", "OPQ8,IVF16,PQ8x4fs", "PCA16,IVF16,Flat", "Flat", "PQ8x4fs"])
def test_any_other_index_of_faiss_can_be_had(engine: str) -> None:
    assert factory_of(engine, 10_000, 32) == engine
    plan = choose(engine, 10_000, 32, 0.98, None)
    assert plan is not None
    vectors = np.random.default_rng(0).normal(size=(2000, 32)).astype(np.float32)
    index = make_index(engine, 32)
    prepare(index, vectors)
    index.train(vectors)
    index.add_with_ids(vectors, np.arange(2000) + 5)
    assert index.search(vectors[:1], 3)[1].min() >= 5
