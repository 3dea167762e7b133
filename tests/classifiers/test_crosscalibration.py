from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from classifiers import ClassificationError
from classifiers.calibration import Calibration, brier_score
from classifiers.crosscalibration import calibrate_across_folds
from classifiers.predictions import FoldPredictions, TargetPredictions
from index.metrics import RECALL_LEVELS

CLASSES = ("benign", "malignant")


def made_fold(number, women=40, seed=0, sharpness=4.0, classes=CLASSES):
    """Return a fold whose probabilities are as sure as if the log odds were `sharpness` times what they are."""
    rng = np.random.default_rng(100 * seed + number)
    odds = rng.normal(size=(women, len(classes)))
    true = np.exp(odds) / np.exp(odds).sum(axis=1, keepdims=True)
    told = np.exp(sharpness * odds) / np.exp(sharpness * odds).sum(axis=1, keepdims=True)
    labels = np.array([rng.choice(classes, p=row) for row in true], dtype=object)
    labels[0] = None
    told[0] = np.nan
    queries = pd.DataFrame(
        {
            "row_id": [f"r{number}-{place}" for place in range(women)],
            "woman": [f"a/{number}-{place}" for place in range(women)],
            "dataset": "a",
        },
        dtype=object,
    )
    retrieval = pd.DataFrame({"precision@10": np.zeros(women)})
    target = TargetPredictions(
        labels,
        classes,
        retrieval,
        np.zeros((women, len(RECALL_LEVELS))),
        {"head": told},
        {"head": "as it came"},
        {"knn": "nobody voted"},
    )
    return FoldPredictions("finding", 10, 10, "digest", queries, {"pathology": target}, seed)


def changed(fold, **parts):
    return replace(fold, targets={"pathology": replace(fold.targets["pathology"], **parts)})


def test_what_is_too_sure_becomes_what_it_says():
    folds = [made_fold(number) for number in range(5)]
    found = calibrate_across_folds(folds)
    for before, after in zip(folds, found, strict=True):
        old, new = before.targets["pathology"], after.targets["pathology"]
        others = [fold.targets["pathology"] for fold in folds if fold is not before]
        slow = Calibration().fit(
            np.concatenate([part.probabilities["head"] for part in others]),
            np.concatenate([part.labels for part in others]),
            np.concatenate([fold.queries["woman"] for fold in folds if fold is not before]),
            CLASSES,
        )
        np.testing.assert_allclose(new.probabilities["head"][1:], slow.transform(old.probabilities["head"][1:]))
        assert np.isnan(new.probabilities["head"][0]).all()
        assert slow.sharpness_ == pytest.approx(1 / 4, abs=0.15)
        assert "156 findings of 156 women, the test women of the other folds" in new.calibration["head"]
        assert new.reasons == old.reasons
        assert new.retrieval is old.retrieval
    score = [
        np.mean([brier_score(f.targets["pathology"].probabilities["head"], f.targets["pathology"].labels, CLASSES)
                 for f in each])
        for each in (folds, found)
    ]  # fmt: skip
    assert score[1] < score[0] - 0.02


def test_a_folds_own_labels_reach_nothing_of_its_own():
    folds = [made_fold(number) for number in range(3)]
    other = {"benign": "malignant", "malignant": "benign", None: None}
    labels = np.array([other[term] for term in folds[0].targets["pathology"].labels], dtype=object)
    turned = [changed(folds[0], labels=labels), *folds[1:]]
    first, second = (calibrate_across_folds(each) for each in (folds, turned))
    heads = [[fold.targets["pathology"].probabilities["head"] for fold in each] for each in (first, second)]
    np.testing.assert_array_equal(heads[0][0], heads[1][0])
    assert not np.array_equal(heads[0][1], heads[1][1], equal_nan=True)


def test_seeds_are_calibrated_apart():
    both = [made_fold(number, seed=seed, sharpness=1 + 3 * seed) for seed in (0, 1) for number in range(3)]
    together = calibrate_across_folds(both)
    for start in (0, 3):
        alone = calibrate_across_folds(both[start : start + 3])
        assert [fold.to_dict() for fold in together[start : start + 3]] == [fold.to_dict() for fold in alone]


def test_folds_may_know_other_classes():
    three = ("benign", "malignant", "normal")
    folds = [made_fold(0), made_fold(1, classes=three), made_fold(2, classes=three)]
    found = calibrate_across_folds(folds)
    for fold in found:
        values = fold.targets["pathology"].probabilities["head"][1:]
        assert values.shape[1] == len(fold.targets["pathology"].classes)
        np.testing.assert_allclose(values.sum(axis=1), 1)


def test_too_few_women_leave_probabilities_as_they_are_and_say_so():
    folds = [made_fold(number, women=4) for number in range(3)]
    found = calibrate_across_folds(folds)
    for before, after in zip(folds, found, strict=True):
        np.testing.assert_array_equal(*(fold.targets["pathology"].probabilities["head"] for fold in (before, after)))
        assert after.targets["pathology"].calibration["head"].startswith("not calibrated: ")


def test_one_fold_has_no_other_to_be_calibrated_on():
    with pytest.raises(ClassificationError, match="seed 1 has one fold"):
        calibrate_across_folds([made_fold(0), made_fold(1), made_fold(0, seed=1)])
