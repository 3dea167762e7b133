"""Batches: as many women a class as there are, balanced or by size, the same for the same seed and epoch."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedder.objectives import MISSING
from embedder.sampling import Balance, ClassBatches

BALANCES: tuple[Balance, ...] = ("over", "under", "weights", "none")


def batches(
    labels: np.ndarray, patients: np.ndarray, balance: Balance = "over", seed: int = 0, p: int = 3, k: int = 4
) -> ClassBatches:
    return ClassBatches(labels, patients, classes_per_batch=p, findings_per_class=k, balance=balance, seed=seed)


@given(st.integers(0, 2**32 - 1), st.sampled_from(BALANCES), st.integers(2, 6), st.integers(2, 5))
@settings(deadline=None, max_examples=50)
def test_every_batch_keeps_the_rules(seed: int, balance: Balance, p: int, k: int) -> None:
    generator = np.random.default_rng(seed)
    rows = int(generator.integers(6, 60))
    labels = generator.integers(-1, 4, rows)
    patients = generator.integers(0, max(2, rows // 2), rows)
    sampler = batches(labels, patients, balance, seed, p, k)
    drawn = list(sampler.epoch(3))
    assert len(drawn) == len(sampler) >= 1
    for batch in drawn:
        assert 2 <= len(batch) <= p * k + p  # K is rounded where there are fewer than P classes
        assert batch.min() >= 0
        assert batch.max() < rows
        if len(np.unique(labels)) > 1:
            assert len(np.unique(labels[batch])) > 1
        for label in np.unique(labels[batch]):
            mine = batch[labels[batch] == label]
            women = len(np.unique(patients[labels == label]))
            # As many women as the class can give, and none of its findings twice while others are left.
            assert len(np.unique(patients[mine])) == min(len(mine), women)
            assert len(np.unique(mine)) == min(len(mine), int((labels == label).sum()))


@given(st.integers(0, 1000), st.sampled_from(BALANCES))
@settings(deadline=None, max_examples=20)
def test_the_same_seed_and_epoch_draw_the_same(seed: int, balance: Balance) -> None:
    labels, patients = np.arange(40) % 3, np.arange(40) // 2
    first = [batch.tolist() for batch in batches(labels, patients, balance, seed).epoch(5)]
    assert [batch.tolist() for batch in batches(labels, patients, balance, seed).epoch(5)] == first
    assert [batch.tolist() for batch in batches(labels, patients, balance, seed).epoch(6)] != first
    assert [batch.tolist() for batch in batches(labels, patients, balance, seed + 1).epoch(5)] != first


def shares(balance: Balance) -> tuple[np.ndarray, int]:
    """Return the share of each class over some epochs, of classes of 90, 20 and 10 findings."""
    labels = np.repeat([0, 1, 2], [90, 20, 10])
    sampler = batches(labels, np.arange(120), balance)
    drawn = np.concatenate([batch for epoch in range(40) for batch in sampler.epoch(epoch)])
    return np.bincount(labels[drawn]) / len(drawn), len(sampler)


def test_over_and_under_draw_classes_alike_and_differ_in_the_epochs_length() -> None:
    over, long = shares("over")
    under, short = shares("under")
    assert np.allclose(over, 1 / 3, atol=0.01)
    assert np.allclose(under, 1 / 3, atol=0.01)
    assert long == round(3 * 90 / 12)
    assert short == round(3 * 10 / 12)


@pytest.mark.parametrize("balance", ["none", "weights"])
def test_without_balancing_classes_come_by_their_size(balance: Balance) -> None:
    found, length = shares(balance)
    assert length == 10
    # By size: 0.75, 0.17, 0.08. Where all three places would be of one class, the last is given to another.
    lost = np.array([90, 20, 10]) / 120
    expected = lost - lost**3 / 3
    expected += sum(
        lost[i] ** 3 / 3 * np.delete(lost, i).sum() ** -1 * np.where(np.arange(3) == i, 0, lost) for i in range(3)
    )
    assert np.allclose(found, expected, atol=0.03)


def test_over_sampling_shows_every_finding_of_the_largest_class_once() -> None:
    labels = np.repeat([0, 1, 2], [12, 4, 2])
    drawn = np.concatenate(list(batches(labels, np.arange(18)).epoch(0)))
    counts = np.bincount(drawn, minlength=18)
    assert (counts[:12] == 1).all()
    assert (counts[12:16] == 3).all()


def test_women_with_many_findings_do_not_fill_a_class() -> None:
    # One woman has 30 of the 33 findings of her class: batches still have all four women.
    labels = np.array([0] * 33 + [1] * 10)
    patients = np.array([0] * 30 + [1, 2, 3] + list(range(10, 20)))
    for batch in batches(labels, patients, p=2, k=4).epoch(0):
        mine = batch[labels[batch] == 0]
        assert len(np.unique(patients[mine])) == 4


def test_findings_without_the_leading_label_take_part() -> None:
    labels = np.array([0] * 10 + [1] * 10 + [MISSING] * 10)
    drawn = np.concatenate(list(batches(labels, np.arange(30)).epoch(0)))
    assert (labels[drawn] == MISSING).sum() == 8


def test_a_batch_keeps_its_size_with_fewer_classes_than_asked_for() -> None:
    sampler = batches(np.arange(40) % 2, np.arange(40), p=6, k=4)
    assert {len(batch) for batch in sampler.epoch(0)} == {24}
