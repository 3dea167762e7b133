"""Label and woman columns as integer codes; a missing label is -1 and never a class of its own."""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from classifiers import ClassificationError

MISSING = -1  # the code of an unknown label

ORDERED_SCALES = (("fatty", "glandular", "dense"), ("A", "B", "C", "D"))
"""Classes that have an order: breast density, on the scale of mini-MIAS and in BI-RADS."""

Array = np.ndarray
_TEXTS_OF_MISSING = frozenset({"nan", "NaN", "None", "<NA>", "NaT"})


def encode_labels(labels: npt.ArrayLike, classes: Sequence[str] | None = None) -> tuple[tuple[str, ...], Array]:
    """Turn labels into class indices.

    Args:
        labels: (n,) terms; None, NaN or pandas' NA where unknown. Anything else is taken as its text.
        classes: The classes in the order of their indices; the sorted known labels when omitted.

    Returns:
        The classes, and (n,) int64 indices into them, MISSING where the label is unknown.

    Raises:
        ClassificationError: A label is none of `classes`, or is the text of a missing value.

    >>> encode_labels(["mass", None, "calcification"])
    (('calcification', 'mass'), array([ 1, -1,  0]))
    """
    values = np.asarray(labels, dtype=object)
    if values.ndim != 1:
        raise ClassificationError("labels", f"the shape is {values.shape}", "pass one label per row")
    known = ~np.asarray(pd.isna(values), dtype=bool)
    texts = [str(value) for value in values[known]]
    found = set(texts)
    if found & _TEXTS_OF_MISSING:
        # numpy makes this text of NaN in an array of strings; as a class it would be a false negative.
        text = sorted(found & _TEXTS_OF_MISSING)[0]
        raise ClassificationError(
            "labels", f"the text {text!r} stands where a label is missing", "pass None or NaN there"
        )
    order = tuple(sorted(found)) if classes is None else tuple(str(name) for name in classes)
    if len(set(order)) != len(order):
        raise ClassificationError("classes", f"a class stands twice in {', '.join(order)}", "name each class once")
    index = {name: position for position, name in enumerate(order)}
    strange = sorted(found - index.keys())
    if strange:
        raise ClassificationError(
            "labels",
            f"{strange[0]!r} is none of the classes {', '.join(order)}",
            "correct the label or name its class",
        )
    codes = np.full(len(values), MISSING, dtype=np.int64)
    codes[known] = [index[text] for text in texts]
    return order, codes


def encode_patients(patients: npt.ArrayLike, rows: int) -> tuple[Array, Array]:
    """Turn the women's keys into indices of the sorted distinct keys.

    Args:
        patients: (rows,) keys such as "mini-MIAS/12".
        rows: How many there must be.

    Returns:
        The sorted distinct keys (women,), and (rows,) int64 indices into them.

    Raises:
        ClassificationError: A key is missing, or their number is not `rows`.
    """
    values = np.asarray(patients, dtype=object)
    if values.shape != (rows,):
        raise ClassificationError("patients", f"{values.shape} keys for {rows} rows", "pass one woman's key per row")
    unknown = np.flatnonzero(np.asarray(pd.isna(values), dtype=bool))
    if unknown.size:
        raise ClassificationError(
            "patients",
            f"row {unknown[0]} has no woman, so it cannot be kept apart from her other findings",
            "give every row a patient",
        )
    women, codes = np.unique(values.astype(str), return_inverse=True)
    return women, codes.astype(np.int64)


def scale_of(classes: Iterable[str]) -> tuple[str, ...] | None:
    """Return the ordered scale that all the classes are on; None where there is none.

    >>> scale_of(["dense", "fatty"])
    ('fatty', 'glandular', 'dense')
    >>> scale_of(["mass", "A"])
    """
    found = set(classes)
    return next((scale for scale in ORDERED_SCALES if found and found <= set(scale)), None)


def order_classes(classes: Iterable[str]) -> tuple[str, ...]:
    """Return classes in the order of their scale where they have one, else sorted.

    >>> order_classes({"fatty", "dense"}), order_classes({"mass", "asymmetry"})
    (('fatty', 'dense'), ('asymmetry', 'mass'))
    """
    found = set(classes)
    return tuple(name for name in scale_of(found) or sorted(found) if name in found)


def check_vectors(vectors: npt.ArrayLike) -> Array:
    """Return vectors as finite float64 (n, d), or refuse them.

    Float64, so that sums of products differ between block sizes by less than any similarity that a float32
    vector can tell.

    Raises:
        ClassificationError: Not two-dimensional, or not finite.
    """
    matrix = np.asarray(vectors, dtype=np.float64)
    if matrix.ndim != 2:
        raise ClassificationError("vectors", f"the shape is {matrix.shape}", "pass an array of shape (rows, dimension)")
    if not np.isfinite(matrix).all():
        row = int(np.flatnonzero(~np.isfinite(matrix).all(axis=1))[0])
        raise ClassificationError("vectors", f"row {row} holds a value that is not finite", "embed that finding again")
    return matrix


def canonical_order(vectors: Array, codes: Array, women: Array) -> Array:
    """Order rows by woman, label and bytes of their vector, so that a fit does not depend on their order.

    Args:
        vectors: (n, d) float64.
        codes: (n,) class indices.
        women: (n,) woman indices.

    Returns:
        (n,) row positions. Rows that this order cannot tell apart are equal in all three.
    """
    contiguous = np.ascontiguousarray(vectors)
    if contiguous.shape[1] == 0:
        return np.lexsort((codes, women))
    raw = contiguous.view(np.dtype((np.void, contiguous.itemsize * contiguous.shape[1]))).ravel()
    _, rank = np.unique(raw, return_inverse=True)
    return np.lexsort((rank, codes, women))


def women_per_class(codes: Array, women: Array, classes: int) -> Array:
    """Count the women behind each class: (classes,) int64. A woman with two labels counts in both."""
    pairs = np.unique(np.stack([codes, women], axis=1)[codes != MISSING], axis=0)
    return np.bincount(pairs[:, 0], minlength=classes)


def spread_columns(probabilities: Array, classes: Sequence[str], onto: Sequence[str]) -> Array:
    """Place probability columns of `classes` where `onto` has them; any other class has probability 0.

    Args:
        probabilities: (n, len(classes)).
        classes: The classes of the columns.
        onto: The classes wanted, a superset of `classes`.

    Returns:
        (n, len(onto)).
    """
    spread = np.zeros((len(probabilities), len(onto)))
    spread[:, [list(onto).index(name) for name in classes]] = probabilities
    return spread
