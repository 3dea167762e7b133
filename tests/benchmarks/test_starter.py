"""What is told of a starter model is what was measured, and a remake is held against it."""

import json
from pathlib import Path

import pytest

from benchmarks.starter import HEADLINES, compare, install, starter_card
from classifiers.scorecard import Scorecard, Scores, TargetScores
from embedder.datasets import read_dataset
from index.metrics import Estimate


def scorecard(value: float) -> Scorecard:
    """A scorecard all of whose figures are this one."""
    figure = Estimate(value, value - 0.1, value + 0.1, 0.95, 119, 104, 2000)
    names = ("precision@10", "accuracy", "kappa", "auc", "auc_within_folds", "brier")
    scores = Scores(119, 104, *(dict.fromkeys(names, figure) for _ in range(3)))
    labels = {label for figures in HEADLINES.values() for label, _, _ in figures}
    targets = {label: TargetScores({}, None, scores, {}, {}, []) for label in labels}
    return Scorecard({"protocol": "5 folds by woman, seeds 0, 1, 2"}, targets)


@pytest.mark.parametrize("name", ["finding", "breast"])
def test_a_remake_within_the_intervals_agrees_and_one_outside_does_not(
    name: str, mini_mias: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = read_dataset("mini-mias", mini_mias).frame
    card = starter_card(frame, name, scorecard(0.6))
    gallery = tmp_path / "gallery"
    gallery.mkdir()
    (gallery / "gallery.json").write_text("{}")
    for _ in range(2):  # what was installed before is replaced
        install(gallery, card, tmp_path / "starter" / name)
    place = tmp_path / "starter" / name
    assert sorted(path.name for path in place.iterdir()) == ["gallery.json", "starter.json"]
    told = json.loads((place / "starter.json").read_text())
    assert told["rows"] == {"finding": 119, "breast": 322}[name]
    assert told["women"] == {"finding": 104, "breast": 161}[name]
    assert [figure for _, _, figure in told["figures"]] == ["0.60 [0.50, 0.70]"] * len(HEADLINES[name])
    assert compare(name, scorecard(0.69), place)
    assert not compare(name, scorecard(0.71), place)
    assert "OUTSIDE" in capsys.readouterr().out
