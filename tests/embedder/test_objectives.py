"""The losses against slow, obvious versions of themselves; and no positive of the same woman, ever."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from embedder.checkpoint import ModelError
from embedder.network import Output
from embedder.objectives import MISSING, Miner, Objective, ObjectiveConfig, mine_triplets

MINERS: tuple[Miner, ...] = ("all", "semihard", "hard", "batch-hard")


def unit(generator: np.random.Generator, count: int, dimension: int = 4) -> torch.Tensor:
    return functional.normalize(torch.tensor(generator.normal(size=(count, dimension))), dim=1)


def slow_triplets(
    vectors: torch.Tensor, labels: list[int], patients: list[int], miner: Miner, margin: float
) -> set[tuple[int, int, int]]:
    """Look at every three findings one by one."""
    distance = (1 - vectors @ vectors.T).numpy()
    valid = [
        (a, p, n)
        for a, p, n in itertools.permutations(range(len(labels)), 3)
        if labels[a] == labels[p] != labels[n] and MISSING not in (labels[a], labels[n]) and patients[a] != patients[p]
    ]
    if miner == "all":
        return set(valid)
    if miner == "batch-hard":
        chosen = set()
        for anchor in {a for a, _, _ in valid}:
            positives = {p for a, p, _ in valid if a == anchor}
            negatives = {n for a, _, n in valid if a == anchor}
            chosen.add(
                (
                    anchor,
                    max(positives, key=lambda p: (distance[anchor, p], -p)),
                    min(negatives, key=lambda n: (distance[anchor, n], n)),
                )
            )
        return chosen
    gaps = {(a, p, n): distance[a, n] - distance[a, p] for a, p, n in valid}
    if miner == "hard":
        return {triplet for triplet, gap in gaps.items() if gap <= 0}
    return {triplet for triplet, gap in gaps.items() if 0 < gap <= margin}


@given(st.integers(0, 2**32 - 1), st.integers(2, 12), st.sampled_from(MINERS))
@settings(deadline=None, max_examples=50)
def test_miners_choose_what_the_slow_version_chooses(seed: int, count: int, miner: Miner) -> None:
    generator = np.random.default_rng(seed)
    labels, patients = generator.integers(-1, 3, count), generator.integers(0, max(2, count // 2), count)
    vectors = unit(generator, count)
    found = mine_triplets(vectors, torch.tensor(labels), torch.tensor(patients), miner, 0.3)
    triplets = list(zip(*(part.tolist() for part in found), strict=True))
    assert len(triplets) == len(set(triplets))
    assert set(triplets) == slow_triplets(vectors, labels.tolist(), patients.tolist(), miner, 0.3)


@pytest.mark.parametrize("miner", MINERS)
def test_a_positive_is_never_the_same_womans(miner: Miner) -> None:
    generator = np.random.default_rng(1)
    # Each woman has findings that are nearly the same: the easiest positives there are, were they allowed.
    patients = torch.arange(6).repeat_interleave(3)
    labels = patients % 2
    vectors = unit(generator, 6)[patients] + 0.01 * torch.tensor(generator.normal(size=(18, 4)))
    anchors, positives, negatives = mine_triplets(vectors, labels, patients, miner, 2.0)
    assert anchors.numel() > 0
    assert (patients[anchors] != patients[positives]).all()
    assert (labels[anchors] == labels[positives]).all()
    assert (labels[anchors] != labels[negatives]).all()


@pytest.mark.parametrize("miner", MINERS)
def test_one_woman_a_class_gives_no_triplet(miner: Miner) -> None:
    vectors = unit(np.random.default_rng(0), 4)
    found = mine_triplets(vectors, torch.tensor([0, 0, 1, 1]), torch.tensor([7, 7, 8, 8]), miner, 1.0)
    assert [part.numel() for part in found] == [0, 0, 0]


def test_ties_leave_one_triplet_an_anchor() -> None:
    vectors = functional.normalize(torch.ones(6, 2), dim=1)
    anchors, _, _ = mine_triplets(vectors, torch.tensor([0, 0, 0, 1, 1, 1]), torch.arange(6), "batch-hard", 0.2)
    assert anchors.tolist() == list(range(6))


def output(count: int, seed: int = 0, **heads: int) -> Output:
    generator = torch.Generator().manual_seed(seed)
    raw = torch.randn(count, 4, generator=generator, requires_grad=True)
    logits = {
        name: torch.randn(count, classes, generator=generator, requires_grad=True) for name, classes in heads.items()
    }
    return Output(functional.normalize(raw, dim=1), logits)


def test_the_losses_are_what_their_definitions_say() -> None:
    made = output(6, a=3, b=2)
    fixed = {name: logits.detach() for name, logits in made.logits.items()}
    labels = {"a": torch.tensor([0, 1, 2, MISSING, 0, 1]), "b": torch.tensor([MISSING] * 5 + [1])}
    patients = torch.tensor([0, 1, 2, 3, 4, 5])
    config = ObjectiveConfig(classification_weight=0.7, triplet_weight=0.4, margin=0.5, miner="all")
    found = Objective(config, ("a",))(made, labels, patients)
    losses = {name: float(loss.detach()) for name, loss in found.items()}

    def entropy(logits: torch.Tensor, label: int) -> torch.Tensor:
        target = torch.full((logits.numel(),), 0.1 / logits.numel())
        target[label] += 0.9
        return -(target * logits.log_softmax(0)).sum()

    known = [0, 1, 2, 4, 5]
    head_a = torch.stack([entropy(fixed["a"][i], int(labels["a"][i])) for i in known]).mean()
    head_b = entropy(fixed["b"][5], 1)
    assert losses["classification"] == pytest.approx(float((head_a + head_b) / 2), abs=1e-6)
    vectors = made.embedding.detach()
    similarity = vectors @ vectors.T
    triplets = slow_triplets(vectors, labels["a"].tolist(), patients.tolist(), "all", 0.5)
    hinge = [float(similarity[a, n] - similarity[a, p]) + 0.5 for a, p, n in triplets]
    violated = [loss for loss in hinge if loss > 0]
    assert losses["triplet"] == pytest.approx(np.mean(violated), abs=1e-6)
    total = 0.7 * losses["classification"] + 0.4 * losses["triplet"]
    assert losses["total"] == pytest.approx(total, abs=1e-6)


def test_a_missing_label_teaches_nothing() -> None:
    made = output(4, a=2)
    labels = {"a": torch.tensor([0, 1, MISSING, MISSING])}
    Objective(ObjectiveConfig(triplet_weight=0.0), ("a",))(made, labels, torch.arange(4))["total"].backward()
    gradient = made.logits["a"].grad
    assert gradient is not None
    assert (gradient[2:] == 0).all()
    assert (gradient[:2] != 0).any(dim=1).all()


def test_a_batch_without_any_label_is_zero_and_does_not_break_the_step() -> None:
    made = output(3, a=2)
    losses = Objective(ObjectiveConfig(), ("a",))(made, {"a": torch.tensor([MISSING] * 3)}, torch.arange(3))
    losses["total"].backward()
    assert {name: float(loss.detach()) for name, loss in losses.items()} == {
        "classification": 0,
        "triplet": 0,
        "total": 0,
    }


def test_class_weights_weigh_the_classes() -> None:
    made = output(4, a=2)
    labels = {"a": torch.tensor([0, 0, 0, 1])}
    config = ObjectiveConfig(triplet_weight=0.0, label_smoothing=0.0)
    weighted = Objective(config, ("a",), {"a": torch.tensor([0.5, 2.0])})(made, labels, torch.arange(4))
    losses = -made.logits["a"].detach().log_softmax(1)[torch.arange(4), labels["a"]]
    expected = (losses * torch.tensor([0.5, 0.5, 0.5, 2.0])).sum() / 3.5
    assert float(weighted["classification"].detach()) == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"triplet_weight": -1.0},
        {"classification_weight": 0.0, "triplet_weight": 0.0},
        {"margin": 0.0},
        {"miner": "easy"},
        {"label_smoothing": 1.0},
        {"margin": float("nan")},
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ModelError, match="objective: an option is out of range"):
        ObjectiveConfig(**options)
