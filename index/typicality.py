"""How well a row's neighbours agree with it, so that doubtful cases can be looked at, or kept from answering.

A label that contradicts what its neighbours say is a rare case, a bad crop or a mistake. Wilson's edited nearest
neighbours drop such rows from a kNN classifier (D. L. Wilson, Asymptotic properties of nearest neighbor rules using
edited data, IEEE Trans. SMC 2, 1972), and the share of disagreeing neighbours is the best single predictor of a case
that classifiers get wrong (Smith, Martinez and Giraud-Carrier, An instance level analysis of data complexity, Machine
Learning 95, 2014).

Of each labelled row the k nearest labelled rows of other women are asked, one of each woman: four views of one cancer
are one witness, not four. The share that carry the row's own label is smoothed by one vote at the label's base rate
among the other women (m-estimate: Cestnik, ECAI 1990), and then taken to equal priors of that label and all others
(Saerens, Latinne and Decaestecker, Adjusting the outputs of a classifier to new a priori probabilities, Neural
Computation 14, 2002):

    score = s (1 - b) / (s (1 - b) + (1 - s) b)        with the smoothed share s and the base rate b

So 0.5 is what neighbours drawn at random would give, of a rare label as of a frequent one: without it nearly every row
of a rare label would be called atypical. What is unknown is not atypical: a row has no score (NaN) where its label is
missing, or where all other women have that label, or none has.

Where there are hardly more other women than neighbours, nearly all of them are asked, and every score is near chance.

A query's own woman is no witness either: the rows that may answer her are chosen as if she were not in the gallery.
"""

import math
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

from index import QueryError
from index.engines import exact_engine, unit_length
from index.gallery import Gallery
from index.grouping import Groups, nearest_in_groups
from index.nearest import Engine, Mask, Names
from index.vectors import Positions, StoredVectors

CHANCE = 0.5
"""The score of a row whose neighbours carry its label as often as all other women do."""

NEIGHBOURS = 10
"""Neighbours that are asked of each row."""

MOST_ROWS_AT_ONCE = 20_000
"""Rows of a gallery whose scores are computed when a question needs them: 20,000 rows of 512 numbers took 21 s
on one thread."""

MOST_CLASSES = 100
"""A column with more different values is no label: an identifier, a path, an age."""

MISSING = -1
"""The code of an unknown label."""

_PRIOR_WEIGHT = 1.0  # votes at the base rate
_DECIMALS = 9  # a share that equals the base rate gives 0.5, not a bit less
_BATCH = 4096  # rows whose neighbours are looked up at a time

Scores = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Witnesses:
    """The labelled rows of other women that are nearest to each labelled row, one of each woman.

    Attributes:
        classes: The classes.
        codes: int64 (n,) each row's class, MISSING where unknown.
        women: int64 (n,) each row's woman, from 0.
        rows: int64 (n, k) positions, nearest first, equal ones by row id; -1 where there are fewer, or for a row
            without a label.
        search: Looks the witnesses of some rows up anew, among rows that are allowed: (m,), (n,) bool to (m, k).
    """

    classes: tuple[str, ...]
    codes: Positions
    women: Positions
    rows: Positions
    search: Callable[[Positions, Mask], Positions]

    @cached_property
    def scores(self) -> Scores:
        """float64 (n,), 0 to 1; NaN where nothing can be said, see the head of this module."""
        known = self.codes != MISSING
        codes, women = self.codes[known], self.women[known]
        scores = np.full(len(known), np.nan)
        if not len(codes):
            return scores
        said = self._said[known]
        base = _base_rates(codes, women, len(self.classes))
        agree = np.count_nonzero(said == codes[:, None], axis=1)
        asked = np.count_nonzero(said != MISSING, axis=1)
        share = (agree + _PRIOR_WEIGHT * base) / (asked + _PRIOR_WEIGHT)
        own, rest = share * (1 - base), (1 - share) * base
        telling = (base > 0) & (base < 1)  # NaN, of the only woman with a label, is neither
        scores[np.flatnonzero(known)[telling]] = np.round(own[telling] / (own + rest)[telling], _DECIMALS)
        return scores

    @property
    def _said(self) -> Positions:
        """int64 (n, k), the classes of the witnesses; MISSING where there are fewer."""
        return np.where(self.rows >= 0, self.codes[self.rows], MISSING)

    def votes(self, row: int) -> dict[str, int]:
        """Return how many witnesses of a row carry each class, the most frequent first."""
        counts = Counter(self.classes[self.codes[witness]] for witness in self.rows[row] if witness >= 0)
        return dict(sorted(counts.items(), key=lambda each: (-each[1], each[0])))

    def without(self, rows: Positions) -> "Witnesses":
        """Return what would be known if some rows were not there: they neither testify nor have a score.

        Args:
            rows: int64 (m,), in any order.
        """
        if not len(rows):
            return self
        codes, witnesses = self.codes.copy(), self.rows.copy()
        codes[rows], witnesses[rows] = MISSING, -1
        bereft = np.flatnonzero(np.isin(witnesses, rows).any(axis=1))
        witnesses[bereft] = self.search(bereft, codes != MISSING)
        return Witnesses(self.classes, codes, self.women, witnesses, self.search)


def typicality(
    vectors: npt.ArrayLike,
    labels: npt.ArrayLike,
    women: npt.ArrayLike,
    k: int = NEIGHBOURS,
    *,
    row_ids: Sequence[str] | None = None,
) -> Scores:
    """Score how well the neighbours of each row agree with its label, see the head of this module; exact.

    Args:
        vectors: (n, d) unit length.
        labels: (n,) labels, missing where unknown.
        women: (n,) women's keys.
        k: How many neighbours are asked, one of each other woman.
        row_ids: (n,) by which equally near rows are ordered; their place where omitted.

    Returns:
        float64 (n,), 0 to 1; 0.5 is chance, NaN is unknown.

    Raises:
        QueryError: The arrays do not fit each other, a vector is not of length 1, a row has no woman, or k is no number
            of neighbours.
    """
    check_neighbours(k)
    matrix = np.ascontiguousarray(vectors, dtype=np.float32)
    values, keys = np.asarray(labels, dtype=object), np.asarray(women, dtype=object)
    if matrix.ndim != 2 or values.shape != (len(matrix),) or keys.shape != (len(matrix),):
        cause = f"vectors of shape {matrix.shape} for {values.shape} labels and {keys.shape} women"
        raise QueryError("typicality", cause, "pass one label and one woman per row")
    if not unit_length(matrix).all():
        raise QueryError("typicality", f"vector {int(np.argmin(unit_length(matrix)))} is not of length 1", "embed it")
    if pd.isna(keys).any():
        cause = f"row {int(np.argmax(pd.isna(keys)))} has no woman, so it can't be kept apart from her other findings"
        raise QueryError("typicality", cause, "give every row a patient")
    missing = np.asarray(pd.isna(values), np.bool_)
    codes = np.full(len(values), MISSING, np.int64)
    classes, codes[~missing] = np.unique(values[~missing].astype(str), return_inverse=True)
    numbers = np.unique(keys.astype(str), return_inverse=True)[1].astype(np.int64)
    order = np.asarray(range(len(matrix)) if row_ids is None else row_ids, dtype=object)
    stored = StoredVectors([matrix], matrix.shape[1])
    engine = exact_engine(stored, lambda positions: order[positions])
    return _witnesses(engine, stored, tuple(classes.tolist()), codes, numbers, k).scores


def witnesses_of(gallery: Gallery, label: str, k: int = NEIGHBOURS, *, progress: Progress | None = None) -> Witnesses:
    """Return the witnesses of a gallery's rows; looked up when they are asked for first, then kept with the gallery.

    Up to `MOST_ROWS_AT_ONCE` rows are compared exactly; beyond that the gallery's own index is asked.

    Args:
        gallery: The gallery.
        label: The label column.
        k: How many neighbours are asked of each row.
        progress: Called with rows done and rows in all.

    Raises:
        QueryError: There is no such column, or it can't be judged: it holds no classes, or one, or of one woman only.
    """
    check_neighbours(k)
    known = _KNOWN.setdefault(gallery, {})
    if (label, k) not in known:
        classes, codes = _classes(gallery, label)
        women = gallery.women.astype(np.int64)
        if len(np.unique(codes[codes != MISSING])) < 2 or len(np.unique(women[codes != MISSING])) < 2:
            cause = "neighbours can only disagree where two women and two values of it are known"
            raise QueryError(f"typicality of {label}", cause, "name another label column")
        small = len(gallery) <= MOST_ROWS_AT_ONCE
        names: Names = gallery.names_of
        engine = exact_engine(gallery.vectors, names, device=gallery.device) if small else gallery.index
        known[label, k] = _witnesses(engine, gallery.vectors, classes, codes, women, k, progress)
    return known[label, k]


def is_judged(gallery: Gallery, label: str, k: int) -> bool:
    """Return whether `witnesses_of` would have nothing left to look up."""
    return (label, k) in _KNOWN.get(gallery, {})


_KNOWN: "weakref.WeakKeyDictionary[Gallery, dict[tuple[str, int], Witnesses]]" = weakref.WeakKeyDictionary()


def _classes(gallery: Gallery, label: str) -> tuple[tuple[str, ...], Positions]:
    """Return the classes of a column, and int64 (n,) which of them each row has, or refuse it."""
    if label not in gallery.table:
        names = ", ".join(gallery.table.names)
        raise QueryError("typicality", f"there is no column {label!r}", f"the columns are {names}")
    column = gallery.table.column(label)
    if column.kind == "number" and column.known:
        raise QueryError("typicality", f"{label} holds numbers, which are no classes", "name another column")
    codes = np.full(len(gallery), MISSING, np.int64)
    cells = column.cells[~column.missing] if column.codes is None else column.codes[~column.missing]
    values, codes[~column.missing] = np.unique(cells, return_inverse=True)
    if len(values) > MOST_CLASSES:
        raise QueryError("typicality", f"{label} has {len(values)} values, which are no classes", "name a label column")
    texts = values if column.codes is None else column.distinct[values]
    return tuple(str(text) for text in texts), codes


def _witnesses(
    engine: Engine,
    vectors: StoredVectors,
    classes: tuple[str, ...],
    codes: Positions,
    women: Positions,
    k: int,
    progress: Progress | None = None,
) -> Witnesses:
    groups = Groups(women)

    def search(rows: Positions, allowed: Mask) -> Positions:
        found = np.full((len(rows), k), -1, np.int64)
        for start in range(0, len(rows), _BATCH):
            part = rows[start : start + _BATCH]
            own = [groups.rows([woman]) for woman in women[part]]
            hits = nearest_in_groups(engine, vectors.take(part), k, groups, 1, allowed=allowed, barred=own)
            for line, each in enumerate(hits, start):
                found[line, : len(each.positions)] = each.positions
            if progress is not None:
                progress(start + len(part), len(rows))
        return found

    labelled = np.flatnonzero(codes != MISSING)
    rows = np.full((len(codes), k), -1, np.int64)
    rows[labelled] = search(labelled, codes != MISSING)
    return Witnesses(classes, codes, women, rows, search)


def _base_rates(codes: Positions, women: Positions, classes: int) -> Scores:
    """Return the share of the other women that carry each row's class, (n,); NaN where there is no other woman.

    A woman with several labelled rows counts once, divided among their classes: so a witness drawn at random would.
    """
    pairs, of_row, counts = np.unique(women * classes + codes, return_inverse=True, return_counts=True)
    shares = counts / np.bincount(women)[pairs // classes]
    # Rows of the same share are added in one fixed order: equal cases get equal scores.
    totals = np.bincount(pairs % classes, weights=shares, minlength=classes)
    others = len(np.unique(women)) - 1
    if not others:
        return np.full(len(codes), math.nan)
    return np.asarray(np.round((totals[codes] - shares[of_row]) / others, 12))


def check_neighbours(k: object) -> None:
    """Refuse what is no number of neighbours.

    Raises:
        QueryError: It is none.
    """
    if not isinstance(k, int | np.integer) or isinstance(k, bool) or k < 1:
        raise QueryError("typicality", f"{k!r} is not a number of neighbours", "ask 1 or more")
