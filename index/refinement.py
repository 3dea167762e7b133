"""Moving a query toward rows that its asker calls alike and away from those called unlike."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from index import QueryError
from index.gallery import Gallery
from index.vectors import Positions, Vectors

_SHORTEST = 1e-6  # a shorter sum points nowhere


@dataclass(frozen=True)
class Refinement:
    """Relevance feedback after Rocchio.

    The query becomes `alpha` of itself, plus `beta` of the mean of the positive examples, less `gamma` of the mean of
    the negative ones, at unit length again (J. J. Rocchio, Relevance feedback in information retrieval, in: The SMART
    Retrieval System, 1971). The usual weights are those of Manning, Raghavan and Schütze, Introduction to Information
    Retrieval (2008), section 9.1.1: the negative examples say less than the positive ones.

    Attributes:
        positive: Rows that are alike.
        negative: Rows that are not.
        alpha: Weight of the query.
        beta: Weight of the positive examples.
        gamma: Weight of the negative examples.
        exclude_examples: Whether the examples, which the asker has seen, are left out of the answer.
    """

    positive: tuple[str, ...] = ()
    negative: tuple[str, ...] = ()
    alpha: float = 1.0
    beta: float = 0.75
    gamma: float = 0.15
    exclude_examples: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return {
            "positive": list(self.positive),
            "negative": list(self.negative),
            "alpha": float(self.alpha),
            "beta": float(self.beta),
            "gamma": float(self.gamma),
            "exclude_examples": self.exclude_examples,
        }

    def check(self) -> None:
        """Refuse what can't refine a query.

        Raises:
            QueryError: There is no example, a row is on both sides, or a weight is negative or not finite.
        """
        if not self.positive and not self.negative:
            raise QueryError("refinement", "there is no example", "name rows that are alike, or rows that are not")
        if both := set(self.positive) & set(self.negative):
            raise QueryError("refinement", f"{min(both)} is alike and unlike", "name it once")
        for name in ("alpha", "beta", "gamma"):
            weight = getattr(self, name)
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
                raise QueryError(name, f"{weight!r} is no weight", "give a number of 0 or more")


@dataclass(frozen=True, eq=False)
class Movement:
    """A refinement of a gallery's own.

    Attributes:
        alpha: Weight of the query.
        shift: float64 (d,), what is added to it.
        examples: int64 (m,), the examples' positions, upwards.
    """

    alpha: float
    shift: Any
    examples: Positions

    def move(self, queries: Vectors) -> Vectors:
        """Return the queries where the examples move them.

        Args:
            queries: float32 (q, d), unit length.

        Returns:
            float32 (q, d), unit length.

        Raises:
            QueryError: The examples cancel a query out.
        """
        return unit_rows(self.alpha * queries.astype(np.float64) + self.shift, "the examples cancel the query out")


def movement(gallery: Gallery, refinement: Refinement) -> Movement:
    """Look a refinement's examples up.

    Raises:
        QueryError: There is no such row, or the refinement can't be used.
    """
    refinement.check()
    shift = np.zeros(gallery.identity.dimension)
    found = []
    for names, weight in ((refinement.positive, refinement.beta), (refinement.negative, -refinement.gamma)):
        if names:
            rows = np.unique([gallery.position(name) for name in names])
            shift += weight * np.mean(gallery.vectors.take(rows).astype(np.float64), axis=0)
            found.append(rows)
    return Movement(float(refinement.alpha), shift, np.sort(np.concatenate(found)))


def unit_rows(vectors: Any, cause: str) -> Vectors:
    """Return vectors at unit length, the same bits on every machine.

    Args:
        vectors: float64 (q, d).
        cause: What it means where one of them has no direction.

    Raises:
        QueryError: One has none.
    """
    lengths = np.array([math.sqrt(math.fsum(row)) for row in (vectors * vectors).tolist()])
    if (lengths < _SHORTEST).any():
        raise QueryError("query", f"{cause}: nothing is left of it", "use other examples, views or weights")
    return np.ascontiguousarray(vectors / lengths[:, None], np.float32)
