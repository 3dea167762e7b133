"""Tiles of a breast: what they see, where they lie, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from embedder.breast import breast_mask
from embedder.checkpoint import ModelError
from embedder.conspicuity import NAMES, conspicuity
from embedder.ensemble import Ensemble
from embedder.network import EmbedderNetwork, NetworkConfig
from embedder.preparation import PreparationConfig
from embedder.tiles import CELL, Grid, TileConfig, TileEmbedder
from tests.conftest import draw_breast

CONFIG = TileConfig(side=128)


@pytest.fixture(scope="module")
def network() -> EmbedderNetwork:
    torch.manual_seed(0)
    config = NetworkConfig(backbone="tf_efficientnet_lite0", weights="none", embedding_dimension=None)
    return EmbedderNetwork(config, {}).eval()


@pytest.fixture(scope="module")
def embedder(network) -> TileEmbedder:
    return TileEmbedder(network, PreparationConfig(), CONFIG)


def film(seed: int = 1) -> np.ndarray:
    return draw_breast(seed, mass=True).astype(np.float32) / 255


def test_cells_lie_on_the_breast_and_the_features_are_as_many_as_said(embedder):
    pixels = film()
    bag = embedder.bag(pixels)
    assert bag.features.shape == (len(bag.cells), embedder.features)
    assert np.isfinite(bag.features).all()
    mask = breast_mask(pixels)
    shares = [mask[box.y0 : box.y1, box.x0 : box.x1].mean() for box in (bag.grid.box(*cell) for cell in bag.cells)]
    assert min(shares) > 0.3
    covered = np.zeros(mask.shape, np.bool_)
    for cell in bag.cells:
        box = bag.grid.box(*cell)
        covered[box.y0 : box.y1, box.x0 : box.x1] = True
    assert (covered & mask).sum() / mask.sum() > 0.9


def test_a_mirrored_film_gives_the_same_tiles_at_the_mirrored_places(embedder):
    pixels = film()
    bag, turned = embedder.bag(pixels), embedder.bag(np.ascontiguousarray(pixels[:, ::-1]))
    assert turned.grid.mirrored != bag.grid.mirrored
    assert np.array_equal(turned.cells, bag.cells)
    # The resampled films differ in the last bit of a pixel.
    assert np.allclose(turned.features.astype(float), bag.features.astype(float), rtol=2e-3, atol=2e-3)
    for cell in bag.cells[::5]:
        here, there = bag.grid.box(*cell), turned.grid.box(*cell)
        assert (120 - there.x1, 120 - there.x0) == (here.x0, here.x1)
        assert (there.y0, there.y1) == (here.y0, here.y1)


def test_a_bright_blob_is_in_the_cell_that_says_so(embedder):
    for mirrored in (False, True):
        pixels = np.where(film(2) > 0.2, np.float32(0.3), 0).astype(np.float32)
        pixels[64:70, 20:26] = 1.0
        if mirrored:
            pixels = np.ascontiguousarray(pixels[:, ::-1])
        bag = embedder.bag(pixels)
        brightest = bag.cells[int(np.argmax(bag.features[:, NAMES.index("highest speck 1")]))]
        box = bag.grid.box(*brightest, margin=1)
        blob = (94 if mirrored else 20, 64)
        assert box.x0 <= blob[0] < box.x1
        assert box.y0 <= blob[1] < box.y1


def test_larger_images_are_looked_at_at_one_size(embedder):
    pixels = film()
    large = np.kron(pixels, np.ones((2, 2), np.float32))
    small, big = embedder.bag(pixels), embedder.bag(large)
    assert abs(len(small.cells) - len(big.cells)) <= 3
    box = big.grid.box(*big.cells[0])
    assert box.x1 - box.x0 == pytest.approx(2 * CELL * 120 / 128, abs=2)


def test_an_enlargement_adds_its_own_features(network):
    single = TileEmbedder(network, PreparationConfig(), replace(CONFIG, levels=(8, 16, 32), detectors=False))
    double = TileEmbedder(
        network, PreparationConfig(), replace(CONFIG, levels=(8, 16, 32), detectors=False, magnifications=(1, 2))
    )
    first, both = single.bag(film()), double.bag(film())
    assert np.array_equal(both.features[:, : single.features], first.features)
    assert both.features.shape[1] == double.features > 2 * single.features - 1


def test_the_same_image_gives_the_same_tiles(embedder):
    assert np.array_equal(embedder.bag(film()).features, embedder.bag(film()).features)


def test_boxes_are_cut_at_the_borders_of_the_image():
    grid = Grid(image_rows=100, image_columns=50, rows=200, columns=100, y0=190, x0=90, mirrored=False)
    assert tuple(grid.box(0, 0)) == (45, 95, 50, 100)
    assert tuple(replace(grid, mirrored=True).box(0, 0)) == (0, 95, 5, 100)


def test_what_can_not_be_embedded_is_refused(network, embedder):
    pixels = film()
    pixels[3, 4] = np.nan
    with pytest.raises(ModelError, match="not finite"):
        embedder.bag(pixels)
    for wrong in ({"side": 1}, {"magnifications": (3,)}, {"levels": (8, 4)}, {"levels": ()}, {"coverage": 1.0}):
        with pytest.raises(ModelError, match="out of range"):
            replace(CONFIG, **wrong)
    vit = EmbedderNetwork(NetworkConfig(backbone="test_vit", weights="none", embedding_dimension=None), {})
    with pytest.raises(ModelError, match="no feature maps"):
        TileEmbedder(vit, PreparationConfig(), CONFIG)
    with pytest.raises(ModelError, match="of an ensemble; name a model of one network"):
        TileEmbedder(Ensemble([network, network]), PreparationConfig(), CONFIG)


def test_detectors_answer_to_what_they_are_named_after():
    rows, columns = np.mgrid[:128, :128].astype(np.float32)
    mask = np.ones((128, 128), np.bool_)
    flat = np.full((128, 128), 0.3, np.float32)
    blob = flat + 0.5 * np.exp(-((rows - 72) ** 2 + (columns - 72) ** 2) / 128)
    measured = conspicuity(blob, mask, 16)
    assert measured.shape == (len(NAMES), 8, 8)
    for name in ("mean blob 4", "highest convergence 4"):
        plane = measured[NAMES.index(name)]
        assert np.unravel_index(plane.argmax(), plane.shape) == (4, 4)
    star = flat.copy()
    for angle in np.arange(0, np.pi, np.pi / 8):
        for step in np.arange(-24, 25, 0.25):
            star[int(72 + step * np.sin(angle)), int(72 + step * np.cos(angle))] = 0.9
    plane = conspicuity(star, mask, 16)[NAMES.index("highest spiculation 2")]
    assert np.unravel_index(plane.argmax(), plane.shape) == (4, 4)


def test_the_skins_edge_is_no_finding():
    mask = np.zeros((128, 128), np.bool_)
    mask[:, :70] = True
    shown = np.where(mask, np.float32(0.5), np.float32(0))
    measured = conspicuity(shown, mask, 16)
    for name in ("highest blob 1", "highest speck 1", "highest convergence 2"):
        assert measured[NAMES.index(name)].max() < 0.05
