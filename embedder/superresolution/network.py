"""The network on disk, and how it enlarges an image: OpenCV and numpy alone.

A crop is prepared in threads, and its bits must not depend on how many there are (PyTorch shares a convolution's sums
among its threads, and rounds accordingly); `embedder.superresolution.training` has the same network in PyTorch.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load

from embedder.cards import card_checksum
from errors import MammoseekError

Pixels = npt.NDArray[np.float32]

SCALE = 2
"""How much larger an image becomes, both ways."""
BORDER = 6
"""Pixels of the enlarged image that the convolutions take from each side: 4 of 9 × 9 and 2 of 5 × 5."""
SHAPES = {
    "0.weight": (64, 1, 9, 9),
    "0.bias": (64,),
    "2.weight": (32, 64, 1, 1),
    "2.bias": (32,),
    "4.weight": (1, 32, 5, 5),
    "4.bias": (1,),
}
"""The tensors of a network, float32; named as PyTorch names those of three convolutions with ReLUs between."""

WEIGHTS_FILE = "network.safetensors"
CARD_FILE = "card.json"
FORMAT = 1

MARGIN = 8
"""Pixels of the film around a place on which its enlargement depends: the network's border, and the interpolation's."""
_TILE = 128  # side, in pixels of the film, of what is enlarged at a time: 64 maps of it fill 17 MB


class SuperResolutionError(MammoseekError):
    """A super-resolution network that is missing, damaged, or can't be trained."""


@dataclass(frozen=True, eq=False)
class SuperResolution:
    """A network that enlarges images by `SCALE`.

    Attributes:
        weights: float32 tensors, see `SHAPES`.
        digest: SHA-256 of the weights' file.
        card: What is known of its training: options, data, licence, digests of women and images.
    """

    weights: Mapping[str, Pixels]
    digest: str
    card: Mapping[str, Any] = field(default_factory=dict)

    def enlarge(self, pixels: Pixels) -> Pixels:
        """Return an image at twice its size; a pixel becomes the four that lie where it lay.

        Args:
            pixels: float32 (rows, columns) in [0, 1].

        Returns:
            float32 (2 · rows, 2 · columns) in [0, 1]. Tiles are enlarged one at a time, whatever the image's size.
        """
        rows, columns = pixels.shape
        padded = np.pad(np.asarray(pixels, np.float32), MARGIN, mode="edge")
        enlarged = np.empty((SCALE * rows, SCALE * columns), np.float32)
        for y in range(0, rows, _TILE):
            for x in range(0, columns, _TILE):
                tile = padded[y : y + _TILE + 2 * MARGIN, x : x + _TILE + 2 * MARGIN]
                found = self._sharpened(bicubic(tile))[
                    SCALE * MARGIN - BORDER : BORDER - SCALE * MARGIN, SCALE * MARGIN - BORDER : BORDER - SCALE * MARGIN
                ]
                enlarged[SCALE * y : SCALE * y + found.shape[0], SCALE * x : SCALE * x + found.shape[1]] = found
        return np.clip(enlarged, 0, 1, out=enlarged)

    def _sharpened(self, image: Pixels) -> Pixels:
        """Add to an interpolated image what it lacks; `BORDER` pixels of each side are lost."""
        weights = self.weights
        maps = np.empty((64, *image.shape), np.float32)
        for kernel, bias, one in zip(weights["0.weight"][:, 0], weights["0.bias"], maps, strict=True):
            cv2.filter2D(image, cv2.CV_32F, np.ascontiguousarray(kernel), dst=one, delta=float(bias))
        np.maximum(maps, 0, out=maps)
        # Not by BLAS: how it shares the columns among its threads decides, on some processors, how sums round.
        mixed = np.einsum("om,mn->on", weights["2.weight"][:, :, 0, 0], maps.reshape(64, -1))
        mixed += weights["2.bias"][:, None]
        mixed = np.maximum(mixed, 0, out=mixed).reshape(32, *image.shape)
        found = image + weights["4.bias"][0]
        for kernel, one in zip(weights["4.weight"][0], mixed, strict=True):
            found += cv2.filter2D(one, cv2.CV_32F, np.ascontiguousarray(kernel))
        return np.asarray(found[BORDER:-BORDER, BORDER:-BORDER], np.float32)


def bicubic(pixels: Pixels) -> Pixels:
    """Return an image at twice its size by bicubic interpolation.

    Args:
        pixels: float32 (rows, columns).
    """
    size = (SCALE * pixels.shape[1], SCALE * pixels.shape[0])
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_CUBIC), np.float32)


def load_network(folder: Path) -> SuperResolution:
    """Read a network and check that it is whole.

    Args:
        folder: Where `embedder.superresolution.training.save_network` wrote it.

    Raises:
        SuperResolutionError: No network, a damaged one, or one of a newer version.
    """
    folder = Path(folder)
    remedy = "copy both files again from their source"
    try:
        content = (folder / WEIGHTS_FILE).read_bytes()
        card = json.loads((folder / CARD_FILE).read_text("utf-8"))
        if card["format"] != FORMAT:
            raise SuperResolutionError(
                folder / CARD_FILE, f"is of format {card['format']}, this version reads {FORMAT}", "update mammoseek"
            )
        if card["checksum"] != card_checksum(card):
            raise ValueError("the card was changed after it was written")
        digest = hashlib.sha256(content).hexdigest()
        if card["weights"] != digest:
            raise ValueError("weights and card do not belong together")
        women, images = (tuple(map(str, card[name])) for name in ("women", "images"))
        weights = load(content)
    except OSError as error:
        raise SuperResolutionError(
            folder, f"is no super-resolution network ({error.strerror})", "name the folder of one"
        ) from error
    except (ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
        raise SuperResolutionError(folder, f"is damaged ({type(error).__name__}: {error})", remedy) from error
    if {name: value.shape for name, value in weights.items()} != SHAPES:
        raise SuperResolutionError(folder, "is damaged (its tensors are not those of this network)", remedy)
    if not all(value.dtype == np.float32 and np.isfinite(value).all() for value in weights.values()):
        raise SuperResolutionError(folder, "is damaged (its weights are not all finite float32 numbers)", remedy)
    return SuperResolution(weights, digest, {**card, "women": women, "images": images})
