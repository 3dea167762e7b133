"""One vector for all tiles of a breast, and each tile's share in a linear score of it."""

from typing import Literal

import numpy as np
import numpy.typing as npt

Pooling = Literal["mean", "max", "top", "moments"]
Values = npt.NDArray[np.float32]

TOP_SHARE = 0.05
"""Share of the tiles whose mean is the `top`: a lesion is a few tiles of some hundreds."""

_PARTS: dict[str, tuple[str, ...]] = {
    "mean": ("mean",),
    "max": ("max",),
    "top": ("top",),
    "moments": ("mean", "spread", "top"),
}


def pool_tiles(features: npt.NDArray[np.floating], pooling: Pooling) -> Values:
    """Pool each feature over the tiles.

    `top` is the mean of a feature's highest twentieth (one tile at least), after the sparse assignment of Zhu et al.
    (MICCAI 2017); `moments` are the mean, the standard deviation and the top side by side.

    Args:
        features: (tiles, features), one tile at least.
        pooling: How.

    Returns:
        float32 (features,), or (3 * features,) for `moments`.
    """
    values = np.asarray(features, np.float32)
    return np.concatenate([_pooled(values, part) for part in _PARTS[pooling]])


def tile_shares(
    features: npt.NDArray[np.floating],
    pooling: Pooling,
    weights: npt.NDArray[np.floating],
    centre: npt.NDArray[np.floating],
) -> Values:
    """Return each tile's share in a linear score of the pooled vector less a centre; the shares add up to the score.

    A mean is a sum over tiles, and so is a standard deviation: of the squared distances from the mean over n times
    itself. A maximum is the share of one tile for each feature, a top of the few that it is the mean of.

    Args:
        features: (tiles, features).
        pooling: How they were pooled.
        weights: The linear score's weights, one for each number of the pooled vector.
        centre: What the pooled vector is compared with, as long as it.

    Returns:
        float32 (tiles,).
    """
    values, parts = np.asarray(features, np.float32), _PARTS[pooling]
    shares = np.zeros(len(values))
    for part, weight, middle in zip(parts, np.split(weights, len(parts)), np.split(centre, len(parts)), strict=True):
        shares += _apart(values, part, middle) @ weight
    return shares.astype(np.float32)


def _pooled(values: Values, part: str) -> Values:
    if part == "mean":
        return np.asarray(values.mean(axis=0))
    if part == "spread":
        return np.asarray(values.std(axis=0))
    if part == "max":
        return np.asarray(values.max(axis=0))
    count = _top_count(len(values))
    return np.asarray(np.partition(values, len(values) - count, axis=0)[len(values) - count :].mean(axis=0))


def _apart(values: Values, part: str, middle: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Return (tiles, features) that add up over the tiles to the pooled features less their middle."""
    count = len(values)
    if part == "mean":
        return (values.astype(np.float64) - middle) / count
    if part == "spread":
        apart = np.square(values - values.mean(axis=0), dtype=np.float64)
        spread = np.sqrt(apart.mean(axis=0))
        return np.divide(apart, count * spread, out=np.zeros_like(apart), where=spread > 0) - middle / count
    most = 1 if part == "max" else _top_count(count)
    chosen = np.zeros(values.shape, np.bool_)
    np.put_along_axis(chosen, np.argsort(-values, axis=0, kind="stable")[:most], True, axis=0)
    return np.where(chosen, values.astype(np.float64) - middle, 0) / most


def _top_count(tiles: int) -> int:
    return max(1, round(tiles * TOP_SHARE))
