"""How well retrieval does: precision@k, R-precision, MAP@R with patient exclusion; intervals over women.

The interval functions serve every score that is a mean over items; scores that are none (an AUC, a kappa)
resample with `resample_women` and summarise with `summarise`.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from index import QueryError

RELEVANT = "relevant"
"""The column of `retrieval_scores` that is a count, not a score."""

RECALL_LEVELS = tuple(step / 20 for step in range(1, 21))
"""Where a curve of precision over recall is drawn."""

_BLOCK_ITEMS = 2_000_000  # numbers held at a time
# Far finer than float32 vectors, far coarser than float64 sums: equal findings tie in every block size.
_DECIMALS = 9

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Estimate:
    """A score, its interval, and what they rest on.

    Args:
        value: The score; NaN where the items leave it undefined.
        low: Lower end of the interval; NaN where there is none (an undefined score, fewer than two women).
        high: Upper end of the interval.
        level: Coverage of the interval.
        items: How many items (findings, breast images) the score is of.
        women: How many women they belong to.
        resamples: How many resamples the interval rests on: those in which the score is defined.

    >>> print(Estimate(0.421, 0.363, 0.488, 0.95, items=119, women=104, resamples=2000))
    0.42 [0.36, 0.49]
    """

    value: float
    low: float
    high: float
    level: float
    items: int
    women: int
    resamples: int

    def __str__(self) -> str:
        if math.isnan(self.value):
            return "undefined"
        ends = "no interval" if math.isnan(self.low) else f"{self.low:.2f}, {self.high:.2f}"
        return f"{self.value:.2f} [{ends}]"

    def to_dict(self) -> dict[str, float | int | None]:
        """Return the fields for JSON, None where one is NaN."""
        return {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Return the estimate whose `to_dict` this is.

        Raises:
            KeyError: A field is missing.
            TypeError: A field is not a number.
            ValueError: A field is not a number.
        """
        numbers = [content[name] for name in ("value", "low", "high")]
        value, low, high = (math.nan if number is None else float(number) for number in numbers)
        counts = (int(content[name]) for name in ("items", "women", "resamples"))
        return cls(value, low, high, float(content["level"]), *counts)


def bootstrap_interval(
    values: npt.ArrayLike,
    patient_keys: npt.ArrayLike,
    *,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Estimate:
    """Average values over items, with a percentile interval from resampling women.

    Women are drawn with replacement, each with all her items, because items of one woman are alike
    (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 8 and 13).

    Args:
        values: (n,) one value an item; NaN where it has none, and is left out.
        patient_keys: (n,) the items' women.
        resamples: How many resamples of the women.
        seed: Seed of the resampling.
        level: Coverage of the interval.

    Raises:
        QueryError: Values and keys do not fit each other, or the resampling is impossible.

    >>> bootstrap_interval([1.0, 0.0, 0.5], ["a/1", "a/2", "a/2"]).value
    0.5
    """
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1:
        raise QueryError("scores", f"the shape is {numbers.shape}", "pass one value per item")
    keys = _keys(patient_keys, len(numbers), "scores")
    known = ~np.isnan(numbers)
    women, codes = np.unique(keys[known], return_inverse=True)
    counts = np.bincount(codes, minlength=len(women)).astype(np.float64)
    sums = np.bincount(codes, weights=numbers[known], minlength=len(women))
    means = [(draws @ sums) / (draws @ counts) for draws in resample_women(len(women), resamples, seed, len(women))]
    return summarise(
        float(sums.sum() / counts.sum()) if len(women) else math.nan,
        np.concatenate(means) if means else np.empty(0),
        level=level,
        items=int(known.sum()),
        women=len(women),
    )


def paired_difference(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    patient_keys: npt.ArrayLike,
    *,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Estimate:
    """Average the differences a - b over items, with a percentile interval from resampling women.

    Args:
        a: (n,) values of one run; NaN where an item has none.
        b: (n,) values of the other run on the same items. An item is left out where either has none.
        patient_keys: (n,) the items' women.
        resamples: How many resamples of the women.
        seed: Seed of the resampling.
        level: Coverage of the interval.

    Raises:
        QueryError: The runs have different numbers of items, or the resampling is impossible.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape:
        raise QueryError("scores", f"{first.shape} for {second.shape} of the other run", "pair the items")
    return bootstrap_interval(first - second, patient_keys, resamples=resamples, seed=seed, level=level)


def resample_women(women: int, resamples: int, seed: int, row: int) -> Iterator[Array]:
    """Draw women with replacement, as many as there are, again and again.

    The draws depend on `women` and `seed` alone, so that two scores of the same women are resampled alike.

    Args:
        women: How many women; with fewer than two there is nothing to resample.
        resamples: How many resamples.
        seed: Seed of the draws.
        row: How many numbers the caller will hold for each resample: blocks are sized by it.

    Yields:
        (b, women) float64: how often each woman was drawn, `resamples` rows over all blocks.

    Raises:
        QueryError: Fewer than one resample.
    """
    if resamples < 1:
        raise QueryError("resamples", f"{resamples} give no interval", "2000 are usual")
    if women < 2:
        return
    generator = np.random.default_rng(seed)
    shares = np.full(women, 1 / women)
    block = max(1, _BLOCK_ITEMS // max(row, women))
    for start in range(0, resamples, block):
        yield generator.multinomial(women, shares, size=min(block, resamples - start)).astype(np.float64)


def summarise(value: float, resampled: Array, *, level: float, items: int, women: int) -> Estimate:
    """Return a score with the percentile interval of its resamples; those where it is NaN are left out.

    Raises:
        QueryError: The level is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise QueryError("level", f"{level} is not between 0 and 1", "0.95 is usual")
    defined = resampled[~np.isnan(resampled)]
    low, high = math.nan, math.nan
    if defined.size and not math.isnan(value):
        low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2]).tolist()
    return Estimate(value, low, high, level, items, women, len(defined))


def retrieval_scores(
    query_vectors: npt.ArrayLike,
    query_labels: npt.ArrayLike,
    query_patients: npt.ArrayLike,
    gallery_vectors: npt.ArrayLike,
    gallery_labels: npt.ArrayLike,
    gallery_patients: npt.ArrayLike,
    *,
    ks: Sequence[int] = (1, 5, 10),
) -> pd.DataFrame:
    """Score each query's ranking of the gallery by cosine: which neighbours bear its label.

    A query's candidates are the labelled gallery rows of other women: her own rows are never candidates, and
    rows without a label are left out, because unknown is neither right nor wrong. R is how many candidates
    bear the query's label. Queries and gallery may be the same rows. The search is exact, in float64;
    similarities that agree to nine decimals are a tie, which the earlier gallery row wins.

    R-precision and MAP@R as in Musgrave, Belongie and Lim, A metric learning reality check, ECCV 2020.

    Args:
        query_vectors: (q, d) unit length.
        query_labels: (q,) labels, missing where unknown.
        query_patients: (q,) women's keys.
        gallery_vectors: (n, d) unit length.
        gallery_labels: (n,) labels, missing where unknown.
        gallery_patients: (n,) women's keys.
        ks: The k of each precision@k, counted over k places: a place that no candidate fills is a miss.

    Returns:
        One row a query, in order. `precision@k` for each k, `r_precision` and `map@r` are float64, NaN for a
        query without a label or with R = 0; `relevant` is R, an integer.

    Raises:
        QueryError: Arrays that do not fit each other, are not finite or have a row without a woman, or a k
            below 1.
    """
    if any(k < 1 for k in ks):
        raise QueryError("k", f"{min(ks)} neighbours have no precision", "ask for 1 or more")
    queries, own, terms = _side(query_vectors, query_labels, query_patients, "queries")
    gallery, women, labels = _side(gallery_vectors, gallery_labels, gallery_patients, "gallery")
    if queries.shape[1] != gallery.shape[1]:
        raise QueryError(
            "queries",
            f"{queries.shape[1]} dimensions where the gallery has {gallery.shape[1]}",
            "embed both with the same model",
        )
    names = [f"precision@{k}" for k in ks]
    scores = np.full((len(queries), len(names) + 2), np.nan)
    relevant = np.zeros(len(queries), dtype=np.int64)
    for rows, right in _rankings(queries, terms, own, gallery, labels, women):
        scores[rows], relevant[rows] = _score_rankings(right, ks)
    table = pd.DataFrame(scores, columns=[*names, "r_precision", "map@r"])
    table[RELEVANT] = relevant
    return table


def precision_at_recall(
    query_vectors: npt.ArrayLike,
    query_labels: npt.ArrayLike,
    query_patients: npt.ArrayLike,
    gallery_vectors: npt.ArrayLike,
    gallery_labels: npt.ArrayLike,
    gallery_patients: npt.ArrayLike,
    *,
    levels: Sequence[float] = RECALL_LEVELS,
) -> Array:
    """Return the interpolated precision of each query's ranking of the gallery at levels of recall.

    At a level it is the best precision from the place on at which that share of the relevant rows has come, as in
    Manning, Raghavan and Schütze, Introduction to Information Retrieval, 2008, section 8.4. Candidates and ties are as
    in `retrieval_scores`.

    Returns:
        float64 (queries, levels); NaN for a query without a label or without a relevant row.

    Raises:
        QueryError: As `retrieval_scores`, or a level is not above 0 and at most 1.
    """
    wanted = np.asarray(levels, dtype=np.float64)
    if wanted.ndim != 1 or not ((wanted > 0) & (wanted <= 1)).all():
        raise QueryError("recall", f"{levels} are no levels of it", "name some above 0 and at most 1")
    queries, own, terms = _side(query_vectors, query_labels, query_patients, "queries")
    gallery, women, labels = _side(gallery_vectors, gallery_labels, gallery_patients, "gallery")
    found = np.full((len(queries), len(wanted)), np.nan)
    for rows, right in _rankings(queries, terms, own, gallery, labels, women):
        hits = right.cumsum(axis=1)
        total = hits[:, -1]
        precision = hits / np.arange(1, right.shape[1] + 1)
        best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        for row, places, relevant, values in zip(rows, hits, total, best, strict=True):
            if relevant:
                # As many hits as the level asks for, whole ones: a tenth of 15 relevant rows is 2.
                needed = np.ceil(wanted * relevant - 1e-9)
                found[row] = values[np.searchsorted(places, needed)]
    return found


def _rankings(
    queries: Array, terms: Array, own: Array, gallery: Array, labels: Array, women: Array
) -> Iterator[tuple[Array, Array]]:
    """Give blocks of labelled queries and, for each, whether each place of its ranking bears its label."""
    labelled = ~_missing(labels)
    gallery, women, labels = gallery[labelled], women[labelled], labels[labelled].astype(str)
    asked = np.flatnonzero(~_missing(terms))
    block = max(1, _BLOCK_ITEMS // max(1, len(gallery)))
    for start in range(0, len(asked) if len(gallery) else 0, block):
        rows = asked[start : start + block]
        allowed = women[None, :] != own[rows, None]
        similarities = np.where(allowed, np.round(queries[rows] @ gallery.T, _DECIMALS), -np.inf)
        ranking = np.argsort(-similarities, axis=1, kind="stable")
        right = (labels[None, :] == terms[rows].astype(str)[:, None]) & allowed
        yield rows, np.take_along_axis(right, ranking, axis=1)


def _score_rankings(right: Array, ks: Sequence[int]) -> tuple[Array, Array]:
    """Score rankings, given (q, n) whether each place is right: (q, len(ks) + 2) scores, and (q,) R."""
    hits = right.cumsum(axis=1)
    total = hits[:, -1]
    places = np.arange(1, right.shape[1] + 1)
    within = places <= total[:, None]
    columns = [hits[:, min(k, right.shape[1]) - 1] / k for k in ks]
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN, as it should be: nothing to find
        columns.append((right & within).sum(axis=1) / total)
        columns.append((right * within * hits / places).sum(axis=1) / total)
    return np.where(total[:, None] > 0, np.stack(columns, axis=1), np.nan), total


def _side(
    vectors: npt.ArrayLike, labels: npt.ArrayLike, patients: npt.ArrayLike, subject: str
) -> tuple[Array, Array, Array]:
    """Return one side's vectors (float64), women and labels (objects), or refuse what does not fit."""
    matrix, terms = np.asarray(vectors, dtype=np.float64), np.asarray(labels, dtype=object)
    if matrix.ndim != 2 or terms.shape != (len(matrix),):
        raise QueryError(subject, f"vectors of shape {matrix.shape} for {terms.shape} labels", "pass one label per row")
    if not np.isfinite(matrix).all():
        row = int(np.argmin(np.isfinite(matrix).all(axis=1)))
        raise QueryError(subject, f"vector {row} holds a value that is not finite", "embed it again")
    return matrix, _keys(patients, len(matrix), subject), terms


def _keys(patients: npt.ArrayLike, rows: int, subject: str) -> Array:
    keys = np.asarray(patients, dtype=object)
    if keys.shape != (rows,):
        raise QueryError(subject, f"{keys.shape} women's keys for {rows} rows", "pass one per row")
    unknown = _missing(keys)
    if unknown.any():
        raise QueryError(
            subject,
            f"row {int(np.argmax(unknown))} has no woman, so it can't be kept apart from her other findings",
            "give every row a patient",
        )
    return keys.astype(str)


def _missing(values: Array) -> Array:
    return np.asarray(pd.isna(values), dtype=bool)
