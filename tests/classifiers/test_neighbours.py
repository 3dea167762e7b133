import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classifiers import ClassificationError, neighbours
from classifiers.neighbours import NeighbourVote, VoteConfig, vote

TERMS = np.array(["mass", "calcification", "asymmetry", None], dtype=object)


def unit(rng, rows, dimension=5):
    vectors = rng.normal(size=(rows, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def slow_vote(query, woman, vectors, labels, women, config):
    """Return the probabilities of one query the obvious way, as a dict."""
    others = [i for i in range(len(vectors)) if labels[i] is not None and women[i] != woman]
    similarity = {i: float(np.dot(query.astype(float), vectors[i].astype(float))) for i in others}
    nearest = sorted(others, key=lambda i: -similarity[i])[: config.k]
    best = similarity[nearest[0]]
    votes = {label: 0.0 for label in labels if label is not None}
    for i in nearest:
        votes[labels[i]] += math.exp((similarity[i] - best) / config.temperature)
    total = sum(votes.values())
    share = {label: sum(labels[i] == label for i in others) / len(others) for label in votes}
    probabilities = {
        label: (votes[label] + config.prior_weight * share[label]) / (total + config.prior_weight) for label in votes
    }
    return probabilities, len(nearest), len({women[i] for i in nearest})


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.sampled_from([0.0, 1.0, 3.0]))
def test_votes_equal_brute_force(seed, k, prior_weight):
    rng = np.random.default_rng(seed)
    config = VoteConfig(k=k, prior_weight=prior_weight)
    vectors, queries = unit(rng, 30), unit(rng, 6)
    labels = rng.choice(TERMS, 30)
    labels[:2] = "mass"
    women = np.array([f"a/{i}" for i in rng.integers(0, 8, 30)], dtype=object)
    women[:2] = ["a/1", "a/2"]
    own = np.array(["a/1", "a/2", "a/3", "b/1", None, "a/7"], dtype=object)
    fitted = NeighbourVote(config).fit(vectors, labels, women)
    found, hood = fitted.predict_proba(queries, own), fitted.kneighbours(queries, own)
    for i in range(6):
        slow, voters, voting_women = slow_vote(queries[i], own[i], vectors, labels, women, config)
        assert dict(zip(fitted.classes_, found[i], strict=True)) == pytest.approx(slow)
        assert (hood.neighbours[i], hood.women[i]) == (voters, voting_women)
        rows = hood.rows[i][hood.rows[i] >= 0]
        assert not set(women[rows]) & {own[i]}
        assert all(labels[row] is not None for row in rows)


def test_a_vote_computed_by_hand():
    config = VoteConfig(k=3, temperature=0.1, prior_weight=0)
    found = vote([0.9, 0.8, 0.7, 0.6], ["mass", "asymmetry", None, "mass"], ["a/1", "a/2", "a/3", "a/1"],
                 ["asymmetry", "mass"], config=config)  # fmt: skip
    mass, asymmetry = 1 + math.exp(-3), math.exp(-1)
    assert found.probabilities == pytest.approx([asymmetry / (mass + asymmetry), mass / (mass + asymmetry)])
    assert (found.neighbours, found.women) == (3, 2)


def test_a_vote_leaves_the_querys_woman_out():
    found = vote([0.9, 0.8], ["mass", "asymmetry"], ["a/1", "a/2"], ["asymmetry", "mass"], patient="a/1")
    assert found.probabilities[0] > 0.5
    assert found.neighbours == 1


def test_nobody_votes_leaves_the_prior():
    found = vote([], [], [], ["a", "b"], prior=[0.3, 0.7])
    assert found.probabilities == pytest.approx([0.3, 0.7])
    assert (found.neighbours, found.women) == (0, 0)


def test_a_vote_agrees_with_the_classifier():
    rng = np.random.default_rng(1)
    vectors, query = unit(rng, 20), unit(rng, 1)
    labels, women = rng.choice(TERMS[:3], 20), [f"a/{i}" for i in range(20)]
    fitted = NeighbourVote().fit(vectors, labels, women)
    similarities = vectors.astype(np.float64) @ query[0].astype(np.float64)
    share = [np.mean(labels == name) for name in fitted.classes_]
    alone = vote(similarities, labels, women, fitted.classes_, prior=share)
    assert alone.probabilities == pytest.approx(fitted.predict_proba(query)[0])


def test_the_order_of_rows_changes_nothing_even_with_ties(monkeypatch):
    rng = np.random.default_rng(2)
    vectors = unit(rng, 8)[rng.integers(0, 8, 50)]
    labels = rng.choice(TERMS[:3], 50)
    women = np.array([f"a/{i}" for i in rng.integers(0, 12, 50)], dtype=object)
    queries = unit(rng, 9)
    shuffled = rng.permutation(50)
    first = NeighbourVote().fit(vectors, labels, women).predict_proba(queries)
    second = NeighbourVote().fit(vectors[shuffled], labels[shuffled], women[shuffled])
    assert np.array_equal(first, second.predict_proba(queries))
    monkeypatch.setattr(neighbours, "_BLOCK_BYTES", 1)  # one query at a time
    assert np.array_equal(first, second.predict_proba(queries))


def test_predict_names_the_most_probable_class():
    fitted = NeighbourVote(VoteConfig(k=1)).fit(np.eye(2), ["mass", "asymmetry"], ["a/1", "a/2"])
    assert fitted.predict(np.eye(2)).tolist() == ["mass", "asymmetry"]
    assert fitted.predict(np.eye(2), ["a/1", "a/2"]).tolist() == ["asymmetry", "mass"]


@pytest.mark.parametrize(
    "settings_", [{"k": 0}, {"temperature": 0.0}, {"temperature": float("nan")}, {"prior_weight": -1.0}]
)
def test_refuses_settings_that_cannot_vote(settings_):
    with pytest.raises(ClassificationError):
        VoteConfig(**settings_)


def test_refuses_a_woman_who_would_vote_on_herself():
    fitted = NeighbourVote().fit(np.eye(2), ["mass", None], ["a/1", "a/2"])
    with pytest.raises(ClassificationError, match="only the woman a/1"):
        fitted.predict_proba(np.eye(2)[:1], ["a/1"])


@pytest.mark.parametrize(
    ("call", "cause"),
    [
        (lambda: NeighbourVote().fit(np.eye(2), [None, None], ["a/1", "a/2"]), "no"),
        (lambda: NeighbourVote().fit(np.eye(3), ["mass"] * 2, ["a/1", "a/2"]), "3 vectors for 2"),
        (
            lambda: NeighbourVote().fit(np.eye(2), ["mass"] * 2, ["a/1", "a/2"]).predict(np.eye(3)),
            "dimensions",
        ),
        (lambda: NeighbourVote().fit(np.eye(1), ["mass"], ["a/1"]).predict(np.eye(1), []), "keys for 1"),
        (lambda: vote([1.0], ["mass"] * 2, ["a/1", "a/2"], ["mass"]), "for 2 labels"),
        (lambda: vote([np.nan], ["mass"], ["a/1"], ["mass"]), "not finite"),
        (lambda: vote([0.5], ["mass"], ["a/1"], ["asymmetry"]), "none of the classes"),
    ],
)
def test_refuses_what_does_not_fit(call, cause):
    with pytest.raises(ClassificationError, match=cause):
        call()
