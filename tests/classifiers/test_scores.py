import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from classifiers import scores

CLASSES = 4


def some_predictions(seed, items=40, classes=CLASSES):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, items)
    truth[:classes] = np.arange(classes)
    raw = np.round(rng.random((items, classes)), 1) + 0.05  # rounding makes ties
    weights = rng.integers(0, 4, (3, items)).astype(float)
    weights[:, :classes] += 1
    return truth, raw / raw.sum(axis=1, keepdims=True), weights


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1))
def test_scores_equal_those_of_scikit_learn_with_sample_weights(seed):
    truth, probabilities, weights = some_predictions(seed)
    predicted = probabilities.argmax(axis=1)
    matrix = scores.confusion(truth, predicted, CLASSES, weights)
    names = np.arange(CLASSES)
    for i, sample_weight in enumerate(weights):
        given_weights = {"sample_weight": sample_weight}
        assert matrix[i] == pytest.approx(sklearn_metrics.confusion_matrix(truth, predicted, **given_weights))
        assert scores.accuracy(matrix)[i] == pytest.approx(
            sklearn_metrics.accuracy_score(truth, predicted, **given_weights)
        )
        assert scores.balanced_accuracy(matrix)[i] == pytest.approx(
            sklearn_metrics.balanced_accuracy_score(truth, predicted, **given_weights)
        )
        each = sklearn_metrics.f1_score(truth, predicted, average=None, labels=names, zero_division=0, **given_weights)
        assert scores.f1(matrix)[i] == pytest.approx(each)
        assert scores.macro_f1(matrix)[i] == pytest.approx(each.mean())
        assert scores.quadratic_kappa(matrix)[i] == pytest.approx(
            sklearn_metrics.cohen_kappa_score(truth, predicted, weights="quadratic", **given_weights)
        )
        areas = [sklearn_metrics.roc_auc_score(truth == c, probabilities[:, c], **given_weights) for c in names]
        assert scores.auc(truth == 2, probabilities[:, 2], weights)[i] == pytest.approx(areas[2])
        assert scores.macro_auc(truth, probabilities, weights)[i] == pytest.approx(np.mean(areas))


def test_brier_equals_that_of_scikit_learn_for_two_classes():
    truth, probabilities, weights = some_predictions(1, classes=2)
    theirs = sklearn_metrics.brier_score_loss(truth, probabilities[:, 1], sample_weight=weights[0])
    assert scores.brier(truth, probabilities, weights)[0] == pytest.approx(2 * theirs)


def test_calibration_error_equals_a_slow_one():
    truth, probabilities, weights = some_predictions(2)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == truth
    for sample, found in zip(weights, scores.calibration_error(truth, probabilities, weights), strict=True):
        error = 0.0
        for low in np.arange(10) / 10:
            members = (confidence > low + 1e-12) & (confidence <= low + 0.1 + 1e-12)
            if sample[members].sum():
                gap = np.average(right[members], weights=sample[members]) - np.average(
                    confidence[members], weights=sample[members]
                )
                error += sample[members].sum() / sample.sum() * abs(gap)
        assert found == pytest.approx(error)


def test_weights_stand_for_repeated_items():
    truth, probabilities, weights = some_predictions(3)
    repeated = np.repeat(np.arange(len(truth)), weights[0].astype(int))
    even = np.ones((1, len(repeated)))
    for score in (scores.macro_auc, scores.brier, scores.calibration_error):
        assert score(truth, probabilities, weights)[0] == pytest.approx(
            score(truth[repeated], probabilities[repeated], even)[0]
        )


def test_what_is_undefined_is_nan():
    one_class = np.zeros(3, dtype=int)
    matrix = scores.confusion(one_class, one_class, 2, np.ones((1, 3)))
    assert np.isnan(scores.quadratic_kappa(matrix)).all()
    assert np.isnan(scores.f1(matrix)[0, 1])
    assert scores.macro_f1(matrix).tolist() == [1.0]
    assert np.isnan(scores.auc(one_class == 0, np.arange(3.0), np.ones((1, 3)))).all()
    nothing = np.zeros((1, 3))
    assert np.isnan(scores.brier(one_class, np.eye(2)[one_class], nothing)).all()
    assert np.isnan(scores.accuracy(scores.confusion(one_class, one_class, 2, nothing))).all()


def test_a_resample_without_positives_has_no_auc():
    weights = np.array([[1.0, 1, 1], [0, 1, 1]])
    found = scores.auc(np.array([True, False, False]), np.array([0.9, 0.1, 0.2]), weights)
    assert found[0] == 1
    assert np.isnan(found[1])
