from dataclasses import replace

import numpy as np
import pytest
import torch

from embedder.checkpoint import ModelError
from embedder.crops import Window, resample_window
from embedder.datasets import read_dataset
from embedder.dense import DenseEmbedder
from embedder.embedding import embed_pixels
from embedder.ensemble import Ensemble
from embedder.findings import Box
from embedder.mammogram import read_mammogram
from embedder.network import EmbedderNetwork, NetworkConfig
from embedder.preparation import PreparationConfig, PreparationError, Prepared, prepare
from tests.conftest import draw_breast

CPU = torch.device("cpu")
SIZE = PreparationConfig(height=96, width=96, floor_mm=12.0)
TINY = NetworkConfig(backbone="test_resnet", weights="none", embedding_dimension=16)


def network(config=TINY, **options):
    torch.manual_seed(3)
    return EmbedderNetwork(config, {}, **options).eval()


@pytest.fixture(scope="module")
def dense():
    return DenseEmbedder(network(), SIZE)


def prepared_breast(seed=0):
    return prepare(draw_breast(seed, mass=True).astype(np.float32) / 255, SIZE, spacing_mm=0.4)


def crop_vectors(embedder, prepared, centres, side):
    """The slow version: each window cut and embedded by itself."""
    height = embedder.preparation.height
    columns = prepared.pixels.shape[1]
    crops = []
    for x, y in centres:
        x = columns - x if prepared.mirrored else x
        window = Window(x - side / 2, y - side / 2, side, side)
        crops.append(resample_window(prepared, None, window, height, height, "none"))
    extent = np.full(len(crops), np.nan if prepared.spacing_mm is None else side * prepared.spacing_mm, np.float32)
    return embed_pixels(embedder.network, np.stack(crops), extent, CPU)


def test_places_lie_on_the_breast_a_cell_apart_and_have_unit_vectors(dense):
    prepared = prepared_breast()
    places = dense.places(prepared, 36.0)
    assert np.allclose(np.linalg.norm(places.vectors, axis=1), 1, atol=1e-5)
    x, y = places.centres.T.astype(int)
    assert prepared.mask[y, x].all()
    assert places.step == pytest.approx(36 * dense.stride / 96)
    assert len(places.cells) == len({tuple(cell) for cell in places.cells.tolist()}) > 20


def test_the_window_that_fills_the_network_alone_is_the_crop_itself(dense):
    # A breast as small as one window: nothing lies beyond it but what the network pads, so the two agree.
    pixels = np.random.default_rng(0).random((96, 96)).astype(np.float32)
    vector = dense._embedded(pixels, np.zeros((1, 2), np.int64), 40.0)
    crop = embed_pixels(dense.network, pixels[None], np.array([40.0], np.float32), CPU)
    assert np.allclose(vector, crop, atol=1e-4)


def test_a_dense_vector_tells_its_place_from_others_as_its_crop_does(dense):
    prepared = prepared_breast()
    places = dense.places(prepared, 36.0)
    crops = crop_vectors(dense, prepared, places.centres, 36.0)
    cosine = (places.vectors * crops).sum(axis=1)
    elsewhere = (places.vectors * np.roll(crops, len(crops) // 2, axis=0)).sum(axis=1)
    assert np.median(cosine) > 0.95
    assert np.median(cosine) > np.median(elsewhere)


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_known_place_has_the_vector_that_the_dense_look_gives_its_window(dense, mirrored):
    pixels = draw_breast(0, mass=True).astype(np.float32) / 255
    prepared = prepare(np.ascontiguousarray(pixels[:, ::-1]) if mirrored else pixels, SIZE, spacing_mm=0.4)
    assert prepared.mirrored == mirrored
    places = dense.places(prepared, 36.0)
    half = round(36 / SIZE.context / 2)
    assert half * 2 * SIZE.context == 36, "the window of such a box is that of a place"
    x, y = places.centres.T
    chosen = np.flatnonzero((half <= x) & (x <= pixels.shape[1] - half) & (half <= y) & (y <= pixels.shape[0] - half))
    boxes = [Box(*(int(v) for v in (x[i] - half, y[i] - half, x[i] + half, y[i] + half))) for i in chosen]
    known = dense.in_place(prepared, boxes)
    assert len(known) > 20
    assert np.allclose(np.linalg.norm(known, axis=1), 1, atol=1e-5)
    crops = crop_vectors(dense, prepared, places.centres[chosen], 36.0)
    off, crops_off = (np.abs(found - places.vectors[chosen]).max() for found in (known, crops))
    assert off < crops_off / 3


def test_known_places_that_are_asked_together_or_alone_have_the_same_vectors(dense):
    prepared = prepared_breast()
    boxes = [Box(x, 80, x + 14, 96) for x in range(20, 60, 4)]
    together = dense.in_place(prepared, boxes)
    alone = np.concatenate([dense.in_place(prepared, [box]) for box in boxes])
    assert np.allclose(together, alone, atol=1e-5)
    assert dense.in_place(prepared, []).shape == (0, dense.dimension)
    with pytest.raises(PreparationError):
        dense.in_place(prepared, [Box(0, 0, 10_000, 10)])


def test_a_mirrored_breast_has_the_same_vectors_at_mirrored_places(dense):
    pixels = draw_breast(4, mass=True).astype(np.float32) / 255
    left, right = (prepare(image, SIZE, spacing_mm=0.4) for image in (pixels, np.ascontiguousarray(pixels[:, ::-1])))
    assert not left.mirrored
    assert right.mirrored
    a, b = (dense.places(prepared, 36.0) for prepared in (left, right))
    assert np.allclose(a.vectors, b.vectors, atol=1e-5)
    assert np.allclose(a.centres[:, 0], pixels.shape[1] - b.centres[:, 0])


def test_what_is_moved_by_whole_cells_gives_the_same_vectors_there(dense):
    generator = np.random.default_rng(1)
    scene = generator.random((8 * dense.stride, 6 * dense.stride)).astype(np.float32)
    canvas = np.zeros((40 * dense.stride, 20 * dense.stride), np.float32)
    found = []
    for row, column in ((12, 5), (17, 8)):
        image = canvas.copy()
        top, left = row * dense.stride, column * dense.stride
        image[top : top + scene.shape[0], left : left + scene.shape[1]] = scene
        cells = np.array([[row + 2, column + 1], [row + 4, column + 2]])
        found.append(dense._embedded(image, cells, None))
    assert np.allclose(found[0], found[1], atol=1e-4)


@pytest.mark.parametrize("wide", [False, True])
def test_strips_give_what_the_whole_gives_and_no_pass_is_larger_than_allowed(dense, monkeypatch, wide):
    shown = np.random.default_rng(2).random((128 * dense.stride, 3 * dense.stride)).astype(np.float32)
    shown = shown.T if wide else shown
    whole = dense._whole_map(shown)
    limit = 50 * 3 * dense.stride**2
    strips, seen = DenseEmbedder(dense.network, SIZE, strip_pixels=limit), []
    original = strips.feature_map
    monkeypatch.setattr(strips, "feature_map", lambda images: seen.append(images.numel()) or original(images))
    parts = strips._whole_map(shown)
    assert len(seen) > 3
    assert max(seen) <= limit
    assert parts.shape == whole.shape
    assert float((parts - whole).abs().max()) < 0.01 * float(whole.abs().max())


def test_gem_pooling_and_a_crop_that_is_no_square_are_run_densely_too():
    options = replace(SIZE, height=96, width=64)
    embedder = DenseEmbedder(network(replace(TINY, pooling="gem")), options)
    assert embedder.window_cells == (3, 2)
    pixels = np.random.default_rng(0).random((96, 64)).astype(np.float32)
    vector = embedder._embedded(pixels, np.zeros((1, 2), np.int64), None)
    crop = embed_pixels(embedder.network, pixels[None], np.array([np.nan], np.float32), CPU)
    assert np.allclose(vector, crop, atol=1e-4)
    assert len(embedder.places(prepared_breast(), 36.0).vectors)


def test_of_fused_vectors_the_learned_part_is_the_first_block(dense):
    fused = network(descriptors=5)
    embedder = DenseEmbedder(fused, replace(SIZE, descriptors=("margin",)))
    assert embedder.dimension == 16
    pixels = np.random.default_rng(0).random((96, 96)).astype(np.float32)
    vector = embedder._embedded(pixels, np.zeros((1, 2), np.int64), None)[0]
    whole = embed_pixels(fused, pixels[None], np.array([np.nan], np.float32), CPU, descriptors=np.ones((1, 5), "f4"))[0]
    assert np.allclose(vector, whole[:16] / np.linalg.norm(whole[:16]), atol=1e-4)


@pytest.mark.parametrize(
    ("build", "preparation", "says"),
    [
        (lambda: Ensemble([network(), network()]), SIZE, "ensemble"),
        (lambda: network(replace(TINY, fusion="embedding"), descriptors=5), SIZE, "fusion=vector"),
        (network, replace(SIZE, granularity="breast"), "whole breasts"),
        (network, replace(SIZE, super_resolution="srcnn-rsna"), "super_resolution=none"),
        (network, replace(SIZE, height=100), "multiples"),
        (network, replace(SIZE, height=100, width=100), "multiples"),
        (lambda: network(replace(TINY, backbone="test_vit")), replace(SIZE, height=160, width=160), "convolutional"),
    ],
)
def test_a_model_that_can_not_be_run_densely_is_refused_with_the_way_out(build, preparation, says):
    with pytest.raises(ModelError, match=says):
        DenseEmbedder(build(), preparation)


def test_an_image_without_a_breast_has_no_places(dense):
    pixels = np.zeros((80, 60), np.float32)
    nothing = Prepared(pixels, np.zeros(pixels.shape, np.bool_), False, None, True)
    assert not len(dense.places(nothing, 36.0).vectors)
    everywhere = Prepared(pixels, None, False, None, False)
    assert len(dense.places(everywhere, 36.0).vectors)
    assert not len(dense.places(everywhere, 36.0, np.zeros(pixels.shape, np.bool_)).vectors)


def test_on_a_real_film_dense_vectors_are_akin_to_those_of_crops(mini_mias):
    rows = read_dataset("mini-mias", mini_mias).frame
    row = rows[rows["granularity"] == "finding"].iloc[0]
    pixels = read_mammogram(row["path"]).pixels
    embedder = DenseEmbedder(network(NetworkConfig(weights="auto", embedding_dimension=None)), PreparationConfig())
    prepared = prepare(pixels, PreparationConfig(), spacing_mm=row["spacing_mm"])
    places = embedder.places(prepared, 400.0)
    chosen = np.arange(0, len(places.cells), len(places.cells) // 10)
    crops = crop_vectors(embedder, prepared, places.centres[chosen], 400.0)
    # 25 cells of a crop, 16 of them at its border: with this network, which sees hundreds of pixels around a cell, the
    # padding of a crop makes another vector of it. Hence candidates are looked at again, crop by crop.
    assert np.median((places.vectors[chosen] * crops).sum(axis=1)) > 0.6


@pytest.mark.gpu
@pytest.mark.parametrize("pooling", ["average", "gem"])
def test_a_gpu_gives_the_places_that_the_processor_gives(pooling, cuda):
    config = replace(TINY, pooling=pooling)
    here, there = DenseEmbedder(network(config), SIZE), DenseEmbedder(network(config).to(cuda), SIZE)
    prepared = prepared_breast()
    expected, found = here.places(prepared, 36.0), there.places(prepared, 36.0)
    assert np.array_equal(expected.cells, found.cells)
    assert np.abs(expected.vectors - found.vectors).max() < 1e-5
    boxes = [Box(13, 48, 37, 72), Box(20, 30, 50, 60)]
    assert np.abs(here.in_place(prepared, boxes) - there.in_place(prepared, boxes)).max() < 1e-5
