"""Search parameters found by measuring: the cheapest with which an index reaches the recall that is asked for.

Some women are held out of the index while their rows ask, as a new woman's would, and exact search over the others says
what should have been found. Where women are not known, single rows are held out; their nearest are then often other
rows of the same woman, and what finds these may not find others'. A recall counts as reached when the lower end of its
95 % interval over the women reaches it, for the next woman is none of those that were measured.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from index.approximate import MEASURED_AT, ApproximateEngine
from index.exact import ExactEngine
from index.metrics import bootstrap_interval
from index.nearest import Hits, Names
from index.vectors import StoredVectors, Vectors

_QUERIES = 1000
_WOMEN = 20  # at least, where the gallery has enough
_FEW_WOMEN = 10  # are too few to draw again: an interval is then taken over their rows
_DRAWS = 500
_MOST_HELD_OUT = 0.15  # of all rows
_SEED = 3
_CANDIDATES = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048)
_SCATTERED = 9  # a row read by itself costs as much as so many times its bytes in sequence
_BREADTHS = tuple(sorted({round(2 ** (i / 4)) for i in range(64)}))


class Sample:
    """Rows that ask, and what exact search over the rows that were not held out answers them.

    Args:
        vectors: The gallery's.
        names: Returns row ids.
        groups: int (n,), the woman of each row; None where unknown.

    Attributes:
        held_out: bool (n,), rows that the index must not hold yet.
        queries: float32 (q, d).
        units: int (q,), what an interval is taken over: the woman of each query where that is known and they are many.
    """

    def __init__(self, vectors: StoredVectors, names: Names, groups: npt.NDArray[np.integer] | None = None) -> None:
        rng, rows = np.random.default_rng(_SEED), len(vectors)
        self.held_out = np.zeros(rows, np.bool_)
        if groups is None or (groups == groups[0]).all():
            self.held_out[rng.choice(rows, min(_QUERIES, rows // 10), replace=False)] = True
        else:
            women, sizes = np.unique(groups, return_counts=True)
            order = rng.permutation(len(women))
            total = np.cumsum(sizes[order])
            enough = int(np.searchsorted(total, _QUERIES)) + 1
            few = max(1, int(np.searchsorted(total, rows * _MOST_HELD_OUT, side="right")))
            self.held_out = np.isin(groups, women[order[: min(max(enough, _WOMEN), few)]])
        asking = np.flatnonzero(self.held_out)
        asking = np.sort(rng.choice(asking, min(_QUERIES, len(asking)), replace=False))
        self.queries: Vectors = vectors.take(asking)
        self.units: npt.NDArray[np.integer] = np.arange(len(asking))
        if groups is not None and len(np.unique(groups[asking])) >= _FEW_WOMEN:
            self.units = groups[asking]
        self._truth = ExactEngine(vectors, names).search(self.queries, MEASURED_AT, allowed=~self.held_out)

    def recalls(self, hits: Hits) -> npt.NDArray[np.float64]:
        """Return the share of each query's nearest rows that were found; one just as similar counts as well."""
        there = self._truth.positions >= 0
        last = np.where(there, self._truth.similarities, np.inf).min(axis=1)
        found = np.count_nonzero((hits.similarities >= last[:, None]) & (hits.positions >= 0), axis=1)
        wanted = np.count_nonzero(there, axis=1)
        return np.where(wanted > 0, np.minimum(found, wanted) / np.maximum(wanted, 1), 1.0)


@dataclass(frozen=True, eq=False)
class Choice:
    """Search parameters and what they find.

    Attributes:
        search: "candidates", and nprobe or efSearch where the index has one.
        recalls: float64 (q,), of the queries of the sample.
        units: int (q,), which of them are drawn together for the interval.
        cost: Bytes that a query reads.
    """

    search: dict[str, int]
    recalls: npt.NDArray[np.float64]
    units: npt.NDArray[np.integer]
    cost: float

    @property
    def recall(self) -> float:
        """The mean."""
        return float(self.recalls.mean())

    @cached_property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the mean, by drawing the units again."""
        found = bootstrap_interval(self.recalls, self.units, resamples=_DRAWS, seed=_SEED)
        return found.low, found.high


def tune(engine: ApproximateEngine, sample: Sample, target: float, given: Mapping[str, float]) -> Choice:
    """Return the search parameters that read the fewest bytes of those that reach a recall, else the best there are.

    Args:
        engine: The index.
        sample: What is asked.
        target: The recall; the lower end of its interval is to reach it.
        given: Parameters that are not to be chosen.
    """
    proposer, held = engine.proposer, max(1, engine.proposer.index.ntotal)
    row_bytes = sample.queries.shape[1] * 4

    def measure(breadth: int, candidates: int) -> Choice:
        search = {"candidates": candidates, **({proposer.breadth: breadth} if proposer.breadth else {})}
        hits = engine.search_with(search, sample.queries, MEASURED_AT)
        cost = breadth * proposer.step_bytes + candidates * row_bytes * _SCATTERED
        return Choice(search, sample.recalls(hits), sample.units, cost)

    breadths: Sequence[int] = [1]
    if proposer.breadth and proposer.breadth in given:
        breadths = [max(1, int(given[proposer.breadth]))]
    elif proposer.breadth:
        breadths = sorted({min(breadth, proposer.widest) for breadth in _BREADTHS})
    several = sorted({min(candidates, held) for candidates in _CANDIDATES})
    if "candidates" in given:
        several = [max(MEASURED_AT, int(given["candidates"]))]
    best: Choice | None = None
    closest: Choice | None = None
    for candidates in several:
        if best is not None and candidates * row_bytes * _SCATTERED >= best.cost:
            break
        low, high = 0, len(breadths) - 1
        while low <= high:  # recall grows with the breadth
            middle = (low + high) // 2
            tried = measure(breadths[middle], candidates)
            if tried.interval[0] >= target:
                best = tried if best is None or tried.cost < best.cost else best
                high = middle - 1
            else:
                closest = tried if closest is None or tried.recall > closest.recall else closest
                low = middle + 1
    chosen = best or closest
    assert chosen is not None  # something was tried
    return chosen
