"""Pooled tiles against a slow, obvious version of each pool; shares that add up to the score."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedder.tilepooling import TOP_SHARE, pool_tiles, tile_shares

POOLINGS = ("mean", "max", "top", "moments")


def slowly_pooled(tiles: list[list[float]], pooling: str) -> list[float]:
    columns = list(zip(*tiles, strict=True))
    mean = [sum(column) / len(column) for column in columns]
    spread = [
        math.sqrt(sum((x - m) ** 2 for x in column) / len(column)) for column, m in zip(columns, mean, strict=True)
    ]
    most = max(1, round(len(tiles) * TOP_SHARE))
    top = [sum(sorted(column)[-most:]) / most for column in columns]
    return {"mean": mean, "max": [max(c) for c in columns], "top": top, "moments": mean + spread + top}[pooling]


@pytest.mark.parametrize("pooling", POOLINGS)
@given(seed=st.integers(0, 10_000), tiles=st.integers(1, 90))
@settings(max_examples=25, deadline=None)
def test_pools_are_what_they_say(pooling, seed, tiles):
    features = np.random.default_rng(seed).normal(size=(tiles, 3)).astype(np.float16)
    assert pool_tiles(features, pooling) == pytest.approx(slowly_pooled(features.tolist(), pooling), abs=1e-4)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_the_order_of_tiles_has_no_say(pooling):
    generator = np.random.default_rng(1)
    features = generator.normal(size=(50, 4)).astype(np.float32)
    order = generator.permutation(50)
    assert pool_tiles(features[order], pooling) == pytest.approx(pool_tiles(features, pooling), abs=1e-5)


@pytest.mark.parametrize("pooling", POOLINGS)
@given(seed=st.integers(0, 10_000), tiles=st.integers(1, 90))
@settings(max_examples=25, deadline=None)
def test_shares_add_up_to_the_score(pooling, seed, tiles):
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(tiles, 3)).astype(np.float32)
    pooled = pool_tiles(features, pooling)
    weights, centre = generator.normal(size=(2, len(pooled)))
    shares = tile_shares(features, pooling, weights, centre)
    assert shares.shape == (tiles,)
    spread_of_one = pooling == "moments" and tiles == 1
    score = float((pooled - centre) @ weights)
    assert float(shares.sum(dtype=np.float64)) == pytest.approx(score, abs=1e-3) or spread_of_one


def test_the_tile_with_the_bright_feature_has_the_share():
    features = np.zeros((40, 2), np.float32)
    features[7, 1] = 5
    for pooling in POOLINGS:
        weights = np.ones(len(pool_tiles(features, pooling)))
        assert int(np.argmax(tile_shares(features, pooling, weights, np.zeros(len(weights))))) == 7
