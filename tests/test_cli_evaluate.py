"""The commands that score as their users meet them."""

import json

from embedder.manifest import write_manifest
from tests.commandline import TINY, assert_clear, line, run

__all__ = ["line", "run"]  # fixtures


def test_an_evaluation_is_saved_with_its_context(run, line, tmp_path):
    card = tmp_path / "scorecard.json"
    outcome = run("evaluate", line.manifest, "--model", line.model, "-o", card, "--resamples", 100)
    assert outcome.code == 0, outcome.err
    content = json.loads(card.read_text())
    assert {"protocol", "granularity", "manifest_digest", "model_digests", "test_women"} <= set(content["context"])
    assert "95%" in outcome.out
    assert "women" in outcome.out


def test_a_cross_validation_trains_a_model_in_every_fold(run, line, tmp_path):
    work = tmp_path / "folds"
    arguments = ("evaluate", line.manifest, "--cross-validate", 2, "--work", work, "--resamples", 100, *TINY)
    first = run(*arguments, "--set", "training.epochs=1", "--json")
    assert first.code == 0, first.err
    digests = json.loads(first.out)["context"]["model_digests"]
    assert len(set(digests)) == 2
    models = {path: path.stat().st_mtime_ns for path in work.rglob("model.safetensors")}
    again = run(*arguments, "--set", "training.epochs=1", "--json")
    assert again.out == first.out
    assert {path: path.stat().st_mtime_ns for path in work.rglob("model.safetensors")} == models


def test_hours_of_work_are_not_done_for_a_file_that_can_not_be_written(run, line, tmp_path, monkeypatch):
    monkeypatch.setattr("classifiers.crossvalidation.evaluate_model", None)
    for place in (tmp_path, tmp_path / "gone" / "card.json"):
        assert_clear(run("evaluate", line.manifest, "--model", line.model, "-o", place), place.name)


def test_a_declared_benchmark_is_run_and_compared(run, synthetic_manifest, tmp_path):
    write_manifest(synthetic_manifest(12), tmp_path / "mine.csv")
    (tmp_path / "protocol.toml").write_text(
        'name = "mine"\nmanifest = "mine.csv"\nmodel = "pretrained"\nfolds = 2\nresamples = 100\n'
        'labels = ["pathology"]\n[recipe.network]\nbackbone = "test_efficientnet"\nweights = "none"\n'
        "[recipe.preparation]\nheight = 48\nwidth = 48\n"
    )
    result = run("benchmark", "retrieval", tmp_path / "protocol.toml", "-o", tmp_path / "run", "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out)["targets"]["pathology"]["scores"]["women"] == 12
    compared = run("benchmark", "compare", tmp_path / "run", tmp_path / "run", "-o", tmp_path / "c.json")
    assert compared.code == 0, compared.err
    assert "+0.000 [+0.000, +0.000]" in compared.out
    assert json.loads((tmp_path / "c.json").read_text())["a"]
    for arguments, cause in (
        (("retrieval", tmp_path / "none.toml", "-o", tmp_path / "x"), "can't be read as a TOML protocol"),
        (("retrieval", tmp_path / "protocol.toml", "-o", tmp_path / "x", "--data", tmp_path), "needs no folder"),
        (("compare", tmp_path, tmp_path), "scorecard.json"),
    ):
        failed = run("benchmark", *arguments)
        assert failed.code == 1
        assert cause in failed.err
        assert "Traceback" not in failed.err
