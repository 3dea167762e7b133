import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from classifiers import ClassificationError
from classifiers.reliability import bin_of, calibration_gap, reliability, wilson


def women(count):
    return [f"a/{number}" for number in range(count)]


def test_bins_hold_equally_many_findings_and_say_what_became_of_them():
    labels = ["malignant", "benign", "benign", "malignant", "malignant", "malignant"]
    table = reliability(labels, [0.4, 0.1, 0.2, 0.3, 0.9, 0.8], women(6), "malignant", 2)
    assert [(each.lowest, each.highest, each.findings, each.positives) for each in table] == [
        (0.1, 0.3, 3, 1),
        (0.4, 0.9, 3, 3),
    ]
    assert table[0].predicted == pytest.approx(0.2)
    assert table[0].observed == pytest.approx(1 / 3)
    assert calibration_gap(table) == pytest.approx((abs(0.2 - 1 / 3) + abs(0.7 - 1)) / 2)
    assert str(table[1]).startswith("3 of 3 findings of 3 women, 1.00 [")


def test_the_interval_is_wilsons_with_women_for_its_number():
    few = reliability(["malignant", "benign"] * 4, [0.5] * 8, ["a/1", "a/2"] * 4, "malignant", 1)[0]
    assert (few.findings, few.women) == (8, 2)
    assert (few.low, few.high) == wilson(0.5, 2)
    for positives, count in ((0, 7), (3, 10), (50, 50)):
        asked = binomtest(positives, count).proportion_ci(0.95, method="wilson")
        np.testing.assert_allclose(wilson(positives / count, count), (asked.low, asked.high), atol=1e-12)


def test_unknown_is_not_negative():
    told = reliability(["malignant", "benign"], [0.2, 0.7], women(2), "malignant")
    more = reliability(["malignant", None, "benign", None], [0.2, 0.1, 0.7, np.nan], women(4), "malignant")
    assert told == more


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=60), st.integers(1, 12))
def test_every_finding_is_in_one_bin_and_equal_probabilities_in_the_same(found, bins):
    values = np.array([value / 6 for value, _ in found])
    labels = ["malignant" if positive else "benign" for _, positive in found]
    table = reliability(labels, values, women(len(found)), "malignant", bins)
    assert len(table) <= bins
    assert sum(each.findings for each in table) == len(found)
    assert sum(each.positives for each in table) == labels.count("malignant")
    for each, following in itertools.pairwise(table):
        assert each.highest < following.lowest
    for each in table:
        inside = (values >= each.lowest) & (values <= each.highest)
        assert each.findings == inside.sum()
        assert each.predicted == pytest.approx(values[inside].mean())
        assert bin_of(table, each.predicted) == each
    gap = sum(abs(each.predicted - each.observed) * each.findings for each in table) / len(found)
    assert calibration_gap(table) == pytest.approx(gap)


def test_distinct_probabilities_fill_bins_of_one_size():
    table = reliability(["malignant", "benign"] * 50, np.linspace(0, 1, 100), women(100), "malignant", 10)
    assert [each.findings for each in table] == [10] * 10


def test_a_probability_between_two_bins_is_in_the_nearer_one():
    table = reliability(["malignant", "benign"], [0.2, 0.8], women(2), "malignant", 2)
    assert bin_of(table, 0.4) == table[0]
    assert bin_of(table, 0.7) == bin_of(table, 1.0) == table[1]


@pytest.mark.parametrize(
    ("labels", "values", "bins", "cause"),
    [
        ([None, None], [0.1, 0.2], 2, "no finding has a label"),
        (["benign", "malignant"], [0.1, np.nan], 2, "not between 0 and 1"),
        (["benign", "malignant"], [0.1, 1.2], 2, "not between 0 and 1"),
        (["benign", "malignant"], [[0.1, 0.9]], 2, "shape"),
        (["benign", "malignant"], [0.1, 0.2], 0, "hold nothing"),
    ],
)
def test_what_cannot_be_binned_is_refused(labels, values, bins, cause):
    with pytest.raises(ClassificationError, match=cause):
        reliability(labels, values, women(2), "malignant", bins)
