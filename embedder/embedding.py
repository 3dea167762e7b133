"""A trained model at work: a place on an image, or a whole manifest, becomes vectors."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch.nn import functional

from embedder.batches import study_batches
from embedder.checkpoint import ModelCard, ModelError, code_version, load_model, save_model, woman_digest
from embedder.crops import RoiCrop
from embedder.devices import choose_device, whole_float32
from embedder.ensemble import Ensemble
from embedder.findings import Box, patient_key
from embedder.handcrafted import feature_count
from embedder.header import Header
from embedder.network import EmbedderNetwork, NetworkConfig, symmetric_views
from embedder.preparation import PreparationConfig
from embedder.rois import CropStore, RoiRead, read_crop, read_rois
from embedder.superresolution import ROLE, seen_by

Vectors = npt.NDArray[np.float32]

# Crops in one forward pass on a CPU: what eight need stays in its caches, and more took a fifth longer each.
_CPU_PASS = 8

# Batches that are computed at a time on a CPU: beyond it, threads wait for the interpreter more than they compute.
_MOST_COMPUTING = 8


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


@dataclass(frozen=True, eq=False)
class EmbeddedRows:
    """Some rows of a manifest, embedded, by their positions in it: what a worker sends of an `EmbeddedBatch`.

    Attributes:
        positions: int64 (rows,) of the rows that succeeded.
        vectors: float32 (rows, dimension), unit length.
        thumbnails: PNG bytes of each row's crop; None unless asked for.
        failures: Position and message of those that failed.
    """

    positions: npt.NDArray[np.int64]
    vectors: Vectors
    thumbnails: list[bytes] | None
    failures: list[tuple[int, str]]

    def of(self, frame: pd.DataFrame) -> EmbeddedBatch:
        """Return them with the records of the manifest that the positions are of."""
        records = frame.iloc[self.positions].reset_index(drop=True)
        failures = [(str(frame["row_id"].iloc[position]), message) for position, message in self.failures]
        return EmbeddedBatch(records, self.vectors, self.thumbnails, failures)


def encode_png(pixels: npt.NDArray[np.float32]) -> bytes:
    """Return float32 pixels in [0, 1] as an 8-bit grey PNG."""
    done, encoded = cv2.imencode(".png", np.clip(pixels * 255 + 0.5, 0, 255).astype(np.uint8))
    assert done, "encoding an array in memory does not fail"
    return bytes(encoded.tobytes())


@torch.inference_mode()
def embed_pixels(
    network: EmbedderNetwork | Ensemble,
    pixels: npt.NDArray[np.floating],
    extent_mm: npt.NDArray[np.float32],
    device: torch.device,
    batch_size: int = 32,
    descriptors: npt.NDArray[np.float32] | None = None,
) -> Vectors:
    """Embed crops that are already cut.

    Args:
        network: In evaluation mode.
        pixels: (rows, height, width) in [0, 1].
        extent_mm: (rows,) height of each crop in mm, NaN where unknown.
        device: Where the network is.
        batch_size: Crops in one forward pass.
        descriptors: (rows, features), for a network that fuses some.

    Returns:
        float32 (rows, dimension), unit length.
    """
    vectors = np.empty((len(pixels), network.dimension), np.float32)
    for start in range(0, len(pixels), batch_size):
        part = slice(start, start + batch_size)
        images = torch.from_numpy(np.ascontiguousarray(pixels[part], np.float32)).unsqueeze(1)
        extents = torch.from_numpy(np.ascontiguousarray(extent_mm[part], np.float32))
        images, extents = images.to(device), extents.to(device)
        views = symmetric_views(images, network.config.test_time)
        beside = None if descriptors is None else torch.from_numpy(descriptors[part]).to(device)
        with whole_float32(device):
            found = torch.stack([network(view, extents, beside).embedding.float() for view in views]).mean(dim=0)
        if len(views) > 1:
            found = functional.normalize(found, dim=1)
        vectors[part] = found.cpu().numpy()
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


def _compute_alone() -> None:
    """Let this thread compute by itself: how many share a sum decides how it rounds."""
    # The first question sets a new thread to what all have, later ones leave it alone.
    torch.get_num_threads()
    torch.set_num_threads(1)


class Embedder:
    """A model ready to embed.

    Args:
        network: The network, in evaluation mode.
        card: Its card.
        digest: Its digest.
        device: Where to compute, see `choose_device`.
        batch_size: Rows in a batch of a manifest, see `study_batches`; no forward pass has more.
    """

    def __init__(
        self,
        network: EmbedderNetwork | Ensemble,
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

    @property
    def _pass(self) -> int:
        """Crops in one forward pass."""
        return min(self.batch_size, _CPU_PASS) if self.device.type == "cpu" else self.batch_size

    def embed_crops(self, crops: list[RoiCrop]) -> Vectors:
        """Embed crops; float32 (crops, dimension), unit length."""
        if not crops:
            return np.empty((0, self.dimension), np.float32)
        extents = np.array([np.nan if c.extent_mm is None else c.extent_mm for c in crops], np.float32)
        pixels = np.stack([c.pixels for c in crops])
        described = None
        if self.network.beside is not None:
            described = np.stack([crop.descriptors for crop in crops if crop.descriptors is not None])
        return embed_pixels(self.network, pixels, extents, self.device, self._pass, described)

    def embed_store(self, crops: CropStore) -> Vectors:
        """Embed crops that were read before without a margin; float32 (rows, dimension), unit length."""
        return embed_pixels(self.network, crops.pixels, crops.extent_mm, self.device, self._pass, crops.descriptors)

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
        """Embed the rows of a manifest in batches of whole studies, while worker threads read the next images.

        The vectors are the same bit for bit on every call, however many threads read and compute.

        Args:
            frame: A manifest with absolute paths, of this model's granularity.
            thumbnails: Keep a PNG of each crop.
            workers: Threads that read images.

        Raises:
            ModelError: A row of another granularity.
        """
        batches = study_batches(frame, self.batch_size)
        for rows in self.embed_batches(frame, batches, thumbnails=thumbnails, workers=workers):
            yield rows.of(frame)

    def embed_batches(
        self,
        frame: pd.DataFrame,
        batches: Sequence[npt.NDArray[np.int64]],
        *,
        thumbnails: bool = False,
        workers: int | None = None,
        computing: int | None = None,
    ) -> Iterator[EmbeddedRows]:
        """Embed rows of a manifest in batches that are cut already.

        Args:
            frame: A manifest with absolute paths, of this model's granularity.
            batches: Positions of the rows of each batch.
            thumbnails: Keep a PNG of each crop.
            workers: Threads that read images.
            computing: Batches that are computed at a time on a CPU; as many as torch has threads, eight at most,
                unless told. Each is computed by one thread.

        Yields:
            Each batch, in the order given.

        Raises:
            ModelError: A row of another granularity.
        """
        if (frame["granularity"] != self.granularity).any():
            raise ModelError("manifest", f"this model embeds rows of granularity {self.granularity} only")
        if not batches:
            return
        threads = torch.get_num_threads()
        computing = computing or min(_MOST_COMPUTING, threads) if self.device.type == "cpu" else 1
        order = np.concatenate(batches)
        ahead: dict[int, RoiRead] = {}
        pending: deque[Future[EmbeddedRows]] = deque()
        reads = read_rois(frame.iloc[order], self.preparation, workers=workers)
        with closing(reads), ThreadPoolExecutor(computing, "mammoseek-embed", _compute_alone) as pool:  # type: ignore[type-var]
            try:
                stop = 0
                for batch in batches:
                    start, stop = stop, stop + len(batch)
                    while any(place not in ahead for place in range(start, stop)):
                        read = next(reads)
                        ahead[read.position] = read
                    found = [replace(ahead.pop(place), position=int(order[place])) for place in range(start, stop)]
                    pending.append(pool.submit(self._embed_reads, found, thumbnails))
                    while pending and (len(pending) > computing or pending[0].done()):
                        yield pending.popleft().result()
                while pending:
                    yield pending.popleft().result()
            finally:
                for future in pending:
                    future.cancel()
                # A thread that sets its own number sets that of threads to come, too.
                torch.set_num_threads(threads)

    def _embed_reads(self, reads: list[RoiRead], thumbnails: bool) -> EmbeddedRows:
        crops = [read.crop for read in reads if read.crop is not None]
        return EmbeddedRows(
            np.array([read.position for read in reads if read.crop is not None], np.int64),
            self.embed_crops(crops),
            [encode_png(crop.pixels) for crop in crops] if thumbnails else None,
            [(read.position, str(read.error)) for read in reads if read.crop is None],
        )


def pretrained_model(
    folder: Path,
    network: NetworkConfig,
    preparation: PreparationConfig,
    known: CropStore | None = None,
) -> str:
    """Write a model that was never trained on mammograms: the backbone's pooled features as vectors.

    Args:
        folder: Where to write it.
        network: What it is made of; its embedding layer is left out, for an untrained one would only blur the
            features.
        preparation: What its input looks like.
        known: Crops of women whose hand-crafted descriptors say how these are standardised, where the preparation
            asks for some; the card names the women.

    Returns:
        The model's digest.

    Raises:
        WeightsError: The backbone or its weights can't be had, or it does not work on crops of this size.
        ModelError: Descriptors can't be standardised, the folder holds another model, or can't be written.
    """
    network = replace(network, embedding_dimension=None)
    # A random start is one model too, the same wherever it is made.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        built = EmbedderNetwork(network, {}, descriptors=feature_count(preparation))
    built.check_input(preparation.height, preparation.width)
    women: dict[str, tuple[str, ...]] = {}
    images: dict[str, tuple[str, ...]] = {}
    if preparation.super_resolution != "none":
        women[ROLE], images[ROLE] = seen_by(preparation.super_resolution)
    if built.beside is not None:
        if known is None or known.frame.empty:
            raise ModelError(
                folder,
                "descriptors have to be standardised on findings that are known",
                "name a manifest to fit them on",
            )
        built.beside.fit(torch.from_numpy(known.descriptors))
        women["descriptors"] = tuple(sorted({woman_digest(key) for key in patient_key(known.frame)}))
    card = ModelCard(
        network, preparation, {}, built.weights_origin, women=women, images=images, code_version=code_version()
    )
    return save_model(folder, built.state_dict(), card)
