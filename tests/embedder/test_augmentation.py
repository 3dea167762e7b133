"""Augmentation: each step alone does what its name says, and the extent in mm follows the scale."""

import dataclasses

import numpy as np
import pytest
import torch

from embedder.augmentation import BREAST_AUGMENTATION, AugmentationConfig, augment, mix
from embedder.checkpoint import ModelError

NOTHING = AugmentationConfig(
    vertical_flip=False,
    horizontal_flip=False,
    right_angles=False,
    degrees=0,
    scale=0,
    shift=0,
    contrast=0,
    brightness=0,
)


def views(crops: torch.Tensor, size: tuple[int, int], seed: int = 0, **options: object) -> torch.Tensor:
    config = dataclasses.replace(NOTHING, **options)
    generator = torch.Generator().manual_seed(seed)
    return augment(crops, torch.full((len(crops),), 40.0), size, config, generator)[0]


def crops(count: int, height: int = 40, width: int = 40) -> torch.Tensor:
    return torch.rand(count, 1, height, width, generator=torch.Generator().manual_seed(1)) * 0.8 + 0.1


@pytest.mark.parametrize("size", [(32, 32), (30, 24)])
def test_without_any_change_the_view_is_the_middle(size: tuple[int, int]) -> None:
    source = crops(3)
    top, left = (40 - size[0]) // 2, (40 - size[1]) // 2
    middle = source[:, :, top : top + size[0], left : left + size[1]]
    assert torch.allclose(views(source, size), middle, atol=1e-4)


@pytest.mark.parametrize(("option", "axis"), [("vertical_flip", 2), ("horizontal_flip", 3)])
def test_flips_come_half_of_the_time(option: str, axis: int) -> None:
    source = crops(40)
    flipped = 0
    for view, original in zip(views(source, (40, 40), **{option: True}), source, strict=True):
        mirror = original.flip(axis - 1)
        assert torch.allclose(view, original, atol=1e-4) or torch.allclose(view, mirror, atol=1e-4)
        flipped += int(torch.allclose(view, mirror, atol=1e-4))
    assert 8 <= flipped <= 32


def test_right_angles_are_exact_quarter_turns() -> None:
    source = crops(40)
    seen = set()
    for view, original in zip(views(source, (40, 40), right_angles=True), source, strict=True):
        turns = [k for k in range(4) if torch.allclose(view, torch.rot90(original, k, (1, 2)), atol=1e-3)]
        assert len(turns) == 1
        seen.add(turns[0])
    assert seen == {0, 1, 2, 3}


def disc(radius: float, side: int = 80, at: tuple[float, float] = (40, 40)) -> torch.Tensor:
    rows, columns = np.mgrid[:side, :side] + 0.5
    inside = (rows - at[0]) ** 2 + (columns - at[1]) ** 2 < radius**2
    return torch.tensor(inside * 0.5 + 0.2, dtype=torch.float32)[None, None]


def test_scale_enlarges_the_lesion_and_shrinks_the_extent_alike() -> None:
    source = disc(15).expand(60, 1, 80, 80)
    config = dataclasses.replace(NOTHING, scale=0.3)
    seen, extent = augment(source, torch.full((60,), 40.0), (64, 64), config, torch.Generator().manual_seed(0))
    radius = torch.sqrt((seen > 0.45).sum(dim=(1, 2, 3)) / torch.pi)
    assert torch.allclose(radius / 15, 40.0 / extent, atol=0.03)
    assert extent.min() >= 40 / 1.3 - 1e-4
    assert extent.max() <= 40 * 1.3 + 1e-4
    assert extent.max() - extent.min() > 15


def test_an_unknown_extent_stays_unknown() -> None:
    nothing_known = torch.full((2,), torch.nan)
    _, extent = augment(crops(2), nothing_known, (32, 32), AugmentationConfig(), torch.Generator())
    assert extent.isnan().all()


def test_shift_moves_by_at_most_its_share() -> None:
    source = disc(6).expand(60, 1, 80, 80)
    seen = views(source, (64, 64), shift=0.1)[:, 0] > 0.45
    columns = (seen.sum(1) * (torch.arange(64) + 0.5)).sum(1) / seen.sum((1, 2))
    moved = (columns - 32).abs() / 64
    assert moved.max() <= 0.1 + 0.01
    assert moved.max() > 0.07


def test_the_margin_holds_tissue_for_the_largest_shift_and_reduction() -> None:
    config = dataclasses.replace(NOTHING, scale=0.15, shift=0.08)
    side = round(64 * config.margin)
    full = torch.full((200, 1, side, side), 0.5)
    seen, _ = augment(full, torch.full((200,), 40.0), (64, 64), config, torch.Generator().manual_seed(2))
    assert (seen > 0.49).all()


def test_contrast_and_brightness_leave_the_background_dark_and_stay_in_range() -> None:
    source = crops(30)
    source[:, :, :10] = 0
    seen = views(source, (40, 40), contrast=0.3, brightness=0.2)
    assert (seen[:, :, :10] == 0).all()
    assert seen.min() >= 0
    assert seen.max() <= 1
    assert (seen - source).abs().max() > 0.1


def test_the_same_generator_gives_the_same_views() -> None:
    source = crops(4)
    first = augment(source, torch.ones(4), (32, 32), AugmentationConfig(), torch.Generator().manual_seed(3))
    again = augment(source, torch.ones(4), (32, 32), AugmentationConfig(), torch.Generator().manual_seed(3))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])


def test_a_breast_keeps_its_chest_wall_at_the_left() -> None:
    assert not BREAST_AUGMENTATION.horizontal_flip
    assert not BREAST_AUGMENTATION.right_angles


@pytest.mark.parametrize("options", [{"scale": -0.1}, {"shift": 0.6}, {"contrast": 1.0}, {"degrees": float("nan")}])
def test_options_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ModelError, match="augmentation: an option is out of range"):
        AugmentationConfig(**options)


def test_bending_moves_places_a_little_and_smoothly() -> None:
    rows = torch.linspace(0.1, 0.9, 64).view(1, 1, 64, 1).expand(20, 1, 64, 64)
    bent = views(rows, (48, 48), elastic=0.05)
    middle = rows[:, :, 8:56, 8:56]
    moved = (bent - middle)[:, :, 4:-4, 4:-4] / 0.8  # in shares of the source's height
    limit = 0.05 * 48 / 64
    assert moved.abs().max() <= limit + 0.01
    assert moved.abs().amax(dim=(1, 2, 3)).min() > limit / 5
    assert moved.diff(dim=3).abs().max() < limit / 3


def test_mixing_is_a_weighted_mean_with_another_crop() -> None:
    source = crops(9)
    seen = set()
    for seed in range(30):
        mixed, found = mix(source, 0.4, torch.Generator().manual_seed(seed))
        assert 0.5 <= found.share <= 1
        assert torch.allclose(mixed, found.share * source + (1 - found.share) * source[found.order])
        assert sorted(found.order.tolist()) == list(range(9))
        seen.add(round(found.share, 3))
    assert len(seen) > 20
    again, _ = mix(source, 0.4, torch.Generator().manual_seed(29))
    assert torch.equal(again, mixed)
