"""How a woman's breast differs from her other one, which radiologists read side by side.

A finding that has its like at the mirrored place of the other breast is more often tissue than lesion; a cancer makes a
breast unlike its sister (Scutt, Lancaster and Manning, Breast Cancer Research 8, 2006). What is measured is left as
NaN where the other breast was not imaged in the same view and examination: `classifiers.context` then says that it
is unknown, not that the breasts are alike.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from classifiers import ClassificationError
from classifiers.labels import Array
from embedder.findings import patient_key
from index.grouping import STUDY_COLUMN

UNLIKENESS = "asymmetry"
"""The column that says how unlike two vectors are: 1 - cosine."""

_UNIT_TOLERANCE = 1e-3  # of a vector's length
_OTHER = {"L": "R", "R": "L"}


def opposite_images(frame: pd.DataFrame, images: pd.DataFrame) -> npt.NDArray[np.int64]:
    """Find, for each row, an image of the woman's other breast in the same view and examination.

    Args:
        frame: Rows of a manifest; one without a side has no other side.
        images: Rows of a manifest to choose from, the first of equals.

    Returns:
        (rows,) positions in `images`, -1 where there is none.
    """
    places: dict[tuple[object, ...], int] = {}
    for place, key in enumerate(_keys(images, images["laterality"])):
        places.setdefault(key, place)
    others = frame["laterality"].astype("object").map(_OTHER)
    wanted = _keys(frame, others)
    return np.array(
        [places.get(key, -1) if known else -1 for key, known in zip(wanted, others.notna(), strict=True)], np.int64
    )


def mirrored_findings(findings: pd.DataFrame, images: pd.DataFrame) -> pd.DataFrame:
    """Return each finding's mirrored place on the other breast, as rows that can be embedded.

    The place is mirrored in the image's width, which holds as well as both breasts were positioned alike. Findings
    without another breast of the same size of image are left out, as are those whose sizes are not known.

    Args:
        findings: Findings of a manifest.
        images: Rows of the same manifest, of either granularity.

    Returns:
        A row per finding that has one, with its `row_id`; of its labels it keeps none.
    """
    found = opposite_images(findings, images)
    rows = []
    for (_, finding), place in zip(findings.iterrows(), found, strict=True):
        other = None if place < 0 else images.iloc[place]
        sizes = [None if row is None else (row["image_rows"], row["image_columns"]) for row in (finding, other)]
        if other is None or any(pd.isna(side) for size in sizes if size for side in size) or sizes[0] != sizes[1]:
            continue
        columns = int(finding["image_columns"])
        moved = {"x0": columns - finding["x1"], "x1": columns - finding["x0"]}
        kept = {name: finding[name] for name in ("row_id", "dataset", "patient_id", "granularity", "y0", "y1")}
        taken = ("path", "laterality", "view", "spacing_mm", "image_rows", "image_columns")
        rows.append({**kept, **moved, **{name: other[name] for name in taken}})
    blank = findings.iloc[:0]
    return pd.DataFrame(rows).reindex(columns=blank.columns).astype(blank.dtypes) if rows else blank.copy()


def unlikeness(own: npt.ArrayLike, other: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return (n,) 1 - cosine of each vector to the one of the other side; NaN where that is missing.

    Args:
        own: (n, d) unit length.
        other: (n, d) unit length, rows of NaN where there is none.

    Raises:
        ClassificationError: Shapes that differ, or a vector that is none.
    """
    first, second = _pair(own, other)
    lengths = np.linalg.norm(np.concatenate([first, second]), axis=1)
    if (np.abs(lengths - 1) > _UNIT_TOLERANCE).any():
        raise ClassificationError("asymmetry", "a vector is not of unit length", "embed it again")
    return 1 - (first * second).sum(axis=1)


def differences(own: npt.ArrayLike, other: npt.ArrayLike, names: Sequence[str]) -> pd.DataFrame:
    """Return (n rows) of own - other of each descriptor, as columns of a context; NaN where the other is missing.

    Args:
        own: (n, descriptors), such as `embedder.handcrafted.describe` gives.
        other: The same of the other side, rows of NaN where there is none.
        names: Of the descriptors, as `embedder.handcrafted.feature_names` gives.

    Raises:
        ClassificationError: Shapes that differ, or a descriptor that is not finite.
    """
    first, second = _pair(own, other)
    if first.shape[1] != len(names):
        raise ClassificationError("asymmetry", f"{len(names)} names for {first.shape[1]} descriptors")
    return pd.DataFrame(first - second, columns=[f"{UNLIKENESS} of {name}" for name in names])


def spread_rows(values: npt.ArrayLike, row_ids: Sequence[str], onto: Sequence[str]) -> npt.NDArray[np.float64]:
    """Place rows of values where `onto` has their ids; all others are NaN.

    Args:
        values: (m, d).
        row_ids: (m,) their ids, such as those of `mirrored_findings`.
        onto: (n,) ids.

    Returns:
        (n, d).
    """
    matrix = np.asarray(values, dtype=np.float64)
    places = {row_id: place for place, row_id in enumerate(row_ids)}
    spread = np.full((len(onto), matrix.shape[1]), np.nan)
    for target, row_id in enumerate(onto):
        if row_id in places:
            spread[target] = matrix[places[row_id]]
    return spread


def _keys(frame: pd.DataFrame, sides: pd.Series) -> list[tuple[object, ...]]:
    """Return each row's woman, examination, view and side; what is unknown is one value of its own."""
    parts = [patient_key(frame).to_numpy(dtype=object)]
    for cells in (frame.get(STUDY_COLUMN), frame.get("view"), sides):
        values = pd.Series(None, frame.index, dtype="object") if cells is None else cells.astype("object")
        parts.append(values.where(values.notna(), None).to_numpy(dtype=object))
    return list(zip(*parts, strict=True))


def _pair(own: npt.ArrayLike, other: npt.ArrayLike) -> tuple[Array, Array]:
    first, second = np.asarray(own, dtype=np.float64), np.asarray(other, dtype=np.float64)
    if first.ndim != 2 or first.shape != second.shape:
        raise ClassificationError("asymmetry", f"shapes {first.shape} and {second.shape}", "pass one row per side")
    missing = np.isnan(second).all(axis=1)
    if not (np.isfinite(first).all() and np.isfinite(second[~missing]).all()):
        raise ClassificationError("asymmetry", "a value is not finite", "compute it again, or leave that side out")
    return first, second
