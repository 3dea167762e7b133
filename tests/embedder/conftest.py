"""Fixtures of the embedder's tests: trainings that are the same to the last bit, with the smallest network."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from embedder.network import NetworkConfig
from embedder.preparation import PreparationConfig
from embedder.training import TrainingConfig, TrainingResult, train


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Run on one thread: sums in another order round differently."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def run(
    request: pytest.FixtureRequest, one_thread: None, tiny_network: NetworkConfig, tiny_preparation: PreparationConfig
) -> Callable[..., TrainingResult]:
    """Train with the tiny network, by the module's SHORT training unless told otherwise."""
    short: TrainingConfig = request.module.SHORT

    def start(frame: pd.DataFrame, folder: Path, **options: Any) -> TrainingResult:
        given = {"network": tiny_network, "preparation": tiny_preparation, "training": short, **options}
        return train(frame, folder, device="cpu", workers=1, **given)

    return start
