"""Votes and probabilities, and second opinions on detections, in a child process of their own.

They are fitted without the query's woman: a woman of the gallery is judged without the tenth of its women that she is
of (`classifiers.parts`), so that eleven fits of each target serve everybody. A fit takes seconds, of a large gallery
minutes, on a core of its own; whoever asks meanwhile is told to come back. What serves women whom the gallery does not
know is fitted when the server starts, and what serves a woman of the gallery when an image of hers is opened. Of a
gallery of more than 10,000 rows they are fitted on the rows of some of the women, drawn by a fixed seed, and say so.
"""

import contextlib
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from errors import MammoseekError
from exchange.detections import Detection
from index.gallery import Gallery
from index.manifest import GalleryIdentity
from viewer import ViewerError
from viewer.childprocess import AHEAD, QUESTION, Child, result_of
from viewer.problems import BusyError

MOST_ROWS = 10_000
"""Rows of a gallery that classifiers are fitted on."""

_SEED = 20_250_101
_KEPT = 1_000
_CAPACITY = 16
_PATIENCE_S = 3600.0  # the fits of all targets are one job
_FIRST = "pathology"


@dataclass(frozen=True)
class OpinionJob:
    """One place to form an opinion on.

    Attributes:
        vector: float32 (d,) as bytes.
        women: Keys of the query's woman, "dataset/patient".
        context: What is known of her and the image besides the picture, by column.
    """

    vector: bytes
    women: frozenset[str]
    context: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class FitJob:
    """What to fit ahead of a question, one target at a time, so that a question need not wait for all of them.

    Attributes:
        women: As in `OpinionJob`; nobody for women whom the gallery does not know.
        place: Which of the targets.
    """

    women: frozenset[str]
    place: int = 0


@dataclass(frozen=True)
class TriageJob:
    """Detections on one image to form second opinions on.

    Attributes:
        detections: The detections.
    """

    detections: tuple[Detection, ...]


class Opinions:
    """The child process that classifies.

    Args:
        gallery: The gallery, as the server has it.
        model: Folder of its model, where it is not the copy that the gallery keeps.
        device: Where triage embeds.
        capacity: Requests that may wait.
    """

    def __init__(
        self, gallery: Gallery, *, model: Path | None = None, device: str = "cpu", capacity: int = _CAPACITY
    ) -> None:
        arguments = gallery.folder, gallery.generation, model, device
        self._child = Child("opinions", OpinionWork, arguments, capacity=capacity, batch=1, patience_s=_PATIENCE_S)
        self._made: OrderedDict[OpinionJob, Any] = OrderedDict()
        self._asked: dict[OpinionJob, Future[Any]] = {}
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start the child, and let it fit what serves all women that the gallery does not know."""
        self._child.start()
        self.prepare(frozenset())

    def prepare(self, women: frozenset[str]) -> None:
        """Fit what an opinion on a woman needs ahead of the first question, after all questions that wait.

        Args:
            women: Her keys, "dataset/patient".
        """
        self._fit(FitJob(women))

    def _fit(self, job: FitJob) -> None:
        with contextlib.suppress(BusyError):  # the server is being stopped
            future = self._child.submit(job, priority=AHEAD)
            future.add_done_callback(lambda made: self._fit_next(job, made))

    def _fit_next(self, job: FitJob, made: "Future[bool]") -> None:
        if not made.cancelled() and made.exception() is None and made.result():
            self._fit(replace(job, place=job.place + 1))

    def close(self) -> None:
        """End the child."""
        self._child.close()

    @property
    def status(self) -> str:
        """`ready`, `busy`, `starting` or `broken`."""
        return self._child.status

    def ask(self, job: OpinionJob) -> "Future[list[dict[str, Any]]]":
        """Return what is said of a place, by target, as soon as it is there; what was said before is there at once.

        Raises:
            BusyError: As many requests wait already as may.
        """
        with self._lock:
            if job in self._made:
                self._made.move_to_end(job)
                done: Future[list[dict[str, Any]]] = Future()
                done.set_result(self._made[job])
                return done
            if job in self._asked:
                return self._asked[job]
            future = self._child.submit(job, priority=QUESTION)
            self._asked[job] = future
        future.add_done_callback(lambda made: self._keep(job, made))
        return future

    def triage(self, job: TriageJob) -> "Future[dict[str, Any]]":
        """Return second opinions as soon as they are there.

        Raises:
            BusyError: As many requests wait already as may.
        """
        return self._child.submit(job, priority=QUESTION)

    def _keep(self, job: OpinionJob, made: "Future[Any]") -> None:
        with self._lock:
            self._asked.pop(job, None)
            if not made.cancelled() and made.exception() is None:
                self._made[job] = made.result()
                if len(self._made) > _KEPT:
                    self._made.popitem(last=False)


@dataclass(frozen=True, eq=False)
class _Subset:
    """Some rows of a gallery, as classifiers ask for them, see `classifiers.classification.CaseGallery`."""

    matrix: npt.NDArray[np.float32]
    records: pd.DataFrame
    patient_keys: npt.NDArray[np.object_]
    identity: GalleryIdentity
    generation: int
    note: str = ""
    seen: npt.NDArray[np.bool_] | None = field(default=None)


def fitted_rows(gallery: Gallery, most: int = MOST_ROWS) -> npt.NDArray[np.int64]:
    """Return the rows that classifiers are fitted on, upwards: all, or those of women drawn by a fixed seed.

    Args:
        gallery: The gallery.
        most: About how many; a woman's rows are all among them or none.
    """
    if len(gallery) <= most:
        return np.arange(len(gallery))
    women = gallery.women
    order = np.random.default_rng(_SEED).permutation(int(women.max()) + 1)
    counts = np.bincount(women)[order]
    chosen = order[: max(2, int(np.searchsorted(np.cumsum(counts), most, side="right")))]
    return np.flatnonzero(np.isin(women, chosen))


class OpinionWork:
    """What the child does.

    Args:
        folder: The gallery's.
        generation: Which of its contents the server has.
        model: See `Opinions`.
        device: See `Opinions`.
        most: Rows that classifiers are fitted on.

    Raises:
        MammoseekError: The gallery can't be read, or has changed since the server opened it.
    """

    def __init__(self, folder: Path, generation: int, model: Path | None, device: str, most: int = MOST_ROWS) -> None:
        if hasattr(os, "nice"):
            os.nice(5)  # those who look and ask come first
        self._folder, self._model, self._device = folder, model, device
        gallery = Gallery.open(folder)
        if gallery.generation != generation:
            cause = f"the gallery is at generation {gallery.generation} now, and the server at {generation}"
            raise ViewerError("opinions", cause, "restart the server")
        self._rows = _subset(gallery, folder, model, most)
        self._classifiers: dict[str, Any] | None = None
        self._parts: dict[str, str] | None = None
        self._reader: Any = None

    def run(self, jobs: Sequence[OpinionJob | TriageJob | FitJob]) -> Iterator[Any]:
        """Yield what is said of each job, or why nothing is; of a fit, whether there is a next target."""
        for job in jobs:
            yield result_of("opinions", lambda job=job: self._do(job))  # type: ignore[misc]

    def _do(self, job: OpinionJob | TriageJob | FitJob) -> Any:
        if isinstance(job, FitJob):
            return self._fit(job)
        return self._triage(job) if isinstance(job, TriageJob) else self._opinion(job)

    def _targets(self) -> dict[str, Any]:
        from classifiers.classification import CaseClassifier
        from classifiers.parts import PARTS
        from classifiers.targets import choose_targets

        if self._classifiers is None:
            rows = self._rows
            names = choose_targets(rows.records, None, rows.identity.granularity)
            told = sorted((name for name in names if not name.startswith("native_")), key=lambda name: name != _FIRST)
            self._classifiers = {name: CaseClassifier(rows, name, seen=rows.seen, kept=PARTS + 1) for name in told}
        return self._classifiers

    def _fit(self, job: FitJob) -> bool:
        classifiers = list(self._targets().values())
        if job.place < len(classifiers):
            with contextlib.suppress(MammoseekError):  # whoever asks is told
                classifiers[job.place].prepare(self._left_out(job.women))
        return job.place + 1 < len(classifiers)

    def _left_out(self, women: frozenset[str]) -> frozenset[str]:
        """Return whom the fits for a woman leave out."""
        from classifiers.parts import left_out, parts_of_women

        if self._parts is None:
            self._parts = parts_of_women(self._rows.patient_keys)
        return left_out(self._parts, women)

    def _opinion(self, job: OpinionJob) -> list[dict[str, Any]]:
        vector = np.frombuffer(job.vector, np.float32)
        out = self._left_out(job.women)
        others = len(out - job.women)
        notes = [self._rows.note] if self._rows.note else []
        if others:
            notes.append(f"without {others} other women of the gallery too, who are left out together with her")
        found = []
        for target, classifier in self._targets().items():
            try:
                said = classifier.classify(vector, out, dict(job.context)).to_dict()
            except MammoseekError as error:  # of other women there are too few labels
                found.append({"target": target, "problem": error.cause})
                continue
            some_unlabelled = bool(self._rows.records[target].isna().any())
            found.append(plain_opinion(target, said, notes, some_unlabelled))
        return found

    def _triage(self, job: TriageJob) -> dict[str, Any]:
        from exchange.detections import detections_frame
        from exchange.secondreader import SecondReader

        if self._reader is None:
            self._reader = SecondReader(self._folder, model=self._model, device=self._device)
        opinions: list[dict[str, Any]] = []
        failures: list[tuple[str, str]] = []
        for batch in self._reader.read(detections_frame(job.detections), workers=1):
            opinions += [
                {**asdict(one.opinion), "urgency": one.urgency, "evidence": dict(one.evidence)}
                for one in batch.opinions
            ]
            failures += batch.failures
        return {"opinions": opinions, "failures": failures}


def _subset(gallery: Gallery, folder: Path, model: Path | None, most: int) -> _Subset:
    from classifiers.leaks import trained_on
    from embedder.checkpoint import read_card
    from index.layout import MODEL_FOLDER

    if not len(gallery):
        raise ViewerError("opinions", "the gallery is empty", "add findings by `mammoseek index add`")
    rows = fitted_rows(gallery, most)
    keys = gallery.patient_keys[rows]
    card = model or folder / MODEL_FOLDER
    note = ""
    if len(rows) < len(gallery):
        note = f"fitted on {len(rows)} of the gallery's {len(gallery)} rows, those of women drawn at random"
    return _Subset(
        gallery.vectors.take(rows),
        gallery.table.frame(rows),
        keys,
        gallery.identity,
        gallery.generation,
        note,
        trained_on(read_card(card)[0], keys) if card.is_dir() else None,
    )


def plain_opinion(target: str, said: Mapping[str, Any], notes: Sequence[str], some_unlabelled: bool) -> dict[str, Any]:
    """Return one classification as the API has it.

    Args:
        target: The label column.
        said: What `Classification.to_dict` returns.
        notes: What else its reader should know.
        some_unlabelled: Whether there are rows without this label, which have no vote.
    """
    knn, head, risk = said["knn"], said["head"], said["risk"]
    calibrated = None
    if risk["probability"] is not None:
        support = risk["support"]
        calibrated = {
            "probability": risk["probability"],
            "low": support["low"],
            "high": support["high"],
            "of": risk["positive"],
            "findings": support["findings"],
            "women": support["women"],
        }
    basis = [knn["basis"], *([risk["basis"]] if calibrated else []), *notes]
    return {
        "target": target,
        "classes": list(said["classes"]),
        "vote": {name: knn[name] for name in ("counts", "neighbours", "women", "probabilities")},
        "head": None if head["probabilities"] is None else {name: head[name] for name in ("probabilities", "basis")},
        "calibrated": calibrated,
        "some_unlabelled": some_unlabelled,
        "basis": "; ".join(basis),
    }


def opinion_sentence(said: Mapping[str, Any]) -> str:
    """Return one target's opinion in words, never a number without its support.

    >>> vote = {"counts": {"benign": 3, "malignant": 7}, "neighbours": 10, "women": 10}
    >>> opinion_sentence({"target": "pathology", "vote": vote, "calibrated": None, "some_unlabelled": False})
    'pathology: 7 of 10 malignant, from 10 women; not calibrated'
    """
    if "problem" in said:
        return f"{said['target']}: {said['problem']}"
    vote, calibrated = said["vote"], said["calibrated"]
    named = calibrated["of"] if calibrated else max(vote["counts"], key=lambda name: vote["counts"][name])
    start = f"{said['target']}: {vote['counts'].get(named, 0)} of {vote['neighbours']} {named}, "
    start += f"from {vote['women']} {'woman' if vote['women'] == 1 else 'women'}"
    if said["some_unlabelled"]:  # other rows, such as places of normal tissue, may be nearer
        start += f", the nearest whose {said['target'].replace('_', ' ')} is known"
    start += "; "
    if calibrated is None:
        return f"{start}not calibrated"
    return (
        f"{start}calibrated {calibrated['probability']:.2f}, 95 % interval "
        f"{calibrated['low']:.2f} to {calibrated['high']:.2f} (what became of {calibrated['findings']} findings of "
        f"{calibrated['women']} women with about this probability)"
    )
