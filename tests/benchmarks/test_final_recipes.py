"""The table of the final recipes holds what `mammoseek benchmark compare` says, and keeps the other granularity."""

import argparse
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from benchmarks import final_recipes
from classifiers.benchmark import compare_benchmarks, run_benchmark
from classifiers.protocol import Protocol
from embedder.recipe import Recipe


@pytest.fixture(scope="module")
def runs(synthetic_manifest, tiny_network, tiny_preparation, tmp_path_factory):
    """A run with two seeds, another with both, and one with the second alone."""
    folder = tmp_path_factory.mktemp("final")
    frame = synthetic_manifest(12)
    protocol = Protocol(
        "final", dataset="mini-mias", model="pretrained", recipe=Recipe(tiny_network, tiny_preparation), folds=3,
        seeds=(0, 1), resamples=100,
    )  # fmt: skip
    wide = replace(protocol, name="wide", recipe=protocol.recipe.with_settings(["preparation.context=3"]))
    for name, each in (("final", protocol), ("wide", wide), ("one seed", replace(wide, name="one", seeds=(1,)))):
        run_benchmark(each, frame, folder / name, device="cpu", workers=1)
    return folder


def test_the_table_says_what_a_comparison_says(runs, tmp_path):
    output = tmp_path / "final.csv"
    pd.DataFrame([{"granularity": "breast", "a": "x"}, {"granularity": "finding", "a": "old"}]).to_csv(
        output, index=False
    )
    final_recipes.run(
        argparse.Namespace(run=runs / "final", against=[runs / "wide", runs / "one seed"], resamples=100, output=output)
    )
    table = pd.read_csv(output)
    assert table["a"].tolist().count("x") == 1
    assert "old" not in set(table["a"])
    differences = compare_benchmarks(runs / "final", runs / "wide", resamples=100).differences
    both = table[table["b"] == "wide"].set_index(["label", "part", "score"])
    expected = {
        (label, part, score): estimate.value
        for label, parts in differences.items()
        for part, scores in parts.items()
        for score, estimate in scores.items()
    }
    assert both["difference"].to_dict() == pytest.approx(expected, abs=1e-4, nan_ok=True)
    assert np.nanmax(np.abs(both["a_value"] - both["b_value"] - both["difference"])) < 2e-4
    assert set(both["protocol"]) == {"3 folds by woman, seeds 0, 1"}
    one = table[table["b"] == "one"]
    assert set(one["protocol"]) == {"3 folds by woman, seed 1"}
    assert np.nanmax(np.abs(one["a_value"] - one["b_value"] - one["difference"])) < 2e-4
