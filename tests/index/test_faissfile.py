import faiss
import numpy as np
import pytest

from index.faissfile import add_rows, cells_of, held_numbers, read_index, turn_of, without
from index.presets import make_index
from index.turning import prepare
from index.vectors import StoredVectors

ROWS = 600
VECTORS = np.random.default_rng(0).normal(size=(ROWS, 16)).astype(np.float32)
VECTORS /= np.linalg.norm(VECTORS, axis=1, keepdims=True)
NUMBERS = np.arange(ROWS) * 3 + 1000


def filled(factory: str) -> faiss.Index:
    index = make_index(factory, 16)
    prepare(index, VECTORS)
    index.train(VECTORS)
    add_rows(index, StoredVectors([VECTORS[:250], VECTORS[250:]], 16), NUMBERS, np.ones(ROWS, bool))
    return index


def data_of(index: faiss.Index) -> bytes:
    return faiss.serialize_index(index).tobytes()


@pytest.mark.parametrize("factory", ["IVF8,SQ8", "IVF8,PQ4x4fs", "PCA8,IVF8,Flat", "HNSW8", "SQ8", "PCA8,Flat"])
def test_it_knows_which_rows_it_holds(factory: str) -> None:
    index = filled(factory)
    assert np.array_equal(np.sort(held_numbers(index)), NUMBERS)
    again = read_index(data_of(index), 16, NUMBERS)
    assert type(again) is type(index)
    assert (cells_of(again) is None) == ("IVF" not in factory)


def test_only_chosen_rows_are_added() -> None:
    index = make_index("IVF8,Flat", 16)
    index.train(VECTORS)
    chosen = np.arange(ROWS) % 7 == 0
    add_rows(index, StoredVectors([VECTORS[:250], VECTORS[250:]], 16), NUMBERS, chosen)
    assert np.array_equal(np.sort(held_numbers(index)), NUMBERS[chosen])
    assert np.array_equal(index.search(VECTORS[:1], 1)[1], [[1000]])


def test_a_turn_is_a_matrix_without_an_offset() -> None:
    turn = turn_of(filled("OPQ4,IVF8,PQ4x4fs"))
    assert turn is not None
    assert np.allclose(turn @ turn.T, np.eye(16), atol=1e-4)
    assert turn_of(filled("PCA8,IVF8,Flat")) is None
    assert turn_of(filled("IVF8,Flat")) is None


def test_rows_that_are_not_there_can_be_taken_out() -> None:
    index = filled("IVF8,Flat")
    left = without(index, np.array([5, 1000, 10**9]))
    assert left.ntotal == ROWS - 1
    assert index.ntotal == ROWS


def tampered(change: str) -> faiss.Index:
    index = filled("HNSW8")
    graph = faiss.downcast_index(index.index).hnsw
    if change == "a link past the end":
        links = faiss.vector_to_array(graph.neighbors)
        links[5] = ROWS
        faiss.copy_array_to_vector(links, graph.neighbors)
    elif change == "a negative link":
        links = faiss.vector_to_array(graph.neighbors)
        links[5] = -7
        faiss.copy_array_to_vector(links, graph.neighbors)
    elif change == "an entry past the end":
        graph.entry_point = ROWS
    elif change == "a level too many":
        graph.max_level += 1
    elif change == "offsets that run backwards":
        offsets = faiss.vector_to_array(graph.offsets)
        offsets[10], offsets[11] = offsets[11], offsets[10]
        faiss.copy_array_to_vector(offsets, graph.offsets)
    return index


@pytest.mark.parametrize(
    "change",
    [
        "a link past the end",
        "a negative link",
        "an entry past the end",
        "a level too many",
        "offsets that run backwards",
    ],
)
def test_a_graph_that_leads_out_of_memory_is_refused(change: str) -> None:
    with pytest.raises(ValueError):
        read_index(data_of(tampered(change)), 16, NUMBERS)
    assert read_index(data_of(tampered("nothing")), 16, NUMBERS).ntotal == ROWS


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_centres_that_lie_nowhere_are_refused(value: float) -> None:
    index = filled("IVF8,Flat")
    centres = faiss.rev_swig_ptr(faiss.downcast_index(index.quantizer).get_xb(), 8 * 16)
    centres[3] = value
    with pytest.raises(ValueError, match="nowhere"):
        read_index(data_of(index), 16, NUMBERS)


def test_the_limits_of_reading_are_set_back() -> None:
    before = faiss.get_deserialization_vector_byte_limit(), faiss.get_deserialization_loop_limit()
    read_index(data_of(filled("SQ8")), 16, NUMBERS)
    with pytest.raises(ValueError):
        read_index(b"nonsense, and a lot of it", 16, NUMBERS)
    assert (faiss.get_deserialization_vector_byte_limit(), faiss.get_deserialization_loop_limit()) == before
