"""Several views of one thing put together: their vectors, or what was predicted from each of them.

A reader looks at CC and MLO of both breasts before she decides, and a network that does so too is better than one that
sees a single view (Wu et al., IEEE TMI 39, 2020; Carneiro, Nascimento and Bradley, IEEE TMI 36, 2017). What may be
put together depends on what is asked: the views of a lesion for its pathology, those of a breast for a cancer in it,
those of a woman for her density, which both of her breasts share.
"""

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import softmax

from classifiers import ClassificationError
from classifiers.labels import Array, check_vectors
from embedder.findings import patient_key
from index.grouping import LESION_COLUMN, STUDY_COLUMN

Group = Literal["lesion", "breast", "woman"]
Fusion = Literal["mean", "log-odds", "max"]

SMALLEST_PROBABILITY = 1e-6  # the logarithm of a probability of 0 is taken here
_SHORTEST_MEAN = 1e-6  # a shorter mean of unit vectors has no direction


def view_groups(frame: pd.DataFrame, by: Group) -> npt.NDArray[np.int64]:
    """Number the lesions, breasts or women that rows of a manifest show.

    Examinations are kept apart: a lesion or breast of another year is another one, as far as the column `study_id`
    tells. Lesions are told by a column `lesion_id` of the manifest's own, within their woman. A row whose lesion or
    side is not known is alone.

    Args:
        frame: Rows of a manifest.
        by: `lesion`, `breast` (side) or `woman`, each within an examination.

    Returns:
        (rows,) numbers from 0, in the order in which groups come first.

    Raises:
        ClassificationError: There is no such grouping, or no column to tell by.
    """
    needed = {"lesion": LESION_COLUMN, "breast": "laterality", "woman": None}
    if by not in needed:
        raise ClassificationError("views", f"{by!r} is no group of views", f"name one of {', '.join(get_args(Group))}")
    column = needed[by]
    if column is not None and column not in frame.columns:
        raise ClassificationError("views", f"the table has no column {column!r}", f"add one to tell each {by}")
    keys = [patient_key(frame).to_numpy(dtype=object)]
    for name in (STUDY_COLUMN, column):
        if name is not None and name in frame.columns:
            cells = frame[name].astype("object")
            keys.append(cells.where(cells.notna(), None).to_numpy(dtype=object))
    parts = list(zip(*keys, strict=True))
    if column is not None:
        parts = [(*part, place) if part[-1] is None else part for place, part in enumerate(parts)]
    numbers: dict[tuple[object, ...], int] = {}
    return np.array([numbers.setdefault(part, len(numbers)) for part in parts], np.int64)


def fuse_vectors(vectors: npt.ArrayLike, groups: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Average the unit vectors of each group: the cosine to it orders rows as the mean cosine to its views does.

    Args:
        vectors: (n, d) unit length.
        groups: (n,) numbers from 0, each used: `fuse_vectors(v, g)[g]` gives each row its group's vector.

    Returns:
        (groups, d) unit length.

    Raises:
        ClassificationError: A vector is not finite, or the views of a group cancel each other out.
    """
    matrix = check_vectors(vectors)
    codes, sizes = _codes(groups, len(matrix))
    sums = np.zeros((len(sizes), matrix.shape[1]))
    np.add.at(sums, codes, matrix)
    lengths = np.linalg.norm(sums, axis=1)
    opposed = np.flatnonzero(lengths < _SHORTEST_MEAN * sizes)
    if opposed.size:
        raise ClassificationError("views", f"those of group {opposed[0]} cancel each other out", "use one of them")
    return sums / lengths[:, None]


def fuse_probabilities(
    probabilities: npt.ArrayLike, groups: npt.ArrayLike, how: Fusion = "mean", *, positive: int | None = None
) -> npt.NDArray[np.float64]:
    """Put the predictions for the views of each group together.

    Args:
        probabilities: (n, classes); a row of NaN is a view without a prediction, and has no say.
        groups: (n,) numbers from 0, each used.
        how: `mean` of the probabilities; `log-odds`, their mean on that scale (of more than two classes, of the
            logarithms), where a sure view outweighs a doubtful one; or `max`, the view in which the positive class is
            most probable, because a lesion that one view hides is a lesion.
        positive: The column that `max` looks at.

    Returns:
        (groups, classes), rows that sum to 1; NaN where no view has a prediction.

    Raises:
        ClassificationError: What is given are no probabilities, there is no such fusion, or `max` lacks its column.
    """
    values = np.asarray(probabilities, dtype=np.float64)
    if values.ndim != 2:
        raise ClassificationError("probabilities", f"the shape is {values.shape}", "pass one row per view")
    codes, sizes = _codes(groups, len(values))
    if how not in get_args(Fusion):
        raise ClassificationError("views", f"{how!r} is no fusion", f"name one of {', '.join(get_args(Fusion))}")
    told = ~np.isnan(values).all(axis=1)
    if not ((values[told] >= 0).all() and np.allclose(values[told].sum(axis=1), 1, atol=1e-4)):
        raise ClassificationError("probabilities", "a row is negative or does not sum to 1", "predict it again")
    if how == "max":
        if positive is None or not 0 <= positive < values.shape[1]:
            raise ClassificationError("views", f"max of column {positive}", "name the positive class's column")
        return _most_suspicious(values, codes, len(sizes), positive)
    logs = how == "log-odds"
    terms = np.log(np.maximum(values, SMALLEST_PROBABILITY)) if logs else values
    sums, counts = np.zeros((len(sizes), values.shape[1])), np.bincount(codes[told], minlength=len(sizes))
    np.add.at(sums, codes[told], terms[told])
    fused = np.full_like(sums, np.nan)
    some = counts > 0
    fused[some] = sums[some] / counts[some, None]
    return softmax(fused, axis=1) if logs else fused


def _most_suspicious(values: Array, codes: Array, groups: int, positive: int) -> Array:
    fused = np.full((groups, values.shape[1]), np.nan)
    # The highest of a group comes last, and stays; NaN is below all.
    order = np.argsort(np.nan_to_num(values[:, positive], nan=-1.0), kind="stable")
    fused[codes[order]] = values[order]
    return fused


def _codes(groups: npt.ArrayLike, rows: int) -> tuple[Array, Array]:
    """Return (rows,) group numbers and (groups,) sizes, or refuse them."""
    codes = np.asarray(groups)
    if codes.shape != (rows,) or (rows and not np.issubdtype(codes.dtype, np.integer)):
        raise ClassificationError("groups", f"{codes.shape} numbers for {rows} rows", "pass one whole number per row")
    sizes = np.bincount(codes.astype(np.int64)) if not rows or codes.min() >= 0 else np.zeros(1, np.int64)
    if not sizes.all():
        raise ClassificationError("groups", "numbers are not 0, 1, 2, ... without a gap", "use `view_groups`")
    return codes.astype(np.int64), sizes
