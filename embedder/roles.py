"""Which labels can be learned, and which of a manifest's women train, validate or wait for the test."""

import warnings

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from embedder.checkpoint import ModelError
from embedder.findings import DENSITY_SCALES, LABEL_COLUMNS, SPLITS, patient_key

# A class that only one woman has can't form a positive pair of two women, nor be validated.
_MINIMUM_WOMEN = 2


def label_classes(frame: pd.DataFrame, columns: tuple[str, ...] | None = None) -> dict[str, tuple[str, ...]]:
    """Return the classes of each label column that has at least two, each of two women or more.

    Args:
        frame: The rows to learn from.
        columns: The columns asked for; None takes every label column that the manifest has, except a data set's own
            words that say one for one what another column says.

    Raises:
        ModelError: A column asked for is not there or can't be learned, or none can.
    """
    found: dict[str, tuple[str, ...]] = {}
    keys = patient_key(frame)
    for column in columns if columns is not None else LABEL_COLUMNS:
        if column not in frame.columns:
            if columns is None:
                continue
            raise ModelError("manifest", f"has no column {column!r}", f"labels are {', '.join(LABEL_COLUMNS)}")
        women = keys.groupby(frame[column].astype("object")).nunique()
        classes = tuple(sorted(str(term) for term, count in women.items() if count >= _MINIMUM_WOMEN))
        for scale in DENSITY_SCALES:
            if set(classes) <= set(scale):
                classes = tuple(term for term in scale if term in classes)
        if len(classes) >= 2:
            found[column] = classes
        elif columns is not None:
            counts = ", ".join(f"{term} ({_women(count)})" for term, count in women.items()) or "no labels"
            raise ModelError(
                "manifest",
                f"column {column!r} can't be learned: it has {counts}",
                "it needs two classes of two women each",
            )
    if columns is None:
        found = {column: classes for column, classes in found.items() if not _says_it_again(frame, column, found)}
    if not found:
        raise ModelError(
            "manifest",
            f"no label column has two classes of two women each ({len(frame)} rows of {_women(keys.nunique())})",
            "add women and labels to learn from",
        )
    return found


def _says_it_again(frame: pd.DataFrame, column: str, found: dict[str, tuple[str, ...]]) -> bool:
    """Tell whether a column holds a data set's own words for another column, one for one: it would be learned twice."""
    ours = column.removeprefix("native_")
    if column == ours or ours not in found:
        return False
    pairs = frame[[column, ours]].astype("object").drop_duplicates()
    return bool((pairs[column].isna() == pairs[ours].isna()).all()) and not (
        pairs[column].dropna().duplicated().any() or pairs[ours].dropna().duplicated().any()
    )


def _women(count: int) -> str:
    return f"{count} {'woman' if count == 1 else 'women'}"


def stated_splits(frame: pd.DataFrame) -> pd.Series:
    """Return the split that the manifest states for each row's woman, on whichever of her rows; None where none does.

    Args:
        frame: A manifest's rows, those of both granularities: her split may stand on rows of one of them only.

    Raises:
        ModelError: A woman is in two splits, or a split is unknown.
    """
    keys = patient_key(frame)
    split = frame["split"].astype("object")
    named = split.notna()
    unknown = sorted(set(split[named]) - set(SPLITS))
    if unknown:
        raise ModelError("manifest", f"split {unknown[0]!r} is unknown", f"use {', '.join(SPLITS)}")
    own = split[named].groupby(keys[named]).unique()
    for woman, splits in own[own.map(len) > 1].items():
        raise ModelError("manifest", f"the woman {woman} is in {' and in '.join(splits)}", "keep her in one split")
    return split.where(named, keys.map(own.map(lambda splits: splits[0])))


def women_folds(
    frame: pd.DataFrame, folds: int, seed: int, columns: tuple[str, ...] | None = None
) -> npt.NDArray[np.int64]:
    """Return for each row in which of some folds of women it is, the folds stratified by the first label.

    Args:
        frame: A manifest's rows that are to be learned from.
        folds: How many folds, not more than there are women.
        seed: Seed of the draw.
        columns: Label columns that are to be learned, see `label_classes`.

    Raises:
        ModelError: Nothing can be learned.
    """
    strata = frame[next(iter(label_classes(frame, columns)))].astype("object")
    named = strata.where(strata.notna(), "unknown").astype(str).to_numpy()
    found = np.full(len(frame), folds, np.int64)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    # A class smaller than the number of folds is spread as far as it goes, which is all that is asked here.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for number, (_, held_out) in enumerate(splitter.split(named, named, patient_key(frame).to_numpy())):
            found[held_out] = number
    return found


def split_women(frame: pd.DataFrame, share: float, seed: int, columns: tuple[str, ...] | None = None) -> pd.Series:
    """Return each row's role, `train`, `validation` or `test`, by the manifest's split or at random by woman.

    A woman is in one role with all her rows: a row without a split takes that of her other rows, else it is
    for training. Where the manifest names no validation rows, a share of the training women is held out at
    random, stratified by their first label.

    Args:
        frame: A manifest's rows of one granularity, their splits completed by `stated_splits` where she has rows of
            the other.
        share: Share of the training women to hold out; 0 for none.
        seed: Seed of the draw.
        columns: Label columns that are to be learned, see `label_classes`.

    Raises:
        ModelError: A woman is in two splits, a split is unknown, or there are too few women to hold some out.
    """
    keys, roles = patient_key(frame), stated_splits(frame)
    roles = roles.where(roles.notna(), "train").astype(str)
    train = roles == "train"
    if share == 0 or (roles == "validation").any() or not train.any():
        return roles
    rows = np.flatnonzero(train)
    folds = max(2, min(round(1 / share), keys.iloc[rows].nunique()))
    held_out = women_folds(frame.iloc[rows], folds, seed, columns) == 0
    roles.iloc[rows[held_out]] = "validation"
    try:
        label_classes(frame[roles == "train"], columns)
    except ModelError as error:
        raise ModelError(
            "manifest",
            f"has too few women to hold some of them out for validation ({error.cause})",
            "add women, or set training.validation_share=0",
        ) from error
    return roles
