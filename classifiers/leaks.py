"""What would make a figure dishonest: a woman, an image or a statistic on both sides of a fold."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from classifiers import ClassificationError
from classifiers.folds import Fold, check_no_leak
from embedder.checkpoint import ModelCard, woman_digest
from embedder.duplicates import find_duplicates
from embedder.findings import patient_key


def check_women(frame: pd.DataFrame, folds: Sequence[Fold]) -> None:
    """Refuse folds of which one has a woman on both of its sides, or two test the same woman.

    Args:
        frame: A manifest.
        folds: Its rows, by their positions.

    Raises:
        ClassificationError: There is such a woman; the message names her.
    """
    keys = patient_key(frame).to_numpy(dtype=object)
    for fold in folds:
        check_no_leak(keys, fold.train, fold.test)
    check_no_leak(keys, *(fold.test for fold in folds))


def check_images(
    frame: pd.DataFrame,
    folds: Sequence[Fold],
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Refuse folds of which one has the same image on both of its sides, under whatever name and in whatever form.

    Args:
        frame: A manifest with absolute paths; each image is read.
        folds: Its rows, by their positions.
        workers: Threads that read images.
        progress: Called with images done and images in all.

    Raises:
        ClassificationError: There is such an image; the message names both files.
    """
    pairs = find_duplicates(frame, workers=workers, progress=progress)
    keys = patient_key(frame).to_numpy(dtype=object)
    for fold in folds:
        trained, tested = set(keys[fold.train]), set(keys[fold.test])
        for pair in pairs:
            first, second = pair.women
            if (first in trained and second in tested) or (second in trained and first in tested):
                raise ClassificationError(
                    "leak",
                    f"{pair.first} of {first} and {pair.second} of {second} are one image (correlation of fine detail "
                    f"{pair.likeness:.2f}), and stand on both sides of a fold",
                    "give both rows one patient_id, or take one of them out",
                )


def check_unseen(card: ModelCard, women: Iterable[str], subject: object) -> None:
    """Refuse to score a model, or a statistic of it, on women that it was fitted on.

    Args:
        card: The model's card, which names whom its weights, its choice of an epoch and its standardisation saw.
        women: Keys of the women to be tested, "dataset/patient".
        subject: What an error is about.

    Raises:
        ClassificationError: It has seen one of them.
    """
    for woman in sorted(set(women)):
        role = card.role(woman)
        if role != "unseen":
            raise ClassificationError(
                subject, f"the woman {woman} is tested, and the model has seen her ({role})", "fit it on other women"
            )


def trained_on(card: ModelCard, women: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Say of which rows' women a model's weights were trained; validation and standardisation do not count.

    Args:
        card: The model's card.
        women: (n,) keys, "dataset/patient".

    Returns:
        (n,) bool.
    """
    digests = set(card.women.get("train", ()))
    distinct, rows = np.unique(np.asarray(women, dtype=object).astype(str), return_inverse=True)
    return np.array([woman_digest(woman) in digests for woman in distinct], np.bool_)[rows]
