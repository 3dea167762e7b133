"""The tiles of a whole breast: what a frozen patch embedder sees at every place of it, in one convolutional pass.

A network that is convolutional gives the same for a tile as its feature map gives at the tile's place, save the tile's
own borders. So one pass over the breast stands for hundreds of overlapping tiles: a *cell* of the common grid is a
tile's middle, its features come from some of the network's levels, and what surrounds it is in their receptive
fields. Calcifications are a few pixels wide and masses tens of them, hence several levels and, if asked for, an
enlarged image as well.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from embedder.breast import Mask, Pixels
from embedder.checkpoint import ModelError
from embedder.conspicuity import NAMES, conspicuity
from embedder.devices import whole_float32
from embedder.ensemble import Ensemble
from embedder.findings import Box
from embedder.network import EmbedderNetwork
from embedder.preparation import PreparationConfig, prepare

CELL = 16
"""Side of a cell in pixels of the working image."""

_REDUCTIONS = (4, 8, 16, 32)
# The image is padded to whole multiples of this: a network meets few sizes, and every level's map is whole.
_BLOCK = 64


@dataclass(frozen=True)
class TileConfig:
    """How a breast is cut into tiles.

    Args:
        side: The image is resampled so that its longer side has this many pixels: the working image.
        magnifications: Enlargements of the working image that are looked at, each in its own pass.
        levels: The network's levels that are read, by how many pixels a place of their maps stands for. The deepest of
            a network that learned photographs know least of what is a few pixels wide.
        detectors: Measure classical detectors beside them, see `embedder.conspicuity`.
        coverage: Least share of a cell that must lie on the breast.

    Raises:
        ModelError: An option is out of its range.
    """

    side: int = 640
    magnifications: tuple[int, ...] = (1,)
    levels: tuple[int, ...] = (4, 8)
    detectors: bool = True
    coverage: float = 0.5

    def __post_init__(self) -> None:
        checks = {
            "side is 64 to 4096 pixels": 64 <= self.side <= 4096,
            "magnifications are some of 1, 2 and 4, each once": set(self.magnifications) <= {1, 2, 4}
            and len(set(self.magnifications)) == len(self.magnifications) > 0,
            f"levels are some of {', '.join(map(str, _REDUCTIONS))}, each once and in this order": self.levels
            == tuple(level for level in _REDUCTIONS if level in self.levels)
            and len(self.levels) > 0,
            "coverage is above 0 and below 1": 0 < self.coverage < 1,
        }
        for rule, holds in checks.items():
            if not holds:
                raise ModelError("tiles", f"an option is out of range: {rule}")

    def to_dict(self) -> dict[str, Any]:
        """Return the options as plain values."""
        return {**asdict(self), "magnifications": list(self.magnifications), "levels": list(self.levels)}

    @classmethod
    def from_dict(cls, options: dict[str, Any]) -> "TileConfig":
        """Rebuild a configuration from its plain values.

        Raises:
            ModelError: An option is out of its range.
            TypeError: An option is unknown.
        """
        return cls(**{**options, **{name: tuple(options[name]) for name in ("magnifications", "levels")}})


@dataclass(frozen=True)
class Grid:
    """Where the cells of a bag lie on the stored image.

    Attributes:
        image_rows: Rows of the stored image.
        image_columns: Columns of the stored image.
        rows: Rows of the working image.
        columns: Columns of the working image.
        y0: Row of the working image, chest wall at the left, where the grid begins.
        x0: Its column.
        mirrored: The working image was turned left to right.
    """

    image_rows: int
    image_columns: int
    rows: int
    columns: int
    y0: int
    x0: int
    mirrored: bool

    def box(self, row: int, column: int, margin: int = 0) -> Box:
        """Return a cell as a box in pixels of the stored image, rounded outwards and cut at the image's borders.

        Args:
            row: Of the grid.
            column: Of the grid.
            margin: Cells to add at each side.
        """
        top, left = self.y0 + CELL * (row - margin), self.x0 + CELL * (column - margin)
        bottom, right = top + CELL * (2 * margin + 1), left + CELL * (2 * margin + 1)
        if self.mirrored:
            left, right = self.columns - right, self.columns - left
        down, across = self.image_rows / self.rows, self.image_columns / self.columns
        x0, x1 = (min(max(x, 0), self.columns) * across for x in (left, right))
        y0, y1 = (min(max(y, 0), self.rows) * down for y in (top, bottom))
        return Box(int(np.floor(x0)), int(np.floor(y0)), int(np.ceil(x1)), int(np.ceil(y1)))


@dataclass(frozen=True, eq=False)
class Bag:
    """The tiles of one breast image.

    Attributes:
        features: float16 (cells, features).
        cells: int16 (cells, 2), row and column of each cell in the grid, in reading order.
        grid: Where the cells lie on the stored image.
    """

    features: npt.NDArray[np.float16]
    cells: npt.NDArray[np.int16]
    grid: Grid


class TileEmbedder:
    """A frozen network as the embedder of tiles.

    Args:
        network: In evaluation mode, on a CPU or another device; its embedding layer and heads are not used.
        preparation: The steps that it was trained with; size, context and descriptors of its crops have no say here.
        config: How the breast is cut.

    Raises:
        ModelError: The model is an ensemble, or the backbone has no feature maps at a 4th, 8th, 16th and 32nd of the
            image's size.
    """

    def __init__(self, network: EmbedderNetwork | Ensemble, preparation: PreparationConfig, config: TileConfig) -> None:
        if isinstance(network, Ensemble):
            raise ModelError(
                network.config.backbone, "is one of several networks of an ensemble", "name a model of one network"
            )
        backbone: Any = network.backbone
        levels = getattr(backbone, "feature_info", None) or []
        found = tuple(level["reduction"] for level in levels)[-len(_REDUCTIONS) :]
        if not hasattr(backbone, "forward_intermediates") or found != _REDUCTIONS:
            raise ModelError(
                network.config.backbone,
                "has no feature maps at a 4th, 8th, 16th and 32nd of the image's size, which tiles are read from",
                "use a convolutional backbone, such as tf_efficientnet_lite0",
            )
        self.network = network
        self.preparation = replace(preparation, granularity="breast", descriptors=())
        self.config = config
        first = len(levels) - len(_REDUCTIONS)
        self.indices = [first + _REDUCTIONS.index(level) for level in config.levels]
        self.features = len(NAMES) * config.detectors + sum(
            int(levels[index]["num_chs"]) * (2 if magnification * CELL > level else 1)
            for magnification in config.magnifications
            for level, index in zip(config.levels, self.indices, strict=True)
        )

    def bag(self, pixels: Pixels, *, spacing_mm: float | None = None, view: str | None = None) -> Bag:
        """Embed the tiles of a mammogram.

        Args:
            pixels: float32 (rows, columns) in [0, 1], as `read_mammogram` gives them.
            spacing_mm: Millimetres per pixel of these, where known.
            view: The view, where known.

        Raises:
            ModelError: The image holds a value that is not finite.
        """
        if not np.isfinite(pixels).all():
            raise ModelError("image", "holds a value that is not finite", "read it again from its source")
        working = _resampled(pixels, self.config.side)
        scale = pixels.shape[0] / working.shape[0]
        prepared = prepare(working, self.preparation, spacing_mm=spacing_mm and spacing_mm * scale, view=view)
        mask = prepared.mask if prepared.mask is not None and prepared.mask.any() else np.ones(working.shape, np.bool_)
        shown = np.where(mask, prepared.pixels, np.float32(0)) if prepared.blank_outside else prepared.pixels
        down, across = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
        inside = np.s_[down[0] : down[-1] + 1, across[0] : across[-1] + 1]
        sizes = (pixels.shape[0], pixels.shape[1], working.shape[0], working.shape[1])
        grid = Grid(*sizes, int(down[0]), int(across[0]), prepared.mirrored)
        return self._embedded(_padded(shown[inside]), _padded(mask[inside]), grid)

    def _embedded(self, shown: Pixels, mask: Mask, grid: Grid) -> Bag:
        rows, columns = shown.shape[0] // CELL, shown.shape[1] // CELL
        share = cv2.resize(mask.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA)
        # A breast too thin for any cell to be covered is still looked at, where it is thickest.
        cells = np.argwhere(share > min(self.config.coverage, float(share.max()) * 0.99))
        maps = [self._maps(shown, magnification).cpu().numpy() for magnification in self.config.magnifications]
        every = np.concatenate([*([conspicuity(shown, mask, CELL)] if self.config.detectors else []), *maps])
        features = every[:, cells[:, 0], cells[:, 1]].T.astype(np.float16)
        return Bag(features, cells.astype(np.int16), grid)

    @torch.inference_mode()
    def _maps(self, shown: Pixels, magnification: int) -> Tensor:
        """Return (features, rows, columns) of the grid, the finest level first."""
        if magnification > 1:
            enlarged = cv2.resize(shown, None, fx=magnification, fy=magnification, interpolation=cv2.INTER_CUBIC)
            shown = np.asarray(np.clip(enlarged, 0, 1), np.float32)
        images = torch.from_numpy(np.ascontiguousarray(shown, np.float32))[None, None].to(self.network.mean.device)
        normalised = ((images - self.network.mean) / self.network.std).contiguous(memory_format=torch.channels_last)
        backbone: Any = self.network.backbone
        with whole_float32(normalised.device):
            maps = backbone.forward_intermediates(
                normalised, indices=self.indices, intermediates_only=True, stop_early=True
            )
        return torch.cat(list(_on_grid(maps, self.config.levels, magnification)))


def _on_grid(maps: Iterable[Tensor], levels: Iterable[int], magnification: int) -> Iterable[Tensor]:
    """Yield each level's (channels, rows, columns) on the grid: mean and maximum of what is finer, copies else."""
    for level, reduction in zip(maps, levels, strict=True):
        finer = CELL * magnification // reduction
        if finer > 1:
            # The mean alone would drown a speck that the maximum keeps.
            yield functional.avg_pool2d(level, finer)[0]
            yield functional.max_pool2d(level, finer)[0]
        elif finer == 1:
            yield level[0]
        else:
            yield functional.interpolate(level, scale_factor=reduction // (CELL * magnification), mode="nearest")[0]


def _resampled(pixels: Pixels, side: int) -> Pixels:
    factor = side / max(pixels.shape)
    if factor == 1:
        return pixels
    size = (max(1, round(pixels.shape[1] * factor)), max(1, round(pixels.shape[0] * factor)))
    kind = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(pixels, size, interpolation=kind), np.float32)


def _padded(values: Any) -> Any:
    rows, columns = values.shape
    return np.pad(values, ((0, -rows % _BLOCK), (0, -columns % _BLOCK)))
