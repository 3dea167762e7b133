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
from embedder.objectives import (
    MISSING,
    MetricLoss,
    Miner,
    Mixed,
    Objective,
    ObjectiveConfig,
    mine_triplets,
    pairs_between_women,
)

MINERS: tuple[Miner, ...] = ("all", "semihard", "hard", "batch-hard")
CLASSES = {"a": 3, "b": 2}


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
    config = ObjectiveConfig(classification_weight=0.7, metric_weight=0.4, margin=0.5, miner="all")
    found = Objective(config, ("a",), CLASSES, 4)(made, labels, patients)
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
    assert losses["metric"] == pytest.approx(np.mean(violated), abs=1e-6)
    total = 0.7 * losses["classification"] + 0.4 * losses["metric"]
    assert losses["total"] == pytest.approx(total, abs=1e-6)


def test_a_missing_label_teaches_nothing() -> None:
    made = output(4, a=2)
    labels = {"a": torch.tensor([0, 1, MISSING, MISSING])}
    Objective(ObjectiveConfig(metric_weight=0.0), ("a",), CLASSES, 4)(made, labels, torch.arange(4))["total"].backward()
    gradient = made.logits["a"].grad
    assert gradient is not None
    assert (gradient[2:] == 0).all()
    assert (gradient[:2] != 0).any(dim=1).all()


def test_a_batch_without_any_label_is_zero_and_does_not_break_the_step() -> None:
    made = output(3, a=2)
    losses = Objective(ObjectiveConfig(), ("a",), CLASSES, 4)(made, {"a": torch.tensor([MISSING] * 3)}, torch.arange(3))
    losses["total"].backward()
    assert {name: float(loss.detach()) for name, loss in losses.items()} == {
        "classification": 0,
        "metric": 0,
        "total": 0,
    }


def test_class_weights_weigh_the_classes() -> None:
    made = output(4, a=2)
    labels = {"a": torch.tensor([0, 0, 0, 1])}
    config = ObjectiveConfig(metric_weight=0.0, label_smoothing=0.0)
    weighted = Objective(config, ("a",), CLASSES, 4, {"a": torch.tensor([0.5, 2.0])})(made, labels, torch.arange(4))
    losses = -made.logits["a"].detach().log_softmax(1)[torch.arange(4), labels["a"]]
    expected = (losses * torch.tensor([0.5, 0.5, 0.5, 2.0])).sum() / 3.5
    assert float(weighted["classification"].detach()) == pytest.approx(float(expected), abs=1e-6)


@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
@settings(deadline=None, max_examples=50)
def test_pairs_are_what_looking_at_every_two_finds(seed: int, count: int) -> None:
    generator = np.random.default_rng(seed)
    labels, patients = generator.integers(-1, 3, count), generator.integers(0, max(2, count // 2), count)
    found = pairs_between_women(torch.tensor(labels), torch.tensor(patients))
    known = [(a, b) for a, b in itertools.permutations(range(count), 2) if MISSING not in (labels[a], labels[b])]
    alike = {(a, b) for a, b in known if labels[a] == labels[b] and patients[a] != patients[b]}
    unlike = {(a, b) for a, b in known if labels[a] != labels[b]}
    assert set(zip(found[0].tolist(), found[1].tolist(), strict=True)) == alike
    assert set(zip(found[2].tolist(), found[3].tolist(), strict=True)) == unlike


def metric_of(metric: MetricLoss, vectors: torch.Tensor, labels: torch.Tensor, patients: torch.Tensor) -> float:
    torch.manual_seed(0)
    objective = Objective(ObjectiveConfig(metric=metric), ("a",), CLASSES, vectors.shape[1])
    return float(objective(Output(vectors, {}), {"a": labels}, patients)["metric"].detach())


def test_the_contrastive_loss_is_its_definition_without_a_womans_own_pairs() -> None:
    vectors = unit(np.random.default_rng(4), 7).float()
    labels = torch.tensor([0, 0, 0, 1, 1, 2, MISSING])
    patients = torch.tensor([0, 0, 1, 2, 3, 4, 5])
    similarity = (vectors @ vectors.T / 0.1).exp()
    each = []
    for anchor in range(6):
        positives = [p for p in range(6) if labels[p] == labels[anchor] and patients[p] != patients[anchor]]
        negatives = [n for n in range(6) if labels[n] != labels[anchor]]
        others = sum(similarity[anchor, j] for j in positives + negatives)
        if positives:
            each.append(-np.mean([float((similarity[anchor, p] / others).log()) for p in positives]))
    assert metric_of("contrastive", vectors, labels, patients) == pytest.approx(np.mean(each), rel=1e-5)


@pytest.mark.parametrize("metric", ["contrastive", "multi-similarity", "proxy-anchor", "arcface"])
def test_every_metric_loss_pulls_classes_apart_and_leaves_the_unknown_alone(metric: MetricLoss) -> None:
    torch.manual_seed(1)
    raw = torch.randn(13, 4, requires_grad=True)
    labels = torch.tensor([0, 1, 2] * 4 + [MISSING])
    objective = Objective(ObjectiveConfig(metric=metric), ("a",), CLASSES, 4)
    optimiser = torch.optim.Adam([raw, *objective.parameters()], lr=0.05)
    history = []
    for _ in range(120):
        optimiser.zero_grad()
        loss = objective(Output(functional.normalize(raw, dim=1), {}), {"a": labels}, torch.arange(13))["metric"]
        loss.backward()
        assert raw.grad is not None
        assert (raw.grad[12] == 0).all()
        optimiser.step()
        history.append(float(loss.detach()))
    vectors = functional.normalize(raw.detach(), dim=1)[:12]
    similarity = vectors @ vectors.T
    same = (labels[:12, None] == labels[None, :12]) & ~torch.eye(12, dtype=torch.bool)
    assert similarity[same].mean() > similarity[labels[:12, None] != labels[None, :12]].mean() + 0.5
    assert history[-1] < 0.7 * history[0]


@pytest.mark.parametrize("metric", ["contrastive", "multi-similarity", "proxy-anchor", "arcface"])
def test_no_metric_loss_breaks_on_a_batch_without_labels(metric: MetricLoss) -> None:
    vectors = unit(np.random.default_rng(4), 3).float().requires_grad_()
    objective = Objective(ObjectiveConfig(metric=metric), ("a",), CLASSES, 4)
    found = objective(Output(vectors, {}), {"a": torch.tensor([MISSING] * 3)}, torch.arange(3))
    found["total"].backward()
    assert float(found["metric"].detach()) == 0


def test_focal_leaves_easy_findings_aside() -> None:
    made = output(4, a=3)
    labels = {"a": torch.tensor([0, 1, MISSING, 2])}
    config = ObjectiveConfig(metric_weight=0.0, label_smoothing=0.0, focal=2.0)
    found = Objective(config, ("a",), CLASSES, 4)(made, labels, torch.arange(4))["classification"]
    known = torch.tensor([0, 1, 3])
    chance = made.logits["a"].detach().softmax(1)[known, labels["a"][known]]
    assert float(found.detach()) == pytest.approx(float(((1 - chance) ** 2 * -chance.log()).mean()), abs=1e-6)


def test_a_mixed_batch_answers_for_both_labels_by_their_share() -> None:
    made, labels = output(4, a=2), {"a": torch.tensor([0, 1, 1, 0])}
    order = torch.tensor([1, 2, 3, 0])
    objective = Objective(ObjectiveConfig(), ("a",), CLASSES, 4)
    own, other = (objective(made, {"a": codes}, torch.arange(4)) for codes in (labels["a"], labels["a"][order]))
    mixed = objective(made, labels, torch.arange(4), Mixed(0.7, order))
    expected = 0.7 * own["classification"] + 0.3 * other["classification"]
    assert torch.allclose(mixed["classification"], expected)
    assert torch.equal(mixed["metric"], own["metric"])


@pytest.mark.parametrize(
    "options",
    [
        {"metric_weight": -1.0},
        {"classification_weight": 0.0, "metric_weight": 0.0},
        {"margin": 0.0},
        {"miner": "easy"},
        {"label_smoothing": 1.0},
        {"metric": "centre"},
        {"focal": -1.0},
        {"margin": float("nan")},
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ModelError, match="objective: an option is out of range"):
        ObjectiveConfig(**options)
