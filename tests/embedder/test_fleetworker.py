"""What a worker does, without a cluster: it checks what it was sent, and says where it runs."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from embedder import fleetworker
from embedder.checkpoint import ModelError
from embedder.embedding import Embedder, pretrained_model
from embedder.fleetworker import FleetError, ModelFiles, Task, do_task, versions
from embedder.network import NetworkConfig
from embedder.preparation import PreparationConfig

Make = Callable[..., pd.DataFrame]


@pytest.fixture
def model(tiny_network: NetworkConfig, tiny_preparation: PreparationConfig, tmp_path: Path) -> Path:
    pretrained_model(tmp_path / "model", tiny_network, tiny_preparation)
    return tmp_path / "model"


@pytest.fixture
def task(model: Path, synthetic_manifest: Make, monkeypatch: pytest.MonkeyPatch) -> Task:
    monkeypatch.setattr(fleetworker, "_loaded", {})
    digest = Embedder.load(model, device="cpu").digest
    frame = synthetic_manifest(5).drop(columns=["row_id", "patient_id", "dataset"])
    return Task(frame, (2, 3), True, digest, "cpu", 32, 1, versions())


def test_it_embeds_as_one_process_does_and_fetches_the_model_once(model: Path, task: Task) -> None:
    fetched: list[int] = []

    def fetch() -> ModelFiles:
        fetched.append(1)
        return ModelFiles.read(model)

    embedder = Embedder.load(model, device="cpu")
    expected = list(embedder.embed_batches(task.frame, [np.arange(2), np.arange(2, 5)], thumbnails=True))
    for _ in range(3):
        done = do_task(task, fetch)
        assert [part.vectors.tobytes() for part in done.batches] == [part.vectors.tobytes() for part in expected]
        assert [part.positions.tolist() for part in done.batches] == [[0, 1], [2, 3, 4]]
        assert [part.thumbnails for part in done.batches] == [part.thumbnails for part in expected]
        assert done.unseen == []
        assert done.host
    assert fetched == [1]


def test_it_names_images_that_it_cannot_see(model: Path, task: Task, tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    task.frame.loc[1, "path"] = str(tmp_path / "empty.png")
    task.frame.loc[3, "path"] = "/nowhere/at/all.png"
    task.frame.loc[4, "path"] = "null\0byte.png"
    done = do_task(task, lambda: ModelFiles.read(model))
    assert [position for part in done.batches for position, _ in part.failures] == [1, 3, 4]
    assert done.unseen == [3, 4]


@pytest.mark.parametrize("name", ["mammoseek", "torch", "cv2"])
def test_another_version_is_refused(model: Path, task: Task, name: str) -> None:
    other = tuple((which, "0.1" if which == name else version) for which, version in task.versions)
    with pytest.raises(FleetError, match=rf"worker on .* has {name} .*, and the driver 0\.1"):
        do_task(dataclasses.replace(task, versions=other), lambda: ModelFiles.read(model))


def test_another_model_is_refused(model: Path, task: Task) -> None:
    with pytest.raises(ModelError, match="instead of ffff"):
        do_task(dataclasses.replace(task, digest="f" * 64), lambda: ModelFiles.read(model))


@pytest.mark.parametrize("part", ["card", "weights"])
def test_a_damaged_model_is_refused(model: Path, task: Task, part: str) -> None:
    files = ModelFiles.read(model)
    content = bytearray(getattr(files, part))
    content[len(content) // 2] ^= 1
    with pytest.raises(ModelError, match=r"worker on .* can't load the model"):
        do_task(task, lambda: dataclasses.replace(files, **{part: bytes(content)}))


def test_a_device_that_is_not_there_is_told(model: Path, task: Task) -> None:
    with pytest.raises(ModelError, match=r"worker on .* can't load the model"):
        do_task(dataclasses.replace(task, device="cuda:77"), lambda: ModelFiles.read(model))


def test_a_model_that_is_not_here_is_told_by_the_driver(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="can't be read"):
        ModelFiles.read(tmp_path)
