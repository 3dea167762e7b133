"""Pairs are aligned and cut from the breast; what is learned beats interpolation, and is learned again alike."""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from embedder.superresolution.network import BORDER, CARD_FILE, SuperResolutionError, bicubic, load_network
from embedder.superresolution.training import (
    SuperResolutionTraining,
    cut_patches,
    halved,
    save_network,
    train_super_resolution,
)

TINY = SuperResolutionTraining(steps=60, batch=8, patch=32, patches_per_image=12)


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 12), st.integers(2, 12))
def test_halving_against_a_slow_mean_of_four(rows: int, columns: int) -> None:
    pixels = np.random.default_rng(rows * 13 + columns).random((rows, columns), dtype=np.float32)
    found = halved(pixels)
    assert found.shape == (rows // 2, columns // 2)
    for i in range(rows // 2):
        for j in range(columns // 2):
            assert found[i, j] == pytest.approx(pixels[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean(), abs=1e-6)
    np.testing.assert_array_equal(halved(np.stack([pixels, pixels]))[1], found)


def test_pairs_are_aligned() -> None:
    """A smooth picture that is halved and enlarged lies where it lay: moved by one pixel it fits far worse."""
    y, x = np.mgrid[:80, :80]
    picture = (0.5 + 0.2 * np.sin(x / 5.0) + 0.2 * np.cos(y / 6.0 + x / 9.0)).astype(np.float32)
    back = bicubic(halved(picture))
    inner = slice(8, -8)

    def error(down: int, across: int) -> float:
        moved = np.roll(back, (down, across), (0, 1))
        return float(np.abs(moved - picture)[inner, inner].mean())

    others = [error(down, across) for down in (-1, 0, 1) for across in (-1, 0, 1) if (down, across) != (0, 0)]
    assert error(0, 0) * 5 < min(others)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(24, 60), st.integers(24, 60))
def test_patches_lie_in_the_breast(seed: int, rows: int, columns: int) -> None:
    generator = np.random.default_rng(seed)
    mask = np.zeros((rows, columns), np.bool_)
    mask[generator.integers(0, rows // 2) :, generator.integers(0, columns // 2) :] = True
    mask[generator.integers(rows // 2, rows) :] = False
    places = np.arange(rows * columns, dtype=np.float32).reshape(rows, columns)
    patches = cut_patches(places, mask, 10, 7, generator)
    room = any(
        mask[y : y + 10, x : x + 10].all() for y in range(rows - 9) for x in range(columns - 9)
    )  # the slow way to ask
    assert len(patches) == (7 if room else 0)
    for patch in patches:
        y, x = divmod(int(patch[0, 0]), columns)
        np.testing.assert_array_equal(patch, places[y : y + 10, x : x + 10])
        assert mask[y : y + 10, x : x + 10].all()


def test_no_room_for_a_patch() -> None:
    generator = np.random.default_rng(0)
    assert cut_patches(np.ones((9, 50), np.float32), np.ones((9, 50), np.bool_), 10, 3, generator).shape == (0, 10, 10)


def draw_discs(seed: int) -> np.ndarray:
    """Return bytes of a breast full of small discs with sharp outlines, which interpolation blurs."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[:160, :160]
    image = np.full((160, 160), 80, np.uint8)
    for y, x, radius in generator.integers((0, 0, 3), (160, 160, 8), (60, 3)):
        image[(rows - y) ** 2 + (columns - x) ** 2 < radius**2] = generator.integers(90, 220)
    image[(rows - 80) ** 2 + columns**2 > 78**2] = 2
    return image


def test_a_few_steps_beat_interpolation_on_a_film_that_was_not_seen(
    synthetic_manifest: Callable[..., pd.DataFrame], tmp_path: Path
) -> None:
    frame = synthetic_manifest(4)
    for row in range(4):
        frame.loc[row, "path"] = str(tmp_path / f"{row}.png")
        cv2.imwrite(frame.loc[row, "path"], draw_discs(row))
    trained = train_super_resolution(frame, TINY, licence="synthetic")
    losses = trained.card["losses"]
    assert isinstance(losses, dict)
    assert losses["network"] < 0.9 * losses["interpolated"]
    truth = draw_discs(9)[:, :70].astype(np.float32) / 255
    low = halved(truth)
    errors = [np.mean((found - truth) ** 2) for found in (trained.network.enlarge(low), bicubic(low))]
    assert errors[0] < 0.95 * errors[1]


def test_the_same_seed_gives_the_same_bits_and_leaves_the_rest_alone(
    synthetic_manifest: Callable[..., pd.DataFrame],
) -> None:
    frame, options = synthetic_manifest(2), SuperResolutionTraining(steps=3, batch=2, patch=24, patches_per_image=4)
    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    first = train_super_resolution(frame, options)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    torch.rand(5)
    assert train_super_resolution(frame, options).weights == first.weights
    other = SuperResolutionTraining(steps=3, batch=2, patch=24, patches_per_image=4, seed=1)
    assert train_super_resolution(frame, other).weights != first.weights


def test_kept_with_its_card_which_names_nobody(synthetic_manifest: Callable[..., pd.DataFrame], tmp_path: Path) -> None:
    frame = synthetic_manifest(3, view_count=2)
    options = SuperResolutionTraining(steps=1, batch=1, patch=24, patches_per_image=1)
    trained = train_super_resolution(frame, options, licence="synthetic films")
    digest = save_network(tmp_path / "network", trained)
    found = load_network(tmp_path / "network")
    assert found.digest == digest
    pixels = np.random.default_rng(0).random((12, 12), dtype=np.float32)
    np.testing.assert_array_equal(found.enlarge(pixels), trained.network.enlarge(pixels))
    text = (tmp_path / "network" / CARD_FILE).read_text()
    card = json.loads(text)
    assert (len(card["women"]), len(card["images"])) == (3, 6)
    assert card["data"]["licence"] == "synthetic films"
    assert "synthetic/w" not in text
    assert "w0-0" not in text
    assert save_network(tmp_path / "network", trained) == digest
    other = train_super_resolution(frame, SuperResolutionTraining(steps=2, batch=1, patch=24, patches_per_image=1))
    with pytest.raises(SuperResolutionError, match="holds another network; choose another folder"):
        save_network(tmp_path / "network", other)


def test_a_bad_film_costs_itself_and_bad_films_one_error(
    synthetic_manifest: Callable[..., pd.DataFrame], tmp_path: Path
) -> None:
    frame = synthetic_manifest(2)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"")
    frame.loc[0, "path"] = str(broken)
    options = SuperResolutionTraining(steps=1, batch=1, patch=24, patches_per_image=1)
    trained = train_super_resolution(frame, options)
    assert [row for row, _ in trained.failures] == ["w0-0"]
    data = trained.card["data"]
    assert isinstance(data, dict)
    assert (data["women"], data["films"], data["failed_films"]) == (1, 1, 1)
    with pytest.raises(SuperResolutionError, match=r"none of its 1 films gives a patch: .*broken\.png"):
        train_super_resolution(frame.iloc[:1], options)
    with pytest.raises(SuperResolutionError, match="none of its 1 films gives a patch: the breast has no room"):
        train_super_resolution(frame.iloc[1:], SuperResolutionTraining(patch=512))
    with pytest.raises(SuperResolutionError, match="none of its 0 films"):
        train_super_resolution(frame.iloc[:0], options)


def test_a_training_that_diverges_is_told(synthetic_manifest: Callable[..., pd.DataFrame]) -> None:
    wild = SuperResolutionTraining(steps=40, batch=2, patch=24, patches_per_image=2, learning_rate=1.0)
    films = synthetic_manifest(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim, "Adam", lambda parameters, lr: torch.optim.SGD(parameters, lr=1e9))
        with pytest.raises(SuperResolutionError, match="diverged"):
            train_super_resolution(films, wild)


@pytest.mark.parametrize(
    "options",
    [{"steps": 0}, {"batch": 0}, {"patches_per_image": 0}, {"patch": 25}, {"patch": 2 * BORDER}, {"patch": 1024}]
    + [{"learning_rate": value} for value in (0.0, -1.0, 2.0, float("nan"))]
    + [{"seed": -1}, {"seed": 2**32}],
)
def test_wrong_options_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(SuperResolutionError, match=next(iter(options))):
        SuperResolutionTraining(**options)  # type: ignore[arg-type]
