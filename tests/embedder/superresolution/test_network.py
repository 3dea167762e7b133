"""The network that enlarges: aligned to the film's pixels, the same bits always, and refused where it is damaged."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import get_args

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save
from threadpoolctl import threadpool_limits

from embedder import superresolution
from embedder.cards import card_checksum
from embedder.preparation import SuperResolutionName
from embedder.superresolution import NETWORKS, packaged_network, seen_by
from embedder.superresolution import network as module
from embedder.superresolution.network import (
    CARD_FILE,
    FORMAT,
    SHAPES,
    WEIGHTS_FILE,
    SuperResolution,
    SuperResolutionError,
    bicubic,
    load_network,
)
from embedder.superresolution.training import make_network, sharpened


def random_weights(seed: int = 0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {name: generator.normal(0, 0.05, shape).astype(np.float32) for name, shape in SHAPES.items()}


def nothing_added() -> SuperResolution:
    """A network whose last layer is 0: what it gives is the interpolated image."""
    weights = random_weights() | {name: np.zeros(SHAPES[name], np.float32) for name in ("4.weight", "4.bias")}
    return SuperResolution(weights, "0" * 64)


def slow_enlarged(pixels: np.ndarray, weights: dict[str, np.ndarray]) -> np.ndarray:
    """The same in PyTorch, of the whole image at once."""
    layers = make_network()
    layers.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    image = torch.from_numpy(bicubic(np.pad(pixels, 8, mode="edge")))[None, None]
    with torch.inference_mode():
        found = sharpened(layers, image)[0, 0].numpy()
    return np.clip(found[10:-10, 10:-10], 0, 1)


@pytest.mark.parametrize("shape", [(1, 1), (5, 40), (33, 17)])
def test_a_network_that_adds_nothing_interpolates(shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(1).random(shape, dtype=np.float32)
    expected = np.clip(bicubic(pixels), 0, 1)
    np.testing.assert_allclose(nothing_added().enlarge(pixels), expected, atol=1e-6)


def test_a_pixel_becomes_the_four_that_lie_where_it_lay() -> None:
    y, x = np.mgrid[:20, :30].astype(np.float32)
    ramp = (0.1 + 0.02 * x + 0.01 * y).astype(np.float32)
    found = nothing_added().enlarge(ramp)
    # The middle of pixel i of the enlarged image lies at (i + 0.5) / 2 of the film, where pixel 0 reaches from 0 to 1.
    for i in range(8, 32):
        for j in range(8, 52):
            expected = 0.1 + 0.02 * ((j + 0.5) / 2 - 0.5) + 0.01 * ((i + 0.5) / 2 - 0.5)
            # OpenCV's cubic bends a ramp a little; half a pixel of the enlarged image would be 0.0075.
            assert found[i, j] == pytest.approx(expected, abs=2e-3)


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 9))
def test_against_pytorch_in_tiles_of_any_size(rows: int, columns: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).random((rows, columns), dtype=np.float32)
    weights = random_weights(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_TILE", 16)
        found = SuperResolution(weights, "").enlarge(pixels)
    assert found.shape == (2 * rows, 2 * columns)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, slow_enlarged(pixels, weights), atol=1e-5)
    # It is the network that does it: interpolation alone is far from this.
    assert np.abs(found - np.clip(bicubic(pixels), 0, 1)).max() > 1e-3


def test_the_same_bits_on_any_number_of_threads() -> None:
    pixels = np.random.default_rng(2).random((150, 90), dtype=np.float32)
    network = SuperResolution(random_weights(), "")
    threads = cv2.getNumThreads()
    try:
        found = []
        for count in (1, 2, 5):
            cv2.setNumThreads(count)
            with threadpool_limits(count):
                found.append(network.enlarge(pixels).tobytes())
    finally:
        cv2.setNumThreads(threads)
    assert len(set(found)) == 1


def write_network(folder: Path, weights: dict[str, np.ndarray], **changes: object) -> Path:
    """Write a network as one who knows of digest and checksum would."""
    folder.mkdir(parents=True, exist_ok=True)
    content = save(weights)
    card = {"format": FORMAT, "weights": hashlib.sha256(content).hexdigest(), "women": ["a" * 16], "images": []}
    card |= changes
    (folder / WEIGHTS_FILE).write_bytes(content)
    (folder / CARD_FILE).write_text(json.dumps({**card, "checksum": card_checksum(card)}))
    return folder


def test_a_network_is_read_as_it_was_written(tmp_path: Path) -> None:
    weights = random_weights()
    found = load_network(write_network(tmp_path, weights))
    assert found.digest == hashlib.sha256((tmp_path / WEIGHTS_FILE).read_bytes()).hexdigest()
    assert found.card["women"] == ("a" * 16,)
    assert all(np.array_equal(found.weights[name], value) for name, value in weights.items())


@pytest.mark.parametrize(
    ("file", "content", "cause"),
    [
        (WEIGHTS_FILE, None, "is no super-resolution network"),
        (CARD_FILE, None, "is no super-resolution network"),
        (WEIGHTS_FILE, b"", "do not belong together"),
        (CARD_FILE, b"", "is damaged"),
        (CARD_FILE, b"[]", "is damaged"),
        (CARD_FILE, b"{}", "is damaged"),
        (CARD_FILE, b"[" * 100_000, "is damaged"),
        (CARD_FILE, b"\xff\xfe", "is damaged"),
        (CARD_FILE, b'{"format": 9}', "is of format 9, this version reads 1; update mammoseek"),
    ],
)
def test_a_damaged_network_costs_one_clear_error(tmp_path: Path, file: str, content: bytes | None, cause: str) -> None:
    write_network(tmp_path, random_weights())
    if content is None:
        (tmp_path / file).unlink()
    else:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(SuperResolutionError, match=cause) as caught:
        load_network(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_what_is_no_network_is_refused_even_where_all_digests_match(tmp_path: Path) -> None:
    good = random_weights()
    wrong = {
        "one tensor less": ({name: good[name] for name in list(good)[1:]}, {}),
        "another shape": (good | {"4.bias": np.zeros(2, np.float32)}, {}),
        "not finite": (good | {"4.bias": np.full(1, np.nan, np.float32)}, {}),
        "float64": (good | {"4.bias": np.zeros(1, np.float64)}, {}),
        "women are no list": (good, {"women": 7}),
    }
    for name, (weights, changes) in wrong.items():
        with pytest.raises(SuperResolutionError, match="is damaged"):
            load_network(write_network(tmp_path / name, weights, **changes))


def test_a_card_that_was_changed_by_hand_is_refused(tmp_path: Path) -> None:
    write_network(tmp_path, random_weights())
    card = json.loads((tmp_path / CARD_FILE).read_text())
    (tmp_path / CARD_FILE).write_text(json.dumps(card | {"women": []}))
    with pytest.raises(SuperResolutionError, match="the card was changed after it was written"):
        load_network(tmp_path)


def test_every_name_of_the_preparation_is_a_network_with_its_origin() -> None:
    assert set(get_args(SuperResolutionName)) == {"none", *NETWORKS}
    for name in NETWORKS:
        card = packaged_network(name).card
        assert "research only" in card["data"]["licence"]
        assert len(card["women"]) == card["data"]["women"] > 100
        assert seen_by(name) == (card["women"], card["images"])
    assert seen_by("none") == ((), ())


def test_a_name_stands_for_the_same_weights_for_ever() -> None:
    # A model that was trained with a network is bound to it by this name: new weights need a new one.
    assert NETWORKS == {"srcnn-rsna": "292437c22ade4d111cb5e6ba6ad0433864d6544d15a7771e3fc9f501889b9627"}


def test_other_weights_under_a_packaged_name_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_network(tmp_path / "srcnn-rsna", random_weights())
    monkeypatch.setattr(superresolution, "_HOME", tmp_path)
    with pytest.raises(SuperResolutionError, match=r"srcnn-rsna stands for .*; install mammoseek again"):
        packaged_network.__wrapped__("srcnn-rsna")
    shutil.rmtree(tmp_path / "srcnn-rsna")
    with pytest.raises(SuperResolutionError, match="is no super-resolution network"):
        packaged_network.__wrapped__("srcnn-rsna")
