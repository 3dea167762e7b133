"""Scores of whole breasts from their tiles: a linear one of pooled tiles, or gated attention; how each is made."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from embedder.bags import BagFiles
from embedder.checkpoint import ModelError
from embedder.multiinstance import AttentionConfig, AttentionEnsemble
from embedder.tilepooling import pool_tiles, tile_shares

Method = Literal["moments", "mean", "max", "top", "attention"]
Values = npt.NDArray[np.float32]
Inputs = Sequence[npt.NDArray[np.floating]]


@dataclass(frozen=True)
class ScorerConfig:
    """How the tiles of a breast become one score.

    Args:
        method: `attention`, or how tiles are pooled for a linear score, see `embedder.tilepooling`.
        strength: Inverse strength of the linear score's regularisation (C of the logistic regression).
        attention: Options of `attention`.
        seed: Of what is drawn at random; linear scores draw nothing.

    Raises:
        ModelError: An option is out of its range.
    """

    method: Method = "moments"
    strength: float = 0.03
    attention: AttentionConfig = field(default_factory=AttentionConfig)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise ModelError("scorer", f"method {self.method!r} is unknown", f"use {', '.join(get_args(Method))}")
        if not 0 < self.strength <= 1e6 or not 0 <= self.seed <= 2**31:
            raise ModelError("scorer", "strength is above 0 and 1e6 at most, seed is 0 to 2**31")

    def to_dict(self) -> dict[str, Any]:
        """Return the options as plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, options: Mapping[str, Any]) -> "ScorerConfig":
        """Rebuild a configuration from its plain values.

        Raises:
            ModelError: An option is out of its range.
            TypeError: An option is unknown.
        """
        return cls(**{**options, "attention": AttentionConfig(**options["attention"])})


class Scorer(Protocol):
    """What scores breasts by their tiles."""

    def fit(
        self, inputs: Inputs, positive: npt.NDArray[np.bool_], progress: Callable[[int, int], None] | None = None
    ) -> None:
        """Learn from one input (see `scorer_inputs`) and one label a breast."""

    def logits(self, inputs: Inputs) -> npt.NDArray[np.float64]:
        """Return (breasts,) scores."""

    def explain(self, features: npt.NDArray[np.floating]) -> tuple[float, Values, Values]:
        """Return a breast's logit, each tile's evidence (adding up to it less a constant), and its attention."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return what was learned."""

    def load_state_dict(self, state: dict[str, Tensor]) -> Any:
        """Take what was learned."""


class LinearScorer:
    """Logistic regression on tiles that were pooled and standardised, both classes weighing the same.

    Args:
        features: How many numbers a tile has.
        config: How tiles are pooled, and the regularisation.
    """

    def __init__(self, features: int, config: ScorerConfig) -> None:
        self.config = config
        length = len(pool_tiles(np.zeros((1, features), np.float32), config.method))  # type: ignore[arg-type]
        self.centre, self.weights, self.bias = torch.zeros(length), torch.zeros(length), torch.zeros(())

    def fit(
        self, inputs: Inputs, positive: npt.NDArray[np.bool_], progress: Callable[[int, int], None] | None = None
    ) -> None:
        """Learn from pooled vectors.

        Raises:
            ModelError: The breasts are of one class.
        """
        if positive.all() or not positive.any():
            raise ModelError("scorer", "all breasts are of one class", "learn from images of both classes")
        pooled = np.stack(list(inputs)).astype(np.float64)
        centre, spread = pooled.mean(axis=0), pooled.std(axis=0)
        scale = np.where(spread > 1e-6, spread, np.inf)  # what never changes has no say
        model = LogisticRegression(C=self.config.strength, class_weight="balanced", max_iter=1000)
        model.fit((pooled - centre) / scale, positive)
        self.centre = torch.from_numpy(centre.astype(np.float32))
        self.weights = torch.from_numpy((model.coef_[0] / scale).astype(np.float32))
        self.bias = torch.tensor(float(model.intercept_[0]))
        if progress is not None:
            progress(1, 1)

    def logits(self, inputs: Inputs) -> npt.NDArray[np.float64]:
        """Return (breasts,) scores of pooled vectors."""
        pooled = np.stack(list(inputs)).astype(np.float64)
        return np.asarray((pooled - self.centre.numpy()) @ self.weights.numpy() + float(self.bias), np.float64)

    def explain(self, features: npt.NDArray[np.floating]) -> tuple[float, Values, Values]:
        """Return a breast's logit, each tile's share in it, and as attention its part of what speaks for a cancer."""
        method: Any = self.config.method
        shares = tile_shares(features, method, self.weights.numpy(), self.centre.numpy())
        logit = float(self.logits([pool_tiles(features, method)])[0])
        speaking = np.clip(shares, 0, None)
        return logit, shares, (speaking / max(float(speaking.sum()), 1e-12)).astype(np.float32)

    def state_dict(self) -> dict[str, Tensor]:
        """Return what was learned."""
        return {"centre": self.centre, "weights": self.weights, "bias": self.bias}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take what was learned.

        Raises:
            KeyError: A part is missing.
            ValueError: A part is of another shape.
        """
        for name, held in self.state_dict().items():
            if state[name].shape != held.shape:
                raise ValueError(f"{name} has the shape {tuple(state[name].shape)}, not {tuple(held.shape)}")
            setattr(self, name, state[name])


class AttentionScorer:
    """Gated attention over tiles, see `embedder.multiinstance`.

    Args:
        features: How many numbers a tile has.
        config: Its options and seed.
    """

    def __init__(self, features: int, config: ScorerConfig) -> None:
        self.ensemble = AttentionEnsemble(features, config.attention, config.seed)

    def fit(
        self, inputs: Inputs, positive: npt.NDArray[np.bool_], progress: Callable[[int, int], None] | None = None
    ) -> None:
        """Learn from (tiles, features) of each breast."""
        self.ensemble.fit(inputs, positive, progress)

    def logits(self, inputs: Inputs) -> npt.NDArray[np.float64]:
        """Return (breasts,) scores."""
        return np.array([self.explain(features)[0] for features in inputs], np.float64)

    def explain(self, features: npt.NDArray[np.floating]) -> tuple[float, Values, Values]:
        """Return a breast's logit, and each tile's evidence and attention."""
        return self.ensemble.explain(features)

    def state_dict(self) -> dict[str, Tensor]:
        """Return what was learned."""
        return dict(self.ensemble.state_dict())

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take what was learned."""
        self.ensemble.load_state_dict(state)


def make_scorer(features: int, config: ScorerConfig) -> Scorer:
    """Return an unfitted scorer of the configured method."""
    return AttentionScorer(features, config) if config.method == "attention" else LinearScorer(features, config)


def scorer_inputs(bags: BagFiles, method: Method) -> list[npt.NDArray[np.floating]]:
    """Return what a method learns from: the pooled vector of each breast, or all of its tiles.

    Both depend on the image alone, so they may be computed before women are split into folds.
    """
    rows = range(len(bags.frame))
    if method == "attention":
        return [bags.features(row) for row in rows]
    return [pool_tiles(bags.features(row), method) for row in rows]
