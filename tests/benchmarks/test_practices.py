"""Every practice is a recipe that can be had, and the table says what changed against the default."""

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from safetensors.torch import save_file

from benchmarks import practices
from embedder.network import EmbedderNetwork, NetworkConfig
from embedder.preparation import PreparationConfig
from embedder.recipe import Recipe


@pytest.mark.parametrize("granularity", practices.PRACTICES)
def test_every_practice_changes_the_recipe(granularity: str) -> None:
    base = Recipe.default(granularity)
    made = [base.with_settings(settings) for settings in practices.PRACTICES[granularity].values()]
    assert base not in made
    assert len(set(map(repr, made))) == len(made)


def test_the_table_holds_each_practices_difference(
    synthetic_manifest: Callable[..., pd.DataFrame],
    tiny_network: NetworkConfig,
    tiny_preparation: PreparationConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A network that starts at random is another one every time.
    weights = tmp_path / "weights.safetensors"
    save_file(EmbedderNetwork(tiny_network, {}).state_dict(), weights)
    network = dataclasses.replace(tiny_network, weights=str(weights))

    class Read:
        frame = synthetic_manifest(12, view_count=2)

    monkeypatch.setattr(practices, "read_dataset", lambda name, folder: Read)
    monkeypatch.setattr(practices, "find_data", lambda data: tmp_path)
    monkeypatch.setattr(Recipe, "default", lambda granularity: Recipe(network, tiny_preparation))
    monkeypatch.setattr(practices, "PRACTICES", {"finding": {"as it is": (), "wider": ("preparation.context=4",)}})
    output = tmp_path / "results" / "practices.csv"
    options = {"data": None, "granularity": ["finding"], "folds": 3, "seed": 0, "resamples": 50, "output": output}
    practices.run(argparse.Namespace(**options, trained=False))
    # Called again, it runs what the table lacks, and nothing where it lacks nothing.
    begun = pd.read_csv(output)
    begun[begun["practice"] == "wider"].to_csv(output, index=False)
    runs, timed = [], practices._timed
    monkeypatch.setattr(practices, "_timed", lambda *given: runs.append(given) or timed(*given))  # type: ignore[func-returns-value]
    for _ in range(2):
        practices.run(argparse.Namespace(**options, trained=False))
    assert len(runs) == 2, "the default, and the practice that was taken out"
    table = pd.read_csv(output)
    assert len(table) == len(begun)
    assert set(table["practice"]) == {"as it is", "wider"}
    assert {("lesion_type", "retrieval", "precision@10"), ("pathology", "head", "auc")} <= set(
        zip(table["label"], table["part"], table["score"], strict=True)
    )
    same = table[table["practice"] == "as it is"]
    assert (same[["difference", "difference_low", "difference_high"]] == 0).all(axis=None)
    assert (same["value"] == same["default"]).all()
    wider = table[table["practice"] == "wider"]
    assert ((wider["value"] - wider["default"] - wider["difference"]).abs() < 2e-4).all()
    assert (wider["difference"] != 0).any()
    assert (table["women"] == 12).all()
