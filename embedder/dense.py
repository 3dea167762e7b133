"""The vectors of all places of a breast at one scale, in one convolutional pass instead of a crop at a time.

The breast is resized so that a crop's window is as many pixels as the network's input; the backbone's feature map is
computed once over all of it, and a window's features are the mean (or generalised mean) of the cells that it covers.
Sliding windows in one pass: Sermanet et al., OverFeat, ICLR 2014, section 3.3; pooling regions of one feature map: He
et al., Spatial pyramid pooling, ECCV 2014.

A dense vector is not the vector of the crop itself. A crop ends in the network's own padding, and at a window's border
each convolution sees that padding where the dense map sees the tissue beyond; the deep cells of a window therefore know
some of its surroundings. How much that matters depends on backbone and window: `tests/embedder/test_dense.py` states
the cosine of the two. With EfficientNet-Lite0 and crops of 160 pixels (25 cells, 16 of them at the border) it is low, a
median of 0.55 to 0.7 on mini-MIAS, hardly more than that of two crops of different places. So dense vectors are not
compared with a gallery of crops: known places are embedded in the midst of their own surroundings, as all places are
(`DenseEmbedder.in_place`), and compared with those.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from embedder.breast import Mask, Pixels
from embedder.checkpoint import ModelError
from embedder.crops import Window, breast_bounds, checked_box, finding_window, resample_window
from embedder.devices import whole_float32
from embedder.embedding import Vectors
from embedder.ensemble import Ensemble
from embedder.findings import Box
from embedder.network import EmbedderNetwork
from embedder.preparation import PreparationConfig, Prepared

_STRIP_PIXELS = 1 << 22  # of the resized breast in one forward pass: about a gigabyte of activations
# Cells computed on both sides of a strip and thrown away. EfficientNet-Lite0 sees further, but hardly: with 8 cells the
# vectors of cells at a strip's border had a cosine of 0.9994 with those of the whole, with 4 one of 0.89.
_HALO_CELLS = 10
_PLACES = 2048  # vectors made at a time
_SIGHT_CELLS = 6  # of its surroundings that a known place is embedded with, on each side
_KNOWN_PLACES = 8  # embedded in one forward pass
_TOLERANCE = 1e-3  # of pooled features, relative to the largest
_FAR_CELLS = 96  # how far apart two places must not know of each other


@dataclass(frozen=True, eq=False)
class DensePlaces:
    """The places of a breast at one scale.

    Attributes:
        vectors: float32 (places, dimension), unit length: the learned part where the model fuses descriptors.
        cells: int64 (places, 2), row and column of each place on the grid, in reading order.
        shape: Rows and columns of the grid.
        corner: x, y of the grid's first place in pixels of the prepared image, chest wall at the left.
        step: Distance of neighbouring places, in pixels.
        mirrored: The prepared image is the stored one turned left to right.
        columns: Columns of the image.
    """

    vectors: Vectors
    cells: npt.NDArray[np.int64]
    shape: tuple[int, int]
    corner: tuple[int, int]
    step: float
    mirrored: bool
    columns: int

    @property
    def centres(self) -> npt.NDArray[np.float64]:
        """float64 (places, 2), middle x, y of each place in pixels of the stored image."""
        x, y = (self.corner[axis] + self.cells[:, 1 - axis] * self.step for axis in (0, 1))
        return np.stack([self.columns - x if self.mirrored else x, y], axis=1)

    def plane(self, values: npt.NDArray[np.floating], fill: float) -> npt.NDArray[np.float32]:
        """Return float32 (rows, columns) of the grid with the places' values, and `fill` where there is no place."""
        plane = np.full(self.shape, fill, np.float32)
        plane[self.cells[:, 0], self.cells[:, 1]] = values
        return plane


class DenseEmbedder:
    """A network that embeds all places of a breast.

    Args:
        network: In evaluation mode, on a CPU or another device.
        preparation: The preparation that it was trained with.
        strip_pixels: Pixels of the resized breast in one forward pass, which bounds the memory; 40 rows of cells are
            taken at least.

    Raises:
        ModelError: The model can't be run densely; the message says why.
    """

    def __init__(
        self,
        network: EmbedderNetwork | Ensemble,
        preparation: PreparationConfig,
        *,
        strip_pixels: int = _STRIP_PIXELS,
    ) -> None:
        name = network.config.backbone
        if isinstance(network, Ensemble):
            raise ModelError(name, "is one of several networks of an ensemble", "name a model of one network")
        if preparation.granularity != "finding":
            raise ModelError(name, "compares whole breasts, not places", "name a model of findings")
        if network.beside is not None and not network.beside.components:
            raise ModelError(
                name,
                "hands hand-crafted descriptors to its embedding layer, and these are measured crop by crop",
                "use a model without descriptors or with fusion=vector, such as `mammoseek model pretrained` makes",
            )
        if preparation.super_resolution != "none":
            raise ModelError(
                name, "enlarges crops by a super-resolution network", "use a model with super_resolution=none"
            )
        self.network, self.preparation, self.strip_pixels = network, preparation, strip_pixels
        self.stride = self._checked_stride()
        self.window_cells = preparation.height // self.stride, preparation.width // self.stride

    @property
    def dimension(self) -> int:
        """Length of a dense vector: that of the learned part, the first of a gallery's vector."""
        beside = self.network.beside
        return self.network.dimension - (0 if beside is None else beside.components)

    def places(self, prepared: Prepared, side: float, where: Mask | None = None) -> DensePlaces:
        """Embed the places of a breast whose middle lies on it.

        Args:
            prepared: The mammogram, prepared as the model's crops are.
            side: The window's shorter side in pixels of the stored image, context included.
            where: bool (rows, columns) of the stored image: where middles may lie. On the breast unless given.

        Returns:
            The places; none where there is no breast.
        """
        config = self.preparation
        aspect = config.width / config.height
        height = side if aspect >= 1 else side / aspect
        scale = config.height / height
        rows, columns = prepared.pixels.shape
        breast = breast_bounds(prepared)
        grid = int(breast.height * scale / self.stride) + 1, int(breast.width * scale / self.stride) + 1
        step = self.stride / scale
        cells = np.argwhere(np.ones(grid, np.bool_))
        mask = prepared.mask if where is None else where[:, ::-1] if prepared.mirrored else where
        if mask is not None:
            # Half a pixel beyond the last row or column is still that row or column.
            x, y = breast.x0 + cells[:, 1] * step, breast.y0 + cells[:, 0] * step
            cells = cells[mask[np.minimum(y.astype(int), rows - 1), np.minimum(x.astype(int), columns - 1)]]
        vectors = np.empty((0, self.dimension), np.float32)
        if len(cells):
            # The first window's middle is the corner of the breast's bounding box.
            pixels = [(count + own - 1) * self.stride for count, own in zip(grid, self.window_cells, strict=True)]
            x0, y0 = breast.x0 - height * aspect / 2, breast.y0 - height / 2
            window = Window(x0, y0, pixels[1] / scale, pixels[0] / scale)
            shown = resample_window(prepared, None, window, pixels[0], pixels[1], "none")
            vectors = self._embedded(
                shown, cells, None if prepared.spacing_mm is None else height * prepared.spacing_mm
            )
        return DensePlaces(vectors, cells, grid, (breast.x0, breast.y0), step, prepared.mirrored, columns)

    @torch.inference_mode()
    def in_place(self, prepared: Prepared, boxes: Sequence[Box]) -> Vectors:
        """Embed known places as `places` embeds all: each with what lies around its crop in the network's sight.

        Args:
            prepared: The mammogram, prepared as the model's crops are.
            boxes: Findings, in pixels of the stored image.

        Returns:
            float32 (boxes, dimension), unit length.

        Raises:
            PreparationError: A box lies outside the image.
        """
        config, beyond = self.preparation, _SIGHT_CELLS * self.stride
        height, width = config.height + 2 * beyond, config.width + 2 * beyond
        shown, extents = [], []
        for box in boxes:
            checked_box(prepared, box, "finding")
            window = finding_window(prepared, prepared.place(box), config)
            pixel = window.height / config.height
            around = Window(window.x0 - beyond * pixel, window.y0 - beyond * pixel, width * pixel, height * pixel)
            shown.append(resample_window(prepared, None, around, height, width, "none"))
            extents.append(np.nan if prepared.spacing_mm is None else window.height * prepared.spacing_mm)
        vectors = np.empty((len(boxes), self.dimension), np.float32)
        for start in range(0, len(boxes), _KNOWN_PLACES):
            part = slice(start, start + _KNOWN_PLACES)
            maps = self.feature_map(torch.from_numpy(np.stack(shown[part]))[:, None])
            own = maps[..., _SIGHT_CELLS : maps.shape[2] - _SIGHT_CELLS, _SIGHT_CELLS : maps.shape[3] - _SIGHT_CELLS]
            pooled = torch.stack([self._window_features(cells)[:, 0, 0] for cells in own])
            for place, row in enumerate(pooled, start=start):
                extent = None if np.isnan(extents[place]) else float(extents[place])
                vectors[place] = self._vectors(row[None], extent)[0].cpu().numpy()
        return vectors

    @torch.inference_mode()
    def _embedded(self, shown: Pixels, cells: npt.NDArray[np.int64], extent_mm: float | None) -> Vectors:
        """Return the (places, dimension) vectors of windows, named by their first cell, of a resized breast."""
        features = self._window_features(self._whole_map(shown))
        vectors = np.empty((len(cells), self.dimension), np.float32)
        for start in range(0, len(cells), _PLACES):
            part = slice(start, start + _PLACES)
            rows, columns = (torch.from_numpy(cells[part, axis]).to(features.device) for axis in (0, 1))
            vectors[part] = self._vectors(features[:, rows, columns].T, extent_mm).cpu().numpy()
        return vectors

    def _vectors(self, pooled: Tensor, extent_mm: float | None) -> Tensor:
        backbone: Any = self.network.backbone
        with whole_float32(pooled.device):
            pooled = backbone.forward_head(pooled[..., None, None]).float()
        extents = None if extent_mm is None else torch.full((len(pooled),), extent_mm, device=pooled.device)
        return self.network.learned(pooled, extents)

    def _whole_map(self, shown: Pixels) -> Tensor:
        """Return (channels, rows, columns) of a resized breast, strip by strip along its longer side."""
        if shown.shape[1] > shown.shape[0]:
            return self._strips(shown, 1)
        return self._strips(shown, 0)

    def _strips(self, shown: Pixels, axis: int) -> Tensor:
        length, across = shown.shape[axis] // self.stride, shown.shape[1 - axis] // self.stride
        most = max(1, self.strip_pixels // (across * self.stride**2))
        core = length if most >= length else max(2 * _HALO_CELLS, most - 2 * _HALO_CELLS)
        parts = []
        for start in range(0, length, core):
            stop = min(start + core, length)
            first, last = max(0, start - _HALO_CELLS), min(length, stop + _HALO_CELLS)
            if core == length:
                first, last = 0, length
            taken = shown.take(range(first * self.stride, last * self.stride), axis=axis)
            found = self.feature_map(torch.from_numpy(np.ascontiguousarray(taken))[None, None])[0]
            parts.append(found.narrow(axis + 1, start - first, stop - start))
        return torch.cat(parts, dim=axis + 1)

    @torch.inference_mode()
    def feature_map(self, images: Tensor) -> Tensor:
        """Return the backbone's bare (batch, channels, rows, columns) of images (batch, 1, height, width) in [0, 1]."""
        network: Any = self.network
        normalised = (images.to(network.mean.device) - network.mean) / network.std
        if normalised.device.type != "mps":
            normalised = normalised.contiguous(memory_format=torch.channels_last)
        with whole_float32(normalised.device):
            return network.backbone.forward_features(normalised)

    def _window_features(self, cells: Tensor) -> Tensor:
        """Return (channels, rows, columns): each window's features, at its first cell."""
        pool: Any = self.network.pool
        if pool is None:
            return functional.avg_pool2d(cells[None], self.window_cells, stride=1)[0]
        exponent = pool.exponent.clamp(1.0, 10.0)
        powers = cells[None].clamp(min=1e-6).pow(exponent)
        return functional.avg_pool2d(powers, self.window_cells, stride=1)[0].pow(1.0 / exponent)

    @torch.inference_mode()
    def _checked_stride(self) -> int:
        """Return how many pixels a cell stands for, after trying that one window's vector is that of its crop."""
        name, size = self.network.config.backbone, (self.preparation.height, self.preparation.width)
        generator = torch.Generator().manual_seed(0)
        crop = torch.rand((1, 1, *size), generator=generator)
        remedy = "use a convolutional backbone, such as tf_efficientnet_lite0"
        try:
            cells = self.feature_map(crop)
            strides = {size[axis] / cells.shape[2 + axis] for axis in (0, 1)}
            stride = int(min(strides))
            whole = strides == {stride} and stride & (stride - 1) == 0  # 100 pixels are 4 cells of 32, not of 25
        except Exception as error:  # backbones refuse a size in many ways
            raise ModelError(name, "gives no map of features", remedy) from error
        if not whole:
            raise ModelError(
                name,
                f"has no cell for each whole part of a crop of {size[0]} × {size[1]} pixels",
                f"{remedy}, and a height and width that are multiples of 32",
            )
        self.window_cells = cells.shape[2], cells.shape[3]
        backbone: Any = self.network.backbone
        with whole_float32(self.network.mean.device):
            dense = backbone.forward_head(self._window_features(cells[0])[:, 0, 0][None, :, None, None])
            direct = self.network.pooled(crop.to(self.network.mean.device))
        if dense.shape != direct.shape or not _close(dense, direct):
            raise ModelError(name, "does not pool its feature map by a mean", remedy)
        # Squeeze-and-excitation, attention and the like carry what one end of the breast shows to the other.
        strip = torch.rand((1, 1, 2 * stride, 2 * _FAR_CELLS * stride), generator=generator)
        other = strip.clone()
        other[..., : 2 * stride] = 0.5
        first, second = (self.feature_map(image)[..., _FAR_CELLS:] for image in (strip, other))
        if not _close(first, second):
            raise ModelError(
                name, "lets each place know all of the image (attention, or squeeze and excitation)", remedy
            )
        return stride


def _close(first: Tensor, second: Tensor) -> bool:
    return float((first - second).abs().max()) <= _TOLERANCE * max(1e-6, float(second.abs().max()))
