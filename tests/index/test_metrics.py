import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning.distances import CosineSimilarity
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from pytorch_metric_learning.utils.inference import CustomKNN

from index import QueryError, metrics
from index.metrics import (
    Estimate,
    bootstrap_interval,
    paired_difference,
    precision_at_recall,
    resample_women,
    retrieval_scores,
)


def unit(rng, rows, dimension=6):
    vectors = rng.normal(size=(rows, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def slow_scores(query, label, woman, gallery, labels, women, ks):
    """Score one query the obvious way."""
    names = [*[f"precision@{k}" for k in ks], "r_precision", "map@r"]
    candidates = [i for i in range(len(gallery)) if labels[i] is not None and women[i] != woman]
    relevant = [i for i in candidates if label is not None and labels[i] == label]
    if not relevant:
        return dict.fromkeys(names, math.nan) | {"relevant": 0}
    closeness = {i: round(float(np.dot(query.astype(float), gallery[i].astype(float))), 9) for i in candidates}
    ranked = sorted(candidates, key=lambda i: (-closeness[i], i))
    right = [i in relevant for i in ranked]
    r = len(relevant)
    precision = {k: sum(right[:k]) / k for k in range(1, max(*ks, r) + 1)}
    average = sum(precision[i + 1] for i in range(r) if right[i]) / r
    return dict(zip(names, [*[precision[k] for k in ks], precision[r], average], strict=True)) | {"relevant": r}


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 25), st.booleans())
def test_retrieval_scores_equal_the_slow_version(seed, queries, rows, ties):
    rng = np.random.default_rng(seed)
    terms = np.array(["mass", "calcification", "asymmetry", None], dtype=object)
    women = np.array([f"a/{i}" for i in range(6)], dtype=object)
    gallery, query = unit(rng, rows), unit(rng, queries)
    if ties:
        gallery = gallery[rng.integers(0, rows, rows)]
    labels, asked = rng.choice(terms, rows), rng.choice(terms, queries)
    owners, own = rng.choice(women, rows), rng.choice(women, queries)
    found = retrieval_scores(query, asked, own, gallery, labels, owners, ks=(1, 3))
    slow = [slow_scores(query[i], asked[i], own[i], gallery, labels, owners, (1, 3)) for i in range(queries)]
    pd.testing.assert_frame_equal(found, pd.DataFrame(slow), check_exact=False, rtol=1e-12)


def slow_curve(query, label, woman, gallery, labels, women, levels):
    """Interpolate one query's precision the obvious way."""
    candidates = [i for i in range(len(gallery)) if labels[i] is not None and women[i] != woman]
    relevant = [i for i in candidates if label is not None and labels[i] == label]
    if not relevant:
        return [math.nan] * len(levels)
    closeness = {i: round(float(np.dot(query.astype(float), gallery[i].astype(float))), 9) for i in candidates}
    ranked = sorted(candidates, key=lambda i: (-closeness[i], i))
    right = [i in relevant for i in ranked]
    points = [(sum(right[:k]) / len(relevant), sum(right[:k]) / k) for k in range(1, len(ranked) + 1)]
    return [max(precision for recall, precision in points if recall >= level - 1e-9) for level in levels]


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1), st.integers(1, 8), st.integers(1, 30), st.booleans())
def test_precision_at_recall_equals_the_slow_version(seed, queries, rows, ties):
    rng = np.random.default_rng(seed)
    terms = np.array(["mass", "calcification", None], dtype=object)
    women = np.array([f"a/{i}" for i in range(6)], dtype=object)
    gallery, query = unit(rng, rows), unit(rng, queries)
    if ties:
        gallery = gallery[rng.integers(0, rows, rows)]
    labels, asked = rng.choice(terms, rows), rng.choice(terms, queries)
    owners, own = rng.choice(women, rows), rng.choice(women, queries)
    levels = (0.1, 0.25, 1 / 3, 0.5, 1.0)
    found = precision_at_recall(query, asked, own, gallery, labels, owners, levels=levels)
    slow = [slow_curve(query[i], asked[i], own[i], gallery, labels, owners, levels) for i in range(queries)]
    np.testing.assert_allclose(found, slow, rtol=1e-12)


@pytest.mark.parametrize("levels", [(0.0,), (1.1,), (math.nan,)])
def test_levels_of_recall_are_shares(levels):
    with pytest.raises(QueryError, match="no levels"):
        precision_at_recall(*[np.eye(2), ["a", "b"], ["x", "y"]] * 2, levels=levels)


def test_queries_and_gallery_may_be_the_same_rows():
    rng = np.random.default_rng(3)
    vectors = unit(rng, 40)
    labels = rng.choice(np.array(["a", "b", None], dtype=object), 40)
    women = np.array([f"w/{i // 2}" for i in range(40)], dtype=object)
    found = retrieval_scores(vectors, labels, women, vectors, labels, women)
    slow = [slow_scores(vectors[i], labels[i], women[i], vectors, labels, women, (1, 5, 10)) for i in range(40)]
    pd.testing.assert_frame_equal(found, pd.DataFrame(slow), rtol=1e-12)


def test_agrees_with_pytorch_metric_learning_where_all_women_differ():
    rng = np.random.default_rng(0)
    gallery, query = unit(rng, 60), unit(rng, 25)
    labels, asked = rng.integers(0, 3, 60), rng.integers(0, 3, 25)
    found = retrieval_scores(
        query, asked.astype(str), [f"q/{i}" for i in range(25)],
        gallery, labels.astype(str), [f"g/{i}" for i in range(60)],
    )  # fmt: skip
    calculator = AccuracyCalculator(
        include=("mean_average_precision_at_r", "r_precision", "precision_at_1"),
        knn_func=CustomKNN(CosineSimilarity()),
        device=torch.device("cpu"),
    )
    theirs = calculator.get_accuracy(
        torch.from_numpy(query), torch.from_numpy(asked), torch.from_numpy(gallery), torch.from_numpy(labels)
    )
    assert found["map@r"].mean() == pytest.approx(theirs["mean_average_precision_at_r"], abs=1e-6)
    assert found["r_precision"].mean() == pytest.approx(theirs["r_precision"], abs=1e-6)
    assert found["precision@1"].mean() == pytest.approx(theirs["precision_at_1"], abs=1e-6)


def test_a_query_computed_by_hand():
    angles = np.deg2rad([10, 20, 30, 40, 50, 0])
    gallery = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    labels = ["mass", "asymmetry", "mass", None, "mass", "mass"]
    women = ["a/1", "a/2", "a/3", "a/4", "a/5", "a/9"]
    found = retrieval_scores([[1.0, 0.0]], ["mass"], ["a/9"], gallery, labels, women, ks=(1, 2, 10))
    row = found.iloc[0]
    assert row["relevant"] == 3  # her own mass at 0 degrees is no candidate, the unknown one neither
    assert row["precision@1"] == 1
    assert row["precision@2"] == 0.5
    assert row["precision@10"] == 0.3  # four candidates: the places left empty are misses
    assert row["r_precision"] == pytest.approx(2 / 3)
    assert row["map@r"] == pytest.approx((1 + 2 / 3) / 3)


def test_own_woman_is_never_a_candidate():
    vectors = np.eye(3)[[0, 0, 1, 2]]
    labels, women = ["mass"] * 4, ["a/1", "a/1", "a/2", "a/3"]
    leaky = ["a/1", "a/8", "a/2", "a/3"]
    assert retrieval_scores(vectors, labels, women, vectors, labels, women)["relevant"].tolist() == [
        2,
        2,
        3,
        3,
    ]
    assert retrieval_scores(vectors, labels, leaky, vectors, labels, leaky)["relevant"].tolist() == [3] * 4


def test_unknown_labels_and_lone_classes_have_no_score():
    vectors = np.eye(3)
    found = retrieval_scores(
        vectors,
        ["mass", None, "asymmetry"],
        ["a/1", "a/2", "a/3"],
        vectors,
        ["mass", "mass", None],
        ["a/1"] * 3,
    )
    assert found.drop(columns="relevant").isna().all(axis=None)
    assert found["relevant"].tolist() == [0, 0, 0]
    assert found["relevant"].dtype.kind == "i"


@pytest.mark.parametrize("rows", [0, 2])
def test_nothing_asked_or_nothing_to_find_in(rows):
    empty = (np.empty((0, 2)), [], [])
    full = (np.eye(2)[:rows], ["mass"] * rows, ["a/1", "a/2"][:rows])
    assert len(retrieval_scores(*empty, *full)) == 0
    assert retrieval_scores(*full, *empty)["precision@1"].isna().all()


def test_blocks_do_not_change_scores(monkeypatch):
    rng = np.random.default_rng(1)
    vectors = unit(rng, 50)[rng.integers(0, 50, 50)]  # with exact ties
    labels = rng.choice(["a", "b"], 50)
    women = [f"w/{i}" for i in range(50)]
    whole = retrieval_scores(vectors, labels, women, vectors, labels, women)
    monkeypatch.setattr(metrics, "_BLOCK_ITEMS", 150)
    pd.testing.assert_frame_equal(
        whole, retrieval_scores(vectors, labels, women, vectors, labels, women), check_exact=True
    )


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"ks": (0,)}, "0 neighbours"),
        ({"query_vectors": np.eye(2)}, "2 dimensions"),
        ({"query_vectors": np.full((2, 3), np.nan)}, "not finite"),
        ({"query_patients": ["a/1", None]}, "has no woman"),
        ({"query_labels": ["mass"]}, "labels"),
        ({"gallery_patients": ["a/1"]}, "women's keys"),
    ],
)
def test_refuses_what_does_not_fit(change, cause):
    side = {"vectors": np.eye(3)[:2], "labels": ["mass", "mass"], "patients": ["a/1", "a/2"]}
    arguments = {f"{name}_{part}": value for name in ("query", "gallery") for part, value in side.items()}
    with pytest.raises(QueryError, match=cause):
        retrieval_scores(**(arguments | change))


def test_bootstrap_interval_equals_a_slow_one():
    rng = np.random.default_rng(5)
    values = rng.random(30)
    values[[3, 17]] = np.nan
    keys = np.array([f"a/{i}" for i in rng.integers(0, 9, 30)], dtype=object)
    found = bootstrap_interval(values, keys, resamples=200, seed=7, level=0.9)
    known = ~np.isnan(values)
    women = sorted(set(keys[known]))
    means = []
    for draws in np.random.default_rng(7).multinomial(len(women), np.full(len(women), 1 / len(women)), size=200):
        items = []
        for woman, times in zip(women, draws, strict=True):
            items += [v for v, key in zip(values, keys, strict=True) if key == woman and v == v] * times
        means.append(np.mean(items))
    assert found.value == pytest.approx(np.nanmean(values))
    assert (found.low, found.high) == pytest.approx(np.percentile(means, [5, 95]))
    assert (found.items, found.women, found.resamples, found.level) == (28, len(women), 200, 0.9)


def test_women_are_resampled_not_items():
    values = np.repeat([0.0, 1.0], 500)
    by_woman = bootstrap_interval(values, np.repeat(["a/1", "a/2"], 500))
    by_item = bootstrap_interval(values, [f"a/{i}" for i in range(1000)])
    assert (by_woman.low, by_woman.high) == (0, 1)
    assert by_item.high - by_item.low < 0.1


def test_the_interval_covers_about_as_often_as_it_says():
    rng = np.random.default_rng(2)
    keys = np.repeat([f"a/{i}" for i in range(40)], 3)
    covered = 0
    for trial in range(200):
        values = np.repeat(rng.normal(size=40), 3) + rng.normal(size=120)
        interval = bootstrap_interval(values, keys, resamples=300, seed=trial)
        covered += interval.low <= 0 <= interval.high
    assert 0.88 <= covered / 200 <= 0.99


def test_intervals_depend_on_the_seed_alone(monkeypatch):
    values, keys = np.arange(20.0), [f"a/{i % 7}" for i in range(20)]
    first = bootstrap_interval(values, keys, resamples=100, seed=1)
    monkeypatch.setattr(metrics, "_BLOCK_ITEMS", 21)
    assert bootstrap_interval(values, keys, resamples=100, seed=1) == first
    assert bootstrap_interval(values, keys, resamples=100, seed=2) != first


def test_paired_difference_is_narrower_than_the_runs_are_wide():
    rng = np.random.default_rng(0)
    hard = rng.random(60)
    a, b = hard + 0.1, hard + rng.normal(scale=0.01, size=60)
    a[0], b[1] = np.nan, np.nan
    keys = [f"a/{i}" for i in range(60)]
    found = paired_difference(a, b, keys)
    assert 0.09 < found.low < 0.1 < found.high < 0.11
    assert found.items == 58
    alone = bootstrap_interval(a, keys)
    assert alone.high - alone.low > 10 * (found.high - found.low)


def test_one_woman_gives_no_interval():
    found = bootstrap_interval([1.0, 0.0], ["a/1", "a/1"])
    assert (found.value, found.resamples) == (0.5, 0)
    assert math.isnan(found.low)
    assert str(found) == "0.50 [no interval]"


def test_no_value_gives_no_score():
    found = bootstrap_interval([np.nan, np.nan], ["a/1", "a/2"])
    assert str(found) == "undefined"
    assert found.to_dict()["value"] is None
    assert (found.items, found.women) == (0, 0)


@pytest.mark.parametrize(
    "estimate",
    [Estimate(0.5, 0.25, 0.75, 0.95, 10, 5, 2000), Estimate(0.5, math.nan, math.nan, 0.95, 10, 1, 0)],
)
def test_estimates_survive_a_round_trip(estimate):
    again = Estimate.from_dict(estimate.to_dict())
    assert str(again) == str(estimate)
    assert again.to_dict() == estimate.to_dict()


def test_draws_are_of_whole_samples():
    draws = np.concatenate(list(resample_women(5, 50, 0, 5)))
    assert draws.shape == (50, 5)
    assert (draws.sum(axis=1) == 5).all()


@pytest.mark.parametrize(
    ("call", "cause"),
    [
        (lambda: bootstrap_interval([1, 2], ["a/1", "a/2"], resamples=0), "no interval"),
        (lambda: bootstrap_interval([1, 2], ["a/1", "a/2"], level=95), "not between"),
        (lambda: bootstrap_interval([1, 2], ["a/1"]), "keys"),
        (lambda: bootstrap_interval([[1, 2]], ["a/1"]), "shape"),
        (lambda: paired_difference([1, 2], [1], ["a/1", "a/2"]), "other run"),
    ],
)
def test_refuses_impossible_intervals(call, cause):
    with pytest.raises(QueryError, match=cause):
        call()
