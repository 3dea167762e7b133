"""Trainings of several members: whom each sees, that a stop loses nothing, and what the card says of them together."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from embedder import ensembletraining
from embedder.checkpoint import CARD_FILE, WEIGHTS_FILE, ModelError, load_model, woman_digest
from embedder.embedding import Embedder
from embedder.ensemble import Ensemble
from embedder.ensembletraining import MEMBERS_FOLDER, plan_members
from embedder.findings import patient_key
from embedder.preparation import PreparationConfig
from embedder.roles import label_classes
from embedder.training import TrainingCallbacks, TrainingConfig, TrainingResult

Make = Callable[..., pd.DataFrame]
Train = Callable[..., TrainingResult]

pytestmark = pytest.mark.usefixtures("one_thread")

SHORT = TrainingConfig(epochs=2, classes_per_batch=2, findings_per_class=3, seed=5, members=3)


class Stopped(Exception):
    """A training is stopped from outside."""


@pytest.fixture
def frame(synthetic_manifest: Make) -> pd.DataFrame:
    return synthetic_manifest(15, view_count=2)


def members_of(frame: pd.DataFrame, folder: Path, training: TrainingConfig) -> list[ensembletraining.Member]:
    used = frame.assign(role=frame["split"].where(frame["split"].notna(), "train").astype(str))
    used = used[used["role"] != "test"].reset_index(drop=True)
    return plan_members(frame, used, folder, training, label_classes(used[used["role"] == "train"]))


def test_each_woman_is_left_out_by_one_member(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame = frame.assign(split=["test"] * 2 + ["validation"] * 2 + [None] * (len(frame) - 4))
    members = members_of(frame, tmp_path, SHORT)
    keys = patient_key(frame)
    for key in keys.unique():
        stated = frame["split"][keys == key].iloc[0]
        splits = [set(member.frame["split"][keys == key]) for member in members]
        assert all(len(split) == 1 for split in splits)
        roles = sorted(split.pop() for split in splits)
        assert roles == ([stated] * 3 if isinstance(stated, str) else ["train", "train", "validation"])
    assert len({member.training.seed for member in members}) == 3
    assert {(member.training.members, member.training.validation_share) for member in members} == {(1, 0.0)}


def test_members_by_seeds_see_the_same_women(frame: pd.DataFrame, tmp_path: Path) -> None:
    members = members_of(frame, tmp_path, replace(SHORT, members_by="seeds"))
    assert all((member.frame["split"] == "train").all() for member in members)
    assert len({member.training.seed for member in members}) == 3


def test_seeds_of_neighbouring_trainings_have_no_member_in_common(frame: pd.DataFrame, tmp_path: Path) -> None:
    seeds = [
        member.training.seed
        for seed in range(5)
        for member in members_of(frame, tmp_path, replace(SHORT, seed=seed, members=10))
    ]
    assert len(set(seeds)) == len(seeds)


def test_members_answer_as_one_model(run: Train, frame: pd.DataFrame, tmp_path: Path) -> None:
    frame = frame.assign(split=["test"] * 2 + [None] * (len(frame) - 2))
    batches: list[int] = []
    epochs: list[tuple[int, int]] = []
    callbacks = TrainingCallbacks(
        batch=lambda epoch, done, total: batches.append(epoch),
        epoch=lambda report: epochs.append((report.epoch, report.epochs)),
    )
    result = run(frame, tmp_path, callbacks=callbacks)
    network, card, digest = load_model(tmp_path)
    assert isinstance(network, Ensemble)
    assert digest == result.digest
    assert card.members == len(network.members) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == [CARD_FILE, WEIGHTS_FILE]
    assert epochs == [(epoch, 6) for epoch in range(6)]
    assert batches == sorted(batches)
    assert [(entry["member"], entry["epoch"]) for entry in card.training["history"]] == [
        (member, epoch) for member in range(3) for epoch in range(2)
    ]
    known = set(patient_key(frame[frame["split"] != "test"]))
    assert set(card.women["train"]) == {woman_digest(key) for key in known}
    assert card.women["validation"] == ()
    assert card.data["women"] == {"train": len(known), "validation": 0}
    assert {name.partition(",")[0] for name in card.figures if name != "interval"} == {
        "member 1",
        "member 2",
        "member 3",
    }
    weights = network.state_dict()
    first, second = (weights[f"members.{member}.embed.1.weight"] for member in (0, 1))
    assert not torch.equal(first, second)
    embedder = Embedder(network, card, digest, device="cpu")
    assert embedder.dimension == 48
    vectors = np.concatenate([batch.vectors for batch in embedder.embed_manifest(frame, workers=1)])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_a_stopped_ensemble_goes_on_to_the_same_bits(run: Train, frame: pd.DataFrame, tmp_path: Path) -> None:
    whole = run(frame, tmp_path / "whole")

    def stop(epoch: int, done: int, total: int) -> None:
        if epoch == 3:
            raise Stopped

    with pytest.raises(Stopped):
        run(frame, tmp_path / "stopped", callbacks=TrainingCallbacks(batch=stop))
    assert (tmp_path / "stopped" / MEMBERS_FOLDER / "1-of-3" / CARD_FILE).exists()
    again: list[int] = []
    result = run(
        frame, tmp_path / "stopped", callbacks=TrainingCallbacks(batch=lambda epoch, *rest: again.append(epoch))
    )
    assert result.digest == whole.digest
    assert set(again) == {3, 4, 5}, "the first member and the second's first epoch are not trained again"
    assert result.card.to_dict() == whole.card.to_dict()
    assert not (tmp_path / "stopped" / MEMBERS_FOLDER).exists()


def test_a_finished_ensemble_is_not_trained_again(run: Train, frame: pd.DataFrame, tmp_path: Path) -> None:
    digest = run(frame, tmp_path).digest
    (tmp_path / MEMBERS_FOLDER).mkdir()  # a kill before the last step left it
    again: list[int] = []
    callbacks = TrainingCallbacks(batch=lambda epoch, *rest: again.append(epoch))
    assert run(frame, tmp_path, callbacks=callbacks).digest == digest
    assert not again
    assert not (tmp_path / MEMBERS_FOLDER).exists()


def test_too_few_women_are_told_before_a_member_is_trained(
    run: Train, synthetic_manifest: Make, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="15 women for 20 members; set fewer members"):
        run(synthetic_manifest(15), tmp_path, training=replace(SHORT, members=20))
    frame = synthetic_manifest(15)
    frame["pathology"] = ["benign", "benign"] + ["malignant"] * 13
    with pytest.raises(ModelError, match=r"too few women of a class .*pathology.*; set fewer members, or"):
        run(frame, tmp_path, training=SHORT)
    assert not tmp_path.exists() or not list(tmp_path.iterdir())


def test_an_ensemble_fuses_descriptors_by_each_members_women(
    run: Train, frame: pd.DataFrame, tiny_preparation: PreparationConfig, tmp_path: Path
) -> None:
    run(frame, tmp_path, preparation=replace(tiny_preparation, descriptors=("intensity",)))
    network = load_model(tmp_path)[0]
    assert isinstance(network, Ensemble)
    centres = [network.state_dict()[f"members.{member}.beside.centre"] for member in range(3)]
    assert not torch.equal(centres[0], centres[1])
    assert network.beside is not None
