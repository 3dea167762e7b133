"""The network: shapes, unit length, pooling, normalisation, and what it refuses."""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from embedder.network import Descriptors, EmbedderNetwork, GeM, NetworkConfig, scale_features
from embedder.weights import WeightsError

HEADS = {"lesion_type": ("calcification", "mass"), "density": ("A", "B", "C", "D")}


def images(count: int, side: int = 32) -> torch.Tensor:
    return torch.rand(count, 1, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("grey_stem", [False, True])
@pytest.mark.parametrize("pooling", ["average", "gem"])
def test_embeddings_have_unit_length_and_every_head_its_classes(
    tiny_network: NetworkConfig, grey_stem: bool, pooling: str
) -> None:
    config = dataclasses.replace(tiny_network, grey_stem=grey_stem, pooling=pooling)
    network = EmbedderNetwork(config, HEADS).eval()
    output = network(images(3), torch.tensor([20.0, 50.0, float("nan")]))
    assert output.embedding.shape == (3, 16)
    assert torch.allclose(output.embedding.norm(dim=1), torch.ones(3), atol=1e-6)
    assert {name: logits.shape for name, logits in output.logits.items()} == {
        "lesion_type": (3, 2),
        "density": (3, 4),
    }
    stem = next(parameter for parameter in network.backbone.parameters() if parameter.ndim == 4)
    assert stem.shape[1] == (1 if grey_stem else 3)


def test_the_default_embeds_in_128_dimensions_with_batch_norm() -> None:
    config = NetworkConfig()
    assert (config.embedding_dimension, config.batch_norm) == (128, True)
    assert config.weights == "auto"


def test_dropout_and_batch_norm_are_there_and_can_be_left_out(tiny_network: NetworkConfig) -> None:
    layers = EmbedderNetwork(tiny_network, {}).embed
    assert [type(layer).__name__ for layer in layers] == ["Dropout", "Linear", "BatchNorm1d"]
    assert layers[0].p == tiny_network.dropout > 0
    plain = dataclasses.replace(tiny_network, batch_norm=False, dropout=0.0)
    layers = EmbedderNetwork(plain, {}).embed
    assert [type(layer).__name__ for layer in layers] == ["Dropout", "Linear"]
    assert layers[1].bias is not None


def test_a_frozen_network_gives_the_pooled_features(tiny_network: NetworkConfig) -> None:
    config = dataclasses.replace(tiny_network, embedding_dimension=None)
    network = EmbedderNetwork(config, {}).eval()
    pictures = images(2)
    mean = torch.tensor(network.backbone.pretrained_cfg["mean"]).view(1, 3, 1, 1)
    std = torch.tensor(network.backbone.pretrained_cfg["std"]).view(1, 3, 1, 1)
    with torch.no_grad():
        by_hand = network.backbone((pictures.expand(2, 3, 32, 32) - mean) / std)
        found = network(pictures).embedding
    assert network.dimension == by_hand.shape[1]
    assert torch.allclose(found, by_hand / by_hand.norm(dim=1, keepdim=True), atol=1e-6)


def test_gem_is_the_generalised_mean() -> None:
    pool = GeM()
    features = torch.rand(2, 3, 4, 5)
    expected = np.mean(features.numpy().astype(np.float64) ** 3, axis=(2, 3)) ** (1 / 3)
    assert np.allclose(pool(features).detach().numpy(), expected, atol=1e-6)
    with torch.no_grad():
        pool.exponent.fill_(1.0)
    assert torch.allclose(pool(features), functional.adaptive_avg_pool2d(features, 1).flatten(1), atol=1e-6)


def test_gem_learns_its_exponent(tiny_network: NetworkConfig) -> None:
    network = EmbedderNetwork(dataclasses.replace(tiny_network, pooling="gem"), HEADS)
    # Of 96 × 96 pixels 3 × 3 places are left: a mean over one place does not depend on its exponent.
    network(images(4, 96)).logits["density"].square().sum().backward()
    assert network.pool.exponent.grad is not None
    assert abs(network.pool.exponent.grad) > 1e-5


def test_the_extent_in_mm_reaches_the_embedding_and_unknown_is_a_place_of_its_own() -> None:
    features = scale_features(torch.tensor([50.0, 100.0, float("nan"), -1.0]), torch.zeros(4, 1))
    assert features.tolist() == [[0.0, 1.0], [1.0, 1.0], [0.0, 0.0], [0.0, 0.0]]
    assert scale_features(None, torch.zeros(2, 7)).tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_the_extent_can_be_left_out(tiny_network: NetworkConfig) -> None:
    pictures = images(1)
    for physical_scale in (True, False):
        network = EmbedderNetwork(dataclasses.replace(tiny_network, physical_scale=physical_scale), {}).eval()
        small, large = (network(pictures, torch.tensor([mm])).embedding for mm in (10.0, 80.0))
        assert torch.equal(small, large) is not physical_scale


def test_embedding_and_losses_stay_float32_under_mixed_precision(tiny_network: NetworkConfig) -> None:
    network = EmbedderNetwork(tiny_network, HEADS).eval()
    with torch.autocast("cpu", torch.bfloat16):
        output = network(images(2))
    assert output.embedding.dtype == torch.float32
    assert output.logits["density"].dtype == torch.float32


def test_a_saved_network_keeps_its_normalisation(tiny_network: NetworkConfig) -> None:
    network = EmbedderNetwork(tiny_network, {})
    state = {**network.state_dict(), "mean": torch.full((1, 3, 1, 1), 0.25)}
    again = EmbedderNetwork(tiny_network, {}, pretrained=False)
    again.load_state_dict(state)
    assert again.mean.flatten().tolist() == [0.25] * 3


def test_a_backbone_that_cannot_take_the_crops_says_so_before_any_image_is_read() -> None:
    with pytest.raises(WeightsError, match=r"test_vit: does not work on crops of 32 × 32 pixels with gem"):
        EmbedderNetwork(NetworkConfig("test_vit", "none", pooling="gem"), {}).check_input(32, 32)


def test_the_check_leaves_the_network_as_it_was(tiny_network: NetworkConfig) -> None:
    network = EmbedderNetwork(tiny_network, HEADS).train()
    network.backbone.bn1.eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.check_input(32, 48)
    assert network.training
    assert not network.backbone.bn1.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


@pytest.mark.parametrize(
    "options",
    [
        {"embedding_dimension": 1},
        {"dropout": 1.0},
        {"dropout": -0.1},
        {"pooling": "max"},
        {"embedding_dimension": 10**6},
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(WeightsError, match="network: "):
        NetworkConfig(**options)


def test_a_configuration_survives_json() -> None:
    config = NetworkConfig("resnet18", "none", grey_stem=True, pooling="gem", embedding_dimension=None)
    assert NetworkConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    with pytest.raises(WeightsError, match="unknown options: colour"):
        NetworkConfig.from_dict({"colour": True})


def test_descriptors_are_standardised_on_what_they_were_fitted_to() -> None:
    rows = torch.tensor(np.random.default_rng(0).normal([5, -2, 0, 7], [10, 0.1, 1, 0], (200, 4)), dtype=torch.float32)
    beside = Descriptors(4, 0)
    beside.fit(rows)
    seen = beside(rows)
    assert torch.allclose(seen[:, :3].mean(dim=0), torch.zeros(3), atol=0.05)
    assert torch.allclose(seen[:, :3].std(dim=0), torch.ones(3), atol=0.05)
    assert (seen[:, 3] == 0).all()  # one value throughout says nothing
    assert float(beside(torch.full((1, 4), 1e9)).max()) == 4


def test_components_keep_what_varies_most_and_are_the_same_every_time() -> None:
    random = np.random.default_rng(1)
    hidden = random.normal(size=(300, 2))
    rows = torch.tensor(hidden @ random.normal(size=(2, 9)) + 0.01 * random.normal(size=(300, 9)), dtype=torch.float32)
    made = []
    for _ in range(2):
        beside = Descriptors(9, 2)
        beside.fit(rows)
        made.append(beside(rows))
    assert torch.equal(*made)
    assert torch.allclose(made[0].norm(dim=1), torch.ones(300), atol=1e-5)
    standard = (rows - rows.mean(0)) / rows.std(0, correction=0)
    far = (standard.norm(dim=1) > 2) & (standard.abs().amax(dim=1) < 4)
    whole, kept = functional.normalize(standard[far], dim=1), made[0][far]
    # Two components hold all there is: the angles between findings stay as they were.
    assert far.sum() > 150
    assert torch.allclose(kept @ kept.T, whole @ whole.T, atol=0.05)
    few = Descriptors(9, 6)
    few.fit(rows[:3])
    assert torch.isfinite(few(rows)).all()


def test_a_fused_similarity_is_the_weighted_mean_of_both(tiny_network: NetworkConfig) -> None:
    config = dataclasses.replace(tiny_network, fusion_weight=0.4, fusion_components=3)
    network = EmbedderNetwork(config, HEADS, descriptors=5).eval()
    assert network.beside is not None
    rows = torch.rand(6, 5, generator=torch.Generator().manual_seed(0))
    network.beside.fit(rows)
    images = torch.rand(6, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        fused = network(images, None, rows).embedding
        learned = fused[:, : config.embedding_dimension]
    assert fused.shape == (6, network.dimension) == (6, 16 + 3)
    assert torch.allclose(fused.norm(dim=1), torch.ones(6), atol=1e-5)
    assert torch.allclose(learned.norm(dim=1) ** 2, torch.full((6,), 0.6), atol=1e-5)
    learned, described = functional.normalize(learned, dim=1), network.beside(rows)
    assert torch.allclose(fused @ fused.T, 0.6 * learned @ learned.T + 0.4 * described @ described.T, atol=1e-5)


def test_descriptors_may_join_before_the_embedding_layer(tiny_network: NetworkConfig) -> None:
    network = EmbedderNetwork(dataclasses.replace(tiny_network, fusion="embedding"), HEADS, descriptors=5).eval()
    images, rows = torch.rand(2, 1, 32, 32), torch.tensor([[0.0] * 5, [3.0] * 5])
    with torch.no_grad():
        found = network(images[:1].expand(2, 1, 32, 32), None, rows).embedding
    assert network.dimension == 16
    assert not torch.allclose(found[0], found[1])
    with pytest.raises(WeightsError, match="no embedding layer"):
        EmbedderNetwork(
            dataclasses.replace(tiny_network, fusion="embedding", embedding_dimension=None), {}, descriptors=5
        )


@pytest.mark.parametrize(
    "options", [{"fusion": "late"}, {"fusion_weight": 0.0}, {"fusion_components": 0}, {"test_time": "flips"}]
)
def test_fusion_out_of_range_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(WeightsError, match="network"):
        NetworkConfig(**options)
