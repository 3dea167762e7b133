import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from classifiers import ClassificationError
from classifiers.comparison import compare_folds
from classifiers.predictions import FoldPredictions, TargetPredictions
from classifiers.scorecard import make_scorecard
from index.metrics import RECALL_LEVELS

CONTEXT = {
    "protocol": "two folds by woman",
    "manifest_digest": "d" * 64,
    "model_digests": ["e" * 64, "f" * 64],
}
CLASSES = ("benign", "malignant")


def a_run(skill, seed=0, folds=2, rows=30, head=True):
    """Make a run whose probabilities follow the truth by `skill`; truth and folds are always the same."""
    truths, noise = np.random.default_rng(99), np.random.default_rng(seed)
    run = []
    for number in range(folds):
        truth = truths.integers(0, 2, rows)
        positive = 1 / (1 + np.exp(-(skill * (2 * truth - 1) + noise.normal(size=rows))))
        values = np.stack([1 - positive, positive], axis=1)
        labels = np.array(CLASSES, dtype=object)[truth]
        labels[0], values[0] = None, np.nan
        retrieval = pd.DataFrame({"map@r": np.where(labels == None, np.nan, positive * truth), "relevant": 5})  # noqa: E711
        queries = pd.DataFrame(
            {
                "row_id": [f"{number}-{i}" for i in range(rows)],
                "woman": [f"a/{number}-{i // 2}" for i in range(rows)],
                "dataset": "a",
            }
        )
        methods = {"knn": values, "head": values} if head else {"knn": values}
        target = TargetPredictions(
            labels, CLASSES, retrieval, np.ones((rows, len(RECALL_LEVELS))), methods, dict.fromkeys(methods, "none"), {}
        )
        run.append(FoldPredictions("finding", 50, 25, str(number) * 64, queries, {"pathology": target}, 0))
    return run


def test_differences_are_those_of_the_scorecards():
    good, bad = a_run(2.0), a_run(0.0, seed=1)
    found = compare_folds(good, bad, CONTEXT, resamples=200, seed=5)
    first, second = (
        make_scorecard(run, CONTEXT, resamples=200, seed=5).targets["pathology"].scores for run in (good, bad)
    )
    parts = found.differences["pathology"]
    assert set(parts) == {"retrieval", "knn", "head"}
    for part, scores in parts.items():
        assert set(scores) == set(getattr(first, part))
        for name, estimate in scores.items():
            expected = getattr(first, part)[name].value - getattr(second, part)[name].value
            assert estimate.value == pytest.approx(expected)
            assert (estimate.items, estimate.women) == (58, 30)
    assert parts["knn"]["auc"].low > 0
    assert parts["knn"]["brier"].high < 0


def test_the_table_names_who_is_ahead():
    text = compare_folds(a_run(2.0), a_run(0.0, seed=1), CONTEXT, a="tuned", b="frozen", resamples=200).to_text()
    lines = {tuple(line.split()[:3]): line for line in text.splitlines() if line.strip()}
    for score in ("auc", "brier"):  # higher and lower are better
        assert lines["kNN", "vote", score].endswith("tuned")
    assert "two folds by woman" in text
    turned = compare_folds(a_run(0.0, seed=1), a_run(2.0), CONTEXT, a="frozen", b="tuned", resamples=200).to_text()
    assert turned.count("  tuned") == text.count("  tuned")
    same = compare_folds(a_run(1.0), a_run(1.0), CONTEXT, resamples=50).to_text()
    assert not any(line.endswith(("  A", "  B")) for line in same.splitlines())


def test_the_order_of_runs_turns_the_sign():
    good, bad = a_run(2.0), a_run(0.5, seed=1)
    one = compare_folds(good, bad, CONTEXT, resamples=50).differences["pathology"]["knn"]["auc"]
    other = compare_folds(bad, good, CONTEXT, resamples=50).differences["pathology"]["knn"]["auc"]
    assert (one.value, one.low, one.high) == pytest.approx((-other.value, -other.high, -other.low))


def test_a_comparison_is_saved_and_always_the_same(tmp_path):
    for name in ("one.json", "two.json"):
        compare_folds(a_run(1.0), a_run(0.5), CONTEXT, resamples=50).save(tmp_path / name)
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    saved = json.loads((tmp_path / "one.json").read_text())
    assert saved["differences"]["pathology"]["retrieval"]["map@r"]["women"] == 30
    assert saved["context"]["interval"]["resamples"] == 50


def test_a_part_that_one_run_lacks_is_not_compared():
    found = compare_folds(a_run(1.0), a_run(1.0, head=False), CONTEXT, resamples=20)
    assert set(found.differences["pathology"]) == {"retrieval", "knn"}


def test_refuses_runs_over_different_folds():
    run, other = a_run(1.0), a_run(1.0)
    moved = replace(other[1], gallery_digest="x" * 64)
    asked = replace(other[1], queries=other[1].queries.assign(row_id=[f"x{i}" for i in range(30)]))
    for wrong in ([other[0]], [other[0], moved], [other[0], asked], other[::-1]):
        with pytest.raises(ClassificationError, match="same folds"):
            compare_folds(run, wrong, CONTEXT)
    target = other[0].targets["pathology"]
    turned = replace(target, labels=target.labels[::-1].copy())
    with pytest.raises(ClassificationError, match="different pathology labels"):
        compare_folds(run, [replace(other[0], targets={"pathology": turned}), other[1]], CONTEXT)
