"""FAISS indexes as bytes: read within bounds, checked before they are asked, and rid of rows."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import faiss as _faiss
import numpy as np

from index.nearest import Mask
from index.vectors import Positions, StoredVectors, Vectors

faiss: Any = _faiss  # Its Python wrappers take other arguments than the C++ classes that its stubs describe.

_ADDED = 1 << 15  # rows added at a time
_LONGEST = 100.0  # in any coordinate of a centre; those of unit vectors are 1 at most
_reading = threading.Lock()


def read_index(data: bytes, dimension: int, numbers: Positions) -> Any:
    """Read an index and check that it holds certain rows and nothing else.

    FAISS believes what it reads, so the digest of the bytes has to be checked before. Here no vector of it may take
    more memory than all the bytes there are, and what it holds is compared with what it should hold.

    Args:
        data: What FAISS wrote.
        dimension: Length of a vector.
        numbers: int64 (m,), the numbers of the rows that it must hold, increasing.

    Raises:
        ValueError: The bytes are no index, or not of these rows.
    """
    if len(data) < 16:
        raise ValueError("it is no FAISS index")
    try:
        with _bounded(len(data)):
            index = faiss.deserialize_index(np.frombuffer(data, np.uint8))
    except (RuntimeError, MemoryError) as error:
        raise ValueError("FAISS can't read it") from error
    if index.d != dimension or index.metric_type != faiss.METRIC_INNER_PRODUCT or not index.is_trained:
        raise ValueError("it is not an index of such vectors")
    if index.ntotal != len(numbers):
        raise ValueError(f"it holds {index.ntotal} rows, not {len(numbers)}")
    if not np.array_equal(np.sort(held_numbers(index)), numbers):
        raise ValueError("it holds other rows")
    _check_inside(index)
    return index


def cells_of(index: Any) -> Any | None:
    """Return the inverted file of an index, None where it has none."""
    if isinstance(index, faiss.IndexIVF):
        return index
    inverted = faiss.try_extract_index_ivf(index)
    return None if inverted is None else faiss.downcast_index(inverted)


def turn_of(index: Any) -> Vectors | None:
    """Return the matrix (m, d) by which an index turns vectors before all else, None where it does otherwise."""
    if not isinstance(index, faiss.IndexPreTransform) or index.chain.size() != 1:
        return None
    step = faiss.downcast_VectorTransform(index.chain.at(0))
    if not isinstance(step, faiss.LinearTransform) or step.have_bias:
        return None
    return np.asarray(faiss.vector_to_array(step.A)).reshape(step.d_out, step.d_in)


def held_numbers(index: Any) -> Positions:
    """Return the numbers of the rows in an index, int64 (m,), in no order.

    Raises:
        ValueError: It keeps none.
    """
    if isinstance(index, faiss.IndexIDMap):
        return np.asarray(faiss.vector_to_array(index.id_map))
    inverted = cells_of(index)
    if inverted is None:
        raise ValueError("it does not keep the numbers of its rows")
    lists = inverted.invlists
    found = [np.empty(0, np.int64)]
    for cell in range(inverted.nlist):
        if size := lists.list_size(cell):
            found.append(faiss.rev_swig_ptr(lists.get_ids(cell), size).copy())
    return np.concatenate(found)


def add_rows(index: Any, vectors: StoredVectors, numbers: Positions, chosen: Mask) -> None:
    """Add the chosen rows, bool (n,), each by its number."""
    for first, block in vectors.parts(rows=_ADDED):
        here = chosen[first : first + len(block)]
        if here.any():
            part = block if here.all() else block[here]
            index.add_with_ids(np.ascontiguousarray(part, np.float32), numbers[first : first + len(block)][here])


def without(index: Any, removed: Positions) -> Any | None:
    """Return a copy of an index in which some rows are no more, None where FAISS can't take rows out.

    Args:
        index: Left as it is.
        removed: int64 (m,), numbers.
    """
    inner = faiss.downcast_index(index.index) if isinstance(index, faiss.IndexIDMap) else index
    if isinstance(inner, faiss.IndexHNSW):
        return None
    copy = faiss.clone_index(index)
    try:
        copy.remove_ids(np.asarray(removed, np.int64))
    except RuntimeError:
        return None
    inverted = cells_of(copy)
    if inverted is not None:
        _blank_padding(faiss.downcast_InvertedLists(inverted.invlists))
    return copy


def _blank_padding(lists: Any) -> None:
    """Overwrite what lies behind the last row of each list.

    FastScan packs 32 rows together, and a row that is taken out leaves its code behind the last one that is left.
    """
    if not isinstance(lists, faiss.BlockInvertedLists):
        return
    packer, per_block, block_size = lists.packer, lists.n_per_block, lists.block_size
    nothing = np.zeros(packer.code_size, np.uint8)
    for cell in range(lists.nlist):
        size = lists.list_size(cell)
        padded = -(-size // per_block) * per_block
        if size < padded:
            codes = faiss.rev_swig_ptr(lists.get_codes(cell), padded // per_block * block_size)
            codes = codes.reshape(-1, block_size)
            for place in range(size, padded):
                packer.pack_1(nothing, place, codes)


def _check_inside(index: Any) -> None:
    """Raise ValueError where parts of an index do not fit together so that a search could leave its memory."""
    wrapped = isinstance(index, faiss.IndexIDMap | faiss.IndexPreTransform)
    inner, dimension = faiss.downcast_index(index.index) if wrapped else index, index.d
    if isinstance(index, faiss.IndexPreTransform):
        for number in range(index.chain.size()):
            step = faiss.downcast_VectorTransform(index.chain.at(number))
            size = step.A.size() if isinstance(step, faiss.LinearTransform) else step.d_in * step.d_out
            if step.d_in != dimension or size != step.d_in * step.d_out or not step.is_trained:
                raise ValueError("its parts do not fit together")
            dimension = step.d_out
    if inner.ntotal != index.ntotal or inner.d != dimension or inner.metric_type != index.metric_type:
        raise ValueError("its parts do not fit together")
    inverted = cells_of(index)
    if inverted is not None:
        quantizer = inverted.quantizer
        if quantizer.ntotal != inverted.nlist or quantizer.d != inverted.d or inverted.d != inner.d:
            raise ValueError("its cells do not fit together")
        centres = faiss.downcast_index(quantizer)
        if isinstance(centres, faiss.IndexFlat):
            held = faiss.rev_swig_ptr(centres.get_xb(), centres.ntotal * centres.d)
            if not (np.abs(held) <= _LONGEST).all():
                raise ValueError("its cells lie nowhere")
    if isinstance(inner, faiss.IndexHNSW):
        _check_graph(inner)


def _check_graph(index: Any) -> None:
    graph, rows = index.hnsw, index.ntotal
    levels = np.asarray(faiss.vector_to_array(graph.levels))
    offsets = np.asarray(faiss.vector_to_array(graph.offsets))
    links = np.asarray(faiss.vector_to_array(graph.neighbors))
    widths = np.asarray(faiss.vector_to_array(graph.cum_nneighbor_per_level))
    good = (
        index.storage.ntotal == rows
        and index.storage.d == index.d
        and len(levels) == rows
        and len(offsets) == rows + 1
        and int(offsets[0]) == 0
        and int(offsets[-1]) == len(links)
        and (not rows or (levels.min() >= 1 and levels.max() < len(widths)))
        and (not rows or np.array_equal(np.diff(offsets.astype(np.int64)), widths[levels]))
        and (not len(links) or (links.min() >= -1 and links.max() < rows))
        and (0 <= graph.entry_point < rows or (not rows and graph.entry_point == -1))
        and (not rows or levels[graph.entry_point] == graph.max_level + 1 == levels.max())
    )
    if not good:
        raise ValueError("its graph does not fit together")


@contextmanager
def _bounded(size: int) -> Iterator[None]:
    """Let no part of an index that is being read be larger than its bytes."""
    with _reading:
        before = faiss.get_deserialization_vector_byte_limit(), faiss.get_deserialization_loop_limit()
        faiss.set_deserialization_vector_byte_limit(size + 1)
        faiss.set_deserialization_loop_limit(size + 1)
        try:
            yield
        finally:
            faiss.set_deserialization_vector_byte_limit(before[0])
            faiss.set_deserialization_loop_limit(before[1])
