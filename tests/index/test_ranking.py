from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index import QueryError
from index.engines import exact_engine
from index.grouping import Groups
from index.nearest import exact_similarities
from index.ranking import Scoring, rank_rows
from index.vectors import StoredVectors

DIMENSION = 6


class Made:
    """Agreements out of nowhere, as `index.facets.Preference` gives them."""

    def __init__(self, agreements: np.ndarray) -> None:
        self.agreements = agreements
        self.bonus = float(np.abs(agreements).max(initial=0))

    def agreement(self, rows: np.ndarray) -> np.ndarray:
        return self.agreements[rows]


@settings(deadline=None, max_examples=50)
@given(
    rows=st.integers(1, 80),
    seed=st.integers(0, 2**32 - 1),
    k=st.none() | st.integers(1, 12),
    minimum=st.sampled_from([None, -0.2, 0.3]),
    most=st.integers(0, 2),
    count=st.integers(1, 3),
    fusion=st.sampled_from(["mean", "max"]),
    strength=st.sampled_from([0.0, 0.05, 3.0]),
    first=st.integers(1, 8),
    limit=st.sampled_from([1, 20, 1 << 14]),
)
def test_the_best_by_score_come_whatever_the_engine_is_asked_for(
    rows: int,
    seed: int,
    k: int | None,
    minimum: float | None,
    most: int,
    count: int,
    fusion: Any,
    strength: float,
    first: int,
    limit: int,
) -> None:
    rng = np.random.default_rng(seed)
    pool = rng.normal(size=(max(1, rows // 2), DIMENSION)).astype(np.float32)
    pool /= np.linalg.norm(pool, axis=1, keepdims=True)
    stored = StoredVectors([pool[rng.integers(0, len(pool), rows)]], DIMENSION)
    names = np.array([f"r{i}" for i in rng.permutation(rows)], object)
    codes = np.unique(rng.integers(0, 9, rows), return_inverse=True)[1]
    agreements = rng.choice([-0.5, 0.0, 0.5], rows) * strength
    views = pool[rng.integers(0, len(pool), count)]
    allowed = rng.random(rows) < 0.8
    barred = rng.choice(rows, min(rows, 3), replace=False).astype(np.int64)
    engine = exact_engine(stored, lambda positions: names[positions])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("index.ranking._FIRST", first - 2 * (k or 0))
        patch.setattr("index.ranking._MOST", limit)
        found = rank_rows(
            engine,
            Scoring(views, fusion, Made(agreements), stored),  # type: ignore[arg-type]
            lambda positions: names[positions],
            k=k,
            minimum=minimum,
            groups=Groups(codes) if most else None,
            most=most,
            allowed=allowed,
            barred=barred,
        )
    scored = []
    for row in range(rows):
        each = [float(exact_similarities(view[None], stored, *np.array([[0], [row]]))[0]) for view in views]
        fused = np.float32(max(each) if fusion == "max" else sum(each) / count)
        if allowed[row] and row not in barred and (minimum is None or fused >= np.float32(minimum)):
            scored.append((-np.float32(float(fused) + agreements[row]), names[row], row, fused))
    taken = []
    seen = Counter[int]()
    for _, _, row, fused in sorted(scored):
        seen[codes[row]] += 1
        if not most or seen[codes[row]] <= most:
            taken.append((row, fused))
    taken = taken[:k]
    assert found.positions.tolist() == [row for row, _ in taken]
    assert found.similarities.tolist() == [float(fused) for _, fused in taken]
    assert found.agreements is not None
    assert found.agreements.tolist() == agreements[found.positions].tolist()


def test_views_that_cancel_each_other_out() -> None:
    vectors = np.array([[1, 0], [-1, 0]], np.float32)
    with pytest.raises(QueryError, match="cancel each other out"):
        Scoring(vectors, "mean", None, StoredVectors([vectors], 2))
    found = rank_rows(
        exact_engine(StoredVectors([vectors], 2), lambda positions: positions.astype(object)),
        Scoring(vectors, "max", None, StoredVectors([vectors], 2)),
        lambda positions: positions.astype(str).astype(object),
        k=2,
        barred=np.empty(0, np.int64),
    )
    assert (found.positions.tolist(), found.similarities.tolist()) == ([0, 1], [1.0, 1.0])
