"""Fine-tune an embedder on a manifest, validated by retrieval on held-out women."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from embedder.checkpoint import (
    CARD_FILE,
    ModelCard,
    ModelError,
    code_version,
    image_digests,
    load_model,
    save_model,
    woman_digest,
)
from embedder.devices import choose_device
from embedder.ensembletraining import join_members, plan_members, remove_members
from embedder.findings import patient_key
from embedder.handcrafted import feature_count
from embedder.manifest import manifest_digest
from embedder.network import EmbedderNetwork, NetworkConfig
from embedder.preparation import PreparationConfig
from embedder.rois import CropStore, load_crops
from embedder.roles import label_classes, split_women, stated_splits
from embedder.superresolution import ROLE, seen_by
from embedder.trainingplan import TrainingConfig, choose_augmentation, choose_metric_labels
from embedder.trainingrun import TrainingRun
from embedder.trainingstate import changed_parts, claim_folder, load_state, remove_state, save_state
from embedder.validation import INTERVAL

__all__ = [
    "EpochReport",
    "TrainingCallbacks",
    "TrainingConfig",
    "TrainingResult",
    "choose_augmentation",
    "choose_metric_labels",
    "train",
]


@dataclass(frozen=True)
class EpochReport:
    """What one epoch gave.

    Attributes:
        epoch: Its number, from 0.
        epochs: How many there are.
        losses: Mean of each loss over the epoch's batches.
        validation: Retrieval MAP@R of the held-out women's rows by label; empty where none are held out.
        best: It is the best epoch so far, by the mean of `validation`.
    """

    epoch: int
    epochs: int
    losses: Mapping[str, float]
    validation: Mapping[str, float]
    best: bool


@dataclass(frozen=True)
class TrainingResult:
    """The model's digest and card, and the rows whose images failed (none where it was finished before)."""

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


def train(
    frame: pd.DataFrame,
    folder: Path,
    *,
    network: NetworkConfig | None = None,
    preparation: PreparationConfig | None = None,
    training: TrainingConfig | None = None,
    labels: tuple[str, ...] | None = None,
    metric_labels: tuple[str, ...] | None = None,
    device: str = "auto",
    workers: int | None = None,
    callbacks: TrainingCallbacks | None = None,
    crops: CropStore | None = None,
) -> TrainingResult:
    """Train an embedder and write it as a model.

    A training that was stopped goes on from its last whole epoch when it is called again with the same
    manifest and options; on a CPU with the same number of threads, it comes to the same weights bit for bit.
    One that was finished is not repeated. The images of the manifest's test rows are not read.

    Args:
        frame: A manifest with absolute paths; rows of the other granularity are left out.
        folder: Where the model is written.
        network: What the network is made of.
        preparation: What its input looks like.
        training: How it is trained.
        labels: Label columns to make heads for; None for all that can be learned.
        metric_labels: Label columns on which the metric loss is formed, the first of which also fills the batches;
            None chooses, see `choose_metric_labels`.
        device: Where to compute, see `choose_device`.
        workers: Threads that read images.
        callbacks: Where progress is told.
        crops: Crops of these rows (and perhaps others) that were read before with the augmentation's margin;
            None reads them.

    Raises:
        ModelError: Nothing can be learned from this manifest, the folder holds another training or model or
            can't be written, or the loss is not a number any more.
        WeightsError: The backbone or its pretrained weights can't be had.
    """
    network, preparation = network or NetworkConfig(), preparation or PreparationConfig()
    training, callbacks = training or TrainingConfig(), callbacks or TrainingCallbacks()
    if network.embedding_dimension is None:
        raise ModelError("network", "a training needs an embedding layer", "set its dimension, 128 by default")
    folder, target = Path(folder), choose_device(device)
    augmentation = choose_augmentation(training, preparation)
    used = _used_rows(frame, preparation.granularity, training, labels)
    heads = label_classes(used[used["role"] == "train"], labels)
    metric_labels = choose_metric_labels(heads, metric_labels, preparation.granularity, used["dataset"].nunique())
    plan = {
        "manifest or split": manifest_digest(used),
        "network": network.to_dict(),
        "preparation": preparation.to_dict(),
        "training": asdict(training),
        "heads": {name: list(classes) for name, classes in heads.items()},
        "metric_labels": list(metric_labels),
    }
    finished = _finished(folder, plan)
    if finished is not None:
        return finished
    state = load_state(folder, plan)
    members = plan_members(frame, used, folder, training, heads) if training.members > 1 else []
    claim_folder(folder)
    # What can't be had or can't work is told before the images are read, which may take long.
    described = feature_count(preparation)
    fresh = TrainingRun.new_network(network, heads, training.seed, described)
    fresh.check_input(preparation.height, preparation.width)
    if crops is None:
        crops = load_crops(used, preparation, margin=augmentation.margin, workers=workers, progress=callbacks.reading)
    else:
        crops = crops.take(used)
    _check_readable(crops, used, metric_labels)
    images = image_digests(crops.frame["path"], workers)
    weights: Mapping[str, Tensor]
    if members:
        cards = [
            train(
                member.frame,
                member.folder,
                network=network,
                preparation=preparation,
                training=member.training,
                labels=tuple(heads),
                metric_labels=metric_labels,
                device=device,
                workers=workers,
                callbacks=_member_callbacks(callbacks, member.number, training),
                crops=crops,
            ).card
            for member in members
        ]
        ensemble, history, figures = join_members(members, cards)
        weights = ensemble.state_dict()
    else:
        run = TrainingRun(fresh, crops, metric_labels, preparation, training, augmentation, target)
        history = _run_epochs(run, plan, folder, run.restore(state) if state is not None else [], callbacks)
        figures, weights = _figures(run, history), run.best
    card = _card(fresh, crops, preparation, plan, history, figures, images, manifest_digest(frame))
    digest = save_model(folder, weights, card)
    remove_state(folder)
    remove_members(folder)
    return TrainingResult(digest, card, crops.failures)


def known_crops(frame: pd.DataFrame, preparation: PreparationConfig, workers: int | None = None) -> CropStore:
    """Return the crops of a manifest's rows of the preparation's granularity, without women of the split `test`.

    Raises:
        ModelError: There are none.
    """
    used = _used_rows(frame, preparation.granularity, TrainingConfig(validation_share=0), None)
    return load_crops(used, preparation, workers=workers)


def _used_rows(
    frame: pd.DataFrame, granularity: str, training: TrainingConfig, labels: tuple[str, ...] | None
) -> pd.DataFrame:
    """Return the rows to train and validate on, with their `role`; no row of a test woman is among them.

    The members of an ensemble leave women out themselves.
    """
    # A woman's split may stand on her rows of the other granularity only: it is looked up before those are left out.
    frame = frame.assign(split=stated_splits(frame))
    frame = frame[frame["granularity"] == granularity].reset_index(drop=True)
    if frame.empty:
        raise ModelError("manifest", f"has no rows of granularity {granularity}", "choose the other granularity")
    by_folds = training.members > 1 and training.members_by == "folds"
    share = 0.0 if by_folds else training.validation_share
    frame = frame.assign(role=split_women(frame, share, training.seed, labels))
    used = frame[frame["role"] != "test"].reset_index(drop=True)
    if not (used["role"] == "train").any():
        raise ModelError("manifest", "has no rows to train on", "leave some split cells empty, or write train")
    return used


def _finished(folder: Path, plan: Mapping[str, Any]) -> TrainingResult | None:
    """Return the result of this training where it was finished before; refuse to overwrite another model."""
    if not (folder / CARD_FILE).exists():
        return None
    _, card, digest = load_model(folder)
    options = {name: value for name, value in card.training.items() if name not in ("history", "metric_labels")}
    written = {
        "manifest or split": card.data.get("used_rows"),
        "network": card.network.to_dict(),
        "preparation": card.preparation.to_dict(),
        "training": options,
        "heads": {name: list(classes) for name, classes in card.heads.items()},
        "metric_labels": card.training.get("metric_labels"),
    }
    changed = changed_parts(written, plan)
    if changed:
        raise ModelError(
            folder,
            f"holds a finished model with another {', '.join(changed)}",
            "choose another folder, or delete this model first",
        )
    remove_state(folder)
    remove_members(folder)
    return TrainingResult(digest, card, [])


def _check_readable(
    crops: CropStore,
    used: pd.DataFrame,
    metric_labels: tuple[str, ...],
) -> None:
    """Refuse to train where so many images failed that the triplets or the validation have nothing left."""
    if not crops.failures and len(crops.frame) == len(used):
        return
    train_rows = crops.frame[crops.frame["role"] == "train"]
    lost = any(train_rows[name].dropna().nunique() < 2 for name in metric_labels)
    unvalidated = (used["role"] == "validation").any() and not (crops.frame["role"] == "validation").any()
    if lost or unvalidated:
        reason = f": {crops.failures[0][1]}" if crops.failures else ""
        raise ModelError(
            "manifest",
            f"{len(used) - len(crops.frame)} of its {len(used)} rows can't be read, too few are left{reason}",
            "check the images",
        )


def _run_epochs(
    run: TrainingRun,
    plan: dict[str, Any],
    folder: Path,
    history: list[dict[str, Any]],
    callbacks: TrainingCallbacks,
) -> list[dict[str, Any]]:
    """Train the epochs that are left, keeping the state of each, and return what all of them gave."""
    epochs = run.training.epochs
    for epoch in range(len(history), epochs):
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
            callbacks.epoch(EpochReport(epoch, epochs, losses, validation, best))
    return history


def _member_callbacks(callbacks: TrainingCallbacks, number: int, training: TrainingConfig) -> TrainingCallbacks:
    """Return where a member tells of its progress: its epochs follow on those of the members before it."""
    before = number * training.epochs

    def batch(epoch: int, done: int, total: int) -> None:
        if callbacks.batch is not None:
            callbacks.batch(before + epoch, done, total)

    def report(epoch: EpochReport) -> None:
        if callbacks.epoch is not None:
            callbacks.epoch(replace(epoch, epoch=before + epoch.epoch, epochs=training.all_epochs))

    return TrainingCallbacks(batch=batch, epoch=report)


def _figures(run: TrainingRun, history: list[dict[str, Any]]) -> dict[str, Any]:
    best = max(history, key=lambda entry: (entry["figure"], -entry["epoch"]))
    return {
        "best_epoch": best["epoch"],
        "validation MAP@R, chosen on (optimistic)": run.validation_figures(),
        "interval": INTERVAL,
    }


def _card(
    network: EmbedderNetwork,
    crops: CropStore,
    preparation: PreparationConfig,
    plan: Mapping[str, Any],
    history: list[dict[str, Any]],
    figures: Mapping[str, Any],
    images: Mapping[str, str],
    manifest: str,
) -> ModelCard:
    used = crops.frame
    rows_of = {role: used[used["role"] == role] for role in ("train", "validation")}
    women = {role: tuple(sorted({woman_digest(key) for key in patient_key(rows)})) for role, rows in rows_of.items()}
    before_women: dict[str, tuple[str, ...]] = {}
    before_images: dict[str, tuple[str, ...]] = {}
    if preparation.super_resolution != "none":
        before_women[ROLE], before_images[ROLE] = seen_by(preparation.super_resolution)
    return ModelCard(
        network=network.config,
        preparation=preparation,
        heads=network.classes,
        weights_origin=network.weights_origin,
        training={**plan["training"], "metric_labels": plan["metric_labels"], "history": history},
        data={
            "manifest": manifest,
            "used_rows": plan["manifest or split"],
            "datasets": sorted(used["dataset"].dropna().unique()),
            "granularity": preparation.granularity,
            "rows": {role: len(rows) for role, rows in rows_of.items()},
            "women": {role: len(digests) for role, digests in women.items()},
            "failed_rows": len(crops.failures),
        },
        women={**women, **before_women},
        images={
            role: tuple(sorted({images[path] for path in rows["path"] if path in images}))
            for role, rows in rows_of.items()
        }
        | before_images,
        figures=figures,
        code_version=code_version(),
        members=plan["training"]["members"],
    )
