"""Answers in the API's words: cases with what became of them, no name of a woman, no folder of the server."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from embedder.findings import LABEL_COLUMNS
from index.answers import Answer, Neighbour
from index.gallery import Gallery
from index.typicality import NEIGHBOURS, is_judged, witnesses_of
from viewer.catalogue import Catalogue, ImageEntry
from viewer.pictures import row_box, suggested_mm
from viewer.questionbody import TYPICAL_LABEL

if TYPE_CHECKING:
    from viewer.asking import Prepared

SHOWN_COLUMNS = (
    *("row_id", "dataset", "granularity", "laterality", "view", "age"),
    *LABEL_COLUMNS,
    *("spacing_mm", "image_rows", "image_columns", "x0", "y0", "x1", "y1"),
)
"""Columns of a record that a reader may see: none that names a woman, a file or an examination."""

_FACT_NAMES = {
    "pathology": "Outcome",
    "lesion_type": "Lesion",
    "density": "Density",
    "shape": "Shape",
    "margin": "Margin",
    "calcification_type": "Calcifications",
    "calcification_distribution": "Distribution",
    "assessment": "BI-RADS",
    "subtlety": "Subtlety",
    "view": "View",
    "laterality": "Side",
    "age": "Age",
    "dataset": "Data set",
    "tissue": "Tissue",
}


class AnswerTeller:
    """Puts answers of one gallery into the API's words.

    Args:
        gallery: The gallery.
        catalogue: The images that are here.
        version: Of mammoseek.
    """

    def __init__(self, gallery: Gallery, catalogue: Catalogue, version: str) -> None:
        self._gallery, self._catalogue = gallery, catalogue
        identity = gallery.identity
        self.replay = {
            "generation": gallery.generation,
            "model_digest": identity.model_digest,
            "preparation_digest": identity.preparation_digest,
            "segments_digest": gallery.manifest.segments_digest,
            "version": version,
        }
        """What it takes to get the same answer again."""

    def answer(self, question: "Prepared", answer: Answer) -> dict[str, Any]:
        """Return an answer, but for how long it took.

        Args:
            question: What was asked.
            answer: What the gallery says.
        """
        neighbours = answer.neighbours
        places = [self._place_of_query(question)]
        places += [(one.box, _shape(one.record), one.record.get("spacing_mm")) for one in neighbours]
        extent = suggested_mm(places)
        agreements: list[float | None] = [None] * len(neighbours)
        if answer.agreements is not None:
            agreements = [round(float(value), 6) for value in answer.agreements]
        scores = self._typicality(answer.positions)
        return {
            "question": question.plain,
            "question_id": question.question_id,
            "neighbours": [
                self._neighbour(one, extent, agreement, score)
                for one, agreement, score in zip(neighbours, agreements, scores, strict=True)
            ],
            "classes": None
            if answer.classes is None
            else [
                {"value": part.value, "neighbours": part.neighbours, "allowed_rows": part.allowed_rows}
                for part in answer.classes
            ],
            "closeness": {"no_close_precedent": answer.no_close_precedent, "sentence": closeness_sentence(answer)},
            "suggested_mm": extent,
            "allowed_rows": answer.allowed_rows,
            "excluded_rows": answer.excluded_rows,
            "notes": self._notes(question, answer),
            "replay": self.replay,
        }

    def row(self, position: int) -> dict[str, Any]:
        """Return what is known of a row of the gallery, and its other views."""
        record = self._gallery.record(position)
        entry = self._catalogue.of_row(position)
        return {
            "row": record["row_id"],
            "record": {name: record.get(name) for name in SHOWN_COLUMNS if name in record},
            "outcome": outcome_of(record),
            "woman": self._woman(position),
            "box": None if (box := row_box(self._gallery, position)) is None else list(box),
            "image": None if entry is None else entry.image,
            "has_picture": self._has_picture(entry, record["row_id"]),
            "other_views": self._other_views(position, record),
            "facts": [
                {"name": title, "value": _shown(record[name])}
                for name, title in _FACT_NAMES.items()
                if record.get(name) is not None
            ],
        }

    def _neighbour(
        self, one: Neighbour, extent: float | None, agreement: float | None, typicality: float | None
    ) -> dict[str, Any]:
        record, box = one.record, one.box
        spacing = record.get("spacing_mm")
        entry = self._catalogue.of_row(one.position)
        size = None if box is None or not spacing else max(box[2] - box[0], box[3] - box[1]) * spacing
        return {
            "row": one.row_id,
            "rank": one.rank,
            "similarity": round(one.similarity, 6),
            "outcome": outcome_of(record),
            "lesion_type": record.get("lesion_type"),
            "density": record.get("density"),
            "view": record.get("view"),
            "laterality": record.get("laterality"),
            "age": record.get("age"),
            "woman": self._woman(one.position),
            "dataset": record.get("dataset"),
            "size_mm": None if size is None else round(size, 1),
            "mm": extent if spacing else None,
            "box": None if box is None else list(box),
            "image": None if entry is None else entry.image,
            "has_picture": self._has_picture(entry, one.row_id),
            "agreement": agreement,
            "typicality": typicality,
        }

    def _has_picture(self, entry: ImageEntry | None, row_id: str) -> bool:
        return entry is not None or self._gallery.thumbnail(row_id) is not None

    def _woman(self, position: int) -> str:
        """Return what the page calls a woman of the gallery: the same in every answer of this generation."""
        return f"woman {int(self._gallery.women[position]) + 1}"

    def _place_of_query(
        self, question: "Prepared"
    ) -> tuple[tuple[int, int, int, int] | None, tuple[int, int] | None, float | None]:
        if question.row is not None:
            position = int(self._gallery.table.find("row_id", question.row)[0])
            record = self._gallery.record(position)
            return row_box(self._gallery, position), _shape(record), record.get("spacing_mm")
        view = question.views[0]
        details = view.entry.details
        if details is None:
            return view.box, None, None
        return view.box, (details.header.rows, details.header.columns), details.spacing_mm

    def _other_views(self, position: int, record: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return rows of the woman that may show the same finding: of the same breast, one on each other image.

        Rows of the same lesion come before rows of which it isn't known.
        """
        best: dict[tuple[Any, Any], tuple[bool, int]] = {}
        records: dict[int, dict[str, Any]] = {}
        for other in self._gallery.rows_of([int(self._gallery.women[position])]).tolist():
            known = records[other] = self._gallery.record(other)
            same = all(
                known.get(name) == record.get(name) or None in (known.get(name), record.get(name))
                for name in ("laterality", "study_id", "lesion_id", "tissue")
            )
            if not same or _image_of(known) == _image_of(record):
                continue
            linked = known.get("lesion_id") is not None and known["lesion_id"] == record.get("lesion_id")
            place = not linked, other
            best[_image_of(known)] = min(place, best.get(_image_of(known), place))
        views = []
        for _, other in sorted(best.values()):
            entry, known = self._catalogue.of_row(other), records[other]
            views.append(
                {
                    "row": known["row_id"],
                    "view": known.get("view"),
                    "laterality": known.get("laterality"),
                    "image": None if entry is None else entry.image,
                }
            )
        return views

    def _typicality(self, positions: Any) -> list[float | None]:
        if not is_judged(self._gallery, TYPICAL_LABEL, NEIGHBOURS):
            return [None] * len(positions)
        scores = witnesses_of(self._gallery, TYPICAL_LABEL).scores[positions]
        return [None if np.isnan(score) else round(float(score), 4) for score in scores]

    def _notes(self, question: "Prepared", answer: Answer) -> list[str]:
        # The page says how close the precedents are in its own place, and no note names a woman of the gallery.
        near = None if answer.closeness is None else answer.closeness.note
        notes = [note for note in answer.notes if note != near]
        return list(dict.fromkeys([*question.notes, *notes]))


def outcome_of(record: Mapping[str, Any]) -> str:
    """Return what became of a case: its pathology, `normal` of a place of normal tissue, else `unknown`."""
    return record.get("pathology") or ("normal" if record.get("tissue") == "normal" else "unknown")


def closeness_sentence(answer: Answer) -> str:
    """Return in words how close the nearest precedent is."""
    near = answer.closeness
    if near is None:
        return ""
    if near.note is not None or near.best is None or near.percentile is None:
        return near.note or ""
    return (
        f"close precedents: the nearest of these findings has the similarity {near.best:.3f}; "
        f"{near.percentile:.0f} % of the gallery's women have none that is closer among the others"
    )


def _image_of(record: Mapping[str, Any]) -> tuple[Any, Any]:
    return record.get("path"), record.get("frame")


def _shape(record: Mapping[str, Any]) -> tuple[int, int] | None:
    rows, columns = record.get("image_rows"), record.get("image_columns")
    return None if rows is None or columns is None else (int(rows), int(columns))


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)
