"""kNN vote: what the nearest labelled findings of other women say, nearer ones louder."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from classifiers import ClassificationError
from classifiers.labels import (
    MISSING,
    Array,
    canonical_order,
    check_vectors,
    encode_labels,
    encode_patients,
)

_BLOCK_BYTES = 64 << 20  # similarities held at a time
# Far finer than float32 vectors, far coarser than float64 sums: equal findings tie in every block size.
_DECIMALS = 9


@dataclass(frozen=True)
class VoteConfig:
    """How neighbours vote.

    A neighbour of similarity s votes with the weight exp((s - s_nearest) / temperature), the weighting of
    Wu et al. (Unsupervised feature learning via non-parametric instance discrimination, CVPR 2018) taken
    relative to the nearest neighbour, which thus weighs 1, as in Dudani's distance-weighted rule (IEEE
    Trans. SMC 6, 1976): an embedder that puts all its vectors close together gets the same say as one that
    spreads them. The votes are smoothed towards the class shares among the other women by an m-estimate
    (Cestnik, ECAI 1990): p = (votes + prior_weight x share) / (all votes + prior_weight), so that a handful
    of neighbours never makes anything certain.

    Args:
        k: How many labelled neighbours vote.
        temperature: Similarity difference that lowers a vote by a factor of e.
        prior_weight: Weight of the class shares, in votes as heavy as the nearest neighbour's; 0 leaves
            them out.
    """

    k: int = 10
    temperature: float = 0.07
    prior_weight: float = 1.0

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ClassificationError("k", f"{self.k} neighbours cannot vote", "ask for 1 or more")
        if not self.temperature > 0:
            raise ClassificationError("temperature", f"{self.temperature} is not positive", "0.07 is usual")
        if not self.prior_weight >= 0:
            raise ClassificationError("prior weight", f"{self.prior_weight} is negative", "1.0 is usual")


@dataclass(frozen=True, eq=False)
class Vote:
    """What one finding's neighbours say.

    Args:
        classes: The classes.
        probabilities: (classes,) sums to 1.
        neighbours: How many labelled findings voted.
        women: How many women they belong to.
    """

    classes: tuple[str, ...]
    probabilities: Array
    neighbours: int
    women: int


@dataclass(frozen=True, eq=False)
class Neighbourhood:
    """The voters of q queries, best first.

    Args:
        similarities: (q, k) cosine; -inf where there are fewer than k.
        rows: (q, k) positions in the fitted arrays; -1 where there are fewer than k.
        neighbours: (q,) how many voters.
        women: (q,) how many women they belong to.
        codes: (q, k) their labels, as places in the voter's `classes_`; MISSING where there are fewer than k.
    """

    similarities: Array
    rows: Array
    neighbours: Array
    women: Array
    codes: Array


def vote(
    similarities: npt.ArrayLike,
    labels: npt.ArrayLike,
    patients: npt.ArrayLike,
    classes: Sequence[str],
    *,
    config: VoteConfig | None = None,
    patient: str | None = None,
    prior: npt.ArrayLike | None = None,
) -> Vote:
    """Let one query's retrieved neighbours vote.

    Neighbours without a label neither vote nor count; the first `k` of the others do. A list retrieved
    without regard to labels may hold fewer than k of them: retrieve among labelled rows to have k.

    Args:
        similarities: (n,) cosine to the query.
        labels: (n,) labels, missing where unknown.
        patients: (n,) women's keys.
        classes: The classes in the order of the answer.
        config: How to vote.
        patient: The query's woman, whose findings are left out; None where she is not known.
        prior: (classes,) shares towards which votes are smoothed; equal shares when omitted.

    Returns:
        The vote; the prior where nobody votes.

    Raises:
        ClassificationError: A label is none of the classes, or a neighbour has no woman.

    >>> vote([0.9, 0.9, 0.8], ["mass", None, "mass"], ["a/1", "a/2", "a/3"], ["asymmetry", "mass"]).neighbours
    2
    """
    config = config or VoteConfig()
    names, codes = encode_labels(labels, classes)
    women, woman_of_row = encode_patients(patients, len(codes))
    values = np.asarray(similarities, dtype=np.float64)
    if values.shape != codes.shape:
        raise ClassificationError("similarities", f"{values.shape} for {len(codes)} labels", "pass one per neighbour")
    if not np.isfinite(values).all():
        raise ClassificationError("similarities", "one is not finite", "leave that neighbour out")
    shares = np.full(len(names), 1 / len(names)) if prior is None else np.asarray(prior, dtype=np.float64)
    allowed = codes != MISSING
    if patient is not None:
        allowed &= women[woman_of_row] != patient
    chosen = np.flatnonzero(allowed)
    chosen = chosen[np.argsort(-values[chosen], kind="stable")][: config.k]
    probabilities = _tally(values[chosen][None], codes[chosen][None], shares[None], config)[0]
    return Vote(names, probabilities, len(chosen), len(np.unique(woman_of_row[chosen])))


def _tally(similarities: Array, codes: Array, priors: Array, config: VoteConfig) -> Array:
    """Weigh and smooth (q, k) votes, best first, MISSING where there are fewer: (q, classes)."""
    votes = np.zeros_like(priors)
    if similarities.shape[1]:
        voting = codes != MISSING
        nearest = np.where(voting[:, :1], similarities[:, :1], 0.0)
        behind = np.where(voting, similarities - nearest, -np.inf)
        query, rank = np.nonzero(voting)
        np.add.at(votes, (query, codes[query, rank]), np.exp(behind[query, rank] / config.temperature))
    total = votes.sum(axis=1, keepdims=True)
    smoothing = np.where(total > 0, config.prior_weight, 1.0)  # nobody votes: what is left is the prior
    probabilities = (votes + smoothing * priors) / (total + smoothing)
    return probabilities / probabilities.sum(axis=1, keepdims=True)


class NeighbourVote:
    """Classify findings by the vote of their nearest labelled findings of other women.

    The search is exact, over all labelled rows, and leaves a query's own woman out of it, so that k others
    vote. Ties at the k-th place are broken by woman, label and vector, never by the order of the rows.

    Args:
        config: How neighbours vote.
    """

    # Queries of a fitted woman are answered without her: one fit gives held-out probabilities of every row.
    leaves_own_woman_out = True

    def __init__(self, config: VoteConfig | None = None) -> None:
        self.config = config or VoteConfig()

    def fit(self, vectors: npt.ArrayLike, labels: npt.ArrayLike, patients: npt.ArrayLike) -> Self:
        """Remember the labelled findings.

        Args:
            vectors: (n, d) unit length.
            labels: (n,) labels; rows without one are left out.
            patients: (n,) women's keys.

        Raises:
            ClassificationError: No row has a label.
        """
        matrix = check_vectors(vectors)
        self.classes_, codes = encode_labels(labels)
        self.women_, women = encode_patients(patients, len(codes))
        if matrix.shape[0] != len(codes):
            raise ClassificationError("vectors", f"{len(matrix)} vectors for {len(codes)} labels", "pass one per label")
        if not self.classes_:
            raise ClassificationError(
                "labels", "no finding has one, so none can vote", "choose a column that has labels"
            )
        labelled = np.flatnonzero(codes != MISSING)
        order = labelled[canonical_order(matrix[labelled], codes[labelled], women[labelled])]
        self.rows_, self._vectors, self._codes, self._women = order, matrix[order], codes[order], women[order]
        self._own_counts = np.zeros((len(self.women_), len(self.classes_)))
        np.add.at(self._own_counts, (self._women, self._codes), 1)
        return self

    def kneighbours(self, vectors: npt.ArrayLike, patients: npt.ArrayLike | None = None) -> Neighbourhood:
        """Find the k nearest labelled findings of other women.

        Args:
            vectors: (q, d) unit length.
            patients: (q,) women's keys, None where unknown; nobody is left out when omitted.

        Returns:
            The voters of each query.
        """
        (similarities, positions), _ = self._places(vectors, patients)
        found = positions >= 0
        rows = np.where(found, self.rows_[positions], -1)
        women = np.where(found, self._women[positions], -1)
        distinct = np.array([len(np.unique(line[line >= 0])) for line in women], dtype=np.int64)
        codes = np.where(found, self._codes[positions], MISSING)
        return Neighbourhood(similarities, rows, found.sum(axis=1), distinct, codes)

    def predict_proba(self, vectors: npt.ArrayLike, patients: npt.ArrayLike | None = None) -> Array:
        """Return (q, classes) probabilities from the vote of other women's findings.

        Args:
            vectors: (q, d) unit length.
            patients: (q,) women's keys, None where unknown; nobody is left out when omitted.

        Raises:
            ClassificationError: A query's woman is the only one with labels.
        """
        (similarities, positions), own = self._places(vectors, patients)
        counts = self._own_counts.sum(axis=0) - np.where(own[:, None] >= 0, self._own_counts[own], 0.0)
        totals = counts.sum(axis=1, keepdims=True)
        if not totals.all():
            woman = self.women_[own[int(np.flatnonzero(totals[:, 0] == 0)[0])]]
            raise ClassificationError(
                "labels",
                f"only the woman {woman} has any, and she cannot vote on herself",
                "add findings of other women",
            )
        codes = np.where(positions >= 0, self._codes[positions], MISSING)
        return _tally(similarities, codes, counts / totals, self.config)

    def predict(self, vectors: npt.ArrayLike, patients: npt.ArrayLike | None = None) -> Array:
        """Return (q,) most probable classes; the first of equals."""
        return np.asarray(self.classes_)[self.predict_proba(vectors, patients).argmax(axis=1)]

    def _places(self, vectors: npt.ArrayLike, patients: npt.ArrayLike | None) -> tuple[tuple[Array, Array], Array]:
        """Return ((q, k) similarities and fitted positions, best first), and (q,) own woman's index or -1."""
        queries = check_vectors(vectors)
        if queries.shape[1] != self._vectors.shape[1]:
            raise ClassificationError(
                "vectors",
                f"{queries.shape[1]} dimensions where {self._vectors.shape[1]} were fitted",
                "embed with the same model",
            )
        own = self._own_codes(patients, len(queries))
        k = min(self.config.k, len(self.rows_))
        similarities = np.full((len(queries), k), -np.inf)
        positions = np.full((len(queries), k), -1, dtype=np.int64)
        block = max(1, _BLOCK_BYTES // (8 * len(self.rows_)))
        for start in range(0, len(queries), block):
            part = slice(start, start + block)
            lines = np.round(queries[part] @ self._vectors.T, _DECIMALS)
            lines[self._women[None, :] == own[part, None]] = -np.inf
            for row, line in enumerate(lines, start=start):
                best = _top(line, k)
                similarities[row, : len(best)] = line[best]
                positions[row, : len(best)] = best
        return (similarities, positions), own

    def _own_codes(self, patients: npt.ArrayLike | None, rows: int) -> Array:
        """Return each query's woman as an index into `women_`; -1 where she is unknown or not fitted."""
        if patients is None:
            return np.full(rows, -1, dtype=np.int64)
        keys = np.asarray(patients, dtype=object)
        if keys.shape != (rows,):
            raise ClassificationError(
                "patients", f"{keys.shape} keys for {rows} queries", "pass one woman's key per query"
            )
        index = {woman: code for code, woman in enumerate(self.women_.tolist())}
        return np.array([-1 if pd.isna(key) else index.get(str(key), -1) for key in keys], dtype=np.int64)


def _top(scores: Array, k: int) -> Array:
    """Return the positions of the k highest finite scores, best first, ties by position."""
    if k < len(scores):
        kth = np.partition(scores, len(scores) - k)[len(scores) - k]
        candidates = np.flatnonzero((scores >= kth) & (scores > -np.inf))
    else:
        candidates = np.flatnonzero(scores > -np.inf)
    return candidates[np.argsort(-scores[candidates], kind="stable")][:k]
