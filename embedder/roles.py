"""Which labels can be learned from a manifest, and which of its women train, validate or wait for the test."""

import warnings

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from embedder.checkpoint import ModelError
from embedder.findings import DENSITY_SCALES, LABEL_COLUMNS, patient_key

# A class that only one woman has can't form a positive pair of two women, nor be validated.
_MINIMUM_WOMEN = 2


def label_classes(frame: pd.DataFrame, columns: tuple[str, ...] | None = None) -> dict[str, tuple[str, ...]]:
    """Return the classes of each label column that can be learned: two classes or more, each of two women or more.

    Args:
        frame: The rows to learn from.
        columns: The columns asked for; None takes every label column that the manifest has.

    Raises:
        ModelError: A column asked for is not there or can't be learned.
    """
    found: dict[str, tuple[str, ...]] = {}
    for column in columns if columns is not None else LABEL_COLUMNS:
        if column not in frame.columns:
            raise ModelError("manifest", f"has no column {column!r}", f"labels are {', '.join(LABEL_COLUMNS)}")
        women = patient_key(frame).groupby(frame[column].astype("object")).nunique()
        classes = tuple(sorted(str(term) for term, count in women.items() if count >= _MINIMUM_WOMEN))
        for scale in DENSITY_SCALES:
            if set(classes) <= set(scale):
                classes = tuple(term for term in scale if term in classes)
        if len(classes) >= 2:
            found[column] = classes
        elif columns is not None:
            raise ModelError(
                "manifest",
                f"column {column!r} can't be learned: it needs two classes of two women each, it has "
                + (", ".join(f"{term} ({count} women)" for term, count in women.items()) or "no labels"),
            )
    if not found:
        raise ModelError("manifest", "no label column has two classes of two women each", "add labels to learn from")
    return found


def split_women(
    frame: pd.DataFrame, share: float, seed: int, columns: tuple[str, ...] | None = None
) -> pd.Series:
    """Return each row's role, `train`, `validation` or `test`, by the manifest's split or at random by woman.

    Rows that the manifest keeps for testing are never used. Where it names no validation rows, a share of the
    training women is held out at random, stratified by their first label.
    """
    roles = frame["split"].astype("object").where(frame["split"].notna(), "train").astype(str)
    train = roles == "train"
    if share == 0 or (roles == "validation").any() or not train.any():
        return roles
    rows = np.flatnonzero(train)
    women = patient_key(frame).to_numpy()[rows]
    labels = next(iter(label_classes(frame.iloc[rows], columns)))
    strata = frame[labels].astype("object").where(frame[labels].notna(), "unknown").astype(str).to_numpy()[rows]
    folds = max(2, min(round(1 / share), len(np.unique(women))))
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    # A class smaller than the number of folds is spread as far as it goes, which is all that is asked here.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        _, held_out = next(iter(splitter.split(rows, strata, women)))
    roles.iloc[rows[held_out]] = "validation"
    return roles
