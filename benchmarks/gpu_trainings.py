"""Trainings that only a GPU makes possible, by cross-validation over women: larger inputs, backbones, more epochs.

    python -m benchmarks.gpu_trainings --mini-mias MINI-MIAS --rsna RSNA --work WORK --device cuda --processes 4
    python -m benchmarks.gpu_trainings_table --work WORK -o benchmarks/results/gpu-trainings.csv

Each trial of `benchmarks.gpu_trials` changes the final recipe of its kind, or for the RSNA subset the recipe
`rsna-breast.toml`. A fold of a seed is one training, and several trainings share the GPU, each in a process of its own.
As everywhere a fold's test women ask among its training women, and nothing of them reaches its model: their rows are
not read by the training, and votes, heads and standardisations know the training women only. The last epoch stands.

The crops of a size are cut once for all trainings, with the margin that the augmentation needs; what is embedded is
their middle, in 16 bits: the crop without it, but for how its pixels were resampled. What each fold predicts lies in
the work folder, and is not computed again; models are not kept. Processes that share a GPU take turns on it: a few use
what one leaves idle, many wait for each other, and `seconds` of a fold say what it took beside the others, not what it
takes alone: see `benchmarks.epoch_time`.
"""

import argparse
import json
import multiprocessing
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from benchmarks.gpu_trials import KINDS
from benchmarks.setting import describe_machine, errors_told
from classifiers.crossvalidation import fused, rows_of, split_folds
from classifiers.folds import check_no_leak
from classifiers.predictions import save_predictions
from classifiers.scorecard import predict_fold
from classifiers.targets import choose_targets
from embedder.crops import crop_shape
from embedder.datasets import read_dataset
from embedder.embedding import Embedder
from embedder.findings import patient_key
from embedder.manifest import manifest_digest
from embedder.preparation import PreparationConfig
from embedder.recipe import Recipe
from embedder.rois import CropStore, load_crops
from embedder.training import choose_augmentation, train
from errors import MammoseekError

FOLDS = 5
_EMBEDDED = 64  # crops in one forward pass


@dataclass(frozen=True)
class Job:
    """One fold of one seed of one trial.

    Attributes:
        kind: A key of `benchmarks.gpu_trials.KINDS`.
        trial: A key of its trials.
        seed: Of folds and training.
        fold: From 0.
    """

    kind: str
    trial: str
    seed: int
    fold: int

    @property
    def recipe(self) -> Recipe:
        """The recipe with the job's seed."""
        recipe = KINDS[self.kind].recipe_of(self.trial)
        return replace(recipe, training=replace(recipe.training, seed=recipe.training.seed + self.seed))

    def place(self, work: Path) -> Path:
        """Return the folder of what it predicts."""
        return work / "predictions" / self.kind / self.trial.replace(" ", "-").replace(",", "")

    def file(self, work: Path) -> Path:
        """Return the file of what it predicts, there when it is finished."""
        return self.place(work) / f"seed-{self.seed}-fold-{self.fold}.json"


def main() -> None:
    """Run all trainings that are missing."""
    with errors_told():
        run(_parse())


def run(arguments: argparse.Namespace) -> None:
    """Cut the crops and train, as many trainings at a time as there are processes.

    Args:
        arguments: As `_parse` gives them.

    Raises:
        MammoseekError: A folder is not named, or holds no data.
    """
    begun = time.monotonic()
    folders = {"mini-mias": arguments.mini_mias, "rsna": arguments.rsna}
    for kind in arguments.kinds:
        if folders[KINDS[kind].dataset] is None:
            raise MammoseekError(kind, "has no data", f"name the folder of {KINDS[kind].dataset}")
    missing = [job for job in jobs(arguments) if not job.file(arguments.work).exists()]
    preparations = {(job.kind, job.recipe.preparation): job.recipe for job in missing}
    context = multiprocessing.get_context("spawn")  # a GPU's state does not survive a fork
    running: dict[Future[Any], Any] = {}
    cut: dict[tuple[str, PreparationConfig], Path] = {}
    with ProcessPoolExecutor(arguments.processes, context, initializer=compute_alone) as pool:
        for (kind, preparation), recipe in preparations.items():
            task = pool.submit(cut_crops, kind, folders[KINDS[kind].dataset], recipe, arguments.work, arguments.readers)
            running[task] = kind, preparation
        while running or missing:
            late = time.monotonic() - begun > arguments.seconds
            ready = [] if late else [job for job in missing if (job.kind, job.recipe.preparation) in cut]
            for job in ready[: max(0, arguments.processes - len(running))]:
                missing.remove(job)
                crops = cut[job.kind, job.recipe.preparation]
                running[pool.submit(run_job, job, crops, arguments.work, arguments.device)] = job
            if not running:
                break
            for task in wait(running, return_when=FIRST_COMPLETED).done:
                asked = running.pop(task)
                if isinstance(asked, Job):
                    told = f"{asked.kind}, {asked.trial}, seed {asked.seed}, fold {asked.fold}: {task.result():.0f} s"
                else:
                    cut[asked] = task.result()
                    told = f"crops of {asked[0]}, {asked[1].height} x {asked[1].width}"
                print(f"{time.monotonic() - begun:6.0f} s  {told}", file=sys.stderr, flush=True)


def compute_alone() -> None:
    """Let a process compute on one thread: there is one process a processor."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def jobs(arguments: argparse.Namespace) -> Iterator[Job]:
    """Yield all jobs that are asked for: the first seed's longest first, then of each further seed the shortest."""
    for number, seed in enumerate(arguments.seeds):
        for kind in arguments.kinds[:: -1 if number else 1]:
            for trial in list(KINDS[kind].trials)[:: -1 if number else 1]:
                if arguments.trials is None or trial in arguments.trials:
                    yield from (Job(kind, trial, seed, fold) for fold in range(FOLDS))


def cut_crops(kind: str, data: Path, recipe: Recipe, work: Path, readers: int) -> Path:
    """Cut the crops of a size, unless they are there; return their folder.

    Args:
        kind: A key of `benchmarks.gpu_trials.KINDS`.
        data: Folder of its data set.
        recipe: Says what they look like.
        work: The work folder.
        readers: Threads that read images.
    """
    preparation = recipe.preparation
    folder = work / "crops" / f"{kind}-{preparation.height}x{preparation.width}-{preparation.digest[:8]}"
    if folder.exists():
        return folder
    frame = rows_of(read_dataset(KINDS[kind].dataset, data).frame, preparation.granularity)
    margin = choose_augmentation(recipe.training, preparation).margin
    crops = load_crops(frame, preparation, margin=margin, workers=readers)
    folder.parent.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(dir=folder.parent))
    for name in ("pixels", "extent_mm", "descriptors"):
        np.save(making / f"{name}.npy", getattr(crops, name))
    crops.frame.to_parquet(making / "frame.parquet")
    making.rename(folder)
    return folder


def read_crops(folder: Path) -> CropStore:
    """Read what `cut_crops` wrote; the pixels stay in their file, which all processes share."""
    parts = {name: np.load(folder / f"{name}.npy") for name in ("extent_mm", "descriptors")}
    pixels = np.asarray(np.load(folder / "pixels.npy", mmap_mode="r"))
    return CropStore(pixels, **parts, frame=pd.read_parquet(folder / "frame.parquet"), failures=[])


def run_job(job: Job, folder: Path, work: Path, device: str) -> float:
    """Train, predict the fold's women, and write what is predicted; return the seconds it took.

    Args:
        job: What to do.
        folder: Its crops.
        work: The work folder.
        device: Where to compute.
    """
    begun = time.monotonic()
    recipe, crops, kind = job.recipe, read_crops(folder), KINDS[job.kind]
    frame = crops.frame
    targets = choose_targets(frame, None, recipe.preparation.granularity)
    fold = split_folds(frame, targets, FOLDS, job.seed)[job.fold]
    keys = patient_key(frame).to_numpy(dtype=object)
    check_no_leak(keys, fold.train, fold.test)
    split = np.full(len(frame), "train", dtype=object)
    split[fold.test] = "test"
    model = Path(tempfile.mkdtemp(prefix="model-", dir=work))
    try:
        result = train(frame.assign(split=split), model, **recipe.parts(), device=device, crops=crops)
        trained = time.monotonic() - begun
        embedder = Embedder.load(model, device=device, batch_size=_EMBEDDED)
        vectors, heads = embedded(embedder, middles(crops, recipe.preparation))
    finally:
        shutil.rmtree(model, ignore_errors=True)
    parts = []
    for group in dict.fromkeys(kind.views.get(name) for name in targets):
        asked = fused(vectors, frame, group)
        names = [name for name in targets if kind.views.get(name) == group]
        gallery, queries = frame.iloc[fold.train], frame.iloc[fold.test]
        parts.append(predict_fold(asked[fold.train], gallery, asked[fold.test], queries, names, seed=job.seed))
    found = {name: part.targets[name] for part in parts for name in part.targets}
    seconds = time.monotonic() - begun
    about = {
        "kind": job.kind,
        "trial": job.trial,
        "settings": list(kind.trials[job.trial]),
        "seed": job.seed,
        "fold": job.fold,
        "model": result.digest,
        "seconds": round(seconds, 1),
        "training_seconds": round(trained, 1),
        "machine": describe_machine(embedder.device),
        "rows": frame["row_id"].iloc[fold.test].tolist(),
        "women": keys[fold.test].tolist(),
        "truth": frame["pathology"].iloc[fold.test].astype("object").fillna("unknown").tolist(),
        "manifest": manifest_digest(frame),
        "heads": {name: logits[fold.test].tolist() for name, logits in heads.items()},
        "classes": {name: list(classes) for name, classes in embedder.network.classes.items()},
    }
    place = job.file(work)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.with_suffix(".about").write_text(json.dumps(about), encoding="utf-8")
    save_predictions(place, [replace(parts[0], targets={name: found[name] for name in targets})])
    return seconds


def middles(crops: CropStore, preparation: PreparationConfig) -> CropStore:
    """Return crops without their margin."""
    height, width = crop_shape(preparation)
    top, left = (crops.pixels.shape[1] - height) // 2, (crops.pixels.shape[2] - width) // 2
    return replace(crops, pixels=crops.pixels[:, top : top + height, left : left + width])


@torch.inference_mode()
def embedded(embedder: Embedder, crops: CropStore) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
    """Return (rows, dimension) vectors, and each head's (rows, classes) logits, mean over the views of test time."""
    vectors = embedder.embed_store(crops)
    logits: dict[str, list[Any]] = {}
    for start in range(0, len(vectors), _EMBEDDED):
        part = slice(start, start + _EMBEDDED)
        images = torch.from_numpy(np.ascontiguousarray(crops.pixels[part], np.float32))[:, None]
        given = (torch.from_numpy(values[part]) for values in (crops.extent_mm, crops.descriptors))
        extents, described = (values.to(embedder.device) for values in given)
        output = embedder.network(images.to(embedder.device), extents, described)
        for name, values in output.logits.items():
            logits.setdefault(name, []).append(values.float().cpu().numpy())
    return vectors, {name: np.concatenate(parts) for name, parts in logits.items()}


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--mini-mias", type=Path, help="folder of mini-MIAS")
    parser.add_argument("--rsna", type=Path, help="folder of the RSNA subset")
    parser.add_argument("--work", type=Path, required=True, help="folder of crops and predictions; gone on with")
    parser.add_argument("--kinds", nargs="+", choices=tuple(KINDS), default=list(KINDS), help="which (all)")
    parser.add_argument("--trials", nargs="+", help="which, by name (all)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="of folds and trainings (0 1 2)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--processes", type=int, default=1, help="trainings at a time (1)")
    parser.add_argument("--readers", type=int, default=4, help="threads that cut crops of a size (4)")
    parser.add_argument("--seconds", type=float, default=1e9, help="no training begins later than so (no limit)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
