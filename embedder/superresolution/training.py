"""Train a super-resolution network on pairs that the data give by themselves: patches, and the same at half size.

The films' own pixels are the truth. A pixel of the half-size film is the mean of four, as a digitiser with twice the
aperture would have read it; so what is learned is the inverse of that reading, on breast tissue of these films.
"""

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from safetensors.numpy import load
from safetensors.torch import save
from torch import Tensor, nn

from embedder.breast import Mask
from embedder.cards import card_bytes
from embedder.checkpoint import code_version, image_digests, woman_digest, write_atomically
from embedder.findings import patient_key
from embedder.mammogram import read_mammogram
from embedder.manifest import manifest_digest
from embedder.preparation import PreparationConfig, prepare
from embedder.superresolution.network import (
    BORDER,
    CARD_FILE,
    FORMAT,
    SCALE,
    SHAPES,
    WEIGHTS_FILE,
    Pixels,
    SuperResolution,
    SuperResolutionError,
    bicubic,
)
from errors import MammoseekError

PREPARATION = PreparationConfig(granularity="breast")
"""How films are prepared before patches are cut: breast found, contrast normalised, nothing filtered."""
# At a patch's edge the interpolation does not see what lies beyond it; this much more is left out of the loss.
_EDGE = 2


@dataclass(frozen=True)
class SuperResolutionTraining:
    """How a network is trained: by Adam on the mean squared error, the rate falling to 0 along a cosine.

    Args:
        steps: Batches.
        batch: Patches of a batch.
        patch: Side of a patch in pixels, even.
        patches_per_image: Patches cut from each film, at random places that lie wholly in the breast.
        learning_rate: At the start.
        seed: Of places, first weights and batches.

    Raises:
        SuperResolutionError: An option is out of its range.
    """

    steps: int = 3000
    batch: int = 16
    patch: int = 56
    patches_per_image: int = 16
    learning_rate: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        checks = {
            "steps, batch and patches_per_image are 1 or more": min(self.steps, self.batch, self.patches_per_image)
            >= 1,
            "patch is an even number of pixels from 24 to 512": self.patch % 2 == 0 and 24 <= self.patch <= 512,
            "learning_rate is above 0 and at most 1": 0 < self.learning_rate <= 1,
            "seed is 0 to 2**32 - 1": 0 <= self.seed < 2**32,
        }
        for rule, holds in checks.items():
            if not holds:
                raise SuperResolutionError("super-resolution", f"an option is out of range: {rule}")


def halved(pixels: Pixels) -> Pixels:
    """Return an image at half its size, each pixel the mean of four; an odd row or column at the end is left out.

    Args:
        pixels: float32 (..., rows, columns).
    """
    rows, columns = (side // SCALE for side in pixels.shape[-2:])
    whole = pixels[..., : SCALE * rows, : SCALE * columns]
    return whole.reshape(*pixels.shape[:-2], rows, SCALE, columns, SCALE).mean(axis=(-3, -1), dtype=np.float32)


def cut_patches(pixels: Pixels, mask: Mask, side: int, count: int, generator: np.random.Generator) -> Pixels:
    """Return square patches at random places that lie wholly in the breast.

    Args:
        pixels: float32 (rows, columns).
        mask: bool (rows, columns), True on the breast.
        side: Of a patch, in pixels.
        count: How many; places may overlap, and repeat where there are few.
        generator: Draws the places.

    Returns:
        float32 (count, side, side); (0, side, side) where the breast has no room for one.
    """
    sums = cv2.integral(mask.astype(np.uint8))
    if min(mask.shape) < side:
        return np.empty((0, side, side), np.float32)
    inside = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    places = np.argwhere(inside == side * side)
    if not len(places):
        return np.empty((0, side, side), np.float32)
    chosen = places[generator.integers(0, len(places), count)]
    return np.stack([pixels[y : y + side, x : x + side] for y, x in chosen]).astype(np.float32)


def make_network() -> nn.Sequential:
    """Return the untrained network: it adds nothing to the interpolated image until it has learned to.

    Weights start as He et al. advise (ICCV 2015), and the first filters without their mean: what is to be added depends
    on detail, not on the grey around it, and is learned several times faster so.
    """
    first, second, last = nn.Conv2d(1, 64, 9), nn.Conv2d(64, 32, 1), nn.Conv2d(32, 1, 5)
    with torch.no_grad():
        for layer in (first, second):
            nn.init.kaiming_normal_(layer.weight)
        first.weight -= first.weight.mean(dim=(2, 3), keepdim=True)
        nn.init.zeros_(last.weight)
        for layer in (first, second, last):
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), last)


def sharpened(layers: nn.Module, images: Tensor) -> Tensor:
    """Add to interpolated images (n, 1, rows, columns) what they lack; `BORDER` pixels of each side are lost."""
    found: Tensor = layers(images)
    return found + images[..., BORDER:-BORDER, BORDER:-BORDER]


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """The outcome of a training.

    Attributes:
        weights: The safetensors file.
        card: What is known of it; the card's file without its checksum.
        failures: Row id and message of films that gave no patch.
    """

    weights: bytes
    card: dict[str, object]
    failures: list[tuple[str, str]]

    @property
    def network(self) -> SuperResolution:
        """The network, ready to enlarge."""
        return SuperResolution(load(self.weights), hashlib.sha256(self.weights).hexdigest(), self.card)


def train_super_resolution(
    frame: pd.DataFrame,
    options: SuperResolutionTraining | None = None,
    *,
    licence: str = "",
    progress: Callable[[str, int, int], None] | None = None,
) -> TrainedNetwork:
    """Train a network on the films of a manifest; on a CPU the same seed gives the same bits.

    Args:
        frame: A manifest with absolute paths, of the women to learn from alone; each film is read once.
        options: How.
        licence: Of the films; it stands in the card.
        progress: Called with what is under way, how much is done and how much there is.

    Raises:
        SuperResolutionError: No film gives a patch, or the training diverges.
    """
    options = options or SuperResolutionTraining()
    films = frame.drop_duplicates("path").reset_index(drop=True)
    patches, failures = _read_patches(films, options, progress)
    if not len(patches):
        reason = failures[0][1] if failures else "no rows"
        raise SuperResolutionError("manifest", f"none of its {len(films)} films gives a patch: {reason}")
    failed = {row_id for row_id, _ in failures}
    used = films[~films["row_id"].isin(failed)]
    state, losses = _fit(patches, options, progress)
    weights = save(state)
    digests = image_digests(used["path"])
    card: dict[str, object] = {
        "format": FORMAT,
        "weights": hashlib.sha256(weights).hexdigest(),
        "scale": SCALE,
        "training": asdict(options),
        "preparation": PREPARATION.to_dict(),
        "losses": losses,
        "data": {
            "datasets": sorted(used["dataset"].dropna().unique()),
            "licence": licence,
            "manifest": manifest_digest(frame),
            "films": len(used),
            "failed_films": len(failures),
            "women": int(patient_key(used).nunique()),
        },
        "women": sorted({woman_digest(key) for key in patient_key(used)}),
        "images": sorted(set(digests.values())),
        "code_version": code_version(),
    }
    return TrainedNetwork(weights, card, failures)


def save_network(folder: Path, trained: TrainedNetwork) -> str:
    """Write a network into a folder, the card last.

    Returns:
        The digest of its weights.

    Raises:
        SuperResolutionError: The folder holds another network.
        ModelError: The folder can't be written.
    """
    digest = str(trained.card["weights"])
    held = folder / WEIGHTS_FILE
    if held.exists() and hashlib.sha256(held.read_bytes()).hexdigest() != digest:
        raise SuperResolutionError(folder, "holds another network", "choose another folder, or delete this one first")
    write_atomically(held, trained.weights)
    write_atomically(folder / CARD_FILE, card_bytes(trained.card))
    return digest


def _read_patches(
    films: pd.DataFrame, options: SuperResolutionTraining, progress: Callable[[str, int, int], None] | None
) -> tuple[npt.NDArray[np.float16], list[tuple[str, str]]]:
    """Return the patches of all films, and the row id and message of those that give none.

    Patches are kept in half the memory, to 0.05 % of full scale.
    """
    generator = np.random.default_rng(options.seed)
    found: list[npt.NDArray[np.float16]] = []
    failures: list[tuple[str, str]] = []
    for position, (_, film) in enumerate(films.iterrows()):
        try:
            prepared = prepare(read_mammogram(str(film["path"])).pixels, PREPARATION)
            assert prepared.mask is not None, "this preparation finds the breast"
            cut = cut_patches(prepared.pixels, prepared.mask, options.patch, options.patches_per_image, generator)
            if len(cut):
                found.append(cut.astype(np.float16))
            else:
                failures.append((str(film["row_id"]), "the breast has no room for a patch"))
        except MammoseekError as error:
            failures.append((str(film["row_id"]), str(error)))
        if progress is not None:
            progress("Reading films", position + 1, len(films))
    return np.concatenate(found) if found else np.empty((0, 1, 1), np.float16), failures


def _fit(
    patches: npt.NDArray[np.float16], options: SuperResolutionTraining, progress: Callable[[str, int, int], None] | None
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Return the weights, and the mean squared errors of interpolation and network over the last tenth of the steps."""
    threads = torch.get_num_threads()
    # How many threads share a sum decides how it rounds.
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)
            layers = make_network()
        generator = np.random.default_rng((options.seed, 1))
        optimiser = torch.optim.Adam(layers.parameters(), lr=options.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, options.steps)
        edge = BORDER + _EDGE
        history: list[tuple[float, float]] = []
        for step in range(options.steps):
            batch = patches[generator.integers(0, len(patches), options.batch)].astype(np.float32)
            interpolated = torch.from_numpy(np.stack([bicubic(low) for low in halved(batch)]))[:, None]
            truth = torch.from_numpy(batch)[:, None, edge:-edge, edge:-edge]
            found = sharpened(layers, interpolated)[..., _EDGE:-_EDGE, _EDGE:-_EDGE]
            loss = nn.functional.mse_loss(found, truth)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            before = nn.functional.mse_loss(interpolated[..., edge:-edge, edge:-edge], truth)
            history.append((float(before), float(loss.detach())))
            if progress is not None:
                progress("Training", step + 1, options.steps)
    finally:
        torch.set_num_threads(threads)
    last = np.mean(history[-max(1, options.steps // 10) :], axis=0)
    state = {name: value.detach().contiguous() for name, value in layers.state_dict().items()}
    assert {name: tuple(value.shape) for name, value in state.items()} == SHAPES
    if not np.isfinite(last).all() or not all(bool(value.isfinite().all()) for value in state.values()):
        raise SuperResolutionError("training", "diverged: the loss is no number", "lower the learning rate")
    return state, {"interpolated": float(last[0]), "network": float(last[1])}
