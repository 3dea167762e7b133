"""The table holds both calibrations of the folds that a run kept."""

import argparse
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from benchmarks import fold_calibration
from classifiers.benchmark import run_benchmark
from classifiers.protocol import Protocol
from embedder.recipe import Recipe
from errors import MammoseekError


def test_each_score_stands_both_ways(synthetic_manifest, tiny_network, tiny_preparation, tmp_path):
    recipe = Recipe(tiny_network, tiny_preparation).with_settings(["training.epochs=1", "training.validation_share=0"])
    protocol = Protocol("x", dataset="mini-mias", recipe=recipe, folds=3, resamples=100, labels=("pathology",))
    frame = synthetic_manifest(36)
    runs = {
        name: run_benchmark(replace(protocol, calibration=name), frame, tmp_path / name, device="cpu", workers=1)
        for name in ("gallery", "folds")
    }
    output = tmp_path / "table.csv"
    fold_calibration.run(argparse.Namespace(runs=[tmp_path / "gallery"], resamples=50, output=output))
    table = pd.read_csv(output).set_index(["method", "score"])
    for method in ("knn", "head"):
        for column, name in (("on_gallery", "gallery"), ("on_folds", "folds")):
            scores = getattr(runs[name].scorecard.targets["pathology"].scores, method)
            for score in ("auc", "brier", "calibration_error"):
                assert table.loc[(method, score), column] == pytest.approx(scores[score].value, abs=1e-4)
    assert np.nanmax(np.abs(table["on_folds"] - table["on_gallery"] - table["difference"])) < 2e-4
    with pytest.raises(MammoseekError, match="keeps no folds"):
        fold_calibration.kept_folds(tmp_path)
