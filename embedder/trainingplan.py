"""What a training is asked for: its options, its augmentation, and the labels that form its triplets."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from embedder.augmentation import BREAST_AUGMENTATION, AugmentationConfig
from embedder.checkpoint import ModelError
from embedder.ensemble import MOST_MEMBERS
from embedder.objectives import ObjectiveConfig
from embedder.preparation import PreparationConfig
from embedder.sampling import Balance

SEEDS = 2**32
"""Seeds are below it: scikit-learn's shuffling takes no larger ones."""

# Far above what any training needs: a slip of the keyboard is told at once, not after an hour or by the memory.
MOST_EPOCHS = 100_000
MOST_IN_BATCH = 1000


@dataclass(frozen=True)
class TrainingConfig:
    """How long and how a network is trained.

    Args:
        epochs: Passes over the training findings.
        classes_per_batch: P, classes in a batch.
        findings_per_class: K, findings of each class in a batch.
        balance: How classes of unlike size are balanced, see `ClassBatches`.
        learning_rate: Of the new layers, at the start.
        backbone_rate: The backbone's learning rate as a share of it.
        schedule: `step` multiplies by `decay` each epoch, `cosine` falls to zero at the last.
        decay: Factor of the step schedule.
        weight_decay: Of AdamW.
        trainable: `all` trains everything from the start; `layers` opens the backbone from its last group of
            layers on, one more every `layers_every` epochs; `head` leaves the backbone as it is.
        layers_every: Epochs between two openings.
        backbone_norm: `batch` re-estimates the backbone's batch norm on mammograms, `frozen` keeps its
            statistics.
        validation_share: Share of women held out to choose the best epoch, where the manifest has no
            validation split; 0 keeps the last epoch instead.
        precision: `float32`, `bfloat16` mixed with it, or `auto` (bfloat16 where the GPU computes it itself).
        compile: Compile the network with torch.compile: it takes a minute, pays off in long trainings on a
            GPU, and needs a C++ compiler (or Triton) on the machine.
        members: Networks that are trained and answer together as one model, see `embedder.ensemble.Ensemble`; each
            costs a training and a forward pass.
        members_by: What members differ in: `folds` (each leaves out another part of the women, who choose its best
            epoch, in place of `validation_share`) or `seeds` (each is trained as one alone would be).
        seed: Seed of everything random, 0 or more and less than SEEDS.
        augmentation: How crops are varied; None takes what suits the granularity.
        objective: The losses.

    Raises:
        ModelError: An option is out of its range.
    """

    epochs: int = 30
    classes_per_batch: int = 6
    findings_per_class: int = 4
    balance: Balance = "over"
    learning_rate: float = 1e-3
    backbone_rate: float = 0.3
    schedule: Literal["step", "cosine"] = "cosine"
    decay: float = 0.99
    weight_decay: float = 1e-2
    trainable: Literal["all", "layers", "head"] = "all"
    layers_every: int = 2
    backbone_norm: Literal["batch", "frozen"] = "frozen"
    validation_share: float = 0.15
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    compile: bool = False
    members: int = 1
    members_by: Literal["folds", "seeds"] = "folds"
    seed: int = 0
    augmentation: AugmentationConfig | None = None
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)

    def __post_init__(self) -> None:
        checks = {
            f"epochs is 1 to {MOST_EPOCHS}": 1 <= self.epochs <= MOST_EPOCHS,
            f"classes_per_batch and findings_per_class are 2 to {MOST_IN_BATCH}": 2
            <= min(self.classes_per_batch, self.findings_per_class)
            <= max(self.classes_per_batch, self.findings_per_class)
            <= MOST_IN_BATCH,
            "balance is over, under, weights or none": self.balance in ("over", "under", "weights", "none"),
            "learning_rate is above 0 and at most 10": 0 < self.learning_rate <= 10,
            "backbone_rate is 0 to 100": 0 <= self.backbone_rate <= 100,
            "schedule is step or cosine": self.schedule in ("step", "cosine"),
            "decay is above 0 and at most 1": 0 < self.decay <= 1,
            "weight_decay is 0 to 100": 0 <= self.weight_decay <= 100,
            "trainable is all, layers or head": self.trainable in ("all", "layers", "head"),
            f"layers_every is 1 to {MOST_EPOCHS}": 1 <= self.layers_every <= MOST_EPOCHS,
            "backbone_norm is batch or frozen": self.backbone_norm in ("batch", "frozen"),
            "validation_share is 0 to 0.5": 0 <= self.validation_share <= 0.5,
            "precision is auto, float32 or bfloat16": self.precision in ("auto", "float32", "bfloat16"),
            f"members is 1 to {MOST_MEMBERS}": 1 <= self.members <= MOST_MEMBERS,
            "members_by is folds or seeds": self.members_by in ("folds", "seeds"),
            "seed is 0 to 2**32 - 1": 0 <= self.seed < SEEDS,
        }
        for rule, holds in checks.items():
            if not holds:
                raise ModelError("training", f"an option is out of range: {rule}")

    @property
    def all_epochs(self) -> int:
        """Epochs of all members."""
        return self.members * self.epochs

    def rate(self, epoch: int) -> float:
        """Return the learning rate of the new layers in an epoch, counted from 0.

        >>> [TrainingConfig(schedule="step").rate(epoch) for epoch in range(2)]
        [0.001, 0.00099]
        """
        if self.schedule == "step":
            return self.learning_rate * self.decay**epoch
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * epoch / self.epochs))


def choose_augmentation(training: TrainingConfig, preparation: PreparationConfig) -> AugmentationConfig:
    """Return the augmentation that was asked for, else what suits the granularity."""
    if training.augmentation is not None:
        return training.augmentation
    return BREAST_AUGMENTATION if preparation.granularity == "breast" else AugmentationConfig()


def choose_metric_labels(
    heads: Mapping[str, tuple[str, ...]], asked: tuple[str, ...] | None, granularity: str, datasets: int
) -> tuple[str, ...]:
    """Return the columns on which the metric loss is formed, the leading one first.

    Args:
        heads: The label columns that can be learned, with their classes.
        asked: The columns that the user named; None chooses.
        granularity: `finding` or `breast`.
        datasets: How many data sets the rows come from. One data set's own lesion types are finer than
            BI-RADS's (six in mini-MIAS); of several, they are not one vocabulary.

    Raises:
        ModelError: A column asked for has no head.
    """
    if asked is not None:
        missing = [name for name in asked if name not in heads]
        if missing or not asked:
            names = ", ".join(missing) or "no label"
            raise ModelError("training", f"no triplets can be formed on {names}", f"use {', '.join(heads)}")
        return asked
    lesion = "native_lesion_type" if datasets == 1 and "native_lesion_type" in heads else "lesion_type"
    # Tissue leads: half of a batch is normal then, whatever the kinds of lesion and their number.
    preferred = ("density", "pathology") if granularity == "breast" else ("tissue", lesion, "pathology")
    return tuple(name for name in preferred if name in heads) or tuple(heads)
