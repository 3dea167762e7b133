"""Splits by woman, stratified by label: k folds, hold-out, three-way; nobody is on two sides."""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import StratifiedGroupKFold

from classifiers import ClassificationError
from classifiers.labels import Array, encode_labels, encode_patients

FINEST_SHARE = 20  # a held-out share is rounded to a fraction whose denominator is at most this


@dataclass(frozen=True, eq=False)
class Fold:
    """One split: (rows,) sorted row positions to train on and to test on; no woman is in both."""

    train: Array
    test: Array


@dataclass(frozen=True, eq=False)
class ThreeWay:
    """A split into three: (rows,) sorted row positions each; no woman is in two of them."""

    train: Array
    validation: Array
    test: Array


def patient_folds(patients: npt.ArrayLike, labels: npt.ArrayLike, folds: int = 5, seed: int = 0) -> list[Fold]:
    """Split rows into folds by woman, so that each fold has about the same mix of labels.

    Every row is in the test part of exactly one fold. Rows without a label are a stratum of their own: they
    are spread evenly, and count as no class. The split depends on the women, their labels and the seed, not
    on the order of the rows.

    Args:
        patients: (n,) women's keys.
        labels: (n,) labels to stratify by, missing where unknown.
        folds: How many folds.
        seed: Seed of the shuffling.

    Returns:
        One Fold per fold.

    Raises:
        ClassificationError: Fewer than two folds, or fewer women or rows than these folds need.
    """
    classes, codes = encode_labels(labels)
    women, woman_of_row = encode_patients(patients, len(codes))
    if folds < 2:
        raise ClassificationError("folds", f"{folds} cannot be split into", "ask for 2 or more")
    if len(women) < folds:
        raise ClassificationError("folds", f"{len(women)} women cannot fill {folds} folds", "ask for fewer folds")
    strata = np.where(codes < 0, len(classes), codes)
    if np.bincount(strata).max() < folds:
        raise ClassificationError(
            "folds", f"no label has {folds} rows to spread over {folds} folds", "ask for fewer folds"
        )
    # The library deals classes in the order they come in; sorted rows make the split a function of their
    # content alone.
    order = np.lexsort((strata, woman_of_row))
    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # Rare classes have fewer rows than folds, and so cannot be in each of them: no news here.
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        warnings.filterwarnings("ignore", message="The number of unique classes", category=UserWarning)
        parts = [np.sort(order[test]) for _, test in splitter.split(order, strata[order], groups=woman_of_row[order])]
    if not all(part.size for part in parts):
        raise ClassificationError(
            "folds", f"{len(women)} women leave one of {folds} folds empty", "ask for fewer folds"
        )
    everyone = np.arange(len(codes))
    result = [Fold(np.setdiff1d(everyone, part), part) for part in parts]
    for fold in result:
        check_no_leak(patients, fold.train, fold.test)
    return result


def declared_folds(patients: npt.ArrayLike, numbers: npt.ArrayLike) -> list[Fold]:
    """Return the folds that a table declares.

    Args:
        patients: (n,) women's keys.
        numbers: (n,) the fold in which a row is tested: a number or a name.

    Returns:
        One Fold per distinct cell, in their order.

    Raises:
        ClassificationError: A cell is empty, there are fewer than two folds, or a woman is in two of them.
    """
    keys = np.asarray(patients, dtype=object)
    names, codes = encode_labels(numbers)
    if (codes < 0).any():
        raise ClassificationError(
            "folds", f"row {int(np.argmax(codes < 0)) + 1} is in none", "name the fold of every row"
        )
    if len(names) < 2:
        raise ClassificationError("folds", f"{len(names)} cannot be cross-validated", "declare 2 or more")
    everyone = np.arange(len(codes))
    parts = [np.flatnonzero(codes == code) for code in range(len(names))]
    check_no_leak(keys, *parts)
    return [Fold(np.setdiff1d(everyone, part), part) for part in parts]


def hold_out(patients: npt.ArrayLike, labels: npt.ArrayLike, fraction: float = 0.2, seed: int = 0) -> Fold:
    """Hold a share of the women out, with about the mix of labels of the rest.

    Args:
        patients: (n,) women's keys.
        labels: (n,) labels to stratify by, missing where unknown.
        fraction: Share of the rows to test on, rounded to a ratio of whole numbers up to 20, and at least
            one woman.
        seed: Seed of the shuffling.

    Returns:
        The training and the test rows.

    Raises:
        ClassificationError: The fraction is not between 0 and 1, or there are too few women or rows.
    """
    if not 0 < fraction < 1:
        raise ClassificationError("held-out share", f"{fraction} is not between 0 and 1", "0.2 holds a fifth out")
    _, codes = encode_labels(labels)
    women, _ = encode_patients(patients, len(codes))
    strata = codes + 1  # missing labels count as one stratum
    finest = min(FINEST_SHARE, len(women), int(np.bincount(strata).max()) if len(strata) else 0)
    if finest < 2:
        raise ClassificationError("held-out share", f"{len(women)} women cannot be split", "use more women")
    share = Fraction(fraction).limit_denominator(finest)
    if share <= 0 or share >= 1:
        share = Fraction(1, finest) if share <= 0 else Fraction(finest - 1, finest)
    folds = patient_folds(patients, labels, share.denominator, seed)
    test = np.sort(np.concatenate([fold.test for fold in folds[: share.numerator]]))
    return Fold(np.setdiff1d(np.arange(len(codes)), test), test)


def three_way(
    patients: npt.ArrayLike,
    labels: npt.ArrayLike,
    validation: float = 0.15,
    test: float = 0.15,
    seed: int = 0,
) -> ThreeWay:
    """Split rows by woman into training, validation and test.

    Args:
        patients: (n,) women's keys.
        labels: (n,) labels to stratify by, missing where unknown.
        validation: Share of all rows to validate on.
        test: Share of all rows to test on.
        seed: Seed of the shuffling.

    Returns:
        The three sets of rows.

    Raises:
        ClassificationError: The shares leave nothing to train on, or there are too few women or rows.
    """
    if not (validation > 0 and test > 0 and validation + test < 1):
        raise ClassificationError(
            "three-way split",
            f"validation {validation} and test {test} leave nothing to train on",
            "choose smaller shares",
        )
    keys, terms = np.asarray(patients, dtype=object), np.asarray(labels, dtype=object)
    outer = hold_out(keys, terms, test, seed)
    inner = hold_out(keys[outer.train], terms[outer.train], validation / (1 - test), seed)
    split = ThreeWay(outer.train[inner.train], outer.train[inner.test], outer.test)
    check_no_leak(keys, split.train, split.validation, split.test)
    return split


def check_no_leak(patients: npt.ArrayLike, *index_sets: npt.ArrayLike) -> None:
    """Refuse sets of rows of which two hold the same woman.

    Args:
        patients: (n,) women's keys.
        index_sets: Row positions of each side of a split.

    Raises:
        ClassificationError: A woman is in two sets; the message names her.

    >>> check_no_leak(["a/1", "a/2", "a/1"], [0], [1])
    >>> check_no_leak(["a/1", "a/2", "a/1"], [0, 1], [2])
    Traceback (most recent call last):
    ...
    classifiers.ClassificationError: split: the woman a/1 is in sets 1 and 2; split by patient, never by image
    """
    keys = np.asarray(patients, dtype=object)
    encode_patients(keys, len(keys))
    side_of: dict[str, int] = {}
    for number, rows in enumerate(index_sets, start=1):
        for woman in _women(keys[np.asarray(rows, dtype=np.int64)]):
            if side_of.setdefault(woman, number) != number:
                raise ClassificationError(
                    "split",
                    f"the woman {woman} is in sets {side_of[woman]} and {number}",
                    "split by patient, never by image",
                )


def _women(keys: Iterable[object]) -> list[str]:
    return sorted({str(key) for key in keys})
