from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from index import GalleryError, approximate, gpu
from index.engines import Engine, EngineConfig, build_engine, exact_engine, open_engine
from index.vectors import StoredVectors

ROWS, DIMENSION = 6000, 64


def names(positions: np.ndarray) -> np.ndarray:
    return positions.astype(str).astype(object)


def unit(rows: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(9).normal(size=(50, DIMENSION))
    vectors = centres[rng.integers(0, 50, rows)] + 0.5 * rng.normal(size=(rows, DIMENSION))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


VECTORS, QUERIES, NUMBERS = unit(ROWS, 0), unit(300, 1), np.arange(ROWS)
STORED = StoredVectors([VECTORS[:2500], VECTORS[2500:]], DIMENSION)
SEARCH = {"nprobe": 12, "candidates": 100}


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "count_gpus", lambda: 0)


@pytest.fixture
def one_gpu() -> None:
    if not gpu.count_gpus():
        pytest.skip("FAISS finds no GPU, or is built without them")


@pytest.mark.parametrize(
    "device", ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:0,", "cuda:0 ", "CUDA", "cuda:99999"]
)
def test_what_is_no_device_is_refused(device: str) -> None:
    with pytest.raises(GalleryError, match="device"):
        exact_engine(STORED, names, device=device)


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:0,1"])
@pytest.mark.parametrize("engine", ["exact", "float16", "IVF32,SQ8", "ivf-pq"])
def test_without_a_gpu_the_processor_searches_and_a_note_says_so(engine: str, device: str) -> None:
    config = EngineConfig(engine, search=SEARCH)
    here, there = (build_engine(config, STORED, NUMBERS, names, device=where) for where in ("cpu", device))
    assert "note" not in here.description
    assert there.description["device"] == "cpu"
    assert "GPU" in there.description["note"]
    assert "so the processor searches" in there.description["note"]
    expected, found = here.search(QUERIES, 5), there.search(QUERIES, 5)
    assert np.array_equal(expected.positions, found.positions)
    if data := there.to_bytes():
        again = open_engine(data, here.description, here.until, STORED, NUMBERS, names, device=device)
        assert "so the processor searches" in again.description["note"]
        assert np.array_equal(expected.positions, again.search(QUERIES, 5).positions)


def test_a_gpu_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "count_gpus", lambda: 2)
    monkeypatch.setattr(gpu.faiss, "StandardGpuResources", object, raising=False)
    assert gpu._missing([0, 1]) == ""
    assert gpu._missing([0, 7]) == "there is no GPU 7: FAISS finds 2"
    assert gpu.devices_of("cuda") == [0, 1]
    assert gpu.devices_of("cuda:1,0,1") == [0, 1]


class FlatIndex:
    """What FAISS's flat index on a GPU does, rounded as it would be there."""

    def __init__(self, dimension: int, half: bool) -> None:
        self.vectors, self.half = np.empty((0, dimension), np.float32), half

    def add(self, vectors: np.ndarray) -> None:
        self.vectors = np.concatenate([self.vectors, vectors])

    def answer(self, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        kind = np.float16 if self.half else np.float32
        scores = queries.astype(kind).astype(np.float32) @ self.vectors.astype(kind).astype(np.float32).T
        best = np.argsort(-scores, axis=1, kind="stable")[:, :count]
        found = np.full((len(queries), count), -1)
        found[:, : best.shape[1]] = best
        ordered = np.full((len(queries), count), -np.inf, np.float32)
        ordered[:, : best.shape[1]] = np.take_along_axis(scores, best, axis=1)
        return ordered, found


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in for FAISS's own GPU index: what is around it can be tested anywhere."""
    monkeypatch.setattr(gpu, "_missing", lambda gpus: "")
    monkeypatch.setattr(gpu, "_on_gpus", lambda index, gpus, half: FlatIndex(index.d, half))
    monkeypatch.setattr(gpu, "search_index", lambda index, queries, count: index.answer(queries, count))


def compare_with_the_processor(device: str, engine: str) -> None:
    config = EngineConfig(engine, search=SEARCH)
    moved = build_engine(config, STORED, NUMBERS, names, device=device)
    assert isinstance(moved, gpu.GpuExactEngine)
    exact, rng = exact_engine(STORED, names), np.random.default_rng(3)
    barred = [rng.integers(0, ROWS, rng.integers(0, 9)) for _ in QUERIES]
    for k in (1, 10, 200, ROWS):
        queries, own = (QUERIES, barred) if k < 500 else (QUERIES[:3], barred[:3])
        for share in (1.0, 0.5, 0.05, 0.001):
            allowed = None if share == 1 else rng.random(ROWS) < share
            expected = exact.search(queries, k, allowed=allowed, barred=own)
            found = moved.search(queries, k, allowed=allowed, barred=own)
            assert np.array_equal(expected.positions, found.positions)
            assert np.array_equal(expected.similarities, found.similarities)
    assert np.array_equal(moved.within(QUERIES[:1], 0.8)[0].positions, exact.within(QUERIES[:1], 0.8)[0].positions)
    assert moved.to_bytes() == build_engine(config, STORED, NUMBERS, names).to_bytes()


@pytest.mark.usefixtures("pretended")
@pytest.mark.parametrize("device", ["cuda:0", "cuda:0,1,2"])
@pytest.mark.parametrize("engine", ["exact", "float16"])
def test_candidates_of_a_gpu_give_the_answers_of_the_processor(
    device: str, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "FEW_ROWS", 20)
    compare_with_the_processor(device, engine)


@pytest.mark.gpu
@pytest.mark.usefixtures("one_gpu")
@pytest.mark.parametrize("engine", ["exact", "float16"])
def test_exact_search_on_a_gpu(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "FEW_ROWS", 20)
    compare_with_the_processor("cuda:0", engine)


@pytest.mark.gpu
@pytest.mark.usefixtures("one_gpu")
@pytest.mark.parametrize("engine", ["IVF32,Flat", "IVF32,SQ8"])
def test_cells_on_a_gpu(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(approximate, "FEW_ROWS", 20)
    config = EngineConfig(engine, search=SEARCH)
    moved: Engine = build_engine(config, STORED, NUMBERS, names, device="cuda:0")
    here = open_engine(moved.to_bytes(), moved.description, moved.until, STORED, NUMBERS, names)
    assert "note" not in moved.description
    allowed = np.random.default_rng(4).random(ROWS) < 0.3
    for mask in (None, allowed):
        expected, found = (engine.search(QUERIES, 10, allowed=mask).positions for engine in (here, moved))
        same = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(expected.tolist(), found.tolist(), strict=True)])
        assert same > 0.98


@pytest.mark.gpu
@pytest.mark.usefixtures("one_gpu")
@pytest.mark.parametrize("engine", ["exact", "float16", "IVF32,SQ8"])
def test_threads_that_ask_one_gpu_at_once_get_the_answers_of_one_alone(engine: str) -> None:
    moved = build_engine(EngineConfig(engine, search=SEARCH), STORED, NUMBERS, names, device="cuda:0")
    parts = np.array_split(QUERIES, 60)
    alone = [moved.search(part, 10).positions for part in parts]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda part: moved.search(part, 10).positions, parts))
    assert all(np.array_equal(one, other) for one, other in zip(alone, together, strict=True))


@pytest.mark.gpu
@pytest.mark.usefixtures("one_gpu")
def test_cells_that_a_gpu_found_are_as_good_as_the_processors() -> None:
    config = EngineConfig("IVF32,Flat", search={"nprobe": 4, "candidates": 100})
    expected = exact_engine(STORED, names).search(QUERIES, 10).positions
    recall = {}
    for device in ("cpu", "cuda:0"):
        built = build_engine(config, STORED, NUMBERS, names, device=device)
        found = open_engine(built.to_bytes(), built.description, built.until, STORED, NUMBERS, names)
        hits = found.search(QUERIES, 10).positions
        recall[device] = np.mean([len(set(a) & set(b)) for a, b in zip(hits.tolist(), expected.tolist(), strict=True)])
    assert recall["cuda:0"] > recall["cpu"] - 0.3


@pytest.mark.gpu
@pytest.mark.usefixtures("one_gpu")
@pytest.mark.parametrize("engine", ["ivf-pq", "hnsw", "int8"])
def test_what_a_gpu_has_no_index_for_is_searched_by_the_processor(engine: str) -> None:
    config = EngineConfig(engine, search={"candidates": 100})
    here, there = (build_engine(config, STORED, NUMBERS, names, device=device) for device in ("cpu", "cuda:0"))
    assert "so the processor searches" in there.description["note"]
    assert np.array_equal(here.search(QUERIES, 5).positions, there.search(QUERIES, 5).positions)
