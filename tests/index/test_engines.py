import contextlib
import json
import subprocess
import sys

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index import GalleryError, engines, presets
from index.engines import EngineConfig, build_engine, exact_engine, open_engine, unit_length
from index.vectors import StoredVectors

ROWS, DIMENSION = 3000, 16
NUMBERS = np.arange(7, 7 + ROWS)


def names(positions: np.ndarray) -> np.ndarray:
    return positions.astype(str).astype(object)


def embeddings(rows: int = ROWS, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(1).normal(size=(40, DIMENSION))
    vectors = centres[rng.integers(0, 40, rows)] + 0.4 * rng.normal(size=(rows, DIMENSION))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


VECTORS = embeddings()
STORED = StoredVectors([VECTORS], DIMENSION)
SEARCH = {"nprobe": 8, "efSearch": 40, "candidates": 60}


@pytest.fixture(scope="module")
def built() -> dict[str, engines.Engine]:
    wanted = ("ivf-pq", "IVF20,Flat", "IDMap,HNSW8_SQ8", "int8")
    return {name: build_engine(EngineConfig(name, search=SEARCH), STORED, NUMBERS, names) for name in wanted}


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let so few rows count as many."""
    monkeypatch.setattr(presets, "EXACT_VALUES", 1000)


def test_unit_length_knows_what_is_not() -> None:
    vectors = np.array([[1, 0], [0.9995, 0], [0.99, 0], [0, 0], [np.nan, 1], [np.inf, 0]], np.float32)
    assert unit_length(vectors).tolist() == [True, True, False, False, False, False]


def test_the_settings_survive_the_manifest() -> None:
    config = EngineConfig("ivf-sq", 0.9, 10**9, 5000, 2, {"nprobe": 4})
    assert EngineConfig.from_dict(config.to_dict()) == config
    assert EngineConfig.from_dict({}) == EngineConfig()
    with pytest.raises(GalleryError, match="colour is not known"):
        EngineConfig.from_dict({"colour": "red"})


def test_a_small_gallery_is_searched_exactly() -> None:
    engine = build_engine(EngineConfig(), STORED, NUMBERS, names)
    assert engine.description == exact_engine(STORED, names).description
    nothing = build_engine(EngineConfig("ivf-pq"), StoredVectors([], DIMENSION), NUMBERS[:0], names)
    assert nothing.description["engine"] == "exact"


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("with_women", [True, False])
def test_auto_reaches_the_recall_that_is_asked_for_and_says_so(with_women: bool) -> None:
    lines: list[str] = []
    groups = np.repeat(np.arange(ROWS // 3), 3) if with_women else None
    config = EngineConfig(target_recall=0.95, threads=1)
    engine = build_engine(config, STORED, NUMBERS, names, groups=groups, progress=lines.append)
    said, queries = engine.description, embeddings(500, seed=5)
    found, truth = engine.search(queries, 10).positions, exact_engine(STORED, names).search(queries, 10).positions
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found.tolist(), truth.tolist(), strict=True)])
    assert recall >= 0.95
    low, high = said["recall_interval"]
    assert 0.95 <= said["recall"] <= 1
    assert low - 0.02 <= recall <= high + 0.02
    assert said["factory"] == "OPQ4,IVF64,PQ4x4fsr"
    assert said["bytes"] == len(engine.to_bytes())
    assert (said["rows"], said["recall_at"], said["threads"]) == (ROWS, 10, 1)
    assert any(line.startswith("training OPQ4") for line in lines)


@pytest.mark.usefixtures("large")
def test_the_same_rows_make_the_same_index() -> None:
    config = EngineConfig(threads=1, search={"candidates": 50, "nprobe": 5})
    first, second = (build_engine(config, STORED, NUMBERS, names) for _ in range(2))
    assert first.to_bytes() == second.to_bytes()
    assert first.description["search"] == {"candidates": 50, "nprobe": 5}


@pytest.mark.parametrize("name", ["ivf-pq", "IVF20,Flat", "IDMap,HNSW8_SQ8", "int8"])
def test_an_index_is_read_back_as_it_was(built: dict[str, engines.Engine], name: str) -> None:
    engine = built[name]
    data = engine.to_bytes()
    again = open_engine(data, engine.description, engine.until, STORED, NUMBERS, names)
    assert again.to_bytes() == data
    assert again.search(VECTORS[:50], 5).positions.tobytes() == engine.search(VECTORS[:50], 5).positions.tobytes()


@pytest.mark.parametrize("name", ["ivf-pq", "IVF20,Flat", "IDMap,HNSW8_SQ8", "int8"])
def test_an_index_of_other_rows_is_refused(built: dict[str, engines.Engine], name: str) -> None:
    engine = built[name]
    data, description, until = engine.to_bytes(), engine.description, engine.until
    other = NUMBERS.copy()
    other[-1] += 1
    fewer = StoredVectors([VECTORS[:-1]], DIMENSION)
    longer = StoredVectors([np.repeat(VECTORS, 2, axis=1)], 2 * DIMENSION)
    for arguments in (
        (data, description, until + 1, STORED, other),
        (data, description, until, fewer, NUMBERS[:-1]),
        (data, description, until - 1, STORED, NUMBERS),
        (data, description, until, longer, NUMBERS),
        (data[:-1], description, until, STORED, NUMBERS),
        (data[: len(data) // 2], description, until, STORED, NUMBERS),
        (b"", description, until, STORED, NUMBERS),
        (b"nonsense" * 10, description, until, STORED, NUMBERS),
    ):
        with pytest.raises(ValueError):
            open_engine(*arguments, names)


def test_an_index_of_another_kind_is_refused() -> None:
    euclidean = faiss.index_factory(DIMENSION, "IVF4,Flat")
    euclidean.train(VECTORS)
    euclidean.add_with_ids(VECTORS, NUMBERS)
    nameless = faiss.IndexFlatIP(DIMENSION)
    nameless.add(VECTORS)
    twice = faiss.index_factory(DIMENSION, "IVF4,Flat", faiss.METRIC_INNER_PRODUCT)
    twice.train(VECTORS)
    twice.add_with_ids(VECTORS, np.concatenate([NUMBERS[:1], NUMBERS[:-1]]))
    for index in (euclidean, nameless, twice):
        with pytest.raises(ValueError):
            open_engine(
                faiss.serialize_index(index).tobytes(),
                {"search": {"candidates": 50, "nprobe": 3}},
                int(NUMBERS[-1]) + 1,
                STORED,
                NUMBERS,
                names,
            )


@pytest.mark.parametrize(
    "search", [None, {}, {"candidates": 0, "nprobe": 3}, {"candidates": 50}, {"candidates": 50, "nprobe": "3"}]
)
def test_search_parameters_that_cannot_be_are_refused(built: dict[str, engines.Engine], search: object) -> None:
    engine = built["IVF20,Flat"]
    description = {**engine.description, "search": search}
    with pytest.raises(ValueError, match="search parameter"):
        open_engine(engine.to_bytes(), description, engine.until, STORED, NUMBERS, names)
    with pytest.raises(ValueError, match="threads"):
        open_engine(engine.to_bytes(), {**engine.description, "threads": 0}, engine.until, STORED, NUMBERS, names)


@settings(deadline=None, max_examples=50)
@given(
    st.sampled_from(["ivf-pq", "IVF20,Flat", "IDMap,HNSW8_SQ8", "int8"]),
    st.floats(0, 1),
    st.binary(min_size=1, max_size=9),
)
def test_an_index_with_other_bytes_in_its_head_takes_no_memory_and_raises_nothing_else(
    built: dict[str, engines.Engine], name: str, place: float, other: bytes
) -> None:
    """Its digest would not fit; this is the second line of defence, for the fields that say how large all is."""
    engine = built[name]
    data = bytearray(engine.to_bytes())
    at = int(place * 200)
    data[at : at + len(other)] = other
    with contextlib.suppress(ValueError):
        open_engine(bytes(data), engine.description, engine.until, STORED, NUMBERS, names)


def test_a_huge_declared_size_takes_no_memory() -> None:
    """A flat index of 2^37 numbers, in 60 bytes."""
    code = """
import resource, struct, numpy as np
from index.engines import open_engine
from index.vectors import StoredVectors
head = b"IxFI" + struct.pack("<iqqqBi", 16, 1 << 33, 1 << 20, 1 << 20, 1, 0) + struct.pack("<Q", 1 << 37) + bytes(20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    open_engine(head, {}, 5, StoredVectors([np.eye(5, 16, dtype=np.float32)], 16), np.arange(5), str)
except ValueError as error:
    print("refused")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["refused", "True"]


def test_what_faiss_cannot_train_is_refused() -> None:
    few = StoredVectors([VECTORS[:1100]], DIMENSION)
    with pytest.raises(GalleryError, match="can't train"):
        build_engine(EngineConfig("IVF4,PQ4x10", training_rows=50), few, NUMBERS[:1100], names)


def test_a_library_that_replaces_faiss_search_changes_nothing() -> None:
    """`faiss.contrib.torch_utils` does, and pytorch-metric-learning imports it."""
    pytest.importorskip("torch")
    code = """
import faiss.contrib.torch_utils, numpy as np
from index import approximate
from index.engines import EngineConfig, build_engine
from index.vectors import StoredVectors
approximate.FEW_ROWS = 3
vectors = np.eye(8, dtype=np.float32)[np.arange(1200) % 8]
gallery = StoredVectors([vectors], 8), np.arange(1200), lambda rows: np.array([f"{row:4}" for row in rows], object)
config = EngineConfig("IVF4,Flat", search={"nprobe": 4, "candidates": 20})
engine = build_engine(config, *gallery)
print(engine.search(vectors[:1], 2, allowed=np.arange(1200) > 8).positions.tolist())
config = EngineConfig("IDMap,HNSW8_SQ8", search={"efSearch": 300, "candidates": 300})
engine = build_engine(config, *gallery)
print(engine.search(vectors[:1], 1).similarities.tolist())
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[1] == "[[1.0]]"
    assert all(row % 8 == 0 and row > 8 for row in json.loads(ran.stdout.splitlines()[0])[0])
