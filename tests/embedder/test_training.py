"""Training as a whole: it learns, stops and goes on to the same bits, and refuses what it must."""

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from embedder import objectives, training
from embedder.augmentation import AugmentationConfig
from embedder.checkpoint import CARD_FILE, WEIGHTS_FILE, ModelError, load_model, woman_digest
from embedder.embedding import Embedder, pretrained_model
from embedder.findings import Box, patient_key
from embedder.manifest import manifest_digest
from embedder.network import NetworkConfig
from embedder.objectives import MetricLoss, ObjectiveConfig
from embedder.preparation import PreparationConfig
from embedder.rois import load_crops
from embedder.superresolution import seen_by
from embedder.training import (
    EpochReport,
    TrainingCallbacks,
    TrainingConfig,
    TrainingResult,
    known_crops,
)
from embedder.trainingstate import STATE_FILE
from embedder.weights import WeightsError

Make = Callable[..., pd.DataFrame]
Train = Callable[..., TrainingResult]

pytestmark = pytest.mark.usefixtures("one_thread")

SHORT = TrainingConfig(epochs=3, classes_per_batch=2, findings_per_class=3, seed=5)


@pytest.fixture
def frame(synthetic_manifest: Make) -> pd.DataFrame:
    return synthetic_manifest(12, view_count=2)


def test_a_model_comes_out_with_its_card(run: Train, frame: pd.DataFrame, tmp_path: Path) -> None:
    epochs: list[EpochReport] = []
    batches: list[tuple[int, int, int]] = []
    read: list[tuple[int, int]] = []
    callbacks = TrainingCallbacks(
        reading=lambda *done: read.append(done), batch=lambda *done: batches.append(done), epoch=epochs.append
    )
    result = run(frame, tmp_path, callbacks=callbacks)
    network, card, digest = load_model(tmp_path)
    assert digest == result.digest
    assert card.to_dict() == json.loads(json.dumps(result.card.to_dict()))
    assert network.classes == {
        "lesion_type": ("calcification", "mass"),
        "pathology": ("benign", "malignant"),
    }
    assert card.weights_origin == "random start"
    assert card.data["manifest"] == manifest_digest(frame)
    assert card.data["datasets"] == ["synthetic"]
    assert card.data["rows"]["train"] + card.data["rows"]["validation"] == 24
    assert card.data["women"]["train"] + card.data["women"]["validation"] == 12
    assert not set(card.women["train"]) & set(card.women["validation"])
    assert card.code_version
    assert [entry["epoch"] for entry in card.training["history"]] == [0, 1, 2]
    assert [report.epoch for report in epochs] == [0, 1, 2]
    for report in epochs:
        assert set(report.losses) == {"classification", "metric", "total"}
        assert set(report.validation) == {"lesion_type", "pathology"}
        assert all(0 <= score <= 1 for score in report.validation.values())
    best = max(epochs, key=lambda report: (np.mean(list(report.validation.values())), -report.epoch))
    assert card.figures["best_epoch"] == best.epoch
    assert read[-1] == (24, 24)
    assert {total for _, _, total in batches} == {batches[-1][1]}
    assert sorted(path.name for path in tmp_path.iterdir()) == [CARD_FILE, WEIGHTS_FILE]


def test_it_learns_what_can_be_learned(run: Train, synthetic_manifest: Make, tmp_path: Path) -> None:
    frame = synthetic_manifest(16, view_count=2).drop(columns=["pathology"])
    config = TrainingConfig(
        epochs=12, classes_per_batch=2, findings_per_class=6, learning_rate=5e-3, backbone_rate=1.0, seed=1
    )
    history = run(frame, tmp_path, training=config).card.training["history"]
    assert history[-1]["losses"]["classification"] < history[0]["losses"]["classification"]
    assert max(entry["validation"]["lesion_type"] for entry in history) > 0.9


def test_the_best_epoch_is_kept(
    run: Train, frame: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = iter([0.3, 0.8, 0.8])
    states: list[dict[str, torch.Tensor]] = []

    def validate(self: training.TrainingRun) -> dict[str, float]:
        states.append({name: value.clone() for name, value in self.network.state_dict().items()})
        return {"lesion_type": next(figures)}

    monkeypatch.setattr(training.TrainingRun, "validate", validate)
    card = run(frame, tmp_path).card
    network, _, _ = load_model(tmp_path)
    assert card.figures["best_epoch"] == 1
    kept = network.state_dict()
    assert all(torch.equal(kept[name], value) for name, value in states[1].items())
    assert not all(torch.equal(kept[name], value) for name, value in states[2].items())


def test_without_women_held_out_the_last_epoch_stands(run: Train, frame: pd.DataFrame, tmp_path: Path) -> None:
    config = TrainingConfig(epochs=2, classes_per_batch=2, findings_per_class=2, validation_share=0)
    card = run(frame, tmp_path, training=config).card
    assert card.figures["best_epoch"] == 1
    assert card.data["women"] == {"train": 12, "validation": 0}


def test_the_same_seed_gives_the_same_model_and_another_seed_another(
    run: Train, frame: pd.DataFrame, tmp_path: Path
) -> None:
    config = TrainingConfig(epochs=1, classes_per_batch=2, findings_per_class=3)
    first = run(frame, tmp_path / "a", training=config)
    torch.manual_seed(99)
    np.random.default_rng()
    assert run(frame, tmp_path / "b", training=config).digest == first.digest
    other = TrainingConfig(epochs=1, classes_per_batch=2, findings_per_class=3, seed=1)
    assert run(frame, tmp_path / "c", training=other).digest != first.digest


KILLED_TWICE = """
import os, signal, sys
from pathlib import Path
import pandas as pd
import torch
from embedder.augmentation import AugmentationConfig
from embedder.network import NetworkConfig
from embedder.objectives import ObjectiveConfig
from embedder.preparation import PreparationConfig
from embedder.training import TrainingCallbacks, TrainingConfig, train

torch.set_num_threads(1)
frame, folder = pd.read_parquet(sys.argv[1]), Path(sys.argv[2])

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def start(callbacks):
    train(
        frame, folder, callbacks=callbacks, device="cpu", workers=1,
        network=NetworkConfig("test_efficientnet", "none", embedding_dimension=16),
        preparation=PreparationConfig(height=32, width=32, floor_mm=12.0),
        training=TrainingConfig(
            epochs=3, classes_per_batch=2, findings_per_class=3, seed=5,
            objective=ObjectiveConfig(metric=sys.argv[3]), augmentation=AugmentationConfig(mixing=float(sys.argv[4])),
        ),
    )

middle = TrainingCallbacks(batch=lambda epoch, done, total: die() if (epoch, done) == (1, 2) else None)
between = TrainingCallbacks(epoch=lambda report: die() if report.epoch == 1 else None)
for callbacks in (middle, between):
    child = os.fork()
    if child == 0:
        start(callbacks)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert (folder / "training.safetensors").is_file() and not (folder / "card.json").exists()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork and no SIGKILL")
@pytest.mark.parametrize(("metric", "mixing"), [("triplet", 0.0), ("proxy-anchor", 0.4)])
def test_a_training_killed_twice_comes_to_the_same_bits(
    run: Train, frame: pd.DataFrame, tmp_path: Path, metric: MetricLoss, mixing: float
) -> None:
    manifest = tmp_path / "manifest.parquet"
    frame.to_parquet(manifest)
    command = [sys.executable, "-c", KILLED_TWICE, str(manifest), str(tmp_path / "killed"), metric, str(mixing)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr.decode()
    (tmp_path / "killed" / f".{STATE_FILE}.1234abcd").touch()  # as a kill while the state is written leaves
    left: list[EpochReport] = []
    config = dataclasses.replace(
        SHORT, objective=ObjectiveConfig(metric=metric), augmentation=AugmentationConfig(mixing=mixing)
    )
    result = run(frame, tmp_path / "killed", training=config, callbacks=TrainingCallbacks(epoch=left.append))
    expected = run(frame, tmp_path / "whole", training=config)
    assert [report.epoch for report in left] == [2]
    assert result.digest == expected.digest
    whole, resumed = ((tmp_path / name / WEIGHTS_FILE).read_bytes() for name in ("whole", "killed"))
    assert whole == resumed
    assert result.card.training["history"] == expected.card.training["history"]
    assert sorted(path.name for path in (tmp_path / "killed").iterdir()) == [CARD_FILE, WEIGHTS_FILE]


@pytest.mark.parametrize("trainable", ["layers", "head"])
def test_ctrl_c_leaves_a_state_that_goes_on_to_the_same_bits(
    run: Train, frame: pd.DataFrame, tmp_path: Path, trainable: str
) -> None:
    config = TrainingConfig(
        epochs=3, classes_per_batch=2, findings_per_class=3, trainable=trainable, layers_every=1, schedule="step"
    )

    def interrupt(epoch: int, done: int, total: int) -> None:
        if (epoch, done) == (2, 1):
            raise KeyboardInterrupt

    expected = run(frame, tmp_path / "whole", training=config)
    with pytest.raises(KeyboardInterrupt):
        run(frame, tmp_path / "cut", training=config, callbacks=TrainingCallbacks(batch=interrupt))
    assert (tmp_path / "cut" / STATE_FILE).is_file()
    assert run(frame, tmp_path / "cut", training=config).digest == expected.digest


def test_a_finished_training_is_not_repeated(run: Train, frame: pd.DataFrame, tmp_path: Path) -> None:
    first = run(frame, tmp_path)
    content = (tmp_path / CARD_FILE).read_bytes()

    def fail(*_: object) -> None:
        pytest.fail("it trained again")

    again = run(frame, tmp_path, callbacks=TrainingCallbacks(reading=fail, batch=fail, epoch=fail))
    assert again.digest == first.digest
    assert again.card.to_dict() == json.loads(json.dumps(first.card.to_dict()))
    assert (tmp_path / CARD_FILE).read_bytes() == content


def test_another_training_does_not_overwrite_a_model(run: Train, frame: pd.DataFrame, tmp_path: Path) -> None:
    first = run(frame, tmp_path)
    longer = TrainingConfig(epochs=4, classes_per_batch=2, findings_per_class=3, seed=5)
    with pytest.raises(ModelError, match="holds a finished model with another training; choose another folder"):
        run(frame, tmp_path, training=longer)
    with pytest.raises(ModelError, match="with another manifest or split"):
        run(frame.assign(pathology=frame["pathology"].iloc[::-1].to_numpy()), tmp_path)
    assert load_model(tmp_path)[2] == first.digest


def test_a_pretrained_model_is_not_overwritten_either(
    run: Train,
    frame: pd.DataFrame,
    tmp_path: Path,
    tiny_network: NetworkConfig,
    tiny_preparation: PreparationConfig,
) -> None:
    pretrained_model(tmp_path, tiny_network, tiny_preparation)
    with pytest.raises(ModelError, match="holds a finished model with another manifest or split, network"):
        run(frame, tmp_path)


def test_a_stopped_training_is_not_continued_with_other_options(
    run: Train, frame: pd.DataFrame, tmp_path: Path
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(frame, tmp_path, callbacks=TrainingCallbacks(epoch=interrupt))
    other = TrainingConfig(epochs=3, classes_per_batch=2, findings_per_class=3, seed=6)
    with pytest.raises(ModelError, match=f"another .*training; .*delete {STATE_FILE}"):
        run(frame, tmp_path, training=other)
    (tmp_path / STATE_FILE).write_bytes(b"damaged")
    with pytest.raises(ModelError, match="the stopped training can't be read"):
        run(frame, tmp_path)


def test_a_loss_that_is_no_number_stops_the_training_and_loses_nothing(
    run: Train, frame: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = objectives.Objective.forward
    calls = 0

    def break_late(self: objectives.Objective, *arguments: Any) -> dict[str, torch.Tensor]:
        nonlocal calls
        calls += 1
        losses = whole(self, *arguments)
        return {name: loss * (float("nan") if calls == 6 else 1.0) for name, loss in losses.items()}

    expected = run(frame, tmp_path / "whole")
    monkeypatch.setattr(objectives.Objective, "forward", break_late)
    with pytest.raises(ModelError, match=r"loss is not a number any more in epoch 2, .*lower training"):
        run(frame, tmp_path / "broken")
    monkeypatch.undo()
    assert not (tmp_path / "broken" / CARD_FILE).exists()
    done: list[EpochReport] = []
    resumed = run(frame, tmp_path / "broken", callbacks=TrainingCallbacks(epoch=done.append))
    assert [report.epoch for report in done] == [1, 2]
    assert resumed.digest == expected.digest


def test_nothing_of_a_test_woman_reaches_training(
    run: Train, frame: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    women = frame["patient_id"].isin(["w0", "w1"])
    split = np.where(women, "test", None)
    # One of the two images of a test woman has no split of its own: it is hers all the same.
    split[np.flatnonzero(women)[0]] = None
    marked = frame.assign(split=split)
    # Her images don't even exist: whoever touches them fails.
    marked.loc[women, "path"] = str(tmp_path / "not there.png")
    read: list[str] = []
    whole = training.load_crops

    def watch(rows: pd.DataFrame, *arguments: Any, **options: Any) -> Any:
        read.extend(patient_key(rows))
        return whole(rows, *arguments, **options)

    monkeypatch.setattr(training, "load_crops", watch)
    result = run(marked, tmp_path / "a")
    assert result.failures == []
    assert set(read) == {f"synthetic/w{number}" for number in range(2, 12)}
    digests = {woman_digest("synthetic/w0"), woman_digest("synthetic/w1")}
    assert not digests & {digest for role in result.card.women.values() for digest in role}
    # Other labels of the test women change nothing at all.
    changed = marked.copy()
    changed.loc[women, "lesion_type"] = "asymmetry"
    assert run(changed, tmp_path / "b").digest == result.digest


def test_a_test_woman_whose_split_stands_on_her_breast_rows_only_is_not_trained_on(
    run: Train, frame: pd.DataFrame, tmp_path: Path
) -> None:
    breasts = frame.assign(row_id="breast " + frame["row_id"], granularity="breast")
    breasts[["x0", "y0", "x1", "y1"]] = pd.NA
    women = ["w0", "w1", "w2"]
    breasts["split"] = np.where(frame["patient_id"].isin(women), "test", "train")
    config = TrainingConfig(epochs=1, classes_per_batch=2, findings_per_class=3)
    both = pd.concat([breasts, frame], ignore_index=True)
    card = run(both, tmp_path, training=config).card
    assert all(card.role(f"synthetic/{woman}") == "unseen" for woman in women)
    assert sum(card.data["women"].values()) == 9
    breasts.loc[breasts["split"] == "train", "split"] = None
    breasts.loc[breasts["patient_id"].isin(["w4", "w5"]), "split"] = "validation"
    card = run(pd.concat([frame, breasts], ignore_index=True), tmp_path / "b", training=config).card
    assert {card.role(f"synthetic/{woman}") for woman in ("w4", "w5")} == {"validation"}
    assert card.data["women"] == {"train": 7, "validation": 2}


def test_the_card_knows_the_images_whatever_they_are_called(run: Train, frame: pd.DataFrame, tmp_path: Path) -> None:
    split = np.where(frame["patient_id"] == "w0", "test", None)
    config = TrainingConfig(epochs=1, classes_per_batch=2, findings_per_class=3)
    card = run(frame.assign(split=split), tmp_path, training=config).card
    roles = {digest: role for role, digests in card.images.items() for digest in digests}
    for path, key in zip(frame["path"], patient_key(frame), strict=True):
        assert roles.get(hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16], "unseen") == card.role(key)


def test_the_validation_figure_stands_with_its_context(run: Train, frame: pd.DataFrame, tmp_path: Path) -> None:
    frame.loc[frame["patient_id"] == "w1", "pathology"] = None
    split = np.where(frame["patient_id"].isin(["w0", "w1", "w2", "w3"]), "validation", "train")
    card = run(frame.assign(split=split), tmp_path).card
    figures = card.figures["validation MAP@R, chosen on (optimistic)"]
    assert set(figures) == {"lesion_type", "pathology"}
    best = card.training["history"][card.figures["best_epoch"]]["validation"]
    for name, figure in figures.items():
        assert figure["value"] == pytest.approx(best[name], abs=1e-6)
        assert figure["low"] <= figure["value"] <= figure["high"]
        assert (figure["gallery_rows"], figure["gallery_women"]) == (16, 8)
    assert [(figures[name]["rows"], figures[name]["women"]) for name in ("lesion_type", "pathology")] == [
        (8, 4),
        (6, 3),
    ]
    assert "bootstrap over women" in card.figures["interval"]


def test_crops_that_were_read_before_give_the_same_model(
    run: Train, frame: pd.DataFrame, tmp_path: Path, tiny_preparation: PreparationConfig
) -> None:
    config = TrainingConfig(epochs=1, classes_per_batch=2, findings_per_class=3)
    crops = load_crops(frame, tiny_preparation, margin=AugmentationConfig().margin, workers=1)
    expected = run(frame, tmp_path / "a", training=config).digest
    assert run(frame, tmp_path / "b", training=config, crops=crops).digest == expected


def test_a_bad_image_costs_its_rows_only(run: Train, frame: pd.DataFrame, tmp_path: Path) -> None:
    broken = frame.copy()
    (tmp_path / "broken.png").write_bytes(b"")
    broken.loc[5, "path"] = str(tmp_path / "broken.png")
    result = run(broken, tmp_path / "model")
    assert [row for row, _ in result.failures] == [broken.loc[5, "row_id"]]
    assert "broken.png" in result.failures[0][1]
    assert result.card.data["failed_rows"] == 1


def test_images_that_all_fail_are_one_error(run: Train, frame: pd.DataFrame, tmp_path: Path) -> None:
    gone = frame.assign(path=str(tmp_path / "gone.png"))
    with pytest.raises(ModelError, match=r"24 of its 24 rows can't be read, too few are left: .*gone.png"):
        run(gone, tmp_path / "model")


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"lesion_type": "mass", "pathology": None}, "no label column has two classes of two women each"),
        ({"patient_id": "w0"}, "of 1 woman"),
        ({"lesion_type": None, "pathology": None}, "no label column has two classes"),
        ({"split": "test"}, "has no rows to train on"),
        ({"granularity": "breast"}, "has no rows of granularity finding"),
    ],
)
def test_what_cannot_be_learned_is_told(
    run: Train, frame: pd.DataFrame, tmp_path: Path, change: dict[str, object], cause: str
) -> None:
    with pytest.raises(ModelError, match=cause):
        run(frame.assign(**change), tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_labels_and_triplets_can_be_chosen(run: Train, frame: pd.DataFrame, tmp_path: Path) -> None:
    config = TrainingConfig(epochs=1, classes_per_batch=2, findings_per_class=2)
    card = run(frame, tmp_path, training=config, labels=("pathology",)).card
    assert dict(card.heads) == {"pathology": ("benign", "malignant")}
    assert card.training["metric_labels"] == ["pathology"]
    with pytest.raises(ModelError, match="no triplets can be formed on density"):
        run(frame, tmp_path / "b", training=config, metric_labels=("density",))


def test_weights_that_cannot_be_had_are_told_before_images_are_read(
    run: Train, frame: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "load_crops", lambda *_, **__: pytest.fail("images were read"))
    with pytest.raises(WeightsError, match="there is no such weights file"):
        run(frame, tmp_path, network=NetworkConfig("test_efficientnet", str(tmp_path / "none.pth")))
    with pytest.raises(WeightsError, match="does not work on crops of 32 × 32 pixels"):
        run(frame, tmp_path, network=NetworkConfig("test_vit", "none", pooling="gem"))


def test_a_folder_that_cannot_be_written_is_told_before_images_are_read(
    run: Train, frame: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "load_crops", lambda *_, **__: pytest.fail("images were read"))
    (tmp_path / "file").touch()
    with pytest.raises(ModelError, match="can't be written"):
        run(frame, tmp_path / "file")


def test_a_training_needs_an_embedding_layer(run: Train, frame: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="a training needs an embedding layer"):
        run(frame, tmp_path, network=NetworkConfig("test_efficientnet", "none", embedding_dimension=None))


def test_whole_breasts_are_trained_too(run: Train, frame: pd.DataFrame, tmp_path: Path) -> None:
    empty = dict.fromkeys(("x0", "y0", "x1", "y1"), pd.NA)
    breasts = frame.assign(granularity="breast", **empty)
    densities = np.where(frame["patient_id"].isin(["w0", "w1", "w2", "w3", "w4"]), "fatty", "dense")
    preparation = PreparationConfig(granularity="breast", height=48, width=32, context=1.0)
    config = TrainingConfig(epochs=1, classes_per_batch=2, findings_per_class=2)
    card = run(
        breasts.assign(density=densities), tmp_path, preparation=preparation, training=config, labels=("density",)
    ).card
    assert card.heads["density"] == ("fatty", "dense")
    assert Embedder.load(tmp_path, device="cpu").granularity == "breast"


def test_a_training_fuses_descriptors_that_its_training_women_standardise(
    run: Train, frame: pd.DataFrame, tmp_path: Path, tiny_preparation: PreparationConfig
) -> None:
    preparation = dataclasses.replace(tiny_preparation, descriptors=("intensity", "texture"))
    config = dataclasses.replace(SHORT, epochs=1)
    result = run(frame, tmp_path / "a", preparation=preparation, training=config)
    embedder = Embedder.load(tmp_path / "a", device="cpu")
    assert embedder.digest == result.digest
    assert embedder.dimension == 16 + 24
    vectors = np.concatenate([batch.vectors for batch in embedder.embed_manifest(frame, workers=1)])
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    row = frame.iloc[0]
    alone = embedder.embed(Path(row.path), Box(row.x0, row.y0, row.x1, row.y1), spacing_mm=row.spacing_mm).vector
    assert np.abs(alone - vectors[0]).max() < 1e-5
    trained = {key for key in patient_key(frame) if result.card.role(key) == "train"}
    store = load_crops(frame, preparation)
    rows = patient_key(store.frame).isin(trained).to_numpy()
    centre = embedder.network.beside.centre.numpy()
    assert np.allclose(centre, store.descriptors[rows].mean(axis=0), rtol=1e-4, atol=1e-5)
    assert not np.allclose(centre, store.descriptors.mean(axis=0), rtol=1e-4, atol=1e-5)
    assert run(frame, tmp_path / "b", training=config).digest != result.digest


def test_a_model_names_the_women_whom_its_super_resolution_learned_from(
    run: Train, frame: pd.DataFrame, tmp_path: Path, tiny_network: NetworkConfig, tiny_preparation: PreparationConfig
) -> None:
    # A network of 64 pixels on findings of 36: every crop is enlarged.
    preparation = dataclasses.replace(tiny_preparation, height=64, width=64, super_resolution="srcnn-rsna")
    women, images = seen_by("srcnn-rsna")
    digest = pretrained_model(tmp_path / "frozen", tiny_network, preparation)
    plain = dataclasses.replace(preparation, super_resolution="none")
    assert digest != pretrained_model(tmp_path / "plain", tiny_network, plain)
    run(frame, tmp_path / "trained", preparation=preparation, training=dataclasses.replace(SHORT, epochs=1))
    for name in ("frozen", "trained"):
        card = Embedder.load(tmp_path / name, device="cpu").card
        assert card.preparation == preparation
        assert (card.women["super-resolution"], card.images["super-resolution"]) == (women, images)
    assert {card.role(key) for key in patient_key(frame)} >= {"train"}
    assert "super-resolution" not in Embedder.load(tmp_path / "plain", device="cpu").card.women


def test_without_training_descriptors_are_standardised_on_the_rows_given(
    frame: pd.DataFrame, tmp_path: Path, tiny_network: NetworkConfig, tiny_preparation: PreparationConfig
) -> None:
    preparation = dataclasses.replace(tiny_preparation, descriptors=("intensity",))
    with pytest.raises(ModelError, match="standardised on findings"):
        pretrained_model(tmp_path / "none", tiny_network, preparation)
    test_women = sorted(set(frame["patient_id"]))[:3]
    split = np.where(frame["patient_id"].isin(test_women), "test", "train")
    known = known_crops(frame.assign(split=split), preparation)
    assert not set(known.frame["patient_id"]) & set(test_women)
    pretrained_model(tmp_path / "fused", tiny_network, preparation, known)
    card = Embedder.load(tmp_path / "fused").card
    assert {key for key in patient_key(frame) if card.role(key) == "descriptors"} == set(patient_key(known.frame))


@pytest.mark.gpu
def test_a_training_on_a_gpu_is_stopped_goes_on_and_answers_on_the_processor(
    frame: pd.DataFrame, tiny_network: NetworkConfig, tiny_preparation: PreparationConfig, tmp_path: Path, cuda: str
) -> None:
    options: dict[str, Any] = {
        "network": tiny_network, "preparation": tiny_preparation, "training": SHORT, "device": cuda, "workers": 1
    }  # fmt: skip
    whole = training.train(frame, tmp_path / "whole", **options)

    def stop(report: EpochReport) -> None:
        if report.epoch == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.train(frame, tmp_path / "stopped", callbacks=TrainingCallbacks(epoch=stop), **options)
    epochs: list[int] = []
    callbacks = TrainingCallbacks(epoch=lambda report: epochs.append(report.epoch))
    resumed = training.train(frame, tmp_path / "stopped", callbacks=callbacks, **options)
    assert epochs == [2]
    for one, other in zip(whole.card.training["history"], resumed.card.training["history"], strict=True):
        assert one["losses"] == pytest.approx(other["losses"], rel=1e-2)
    here, there = (Embedder.load(tmp_path / "stopped", device=device) for device in ("cpu", cuda))
    vectors = [np.concatenate([part.vectors for part in each.embed_manifest(frame)]) for each in (here, there)]
    assert np.abs(vectors[0] - vectors[1]).max() < 1e-5
    # What was begun on a GPU goes on without one.
    with pytest.raises(KeyboardInterrupt):
        training.train(frame, tmp_path / "moved", callbacks=TrainingCallbacks(epoch=stop), **options)
    moved = training.train(frame, tmp_path / "moved", **{**options, "device": "cpu"})
    assert len(moved.card.training["history"]) == SHORT.epochs
