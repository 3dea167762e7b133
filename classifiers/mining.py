"""Hard negatives: the places of normal tissue that a model takes for lesions, to be trained on in a second round.

What a detector of lesions confuses with normal tissue it meets too rarely in a random sample of it. So the sample is
completed by the model's own false alarms on the training women, and the training is begun anew (bootstrapping: Sung and
Poggio, IEEE PAMI 20, 1998; hard negative mining: Felzenszwalb et al., IEEE PAMI 32, 2010).
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from classifiers import ClassificationError
from classifiers.crossvalidation import embed_rows
from classifiers.fitted import ClassifierConfig, fit_classifiers
from classifiers.folds import Fold, patient_folds
from embedder.checkpoint import ModelCard
from embedder.embedding import Embedder
from embedder.findings import Box, patient_key
from embedder.normaltissue import candidate_places, label_tissue, overlap, with_rows
from embedder.rois import row_box
from embedder.roles import stated_splits
from embedder.tissuemap import TissueMap

Vectors = npt.NDArray[np.float32]
Progress = Callable[..., None]

_FOLDS = 5  # of women, in which places are judged by other women's

_MOST_OVERLAP = 0.2
"""Of two places (intersection over union): beyond it the less sure one says nothing that the other does not."""


@dataclass(frozen=True, eq=False)
class HardNegatives:
    """A manifest with hard negatives.

    Attributes:
        frame: The manifest's rows as they were, then the new ones.
        added: How many are new.
        images: Images that they are on.
        women: Training women whose normal tissue was looked at.
        candidates: Places that were looked at.
        failures: Path or row id, and message, of what can't be read.
    """

    frame: pd.DataFrame
    added: int
    images: int
    women: int
    candidates: int
    failures: list[tuple[str, str]]

    def to_dict(self) -> dict[str, Any]:
        """Return the counts as plain JSON values."""
        return {name: getattr(self, name) for name in ("added", "images", "women", "candidates")} | {
            "rows": len(self.frame),
            "failures": [list(failure) for failure in self.failures],
        }


def mine_hard_negatives(
    frame: pd.DataFrame,
    model: Path,
    *,
    per_image: int = 2,
    candidates: int = 12,
    minimum: float = 0.5,
    seed: int = 0,
    device: str = "auto",
    workers: int | None = None,
    progress: Progress | None = None,
) -> HardNegatives:
    """Add to a manifest the places of the training women's normal tissue that a model takes for lesions.

    Test and validation women are left alone: neither are their places looked at, nor do they say what a lesion is.

    Args:
        frame: A manifest with absolute paths and with normal tissue, see `embedder.normaltissue`.
        model: Folder of a model of findings that was trained on these women, or on none of them.
        per_image: Places to add on an image, at most.
        candidates: Places to look at on an image.
        minimum: The least probability of a lesion that makes a place hard.
        seed: Of the draw of places, and of the folds in which probabilities are calibrated.
        device: Where to compute.
        workers: Threads that read images.
        progress: Called with items done, items in all and what is under way.

    Raises:
        ClassificationError: An option is out of range, the manifest has no normal tissue, or there are no training
            women of whom normal tissue and lesions are known.
        MammoseekError: The model can't be read.
    """
    if not 1 <= per_image <= candidates <= 10_000 or not 0 <= minimum <= 1:
        raise ClassificationError(
            "mining",
            f"{per_image} of {candidates} places an image at a probability of {minimum:g} or more can't be had",
            "use 1 to 10000 candidates, no more places than candidates, and a probability of 0 to 1",
        )
    embedder = Embedder.load(model, device=device)
    if embedder.granularity != "finding":
        raise ClassificationError(model, "compares whole breasts, not places", "name a model of findings")
    frame = frame.assign(tissue=label_tissue(frame))
    if not (frame["tissue"] == "normal").any():
        raise ClassificationError(
            "manifest", "has no normal tissue to compare lesions with", "add it by `mammoseek dataset normal`"
        )
    women = training_women(frame, embedder.card)
    known = frame[(frame["granularity"] == "finding") & frame["tissue"].notna() & patient_key(frame).isin(women)]
    if known["tissue"].nunique() < 2:
        raise ClassificationError(
            "manifest", "its training women do not have both lesions and normal tissue", "keep women in the training"
        )

    def tell(what: str) -> Progress | None:
        return None if progress is None else lambda done, total, *_: progress(done, total, what)

    tissue = TissueMap.read(frame[patient_key(frame).isin(women)], workers=workers, progress=tell("Reading"))
    places = candidate_places(tissue, women, per_image=candidates, seed=seed, preparation=embedder.preparation)
    places = with_rows(frame.iloc[:0], places)
    known = known.reset_index(drop=True)
    gallery, rows, failed = embed_rows(embedder, known, workers, tell("Embedding what is known"))
    vectors = gallery[:0]
    lost: list[tuple[str, str]] = []
    if len(places):  # there may be no room for any
        vectors, places, lost = embed_rows(embedder, places, workers, tell("Embedding candidates"))
    surety = lesion_probability(gallery, rows, vectors, places, seed=seed)
    chosen = choose_hard(places, surety, known, per_image=per_image, minimum=minimum)
    chosen = number_rows(chosen, set(frame["row_id"]))
    return HardNegatives(
        with_rows(frame, chosen),
        len(chosen),
        int(chosen["path"].nunique()),
        len(women),
        len(places),
        list(dict.fromkeys([*tissue.failures, *failed, *lost])),
    )


def training_women(frame: pd.DataFrame, card: ModelCard) -> set[str]:
    """Return the women whose places may be mined: those that a model was trained on, never a test or validation woman.

    Args:
        frame: A manifest.
        card: The model's card. Where it names none of these women (a pretrained backbone), all of whom the manifest
            says neither `test` nor `validation` are for training.
    """
    keys, splits = patient_key(frame), stated_splits(frame)
    allowed = {key for key, split in zip(keys, splits, strict=True) if split not in ("test", "validation")}
    roles = {key: card.role(key) for key in allowed}
    trained = {key for key, role in roles.items() if role == "train"}
    return trained or {key for key, role in roles.items() if role != "validation"}


def lesion_probability(
    gallery: Vectors, known: pd.DataFrame, vectors: Vectors, places: pd.DataFrame, *, seed: int = 0
) -> npt.NDArray[np.float64]:
    """Return how probably each place is a lesion: the mean of the linear head's and the neighbours' probabilities.

    Neither knows the place's own woman: her known places would answer for her other ones. The women are split into
    folds, and each fold's places are judged by what is known of the others.

    Args:
        gallery: (n, d) vectors of lesions and normal tissue.
        known: (n rows) of a manifest with `tissue`.
        vectors: (q, d) vectors of the places.
        places: (q rows) of a manifest.
        seed: Of all folds.

    Raises:
        ClassificationError: There are too few women with lesions and normal tissue.
    """
    found = np.empty(len(vectors))
    women, own = (patient_key(rows).to_numpy(dtype=object) for rows in (known, places))
    labels = known["tissue"].to_numpy(dtype=object)
    folds = [Fold(np.arange(len(known)), np.empty(0, np.int64))]  # of women of whom nothing is known
    if set(own) & set(women):
        folds += patient_folds(women, labels, min(_FOLDS, len(set(women))), seed)
    asked = [~np.isin(own, women), *(np.isin(own, women[fold.test]) for fold in folds[1:])]
    for fold, here in zip(folds, asked, strict=True):
        if not here.any():
            continue
        fitted = fit_classifiers(
            gallery[fold.train], labels[fold.train], women[fold.train], ClassifierConfig(seed=seed)
        )
        column = fitted.classes.index("lesion")
        judges = [part for part in (fitted.knn, fitted.head) if part is not None]
        found[here] = np.mean([part.predict(vectors[here], own[here])[1][:, column] for part in judges], axis=0)
    return found


def choose_hard(
    places: pd.DataFrame,
    surety: npt.NDArray[np.float64],
    taken: pd.DataFrame,
    *,
    per_image: int,
    minimum: float,
) -> pd.DataFrame:
    """Return the places that are most surely taken for lesions, the surest first, without near repetitions.

    Args:
        places: (q rows) candidates.
        surety: (q,) probability of a lesion.
        taken: Rows of the manifest; near those of normal tissue nothing more is chosen.
        per_image: How many on an image, at most.
        minimum: The least probability.
    """
    here: dict[str, list[Box]] = {}
    for _, row in taken[taken["tissue"] == "normal"].iterrows():
        here.setdefault(str(row["path"]), []).append(_box(row))
    counts: dict[str, int] = {}
    chosen: list[int] = []
    names = places["row_id"].to_numpy(dtype=object)
    for position in sorted(np.flatnonzero(surety >= minimum), key=lambda i: (-surety[i], names[i])):
        row = places.iloc[position]
        path, box = str(row["path"]), _box(row)
        near = any(overlap(box, other) > _MOST_OVERLAP for other in here.get(path, []))
        if near or counts.get(path, 0) >= per_image:
            continue
        here.setdefault(path, []).append(box)
        counts[path] = counts.get(path, 0) + 1
        chosen.append(int(position))
    return places.iloc[chosen].reset_index(drop=True)


def number_rows(rows: pd.DataFrame, known: set[str]) -> pd.DataFrame:
    """Return rows with ids that a manifest does not have: a second round of mining finds other places."""
    names = []
    for name in rows["row_id"]:
        stem, number = str(name).rsplit("-", 1)[0], 1
        while f"{stem}-{number}" in known:
            number += 1
        names.append(f"{stem}-{number}")
        known = known | {names[-1]}
    return rows.assign(row_id=names)


def _box(row: pd.Series) -> Box:
    box = row_box(row)
    assert box is not None, "places have boxes"
    return box
