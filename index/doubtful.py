"""The rows of a gallery whose neighbours contradict their label, most doubtful first, for a curator to look at."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from index import GalleryError, QueryError
from index.gallery import Gallery
from index.milvus.address import is_milvus_address
from index.typicality import MISSING, NEIGHBOURS, Progress, witnesses_of


@dataclass(frozen=True)
class JudgedRow:
    """A row, and what its neighbours say.

    Attributes:
        row_id: The row.
        dataset: Its woman's data set.
        patient_id: Its woman.
        label: Its label.
        typicality: 0 to 1; 0.5 is chance.
        neighbours: How many of its nearest rows, one of each other woman, carry each label; the most frequent first.
    """

    row_id: str
    dataset: str
    patient_id: str
    label: str
    typicality: float
    neighbours: Mapping[str, int]


@dataclass(frozen=True)
class Judgement:
    """What the rows of a gallery say of each other's labels.

    Attributes:
        column: The label column.
        context: What the scores were computed in: rows, women, granularity, data sets, generation, digests.
        judged: How many rows have a score.
        unknown: How many have none: their label is missing, or no other woman could contradict or share it.
        below: Only rows with a smaller score are named; None for all.
        rows: The rows, most doubtful first, equal ones by row id.
    """

    column: str
    context: Mapping[str, Any]
    judged: int
    unknown: int
    below: float | None
    rows: tuple[JudgedRow, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return {**asdict(self), "context": dict(self.context), "rows": [asdict(row) for row in self.rows]}


def judge_rows(
    place: Path | str,
    column: str,
    *,
    below: float | None = None,
    neighbours: int = NEIGHBOURS,
    progress: Progress | None = None,
) -> Judgement:
    """Score how typical each row of a gallery is of its label, see `index.typicality`.

    Args:
        place: Folder of the gallery.
        column: The label column.
        below: Name only rows with a smaller score; None for all.
        neighbours: How many neighbours are asked of each row.
        progress: Called with rows done and rows in all.

    Raises:
        GalleryError: There is no gallery, it is damaged, or it is on Milvus.
        QueryError: The column can't be judged, or a number is none.
    """
    if below is not None and not 0 < below <= 1:  # NaN included
        raise QueryError("below", f"{below!r} is no score", "give a number above 0, at most 1; 0.5 is chance")
    if is_milvus_address(str(place)):
        raise GalleryError(
            place,
            "typicality is computed from all of a gallery's vectors, and Milvus gives them one by one",
            "copy it to a folder by `mammoseek index copy`",
        )
    gallery = Gallery.open(Path(place))
    if not len(gallery):
        raise GalleryError(place, "is empty, so there is nothing to judge", "add rows by `mammoseek index add`")
    witnesses = witnesses_of(gallery, column, neighbours, progress=progress)
    scores, names = witnesses.scores, gallery.row_ids.astype(str)
    known = ~np.isnan(scores)
    named = np.flatnonzero(known if below is None else scores < below)  # NaN is not below
    named = named[np.lexsort((names[named], scores[named]))]
    rows = tuple(
        JudgedRow(
            names[row].item(),
            gallery.table.cell("dataset", row),
            gallery.table.cell("patient_id", row),
            witnesses.classes[witnesses.codes[row]],
            float(scores[row]),
            witnesses.votes(row),
        )
        for row in named.tolist()
    )
    labelled = witnesses.codes != MISSING
    context = {
        "gallery_generation": gallery.generation,
        "segments_digest": gallery.manifest.segments_digest,
        "model_digest": gallery.identity.model_digest,
        "granularity": gallery.identity.granularity,
        "datasets": gallery.datasets,
        "rows": len(gallery),
        "labelled_rows": int(labelled.sum()),
        "labelled_women": len(np.unique(witnesses.women[labelled])),
        "neighbours": int(neighbours),
    }
    judged = int(known.sum())
    return Judgement(column, context, judged, len(gallery) - judged, below, rows)
