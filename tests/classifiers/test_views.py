import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifiers import ClassificationError
from classifiers.views import fuse_probabilities, fuse_vectors, view_groups


def rows(*cells):
    names = ("dataset", "patient_id", "study_id", "laterality", "lesion_id")
    return pd.DataFrame([dict(zip(names, row, strict=True)) for row in cells], dtype="object")


FRAME = rows(
    ("a", "1", "x", "L", "m"),
    ("a", "1", "x", "L", "m"),
    ("a", "1", "x", "R", None),
    ("a", "1", "y", "L", "m"),
    ("b", "1", "x", "L", "m"),
    ("a", "2", None, None, None),
    ("a", "2", None, None, None),
)


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("woman", [0, 0, 0, 1, 2, 3, 3]),
        ("breast", [0, 0, 1, 2, 3, 4, 5]),
        ("lesion", [0, 0, 1, 2, 3, 4, 5]),
    ],
)
def test_views_are_grouped_within_their_examination_and_an_unknown_side_or_lesion_is_alone(by, expected):
    assert view_groups(FRAME, by).tolist() == expected


def test_both_breasts_of_mini_mias_are_one_woman_where_no_examination_is_named():
    assert view_groups(FRAME.drop(columns="study_id"), "woman").tolist() == [0, 0, 0, 0, 1, 2, 2]


def test_what_tells_no_groups_is_refused():
    with pytest.raises(ClassificationError, match="lesion_id"):
        view_groups(FRAME.drop(columns="lesion_id"), "lesion")
    with pytest.raises(ClassificationError, match="no group of views"):
        view_groups(FRAME, "hospital")


def slow_vectors(vectors, groups):
    fused = []
    for group in range(max(groups) + 1):
        total = [0.0] * len(vectors[0])
        for vector, own in zip(vectors, groups, strict=True):
            if own == group:
                total = [a + b for a, b in zip(total, vector, strict=True)]
        length = math.sqrt(sum(a * a for a in total))
        fused.append([a / length for a in total])
    return np.array(fused)


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 4), min_size=1, max_size=20))
def test_fused_vectors_are_the_unit_means_and_order_rows_as_the_mean_cosine(seed, numbers):
    groups = np.unique(numbers, return_inverse=True)[1]
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(len(groups), 5)) + 1
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    fused = fuse_vectors(vectors, groups)
    np.testing.assert_allclose(fused, slow_vectors(vectors.tolist(), groups.tolist()), atol=1e-12)
    others = rng.normal(size=(9, 5))
    mean = others @ vectors[groups == 0].mean(axis=0)
    np.testing.assert_array_equal(np.argsort(others @ fused[0]), np.argsort(mean))


def slow_probabilities(values, groups, how, positive):
    fused = []
    for group in range(max(groups) + 1):
        own = [row for row, number in zip(values, groups, strict=True) if number == group and not math.isnan(row[0])]
        if not own:
            fused.append([math.nan] * len(values[0]))
        elif how == "max":
            fused.append(max(own, key=lambda row: row[positive]))
        elif how == "mean":
            fused.append([sum(column) / len(own) for column in zip(*own, strict=True)])
        else:
            odds = [math.exp(sum(math.log(p) for p in column) / len(own)) for column in zip(*own, strict=True)]
            fused.append([each / sum(odds) for each in odds])
    return np.array(fused)


@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=20),
    st.sampled_from(["mean", "log-odds", "max"]),
)
def test_fused_probabilities_are_those_of_a_slow_loop(seed, drawn, how):
    groups = np.unique([number for number, _ in drawn], return_inverse=True)[1]
    values = np.random.default_rng(seed).dirichlet(np.ones(3), len(groups)).clip(1e-3)
    values /= values.sum(axis=1, keepdims=True)
    values[[missing for _, missing in drawn]] = np.nan
    fused = fuse_probabilities(values, groups, how, positive=1)
    np.testing.assert_allclose(fused, slow_probabilities(values.tolist(), groups.tolist(), how, 1), atol=1e-12)
    told = ~np.isnan(fused).any(axis=1)
    np.testing.assert_allclose(fused[told].sum(axis=1), 1)


def test_log_odds_of_two_classes_are_averaged():
    odds = np.array([2.0, -0.5])
    values = 1 / (1 + np.exp(-np.stack([odds, -odds], axis=1)))
    fused = fuse_probabilities(values, [0, 0], "log-odds")
    assert np.log(fused[0, 0] / fused[0, 1]) == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("values", "groups", "options", "cause"),
    [
        ([[0.5, 0.5]], [0], {"how": "median"}, "no fusion"),
        ([[0.5, 0.5]], [0], {"how": "max"}, "max of column None"),
        ([[0.5, 0.5]], [0], {"how": "max", "positive": 2}, "max of column 2"),
        ([[0.5, 0.6]], [0], {}, "sum to 1"),
        ([[0.5, np.nan]], [0], {}, "sum to 1"),
        ([[0.5, 0.5]], [1], {}, "without a gap"),
        ([[0.5, 0.5]], [-1], {}, "without a gap"),
        ([[0.5, 0.5]], [0, 0], {}, "one whole number per row"),
        ([[0.5, 0.5]], [0.5], {}, "one whole number per row"),
        ([0.5, 0.5], [0, 0], {}, "one row per view"),
    ],
)
def test_what_are_no_probabilities_or_groups_is_refused(values, groups, options, cause):
    with pytest.raises(ClassificationError, match=cause):
        fuse_probabilities(values, groups, **options)


def test_vectors_that_cancel_out_or_are_not_finite_are_refused():
    with pytest.raises(ClassificationError, match="group 1 cancel"):
        fuse_vectors([[1, 0], [1, 0], [-1, 0]], [0, 1, 1])
    with pytest.raises(ClassificationError, match="not finite"):
        fuse_vectors([[1, np.nan]], [0])
