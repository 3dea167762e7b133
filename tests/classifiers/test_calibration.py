import json

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import softmax

from classifiers import ClassificationError
from classifiers.calibration import (
    Calibration,
    CalibrationConfig,
    brier_score,
    calibrate,
    cross_fitted_probabilities,
    expected_calibration_error,
)
from classifiers.heads import HeadConfig, LinearHead
from classifiers.neighbours import NeighbourVote

CLASSES = ("benign", "malignant")


def overconfident(seed=0, women=400, sharpness=3.0):
    """Return probabilities that are `sharpness` times too sure of themselves, and labels."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(women, 2))
    honest = softmax(logits, axis=1)
    labels = np.where(rng.random(women) < honest[:, 1], *reversed(CLASSES))
    return softmax(sharpness * logits, axis=1), labels, np.array([f"a/{i}" for i in range(women)]), honest


def test_temperature_undoes_overconfidence():
    wrong, labels, women, honest = overconfident()
    calibration = Calibration().fit(wrong, labels, women, CLASSES)
    assert calibration.sharpness_ == pytest.approx(1 / 3, abs=0.08)
    fresh, truth, _, _ = overconfident(seed=1)
    mended = calibration.transform(fresh)
    assert mended.sum(axis=1) == pytest.approx(1)
    assert brier_score(mended, truth, CLASSES) < brier_score(fresh, truth, CLASSES)
    assert expected_calibration_error(mended, truth, CLASSES) < expected_calibration_error(fresh, truth, CLASSES)
    assert np.abs(calibration.transform(wrong) - honest).mean() < 0.03


def test_parameters_minimise_the_penalised_loss():
    values, labels, women, _ = overconfident(women=60)
    calibration = Calibration(CalibrationConfig(women_per_class_for_bias=5)).fit(values, labels, women, CLASSES)
    assert calibration.method_ == "temperature and bias"
    truth = (labels == "malignant").astype(int)

    def loss(parameters):
        mended = softmax(parameters[0] * np.log(values) + parameters[1:], axis=1)
        penalty = ((parameters[0] - 1) ** 2 + (parameters[1:] ** 2).sum()) / 2
        return -np.log(mended[np.arange(60), truth]).sum() + penalty

    best = minimize(loss, [1.0, 0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-9}).x
    assert [calibration.sharpness_, *calibration.bias_] == pytest.approx(best, abs=1e-3)


@pytest.mark.parametrize(
    ("women", "malignant", "method", "words"),
    [
        (19, 9, "none", "19 women with a label, 20 are needed"),
        (30, 4, "none", "4 women with malignant"),
        (30, 0, "none", "0 women with malignant"),
        (30, 10, "temperature", "temperature on held-out probabilities of 30 findings of 30 women"),
        (60, 30, "temperature and bias", "of 60 findings of 60 women"),
    ],
)
def test_the_method_follows_the_number_of_women(women, malignant, method, words):
    labels = ["malignant"] * malignant + ["benign"] * (women - malignant)
    values = np.full((women, 2), 0.5)
    calibration = Calibration().fit(values, labels, [f"a/{i}" for i in range(women)], CLASSES)
    assert calibration.method_ == method
    assert words in calibration.basis_
    assert calibration.to_dict()["women"] == women
    json.dumps(calibration.to_dict(), allow_nan=False)
    if method == "none":
        assert np.array_equal(calibration.transform(values), values)


def test_one_class_is_not_calibrated():
    calibration = Calibration().fit(np.ones((30, 1)), ["mass"] * 30, [f"a/{i}" for i in range(30)], ["mass"])
    assert calibration.basis_ == "not calibrated: there is one class only"


def test_unlabelled_rows_and_order_change_nothing():
    values, labels, women, _ = overconfident(women=50)
    labels = labels.astype(object)
    first = Calibration().fit(values, labels, women, CLASSES)
    shuffled = np.random.default_rng(0).permutation(50)
    more = np.vstack([values[shuffled], [[np.nan, np.nan]]])
    second = Calibration().fit(more, [*labels[shuffled], None], [*women[shuffled], "a/x"], CLASSES)
    assert (first.sharpness_, first.bias_.tolist()) == (second.sharpness_, second.bias_.tolist())
    assert first.basis_ == second.basis_


@pytest.mark.parametrize("values", [[[0.5, 0.6]], [[-0.1, 1.1]], [[np.nan, 1.0]], [[1.0]], [[0.5, 0.5], [0.5, 0.5]]])
def test_refuses_what_is_no_probability(values):
    with pytest.raises(ClassificationError):
        Calibration().fit(values, ["benign"], ["a/1"], CLASSES)


def some_findings(seed=0, women=40):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(women * 2, 6))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    labels = np.array([CLASSES[i % 2] for i in range(women)], dtype=object).repeat(2)
    labels[5] = None
    return vectors, labels, np.array([f"a/{i}" for i in range(women)], dtype=object).repeat(2)


class Spy:
    """A classifier that notes whom it was fitted on and refuses to be asked about them."""

    leaves_own_woman_out = False
    fits = 0

    def fit(self, vectors, labels, patients):
        Spy.fits += 1
        self.women, self.classes_ = set(patients), tuple(sorted(set(labels)))

    def predict_proba(self, vectors, patients=None):
        assert not self.women & set(patients), "a woman was predicted by a model that knows her"
        return np.full((len(vectors), 2), 0.5)


def test_cross_fitting_never_asks_a_model_about_its_women():
    vectors, labels, women = some_findings()
    Spy.fits = 0
    probabilities, classes = cross_fitted_probabilities(Spy, vectors, labels, women, folds=4)
    assert Spy.fits == 4
    assert classes == CLASSES
    assert np.isnan(probabilities).any(axis=1).tolist() == [label is None for label in labels]


def test_random_vectors_are_not_predictable_when_women_are_kept_apart():
    vectors, labels, women = some_findings(women=60)
    vectors[1::2] = vectors[::2]  # both findings of a woman look the same: a leak would be rewarded
    truth = labels == "malignant"
    for factory in (NeighbourVote, lambda: LinearHead(HeadConfig(strengths=(100.0,)))):
        probabilities, _ = cross_fitted_probabilities(factory, vectors, labels, women)
        known = ~np.isnan(probabilities[:, 0])
        assert ((probabilities[known, 1] > 0.5) == truth[known]).mean() < 0.65


def test_neighbours_are_cross_fitted_by_leaving_each_woman_out():
    vectors, labels, women = some_findings(women=12)
    probabilities, _ = cross_fitted_probabilities(NeighbourVote, vectors, labels, women)
    for row in (0, 7, 20):
        others = women != women[row]
        alone = NeighbourVote().fit(vectors[others], labels[others], women[others])
        assert probabilities[row] == pytest.approx(alone.predict_proba(vectors[row : row + 1])[0])


def test_nothing_labelled_gives_no_probabilities():
    probabilities, classes = cross_fitted_probabilities(LinearHead, np.eye(2), [None, None], ["a/1", "a/2"])
    assert probabilities.shape == (2, 0)
    assert classes == ()


@pytest.mark.parametrize("factory", [NeighbourVote, LinearHead])
def test_calibrate_uses_cross_fitted_probabilities(factory):
    vectors, labels, women = some_findings()
    found, held_out = calibrate(factory, vectors, labels, women, folds=3, seed=1)
    values, classes = cross_fitted_probabilities(factory, vectors, labels, women, 3, 1)
    assert found.to_dict() == Calibration().fit(values, labels, women, classes).to_dict()
    assert found.method_ == "temperature and bias"
    np.testing.assert_array_equal(held_out, values)


@pytest.mark.parametrize("labels", [["mass", None], ["mass", "asymmetry"], ["mass", "mass"], [None, None]])
def test_calibrate_leaves_few_women_alone(labels):
    found, held_out = calibrate(LinearHead, np.eye(2), labels, ["a/1", "a/2"])
    assert found.method_ == "none"
    assert np.isnan(held_out).all()


def test_calibration_is_fitted_on_women_the_embedder_was_not_trained_on_where_there_are_enough():
    vectors, labels, women = some_findings()
    keys = np.unique(women)
    values, classes = cross_fitted_probabilities(NeighbourVote, vectors, labels, women)
    plain, _ = calibrate(NeighbourVote, vectors, labels, women)
    half = np.isin(women, keys[: len(keys) // 2])
    found, _ = calibrate(NeighbourVote, vectors, labels, women, seen=half)
    expected = Calibration().fit(values, np.where(half, None, np.asarray(labels, dtype=object)), women, classes)
    assert found.sharpness_ == expected.sharpness_ != plain.sharpness_
    assert found.basis_ == f"{expected.basis_} that the embedder was not trained on"
    most = np.isin(women, keys[:-10])
    found, _ = calibrate(NeighbourVote, vectors, labels, women, seen=most)
    assert found.sharpness_ == plain.sharpness_
    assert found.basis_ == f"{plain.basis_}, whom the embedder was trained on: it may be too sure"
    none, _ = calibrate(NeighbourVote, vectors, labels, women, seen=np.zeros(len(women), np.bool_))
    assert none.to_dict() == plain.to_dict()
    with pytest.raises(ClassificationError, match="whom the embedder saw"):
        calibrate(NeighbourVote, vectors, labels, women, seen=[True])


def test_scores_of_labelled_rows_only():
    values = [[0.2, 0.8], [np.nan, np.nan]]
    assert brier_score(values, ["malignant", None], CLASSES) == pytest.approx(0.08)
    assert expected_calibration_error(values, ["malignant", None], CLASSES) == pytest.approx(0.2)
    with pytest.raises(ClassificationError, match="rows for 1 labels"):
        brier_score(values, ["malignant"], CLASSES)
