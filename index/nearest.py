"""What every engine is asked, and how its candidates become an answer.

Whatever proposes the rows (a matrix product, an inverted file, a graph, a GPU) sums in float32, in an order that
depends on the batch, the threads and the processor. So it only proposes. The similarities are then summed in float64
in one fixed order, and equal ones are ordered by row id: the answer does not depend on how it was computed.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from index.vectors import Positions, StoredVectors, Vectors

Mask = npt.NDArray[np.bool_]
Names = Callable[[Positions], npt.NDArray[np.object_]]
"""From positions (m,) to their row ids (m,); asked only where similarities are equal."""

_PAIRS = 256  # pairs whose float64 products are held at a time: they stay in the processor's cache


@dataclass(frozen=True, eq=False)
class Hits:
    """The nearest rows, best first: of q queries in two dimensions, of one query in one.

    Attributes:
        similarities: float32 (q, k), -inf where fewer than k rows may answer; or (m,).
        positions: int64 (q, k) into the gallery's rows, -1 where fewer than k rows may answer; or (m,).
    """

    similarities: npt.NDArray[np.float32]
    positions: Positions


class Engine(ABC):
    """Nearest rows by inner product, exact or approximate.

    Attributes:
        description: What it is in plain JSON: engine, rows, bytes, search parameters, expected recall.
        until: The index holds the rows whose number is below; those after it are searched exactly.
    """

    description: Mapping[str, Any]
    until: int

    @abstractmethod
    def search(
        self,
        queries: Vectors,
        k: int,
        *,
        allowed: Mask | None = None,
        barred: Sequence[Positions] | None = None,
    ) -> Hits:
        """Return the k nearest rows of each query that may answer it; k come back wherever k may answer.

        The same query gets the same answer whatever else is asked with it, on however many threads.

        Args:
            queries: float32 (q, d), unit length.
            k: How many, at least 1.
            allowed: bool (n,), rows that may answer; all when omitted.
            barred: For each query int64 (b,), rows that must not answer it: few, in any order.
        """

    @abstractmethod
    def within(
        self,
        queries: Vectors,
        least: float,
        *,
        allowed: Mask | None = None,
        barred: Sequence[Positions] | None = None,
    ) -> list[Hits]:
        """Return all rows at least so similar to each query; exact whatever the engine.

        Args:
            queries: float32 (q, d), unit length.
            least: The smallest similarity, compared in float32.
            allowed: As for `search`.
            barred: As for `search`.

        Returns:
            q hits of one dimension, as many as there are.

        Raises:
            QueryError: The rows found are more than memory should hold.
        """

    @abstractmethod
    def to_bytes(self) -> bytes:
        """Return what `open_engine` reads back; nothing where there is nothing beside the vectors."""

    @abstractmethod
    def without(self, removed: Positions) -> "Engine | None":
        """Return the same index with some rows physically gone, None where it has to be built anew.

        Args:
            removed: int64 (m,), their numbers.
        """

    @abstractmethod
    def extended(self) -> "Engine":
        """Return the same index with the rows after `until` taken in."""


def rounding_margin(dimension: int) -> np.float32:
    """Return how far apart two float32 scores may be whose exact order is the other way round.

    A sum of d products in float32 is off by at most about d units of rounding, in whatever order it is summed (Higham,
    Accuracy and Stability of Numerical Algorithms, section 3.1), and so is the one compared with it. The factor covers
    lengths that are not quite 1.
    """
    return np.float32(2 * 1.01 * (dimension + 2) * 2.0**-24)


def exact_similarities(
    queries: Vectors, vectors: StoredVectors, owners: Positions, rows: Positions
) -> npt.NDArray[np.float32]:
    """Return the inner products of pairs of a query and a row, the same bits on every machine.

    A product of two float32 is exact in float64; the products are summed by folding the later half on the earlier
    one until one is left, which is one order, and a fast one.

    Args:
        queries: float32 (q, d).
        vectors: The gallery's, of n rows.
        owners: int64 (m,) into queries.
        rows: int64 (m,) into the gallery's rows.

    Returns:
        float32 (m,).
    """
    similarities = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), _PAIRS):
        part = slice(start, start + _PAIRS)
        terms = vectors.take(rows[part]).astype(np.float64) * queries[owners[part]]
        while (width := terms.shape[1]) > 1:
            half = width // 2
            folded = terms[:, :half] + terms[:, half : 2 * half]
            if width % 2:
                folded[:, 0] += terms[:, -1]
            terms = folded
        similarities[part] = terms[:, 0]
    return similarities


def best_first(owners: Positions, scores: npt.NDArray[np.float32], rows: Positions, names: Names, k: int) -> Positions:
    """Return the order of some pairs: by query, then by similarity, equal ones by row id.

    Args:
        owners: int64 (m,), the query of each.
        scores: float32 (m,).
        rows: int64 (m,) into the gallery's rows.
        names: Returns row ids.
        k: How many of each query are wanted; those after them come in any order.

    Returns:
        int64 (m,) into the pairs.
    """
    order = np.lexsort((-scores, owners))
    if len(order) < 2:
        return order
    owner, score = owners[order], scores[order]
    first = np.ones(len(order), np.bool_)  # of equal ones
    first[1:] = (owner[1:] != owner[:-1]) | (score[1:] != score[:-1])
    if first.all():
        return order
    run = np.cumsum(first) - 1
    beginnings = np.flatnonzero(first)
    several = np.diff(np.append(beginnings, len(order))) > 1
    wanted = several & (ranks(owner)[beginnings] < k)
    tied = np.flatnonzero(wanted[run])
    place = np.unique(names(rows[order[tied]]), return_inverse=True)[1]
    order[tied] = order[tied[np.lexsort((place, run[tied]))]]
    return order


def ranks(owners: Positions) -> Positions:
    """Return the place of each pair among those of its query, from 0; the pairs are sorted by query."""
    count = len(owners)
    if not count:
        return np.empty(0, np.int64)
    begins = np.empty(count, np.bool_)
    begins[0] = True
    np.not_equal(owners[1:], owners[:-1], out=begins[1:])
    change = np.flatnonzero(begins)
    return np.arange(count) - change[np.cumsum(begins) - 1]


def settle(queries: Vectors, k: int, vectors: StoredVectors, names: Names, owners: Positions, rows: Positions) -> Hits:
    """Return the k best of the rows proposed for each query, by exact similarity.

    Args:
        queries: float32 (q, d).
        k: How many.
        vectors: The gallery's.
        names: Returns row ids.
        owners: int64 (m,), the query that each row is proposed for.
        rows: int64 (m,) into the gallery's rows, none twice for one query.
    """
    similarities = np.full((len(queries), k), -np.inf, np.float32)
    positions = np.full((len(queries), k), -1, np.int64)
    scores = exact_similarities(queries, vectors, owners, rows)
    if len(queries) == 1:  # the same, in fewer steps
        order = np.argsort(-scores, kind="stable")
        best = scores[order[: k + 1]]
        if (best[1:] < best[:-1]).all():
            order = order[:k]
            similarities[0, : len(order)], positions[0, : len(order)] = scores[order], rows[order]
            return Hits(similarities, positions)
    order = best_first(owners, scores, rows, names, k)
    rank = ranks(owners[order])
    kept, rank = order[rank < k], rank[rank < k]
    similarities[owners[kept], rank] = scores[kept]
    positions[owners[kept], rank] = rows[kept]
    return Hits(similarities, positions)
