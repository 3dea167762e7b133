import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sklearn_metrics

from classifiers import ClassificationError
from classifiers.evaluation import compare_retrieval, compare_runs, score_classification, score_retrieval
from index.metrics import bootstrap_interval

CLASSES = ("fatty", "glandular", "dense")


def a_run(seed=0, items=60, women=25, skill=1.0):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, items)
    raw = np.exp(rng.normal(size=(items, 3)) + skill * np.eye(3)[truth])
    keys = np.array([f"a/{i}" for i in rng.integers(0, women, items)], dtype=object)
    return np.array(CLASSES, dtype=object)[truth], raw / raw.sum(axis=1, keepdims=True), keys


def test_values_equal_those_of_scikit_learn():
    labels, values, keys = a_run()
    found = score_classification(labels, values, CLASSES, keys, ordered=CLASSES, resamples=50)
    truth = np.array([CLASSES.index(label) for label in labels])
    predicted = values.argmax(axis=1)
    expected = {
        "auc": sklearn_metrics.roc_auc_score(truth, values, multi_class="ovr"),
        "accuracy": sklearn_metrics.accuracy_score(truth, predicted),
        "balanced_accuracy": sklearn_metrics.balanced_accuracy_score(truth, predicted),
        "f1_macro": sklearn_metrics.f1_score(truth, predicted, average="macro"),
        "kappa": sklearn_metrics.cohen_kappa_score(truth, predicted, weights="quadratic"),
    }
    assert {name: found[name].value for name in expected} == pytest.approx(expected)
    assert set(found) == {*expected, "brier", "calibration_error"}
    for estimate in found.values():
        assert estimate.low <= estimate.high
        assert (estimate.items, estimate.women, estimate.resamples) == (60, len(set(keys)), 50)


def test_accuracy_has_the_interval_of_a_mean():
    labels, values, keys = a_run()
    right = (np.array(CLASSES, dtype=object)[values.argmax(axis=1)] == labels).astype(float)
    found = score_classification(labels, values, CLASSES, keys, resamples=300, seed=4)["accuracy"]
    mean = bootstrap_interval(right, keys, resamples=300, seed=4)
    assert (found.value, found.low, found.high) == pytest.approx((mean.value, mean.low, mean.high))


def test_a_positive_class_makes_auc_and_f1_its_own():
    labels, values, keys = a_run()
    found = score_classification(labels, values, CLASSES, keys, positive="dense", resamples=10)
    truth = labels == "dense"
    assert found["auc"].value == pytest.approx(sklearn_metrics.roc_auc_score(truth, values[:, 2]))
    assert found["f1"].value == pytest.approx(sklearn_metrics.f1_score(truth, values.argmax(axis=1) == 2))


def test_missing_labels_never_count():
    labels, values, keys = a_run()
    gaps = np.concatenate([labels, [None, None]])
    more = np.vstack([values, np.full((2, 3), np.nan)])
    women = [*keys, "b/1", "b/2"]
    assert score_classification(gaps, more, CLASSES, women, resamples=20) == score_classification(
        labels, values, CLASSES, keys, resamples=20
    )


def test_a_class_that_the_model_never_saw_is_an_error_of_the_model():
    found = score_classification(
        ["a", "b", "c"], [[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]], ["a", "b"], ["w/1", "w/2", "w/3"], resamples=10
    )
    assert found["accuracy"].value == pytest.approx(2 / 3)
    assert found["balanced_accuracy"].value == pytest.approx(2 / 3)


def test_one_woman_has_scores_without_intervals():
    labels, values, _ = a_run()
    found = score_classification(labels, values, CLASSES, ["a/1"] * 60)
    assert not np.isnan(found["auc"].value)
    assert np.isnan(found["auc"].low)


def test_comparison_is_the_difference_of_the_scores():
    labels, good, keys = a_run(skill=2.0)
    _, bad, _ = a_run(seed=1, skill=0.0)
    arguments = {"ordered": CLASSES, "positive": "dense", "resamples": 200, "seed": 2}
    found = compare_runs(labels, good, bad, CLASSES, keys, **arguments)
    first = score_classification(labels, good, CLASSES, keys, **arguments)
    second = score_classification(labels, bad, CLASSES, keys, **arguments)
    for name, estimate in found.items():
        assert estimate.value == pytest.approx(first[name].value - second[name].value)
    assert found["accuracy"].low > 0
    assert found["brier"].high < 0


def test_a_run_does_not_differ_from_itself():
    labels, values, keys = a_run()
    for estimate in compare_runs(labels, values, values, CLASSES, keys, resamples=20).values():
        assert (estimate.value, estimate.low, estimate.high) == (0, 0, 0)


def test_retrieval_scores_are_averaged_over_those_that_have_one():
    table = pd.DataFrame({"map@r": [0.5, np.nan, 1.0], "relevant": [3, 0, 2]})
    found = score_retrieval(table, ["a/1", "a/2", "a/3"], resamples=50)
    assert list(found) == ["map@r"]
    assert (found["map@r"].value, found["map@r"].items, found["map@r"].women) == (0.75, 2, 2)


def test_retrieval_runs_are_compared_query_by_query():
    a, b = pd.DataFrame({"map@r": [0.5, 0.6, 1.0]}), pd.DataFrame({"map@r": [0.4, 0.5, np.nan]})
    found = compare_retrieval(a, b, ["a/1", "a/2", "a/3"], resamples=50)["map@r"]
    assert (found.value, found.low, found.high) == pytest.approx((0.1, 0.1, 0.1))
    assert found.items == 2
    with pytest.raises(ClassificationError, match="different queries"):
        compare_retrieval(a, b.iloc[:2], ["a/1", "a/2", "a/3"])


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"labels": [None] * 60}, "no item has a label"),
        ({"probabilities": np.ones((59, 3))}, "the shape is"),
        ({"probabilities": np.full((60, 3), np.nan)}, "not finite"),
        ({"positive": "mass"}, "'mass' is none of"),
        ({"ordered": ("fatty", "dense")}, "does not say where 'glandular'"),
        ({"ordered": (*CLASSES, "D")}, "'D' is none of"),
        ({"patients": ["a/1"]}, "keys"),
    ],
)
def test_refuses_what_does_not_fit(change, cause):
    labels, values, keys = a_run()
    arguments = {"labels": labels, "probabilities": values, "classes": CLASSES, "patients": keys}
    with pytest.raises(ClassificationError, match=cause):
        score_classification(**(arguments | change))


def test_the_area_within_folds_is_the_mean_of_each_folds_own():
    rng = np.random.default_rng(0)
    labels = rng.choice(np.array(["benign", "malignant", None], dtype=object), 60)
    folds, women = np.repeat([0, 1, 2], 20), np.array([f"a/{row // 2}" for row in range(60)], dtype=object)
    # A model whose every probability is higher is no better one, within its fold.
    runs = [np.clip(rng.random(60) * 0.4 + 0.3 * folds, 0, 1) for _ in range(2)]
    values = [np.stack([1 - run, run], axis=1) for run in runs]
    options = {"positive": "malignant", "folds": folds, "resamples": 50}
    found = [score_classification(labels, each, ("benign", "malignant"), women, **options) for each in values]
    known = np.array([label is not None for label in labels])
    for estimates, run in zip(found, runs, strict=True):
        own = [known & (folds == fold) for fold in range(3)]
        slow = np.mean([sklearn_metrics.roc_auc_score(labels[part] == "malignant", run[part]) for part in own])
        assert estimates["auc_within_folds"].value == pytest.approx(slow)
        assert estimates["auc_within_folds"].value != pytest.approx(estimates["auc"].value)
        assert estimates["auc_within_folds"].low < slow < estimates["auc_within_folds"].high
    compared = compare_runs(labels, *values, ("benign", "malignant"), women, **options)["auc_within_folds"]
    assert compared.value == pytest.approx(found[0]["auc_within_folds"].value - found[1]["auc_within_folds"].value)
    alone = score_classification(labels, values[0], ("benign", "malignant"), women, **{**options, "folds": folds * 0})
    assert "auc_within_folds" not in alone
    with pytest.raises(ClassificationError, match="folds for"):
        score_classification(labels, values[0], ("benign", "malignant"), women, **{**options, "folds": folds[1:]})
