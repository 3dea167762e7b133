"""What would make a figure dishonest: a woman, an image or a statistic on both sides of a fold."""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from classifiers import ClassificationError
from classifiers.folds import Fold, check_no_leak
from embedder.checkpoint import ModelCard, image_digests, woman_digest
from embedder.duplicates import Duplicate
from embedder.findings import patient_key
from embedder.superresolution import seen_by


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


def check_images(frame: pd.DataFrame, folds: Sequence[Fold], pairs: Sequence[Duplicate]) -> None:
    """Refuse folds of which one has the same image on both of its sides, under whatever name and in whatever form.

    Args:
        frame: A manifest.
        folds: Its rows, by their positions.
        pairs: The images that stand under two women's names, see `embedder.duplicates.find_duplicates`.

    Raises:
        ClassificationError: There is such an image; the message names both files.
    """
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


def check_super_resolution(frame: pd.DataFrame, name: str, workers: int | None = None) -> None:
    """Refuse to test women whose films the preparation's super-resolution network learned from.

    Args:
        frame: A manifest with absolute paths, of the women to be tested.
        name: The preparation's option; `none` has learned from nobody.
        workers: Threads that read files.

    Raises:
        ClassificationError: It has seen one of them, by her name or by the content of an image file.
        SuperResolutionError: The network can't be read.
    """
    women, images = seen_by(name)
    if not women:
        return
    digests = image_digests(frame["path"], workers)
    for key, path in zip(patient_key(frame), frame["path"], strict=True):
        if woman_digest(key) in women or digests.get(path) in images:
            raise ClassificationError(
                "preparation",
                f"the woman {key} is tested, and the super-resolution network {name} was trained on her films",
                "test other women, or set preparation.super_resolution=none",
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
