"""A trained model at work: a place on an image, or a whole manifest, becomes vectors."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from embedder.checkpoint import ModelCard, ModelError, code_version, load_model, save_model
from embedder.crops import RoiCrop
from embedder.devices import choose_device
from embedder.findings import Box
from embedder.header import Header
from embedder.network import EmbedderNetwork, NetworkConfig
from embedder.preparation import PreparationConfig
from embedder.rois import read_crop, read_rois

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class EmbeddedFinding:
    """One place on one image, embedded.

    Attributes:
        vector: float32 (dimension,), unit length.
        crop: What the network saw.
        path: The image.
        patient_id: The woman as the file names her; None where it does not.
        header: What else the file says.
    """

    vector: Vectors
    crop: RoiCrop
    path: Path
    patient_id: str | None
    header: Header


@dataclass(frozen=True, eq=False)
class EmbeddedBatch:
    """Some rows of a manifest, embedded.

    Attributes:
        records: The rows that succeeded, in order.
        vectors: float32 (rows, dimension), unit length.
        thumbnails: PNG bytes of each row's crop; None unless asked for.
        failures: Row id and message of those that failed.
    """

    records: pd.DataFrame
    vectors: Vectors
    thumbnails: list[bytes] | None
    failures: list[tuple[str, str]]


def encode_png(pixels: npt.NDArray[np.float32]) -> bytes:
    """Return float32 pixels in [0, 1] as an 8-bit grey PNG."""
    done, encoded = cv2.imencode(".png", np.clip(pixels * 255 + 0.5, 0, 255).astype(np.uint8))
    assert done, "encoding an array in memory does not fail"
    return bytes(encoded.tobytes())


@torch.inference_mode()
def embed_pixels(
    network: EmbedderNetwork,
    pixels: npt.NDArray[np.floating],
    extent_mm: npt.NDArray[np.float32],
    device: torch.device,
    batch_size: int = 32,
) -> Vectors:
    """Embed crops that are already cut.

    Args:
        network: In evaluation mode.
        pixels: (rows, height, width) in [0, 1].
        extent_mm: (rows,) height of each crop in mm, NaN where unknown.
        device: Where the network is.
        batch_size: Crops in one forward pass.

    Returns:
        float32 (rows, dimension), unit length.
    """
    vectors = np.empty((len(pixels), network.dimension), np.float32)
    for start in range(0, len(pixels), batch_size):
        part = slice(start, start + batch_size)
        images = torch.from_numpy(np.ascontiguousarray(pixels[part], np.float32)).unsqueeze(1)
        extents = torch.from_numpy(np.ascontiguousarray(extent_mm[part], np.float32))
        output = network(images.to(device), extents.to(device))
        vectors[part] = output.embedding.float().cpu().numpy()
    return vectors


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one thread: how sums are shared among several decides how they round."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class Embedder:
    """A model ready to embed.

    Args:
        network: The network, in evaluation mode.
        card: Its card.
        digest: Its digest.
        device: Where to compute, see `choose_device`.
        batch_size: Crops in one forward pass.
    """

    def __init__(
        self,
        network: EmbedderNetwork,
        card: ModelCard,
        digest: str,
        *,
        device: str = "auto",
        batch_size: int = 32,
    ) -> None:
        self.device = choose_device(device)
        self.network = network.eval().to(self.device)
        self.card = card
        self.digest = digest
        self.batch_size = batch_size

    @classmethod
    def load(cls, folder: Path, *, device: str = "auto", batch_size: int = 32) -> "Embedder":
        """Load a model from its folder.

        Raises:
            ModelError: No model, or a damaged one; or the device is not there.
        """
        network, card, digest = load_model(folder)
        return cls(network, card, digest, device=device, batch_size=batch_size)

    @property
    def preparation(self) -> PreparationConfig:
        """The preparation that this model was trained with."""
        return self.card.preparation

    @property
    def preparation_digest(self) -> str:
        """The digest of the preparation."""
        return self.card.preparation.digest

    @property
    def granularity(self) -> str:
        """What a row is to this model: a `finding` or a whole `breast`."""
        return self.card.preparation.granularity

    @property
    def dimension(self) -> int:
        """Length of the vectors."""
        return self.network.dimension

    def embed_crops(self, crops: list[RoiCrop]) -> Vectors:
        """Embed crops; float32 (crops, dimension), unit length."""
        if not crops:
            return np.empty((0, self.dimension), np.float32)
        extents = np.array([np.nan if c.extent_mm is None else c.extent_mm for c in crops], np.float32)
        pixels = np.stack([c.pixels for c in crops])
        return embed_pixels(self.network, pixels, extents, self.device, self.batch_size)

    def embed(
        self,
        path: Path,
        box: Box | None = None,
        *,
        spacing_mm: float | None = None,
        view: str | None = None,
        frame: int | None = None,
        allow_for_processing: bool = False,
    ) -> EmbeddedFinding:
        """Embed one place on one image, or the whole breast.

        The vector is the same bit for bit on every call, however many threads torch has on this machine.

        Args:
            path: The image.
            box: The place in pixels of the stored image; None for the whole breast.
            spacing_mm: Millimetres per pixel where the file does not say.
            view: The view where the file does not say.
            frame: Which image of a multi-frame file, counted from 1; None where there is only one.
            allow_for_processing: Take For Processing images too, see `read_mammogram`.

        Raises:
            ModelError: A box for a model of whole breasts, or none for a model of findings.
            MammoseekError: The image can't be read, or the box does not lie inside it.
        """
        if self.granularity == "finding" and box is None:
            raise ModelError(path, "this model compares findings: it needs a place", "add --box x0,y0,x1,y1")
        if self.granularity == "breast" and box is not None:
            raise ModelError(path, "this model compares whole breasts, not places", "leave --box out")
        crop, header = read_crop(
            path,
            box,
            self.preparation,
            spacing_mm=spacing_mm,
            view=view,
            frame=frame,
            allow_for_processing=allow_for_processing,
        )
        with _one_thread():
            vector = self.embed_crops([crop])[0]
        return EmbeddedFinding(vector, crop, Path(path), header.patient_id, header)

    def embed_manifest(
        self, frame: pd.DataFrame, *, thumbnails: bool = False, workers: int | None = None
    ) -> Iterator[EmbeddedBatch]:
        """Embed the rows of a manifest in batches, while worker threads read the next images.

        Args:
            frame: A manifest with absolute paths, of this model's granularity.
            thumbnails: Keep a PNG of each crop.
            workers: Threads that read images.

        Raises:
            ModelError: A row of another granularity.
        """
        if (frame["granularity"] != self.granularity).any():
            raise ModelError("manifest", f"this model embeds rows of granularity {self.granularity} only")
        crops: list[RoiCrop] = []
        positions: list[int] = []
        failures: list[tuple[str, str]] = []

        def batch() -> EmbeddedBatch:
            records = frame.iloc[positions].reset_index(drop=True)
            pictures = [encode_png(crop.pixels) for crop in crops] if thumbnails else None
            return EmbeddedBatch(records, self.embed_crops(crops), pictures, failures)

        for read in read_rois(frame, self.preparation, workers=workers):
            if read.crop is None:
                failures.append((str(frame["row_id"].iloc[read.position]), str(read.error)))
                continue
            crops.append(read.crop)
            positions.append(read.position)
            if len(crops) == self.batch_size:
                yield batch()
                crops, positions, failures = [], [], []
        if crops or failures:
            yield batch()


def pretrained_model(folder: Path, network: NetworkConfig, preparation: PreparationConfig) -> str:
    """Write a model that was never trained on mammograms: the backbone's pooled features as vectors.

    Args:
        folder: Where to write it.
        network: What it is made of; its embedding layer is left out, for an untrained one would only blur the
            features.
        preparation: What its input looks like.

    Returns:
        The model's digest.

    Raises:
        WeightsError: The backbone or its weights can't be had, or it does not work on crops of this size.
        ModelError: The folder holds another model, or can't be written.
    """
    network = replace(network, embedding_dimension=None)
    built = EmbedderNetwork(network, {})
    built.check_input(preparation.height, preparation.width)
    card = ModelCard(network, preparation, {}, built.weights_origin, code_version=code_version())
    return save_model(folder, built.state_dict(), card)
