"""Approximate search: candidates from a FAISS index, ranked by their exact similarity, and the tail searched exactly.

What the index misses is missed; what it finds is ordered as by exact search. Where few rows may answer, they are all
compared instead; where the index finds too few, it is asked for more, and in the end all rows are compared.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import faiss as _faiss
import numpy as np
import numpy.typing as npt

from index import faissfile
from index.exact import ExactEngine
from index.nearest import Engine, Hits, Mask, Names, rounding_margin, settle
from index.proposals import SingleProposer, faiss_threads, pair_scores, proposer_of, threads_for
from index.vectors import Positions, StoredVectors, Vectors

faiss: Any = _faiss  # Its Python wrappers take other arguments than the C++ classes that its stubs describe.

MEASURED_AT = 10
"""Neighbours for which the search parameters are chosen; more neighbours get more candidates in proportion."""

FEW_ROWS = 5_000
"""Up to so many allowed rows are compared one by one: a single query takes then as long as by an index that has to look
far and wide for them, and a batch less."""

_WIDEN = 4
_ATTEMPTS = 3
_BARRED_STEPS = (0, 16, 64, 256, 1024)  # room among the candidates for rows that must not answer
_BATCH = 4096  # queries asked together


class ApproximateEngine(Engine):
    """Search through a FAISS index.

    Args:
        index: It holds the rows whose number is below `until`, each by its number.
        description: Its search parameters stand in "search": "candidates", and nprobe or efSearch where it has one.
        until: The number of the first row that it does not hold.
        vectors: Of n rows.
        numbers: int64 (n,), increasing.
        names: Returns row ids, by which equal similarities are ordered.
    """

    def __init__(
        self,
        index: Any,
        description: Mapping[str, Any],
        until: int,
        vectors: StoredVectors,
        numbers: Positions,
        names: Names,
    ) -> None:
        self.description = description
        self.until = until
        self.proposer = proposer_of(index)
        self.vectors = vectors
        self._numbers = numbers
        self.names = names
        self._exact = ExactEngine(vectors, names)
        self._held = int(np.searchsorted(numbers, until))  # rows of the index come first
        self._first = int(numbers[0]) if self._held else 0
        self._gapless = not self._held or int(numbers[self._held - 1]) - self._first == self._held - 1
        self._margin = rounding_margin(vectors.dimension)

    def search(
        self,
        queries: Vectors,
        k: int,
        *,
        allowed: Mask | None = None,
        barred: Sequence[Positions] | None = None,
    ) -> Hits:
        """Return the k nearest rows that are found of each query; see `Engine.search`."""
        return self.search_with(self.description["search"], queries, k, allowed=allowed, barred=barred)

    def search_with(
        self,
        search: Mapping[str, float],
        queries: Vectors,
        k: int,
        *,
        allowed: Mask | None = None,
        barred: Sequence[Positions] | None = None,
    ) -> Hits:
        """Search with other parameters than the index's own."""
        queries = np.ascontiguousarray(queries, np.float32)
        answering = self._held if allowed is None else int(np.count_nonzero(allowed[: self._held]))
        few = max(FEW_ROWS, int(self.proposer.few_share * self._held))
        if answering <= (0 if allowed is None else few):
            return self._exact.search(queries, k, allowed=allowed, barred=barred)
        hits = Hits(np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1, np.int64))
        ask = _Request(self, search, k, allowed if answering < self._held else None, answering)
        lengths = np.zeros(len(queries), np.int64)
        if barred is not None:
            lengths = np.array([len(rows) for rows in barred], np.int64)
        # Queries with more barred rows get more candidates, by their own number only: another batch changes nothing.
        step = np.searchsorted(_BARRED_STEPS, lengths)
        for level in np.unique(step).tolist():
            group = np.flatnonzero(step == level)
            if barred is not None and level == len(_BARRED_STEPS):
                for query in group.tolist():  # so many that they are a filter of their own
                    mask = np.ones(len(self.vectors), np.bool_) if allowed is None else allowed.copy()
                    mask[barred[query]] = False
                    found = self.search_with(search, queries[query : query + 1], k, allowed=mask)
                    hits.similarities[query], hits.positions[query] = found.similarities[0], found.positions[0]
                continue
            for at in range(0, len(group), _BATCH):
                part = group[at : at + _BATCH]
                own = None if barred is None else [barred[query] for query in part.tolist()]
                self._fill(hits, part, queries, k, ask, allowed, own, _BARRED_STEPS[level])
        return hits

    def _fill(
        self,
        hits: Hits,
        part: Positions,
        queries: Vectors,
        k: int,
        ask: "_Request",
        allowed: Mask | None,
        barred: list[Positions] | None,
        room: int,
    ) -> None:
        """Answer some queries, with wider and wider searches as long as the index finds too few."""
        pending = np.arange(len(part))
        for attempt in range(_ATTEMPTS):
            asked = queries if len(pending) == len(queries) else queries[part[pending]]
            own = None if barred is None else [barred[query] for query in pending.tolist()]
            rows = ask.propose(asked, room, attempt, own)
            with faiss_threads(threads_for(len(asked), self.description.get("threads"))):
                scores = pair_scores(asked, self.vectors, rows)
            found = np.count_nonzero(rows >= 0, axis=1)
            enough = np.ones(len(pending), np.bool_)
            for query in np.flatnonzero(found < k).tolist():
                bar = 0 if own is None else self._count_barred(own[query], allowed)
                enough[query] = found[query] >= ask.answering - bar
            kth = np.partition(scores, -k, axis=1)[:, -k] if scores.shape[1] >= k else np.full(len(asked), -np.inf)
            reached = np.flatnonzero((rows >= 0) & (scores >= (kth - self._margin)[:, None]) & enough[:, None])
            owners = reached // rows.shape[1]
            pairs = [(owners, rows.ravel()[reached])]
            if self._held < len(self.vectors):
                tail = self._exact.proposals(asked, k, allowed=allowed, barred=own, start=self._held)
                pairs += [(some.start + owner, row) for some, owner, row in tail]
            owners, rows = (np.concatenate(several) for several in zip(*pairs, strict=True))
            settled = settle(asked, k, self.vectors, self.names, owners, rows)
            done = part[pending[enough]]
            hits.similarities[done], hits.positions[done] = settled.similarities[enough], settled.positions[enough]
            pending = pending[~enough]
            if not pending.size:
                return
        own = None if barred is None else [barred[query] for query in pending.tolist()]
        exact = self._exact.search(queries[part[pending]], k, allowed=allowed, barred=own)
        hits.similarities[part[pending]], hits.positions[part[pending]] = exact.similarities, exact.positions

    def within(
        self,
        queries: Vectors,
        least: float,
        *,
        allowed: Mask | None = None,
        barred: Sequence[Positions] | None = None,
    ) -> list[Hits]:
        """Return all rows at least so similar to each query, by exact search; see `Engine.within`."""
        return self._exact.within(queries, least, allowed=allowed, barred=barred)

    def to_bytes(self) -> bytes:
        """Return the FAISS index as bytes."""
        return bytes(faiss.serialize_index(self.proposer.index).tobytes())

    def without(self, removed: Positions) -> "ApproximateEngine | None":
        """Return the same index with some rows physically gone; see `Engine.without`."""
        if isinstance(self.proposer, SingleProposer):
            return None
        index = faissfile.without(self.proposer.index, removed[removed < self.until])
        return None if index is None else self._with(index, self.until)

    def extended(self) -> "ApproximateEngine":
        """Return the same index with the rows after `until` taken in."""
        if self._held == len(self.vectors):
            return self
        index = faiss.clone_index(self.proposer.index)
        with faiss_threads(self.description.get("threads")):
            faissfile.add_rows(index, self.vectors, self._numbers, np.arange(len(self.vectors)) >= self._held)
        return self._with(index, int(self._numbers[-1]) + 1)

    def _with(self, index: Any, until: int) -> "ApproximateEngine":
        size = int(faiss.serialize_index(index).nbytes)
        description = {**self.description, "rows": int(index.ntotal), "bytes": size}
        return ApproximateEngine(index, description, until, self.vectors, self._numbers, self.names)

    def _count_barred(self, rows: Positions, allowed: Mask | None) -> int:
        """Return how many rows of the index a query may not be answered with although they are allowed."""
        rows = np.unique(rows[rows < self._held])
        return len(rows) if allowed is None else int(np.count_nonzero(allowed[rows]))

    def _positions(self, found: Positions) -> Positions:
        """Return the positions of row numbers, -1 where there is none."""
        if self._gapless:
            return found if not self._first else np.where(found < 0, -1, found - self._first)
        return np.where(found < 0, -1, np.searchsorted(self._numbers, found))

    def _selector(self, allowed: Mask) -> Any:
        """Return a FAISS selector of the allowed rows by their numbers."""
        bits = allowed[: self._held]
        if self._first or not self._gapless:
            bits = np.zeros(self.until, np.bool_)
            bits[self._numbers[: self._held]] = allowed[: self._held]
        return faiss.IDSelectorBitmap(np.packbits(bits, bitorder="little"))


class _Request:
    """What a batch of queries asks of an index."""

    def __init__(
        self, engine: ApproximateEngine, search: Mapping[str, float], k: int, allowed: Mask | None, answering: int
    ) -> None:
        self._engine = engine
        self.proposer = engine.proposer
        self._threads = engine.description.get("threads")
        self.answering = answering
        self._allowed = allowed
        self._selector = engine._selector(allowed) if allowed is not None and self.proposer.filters else None
        # The nearest allowed rows lie further out the fewer are allowed.
        self._sparser = 1.0 if allowed is None else engine._held / answering
        self._further = self._sparser**self.proposer.sparsity
        self._count = int(search["candidates"] * max(1.0, k / MEASURED_AT))
        self._breadth = int(search[self.proposer.breadth]) if self.proposer.breadth else 1

    def propose(
        self, queries: Vectors, room: int, attempt: int, barred: list[Positions] | None
    ) -> npt.NDArray[np.int64]:
        """Return candidates as positions, int64 (q, m), -1 where there are none or they must not answer."""
        engine, wider = self._engine, _WIDEN**attempt
        count = self._count * wider + room
        if self._selector is None:
            count = int(count * self._sparser)
        breadth = max(self._breadth * wider, self.proposer.least_breadth * count)
        breadth = min(int(breadth * self._further), self.proposer.widest)
        with faiss_threads(threads_for(len(queries), self._threads)):
            found = self.proposer.propose(queries, min(count, engine._held), breadth, self._selector)
        rows = engine._positions(found)
        if self._allowed is not None and self._selector is None:
            rows = np.where((rows >= 0) & self._allowed[rows], rows, -1)
        if barred is not None and room:
            own = np.full((len(queries), max(len(bar) for bar in barred)), -1, np.int64)
            for query, bar in enumerate(barred):
                own[query, : len(bar)] = bar
            for column in own.T:
                rows = np.where(rows == column[:, None], -1, rows)
        return np.ascontiguousarray(rows)
