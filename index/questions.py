"""What is asked of a gallery, as plain values that can be kept and asked again."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from index import QueryError
from index.facets import Facet
from index.grouping import GROUPS, PerClass
from index.ranking import FUSIONS, Fusion
from index.refinement import Refinement
from index.typicalrows import Typical

Box = tuple[int, int, int, int]

LARGEST_RANGE = 10_000
"""Neighbours that come back where all that are similar enough are asked for."""


@dataclass(frozen=True)
class View:
    """One picture of what is asked about: a place on an image, a whole breast image, or a row of the gallery.

    Attributes:
        path: The image.
        box: The place on it, x0, y0, x1, y1 in pixels of the stored image, half-open; None for the whole breast.
        row_id: The gallery's row.
        spacing_mm: Millimetres per pixel, where the file does not say.
        view: The view, where the file does not say.
    """

    path: str | None = None
    box: Iterable[int] | None = None
    row_id: str | None = None
    spacing_mm: float | None = None
    view: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return {
            "path": self.path,
            "box": None if self.box is None else [int(corner) for corner in self.box],
            "row_id": self.row_id,
            "spacing_mm": self.spacing_mm,
            "view": self.view,
        }


@dataclass(frozen=True)
class Question:
    """What is asked.

    Attributes:
        k: How many neighbours; None for all that reach `minimum`, at most `LARGEST_RANGE`.
        where: Which rows may answer, see `index.filters`; None for all.
        include_same_patient: Whether the query's own woman may answer.
        path: The query's image, where it has one.
        box: The place on it, x0, y0, x1, y1 in pixels of the stored image, half-open.
        row_id: The gallery's row that is the query.
        patient: The query's woman; None where unknown.
        dataset: Her data set; None where unknown, and then her id counts in every data set.
        spacing_mm: Millimetres per pixel, where the asker said so.
        view: The view, where the asker said so.
        minimum: The smallest similarity of a neighbour; None for any.
        group_by: What neighbours are grouped by: woman, study or lesion, see `index.grouping`.
        per_group: At most so many neighbours of one group; 0 for any number.
        per_class: Ask for k neighbours of each class; None for no classes.
        facets: What is preferred but not required, see `index.facets`.
        refinement: Examples that move the query, see `index.refinement`.
        fusion: How the similarities to several views of the query become one: their mean, or the largest.
        further_views: The views of the query beyond the first.
        least_percentile: Below this percentile of the gallery's own precedents none is close, see `index.precedents`.
        typical: Keep rows from answering whose neighbours contradict their label, see `index.typicality`; None for no
            such judgement.
    """

    k: int | None = 10
    where: str | None = None
    include_same_patient: bool = False
    path: str | None = None
    box: Box | None = None
    row_id: str | None = None
    patient: str | None = None
    dataset: str | None = None
    spacing_mm: float | None = None
    view: str | None = None
    minimum: float | None = None
    group_by: str = "woman"
    per_group: int = 1
    per_class: PerClass | None = None
    facets: tuple[Facet, ...] = ()
    refinement: Refinement | None = None
    fusion: Fusion = "mean"
    further_views: tuple[View, ...] = ()
    least_percentile: float = 5.0
    typical: Typical | None = None

    def check(self) -> None:
        """Refuse what can be seen to be wrong before a gallery is asked.

        Raises:
            QueryError: Something is.
        """
        if self.k is None:
            if self.minimum is None:
                raise QueryError("k", "all neighbours are asked for, however far", "name a minimum similarity, or k")
        elif not _is_whole(self.k) or self.k < 1:
            raise QueryError("k", f"{self.k!r} is not a number of neighbours", "ask for 1 or more")
        if not _is_whole(self.per_group) or self.per_group < 0:
            raise QueryError(
                f"rows per {self.group_by}", f"{self.per_group!r} is not a number of rows", "give 1 or more, 0 for any"
            )
        if self.group_by not in GROUPS:
            raise QueryError("grouping", f"{self.group_by!r} is not one of {', '.join(GROUPS)}", "name one of them")
        if self.fusion not in FUSIONS:
            raise QueryError("fusion", f"{self.fusion!r} is not one of {', '.join(FUSIONS)}", "name one of them")
        if self.minimum is not None and not _lies(self.minimum, -1, 1):
            raise QueryError("minimum similarity", f"{self.minimum!r} is none", "give a number from -1 to 1")
        if not _lies(self.least_percentile, 0, 100):
            raise QueryError("percentile", f"{self.least_percentile!r} is none", "give a number from 0 to 100")
        if self.refinement is not None:
            self.refinement.check()
        if self.typical is not None:
            self.typical.check()

    @property
    def terms(self) -> dict[str, Any]:
        """How the answer is to be found, as plain values for JSON."""
        return {
            "k": None if self.k is None else int(self.k),
            "where": self.where,
            "include_same_patient": self.include_same_patient,
            "minimum": None if self.minimum is None else float(self.minimum),
            "group_by": self.group_by,
            "per_group": int(self.per_group),
            "per_class": None if self.per_class is None else self.per_class.to_dict(),
            "facets": [facet.to_dict() for facet in self.facets],
            "refinement": None if self.refinement is None else self.refinement.to_dict(),
            "fusion": self.fusion,
            "least_percentile": float(self.least_percentile),
            "typical": None if self.typical is None else self.typical.to_dict(),
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the question as plain values for JSON."""
        return {
            **self.terms,
            "path": self.path,
            "box": None if self.box is None else list(self.box),
            "row_id": self.row_id,
            "patient": self.patient,
            "dataset": self.dataset,
            "spacing_mm": self.spacing_mm,
            "view": self.view,
            "further_views": [view.to_dict() for view in self.further_views],
        }


def _is_whole(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _lies(value: object, low: float, high: float) -> bool:
    number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    return number and math.isfinite(value) and low <= value <= high  # type: ignore[arg-type, operator]
