"""The best rows by a score that is more than one similarity: several views fused, or facets preferred.

The engine knows similarities to one vector. It proposes rows, their scores are computed, and what it has not proposed
is bounded: a row that is no more similar to a probe than the last row proposed can't score more than that plus all
that facets add. Rows that score above the bound are settled, as in the threshold algorithm (Fagin, Lotem and Naor,
Optimal aggregation algorithms for middleware, 2001). The engine is asked for more until k rows are settled, and once
that has become many, for every row whose similarity can still matter: the answer is exact where the engine is.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from index.facets import Preference
from index.grouping import Groups, admitted
from index.nearest import Engine, Mask, Names, best_first, exact_similarities, rounding_margin
from index.refinement import unit_rows
from index.vectors import Positions, StoredVectors, Vectors

Fusion = Literal["mean", "max"]
FUSIONS: tuple[Fusion, ...] = ("mean", "max")

_FIRST = 64  # rows asked for at first, beyond twice k
_WIDEN = 4
_MOST = 1 << 14  # rows asked for by their number; beyond, all that are similar enough are


@dataclass(frozen=True, eq=False)
class Ranked:
    """The best rows of one query, best first.

    Attributes:
        positions: int64 (m,).
        similarities: float32 (m,), the fused similarity to the views.
        agreements: float64 (m,), what the facets added to it; None where there are none.
    """

    positions: Positions
    similarities: npt.NDArray[np.float32]
    agreements: npt.NDArray[np.float64] | None = None


class Scoring:
    """How the rows are scored for one query.

    The similarity to a mean of unit vectors is the mean of the similarities to them: fused by the mean, one probe in
    its direction proposes the rows. Fused by the largest, each view proposes its own.

    Args:
        views: float32 (v, d), unit length: the query as each view shows it.
        fusion: `mean` or `max` of the similarities to the views.
        preference: The facets; None for none.
        vectors: The gallery's.

    Raises:
        QueryError: The views point in opposite directions.
    """

    def __init__(self, views: Vectors, fusion: Fusion, preference: Preference | None, vectors: StoredVectors) -> None:
        self._views, self._fusion, self._preference, self._vectors = views, fusion, preference, vectors
        self.margin = float(rounding_margin(views.shape[1]))
        self.bonus = 0.0 if preference is None else preference.bonus
        self.probes, self.scale = views, 1.0
        if fusion == "mean" and len(views) > 1:
            middle = np.mean(views.astype(np.float64), axis=0)
            self.probes = unit_rows(middle[None], "the views cancel each other out")
            self.scale = float(np.linalg.norm(middle))

    def rows(self, positions: Positions) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
        """Return the fused similarity of some rows, float32 (m,), and what the facets add, float64 (m,)."""
        count, width = len(self._views), len(positions)
        owners = np.repeat(np.arange(count), width)
        each = exact_similarities(self._views, self._vectors, owners, np.tile(positions, count))
        table = each.reshape(count, width).astype(np.float64)
        fused = table.max(axis=0) if self._fusion == "max" else table.sum(axis=0) / count
        agreement = np.zeros(width) if self._preference is None else self._preference.agreement(positions)
        return fused.astype(np.float32), agreement

    def ceiling(self, last: npt.NDArray[np.float32]) -> float:
        """Return the fused similarity that no row passes whose similarity to each probe is no more than `last` (p,)."""
        return self.scale * float(last.max()) + self.margin

    def floor(self, similarity: float) -> float:
        """Return how similar a row is to some probe at least, whose fused similarity is at least this."""
        return max((similarity - self.margin) / self.scale, -2.0)


def rank_rows(
    engine: Engine,
    scoring: Scoring,
    names: Names,
    *,
    k: int | None,
    minimum: float | None = None,
    groups: Groups | None = None,
    most: int = 1,
    allowed: Mask | None = None,
    barred: Positions,
) -> Ranked:
    """Return the k best rows of one query by score, equal ones by row id; at most so many of one group.

    Args:
        engine: Whom to ask.
        scoring: How the rows are scored.
        names: Returns row ids.
        k: How many; None for all that reach the minimum.
        minimum: The smallest fused similarity, compared in float32.
        groups: The groups; None for no limit.
        most: Rows of one group.
        allowed: bool (n,), rows that may answer; all when omitted.
        barred: Rows that must not answer.
    """
    least = np.float32(-np.inf if minimum is None else minimum)

    def best(rows: Positions) -> tuple[Ranked, npt.NDArray[np.float32]]:
        similarities, agreements = scoring.rows(rows)
        reach = similarities >= least
        rows, similarities, agreements = rows[reach], similarities[reach], agreements[reach]
        scores = (similarities.astype(np.float64) + agreements).astype(np.float32)
        owners = np.zeros(len(rows), np.int64)
        order = best_first(owners, scores, rows, names, len(rows))
        if groups is not None:
            order = order[admitted(groups.codes[rows[order]], owners, most)]
        order = order[:k]
        return Ranked(rows[order], similarities[order], agreements[order]), scores[order]

    every = [barred] * len(scoring.probes)
    width = 0 if k is None else 2 * k + _FIRST
    floor = float(least)
    while k is not None:
        hits = engine.search(scoring.probes, width, allowed=allowed, barred=every)
        found, scores = best(np.unique(hits.positions[hits.positions >= 0]))
        ceiling = scoring.ceiling(hits.similarities[:, -1])
        exhausted = bool((hits.positions[:, -1] < 0).any()) or ceiling < least
        if exhausted or (len(scores) == k and scores[-1] > ceiling + scoring.bonus):
            return found
        if width >= _MOST:
            if len(scores) == k:
                floor = max(floor, float(scores[-1]) - scoring.bonus)
            break
        width *= _WIDEN
    near = engine.within(scoring.probes, scoring.floor(floor), allowed=allowed, barred=every)
    return best(np.unique(np.concatenate([hits.positions for hits in near])))[0]
