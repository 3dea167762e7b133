"""Exact search: every row that may answer is compared with every query, block by block.

A block of rows times a batch of queries is one matrix product, in which the processor's linear algebra library is
several times faster than a flat FAISS index. Kept of each block are the rows whose float32 score reaches the k-th
found so far, less the rounding margin: no row that belongs to the answer is lost, whatever the order of summation.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from index import QueryError
from index.nearest import (
    Engine,
    Hits,
    Mask,
    Names,
    best_first,
    exact_similarities,
    ranks,
    rounding_margin,
    settle,
)
from index.vectors import Positions, StoredVectors, Vectors

Scores = npt.NDArray[np.float32]
Pairs = tuple[Positions, Positions, Scores]  # query, row, float32 score

_BATCH = 1024  # queries scanned together
_SCORES = 1 << 22  # scores of a block of rows held at a time
_ROWS = 1 << 16  # rows of a block at most
_GATHERED = 1 << 12  # rows copied together where few are allowed
_PAIRS = 1 << 22  # candidates of a batch held at a time
_MOST_WITHIN = 1 << 24  # rows that a range query may return in all
_NOTHING = np.finfo(np.float32).min


class ExactEngine(Engine):
    """Exact search by inner product over the stored vectors, with nothing beside them.

    Args:
        vectors: Of n rows, unit length within 0.001.
        names: Returns row ids, by which equal similarities are ordered.
        until: One more than the largest row number.
    """

    def __init__(self, vectors: StoredVectors, names: Names, until: int = 0) -> None:
        self.vectors = vectors
        self.names = names
        self._margin = rounding_margin(vectors.dimension)
        self.until = until
        self.description: Mapping[str, Any] = {
            "engine": "exact",
            "rows": len(vectors),
            "bytes": 0,
            "recall": 1.0,
        }

    def search(
        self,
        queries: Vectors,
        k: int,
        *,
        allowed: Mask | None = None,
        barred: Sequence[Positions] | None = None,
    ) -> Hits:
        """Return the k nearest rows of each query that may answer it; see `Engine.search`."""
        queries = np.ascontiguousarray(queries, np.float32)
        hits = Hits(np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1, np.int64))
        for part, owners, rows in self.proposals(queries, k, allowed=allowed, barred=barred):
            found = settle(queries[part], k, self.vectors, self.names, owners, rows)
            hits.similarities[part], hits.positions[part] = found.similarities, found.positions
        return hits

    def proposals(
        self,
        queries: Vectors,
        k: int,
        *,
        allowed: Mask | None = None,
        barred: Sequence[Positions] | None = None,
        start: int = 0,
    ) -> Iterator[tuple[slice, Positions, Positions]]:
        """Yield all pairs that may be among the k nearest, some queries at a time.

        Args:
            queries: float32 (q, d), C-contiguous.
            k: How many.
            allowed: As for `search`.
            barred: As for `search`.
            start: The first row that may answer.

        Yields:
            Which queries; for each pair the query among these int64 (m,); the row int64 (m,).
        """
        scan = _Scan(self.vectors, allowed, len(queries), start)
        k = min(k, scan.available)
        size = max(1, min(_BATCH, _PAIRS // (4 * max(1, k))))
        pending = [slice(at, min(at + size, len(queries))) for at in range(0, len(queries), size)] if k else []
        while pending:
            part = pending.pop()
            pairs = self._nearest(queries[part], k, scan, None if barred is None else barred[part])
            if pairs is not None:
                yield part, *pairs[:2]
            else:  # too many nearly equal rows for this many queries
                middle = (part.start + part.stop) // 2
                pending += [slice(part.start, middle), slice(middle, part.stop)]

    def within(
        self,
        queries: Vectors,
        least: float,
        *,
        allowed: Mask | None = None,
        barred: Sequence[Positions] | None = None,
    ) -> list[Hits]:
        """Return all rows at least so similar to each query; see `Engine.within`."""
        queries = np.ascontiguousarray(queries, np.float32)
        scan = _Scan(self.vectors, allowed, len(queries))
        smallest, found, total = np.float32(least), [], 0
        for start in range(0, len(queries), _BATCH):
            part = slice(start, min(start + _BATCH, len(queries)))
            pool = _Pool()
            floor = np.full(part.stop - part.start, smallest - self._margin, np.float32)
            for _, _, keep in scan.blocks(queries[part], None if barred is None else barred[part]):
                pool.add(keep(floor))
                if total + pool.size > _MOST_WITHIN:
                    raise QueryError(
                        "similarity",
                        f"more than {_MOST_WITHIN} rows are at least {least} similar",
                        "ask for more of it",
                    )
            owners, rows, _ = pool.pairs()
            scores = exact_similarities(queries[part], self.vectors, owners, rows)
            reached = np.flatnonzero(scores >= smallest)
            owners, rows, scores = owners[reached], rows[reached], scores[reached]
            order = best_first(owners, scores, rows, self.names, len(self.vectors))
            ends = np.searchsorted(owners[order], np.arange(part.stop - part.start + 1))
            found += [
                Hits(scores[order[low:high]], rows[order[low:high]])
                for low, high in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)
            ]
            total += len(rows)
        return found

    def to_bytes(self) -> bytes:
        """Return nothing: the vectors are all that it needs."""
        return b""

    def without(self, removed: Positions) -> Engine | None:
        """Return None: it holds no rows of its own."""
        return None

    def extended(self) -> Engine:
        """Return itself: it has no tail."""
        return self

    def _nearest(self, queries: Vectors, k: int, scan: "_Scan", barred: Sequence[Positions] | None) -> Pairs | None:
        """Return all pairs that may be among the k nearest, None where they are too many for one batch."""
        floor = np.full(len(queries), _NOTHING, np.float32)
        pool, fresh = _Pool(), 0
        for scores, allowed, keep in scan.blocks(queries, barred):
            if floor.min() == _NOTHING:  # not k of every query yet
                answering = scores if allowed is None else scores[:, allowed]
                if (width := answering.shape[1]) >= k:
                    kth = np.partition(answering, width - k, axis=1)[:, width - k]
                    np.maximum(floor, kth - self._margin, out=floor)
            fresh += pool.add(keep(floor))
            if fresh >= len(queries) * k:
                fresh = 0
                pool.shrink(floor, k, self._margin)
                if pool.size > _PAIRS and len(queries) > 1:
                    return None
        pool.shrink(floor, k, self._margin)
        return pool.pairs()


class _Pool:
    """Pairs found so far."""

    def __init__(self) -> None:
        self._parts: list[Pairs] = []
        self.size = 0

    def add(self, pairs: Pairs) -> int:
        count = len(pairs[0])
        if count:
            self._parts.append(pairs)
            self.size += count
        return count

    def pairs(self) -> Pairs:
        if len(self._parts) != 1:
            empty = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))
            owners, rows, scores = zip(empty, *self._parts, strict=True)
            self._parts = [(np.concatenate(owners), np.concatenate(rows), np.concatenate(scores))]
        return self._parts[0]

    def shrink(self, floor: Scores, k: int, margin: np.float32) -> None:
        """Raise the floor of each query to its k-th score, less the margin, and drop what lies below."""
        owners, rows, scores = self.pairs()
        order = np.lexsort((-scores, owners))
        owners, rows, scores = owners[order], rows[order], scores[order]
        kth = ranks(owners) == k - 1
        floor[owners[kth]] = np.maximum(floor[owners[kth]], scores[kth] - margin)
        kept = scores >= floor[owners]
        self._parts = [(owners[kept], rows[kept], scores[kept])]
        self.size = int(np.count_nonzero(kept))


Block = tuple[Scores, Mask | None, Callable[[Scores], Pairs]]


class _Scan:
    """The rows that may answer a batch, scored block by block."""

    def __init__(self, vectors: StoredVectors, allowed: Mask | None, batch: int, start: int = 0) -> None:
        self._vectors = vectors
        self._start = start
        self._rows: Positions | None = None
        rows = len(vectors) - start
        self.available = rows if allowed is None else int(np.count_nonzero(allowed[start:]))
        self._allowed = allowed if self.available < rows else None
        if self._allowed is not None and self.available <= gathering_pays(batch) * rows:
            self._rows, self._allowed = start + np.flatnonzero(self._allowed[start:]), None

    def blocks(self, queries: Vectors, barred: Sequence[Positions] | None) -> Iterator[Block]:
        """Yield scores float32 (q, m), which of the m rows may answer, and what keeps the pairs above a floor (q,)."""
        count = len(queries)
        step = min(_ROWS, max(64, _SCORES // count))
        owners, out = _flat(barred), np.empty(count * min(step, max(1, len(self._vectors))), np.float32)
        if self._rows is None:
            parts = self._vectors.parts(self._start, rows=step)
        else:
            owners = _among(owners, self._rows)
            step = min(step, _GATHERED)
            parts = ((at, self._vectors.take(self._rows[at : at + step])) for at in range(0, len(self._rows), step))
        for first, block in parts:
            allowed = None if self._allowed is None else self._allowed[first : first + len(block)]
            if allowed is not None and not allowed.any():
                continue
            scores = out[: count * len(block)].reshape(count, len(block))
            np.matmul(queries, block.T, out=scores)
            low, high = np.searchsorted(owners[1], (first, first + len(block)))
            scores[owners[0][low:high], owners[1][low:high] - first] = -np.inf
            yield scores, allowed, self._keeper(scores, first)

    def _keeper(self, scores: Scores, first: int) -> Callable[[Scores], Pairs]:
        def keep(floor: Scores) -> Pairs:
            reached = np.flatnonzero(scores >= floor[:, None])
            owners, rows = np.divmod(reached, scores.shape[1])
            rows += first
            kept = scores.ravel()[reached]
            if self._rows is not None:
                rows = self._rows[rows]
            elif self._allowed is not None:
                answering = self._allowed[rows]
                owners, rows, kept = owners[answering], rows[answering], kept[answering]
            return owners, rows, kept

        return keep


def gathering_pays(batch: int) -> float:
    """Return the share of rows up to which copying the allowed ones together is faster than scoring all.

    Measured on 200,000 rows of 512 numbers: for one query reading all of them is cheap, in a batch multiplying is not.
    """
    if batch == 1:
        return 0.3
    return 0.5 if batch < 32 else 0.75


def _flat(barred: Sequence[Positions] | None) -> tuple[Positions, Positions]:
    """Return the pairs of a query and a row that must not answer it, sorted by row."""
    if not barred:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    owners = np.repeat(np.arange(len(barred)), [len(rows) for rows in barred])
    rows = np.concatenate(barred).astype(np.int64, copy=False)
    order = np.argsort(rows, kind="stable")
    return owners[order], rows[order]


def _among(pairs: tuple[Positions, Positions], rows: Positions) -> tuple[Positions, Positions]:
    """Return the pairs whose row is one of some sorted rows, as places among these."""
    if not len(rows):
        return pairs[0][:0], pairs[1][:0]
    places = np.searchsorted(rows, pairs[1])
    held = np.flatnonzero(rows[np.minimum(places, len(rows) - 1)] == pairs[1])
    return pairs[0][held], places[held]
