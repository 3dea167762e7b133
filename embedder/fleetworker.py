"""What a Ray worker does: it reads and embeds the images of some batches with the model that it was sent."""

import socket
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from embedder.checkpoint import CARD_FILE, WEIGHTS_FILE, ModelError, code_version
from embedder.embedding import EmbeddedRows, Embedder
from errors import MammoseekError

VERSIONED = ("torch", "torchvision", "timm", "numpy", "cv2", "pydicom")
"""Libraries that another version of may give other vectors."""


class FleetError(MammoseekError):
    """A Ray cluster that is not there, is not fit for the work, or fails at it."""


@dataclass(frozen=True)
class ModelFiles:
    """A model as it travels to the workers.

    Attributes:
        card: Its card's file.
        weights: Its weights' file.
    """

    card: bytes
    weights: bytes

    @classmethod
    def read(cls, folder: Path) -> "ModelFiles":
        """Read a model's two files.

        Raises:
            ModelError: They can't be read.
        """
        try:
            return cls((folder / CARD_FILE).read_bytes(), (folder / WEIGHTS_FILE).read_bytes())
        except OSError as error:
            raise ModelError(
                folder, f"can't be read ({error.strerror})", "copy the model again from its source"
            ) from error


@dataclass(frozen=True, eq=False)
class Task:
    """What one worker is to embed in one go.

    Attributes:
        frame: The rows, with what finding and cutting them takes; no woman is named.
        sizes: How many rows each batch has, in their order.
        thumbnails: Keep a PNG of each crop.
        digest: Of the model.
        device: Where to compute.
        batch_size: See `Embedder`.
        threads: Threads that read images, and as many that compute on a CPU.
        versions: Of mammoseek and the libraries, as the driver has them.
    """

    frame: pd.DataFrame
    sizes: tuple[int, ...]
    thumbnails: bool
    digest: str
    device: str
    batch_size: int
    threads: int
    versions: tuple[tuple[str, str], ...]


@dataclass(frozen=True, eq=False)
class Done:
    """What a worker sends back.

    Attributes:
        batches: Each batch, by positions in the task's rows.
        host: The worker's machine.
        unseen: Positions of rows whose image the worker can't see.
    """

    batches: list[EmbeddedRows]
    host: str
    unseen: list[int]


def versions() -> tuple[tuple[str, str], ...]:
    """Return the versions of mammoseek and of the libraries that vectors depend on."""
    found = [(name, str(import_module(name).__version__)) for name in VERSIONED]
    return (("mammoseek", code_version()), *found)


_loaded: dict[tuple[str, str], Embedder] = {}  # the worker's model, kept from task to task


def do_task(task: Task, fetch_model: Callable[[], ModelFiles]) -> Done:
    """Embed what a task asks for, in one process.

    Args:
        task: The task.
        fetch_model: Returns the model; called when this process does not have it yet.

    Raises:
        FleetError: The worker's libraries are not the driver's.
        ModelError: The model is not the one it should be, or the device is not there.
    """
    host = socket.gethostname()
    here = dict(versions())
    for name, version in task.versions:
        if here[name] != version:
            raise FleetError(
                f"worker on {host}",
                f"has {name} {here[name]}, and the driver {version}: their vectors would differ",
                "install the same versions on every machine",
            )
    # Each worker has its own share of the machine.
    cv2.setNumThreads(1)
    embedder = _loaded.get((task.digest, task.device))
    if embedder is None:
        embedder = _load(task, fetch_model(), host)
        _loaded.clear()
        _loaded[(task.digest, task.device)] = embedder
    embedder.batch_size = task.batch_size
    stops = np.cumsum(task.sizes)
    batches = [np.arange(stop - size, stop) for size, stop in zip(task.sizes, stops, strict=True)]
    found = list(
        embedder.embed_batches(
            task.frame, batches, thumbnails=task.thumbnails, workers=task.threads, computing=task.threads
        )
    )
    failed = [position for rows in found for position, _ in rows.failures]
    return Done(found, host, [place for place in failed if not is_seen(task.frame["path"].iloc[place])])


def _load(task: Task, files: ModelFiles, host: str) -> Embedder:
    try:
        with tempfile.TemporaryDirectory(prefix="mammoseek-model-") as folder:
            for name, content in ((CARD_FILE, files.card), (WEIGHTS_FILE, files.weights)):
                (Path(folder) / name).write_bytes(content)
            embedder = Embedder.load(Path(folder), device=task.device, batch_size=task.batch_size)
    except MammoseekError as error:
        raise ModelError(f"worker on {host}", f"can't load the model ({error.cause})", error.remedy) from error
    except OSError as error:
        raise FleetError(
            f"worker on {host}", f"has no room for the model ({error.strerror})", "free some of its temporary disk"
        ) from error
    if embedder.digest != task.digest:
        raise ModelError(
            f"worker on {host}",
            f"was sent model {embedder.digest[:12]} instead of {task.digest[:12]}",
            "don't change the model's folder while it is at work",
        )
    return embedder


def is_seen(path: Any) -> bool:
    """Return whether there is a file of this name on this machine."""
    try:
        return Path(str(path)).exists()
    except (OSError, ValueError):  # ValueError: a null byte in the name
        return False
