"""Random views of crops, a whole batch at a time: flips, right-angle turns, scale, shift, bending, contrast, mixing."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from embedder.checkpoint import ModelError
from embedder.objectives import Mixed

_LATTICE = 6  # places each way that the bending moves


@dataclass(frozen=True)
class AugmentationConfig:
    """How much crops are varied while training.

    Args:
        vertical_flip: Turn upside down with probability one half.
        horizontal_flip: Turn left to right with probability one half.
        right_angles: Turn by a random multiple of 90°.
        degrees: Largest further rotation, either way.
        scale: Largest relative enlargement or reduction (0.15: from 1/1.15 to 1.15).
        shift: Largest shift, as a share of the crop's side.
        contrast: Largest relative change of contrast about the crop's mean, and of gamma.
        brightness: Largest change of brightness.
        elastic: Largest displacement of a smooth random bending, as a share of the crop's side (Simard et al., Best
            practices for convolutional neural networks, ICDAR 2003); 0 for none.
        mixing: Parameter of the beta distribution by which two crops and their labels are mixed (Zhang et al., mixup,
            ICLR 2018); 0 for none.

    Raises:
        ModelError: An option is out of its range.
    """

    vertical_flip: bool = True
    horizontal_flip: bool = True
    right_angles: bool = True
    degrees: float = 10.0
    scale: float = 0.15
    shift: float = 0.08
    contrast: float = 0.2
    brightness: float = 0.05
    elastic: float = 0.0
    mixing: float = 0.0

    def __post_init__(self) -> None:
        limits = {
            "degrees": 180.0,
            "scale": 1.0,
            "shift": 0.5,
            "contrast": 0.9,
            "brightness": 0.5,
            "elastic": 0.2,
            "mixing": 10.0,
        }
        for name, limit in limits.items():
            if not 0 <= getattr(self, name) <= limit:
                raise ModelError("augmentation", f"an option is out of range: {name} is 0 to {limit:g}")

    @property
    def margin(self) -> float:
        """How much larger than the crop the source must be, so that shift and reduction find real tissue."""
        return round(1 + self.scale + 2 * self.shift + 2 * self.elastic, 2)


# A whole breast keeps its chest wall at the left and its nipple at the right: turned upside down, no more.
BREAST_AUGMENTATION = AugmentationConfig(horizontal_flip=False, right_angles=False, degrees=8.0, shift=0.05)


def augment(
    crops: Tensor,
    extent_mm: Tensor,
    size: tuple[int, int],
    config: AugmentationConfig,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Return a random view of each crop, and its extent on the patient.

    Args:
        crops: (batch, 1, rows, columns) in [0, 1], `config.margin` larger than the view.
        extent_mm: (batch,) height in mm of the unenlarged view, NaN where unknown.
        size: Height and width of the views in pixels.
        config: How much crops are varied.
        generator: Source of all randomness, on the CPU.

    Returns:
        (batch, 1, height, width) in [0, 1], and (batch,) extents in mm.
    """
    batch, device = crops.shape[0], crops.device

    def uniform(limit: float) -> Tensor:
        return (torch.rand(batch, generator=generator) * 2 - 1) * limit

    def coin() -> Tensor:
        return torch.randint(0, 2, (batch,), generator=generator) * 2.0 - 1.0

    scale = torch.exp(uniform(1.0) * torch.log1p(torch.tensor(config.scale)))
    angle = torch.deg2rad(uniform(config.degrees))
    if config.right_angles:
        angle = angle + torch.randint(0, 4, (batch,), generator=generator) * (torch.pi / 2)
    flip_x = coin() if config.horizontal_flip else torch.ones(batch)
    flip_y = coin() if config.vertical_flip else torch.ones(batch)
    shift_x, shift_y = uniform(config.shift), uniform(config.shift)
    height, width = size
    # grid_sample's coordinates run from -1 to 1 across the source: the view covers its share of them.
    share_x, share_y = width / crops.shape[3], height / crops.shape[2]
    aspect = width / height
    cosine, sine = torch.cos(angle) / scale, torch.sin(angle) / scale
    across = [flip_x * cosine * share_x, -flip_x * sine * share_x / aspect, 2 * shift_x * share_x]
    down = [flip_y * sine * share_y * aspect, flip_y * cosine * share_y, 2 * shift_y * share_y]
    matrix = torch.stack([torch.stack(across, 1), torch.stack(down, 1)], dim=1).to(device)
    grid = functional.affine_grid(matrix, [batch, 1, height, width], align_corners=False)
    if config.elastic:
        grid = grid + _bending(batch, size, config.elastic, generator).to(device) * torch.tensor(
            [share_x, share_y], device=device
        )
    views = functional.grid_sample(crops, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    gain = (1 + uniform(config.contrast)).to(device).view(-1, 1, 1, 1)
    offset = uniform(config.brightness).to(device).view(-1, 1, 1, 1)
    gamma = torch.exp(uniform(config.contrast)).to(device).view(-1, 1, 1, 1)
    mean = views.mean(dim=(1, 2, 3), keepdim=True)
    # Background is no tissue: it stays at zero, or its changing grey would tell nothing and cost capacity.
    tissue = views > 0
    views = torch.where(tissue, ((views - mean) * gain + mean + offset).clamp(1e-4, 1).pow(gamma), views)
    return views, extent_mm / scale.to(extent_mm)


def _bending(batch: int, size: tuple[int, int], limit: float, generator: torch.Generator) -> Tensor:
    """Return (batch, height, width, 2) smooth displacements, in grid_sample's units across the view.

    Places on a coarse lattice are moved at random and what lies between follows: the smooth field that Simard et al.
    get by a wide Gaussian, at a fraction of its cost.
    """
    coarse = (torch.rand(batch, 2, _LATTICE, _LATTICE, generator=generator) * 2 - 1) * 2 * limit
    smooth = functional.interpolate(coarse, size=size, mode="bicubic", align_corners=True)
    return smooth.clamp(-2 * limit, 2 * limit).permute(0, 2, 3, 1)


def mix(crops: Tensor, alpha: float, generator: torch.Generator) -> tuple[Tensor, Mixed]:
    """Mix each crop of a batch with another one.

    Args:
        crops: (batch, 1, height, width).
        alpha: Both parameters of the beta distribution that the shares are drawn from.
        generator: Source of all randomness, on the CPU.

    Returns:
        (batch, 1, height, width), of which each finding's own pixels are one half or more, and what was mixed.
    """
    seed = int(torch.randint(0, 2**31, (1,), generator=generator))
    share = float(np.random.default_rng(seed).beta(alpha, alpha))
    share = max(share, 1 - share)
    order = torch.randperm(len(crops), generator=generator).to(crops.device)
    return share * crops + (1 - share) * crops[order], Mixed(share, order)
