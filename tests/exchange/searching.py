"""A tiny model for tests of our own search for places."""

from embedder.network import NetworkConfig
from embedder.preparation import PreparationConfig

PREPARATION = PreparationConfig(height=64, width=64, floor_mm=8.0, floor_pixels=33)
NETWORK = NetworkConfig(backbone="test_resnet", weights="none", embedding_dimension=None)
