"""Embedding a manifest on many machines with Ray: the same batches, and so the same vectors, as one process has."""

import contextlib
import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from embedder.batches import study_batches
from embedder.cluster import check_address, connected, first_line
from embedder.embedding import EmbeddedBatch, EmbeddedRows, Embedder
from embedder.fleetworker import Done, FleetError, ModelFiles, Task, do_task, is_seen, versions
from errors import MammoseekError

TASK_BATCHES = 4
"""Batches that a worker does in one go, at most: a lost worker costs no more than these."""

AHEAD = 3
"""Tasks that wait, run or are done before their turn, for each worker."""

RETRIES = 2
"""How often the task of a worker that died is given to another before its images are tried in smaller lots."""

LOST_IN_A_ROW = 8
"""Images one after another that each cost every worker its life: then it is not the images' fault."""

# What reading and cutting a crop takes. A woman's name and findings stay with the driver.
_SENT = ("path", "granularity", "x0", "y0", "x1", "y1", "image_rows", "image_columns", "spacing_mm", "view", "frame")

Batches = list[npt.NDArray[np.int64]]


@dataclass(frozen=True)
class FleetConfig:
    """Which workers embed.

    Args:
        address: `local` starts a cluster on this machine, `auto` joins the one that runs on it, and
            `ray://host:port` one elsewhere.
        device: Where workers compute: `cpu`, `cuda`, or `auto` for `cuda` where the cluster has GPUs.
        threads: Processors of one worker: so many of its threads read images.
        gpus: Share of a GPU that one worker takes, where they compute on GPUs: reading images is the longer part.

    Raises:
        FleetError: An option is out of its range.
    """

    address: str
    device: str = "auto"
    threads: int = 1
    gpus: float = 0.25

    def __post_init__(self) -> None:
        check_address(self.address)
        if self.device not in ("auto", "cpu", "cuda"):
            raise FleetError(f"device {self.device!r}", "is none that Ray gives to workers", "use auto, cpu or cuda")
        if self.threads < 1:
            raise FleetError(f"{self.threads} threads", "are too few for a worker", "give each 1 or more")
        # Of more than one GPU, Ray gives whole ones only.
        if not (0 < self.gpus <= 1 or (self.gpus > 1 and float(self.gpus).is_integer())):
            raise FleetError(f"{self.gpus} GPUs", "can't be given to a worker", "give each a share up to 1")


@dataclass(frozen=True, eq=False)
class _Job:
    """Batches that are with the workers.

    Attributes:
        batches: Positions of their rows.
        result: Where Ray puts what became of them.
    """

    batches: Batches
    result: Any


class Fleet:
    """Workers that embed a manifest, as a context manager: at its end they stop, and so does a local cluster.

    It connects when there is something to embed.

    Args:
        config: Which workers.
        model: Folder of the model, here: the workers are sent a copy.
        embedder: That model, loaded.
    """

    def __init__(self, config: FleetConfig, model: Path, embedder: Embedder) -> None:
        self._config = config
        self._model = Path(model)
        self._embedder = embedder
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def embed_manifest(self, frame: pd.DataFrame, *, thumbnails: bool = False) -> Iterator[EmbeddedBatch]:
        """Embed the rows of a manifest in the batches and the order of `Embedder.embed_manifest`.

        The rows of a worker that dies are given to others. An image that none survives costs its own rows; those
        of its batch are then embedded apart, and may differ from one process's in their last bit.

        Args:
            frame: A manifest of the model's granularity, with paths that every worker can open.
            thumbnails: Keep a PNG of each crop.

        Raises:
            FleetError: There is no such cluster, or its workers are not fit for the work.
            ModelError: The model can't be read, here or there, or a row is of another granularity.
        """
        batches = study_batches(frame, self._embedder.batch_size)
        if not batches:
            return
        files = ModelFiles.read(self._model)
        ray = self._stack.enter_context(connected(self._config.address, len(files.weights)))
        workers = _Workers(ray, self._config, self._embedder, files, frame, thumbnails)
        self._stack.callback(workers.stop)
        size = max(1, min(TASK_BATCHES, len(batches) // (2 * workers.count())))
        lost = 0
        for job, found in workers.run([batches[start : start + size] for start in range(0, len(batches), size)]):
            if isinstance(found, Done):
                rows = frame.iloc[np.concatenate(job.batches)]
                check_seen(found, rows["path"])
                yield from (part.of(rows) for part in found.batches)
                lost = 0
                continue
            [places] = job.batches
            path = frame["path"].iloc[places[0]]
            lost += 1
            if lost == LOST_IN_A_ROW:
                raise FleetError(
                    path,
                    f"and the {lost - 1} images before it each cost every worker its life ({found})",
                    "see Ray's logs; where memory is short, --workers gives each worker more processors' share of it",
                )
            message = f"{path}: every worker that read it died ({found}); see whether it is damaged or huge"
            yield EmbeddedRows(
                np.empty(0, np.int64),
                np.empty((0, self._embedder.dimension), np.float32),
                [] if thumbnails else None,
                [(int(place), message) for place in places],
            ).of(frame)


class _Workers:
    """A cluster's workers, with what all tasks of a manifest have in common."""

    def __init__(
        self,
        ray: ModuleType,
        config: FleetConfig,
        embedder: Embedder,
        files: ModelFiles,
        frame: pd.DataFrame,
        thumbnails: bool,
    ) -> None:
        self._ray = ray
        self._config = config
        self._pending: deque[_Job] = deque()
        resources = ray.cluster_resources()
        self._device = config.device
        if self._device == "auto":
            self._device = "cuda" if resources.get("GPU", 0) >= config.gpus else "cpu"
        self._frame = frame[[name for name in _SENT if name in frame]]
        self._task = Task(
            frame=self._frame.iloc[:0],
            sizes=(),
            thumbnails=thumbnails,
            digest=embedder.digest,
            device=self._device,
            batch_size=embedder.batch_size,
            threads=config.threads,
            versions=versions(),
        )
        self.count()
        self._work = ray.remote(
            num_cpus=config.threads,
            num_gpus=config.gpus if self._device == "cuda" else 0,
            # Without a limit, a worker keeps the model from task to task.
            max_calls=0,
        )(_work)
        # In a list, a worker gets the reference only, and fetches the model once.
        self._files = [ray.put(files)]

    def count(self) -> int:
        """Return how many workers the cluster has room for now.

        Raises:
            FleetError: For none.
        """
        resources = self._ray.cluster_resources()
        room = [resources.get("CPU", 0) / self._config.threads]
        if self._device == "cuda":
            room.append(resources.get("GPU", 0) / self._config.gpus)
        if min(room) < 1:
            needs = f"{self._config.threads} processors" + f" and {self._config.gpus} GPUs" * (self._device == "cuda")
            has = f"{resources.get('CPU', 0):.0f} and {resources.get('GPU', 0):.0f} GPUs"
            raise FleetError(
                "Ray's cluster", f"has no room for a worker: each takes {needs}, and it has {has}", "add machines to it"
            )
        return int(min(room))

    def run(self, lots: Sequence[Batches]) -> Iterator[tuple[_Job, Done | str]]:
        """Have lots of batches done, a bounded number at a time.

        Args:
            lots: The batches of each task.

        Yields:
            Each task and what became of it, in order: what was done; or for a single image, why every worker was lost.
        """
        todo = iter(lots)
        while True:
            room = max(0, AHEAD * self.count() - len(self._pending))
            self._pending.extend(self._submit(lot, RETRIES) for lot in itertools.islice(todo, room))
            if not self._pending:
                return
            job = self._pending[0]
            found = self._outcome(job)
            self._pending.popleft()
            if isinstance(found, str) and (smaller := smaller_lots(job.batches, self._frame["path"])):
                self._pending.extendleft(reversed([self._submit(lot, min(1, RETRIES)) for lot in smaller]))
            else:
                yield job, found

    def stop(self) -> None:
        """Take back what is not done."""
        for job in self._pending:
            # Where the cluster or the connection is gone, there is nothing to take back.
            with contextlib.suppress(Exception):
                self._ray.cancel(job.result, force=True)
        self._pending.clear()

    def _submit(self, batches: Batches, retries: int) -> _Job:
        frame = self._frame.iloc[np.concatenate(batches)].reset_index(drop=True)
        task = replace(self._task, frame=frame, sizes=tuple(map(len, batches)))
        return _Job(batches, self._work.options(max_retries=retries).remote(task, self._files))

    def _outcome(self, job: _Job) -> Done | str:
        """Wait for a task; return why where its workers died."""
        errors = self._ray.exceptions
        try:
            done: Done = self._ray.get(job.result)
            return done
        except errors.RayTaskError as error:
            if isinstance(error.cause, MammoseekError):
                raise error.cause from None
            if isinstance(error.cause, MemoryError):
                return "out of memory"
            # A worker that can't even read its task has a cause of Ray's own.
            if isinstance(error.cause, ImportError | errors.RaySystemError):
                raise FleetError(
                    "Ray's workers",
                    f"can't import what they need ({first_line(error.cause)})",
                    "install mammoseek, the same version, on every machine",
                ) from None
            raise
        except errors.OutOfMemoryError:
            return "out of memory"
        except (errors.WorkerCrashedError, errors.NodeDiedError, errors.ObjectLostError):
            return "it was killed or crashed"
        except (errors.RayError, ConnectionError) as error:
            raise FleetError(
                "Ray's cluster", f"failed ({first_line(error)})", "what was stored is kept: go on when it runs again"
            ) from error


def _work(task: Task, files: list[Any]) -> Done:
    """Do a task on a worker."""
    import ray

    return do_task(task, lambda: ray.get(files[0]))


def smaller_lots(batches: Batches, paths: pd.Series) -> list[Batches]:
    """Cut the batches of a task that costs workers their lives: into single batches, and those into single images.

    Args:
        batches: Positions of the rows of each batch.
        paths: The image of every row.

    Returns:
        The batches of each smaller task, in order; nothing where all is one image.
    """
    if len(batches) > 1:
        return [[batch] for batch in batches]
    images = paths.iloc[batches[0]]
    lots = [[batches[0][np.flatnonzero(images == image)]] for image in images.unique()]
    return lots if len(lots) > 1 else []


def check_seen(done: Done, paths: pd.Series) -> None:
    """Refuse a worker that can't see images which are here: its rows would fail for no fault of theirs.

    Args:
        done: What a worker sent.
        paths: The image of each row that it was given.

    Raises:
        FleetError: It can't.
    """
    for place in done.unseen:
        if is_seen(path := paths.iloc[place]):
            raise FleetError(
                path,
                f"is here, but the worker on {done.host} can't see it",
                "put the images where every machine finds them by the same path, such as a shared folder",
            )
