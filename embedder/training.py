"""Fine-tune an embedder on a manifest: classification and triplet losses, validated by retrieval on held-out women."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from embedder.augmentation import BREAST_AUGMENTATION, AugmentationConfig
from embedder.checkpoint import ModelCard, ModelError, code_version, save_model, woman_digest
from embedder.devices import choose_device
from embedder.findings import manifest_digest, patient_key
from embedder.network import NetworkConfig
from embedder.objectives import ObjectiveConfig
from embedder.preparation import PreparationConfig
from embedder.roles import label_classes, split_women
from embedder.rois import CropStore, load_crops
from embedder.sampling import Balance


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
        trainable: `all` trains everything from the start; `layers` opens the backbone from its last group of layers
            on, one more every `layers_every` epochs; `head` leaves the backbone as it is.
        layers_every: Epochs between two openings.
        backbone_norm: `batch` re-estimates the backbone's batch norm on mammograms, `frozen` keeps its statistics.
        validation_share: Share of women held out to choose the best epoch, where the manifest has no validation
            split; 0 keeps the last epoch instead.
        precision: `float32`, `bfloat16`, or `auto` (bfloat16 where the GPU has it).
        compile: Compile the network with torch.compile.
        seed: Seed of everything random.
        augmentation: How crops are varied; None takes what suits the granularity.
        objective: The losses.
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
    validation_share: float = 0.2
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    compile: bool = False
    seed: int = 0
    augmentation: AugmentationConfig | None = None
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)

    def __post_init__(self) -> None:
        checks = {
            "epochs is 1 or more": self.epochs >= 1,
            "classes_per_batch and findings_per_class are 2 or more": self.classes_per_batch >= 2
            and self.findings_per_class >= 2,
            "learning_rate is positive": self.learning_rate > 0,
            "validation_share is 0 to 0.5": 0 <= self.validation_share <= 0.5,
            "layers_every is 1 or more": self.layers_every >= 1,
            "balance is over, under, weights or none": self.balance in ("over", "under", "weights", "none"),
            "schedule is step or cosine": self.schedule in ("step", "cosine"),
            "trainable is all, layers or head": self.trainable in ("all", "layers", "head"),
        }
        for rule, holds in checks.items():
            if not holds:
                raise ModelError("training", f"an option is out of range: {rule}")

    def rate(self, epoch: int) -> float:
        """Return the learning rate of the new layers in an epoch, counted from 0."""
        if self.schedule == "step":
            return self.learning_rate * self.decay**epoch
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * epoch / self.epochs))


@dataclass(frozen=True)
class EpochReport:
    """What one epoch gave: mean losses and, where women are held out, retrieval MAP@R by label."""

    epoch: int
    epochs: int
    losses: Mapping[str, float]
    validation: Mapping[str, float]
    best: bool


@dataclass(frozen=True)
class TrainingResult:
    """The finished model's digest and card, and the rows whose images failed."""

    digest: str
    card: ModelCard
    failures: list[tuple[str, str]]


@dataclass(frozen=True)
class TrainingCallbacks:
    """Where a training tells of its progress; each may be left out.

    Attributes:
        reading: Called with crops read and crops in all.
        batch: Called with epoch, batches done and batches in the epoch.
        epoch: Called after each epoch.
    """

    reading: Callable[[int, int], None] | None = None
    batch: Callable[[int, int, int], None] | None = None
    epoch: Callable[[EpochReport], None] | None = None


def choose_augmentation(training: TrainingConfig, preparation: PreparationConfig) -> AugmentationConfig:
    """Return the augmentation that was asked for, else what suits the granularity."""
    if training.augmentation is not None:
        return training.augmentation
    return BREAST_AUGMENTATION if preparation.granularity == "breast" else AugmentationConfig()


def choose_triplet_labels(
    heads: Mapping[str, tuple[str, ...]], asked: tuple[str, ...] | None, granularity: str
) -> tuple[str, ...]:
    """Return the columns on which triplets are formed.

    Raises:
        ModelError: A column asked for has no head.
    """
    if asked is not None:
        missing = [name for name in asked if name not in heads]
        if missing or not asked:
            raise ModelError(
                "training", f"no triplets can be formed on {', '.join(missing) or 'no label'}", f"use {', '.join(heads)}"
            )
        return asked
    preferred = ("density", "pathology") if granularity == "breast" else ("lesion_type", "pathology")
    return tuple(name for name in preferred if name in heads) or tuple(heads)


def train(
    frame: pd.DataFrame,
    folder: Path,
    *,
    network: NetworkConfig | None = None,
    preparation: PreparationConfig | None = None,
    training: TrainingConfig | None = None,
    labels: tuple[str, ...] | None = None,
    triplet_labels: tuple[str, ...] | None = None,
    device: str = "auto",
    workers: int | None = None,
    callbacks: TrainingCallbacks | None = None,
    crops: CropStore | None = None,
) -> TrainingResult:
    """Train an embedder and write it as a model.

    A training that was stopped goes on from its last whole epoch when it is called again with the same manifest and
    options, to the same result. The manifest's test rows are not read.

    Args:
        frame: A manifest with absolute paths; rows of the other granularity are left out.
        folder: Where the model is written.
        network: What the network is made of.
        preparation: What its input looks like.
        training: How it is trained.
        labels: Label columns to make heads for; None for all that can be learned.
        triplet_labels: Label columns on which triplets are formed, the first of which also fills the batches;
            None for lesion type and pathology of findings, density and pathology of breasts, as far as they are there.
        device: Where to compute, see `choose_device`.
        workers: Threads that read images.
        callbacks: Where progress is told.
        crops: Crops of these rows (and perhaps others) that were read before with the augmentation's margin;
            None reads them.

    Raises:
        ModelError: Nothing can be learned from this manifest, or the folder holds another training.
    """
    # The run needs torch's training parts, which embedding alone does not.
    from embedder.trainingrun import TrainingRun
    from embedder.trainingstate import load_state, remove_state, save_state

    network, preparation = network or NetworkConfig(), preparation or PreparationConfig()
    training, callbacks = training or TrainingConfig(), callbacks or TrainingCallbacks()
    if network.embedding_dimension is None:
        raise ModelError("network", "a training needs an embedding layer", "set its dimension, 128 by default")
    target = choose_device(device)
    augmentation = choose_augmentation(training, preparation)
    frame = frame[frame["granularity"] == preparation.granularity].reset_index(drop=True)
    if frame.empty:
        raise ModelError("manifest", f"has no rows of granularity {preparation.granularity}")
    frame = frame.assign(role=split_women(frame, training.validation_share, training.seed, labels))
    frame = frame[frame["role"] != "test"].reset_index(drop=True)
    if not (frame["role"] == "train").any():
        raise ModelError("manifest", "all of its rows are kept for testing", "leave some split cells empty or train")
    heads = label_classes(frame[frame["role"] == "train"], labels)
    triplet_labels = choose_triplet_labels(heads, triplet_labels, preparation.granularity)
    plan = {
        "manifest": manifest_digest(frame.drop(columns="role")),
        "network": network.to_dict(),
        "preparation": preparation.to_dict(),
        "training": asdict(training),
        "heads": {name: list(classes) for name, classes in heads.items()},
        "triplet_labels": list(triplet_labels),
    }
    state = load_state(folder, plan)
    if crops is None:
        crops = load_crops(frame, preparation, margin=augmentation.margin, workers=workers, progress=callbacks.reading)
    else:
        crops = crops.take(frame)
    run = TrainingRun(crops, heads, triplet_labels, network, preparation, training, augmentation, target)
    history: list[dict[str, Any]] = run.restore(state) if state is not None else []
    for epoch in range(len(history), training.epochs):
        losses = run.train_epoch(epoch, callbacks.batch)
        validation = run.validate()
        # Without women held out nothing tells a better epoch from a worse one: the last one stands.
        figure = float(np.mean(list(validation.values()))) if validation else float(epoch)
        best = not history or figure > max(entry["figure"] for entry in history)
        if best:
            run.keep()
        history.append({"epoch": epoch, "losses": losses, "validation": validation, "figure": figure})
        save_state(folder, plan, run.state(), history)
        if callbacks.epoch is not None:
            callbacks.epoch(EpochReport(epoch, training.epochs, losses, validation, best))
    used = crops.frame
    women = {
        role: tuple(sorted({woman_digest(key) for key in patient_key(used[used["role"] == role])}))
        for role in ("train", "validation")
    }
    best_entry = max(history, key=lambda entry: (entry["figure"], -entry["epoch"]))
    card = ModelCard(
        network=network,
        preparation=preparation,
        heads=heads,
        weights_origin=run.network.weights_origin,
        training={**plan["training"], "triplet_labels": list(triplet_labels), "history": history},  # type: ignore[dict-item]
        data={
            "manifest": plan["manifest"],
            "datasets": sorted(used["dataset"].dropna().unique()),
            "granularity": preparation.granularity,
            "rows": {role: int((used["role"] == role).sum()) for role in women},
            "women": {role: len(digests) for role, digests in women.items()},
            "failed_rows": len(crops.failures),
        },
        women=women,
        figures={
            "best_epoch": best_entry["epoch"],
            "validation MAP@R, chosen on (optimistic)": best_entry["validation"],
        },
        code_version=code_version(),
    )
    digest = save_model(folder, run.best, card)
    remove_state(folder)
    return TrainingResult(digest, card, crops.failures)
