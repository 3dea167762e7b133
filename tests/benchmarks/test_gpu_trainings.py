"""The trainings for a GPU, with the smallest network on the processor: jobs, what they predict, and their table."""

import argparse
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from benchmarks import gpu_trainings, gpu_trainings_table
from benchmarks.gpu_trainings import FOLDS, Job, cut_crops, jobs, middles, read_crops, run_job
from benchmarks.gpu_trials import FINAL, KINDS, Kind
from embedder.rois import load_crops

SMALL = (
    "network.backbone=test_efficientnet", "network.weights=none", "network.embedding_dimension=16",
    "preparation.height=32", "preparation.width=32", "preparation.floor_mm=12.0", "preparation.descriptors=[]",
    "training.epochs=1", 'labels=["pathology"]', 'metric_labels=["pathology"]',
)  # fmt: skip


@pytest.fixture
def frame(synthetic_manifest: Callable[..., pd.DataFrame], monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    trials = {"twice the epochs": (*SMALL, "training.epochs=2"), FINAL: SMALL}
    kind = Kind("rsna", "finding.toml", trials)
    for name in list(KINDS):
        monkeypatch.delitem(KINDS, name)
    monkeypatch.setitem(KINDS, "rsna", kind)
    frame = synthetic_manifest(20)
    monkeypatch.setattr(gpu_trainings, "read_dataset", lambda name, place: SimpleNamespace(frame=frame))
    return frame


def test_every_trial_is_a_recipe_of_its_own_and_a_change_of_the_first() -> None:
    for kind in KINDS.values():
        recipes = {trial: kind.recipe_of(trial) for trial in kind.trials}
        assert kind.trials[FINAL] == ()
        assert len(set(map(repr, recipes.values()))) == len(recipes)
        assert all(recipe.training.validation_share == 0 for recipe in recipes.values())


def test_the_longest_trainings_of_the_first_seed_come_first() -> None:
    asked = list(jobs(argparse.Namespace(seeds=[4, 5], kinds=list(KINDS), trials=None)))
    assert len(asked) == len(set(asked)) == 2 * FOLDS * sum(len(kind.trials) for kind in KINDS.values())
    assert {job.seed for job in asked[: len(asked) // 2]} == {4}
    assert asked[0].trial == next(iter(KINDS[asked[0].kind].trials))
    assert asked[len(asked) // 2].trial == FINAL


def test_what_is_finished_is_scored_beside_the_recipe(frame: pd.DataFrame, tmp_path: Path) -> None:
    done = [Job("rsna", trial, 0, fold) for trial in KINDS["rsna"].trials for fold in range(FOLDS)]
    crops = cut_crops("rsna", tmp_path, done[0].recipe, tmp_path, 1)
    assert cut_crops("rsna", tmp_path, done[0].recipe, tmp_path, 1) == crops
    preparation = done[0].recipe.preparation
    plain = load_crops(frame, preparation, workers=1)
    # The same place: its pixels are resampled within a larger window, and so differ a little.
    apart = np.abs(middles(read_crops(crops), preparation).pixels - plain.pixels.astype(np.float32))
    assert apart.mean() < 0.02
    for job in done:
        run_job(job, crops, tmp_path, "cpu")
        assert job.file(tmp_path).exists()
    assert not list(tmp_path.glob("model-*"))
    asked = argparse.Namespace(work=tmp_path, resamples=100, output=tmp_path / "table.csv")
    gpu_trainings_table.run(asked)
    table = pd.read_csv(asked.output)
    assert set(table["trial"]) == set(KINDS["rsna"].trials)
    same = table[table["trial"] == FINAL]
    assert (same["difference"] == 0).all()
    assert (same["value"] == same["default"]).all()
    assert {"retrieval", "knn", "head", "network"} <= set(table["part"])
    assert set(table["women"]) == {20}


def test_a_trial_that_is_not_finished_is_told_and_left_out(
    frame: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu_trainings_table.run(argparse.Namespace(work=tmp_path, resamples=100, output=tmp_path / "table.csv"))
    assert "twice the epochs: not finished" in capsys.readouterr().err
