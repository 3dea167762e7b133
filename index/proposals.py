"""Candidates from a FAISS index: for each query the same ones, whatever else is asked with it.

FAISS picks the cells of an inverted file by a matrix product, which rounds differently in another batch. So the cells
are picked here: those beyond doubt by float32, those within the rounding margin of the last one by exact similarity.
Within the cells, in a graph and in a flat index FAISS goes through each query by itself.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import faiss as _faiss
import numpy as np
import numpy.typing as npt
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

from index import faissfile
from index.nearest import exact_similarities, ranks, rounding_margin
from index.vectors import Positions, StoredVectors, Vectors

faiss: Any = _faiss  # Its Python wrappers take other arguments than the C++ classes that its stubs describe.

_POOLS = ThreadpoolController()
_FEW_QUERIES = 4  # up to as many are worked at by one thread

_LONGEST_TABLE_PART = 16  # from here on FAISS computes product quantisation tables by a matrix product


def pair_scores(queries: Vectors, vectors: StoredVectors, rows: Positions) -> npt.NDArray[np.float32]:
    """Return the float32 inner products of each query with rows of its own, -inf where a row is -1.

    Args:
        queries: float32 (q, d), C-contiguous.
        vectors: Of n rows.
        rows: int64 (q, m), each -1 or below n.

    Returns:
        float32 (q, m).
    """
    if len(vectors.blocks) == 1:
        scores, pointer = np.empty(rows.shape, np.float32), faiss.swig_ptr
        arrays = pointer(scores), pointer(queries), pointer(vectors.blocks[0]), pointer(np.ascontiguousarray(rows))
        faiss.fvec_inner_products_by_idx(*arrays, queries.shape[1], *rows.shape)
        return scores
    flat = rows.ravel()
    scores = np.full(flat.shape, -np.inf, np.float32)
    blocks = (np.searchsorted(vectors.starts, flat, side="right") - 1).astype(np.int16)
    order = np.argsort(blocks, kind="stable")  # by block, and within it by query
    ends = np.searchsorted(blocks[order], np.arange(-1, len(vectors.blocks)), side="right")
    for number, block in enumerate(vectors.blocks):
        pairs = order[ends[number] : ends[number + 1]]
        scores[pairs] = _paired(queries, block, pairs // rows.shape[1], flat[pairs] - vectors.starts[number])
    return scores.reshape(rows.shape)


def _paired(queries: Vectors, block: Vectors, owners: Positions, rows: Positions) -> npt.NDArray[np.float32]:
    """Return the inner products of pairs of a query and a row, float32 (m,)."""
    scores, pointer = np.empty(len(owners), np.float32), faiss.swig_ptr
    pairs = pointer(queries), pointer(owners), pointer(block), pointer(np.ascontiguousarray(rows))
    faiss.pairwise_indexed_inner_product(block.shape[1], len(owners), *pairs, pointer(scores))
    return scores


def threads_for(queries: int, threads: int | None) -> int | None:
    """Return how many threads a batch is worth: to wake several for a single query takes longer than the query."""
    return 1 if queries <= _FEW_QUERIES else threads


@contextmanager
def faiss_threads(threads: int | None) -> Iterator[None]:
    """Let FAISS use so many threads in calls from this one; as many as it wants when None."""
    if threads is None:
        yield
        return
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(threads)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def search_index(
    index: Any, queries: Vectors, count: int, parameters: Any | None = None
) -> tuple[npt.NDArray[np.float32], Positions]:
    """Search a FAISS index by FAISS's own function.

    `search` itself may have been replaced: pytorch-metric-learning imports faiss.contrib.torch_utils, whose version
    knows no parameters.

    Returns:
        Scores (q, count), and ids (q, count), -1 where there are no more.
    """
    scores, found = np.empty((len(queries), count), np.float32), np.empty((len(queries), count), np.int64)
    pointer = faiss.swig_ptr
    index.search_c(len(queries), pointer(queries), count, pointer(scores), pointer(found), parameters)
    return scores, found


class Proposer(ABC):
    """One FAISS index, asked for candidates.

    Attributes:
        index: What FAISS made; the ids in it are row numbers.
        breadth: The search parameter that trades time for recall (nprobe, efSearch), and its value; None without one.
        widest: The value of it beyond which nothing more is found.
        step_bytes: About how many bytes of the index one more of it makes a query read.
        least_breadth: It is never less than so many times the candidates asked for.
        sparsity: By which power of (all rows / allowed rows) it grows under a filter. Measured for cells on a million
            rows: recall stays what it was without a filter, or rises, from 50 % of rows allowed to 1 %. A graph walks
            through rows that are not allowed, and has to look at as many more.
        few_share: Up to this share of its rows it is quicker to compare all that are allowed.
        filters: Whether FAISS leaves rows out within its search.
    """

    breadth: str | None = None
    widest = 1
    step_bytes = 0.0
    least_breadth = 0
    sparsity = 1.0
    few_share = 0.0
    filters = True

    def __init__(self, index: Any) -> None:
        self.index = index

    @abstractmethod
    def propose(self, queries: Vectors, count: int, breadth: int, selector: Any | None) -> Positions:
        """Return the numbers of rows that may be near, int64 (q, count), -1 where there are no more.

        Args:
            queries: float32 (q, d), C-contiguous.
            count: How many of each query.
            breadth: Value of the search parameter.
            selector: A FAISS selector of the rows that may answer.
        """

    def _search(self, queries: Vectors, count: int, parameters: Any | None) -> Positions:
        return search_index(self.index, queries, count, parameters)[1]


class CellProposer(Proposer):
    """An inverted file over a flat list of centroids, perhaps of turned vectors."""

    breadth = "nprobe"
    sparsity = 0.35

    def __init__(self, index: Any) -> None:
        super().__init__(index)
        inverted: Any = faissfile.cells_of(index)
        turn = faissfile.turn_of(index)
        self._inverted = inverted
        self._turn = None if turn is None else StoredVectors([turn], index.d)
        held = faiss.rev_swig_ptr(faiss.downcast_index(inverted.quantizer).get_xb(), inverted.nlist * inverted.d)
        self._centroids: Vectors = held.reshape(inverted.nlist, inverted.d)
        self._shape = inverted.d, inverted.nlist
        self._stored = StoredVectors([self._centroids], inverted.d)
        longest = np.linalg.norm(self._centroids, axis=1).max(initial=1)
        self._margin = np.float32(longest * rounding_margin(inverted.d))
        self._by_residual = bool(inverted.by_residual)
        self.widest = inverted.nlist
        self.step_bytes = inverted.ntotal / inverted.nlist * inverted.code_size

    def propose(self, queries: Vectors, count: int, breadth: int, selector: Any | None) -> Positions:
        """Return candidates; see `Proposer.propose`."""
        if self._turn is not None:
            queries = pair_scores(queries, self._turn, np.tile(np.arange(len(self._turn)), (len(queries), 1)))
        cells = self._cells(queries, breadth)
        scores, found = np.empty((len(queries), count), np.float32), np.empty((len(queries), count), np.int64)
        parameters = faiss.SearchParametersIVF(nprobe=cells.shape[1], sel=selector)
        pointer = faiss.swig_ptr
        # FAISS adds them to what the codes say of the way from the centroid.
        similarities = (
            pair_scores(queries, self._stored, cells) if self._by_residual else np.zeros_like(cells, np.float32)
        )
        self._inverted.search_preassigned_c(
            len(queries),
            pointer(queries),
            count,
            pointer(cells),
            pointer(similarities),
            pointer(scores),
            pointer(found),
            False,
            parameters,
        )
        return found

    def _cells(self, queries: Vectors, breadth: int) -> Positions:
        """Return the cells nearest to each query, int64 (q, breadth), in the order of their numbers."""
        total = len(self._centroids)
        if breadth >= total:
            return np.tile(np.arange(total), (len(queries), 1))
        scores = self._centroid_scores(queries)
        last = np.partition(scores, total - breadth, axis=1)[:, total - breadth, None]
        owners, cells = np.divmod(np.flatnonzero(scores >= last - self._margin), total)
        if len(cells) > len(queries) * breadth:
            doubtful = np.flatnonzero(scores[owners, cells] <= (last + self._margin)[owners, 0])
            chosen = np.bincount(owners, minlength=len(queries)) - np.bincount(owners[doubtful], minlength=len(queries))
            exact = exact_similarities(queries, self._stored, owners[doubtful], cells[doubtful])
            order = doubtful[np.lexsort((cells[doubtful], -exact, owners[doubtful]))]
            dropped = order[ranks(owners[order]) >= breadth - chosen[owners[order]]]
            cells = np.delete(cells, dropped)
        return cells.reshape(len(queries), breadth)

    def _centroid_scores(self, queries: Vectors) -> npt.NDArray[np.float32]:
        if len(queries) > _FEW_QUERIES:
            # The linear algebra library's threads go on waiting busily for a while, and FAISS's own, which come next,
            # would wait for theirs: three times as long at 64 queries.
            with _POOLS.limit(limits=1, user_api="blas"):
                return np.asarray(queries @ self._centroids.T)
        # So little work is done sooner by one thread than several are woken, and kept from FAISS's own.
        scores, pointer = np.empty((len(queries), len(self._centroids)), np.float32), faiss.swig_ptr
        for query, line in zip(queries, scores, strict=True):
            faiss.fvec_inner_products_ny(pointer(line), pointer(query), pointer(self._centroids), *self._shape)
        return scores


class GraphProposer(Proposer):
    """A navigable small-world graph."""

    breadth = "efSearch"
    least_breadth = 1
    few_share = 0.02

    def __init__(self, index: Any) -> None:
        super().__init__(index)
        self.widest = max(1, index.ntotal)
        graph = faiss.downcast_index(index.index)
        self.step_bytes = graph.hnsw.nb_neighbors(1) * graph.storage.sa_code_size()

    def propose(self, queries: Vectors, count: int, breadth: int, selector: Any | None) -> Positions:
        """Return candidates; see `Proposer.propose`."""
        return self._search(queries, count, faiss.SearchParametersHNSW(efSearch=breadth, sel=selector))


class FlatProposer(Proposer):
    """All rows in fewer bits."""

    def propose(self, queries: Vectors, count: int, breadth: int, selector: Any | None) -> Positions:
        """Return candidates; see `Proposer.propose`."""
        return self._search(queries, count, None if selector is None else faiss.SearchParameters(sel=selector))


class SingleProposer(Proposer):
    """Any other index: asked one query at a time, so that no batch can change an answer."""

    filters = False

    def propose(self, queries: Vectors, count: int, breadth: int, selector: Any | None) -> Positions:
        """Return candidates; see `Proposer.propose`."""
        found = [self._search(queries[at : at + 1], count, None) for at in range(len(queries))]
        return np.concatenate([np.empty((0, count), np.int64), *found])


def proposer_of(index: Any) -> Proposer:
    """Return the way to ask a FAISS index.

    Args:
        index: One that holds rows by their number.
    """
    inverted = faissfile.cells_of(index)
    if inverted is not None and (inverted is index or faissfile.turn_of(index) is not None):
        quantizer = faiss.downcast_index(inverted.quantizer)
        flat = isinstance(quantizer, faiss.IndexFlat) and quantizer.metric_type == faiss.METRIC_INNER_PRODUCT
        plain = (faiss.IndexIVFFlat, faiss.IndexIVFScalarQuantizer)
        coded = (faiss.IndexIVFPQ, faiss.IndexIVFPQFastScan)
        short = isinstance(inverted, coded) and inverted.pq.dsub < _LONGEST_TABLE_PART
        if flat and (short or type(inverted) in plain):
            return CellProposer(index)
    elif isinstance(index, faiss.IndexIDMap):
        inner = faiss.downcast_index(index.index)
        if isinstance(inner, faiss.IndexHNSW):
            return GraphProposer(index)
        if isinstance(inner, faiss.IndexScalarQuantizer):
            return FlatProposer(index)
    return SingleProposer(index)
