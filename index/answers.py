"""What a gallery answers, as plain values that can be kept and compared."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from index.conditions import Literal
from index.precedents import Closeness
from index.questions import LARGEST_RANGE, Box, Question, View

__all__ = ["LARGEST_RANGE", "Answer", "Box", "ClassCount", "Neighbour", "Question", "View"]


@dataclass(frozen=True)
class Neighbour:
    """One gallery row that answers.

    Attributes:
        rank: 1 for the nearest.
        position: Where the row stands in the gallery.
        similarity: Cosine to the query, -1 to 1.
        record: All that is known of it; None where unknown.
    """

    rank: int
    position: int
    similarity: float
    record: dict[str, Any]

    @property
    def row_id(self) -> str:
        """The row's name."""
        return str(self.record["row_id"])

    @property
    def patient_id(self) -> str:
        """Its woman, within her data set."""
        return str(self.record["patient_id"])

    @property
    def path(self) -> str | None:
        """Its image."""
        return self.record.get("path")

    @property
    def box(self) -> Box | None:
        """Its place on the image; None where it is the whole breast."""
        corners = [self.record.get(name) for name in ("x0", "y0", "x1", "y1")]
        if any(corner is None for corner in corners):
            return None
        x0, y0, x1, y1 = (int(corner) for corner in corners if corner is not None)
        return x0, y0, x1, y1

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        box = self.box
        return {
            **self.record,
            "path": self.path,
            "rank": self.rank,
            "similarity": self.similarity,
            "box": None if box is None else list(box),
        }


@dataclass(frozen=True)
class ClassCount:
    """How many rows of one class answer, and how many could."""

    value: Literal
    neighbours: int
    allowed_rows: int


@dataclass(frozen=True, eq=False)
class Answer:
    """What a gallery says.

    Attributes:
        question: What was asked.
        positions: int64 (m,) where the neighbours stand in the gallery, best first; class after class where the
            question has classes.
        similarities: float32 (m,) the neighbours' cosine to the query, or what the cosines to its views are fused to.
        record_of: Returns all that is known of a row.
        excluded_patient: The woman who was kept from herself; None where she is unknown, or allowed.
        excluded_dataset: Her data set; None where her id was left out of every data set.
        excluded_rows: How many rows were left out as hers.
        allowed_rows: How many rows could have answered.
        notes: What a reader should know.
        replay: What it takes to ask the same again.
        classes: How the neighbours divide into the classes that were asked for; None where none were.
        preferred: The value that each facet preferred; None where the query's own is not known.
        agreements: float64 (m,) what the facets added to each similarity: neighbours are in the order of the sum. None
            without facets.
        closeness: How close the nearest precedent is; None where nothing is said of it.
        atypical_rows: How many rows could have answered but for what their neighbours say of their label; None where
            that was not asked.
    """

    question: Question
    positions: npt.NDArray[np.int64]
    similarities: npt.NDArray[np.float32]
    record_of: Callable[[int], dict[str, Any]]
    excluded_patient: str | None
    excluded_dataset: str | None
    excluded_rows: int
    allowed_rows: int
    notes: tuple[str, ...]
    replay: dict[str, Any]
    classes: tuple[ClassCount, ...] | None = None
    preferred: tuple[Literal | None, ...] = ()
    agreements: npt.NDArray[np.float64] | None = None
    closeness: Closeness | None = None
    atypical_rows: int | None = None

    @cached_property
    def neighbours(self) -> tuple[Neighbour, ...]:
        """The nearest rows, best first. Their records are looked up when they are asked for first.

        Where the question has classes the ranks begin anew with each of them.
        """
        counts = [len(self.positions)] if self.classes is None else [part.neighbours for part in self.classes]
        ranks = [rank for count in counts for rank in range(1, count + 1)]
        return tuple(
            Neighbour(rank, int(position), float(similarity), self.record_of(int(position)))
            for rank, position, similarity in zip(ranks, self.positions, self.similarities, strict=True)
        )

    @property
    def no_close_precedent(self) -> bool | None:
        """Whether the nearest neighbours are too far to be called similar; None where it is not known."""
        return None if self.closeness is None else self.closeness.no_close_precedent

    def to_dict(self) -> dict[str, Any]:
        """Return the answer as plain values for JSON; the same question gives the same bytes."""
        return {
            "query": self.question.to_dict(),
            "neighbours": [neighbour.to_dict() for neighbour in self.neighbours],
            "classes": None
            if self.classes is None
            else [
                {"value": part.value, "neighbours": part.neighbours, "allowed_rows": part.allowed_rows}
                for part in self.classes
            ],
            "facets": None
            if self.agreements is None
            else {
                "preferred": [
                    {**facet.to_dict(), "value": value}
                    for facet, value in zip(self.question.facets, self.preferred, strict=True)
                ],
                "agreements": self.agreements.tolist(),
            },
            "closeness": None if self.closeness is None else self.closeness.to_dict(),
            "no_close_precedent": self.no_close_precedent,
            "excluded_patient": self.excluded_patient,
            "excluded_dataset": self.excluded_dataset,
            "excluded_rows": self.excluded_rows,
            "allowed_rows": self.allowed_rows,
            "atypical_rows": self.atypical_rows,
            "notes": list(self.notes),
            "replay": self.replay,
        }
