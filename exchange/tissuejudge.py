"""Lesion or normal tissue: what a linear head and the nearest known places of other women say of vectors."""

import numpy as np
import numpy.typing as npt
from scipy.special import logit

from classifiers.heads import LinearHead
from classifiers.neighbours import VoteConfig
from exchange import ExchangeError
from index.exact import ExactEngine
from index.vectors import StoredVectors

Vectors = npt.NDArray[np.float32]
Array = npt.NDArray[np.float64]

LESION, NORMAL = "lesion", "normal"

_FEW = 10  # places whose mean says little of what is usual on an image


class TissueJudge:
    """A linear head and a vote, fitted to known lesions and normal tissue.

    Args:
        vectors: float32 (n, d), unit length.
        labels: (n,) `LESION` or `NORMAL`.
        women: (n,) their keys.
        config: How neighbours vote, see `classifiers.neighbours.VoteConfig`.

    Raises:
        ExchangeError: There are no lesions, or no normal tissue.
    """

    def __init__(
        self,
        vectors: Vectors,
        labels: npt.NDArray[np.object_],
        women: npt.NDArray[np.object_],
        config: VoteConfig | None = None,
    ) -> None:
        self.config = config or VoteConfig()
        self._lesion = np.asarray(labels == LESION, np.bool_)
        for name, held in ((LESION, self._lesion.any()), (NORMAL, not self._lesion.all())):
            if not held:
                raise ExchangeError(
                    "gallery",
                    f"holds no {'lesion' if name == LESION else 'normal tissue'} of other women to compare places with",
                    "add normal tissue to the manifest by `mammoseek dataset normal`, and build the gallery from it",
                )
        head = LinearHead().fit(vectors, labels, women)
        sign = 1 if head.classes_.index(LESION) == 1 else -1
        self._weights: Array = sign * (head.coefficients_[1] - head.coefficients_[0])
        self._bias = sign * float(head.intercepts_[1] - head.intercepts_[0])
        matrix = np.ascontiguousarray(vectors, np.float32)
        names = np.arange(len(matrix)).astype(str).astype(object)
        self._engine = ExactEngine(StoredVectors([matrix], matrix.shape[1]), lambda positions: names[positions])
        self._normal_mean = matrix[~self._lesion].mean(axis=0)

    def log_odds(self, vectors: Vectors) -> Array:
        """Return (q,) the mean of the head's and the vote's log odds of a lesion.

        Both have the class shares of the gallery in them, where places of normal tissue are few for each lesion; on an
        image they are many. The odds therefore order places, and are no chance of a lesion.

        Args:
            vectors: float32 (q, d), unit length.
        """
        if not len(vectors):
            return np.empty(0)
        head = vectors.astype(np.float64) @ self._weights + self._bias
        return np.asarray((head + logit(self._vote(vectors))) / 2)

    def aligned(self, vectors: Vectors) -> Vectors:
        """Return dense vectors moved so that their mean is that of known normal tissue, unit length again.

        A window of a dense map differs from a crop in the network's padding, all windows in much the same way, and a
        film differs from others in its grey. As nearly all places of a breast are normal tissue, their mean and that of
        the gallery's normal tissue should be one.

        Args:
            vectors: float32 (q, d), all places of an image at one scale; left as they are where these are few.
        """
        if len(vectors) < _FEW:
            return vectors
        moved = vectors + (self._normal_mean - vectors.mean(axis=0))
        lengths = np.linalg.norm(moved, axis=1, keepdims=True)
        return np.asarray(moved / np.maximum(lengths, 1e-12), np.float32)

    def _vote(self, vectors: Vectors) -> Array:
        """Return (q,) the share of lesions among the nearest, as `NeighbourVote` weighs and smooths it."""
        config = self.config
        hits = self._engine.search(np.ascontiguousarray(vectors, np.float32), min(config.k, len(self._lesion)))
        similarities = hits.similarities.astype(np.float64)
        weights = np.exp((similarities - similarities[:, :1]) / config.temperature)
        lesions = (weights * self._lesion[hits.positions]).sum(axis=1)
        share = float(self._lesion.mean())
        return np.asarray((lesions + config.prior_weight * share) / (weights.sum(axis=1) + config.prior_weight))
