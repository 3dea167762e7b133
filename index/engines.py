"""FAISS behind one way to ask: exact inner product, with answers that do not depend on how it was computed.

FAISS sums in float32, in an order that depends on the number of queries, on threads and on the processor. So
it only proposes: every row whose score lies within the rounding error of the k-th. The similarities of these
are then summed in float64 in a fixed order, and equal ones are ordered by row id.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

UNIT_TOLERANCE = 1e-3
"""How far the length of a vector may be from 1."""

# Its Python wrappers take other arguments than the C++ classes that its stubs describe.
_faiss: Any = faiss

_SPARE = 16  # candidates asked for beyond k, so that one search is enough unless there are many ties
_WIDEN = 4
_BLOCK_SCORES = 1 << 22  # candidate scores held at a time
_BLOCK_TERMS = 1 << 22  # float64 products held at a time

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Hits:
    """The nearest rows of q queries, best first.

    Attributes:
        similarities: float32 (q, k), -inf where fewer than k rows are allowed.
        positions: int64 (q, k) into the gallery's rows, -1 where fewer than k rows are allowed.
    """

    similarities: npt.NDArray[np.float32]
    positions: npt.NDArray[np.int64]


class ExactEngine:
    """Exact search by inner product.

    Args:
        vectors: float32 (n, d), unit length within 0.001.
        row_ids: (n,) by which equal similarities are ordered.
        index: A FAISS index of these vectors; made where there is none.
    """

    def __init__(
        self, vectors: Vectors, row_ids: npt.NDArray[np.object_], index: faiss.IndexFlat | None = None
    ) -> None:
        self._vectors = np.ascontiguousarray(vectors, np.float32)
        self._place = np.empty(len(row_ids), np.int64)
        self._place[np.argsort(row_ids, kind="stable")] = np.arange(len(row_ids))
        if index is None:
            index = faiss.IndexFlatIP(vectors.shape[1])
            index.add(self._vectors)
        self._index = index
        # A sum of d products in float32 is off by at most about d units of rounding, in whatever order it is
        # summed (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1); both the k-th score
        # and the one compared with it are so. The factor covers lengths that are not quite 1.
        self._margin = np.float32(2 * 1.01 * (vectors.shape[1] + 2) * 2.0**-24)

    def to_bytes(self) -> bytes:
        """Return the FAISS index as bytes for a cache."""
        return bytes(faiss.serialize_index(self._index).tobytes())

    @classmethod
    def from_bytes(cls, data: bytes, vectors: Vectors, row_ids: npt.NDArray[np.object_]) -> "ExactEngine":
        """Read an index back.

        Args:
            data: What `to_bytes` returned. FAISS trusts it: check its digest first.
            vectors: float32 (n, d) that it must hold.
            row_ids: (n,).

        Raises:
            ValueError: It holds another index, or other vectors.
        """
        try:
            index: Any = faiss.deserialize_index(np.frombuffer(data, np.uint8))
        except RuntimeError as error:
            raise ValueError("FAISS can't read it") from error
        exact = isinstance(index, faiss.IndexFlat) and index.metric_type == faiss.METRIC_INNER_PRODUCT
        if not exact or (index.ntotal, index.d) != vectors.shape:
            raise ValueError("it is not an exact index of this size")
        held = faiss.rev_swig_ptr(index.get_xb(), vectors.size) if vectors.size else np.empty(0, np.float32)
        if not np.array_equal(held.view(np.uint32), np.ascontiguousarray(vectors).ravel().view(np.uint32)):
            raise ValueError("it holds other vectors")
        return cls(vectors, row_ids, index)

    def search(self, queries: Vectors, k: int, allowed: npt.NDArray[np.bool_] | None = None) -> Hits:
        """Return the k nearest allowed rows of each query.

        The same query gets the same bits whatever else is asked with it, on however many threads.

        Args:
            queries: float32 (q, d), unit length.
            k: How many, at least 1.
            allowed: bool (n,), rows that may answer; all when omitted. Rows are left out within the search:
                as long as k rows are allowed, k come back.
        """
        similarities = np.full((len(queries), k), -np.inf, np.float32)
        positions = np.full((len(queries), k), -1, np.int64)
        for query, candidates in self._candidates(np.ascontiguousarray(queries, np.float32), k, allowed):
            scores = exact_similarities(queries[query], self._vectors, candidates)
            best = np.lexsort((self._place[candidates], -scores))[:k]
            similarities[query, : len(best)] = scores[best]
            positions[query, : len(best)] = candidates[best]
        return Hits(similarities, positions)

    def _candidates(
        self, queries: Vectors, k: int, allowed: npt.NDArray[np.bool_] | None
    ) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
        """Yield each query's position with all rows that may be among its k nearest."""
        available = len(self._vectors) if allowed is None else int(np.count_nonzero(allowed))
        wanted = min(k, available)
        if not wanted:
            return
        parameters = None
        if available < len(self._vectors):
            bits = np.packbits(np.asarray(allowed, np.bool_), bitorder="little")
            parameters = _faiss.SearchParameters(sel=_faiss.IDSelectorBitmap(bits))
        # Once any library imports faiss.contrib.torch_utils, as pytorch-metric-learning does, `search` is one that
        # knows no parameters, and FAISS's own is kept as `search_numpy`.
        search = getattr(self._index, "search_numpy", self._index.search)
        pending, width = np.arange(len(queries)), min(wanted + _SPARE, available)
        while pending.size:
            incomplete = []
            block = max(1, _BLOCK_SCORES // width)
            for part in (pending[start : start + block] for start in range(0, len(pending), block)):
                scores, found = search(queries[part], width, params=parameters)
                least = scores[:, wanted - 1 : wanted] - self._margin
                for line, query in enumerate(part.tolist()):
                    if width < available and scores[line, -1] >= least[line, 0]:
                        incomplete.append(query)
                    else:
                        yield query, found[line][scores[line] >= least[line, 0]]
            pending, width = np.array(incomplete, np.int64), min(width * _WIDEN, available)


def unit_length(vectors: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_]:
    """Return which vectors are finite and of length 1, within the tolerance.

    Args:
        vectors: (n, d).

    Returns:
        bool (n,).
    """
    lengths = np.linalg.norm(np.asarray(vectors, np.float64), axis=1)
    return np.asarray(np.abs(lengths - 1) <= UNIT_TOLERANCE)


def exact_similarities(
    query: npt.NDArray[np.float32], vectors: Vectors, rows: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """Return the inner product of a query with some rows, the same bits on every machine.

    A product of two float32 is exact in float64, and a running sum has only one order.

    Args:
        query: float32 (d,).
        vectors: float32 (n, d).
        rows: int64 (m,) into vectors.

    Returns:
        float32 (m,).
    """
    similarities = np.empty(len(rows), np.float32)
    block = max(1, _BLOCK_TERMS // len(query))
    for start in range(0, len(rows), block):
        part = slice(start, start + block)
        products = vectors[rows[part]].astype(np.float64) * query.astype(np.float64)
        similarities[part] = np.cumsum(products, axis=1)[:, -1]
    return similarities
