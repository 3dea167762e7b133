"""Networks that answer as one: a similarity is the mean of theirs, and so is a probability."""

import torch

from embedder.ensemble import Ensemble
from embedder.network import EmbedderNetwork, NetworkConfig

HEADS = {"pathology": ("benign", "malignant")}


def networks(config: NetworkConfig, count: int, descriptors: int = 0) -> list[EmbedderNetwork]:
    found = []
    for seed in range(count):
        torch.manual_seed(seed)
        found.append(EmbedderNetwork(config, HEADS, descriptors=descriptors).eval())
    return found


@torch.inference_mode()
def test_similarities_and_probabilities_are_the_means_of_the_members(tiny_network: NetworkConfig) -> None:
    members = networks(tiny_network, 3)
    images = torch.rand(4, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    output = Ensemble(members).eval()(images)
    alone = [member(images) for member in members]
    assert output.embedding.shape == (4, 48)
    torch.testing.assert_close(output.embedding.norm(dim=1), torch.ones(4))
    for row in range(4):
        for other in range(4):
            mean = sum(float(one.embedding[row] @ one.embedding[other]) for one in alone) / 3
            assert abs(float(output.embedding[row] @ output.embedding[other]) - mean) < 1e-5
    mean_probability = sum(one.logits["pathology"].softmax(dim=1) for one in alone) / 3
    torch.testing.assert_close(output.logits["pathology"].softmax(dim=1), mean_probability)


def test_it_says_what_its_members_are(tiny_network: NetworkConfig) -> None:
    members = networks(tiny_network, 2, descriptors=5)
    ensemble = Ensemble(members)
    assert ensemble.dimension == 2 * members[0].dimension
    assert ensemble.classes == HEADS
    assert ensemble.config == members[0].config
    assert ensemble.beside is members[0].beside
    assert Ensemble(networks(tiny_network, 2)).beside is None
    # Every weight is listed once.
    assert len(ensemble.state_dict()) == 2 * len(members[0].state_dict())
