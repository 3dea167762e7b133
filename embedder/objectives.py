"""What training minimises: cross-entropy per head plus a triplet loss between different women's findings."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from pytorch_metric_learning import distances, losses
from pytorch_metric_learning.utils import loss_and_miner_utils
from torch import Tensor, nn
from torch.nn import functional

from embedder.checkpoint import ModelError
from embedder.network import Output

Miner = Literal["all", "semihard", "hard", "batch-hard"]
Triplets = tuple[Tensor, Tensor, Tensor]

LOSSES = ("classification", "triplet", "total")
MISSING = -1  # the label index of a finding whose label is unknown


@dataclass(frozen=True)
class ObjectiveConfig:
    """Weights and choices of the training objective.

    Args:
        classification_weight: Weight of the mean cross-entropy over the heads; 0 leaves it out.
        triplet_weight: Weight of the triplet loss; 0 leaves it out.
        margin: Margin of the triplet loss between cosine distances (Schroff et al., FaceNet, 2015).
        miner: Which triplets count: `all`; `semihard` (negative farther than the positive, but within the
            margin; Schroff et al., 2015); `hard` (negative closer than the positive); `batch-hard` (each
            anchor's farthest positive and nearest negative; Hermans et al., 2017).
        label_smoothing: Share of the target spread over the other classes.

    Raises:
        ModelError: An option is out of its range.
    """

    classification_weight: float = 1.0
    triplet_weight: float = 1.0
    margin: float = 0.2
    miner: Miner = "semihard"
    label_smoothing: float = 0.1

    def __post_init__(self) -> None:
        checks = {
            "classification_weight and triplet_weight are 0 or more, and not both 0": min(
                self.classification_weight, self.triplet_weight
            )
            >= 0
            and self.classification_weight + self.triplet_weight > 0,
            "margin is above 0 and at most 2": 0 < self.margin <= 2,
            f"miner is {', '.join(get_args(Miner))}": self.miner in get_args(Miner),
            "label_smoothing is 0 or more and below 1": 0 <= self.label_smoothing < 1,
        }
        for rule, holds in checks.items():
            if not holds:
                raise ModelError("objective", f"an option is out of range: {rule}")


def mine_triplets(embeddings: Tensor, labels: Tensor, patients: Tensor, miner: Miner, margin: float) -> Triplets:
    """Choose triplets (anchor, positive, negative) of a batch; the positive is another woman's finding.

    Two findings of one woman share film, exposure and anatomy: as a positive pair they would teach the
    network to recognise the woman. A finding without a label is in no triplet.

    Args:
        embeddings: (batch, dimension), unit length.
        labels: (batch,) class indices, MISSING where unknown.
        patients: (batch,) woman indices.
        miner: Which triplets count.
        margin: Width of the semihard band.

    Returns:
        Three index tensors of one length, possibly empty.
    """
    anchors, positives, negatives = loss_and_miner_utils.get_all_triplets_indices(labels)
    keep = (patients[anchors] != patients[positives]) & (labels[anchors] != MISSING) & (labels[negatives] != MISSING)
    anchors, positives, negatives = anchors[keep], positives[keep], negatives[keep]
    if miner == "all" or anchors.numel() == 0:
        return anchors, positives, negatives
    distance = 1 - embeddings.detach() @ embeddings.detach().T
    to_positive, to_negative = distance[anchors, positives], distance[anchors, negatives]
    if miner == "batch-hard":
        return _hardest(anchors, positives, negatives, to_positive, to_negative, len(labels))
    gap = to_negative - to_positive
    chosen = gap <= 0 if miner == "hard" else (gap > 0) & (gap <= margin)
    return anchors[chosen], positives[chosen], negatives[chosen]


def _hardest(
    anchors: Tensor,
    positives: Tensor,
    negatives: Tensor,
    to_positive: Tensor,
    to_negative: Tensor,
    batch: int,
) -> Triplets:
    """Keep one triplet an anchor: its farthest positive with its nearest negative."""
    farthest = to_positive.new_full((batch,), -torch.inf).scatter_reduce(0, anchors, to_positive, "amax")
    nearest = to_negative.new_full((batch,), torch.inf).scatter_reduce(0, anchors, to_negative, "amin")
    chosen = torch.nonzero((to_positive == farthest[anchors]) & (to_negative == nearest[anchors])).flatten()
    # Ties leave several triplets of one anchor, which stand together (the library lists them by anchor): keep
    # the first.
    owner = anchors[chosen]
    first = torch.ones_like(owner, dtype=torch.bool)
    first[1:] = owner[1:] != owner[:-1]
    chosen = chosen[first]
    return anchors[chosen], positives[chosen], negatives[chosen]


class Objective(nn.Module):
    """The training loss of one batch.

    Args:
        config: Weights and choices.
        triplet_labels: The label columns on which triplets are formed.
        class_weights: Weight of each class in its head's cross-entropy, for heads that weigh their classes.
    """

    def __init__(
        self,
        config: ObjectiveConfig,
        triplet_labels: tuple[str, ...],
        class_weights: dict[str, Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.triplet_labels = triplet_labels
        self.class_weights = class_weights or {}
        self.triplet = losses.TripletMarginLoss(margin=config.margin, distance=distances.CosineSimilarity())

    def forward(self, output: Output, labels: dict[str, Tensor], patients: Tensor) -> dict[str, Tensor]:
        """Return `classification`, `triplet` and their weighted `total`, each a scalar.

        A part without a known label or a triplet in this batch is zero and carries no gradient.

        Args:
            output: The network's output.
            labels: One (batch,) tensor of class indices per head, MISSING where unknown.
            patients: (batch,) woman indices.
        """
        zero = output.embedding.sum() * 0.0
        entropies = [
            functional.cross_entropy(
                logits.float(),
                labels[name],
                weight=self.class_weights.get(name),
                ignore_index=MISSING,
                label_smoothing=self.config.label_smoothing,
            )
            for name, logits in output.logits.items()
            if bool((labels[name] != MISSING).any())
        ]
        classification = torch.stack(entropies).mean() if entropies else zero
        parts = []
        if self.config.triplet_weight > 0:
            for name in self.triplet_labels:
                triplets = mine_triplets(
                    output.embedding, labels[name], patients, self.config.miner, self.config.margin
                )
                if triplets[0].numel():
                    parts.append(self.triplet(output.embedding, indices_tuple=triplets))
        triplet = torch.stack(parts).mean() if parts else zero
        total = self.config.classification_weight * classification + self.config.triplet_weight * triplet
        return {"classification": classification, "triplet": triplet, "total": total}
