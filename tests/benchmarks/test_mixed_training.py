"""Each model is judged on each kind of image, by the same galleries and questions, and sees no test woman."""

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks import mixed_training
from embedder.checkpoint import woman_digest
from embedder.embedding import Embedder
from embedder.findings import patient_key
from embedder.network import NetworkConfig
from embedder.preparation import PreparationConfig
from embedder.recipe import Recipe
from embedder.trainingplan import TrainingConfig


@pytest.fixture
def frames(synthetic_manifest: Callable[..., pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Breasts of film with their density, and digital ones without."""
    film = synthetic_manifest(12, granularity="breast", density=["fatty", "dense", "glandular"] * 4)
    digital = synthetic_manifest(9, granularity="breast")
    digital["row_id"] = "digital-" + digital["row_id"]
    return {
        name: frame.assign(dataset=name, x0=np.nan, y0=np.nan, x1=np.nan, y1=np.nan)
        for name, frame in (("mini-mias", film), ("rsna", digital.assign(density=None)))
    }


def test_the_table_holds_every_model_on_every_kind_of_image(
    frames: dict[str, pd.DataFrame],
    tiny_network: NetworkConfig,
    tiny_preparation: PreparationConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = Recipe(
        tiny_network,
        dataclasses.replace(tiny_preparation, granularity="breast"),
        TrainingConfig(epochs=1, validation_share=0, classes_per_batch=2, findings_per_class=2),
    )

    class Read:
        def __init__(self, name: str, folder: Path) -> None:
            self.frame = frames[name]

    monkeypatch.setattr(mixed_training, "read_dataset", Read)
    monkeypatch.setattr(mixed_training, "find_data", lambda data: tmp_path)
    monkeypatch.setattr(mixed_training, "BUDGET", {"breast": ()})
    monkeypatch.setattr(Recipe, "default", lambda granularity: recipe)
    seen: dict[str, set[str]] = {}
    load = Embedder.load

    def spy(place: Path, **options: Any) -> Embedder:
        embedder = load(place, **options)
        seen[place.name] = set(embedder.card.women.get("train", ()))
        return embedder

    monkeypatch.setattr(mixed_training.Embedder, "load", spy)
    output = tmp_path / "mixed.csv"
    mixed_training.run(
        argparse.Namespace(
            mini_mias=None, rsna=tmp_path, work=tmp_path / "work", folds=3, seed=0, resamples=50, output=output
        )
    )
    table = pd.read_csv(output)
    assert set(zip(table["trained_on"], table["asked"], strict=True)) == {
        (name, kind) for name in mixed_training.TRAINED_ON for kind in ("film", "digital")
    }
    assert set(table["label"][table["asked"] == "digital"]) == {"pathology"}
    assert set(table["label"][table["asked"] == "film"]) == {"pathology", "density"}
    own = table[table["trained_on"] == table["asked"]]
    assert (own[["difference", "difference_low", "difference_high"]] == 0).all(axis=None)
    assert (table["difference"] != 0).any()
    women = {name: {woman_digest(key) for key in patient_key(frame)} for name, frame in frames.items()}
    for fold in (1, 2, 3):
        film, digital, both = (seen[f"fold-{fold}-{name}"] for name in ("film", "digital", "film-and-digital"))
        assert film < women["mini-mias"]
        assert digital < women["rsna"]
        assert both == film | digital
        assert not seen[f"fold-{fold}-frozen"]
    for kind, everyone in (("film", women["mini-mias"]), ("digital", women["rsna"])):
        tested = [everyone - seen[f"fold-{fold}-{kind}"] for fold in (1, 2, 3)]
        assert set.union(*tested) == everyone
        assert sum(map(len, tested)) == len(everyone), "each woman is tested once"
