"""What is asked of a gallery and what it answers, as plain values that can be kept and asked again."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Question:
    """What is asked.

    Attributes:
        k: How many neighbours.
        where: Which rows may answer, see `index.filters`; None for all.
        include_same_patient: Whether the query's own woman may answer.
        path: The query's image, where it has one.
        box: The place on it, x0, y0, x1, y1 in pixels of the stored image, half-open.
        row_id: The gallery's row that is the query.
        patient: The query's woman; None where unknown.
        dataset: Her data set; None where unknown, and then her id counts in every data set.
        spacing_mm: Millimetres per pixel, where the asker said so.
        view: The view, where the asker said so.
    """

    k: int = 10
    where: str | None = None
    include_same_patient: bool = False
    path: str | None = None
    box: Box | None = None
    row_id: str | None = None
    patient: str | None = None
    dataset: str | None = None
    spacing_mm: float | None = None
    view: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the question as plain values for JSON."""
        return {
            "k": int(self.k),
            "where": self.where,
            "include_same_patient": self.include_same_patient,
            "path": self.path,
            "box": None if self.box is None else list(self.box),
            "row_id": self.row_id,
            "patient": self.patient,
            "dataset": self.dataset,
            "spacing_mm": self.spacing_mm,
            "view": self.view,
        }


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
class Answer:
    """What a gallery says.

    Attributes:
        question: What was asked.
        neighbours: The nearest rows, best first.
        excluded_patient: The woman who was kept from herself; None where she is unknown, or allowed.
        excluded_dataset: Her data set; None where her id was left out of every data set.
        excluded_rows: How many rows were left out as hers.
        allowed_rows: How many rows could have answered.
        notes: What a reader should know.
        replay: What it takes to ask the same again.
    """

    question: Question
    neighbours: tuple[Neighbour, ...]
    excluded_patient: str | None
    excluded_dataset: str | None
    excluded_rows: int
    allowed_rows: int
    notes: tuple[str, ...]
    replay: dict[str, Any]

    @property
    def positions(self) -> npt.NDArray[np.int64]:
        """Where the neighbours stand in the gallery, best first."""
        return np.array([neighbour.position for neighbour in self.neighbours], np.int64)

    @property
    def similarities(self) -> npt.NDArray[np.float32]:
        """The neighbours' cosine to the query, best first."""
        return np.array([neighbour.similarity for neighbour in self.neighbours], np.float32)

    def to_dict(self) -> dict[str, Any]:
        """Return the answer as plain values for JSON; the same question gives the same bytes."""
        return {
            "query": self.question.to_dict(),
            "neighbours": [neighbour.to_dict() for neighbour in self.neighbours],
            "excluded_patient": self.excluded_patient,
            "excluded_dataset": self.excluded_dataset,
            "excluded_rows": self.excluded_rows,
            "allowed_rows": self.allowed_rows,
            "notes": list(self.notes),
            "replay": self.replay,
        }
