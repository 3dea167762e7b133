"""Gated attention against a slow version, padding, order, seeds, and a planted lesion found from whole-bag labels."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from embedder.checkpoint import ModelError
from embedder.multiinstance import AttentionConfig, AttentionEnsemble, AttentionNetwork, Projection

SMALL = AttentionConfig(components=6, hidden=8, tiles=16, epochs=25, members=2, dropout=0.0, batch=16)


def planted(count: int, seed: int) -> tuple[list[np.ndarray], np.ndarray, list[int]]:
    """Return bags of noise, of which every second has one tile that is far out in one feature, and where it is."""
    generator = np.random.default_rng(seed)
    bags, places = [], []
    for number in range(count):
        bag = generator.normal(size=(int(generator.integers(12, 30)), 6)).astype(np.float32)
        places.append(int(generator.integers(len(bag))))
        if number % 2:
            bag[places[-1], 3] += 6
        bags.append(bag)
    return bags, np.arange(count) % 2 == 1, places


def slow_score(network: AttentionNetwork, tiles: torch.Tensor) -> float:
    state = {name: value.tolist() for name, value in network.state_dict().items()}

    def linear(name: str, vector: list[float]) -> list[float]:
        bias = state.get(f"{name}.bias", [0.0] * len(state[f"{name}.weight"]))
        return [
            sum(w * x for w, x in zip(row, vector, strict=True)) + b
            for row, b in zip(state[f"{name}.weight"], bias, strict=True)
        ]

    weighed, scores = [], []
    for tile in tiles.tolist():
        hidden = [max(0.0, value) for value in linear("tile.0", tile)]
        gated = [
            math.tanh(a) / (1 + math.exp(-b))
            for a, b in zip(linear("what", hidden), linear("gate", hidden), strict=True)
        ]
        weighed.append(math.exp(linear("weigh", gated)[0]))
        scores.append(linear("score", hidden)[0])
    return sum(w * s for w, s in zip(weighed, scores, strict=True)) / sum(weighed) + state["bias"]


def test_attention_is_the_papers():
    torch.manual_seed(0)
    network = AttentionNetwork(5, 7, 0.5).eval()
    tiles = torch.randn(9, 5)
    score = network(tiles[None])
    assert float(score.logit.detach()) == pytest.approx(slow_score(network, tiles), abs=1e-5)
    assert float(score.attention.sum().detach()) == pytest.approx(1, abs=1e-6)
    assert float((score.evidence.sum() + network.bias - score.logit[0]).detach()) == pytest.approx(0, abs=1e-6)


def test_padding_and_order_have_no_say():
    torch.manual_seed(0)
    network = AttentionNetwork(5, 7, 0.5).eval()
    tiles = torch.randn(9, 5)
    alone = network(tiles[None])
    filled = torch.cat([tiles, torch.full((4, 5), 1e3)])[None]
    there = torch.arange(13)[None] < 9
    beside = network(filled, there)
    assert torch.allclose(beside.logit, alone.logit, atol=1e-6)
    assert (beside.attention[:, 9:] == 0).all()
    assert (beside.evidence[:, 9:] == 0).all()
    order = torch.randperm(9)
    assert torch.allclose(network(tiles[order][None]).logit, alone.logit, atol=1e-6)


def test_components_are_of_the_bags_given_and_every_bag_counts_alike():
    generator = np.random.default_rng(0)
    bags = [generator.normal(size=(24, 4)).astype(np.float32) * np.float32([1, 2, 3, 4]) + 5 for _ in range(8)]
    projection = Projection(4, 3)
    projection.fit(bags, 0)
    every = np.concatenate(bags)
    assert projection.centre.numpy() == pytest.approx(every.mean(axis=0), abs=1e-4)
    assert projection.spread.numpy() == pytest.approx(every.std(axis=0), rel=1e-4)
    out = projection(torch.from_numpy(every))
    assert out.shape == (192, 3)
    assert float(out.square().mean()) == pytest.approx(1, rel=0.05)


def test_a_planted_tile_is_found_from_labels_of_bags():
    bags, positive, _ = planted(120, 0)
    ensemble = AttentionEnsemble(6, SMALL, seed=0)
    ensemble.fit(bags, positive)
    others, truth, there = planted(60, 1)
    found = [ensemble.explain(bag) for bag in others]
    logits = np.array([logit for logit, _, _ in found])
    assert (logits[truth][:, None] > logits[~truth][None]).mean() > 0.85
    right = [int(np.argmax(found[i][1])) == there[i] for i in np.flatnonzero(truth)]
    assert np.mean(right) > 0.8


def test_the_seed_decides():
    bags, positive, _ = planted(20, 0)
    config = replace(SMALL, epochs=2)

    def logits(seed: int) -> list[float]:
        ensemble = AttentionEnsemble(6, config, seed)
        ensemble.fit(bags, positive)
        return [ensemble.explain(bag)[0] for bag in bags]

    before = torch.random.get_rng_state()
    assert logits(3) == logits(3)
    assert logits(3) != logits(4)
    assert torch.equal(torch.random.get_rng_state(), before)  # the caller's own draws stay as they were


def test_what_can_not_be_learned_is_refused():
    bags, positive, _ = planted(6, 0)
    ensemble = AttentionEnsemble(6, replace(SMALL, epochs=1))
    with pytest.raises(ModelError, match="all bags are of one class"):
        ensemble.fit(bags, np.zeros(6, np.bool_))
    with pytest.raises(ModelError, match="a bag has no tile"):
        ensemble.fit([np.empty((0, 6), np.float32), *bags[1:]], positive)


@pytest.mark.parametrize(
    "options", [{"dropout": 1.0}, {"hidden": 0}, {"weight_decay": -1.0}, {"learning_rate": 0.0}, {"members": 0}]
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ModelError, match="out of range"):
        AttentionConfig(**options)
