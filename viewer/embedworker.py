"""The model at work in a child process: places on images become vectors, without the page ever waiting behind it.

The child keeps the films that it read and prepared last (`viewer.films`): the second place on an image costs one pass
of the network and no reading. The server keeps vectors by image and place: filters, thumbs and sliders embed nothing
again. Films that a reader opens are read and prepared ahead of her first question, beside the questions of others.
Requests for one film are handed over together, and it is read once for all of them; each crop is a forward pass by
itself, on one thread, since how many crops share a pass decides how their sums round, and the same question must get
the same bits whoever else asks.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from embedder.findings import Box
from embedder.header import Header
from errors import MammoseekError
from viewer.childprocess import AHEAD, QUESTION, Child, OutOfMemoryError, result_of
from viewer.films import Films
from viewer.keeping import default_budget

if TYPE_CHECKING:
    from embedder.rois import Film  # loads the libraries of the model, which the server does without

Corners = tuple[int, int, int, int]

_VECTORS_KEPT = 10_000


@dataclass(frozen=True)
class FilmKey:
    """An image as it is read for the model.

    Attributes:
        path: The file.
        frame: Which image of a multi-frame file, from 1; None where there is only one.
        spacing_mm: Millimetres per pixel, where the file does not say.
        view: The view, where the file does not say.
        tag: Changes with the file, see `viewer.pyramid.Version`.
    """

    path: str
    frame: int | None = None
    spacing_mm: float | None = None
    view: str | None = None
    tag: str = ""


@dataclass(frozen=True)
class EmbedJob:
    """What the child is asked for.

    Attributes:
        film: The image.
        box: The place in pixels of the stored image; None for the whole breast.
        ahead: Only read and prepare it.
    """

    film: FilmKey
    box: Corners | None = None
    ahead: bool = False


@dataclass(frozen=True, eq=False)
class EmbeddedView:
    """A place as the gallery is asked with it, see `index.models.EmbeddedPlace`.

    Attributes:
        vector: float32 (d,), unit length.
        path: The image.
        patient_id: The woman as the file names her.
        header: What else the file says.
        milliseconds: How long it took, without waiting.
    """

    vector: npt.NDArray[np.float32]
    path: Path
    patient_id: str | None
    header: Header
    milliseconds: float


class EmbedWorker:
    """The child process that owns the model.

    Args:
        gallery: Folder of the gallery.
        model: Folder of its model, where it is not the copy that the gallery keeps.
        device: Where to compute.
        capacity: Questions that may wait.
        film_bytes: Bytes that prepared films may take; None for `viewer.keeping.default_budget`.
    """

    def __init__(
        self,
        gallery: Path,
        *,
        model: Path | None = None,
        device: str = "cpu",
        capacity: int = 32,
        film_bytes: int | None = None,
    ) -> None:
        budget = default_budget() if film_bytes is None else film_bytes
        self._child = Child("embedder", EmbedWork, (gallery, model, device, budget), capacity=capacity)
        self._known: OrderedDict[EmbedJob, EmbeddedView] = OrderedDict()
        self._asked: dict[EmbedJob, Future[EmbeddedView]] = {}
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start the child."""
        self._child.start()

    def close(self) -> None:
        """End the child."""
        self._child.close()

    @property
    def status(self) -> str:
        """`ready`, `busy`, `starting` or `broken`."""
        return self._child.status

    @property
    def waiting(self) -> int:
        """Questions that wait."""
        return self._child.waiting

    @property
    def running(self) -> int:
        """Questions that are worked on."""
        return self._child.running

    @property
    def capacity(self) -> int:
        """Questions that may wait or be worked on."""
        return self._child.capacity

    @property
    def pid(self) -> int | None:
        """The child's process id."""
        return self._child.pid

    def known(self, film: FilmKey, box: Corners | None) -> EmbeddedView | None:
        """Return a vector that was made before; None where it was not."""
        job = EmbedJob(film, box)
        with self._lock:
            found = self._known.get(job)
            if found is not None:
                self._known.move_to_end(job)
            return found

    def embed(self, film: FilmKey, box: Corners | None) -> "Future[EmbeddedView]":
        """Return a place's vector as soon as it is made.

        Raises:
            BusyError: As many questions wait already as may.
        """
        job = EmbedJob(film, box)
        with self._lock:
            if job in self._known:
                self._known.move_to_end(job)
                done: Future[EmbeddedView] = Future()
                done.set_result(self._known[job])
                return done
            if job in self._asked:
                return self._asked[job]
            future = self._child.submit(job, batch_key=film, priority=QUESTION)
            self._asked[job] = future
        future.add_done_callback(lambda made: self._keep(job, made))
        return future

    def prepare(self, film: FilmKey) -> None:
        """Read and prepare an image ahead of the first question."""
        self._child.submit(EmbedJob(film, None, ahead=True), batch_key=film, priority=AHEAD)

    def _keep(self, job: EmbedJob, made: "Future[EmbeddedView]") -> None:
        with self._lock:
            self._asked.pop(job, None)
            if not made.cancelled() and made.exception() is None:
                self._known[job] = made.result()
                if len(self._known) > _VECTORS_KEPT:
                    self._known.popitem(last=False)


class EmbedWork:
    """What the child does.

    Args:
        gallery: See `EmbedWorker`.
        model: See `EmbedWorker`.
        device: See `EmbedWorker`.
        film_bytes: See `EmbedWorker`.

    Raises:
        MammoseekError: The model is missing, damaged, or not the gallery's own.
    """

    def __init__(self, gallery: Path, model: Path | None, device: str, film_bytes: int) -> None:
        import torch

        from classifiers.filling import gallery_embedder

        torch.set_num_threads(1)  # how many share a sum decides how it rounds
        self._embedder = gallery_embedder(gallery, model=model, device=device)
        self._films: Films[FilmKey, Film] = Films(self._prepared, film_bytes)

    def run(self, jobs: Sequence[EmbedJob]) -> Iterator[EmbeddedView | MammoseekError | None]:
        """Yield each job's vector, nothing for one that is done ahead of time, or why there is none."""
        for job in jobs:
            answer = result_of("embedder", lambda job=job: self._do(job))  # type: ignore[misc]
            if isinstance(answer, OutOfMemoryError):
                self._films.clear()
            yield answer

    def _do(self, job: EmbedJob) -> EmbeddedView | None:
        if job.ahead:
            self._films.ahead(job.film)
            return None
        begun = time.perf_counter()
        film = self._films.get(job.film)
        crop = film.crop(None if job.box is None else Box(*job.box))
        vector = self._embedder.embed_crops([crop])[0]
        header = replace(film.header, notes=())
        took = 1000 * (time.perf_counter() - begun)
        return EmbeddedView(vector, Path(job.film.path), header.patient_id, header, took)

    def _prepared(self, key: FilmKey) -> "Film":
        from embedder.mammogram import read_mammogram
        from embedder.rois import prepare_film

        mammogram = read_mammogram(key.path, frame=key.frame)
        return prepare_film(mammogram, self._embedder.preparation, key.spacing_mm, key.view)
