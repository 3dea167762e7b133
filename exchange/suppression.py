"""Detections of one image that mark one place: all but the best are dropped, or folded into it."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from embedder.findings import BOX_COLUMNS
from exchange import ExchangeError
from exchange.matching import iou

_IMAGE = ("path", "frame_number")


@dataclass(frozen=True)
class SuppressionConfig:
    """Which detections of an image are one.

    Args:
        iou: Boxes that overlap by more than this intersection over union mark one place.
        merge: Let the one that is kept take in the others: its box becomes the smallest that holds them all, its
            outline, which fits that box no more, is dropped, and its note names them. Else they are dropped.
        same_type: Only detections of one `lesion_type` are one: a mass and the calcifications in it stay two.

    Raises:
        ExchangeError: The overlap is out of range.
    """

    iou: float = 0.5
    merge: bool = False
    same_type: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.iou < 1:
            raise ExchangeError("suppression", f"an IoU of {self.iou} is not in [0, 1)", "0.5 is usual")


def suppress(detections: pd.DataFrame, config: SuppressionConfig | None = None) -> pd.DataFrame:
    """Keep of detections that mark one place of an image the one with the highest score.

    Greedy non-maximum suppression (Felzenszwalb et al., IEEE TPAMI 32, 2010, section 7): the best detection is kept,
    those that overlap it too much go, and so on among the rest. Equal scores are taken in the order of their ids;
    detections without a score come last, and those without a box are always kept.

    Args:
        detections: A table as `exchange.detections.detections_frame` gives it.
        config: Which detections are one.

    Returns:
        The detections that are kept, in the order of the table; their scores are as they were.
    """
    config = config or SuppressionConfig()
    table = detections.reset_index(drop=True)
    scores = table["score"].to_numpy(np.float64, na_value=np.nan)
    ranked = pd.DataFrame({"score": scores, "row_id": table["row_id"]}).sort_values(
        ["score", "row_id"], ascending=[False, True], kind="stable", na_position="last"
    )
    ranked = ranked[table["x0"].notna().to_numpy()[ranked.index]]
    keys = [name for name in (*_IMAGE, *(("lesion_type",) if config.same_type else ())) if name in table.columns]
    boxes = table[list(BOX_COLUMNS)].to_numpy(np.float64, na_value=np.nan)
    owner = np.arange(len(table))
    for rows in table.loc[ranked.index, keys].groupby(keys, dropna=False, sort=False).groups.values():
        places = np.asarray(rows, np.int64)
        owner[places] = places[keepers(boxes[places], config.iou)]
    kept = np.flatnonzero(owner == np.arange(len(table)))
    if config.merge:
        table = _merged(table, boxes, owner)
    return table.iloc[kept].reset_index(drop=True)


def keepers(boxes: npt.ArrayLike, most: float) -> npt.NDArray[np.int64]:
    """Return, for each box of an image, which box stands for it.

    Args:
        boxes: (n, 4), best first.
        most: The largest intersection over union with a better box that is kept.

    Returns:
        (n,) positions; a box that is kept stands for itself, another is stood for by the best kept one that it
        overlaps by more than `most`.

    >>> keepers([[0, 0, 10, 10], [1, 0, 11, 10], [40, 40, 50, 50]], 0.5).tolist()
    [0, 0, 2]
    """
    given = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    owner = np.full(len(given), -1, np.int64)
    for place in range(len(given)):
        if owner[place] < 0:
            overlapped = (iou(given[place], given)[0] > most) & (owner < 0)
            owner[overlapped] = place
            owner[place] = place
    return owner


def _merged(table: pd.DataFrame, boxes: npt.NDArray[np.float64], owner: npt.NDArray[np.int64]) -> pd.DataFrame:
    """Return the table with the boxes and notes of those that took in others."""
    merged = table.copy()
    ids = table["row_id"].astype(str).to_numpy(dtype=object)
    for place in np.flatnonzero(np.bincount(owner, minlength=len(table)) > 1).tolist():
        rows = np.flatnonzero(owner == place)
        corners = [*boxes[rows, :2].min(axis=0), *boxes[rows, 2:].max(axis=0)]
        for name, corner in zip(BOX_COLUMNS, corners, strict=True):
            merged.loc[place, name] = int(corner)
        if "outline" in merged.columns:
            merged.at[place, "outline"] = None  # noqa: PD008 a cell that may hold a tuple
        said = table["note"].iloc[place] if "note" in table.columns else None
        note = f"merged with {', '.join(ids[row] for row in rows if row != place)}"
        merged.loc[place, "note"] = note if said is None or pd.isna(said) else f"{said}; {note}"
    return merged
