"""What a curator sees of the collection: what it holds, how it scores, whether queries drift, and rows to look at."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from index.gallery import Gallery
from index.precedents import precedents_of
from index.typicality import NEIGHBOURS, is_judged, witnesses_of
from viewer.questionbody import TYPICAL_LABEL
from viewer.telling import outcome_of

SCORECARD_FILES = ("scorecard.json", "benchmark.json")
"""Names of a scorecard that is looked for in the gallery's folder and in the server's own."""

ALIKE = 0.995
"""Cosine from which rows of two women may be one image: two different findings are hardly ever so close."""

_LABELS = ("pathology", "lesion_type", "density", "view", "laterality", "dataset", "assessment")
_MOST_LISTED = 50
_MOST_COMPARED = 20_000  # rows that are compared with all others at a request
_DOUBTFUL = 0.3
_BATCH = 256
_LARGEST_SCORECARD = 8 << 20


@dataclass(frozen=True)
class AskedQuery:
    """A question on record.

    Attributes:
        time: ISO 8601 UTC.
        best: The similarity of its first neighbour; None where none answered.
        no_close_precedent: Whether none was close; None where that was not known.
        question_id: Names the question.
    """

    time: str
    best: float | None
    no_close_precedent: bool | None
    question_id: str


def counts(gallery: Gallery) -> dict[str, dict[str, dict[str, int]]]:
    """Return how many rows and women have each value of each label column, unknown ones as `unknown`."""
    found: dict[str, dict[str, dict[str, int]]] = {}
    for name in _LABELS:
        if name not in gallery.table:
            continue
        column = gallery.table.column(name)
        if column.codes is None:
            continue
        values = {}
        for code in np.unique(column.codes).tolist():
            rows = column.codes == code
            value = "unknown" if code < 0 else str(column.cells[code].as_py())
            values[value] = {"rows": int(rows.sum()), "women": len(np.unique(gallery.women[rows]))}
        found[name] = dict(sorted(values.items(), key=lambda one: (-one[1]["rows"], one[0])))
    return found


def find_scorecard(folders: Iterable[Path]) -> dict[str, Any] | None:
    """Return the scorecard that lies in one of some folders, as it was written; None where there is none.

    Args:
        folders: Where to look, in this order.
    """
    for folder in folders:
        for name in SCORECARD_FILES:
            try:
                path = folder / name
                if not path.is_file() or path.stat().st_size > _LARGEST_SCORECARD:
                    continue
                content = json.loads(path.read_bytes())
            except (OSError, ValueError, RecursionError):
                continue
            if isinstance(content, dict):
                return {"file": name, "content": content}
    return None


def drift(gallery: Gallery, asked: Iterable[AskedQuery], month: str) -> dict[str, Any]:
    """Compare how near this month's queries come with how near the gallery's women come to each other.

    A question that was asked again counts once a month: steering asks the same place many times.

    Args:
        gallery: The gallery.
        asked: The questions on record, oldest first.
        month: This month, YYYY-MM.
    """
    by_month: dict[str, dict[str, AskedQuery]] = {}
    for one in asked:
        by_month.setdefault(one.time[:7], {})[one.question_id] = one
    sample = precedents_of(gallery)
    months = []
    for name, questions in sorted(by_month.items()):
        best = [one.best for one in questions.values() if one.best is not None]
        told = [one.no_close_precedent for one in questions.values() if one.no_close_precedent is not None]
        months.append(
            {
                "month": name,
                "queries": len(questions),
                "median": round(median(best), 4) if best else None,
                "share_without_precedent": round(sum(told) / len(told), 4) if told else None,
            }
        )
    this = next((one for one in months if one["month"] == month), None)
    own = None
    if sample is not None:
        low, middle, high = np.percentile(sample.similarities, (25, 50, 75))
        own = {
            "women": len(sample.similarities),
            "median": round(float(middle), 4),
            "quartiles": [round(float(low), 4), round(float(high), 4)],
        }
    return {
        "this_month": {"n": 0 if this is None else this["queries"], "median": None if this is None else this["median"]},
        "gallery": own,
        "months": months,
    }


def doubtful_rows(gallery: Gallery, most: int = _MOST_LISTED) -> list[dict[str, Any]] | None:
    """Return the rows whose neighbours contradict their outcome most; None where that is not known yet.

    Args:
        gallery: The gallery.
        most: How many at most.
    """
    if not is_judged(gallery, TYPICAL_LABEL, NEIGHBOURS):
        return None
    witnesses = witnesses_of(gallery, TYPICAL_LABEL)
    scores = witnesses.scores
    below = np.flatnonzero(scores < _DOUBTFUL)  # NaN is not below
    order = below[np.lexsort((gallery.names_of(below).astype(str), scores[below]))][:most]
    return [
        {
            "row": gallery.row_id(row),
            "label": witnesses.classes[witnesses.codes[row]],
            "typicality": round(float(scores[row]), 4),
            "neighbours": witnesses.votes(row),
        }
        for row in order.tolist()
    ]


@dataclass(frozen=True, eq=False)
class NearestOthers:
    """The nearest row of another woman, of each row.

    Attributes:
        positions: int64 (n,); -1 where there is none.
        similarities: float32 (n,); -inf where there is none.
    """

    positions: npt.NDArray[np.int64]
    similarities: npt.NDArray[np.float32]


def nearest_others(gallery: Gallery) -> NearestOthers | None:
    """Look each row's nearest other woman up; None where the gallery is too large to be compared at a request."""
    if len(gallery) > _MOST_COMPARED:
        return None
    positions, similarities = [], []
    for start in range(0, len(gallery), _BATCH):
        rows = np.arange(start, min(start + _BATCH, len(gallery)))
        own = [gallery.rows_of([int(gallery.women[row])]) for row in rows]
        hits = gallery.index.search(gallery.vectors.take(rows), 1, barred=own)
        positions.append(hits.positions[:, 0])
        similarities.append(hits.similarities[:, 0])
    return NearestOthers(np.concatenate(positions), np.concatenate(similarities))


def near_duplicates(gallery: Gallery, nearest: NearestOthers, most: int = _MOST_LISTED) -> list[dict[str, Any]]:
    """Return pairs of rows of two women that are as alike as one image is to itself.

    By vectors alone, which takes seconds; `embedder.duplicates` compares the pixels.

    Args:
        gallery: The gallery.
        nearest: Of each row.
        most: How many pairs at most, the most alike first.
    """
    found: dict[tuple[int, int], float] = {}
    for row in np.flatnonzero(nearest.similarities >= ALIKE).tolist():
        other = int(nearest.positions[row])
        found[min(row, other), max(row, other)] = float(nearest.similarities[row])
    pairs = sorted(found.items(), key=lambda one: (-one[1], one[0]))[:most]
    return [
        {"row": gallery.row_id(first), "other": gallery.row_id(second), "similarity": round(similarity, 5)}
        for (first, second), similarity in pairs
    ]


def atypical_rows(gallery: Gallery, nearest: NearestOthers, most: int = _MOST_LISTED) -> list[dict[str, Any]]:
    """Return the rows that are farthest from every other woman's: rare cases, bad crops, or of another source.

    Args:
        gallery: The gallery.
        nearest: Of each row.
        most: How many at most, the farthest first.
    """
    known = np.flatnonzero(nearest.positions >= 0)
    order = known[np.argsort(nearest.similarities[known], kind="stable")][:most]
    return [
        {
            "row": gallery.row_id(row),
            "similarity": round(float(nearest.similarities[row]), 4),
            "outcome": outcome_of(gallery.record(row)),
        }
        for row in order.tolist()
    ]


def curate(gallery: Gallery) -> dict[str, Any]:
    """Return the rows that a curator should look at; None in place of a part that can't be said, or not yet."""
    if not len(gallery):
        return {"doubtful": [], "duplicates": [], "atypical": []}
    nearest = nearest_others(gallery)
    return {
        "doubtful": doubtful_rows(gallery),
        "duplicates": None if nearest is None else near_duplicates(gallery, nearest),
        "atypical": None if nearest is None else atypical_rows(gallery, nearest),
    }


def asked_of(time: str, entry: Mapping[str, Any]) -> AskedQuery:
    """Return a question from an entry of the audit log."""
    similarities = entry.get("similarities") or [None]
    return AskedQuery(time, similarities[0], entry.get("no_close_precedent"), str(entry.get("question_id")))
