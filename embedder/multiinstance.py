"""Which tiles of a breast to weigh, learned from whole images: gated attention on frozen features.

An image with a cancer shows it in few of its tiles, and one without in none. Gated attention learns which tiles count
(Ilse, Tomczak and Welling, Attention-based Deep Multiple Instance Learning, ICML 2018). It ends in a linear score of
each tile, so that every tile's share in the image's score is known.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from embedder.checkpoint import ModelError

Values = npt.NDArray[np.float32]

_BOUND = 6.0  # standard deviations: one wild tile must not be all there is to a bag
_SAMPLE = 24  # tiles of a bag that standardisation and principal components are fitted on


@dataclass(frozen=True)
class AttentionConfig:
    """How bags are scored by attention, and how that is learned.

    Args:
        components: Principal components of the standardised features that are kept.
        hidden: Hidden units of a tile, and of the attention.
        dropout: Share of hidden units dropped while training.
        tiles: Tiles of a bag drawn anew, with replacement, for each step.
        weight_decay: Of AdamW.
        learning_rate: Of AdamW, falling to 0 along a cosine.
        epochs: Passes over the bags.
        batch: Bags in a step.
        members: Networks of different starts whose scores are averaged.

    Raises:
        ModelError: An option is out of its range.
    """

    components: int = 48
    hidden: int = 16
    dropout: float = 0.3
    tiles: int = 64
    weight_decay: float = 0.1
    learning_rate: float = 3e-3
    epochs: int = 15
    batch: int = 32
    members: int = 3

    def __post_init__(self) -> None:
        counts = (self.components, self.hidden, self.tiles, self.epochs, self.batch)
        checks = {
            "components, hidden, tiles, epochs and batch are 1 to 100000": all(1 <= n <= 100_000 for n in counts),
            "dropout is at least 0 and below 1": 0 <= self.dropout < 1,
            "weight_decay is 0 to 10": 0 <= self.weight_decay <= 10,
            "learning_rate is above 0, and 1 at most": 0 < self.learning_rate <= 1,
            "members are 1 to 100": 1 <= self.members <= 100,
        }
        for rule, holds in checks.items():
            if not holds:
                raise ModelError("attention", f"an option is out of range: {rule}")


class Score(NamedTuple):
    """What a network says of bags.

    Attributes:
        logit: (bags,) the score of each.
        evidence: (bags, tiles) each tile's share in it: they add up to the logit less the bias; 0 where padded.
        attention: (bags, tiles) each tile's weight: they add up to 1; 0 where padded.
    """

    logit: Tensor
    evidence: Tensor
    attention: Tensor


class Projection(nn.Module):
    """Features standardised and turned to their principal components, scaled to mean square 1.

    Args:
        features: How many come in.
        components: How many go out, at most.
    """

    def __init__(self, features: int, components: int) -> None:
        super().__init__()
        self.components = min(components, features)
        self.centre = nn.Buffer(torch.zeros(features))
        self.spread = nn.Buffer(torch.ones(features))
        self.axes = nn.Buffer(torch.zeros(features, self.components))

    @torch.no_grad()
    def fit(self, bags: Sequence[npt.NDArray[np.floating]], seed: int) -> None:
        """Take centre, spread and axes from as many tiles of each bag: a large breast says no more than a small one.

        Args:
            bags: (tiles, features) each, of the women that may be known.
            seed: Of the draw.
        """
        generator = np.random.default_rng(seed)
        drawn = [bag[np.sort(generator.permutation(len(bag))[:_SAMPLE])] for bag in bags]
        values = torch.from_numpy(np.concatenate(drawn).astype(np.float32))
        self.centre.copy_(values.mean(dim=0, dtype=torch.float64))
        spread = values.double().std(dim=0, correction=0)
        self.spread.copy_(torch.where(spread > 1e-6, spread, 1.0))
        standard = self._standardised(values)
        variances, axes = torch.linalg.eigh((standard.T @ standard).double() / len(standard))
        kept = axes[:, -self.components :].flip(1)
        # A sign is arbitrary: the same tiles must give the same components.
        signs = torch.sign(kept.gather(0, kept.abs().argmax(dim=0, keepdim=True)))
        mean_square = variances[-self.components :].mean().clamp(min=1e-9)
        self.axes.copy_(kept * signs / mean_square.sqrt())

    def forward(self, tiles: Tensor) -> Tensor:
        """Return (tiles, components)."""
        return self._standardised(tiles) @ self.axes

    def _standardised(self, values: Tensor) -> Tensor:
        return ((values - self.centre) / self.spread).clamp(-_BOUND, _BOUND)


class AttentionNetwork(nn.Module):
    """Scores bags of projected tiles by gated attention.

    Args:
        components: How many numbers a tile has.
        hidden: Hidden units.
        dropout: Share of them dropped while training.
    """

    def __init__(self, components: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.tile = nn.Sequential(nn.Linear(components, hidden), nn.ReLU(), nn.Dropout(dropout))
        self.what, self.gate = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)
        self.weigh, self.score = nn.Linear(hidden, 1, bias=False), nn.Linear(hidden, 1, bias=False)
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, tiles: Tensor, there: Tensor | None = None) -> Score:
        """Score bags.

        Args:
            tiles: (bags, tiles, components), padded.
            there: bool (bags, tiles), False where padded, each bag has a tile; None where none is.
        """
        hidden = self.tile(tiles)
        weighed = self.weigh(torch.tanh(self.what(hidden)) * torch.sigmoid(self.gate(hidden)))[..., 0]
        attention = torch.softmax(weighed if there is None else weighed.masked_fill(~there, -torch.inf), dim=1)
        evidence = attention * self.score(hidden)[..., 0]
        return Score(evidence.sum(dim=1) + self.bias, evidence, attention)


class AttentionEnsemble(nn.Module):
    """Several networks on one projection; their scores are averaged.

    Args:
        features: How many numbers a tile has as it comes from the patch embedder.
        config: How it is made.
        seed: Of the networks' starts.
    """

    def __init__(self, features: int, config: AttentionConfig, seed: int = 0) -> None:
        super().__init__()
        self.config, self.seed = config, seed
        self.projection = Projection(features, config.components)
        members = []
        for member in range(config.members):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed * 1000 + member)
                members.append(AttentionNetwork(self.projection.components, config.hidden, config.dropout))
        self.members = nn.ModuleList(members)

    @torch.no_grad()
    def explain(self, features: npt.NDArray[np.floating]) -> tuple[float, Values, Values]:
        """Score one bag.

        Args:
            features: (tiles, features).

        Returns:
            The logit, and each tile's evidence and attention, float32 (tiles,) each; means over the networks.
        """
        self.eval()
        tiles = self.projection(torch.from_numpy(np.asarray(features, np.float32)))[None]
        found = [member(tiles) for member in self.members]
        logit, evidence, attention = (torch.stack(part).mean(dim=0) for part in zip(*found, strict=True))
        return float(logit[0]), evidence[0].numpy(), attention[0].numpy()

    def fit(
        self,
        bags: Sequence[npt.NDArray[np.floating]],
        positive: npt.NDArray[np.bool_],
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Learn from bags with one label each; both classes weigh the same.

        Args:
            bags: (tiles, features) each.
            positive: (bags,) the labels.
            progress: Called with epochs done and epochs in all.

        Raises:
            ModelError: The bags are of one class, or a bag has no tile.
        """
        if positive.all() or not positive.any():
            raise ModelError("attention", "all bags are of one class", "learn from images of both classes")
        if any(len(bag) == 0 for bag in bags):
            raise ModelError("attention", "a bag has no tile", "leave it out")
        self.projection.fit(bags, self.seed)
        with torch.no_grad():
            tiles = torch.cat([self.projection(torch.from_numpy(np.asarray(bag, np.float32))) for bag in bags])
        sizes = np.array([len(bag) for bag in bags])
        starts = np.cumsum(sizes) - sizes
        truth = torch.from_numpy(positive.astype(np.float32))
        share = float(positive.mean())
        weights = torch.from_numpy(np.where(positive, 0.5 / share, 0.5 / (1 - share)).astype(np.float32))
        for number, member in enumerate(self.members):
            generator = np.random.default_rng([self.seed, number])
            steps = -(-len(bags) // self.config.batch)
            optimiser = torch.optim.AdamW(
                member.parameters(), lr=self.config.learning_rate, weight_decay=self.config.weight_decay
            )
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps * self.config.epochs)
            member.train()
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seed * 1000 + 500 + number)  # of dropout
                for epoch in range(self.config.epochs):
                    for chosen in np.array_split(generator.permutation(len(bags)), steps):
                        drawn = generator.random((len(chosen), self.config.tiles)) * sizes[chosen, None]
                        places = torch.from_numpy(starts[chosen, None] + drawn.astype(np.int64))
                        losses = functional.binary_cross_entropy_with_logits(
                            member(tiles[places]).logit, truth[chosen], reduction="none"
                        )
                        optimiser.zero_grad()
                        (losses * weights[chosen]).mean().backward()
                        optimiser.step()
                        schedule.step()
                    if progress is not None:
                        progress(number * self.config.epochs + epoch + 1, len(self.members) * self.config.epochs)
        self.eval()
