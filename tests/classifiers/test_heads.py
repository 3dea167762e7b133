import json

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from classifiers import ClassificationError
from classifiers.heads import HeadConfig, LinearHead, _Reduced


def clusters(seed=0, women=30, classes=("benign", "malignant"), noise=0.6, dimension=8):
    rng = np.random.default_rng(seed)
    labels = np.array([classes[i % len(classes)] for i in range(women)], dtype=object).repeat(2)
    centres = np.eye(dimension)[[list(classes).index(label) for label in labels]]
    vectors = centres + noise * rng.normal(size=(len(labels), dimension))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return (
        vectors.astype(np.float32),
        labels,
        np.array([f"a/{i}" for i in range(women)], dtype=object).repeat(2),
    )


@pytest.mark.parametrize("classes", [("benign", "malignant"), ("asymmetry", "calcification", "mass")])
def test_equals_scikit_learn_on_scaled_vectors(classes):
    vectors, labels, women = clusters(classes=classes)
    head = LinearHead(HeadConfig(strengths=(2.0,))).fit(vectors, labels, women)
    centred = vectors.astype(np.float64) - vectors.astype(np.float64).mean(axis=0)
    scale = np.sqrt((centred**2).sum(axis=1).mean())
    theirs = LogisticRegression(C=2.0, max_iter=2000).fit(centred / scale, labels.astype(str))
    assert head.classes_ == classes
    assert head.predict_proba(vectors) == pytest.approx(theirs.predict_proba(centred / scale), abs=1e-3)


def test_separable_women_are_told_apart():
    vectors, labels, women = clusters(noise=0.1)
    fresh, truth, _ = clusters(seed=1, noise=0.1)
    assert (LinearHead().fit(vectors, labels, women).predict(fresh) == truth).all()


def test_strength_follows_the_held_out_loss():
    noisy, clear = clusters(noise=2.0, dimension=30), clusters(noise=0.2)
    weak, strong = LinearHead().fit(*noisy), LinearHead().fit(*clear)
    assert weak.strength_ < strong.strength_
    assert set(weak.losses_) == set(HeadConfig().strengths)
    assert weak.losses_[weak.strength_] == min(weak.losses_.values())


def test_too_few_women_of_a_class_take_the_default_strength():
    vectors, labels, women = clusters()
    labels[2:] = "benign"
    labels[:2] = "malignant"
    head = LinearHead().fit(vectors, labels, women)
    assert (head.strength_, head.losses_) == (1.0, {})


def test_unlabelled_rows_and_the_order_of_rows_change_nothing():
    vectors, labels, women = clusters()
    labels[::7] = None
    known = np.array([label is not None for label in labels])
    shuffled = np.random.default_rng(0).permutation(len(labels))
    first = LinearHead().fit(vectors, labels, women)
    for rows in (np.flatnonzero(known), shuffled):
        again = LinearHead().fit(vectors[rows], labels[rows], women[rows])
        assert np.array_equal(first.coefficients_, again.coefficients_)
        assert np.array_equal(first.intercepts_, again.intercepts_)


def test_refuses_women_it_was_fitted_on():
    vectors, labels, women = clusters()
    head = LinearHead().fit(vectors, labels, women)
    with pytest.raises(ClassificationError, match="fitted on the woman a/3"):
        head.predict_proba(vectors[:2], ["b/1", "a/3"])
    assert head.predict_proba(vectors[:2], ["b/1", None]).sum(axis=1) == pytest.approx(1)


def test_balanced_weights_lift_the_rare_class():
    vectors, labels, women = clusters(noise=1.0)
    keep = (labels == "benign") | (np.arange(len(labels)) < 8)
    plain = LinearHead(HeadConfig(strengths=(1.0,))).fit(vectors[keep], labels[keep], women[keep])
    balanced = LinearHead(HeadConfig(strengths=(1.0,), class_weight="balanced"))
    balanced.fit(vectors[keep], labels[keep], women[keep])
    assert balanced.predict_proba(vectors)[:, 1].mean() > plain.predict_proba(vectors)[:, 1].mean() + 0.1


def test_equal_vectors_give_the_class_shares():
    head = LinearHead().fit(np.ones((8, 2)), ["a", "a", "a", "b"] * 2, [f"w/{i}" for i in range(8)])
    assert head.predict_proba(np.ones((1, 2)))[0] == pytest.approx([0.75, 0.25], abs=1e-3)


def test_survives_a_round_trip_through_json():
    vectors, labels, women = clusters()
    head = LinearHead().fit(vectors, labels, women)
    again = LinearHead.from_dict(json.loads(json.dumps(head.to_dict())))
    assert np.array_equal(head.predict_proba(vectors), again.predict_proba(vectors))
    assert again.women_ == head.women_


@pytest.mark.parametrize(
    "change",
    [{"classes": ["a"]}, {"intercepts": [1.0]}, {"coefficients": "x"}, {"strength": None}, {"women": 3}],
)
def test_refuses_a_damaged_saved_form(change):
    saved = LinearHead().fit(*clusters()).to_dict()
    with pytest.raises(ClassificationError, match="saved"):
        LinearHead.from_dict(saved | change)
    with pytest.raises(ClassificationError, match="saved"):
        LinearHead.from_dict({name: value for name, value in saved.items() if name not in change})


@pytest.mark.parametrize(
    ("call", "cause"),
    [
        (lambda: LinearHead().fit(np.eye(2), ["a", "a"], ["w/1", "w/2"]), "all labels are 'a'"),
        (lambda: LinearHead().fit(np.eye(2), [None, None], ["w/1", "w/2"]), "no finding has a label"),
        (lambda: LinearHead().fit(np.eye(3), ["a", "b"], ["w/1", "w/2"]), "3 vectors"),
        (lambda: LinearHead().fit(*clusters()).predict(np.eye(2)), "2 dimensions"),
        (lambda: HeadConfig(strengths=()), "C"),
        (lambda: HeadConfig(strengths=(0.0,)), "not positive"),
        (lambda: HeadConfig(folds=1), "inner folds"),
    ],
)
def test_refuses_what_does_not_fit(call, cause):
    with pytest.raises(ClassificationError, match=cause):
        call()


def test_more_dimensions_than_findings_change_the_cost_and_not_the_model():
    generator = np.random.default_rng(3)
    vectors = generator.normal(size=(40, 200))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    codes = np.arange(40) % 3
    weights, bias = LinearHead()._solve(_Reduced.of(vectors), codes, 1.0)
    centre = vectors.mean(axis=0)
    scale = np.sqrt(np.square(vectors - centre).sum(axis=1).mean())
    plain = LogisticRegression(C=1.0, max_iter=5000, tol=1e-8).fit((vectors - centre) / scale, codes)
    direct = softmax(plain.decision_function((vectors - centre) / scale), axis=1)
    assert np.allclose(softmax(vectors @ weights.T + bias, axis=1), direct, atol=1e-3)
