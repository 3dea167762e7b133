"""The loop's inside: which layers learn, validation against a slow version, precision, compilation, and its state."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from embedder.augmentation import AugmentationConfig
from embedder.checkpoint import ModelError
from embedder.network import NetworkConfig
from embedder.preparation import PreparationConfig
from embedder.rois import CropStore, load_crops
from embedder.trainingplan import TrainingConfig
from embedder.trainingrun import TrainingRun

Make = Callable[..., pd.DataFrame]

HEADS = {"lesion_type": ("calcification", "mass"), "pathology": ("benign", "malignant")}
CONFIG = TrainingConfig(epochs=4, classes_per_batch=2, findings_per_class=3)


@pytest.fixture(scope="module")
def crops(synthetic_manifest: Make, tiny_preparation: PreparationConfig) -> CropStore:
    frame = synthetic_manifest(12, view_count=2)
    frame = frame.assign(role=np.where(frame["patient_id"].isin(["w0", "w1", "w2"]), "validation", "train"))
    return load_crops(frame, tiny_preparation, margin=AugmentationConfig().margin, workers=1)


@pytest.fixture
def start(
    crops: CropStore, tiny_network: NetworkConfig, tiny_preparation: PreparationConfig
) -> Callable[..., TrainingRun]:
    def make(
        network: NetworkConfig = tiny_network, store: CropStore = crops, device: str = "cpu", **options: Any
    ) -> TrainingRun:
        return TrainingRun(
            TrainingRun.new_network(network, HEADS, 0, 0),
            store,
            ("lesion_type", "pathology"),
            tiny_preparation,
            dataclasses.replace(CONFIG, **options),
            AugmentationConfig(),
            torch.device(device),
        )

    return make


def changed(run: TrainingRun, epoch: int) -> set[str]:
    """Train an epoch and return the names of what changed."""
    before = {name: value.clone() for name, value in run.network.state_dict().items()}
    run.train_epoch(epoch)
    after = run.network.state_dict()
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


def test_the_backbone_opens_from_its_end_backwards(start: Callable[..., TrainingRun]) -> None:
    run = start(trainable="layers", layers_every=1, backbone_norm="batch")
    first = changed(run, 0)
    assert "embed.1.weight" in first
    backbone = {".".join(name.split(".")[1:3]) for name in first if name.startswith("backbone.")}
    assert {name.removesuffix(".weight") for name in backbone} >= {"blocks.4", "conv_head"}
    assert not {"blocks.3", "blocks.0", "conv_stem.weight"} & backbone
    later = changed(run, 2)
    assert first < later
    assert any(name.startswith("backbone.blocks.2.") for name in later)
    assert not any(name.startswith("backbone.blocks.1.") for name in later)
    assert not any(name.startswith("backbone.conv_stem") for name in later)
    assert "backbone.conv_stem.weight" in changed(run, 50)


def test_a_backbone_left_as_it_is_does_not_change_at_all(start: Callable[..., TrainingRun]) -> None:
    for norm in ("batch", "frozen"):
        names = changed(start(trainable="head", backbone_norm=norm), 0)
        assert names
        assert not any(name.startswith("backbone.") for name in names)


def test_frozen_norms_keep_their_statistics_and_learn_their_weights(start: Callable[..., TrainingRun]) -> None:
    frozen, batch = (changed(start(backbone_norm=norm), 0) for norm in ("frozen", "batch"))
    assert not any("running" in name for name in frozen if name.startswith("backbone."))
    assert "backbone.bn1.weight" in frozen
    assert "embed.2.running_mean" in frozen
    assert "backbone.bn1.running_mean" in batch


def test_the_normalisation_is_not_trained(start: Callable[..., TrainingRun]) -> None:
    assert not {"mean", "std"} & changed(start(), 0)


def test_rates_follow_the_schedule_and_the_backbones_share(start: Callable[..., TrainingRun]) -> None:
    run = start(schedule="step", learning_rate=1e-3, backbone_rate=0.1)
    run.train_epoch(2)
    backbone, new = (group["lr"] for group in run.optimiser.param_groups)
    assert new == pytest.approx(1e-3 * 0.99**2)
    assert backbone == pytest.approx(1e-4 * 0.99**2)


def slow_map_at_r(queries: np.ndarray, asked: np.ndarray, gallery: np.ndarray, known: np.ndarray) -> float:
    """Return MAP@R one query and one rank at a time (Musgrave et al., A Metric Learning Reality Check, 2020)."""
    scores = []
    for query, label in zip(queries, asked, strict=True):
        order = np.argsort(-(gallery @ query), kind="stable")
        relevant = int((known == label).sum())
        right = [known[place] == label for place in order[:relevant]]
        scores.append(sum(sum(right[: i + 1]) / (i + 1) for i in range(relevant) if right[i]) / relevant)
    return float(np.mean(scores))


def test_validation_is_map_at_r_of_held_out_women_in_the_training_womens_gallery(
    start: Callable[..., TrainingRun], crops: CropStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = crops.frame.copy()
    frame.loc[[1, 9], "pathology"] = None
    run = start(store=dataclasses.replace(crops, frame=frame))
    # A network that was not trained gives nearly the same vector for everything; these have no ties.
    vectors = np.random.default_rng(0).normal(size=(len(frame), 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    monkeypatch.setattr(run, "_embed", lambda rows: vectors[rows])
    found = run.validate()
    held_out = (frame["role"] == "validation").to_numpy()
    assert set(found) == {"lesion_type", "pathology"}
    for name, score in found.items():
        labels = frame[name].astype("object").to_numpy()
        known = frame[name].notna().to_numpy()
        queries, gallery = held_out & known, ~held_out & known
        expected = slow_map_at_r(vectors[queries], labels[queries], vectors[gallery], labels[gallery])
        assert score == pytest.approx(expected, abs=1e-6)


def test_validation_changes_nothing(start: Callable[..., TrainingRun]) -> None:
    run, plain = start(), start()
    run.validate()
    run.train_epoch(0)
    plain.train_epoch(0)
    assert all(torch.equal(value, plain.network.state_dict()[name]) for name, value in run.network.state_dict().items())


def test_no_batch_holds_a_held_out_woman(start: Callable[..., TrainingRun], monkeypatch: pytest.MonkeyPatch) -> None:
    run = start()
    seen: set[int] = set()
    step = run._step
    monkeypatch.setattr(run, "_step", lambda rows, generator: (seen.update(rows.tolist()), step(rows, generator))[1])
    for epoch in range(3):
        run.train_epoch(epoch)
    assert seen
    assert not seen & set(run.validation_rows.tolist())


def test_mixed_precision_trains_and_keeps_float32_weights(start: Callable[..., TrainingRun]) -> None:
    run = start(precision="bfloat16")
    losses = run.train_epoch(0)
    assert all(np.isfinite(loss) for loss in losses.values())
    assert {value.dtype for value in run.network.parameters()} == {torch.float32}
    assert losses != start(precision="auto").train_epoch(0)
    assert start(precision="auto").precision == torch.float32


def test_class_weights_are_inverse_to_size(start: Callable[..., TrainingRun], crops: CropStore) -> None:
    frame = crops.frame.copy()
    frame.loc[frame["patient_id"].isin(["w4", "w6", "w8"]), "lesion_type"] = None
    run = start(store=dataclasses.replace(crops, frame=frame), balance="weights")
    counts = frame[frame["role"] == "train"]["lesion_type"].value_counts()
    weights = run.objective.class_weights["lesion_type"]
    ratio = counts["calcification"] / counts["mass"]
    assert float(weights[1] / weights[0]) == pytest.approx(ratio)
    assert start(balance="over").objective.class_weights == {}


def test_a_compiler_that_is_missing_is_told(start: Callable[..., TrainingRun], monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor.exc import InvalidCxxCompiler

    def broken(_: torch.nn.Module) -> Callable[..., None]:
        def fail(*_: object) -> None:
            raise InvalidCxxCompiler

        return fail

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(ModelError, match=r"torch.compile does not work .*; .*set training.compile=false"):
        start(compile=True).train_epoch(0)


def test_a_defect_is_not_taken_for_a_missing_compiler(
    start: Callable[..., TrainingRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(torch, "compile", lambda _: fail)
    with pytest.raises(ZeroDivisionError):
        start(compile=True).train_epoch(0)


@pytest.mark.gpu
def test_a_gpu_trains_in_bfloat16_as_the_processor_does_in_float32(
    start: Callable[..., TrainingRun], tiny_network: NetworkConfig, cuda: str
) -> None:
    assert start(device=cuda).precision == torch.bfloat16
    # Each device drops out features of its own choice: without it batches, views and first weights are the same.
    alike = dataclasses.replace(tiny_network, dropout=0.0)
    here = start(alike)
    expected = [here.train_epoch(epoch)["total"] for epoch in range(3)]
    for precision, tolerance in (("float32", 0.02), ("auto", 0.1)):
        there = start(alike, device=cuda, precision=precision)
        found = [there.train_epoch(epoch)["total"] for epoch in range(3)]
        assert found == pytest.approx(expected, rel=tolerance)
        assert {value.dtype for value in there.network.parameters()} == {torch.float32}
        assert set(there.validate()) == set(here.validate())


@pytest.mark.gpu
def test_on_a_gpu_each_balance_mining_and_mixing_works(start: Callable[..., TrainingRun], cuda: str) -> None:
    for options in (
        {"balance": "weights", "backbone_norm": "batch"},
        {"objective": dataclasses.replace(CONFIG.objective, metric="proxy-anchor")},
        {"objective": dataclasses.replace(CONFIG.objective, metric="multi-similarity", focal=2.0)},
        {"objective": dataclasses.replace(CONFIG.objective, miner="batch-hard")},
        {"trainable": "layers"},
    ):
        losses = start(device=cuda, **options).train_epoch(0)
        assert all(np.isfinite(list(losses.values()))), options
