"""Keeping rows from answering whose neighbours contradict their label, see `index.typicality`.

More is not better. Held out are first the rows of classes that do not lie together, such as malignant findings among
benign ones, and who asks with one of these then finds fewer of them (`benchmarks/results/typicality.csv`, by class). So
unless asked otherwise only those rows are held out whose neighbours contradict them clearly.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from index import QueryError
from index.gallery import Gallery
from index.nearest import Mask
from index.typicality import CHANCE, MOST_ROWS_AT_ONCE, NEIGHBOURS, check_neighbours, is_judged, witnesses_of
from index.vectors import Positions

LEAST = 0.3
"""The smallest typicality that answers unless another is asked for: odds of 7 to 3 against the label. It was chosen
by the benchmark's table: of its thresholds, the highest at which no class's precision@10 is shown to fall by more than
0.01."""


@dataclass(frozen=True)
class Typical:
    """Which rows are typical enough of their label to answer. Rows without a score are not held out.

    Attributes:
        label: The label column.
        least: The smallest score, above 0 and at most 1.
        neighbours: How many neighbours are asked of each row.
    """

    label: str
    least: float = LEAST
    neighbours: int = NEIGHBOURS

    @classmethod
    def parse(cls, text: str) -> "Typical":
        """Read a label column, with a smallest score after a colon.

        Raises:
            QueryError: There is no column in it, or what follows the colon is no score.

        >>> Typical.parse("pathology"), Typical.parse("density:0.7").least
        (Typical(label='pathology', least=0.3, neighbours=10), 0.7)
        """
        name, colon, score = (part.strip() for part in text.partition(":"))
        try:
            found = cls(name, float(score)) if colon else cls(name)
        except ValueError:
            raise QueryError("typicality", f"{score!r} is no score", "write it as in `pathology:0.5`") from None
        found.check()
        return found

    def check(self) -> None:
        """Refuse what can be seen to be wrong before a gallery is asked.

        Raises:
            QueryError: Something is.
        """
        if not isinstance(self.label, str) or not self.label:
            raise QueryError("typicality", "no label column is named", "write it as in `pathology` or `pathology:0.5`")
        number = isinstance(self.least, int | float | np.integer | np.floating) and not isinstance(self.least, bool)
        if not number or not 0 < self.least <= 1:
            raise QueryError("typicality", f"{self.least!r} is no smallest score", "give a number above 0, at most 1")
        check_neighbours(self.neighbours)

    def note(self, rows: int) -> str:
        """Return what a reader of an answer must know of it.

        Args:
            rows: How many rows were held out.
        """
        return (
            f"{rows} rows were held out as atypical: fewer of their {self.neighbours} nearest women share their "
            f"{self.label} than a typicality of {self.least:g} takes ({CHANCE:g} is chance)"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return {"label": self.label, "least": float(self.least), "neighbours": int(self.neighbours)}


class TypicalRows:
    """The rows of a gallery that are typical enough to answer.

    Args:
        gallery: The gallery.
        typical: What is enough.

    Raises:
        QueryError: The column can't be judged, see `witnesses_of`, or the gallery is too large to judge it now.
    """

    def __init__(self, gallery: Gallery, typical: Typical) -> None:
        key = typical.label, typical.neighbours
        if len(gallery) > MOST_ROWS_AT_ONCE and not is_judged(gallery, *key):
            raise QueryError(
                f"typicality of {typical.label}",
                f"a question judges up to {MOST_ROWS_AT_ONCE} rows, and the gallery has {len(gallery)}",
                "ask without it; or, from Python, call index.typicality.witnesses_of once, which serves all questions"
                " to the open gallery",
            )
        self._witnesses = witnesses_of(gallery, *key)
        self._least = typical.least

    def divide(self, left_out: Sequence[Positions]) -> tuple[Mask, list[Positions]]:
        """Return which rows may answer some queries.

        Args:
            left_out: For each query the rows of its own woman: she is no witness.

        Returns:
            bool (n,), the rows that are typical for any of the queries; and for each query the few among them that are
            not typical for it.
        """
        base = self._mask(np.empty(0, np.int64))
        changes: dict[bytes, Positions] = {}
        for rows in left_out:
            if rows.tobytes() not in changes:
                changes[rows.tobytes()] = np.flatnonzero(self._mask(rows) != base)
        union = base.copy()
        for changed in changes.values():
            union[changed] = True
        barred = {}
        for key, changed in changes.items():
            own = base.copy()
            own[changed] = ~own[changed]
            barred[key] = np.flatnonzero(union & ~own)
        return union, [barred[rows.tobytes()] for rows in left_out]

    def _mask(self, rows: Positions) -> Mask:
        return ~(self._witnesses.without(rows).scores < self._least)  # NaN is not below
