"""Cells, and a turn of the vectors after which product quantisation loses less.

Product quantisation codes each part of a vector by itself, with as many bits for each: that is best where the parts
vary equally much and independently. The principal axes are independent, and dealing them out so that the products of
their variances are equal does the rest: the parametric solution of optimised product quantisation (Ge et al., Optimized
Product Quantization, TPAMI 2014, section 4), in seconds where the iterative one takes minutes. What is coded is the way
from the centre of a cell, so it is that way's variances that count.
"""

from typing import Any

import faiss as _faiss
import numpy as np

from index import faissfile
from index.vectors import Positions, Vectors

faiss: Any = _faiss  # Its Python wrappers take other arguments than the C++ classes that its stubs describe.

_ROUNDS = 10  # of k-means, as many as FAISS takes for an inverted file
_SEED = 2
_BLOCK = 1 << 13  # rows compared with the centres at a time


def prepare(index: Any, sample: Vectors) -> None:
    """Find the cells and the turn of an index that has both (`OPQ` and `IVF`); any other is left as it is.

    Args:
        index: Not trained yet. What remains is for FAISS to train.
        sample: float32 (n, d).
    """
    inverted = faissfile.cells_of(index)
    if not isinstance(index, faiss.IndexPreTransform) or index.chain.size() != 1 or inverted is None:
        return
    step = faiss.downcast_VectorTransform(index.chain.at(0))
    flat = isinstance(faiss.downcast_index(inverted.quantizer), faiss.IndexFlat)
    if not (flat and isinstance(step, faiss.OPQMatrix) and step.d_in == step.d_out < len(sample)):
        return
    centres = find_centres(sample, inverted.nlist)
    way = sample - centres[nearest_centres(sample, centres)] if inverted.by_residual else sample
    axes = balanced_axes(way, step.M)
    faiss.copy_array_to_vector(axes.ravel(), step.A)
    step.is_trained = step.is_orthonormal = True
    inverted.quantizer.add(np.ascontiguousarray(centres @ axes.T))


def find_centres(sample: Vectors, count: int) -> Vectors:
    """Return the centres of cells by spherical k-means, float32 (count, d), of unit length.

    Args:
        sample: float32 (n, d), n at least count.
        count: How many.
    """
    rng = np.random.default_rng(_SEED)
    centres = sample[np.sort(rng.choice(len(sample), count, replace=False))]
    for _ in range(_ROUNDS):
        cells = nearest_centres(sample, centres)
        order = np.argsort(cells, kind="stable")
        sizes = np.bincount(cells, minlength=count)
        held = np.flatnonzero(sizes)
        sums = np.add.reduceat(sample[order], np.concatenate([[0], np.cumsum(sizes[held])[:-1]]), axis=0)
        centres = sample[rng.choice(len(sample), count)]  # an empty cell starts anew elsewhere
        centres[held] = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
    return np.ascontiguousarray(centres, np.float32)


def nearest_centres(vectors: Vectors, centres: Vectors) -> Positions:
    """Return the centre nearest to each vector, int64 (n,)."""
    blocks = range(0, len(vectors), _BLOCK)
    return np.concatenate([np.argmax(vectors[at : at + _BLOCK] @ centres.T, axis=1) for at in blocks])


def balanced_axes(sample: Vectors, parts: int) -> Vectors:
    """Return the principal axes of a sample, dealt out to parts so that the products of their variances are equal.

    Args:
        sample: float32 (n, d).
        parts: How many; they divide d.

    Returns:
        float32 (d, d), an orthonormal axis in each row, those of the first part first.
    """
    dimension = sample.shape[1]
    product = np.zeros((dimension, dimension))
    for start in range(0, len(sample), 1 << 14):
        part = sample[start : start + (1 << 14)].astype(np.float64)
        product += part.T @ part
    variances, axes = np.linalg.eigh(product / len(sample))
    dealt: list[list[int]] = [[] for _ in range(parts)]
    filled = np.zeros(parts)
    for axis in range(dimension - 1, -1, -1):  # from the largest variance to the smallest
        part_number = int(np.argmin(filled))
        dealt[part_number].append(axis)
        filled[part_number] += np.log(max(variances[axis], 1e-12) / 1e-12)
        if len(dealt[part_number]) == dimension // parts:
            filled[part_number] = np.inf
    return np.ascontiguousarray(axes[:, [axis for part in dealt for axis in part]].T, np.float32)
