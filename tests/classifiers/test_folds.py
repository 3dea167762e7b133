import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classifiers import ClassificationError
from classifiers.folds import check_no_leak, hold_out, patient_folds, three_way


def some_rows(seed, rows=80, women=30):
    rng = np.random.default_rng(seed)
    keys = np.array([f"a/{i}" for i in rng.integers(0, women, rows)], dtype=object)
    labels = rng.choice(np.array(["benign", "malignant", None], dtype=object), rows, p=[0.5, 0.3, 0.2])
    return keys, labels


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(2, 6))
def test_folds_cover_every_row_once_and_share_no_woman(seed, folds):
    keys, labels = some_rows(seed)
    split = patient_folds(keys, labels, folds, seed)
    assert np.sort(np.concatenate([fold.test for fold in split])).tolist() == list(range(80))
    for fold in split:
        assert not set(keys[fold.train]) & set(keys[fold.test])
        assert np.union1d(fold.train, fold.test).tolist() == list(range(80))


def test_folds_have_about_the_same_mix():
    keys = [f"a/{i}" for i in range(100)]
    labels = ["malignant"] * 20 + ["benign"] * 60 + [None] * 20
    for fold in patient_folds(keys, labels, 5):
        assert sum(labels[row] == "malignant" for row in fold.test) == 4
        assert sum(labels[row] is None for row in fold.test) == 4


def test_folds_depend_on_women_and_seed_not_on_the_order_of_rows():
    keys, labels = some_rows(1)
    shuffled = np.random.default_rng(0).permutation(len(keys))
    first = [set(keys[fold.test]) for fold in patient_folds(keys, labels, 5, 3)]
    again = [set(keys[shuffled][fold.test]) for fold in patient_folds(keys[shuffled], labels[shuffled], 5, 3)]
    other = [set(keys[fold.test]) for fold in patient_folds(keys, labels, 5, 4)]
    assert first == again != other


@pytest.mark.parametrize(
    ("keys", "folds", "cause"),
    [
        (["a/1", "a/2"], 1, "1 cannot be split into"),
        (["a/1", "a/2"], 3, "2 women cannot fill 3"),
        (["a/1", None], 2, "no woman"),
        ([], 2, "0 women"),
    ],
)
def test_refuses_impossible_folds(keys, folds, cause):
    with pytest.raises(ClassificationError, match=cause):
        patient_folds(keys, ["mass"] * len(keys), folds)


def test_refuses_folds_that_no_label_can_fill():
    with pytest.raises(ClassificationError, match="no label has 3 rows"):
        patient_folds(["a/1", "a/2", "a/3"], ["a", "b", "c"], 3)


@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.33, 0.5, 0.9])
def test_hold_out_takes_about_its_share(fraction):
    keys = [f"a/{i}" for i in range(200)]
    fold = hold_out(keys, ["mass", "asymmetry"] * 100, fraction)
    assert len(fold.test) / 200 == pytest.approx(fraction, abs=0.03)
    check_no_leak(keys, fold.train, fold.test)


@pytest.mark.parametrize("fraction", [0, 1, -0.2, float("nan")])
def test_hold_out_refuses_shares_that_are_none(fraction):
    with pytest.raises(ClassificationError, match="between 0 and 1"):
        hold_out(["a/1", "a/2"], ["mass", "mass"], fraction)


def test_hold_out_needs_two_women():
    with pytest.raises(ClassificationError, match="1 women"):
        hold_out(["a/1", "a/1"], ["mass", "mass"])


def test_three_ways_share_no_woman():
    keys, labels = some_rows(2, 200, 90)
    split = three_way(keys, labels, 0.2, 0.2, seed=1)
    sides = [split.train, split.validation, split.test]
    assert np.sort(np.concatenate(sides)).tolist() == list(range(200))
    women = [set(keys[side]) for side in sides]
    assert not women[0] & women[1] | women[0] & women[2] | women[1] & women[2]
    assert len(split.test) / 200 == pytest.approx(0.2, abs=0.05)
    assert len(split.validation) / 200 == pytest.approx(0.2, abs=0.05)


def test_three_ways_need_something_to_train_on():
    with pytest.raises(ClassificationError, match="nothing to train on"):
        three_way(["a/1", "a/2", "a/3"], ["mass"] * 3, 0.5, 0.5)


def test_a_planted_leak_is_caught():
    keys, labels = some_rows(3)
    fold = patient_folds(keys, labels, 5)[0]
    check_no_leak(keys, fold.train, fold.test)
    leak = np.append(fold.test, fold.train[0])
    with pytest.raises(ClassificationError, match=f"the woman {keys[fold.train[0]]} is in sets 1 and 2"):
        check_no_leak(keys, fold.train, leak)
