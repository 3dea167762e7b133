"""Which label columns are scored or classified unless others are named."""

import pandas as pd

from classifiers import ClassificationError
from classifiers.classification import name_labels
from embedder.findings import patient_key

DEFAULT_TARGETS = {
    "finding": ("lesion_type", "native_lesion_type", "pathology", "density", "tissue"),
    "breast": ("density", "pathology"),
}
"""Label columns that are scored unless others are named, as far as the manifest has them."""


def choose_targets(frame: pd.DataFrame, asked: tuple[str, ...] | None, granularity: str) -> tuple[str, ...]:
    """Return the label columns to score: those asked for, else the usual ones with two classes of two women each.

    Raises:
        ClassificationError: There are no rows, a column asked for is not there, or no column can be scored.
    """
    if frame.empty:
        raise ClassificationError("targets", "there are no rows, and so no labels", "add rows of other women")
    women = patient_key(frame)

    def scorable(name: str) -> bool:
        if name not in frame.columns:
            return False
        counts = women.groupby(frame[name].astype("object")).nunique()
        return int((counts >= 2).sum()) >= 2

    for name in asked or ():
        if name not in frame.columns:
            raise ClassificationError("targets", f"there is no column {name!r}", name_labels(frame))
        if not scorable(name):
            raise ClassificationError(
                "targets",
                f"{name!r} can't be scored: it needs two classes of two women each",
                name_labels(frame),
            )
    chosen = asked or tuple(name for name in DEFAULT_TARGETS[granularity] if scorable(name))
    if not chosen:
        raise ClassificationError(
            "targets", "no label column has two classes of two women each", "add labels to the manifest"
        )
    return chosen
