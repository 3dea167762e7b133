"""What training minimises: cross-entropy per head plus a metric loss between different women's findings."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from pytorch_metric_learning import distances, losses
from pytorch_metric_learning.utils import loss_and_miner_utils
from torch import Tensor, nn
from torch.nn import functional

from embedder.checkpoint import ModelError
from embedder.network import Output

MetricLoss = Literal["triplet", "contrastive", "multi-similarity", "proxy-anchor", "arcface"]
Miner = Literal["all", "semihard", "hard", "batch-hard"]
Triplets = tuple[Tensor, Tensor, Tensor]
Pairs = tuple[Tensor, Tensor, Tensor, Tensor]

LOSSES = ("classification", "metric", "total")
PROXY_LOSSES = ("proxy-anchor", "arcface")
"""Metric losses that compare a finding with a learned vector of each class, not with other findings."""
MISSING = -1  # the label index of a finding whose label is unknown


@dataclass(frozen=True)
class ObjectiveConfig:
    """Weights and choices of the training objective.

    Args:
        classification_weight: Weight of the mean cross-entropy over the heads; 0 leaves it out.
        metric_weight: Weight of the metric loss; 0 leaves it out.
        metric: `triplet` (Schroff et al., FaceNet, 2015), `contrastive` (supervised contrastive; Khosla et al.,
            2020), `multi-similarity` (Wang et al., 2019), `proxy-anchor` (Kim et al., 2020) or `arcface` (Deng et
            al., 2019), with their authors' settings.
        margin: Margin of the triplet loss between cosine distances.
        miner: Which triplets count; the other losses take every pair: `all`; `semihard` (negative farther than the
            positive, but within the margin; Schroff et al., 2015); `hard` (negative closer than the positive);
            `batch-hard` (each anchor's farthest positive and nearest negative; Hermans et al., 2017).
        label_smoothing: Share of the target spread over the other classes.
        focal: Exponent by which the cross-entropy leaves easy findings aside (Lin et al., Focal Loss, 2017); 0 is
            plain cross-entropy, the paper takes 2.

    Raises:
        ModelError: An option is out of its range.
    """

    classification_weight: float = 1.0
    metric_weight: float = 1.0
    metric: MetricLoss = "triplet"
    margin: float = 0.2
    miner: Miner = "semihard"
    label_smoothing: float = 0.1
    focal: float = 0.0

    def __post_init__(self) -> None:
        checks = {
            "classification_weight and metric_weight are 0 or more, and not both 0": min(
                self.classification_weight, self.metric_weight
            )
            >= 0
            and self.classification_weight + self.metric_weight > 0,
            f"metric is {', '.join(get_args(MetricLoss))}": self.metric in get_args(MetricLoss),
            "margin is above 0 and at most 2": 0 < self.margin <= 2,
            f"miner is {', '.join(get_args(Miner))}": self.miner in get_args(Miner),
            "label_smoothing is 0 or more and below 1": 0 <= self.label_smoothing < 1,
            "focal is 0 to 10": 0 <= self.focal <= 10,
        }
        for rule, holds in checks.items():
            if not holds:
                raise ModelError("objective", f"an option is out of range: {rule}")


def pairs_between_women(labels: Tensor, patients: Tensor) -> Pairs:
    """Return all pairs of a batch: alike findings of two women, and findings that are not alike.

    Args:
        labels: (batch,) class indices, MISSING where unknown; such a finding is in no pair.
        patients: (batch,) woman indices.

    Returns:
        Two index tensors of the alike, and two of the unlike.
    """
    first, positive, second, negative = loss_and_miner_utils.get_all_pairs_indices(labels)
    alike = (patients[first] != patients[positive]) & (labels[first] != MISSING)
    unlike = (labels[second] != MISSING) & (labels[negative] != MISSING)
    return first[alike], positive[alike], second[unlike], negative[unlike]


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
        metric_labels: The label columns on which the metric loss is formed.
        classes: How many classes each head has.
        dimension: Length of the embedding; losses that learn a vector of each class need both.
        class_weights: Weight of each class in its head's cross-entropy, for heads that weigh their classes.
    """

    def __init__(
        self,
        config: ObjectiveConfig,
        metric_labels: tuple[str, ...],
        classes: Mapping[str, int],
        dimension: int,
        class_weights: dict[str, Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.metric_labels = metric_labels
        self.class_weights = class_weights or {}
        # Columns learn apart: each has its own classes, and a loss may have a vector of each of them.
        used = metric_labels if config.metric_weight > 0 else ()
        self.metrics = nn.ModuleDict({name: _metric_loss(config, classes[name], dimension) for name in used})

    def forward(
        self, output: Output, labels: dict[str, Tensor], patients: Tensor, mixed: "Mixed | None" = None
    ) -> dict[str, Tensor]:
        """Return `classification`, `metric` and their weighted `total`, each a scalar.

        A part without a known label, a pair or a triplet in this batch is zero and carries no gradient.

        Args:
            output: The network's output.
            labels: One (batch,) tensor of class indices per head, MISSING where unknown.
            patients: (batch,) woman indices.
            mixed: What was mixed into the findings; the metric loss knows the larger part only.
        """
        zero = output.embedding.sum() * 0.0
        classification = self._classification(output, labels, zero)
        if mixed is not None:
            other = self._classification(output, {name: codes[mixed.order] for name, codes in labels.items()}, zero)
            classification = mixed.share * classification + (1 - mixed.share) * other
        parts = [
            part
            for name in self.metrics
            if (part := self._metric(name, output.embedding, labels[name], patients)) is not None
        ]
        metric = torch.stack(parts).mean() if parts else zero
        total = self.config.classification_weight * classification + self.config.metric_weight * metric
        return {"classification": classification, "metric": metric, "total": total}

    def _classification(self, output: Output, labels: dict[str, Tensor], zero: Tensor) -> Tensor:
        entropies = [
            self._entropy(logits.float(), labels[name], self.class_weights.get(name))
            for name, logits in output.logits.items()
            if bool((labels[name] != MISSING).any())
        ]
        return torch.stack(entropies).mean() if entropies else zero

    def _entropy(self, logits: Tensor, labels: Tensor, weight: Tensor | None) -> Tensor:
        smoothing = self.config.label_smoothing
        if self.config.focal == 0:
            return functional.cross_entropy(
                logits, labels, weight=weight, ignore_index=MISSING, label_smoothing=smoothing
            )
        known = labels != MISSING
        logits, labels = logits[known], labels[known]
        each = functional.cross_entropy(logits, labels, weight=weight, label_smoothing=smoothing, reduction="none")
        own = logits.softmax(dim=1).gather(1, labels[:, None])[:, 0]
        count = len(labels) if weight is None else weight[labels].sum()
        return ((1 - own) ** self.config.focal * each).sum() / count

    def _metric(self, name: str, embedding: Tensor, labels: Tensor, patients: Tensor) -> Tensor | None:
        """Return the metric loss on one label column, None where the batch has nothing to compare."""
        loss = self.metrics[name]
        if self.config.metric in PROXY_LOSSES:
            known = labels != MISSING
            return loss(embedding[known], labels[known]) if bool(known.any()) else None
        chosen: Triplets | Pairs
        if self.config.metric == "triplet":
            chosen = mine_triplets(embedding, labels, patients, self.config.miner, self.config.margin)
        else:
            chosen = pairs_between_women(labels, patients)
        return loss(embedding, indices_tuple=chosen) if chosen[0].numel() else None


@dataclass(frozen=True, eq=False)
class Mixed:
    """What a batch was mixed with.

    Attributes:
        share: Of a finding's own pixels, one half or more.
        order: (batch,) which finding of the batch makes up the rest of each.
    """

    share: float
    order: Tensor


def _metric_loss(config: ObjectiveConfig, classes: int, dimension: int) -> nn.Module:
    if config.metric == "contrastive":
        return losses.SupConLoss(temperature=0.1)
    if config.metric == "multi-similarity":
        return losses.MultiSimilarityLoss(alpha=2, beta=50, base=0.5)
    if config.metric == "proxy-anchor":
        return losses.ProxyAnchorLoss(classes, dimension, margin=0.1, alpha=32)
    if config.metric == "arcface":
        return losses.ArcFaceLoss(classes, dimension, margin=28.6, scale=64)
    return losses.TripletMarginLoss(margin=config.margin, distance=distances.CosineSimilarity())
