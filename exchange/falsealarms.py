"""The false alarms of our own search, as normal tissue that a model is trained on, or a gallery built from, next.

Normal tissue that is drawn at random is rarely what a search stumbles over. What it marks on the training women where
nothing is has to be known as normal, and the search begun anew (bootstrapping: Sung and Poggio, IEEE PAMI 20, 1998;
hard negative mining: Felzenszwalb et al., IEEE PAMI 32, 2010). `classifiers.mining` looks at places that are drawn like
lesions; this looks where `exchange.detecting` does, everywhere.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from classifiers.cases import Source
from classifiers.folds import patient_folds
from classifiers.mining import number_rows, training_women
from embedder.findings import Box, patient_key
from embedder.normaltissue import label_tissue, normal_rows, overlap, with_rows
from embedder.rois import row_box
from embedder.tissuemap import normal_is_known
from errors import MammoseekError
from exchange import ExchangeError
from exchange.detecting import DetectConfig, Detector, box_of
from exchange.tissuejudge import LESION, NORMAL
from index.vectors import Positions

FOLDS = 5
"""Parts of the women: each part's films are searched with what is known of the others."""


@dataclass(frozen=True, eq=False)
class FalseAlarms:
    """A manifest with false alarms.

    Attributes:
        frame: The manifest's rows as they were, then the new ones, normal tissue.
        added: How many are new.
        images: Images that they are on.
        searched: Images that were searched.
        women: Women whose images these are.
        failures: Path and message of images that can't be searched.
    """

    frame: pd.DataFrame
    added: int
    images: int
    searched: int
    women: int
    failures: list[tuple[str, str]]

    def to_dict(self) -> dict[str, Any]:
        """Return the counts as plain JSON values."""
        counts = {name: getattr(self, name) for name in ("added", "images", "searched", "women")}
        return {"rows": len(self.frame), **counts, "failures": [list(failure) for failure in self.failures]}


def add_false_alarms(
    frame: pd.DataFrame,
    gallery: Path,
    *,
    per_image: int = 5,
    minimum: float = 0.5,
    seed: int = 0,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> FalseAlarms:
    """Search the images of the training women, and add what is found where nothing is.

    Only images whose normal tissue is known are searched, see `embedder.tissuemap.normal_is_known`; what touches a mark
    is left out. A woman's images are searched with what is known of others: the women are taken in parts, and a part's
    rows do not count while its images are searched. Test and validation women are left alone.

    Args:
        frame: A manifest with absolute paths; rows of whole breasts say what is known of them.
        gallery: A gallery of lesions and normal tissue of these women.
        per_image: Places to add on an image, at most; those that are most like lesions.
        minimum: The least score.
        seed: Of the parts.
        device: Where to compute.
        progress: Called with images searched and images in all.

    Raises:
        ExchangeError: An option is out of its range, there are no images to search, or the gallery can't be used.
        MammoseekError: The gallery or its model can't be read.
    """
    config = DetectConfig(most=per_image, minimum=minimum, looks=max(per_image, DetectConfig.looks))
    detector = Detector(gallery, device=device, config=config)
    frame = frame.assign(tissue=label_tissue(frame))
    keys = patient_key(frame)
    women = training_women(frame, detector.embedder.card)
    groups = {str(path): rows for path, rows in frame[keys.isin(women)].groupby("path", sort=True)}
    films = {path: rows for path, rows in groups.items() if normal_is_known(rows)}
    if not films:
        raise ExchangeError(
            "manifest",
            "has no image of a training woman whose normal tissue is known",
            "use the manifest that `mammoseek dataset read` wrote, with its rows of whole breasts",
        )
    owners = {path: str(patient_key(rows).iloc[0]) for path, rows in films.items()}
    part_of = _parts(sorted(set(owners.values())), seed)
    held = [part_of.get(str(key), -1) for key in detector.gallery.patient_keys]
    barred = {part: np.flatnonzero(np.array(held) == part).astype(np.int64) for part in set(part_of.values())}
    found: list[tuple[str, Any, Box]] = []
    failures: list[tuple[str, str]] = []
    # Part by part, for images of one part share a judge.
    for done, path in enumerate(sorted(films, key=lambda path: (part_of[owners[path]], path)), start=1):
        try:
            found += _alarms_on(detector, path, films[path], barred[part_of[owners[path]]])
        except MammoseekError as error:
            failures.append((path, str(error)))
        if progress is not None:
            progress(done, len(films))
    rows = number_rows(normal_rows(found), set(frame["row_id"].astype(str)))
    images = int(rows["path"].nunique())
    return FalseAlarms(with_rows(frame, rows), len(rows), images, len(films), len(set(owners.values())), failures)


def film_source(rows: pd.DataFrame) -> Source:
    """Return an image as it is searched, with what its rows of a manifest tell: woman, data set, spacing and view."""
    row = rows.iloc[0]
    known = {name: None if name not in row or pd.isna(row[name]) else row[name] for name in ("spacing_mm", "view")}
    return Source(
        Path(str(row["path"])),
        patient=str(row["patient_id"]),
        dataset=str(row["dataset"]),
        spacing_mm=None if known["spacing_mm"] is None else float(known["spacing_mm"]),
        view=known["view"],
    )


def _parts(women: list[str], seed: int) -> dict[str, int]:
    """Return which part each woman is in; all are of one kind for this."""
    count = min(FOLDS, len(women))
    if count < 2:
        return dict.fromkeys(women, 0)
    names = np.array(women, dtype=object)
    folds = patient_folds(names, np.full(len(women), NORMAL, dtype=object), count, seed)
    return {str(name): number for number, fold in enumerate(folds) for name in names[fold.test]}


def _alarms_on(detector: Detector, path: str, rows: pd.DataFrame, barred: Positions) -> list[tuple[str, Any, Box]]:
    """Return what is found away from the marks of an image, as `normal_rows` takes it."""
    marks = [box for _, row in rows[rows["tissue"] == LESION].iterrows() if (box := row_box(row))]
    boxes = [box_of(candidate) for candidate in detector.detect(film_source(rows), barred=barred).detections]
    away = [box for box in boxes if not any(overlap(box, mark) > 0 for mark in marks)]
    stem = Path(path).stem
    return [(f"{stem}-alarm-{number}", rows.iloc[0], box) for number, box in enumerate(away, start=1)]
