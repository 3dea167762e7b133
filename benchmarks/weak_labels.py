"""Which images show a cancer, learned from whole images: tiles pooled in several ways, against the frozen whole image.

    mammoseek model pretrained --granularity breast -o frozen
    python -m benchmarks.weak_labels --data path/to/rsna-subset --model frozen --work tiles

Folds of women; every probability is of a model that was fitted and calibrated on the women of the other folds. *Whole
image* is the model's own vector of the breast with the linear head of `classifiers.heads`; all others see its tiles.
Scores are of images, and of women by the mean of their images' probabilities. How many images a woman has is no
feature: it is how this subset was drawn. *Image, not inverted* scores the images that the files do not keep inverted
alone: some machines' files are kept so, and a model that only told machines apart would fail there. Which levels of the
network are read, and how strongly the linear score is regularised, was chosen by a few trials on part of these images
in these folds: what pools tiles is somewhat optimistic.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.cross_validation import RESULTS
from benchmarks.setting import errors_told, machine_line
from classifiers.calibration import calibrate
from classifiers.evaluation import compare_runs
from classifiers.folds import patient_folds
from classifiers.heads import HeadConfig, LinearHead
from classifiers.labels import Array
from classifiers.weaklabels import (
    CLASSES,
    by_woman,
    class_names,
    is_cancer,
    load_bags,
    predict_folds,
    score_images,
    weak_rows,
)
from embedder.bags import BagFiles
from embedder.datasets import read_dataset
from embedder.embedding import Embedder
from embedder.findings import patient_key
from embedder.mammogram import read_mammogram
from embedder.multiinstance import AttentionConfig
from embedder.weakrecipe import WeakRecipe
from embedder.weakscorers import ScorerConfig, scorer_inputs
from index.metrics import Estimate

BASELINE = "whole image"
METHODS = ("mean", "max", "top", "moments", "attention")
JOINED = (("moments", BASELINE), ("moments", "attention"), ("moments", "attention", BASELINE))
"""Methods whose probabilities are averaged."""


def main() -> None:
    """Run the benchmark and write its table."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the RSNA set")
    parser.add_argument("--model", type=Path, required=True, help="the frozen model of breasts")
    parser.add_argument("--work", type=Path, required=True, help="folder that keeps features, to go on after a stop")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="of folds and of what is learned")
    parser.add_argument(
        "--members", type=int, default=AttentionConfig().members, help="networks that attention averages"
    )
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0 leaves its own choice")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "rsna-weak-labels.csv")
    arguments = parser.parse_args()
    with errors_told():
        run(arguments)


def run(arguments: argparse.Namespace) -> None:
    """Predict every image by every method in every seed's folds, and write the scores.

    Args:
        arguments: As `main` parses them.
    """
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    rows = weak_rows(read_dataset("rsna", arguments.data).frame)
    start = time.monotonic()
    bags = load_bags(rows, arguments.model, WeakRecipe().tiles, arguments.work, device="cpu")
    print(f"tiles of {len(bags.frame)} images: {time.monotonic() - start:.0f} s", flush=True)
    frame = bags.frame
    table: list[dict[str, Any]] = []
    vectors = whole_vectors(frame, arguments.model, arguments.work)
    upright = images_upright(frame, arguments.work)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    for seed in arguments.seeds:
        found: dict[str, Array] = {}
        for name, probabilities, seconds in predictions(bags, vectors, arguments, seed):
            found[name] = probabilities
            table += score_rows(frame, name, probabilities, found[BASELINE], upright, seed, seconds)
            pd.DataFrame(table).to_csv(arguments.output, index=False, float_format="%.4f")
    print(machine_line())


def predictions(
    bags: BagFiles, vectors: Array, arguments: argparse.Namespace, seed: int
) -> Iterator[tuple[str, Array, float]]:
    """Yield each method's name, probabilities of a cancer, and seconds without the tiles' features, baseline first."""
    found: dict[str, Array] = {}
    seconds: dict[str, float] = {}
    features = int(bags.features(0).shape[1])
    for method in (BASELINE, *arguments.methods):
        start = time.monotonic()
        if method == BASELINE:
            found[method] = whole_image(vectors, bags.frame, seed)
        else:
            config = ScorerConfig(method=method, seed=seed, attention=AttentionConfig(members=arguments.members))
            found[method] = predict_folds(scorer_inputs(bags, config.method), bags.frame, features, config)
        seconds[method] = time.monotonic() - start
        yield method, found[method], seconds[method]
    for names in JOINED:
        if set(names) <= found.keys():
            mean = np.mean([found[name] for name in names], axis=0)
            yield " + ".join(names), mean, sum(seconds[name] for name in names)


def whole_vectors(frame: pd.DataFrame, model: Path, work: Path) -> Array:
    """Return (rows, dimension) the model's own vectors of the breasts, kept in the folder of features."""
    embedder = Embedder.load(model, device="cpu")
    file = work / f"whole-{embedder.digest[:16]}-{len(frame)}.npy"
    if not file.exists():
        batches = list(embedder.embed_manifest(frame))
        order = pd.Index(np.concatenate([batch.records["row_id"] for batch in batches])).get_indexer(frame["row_id"])
        np.save(file, np.concatenate([batch.vectors for batch in batches])[order])
    return np.asarray(np.load(file))


def images_upright(frame: pd.DataFrame, work: Path) -> Array:
    """Return bool (rows,), True for images that their files do not keep inverted; kept in the folder of features."""
    file = work / f"upright-{len(frame)}.npy"
    if not file.exists():
        np.save(file, np.array([not read_mammogram(path).inverted for path in frame["path"]]))
    return np.asarray(np.load(file))


def whole_image(vectors: Array, frame: pd.DataFrame, seed: int) -> Array:
    """Return (rows,) probabilities of a linear head on whole-image vectors, in the same folds as the tiles.

    The head's strength is its default one: to choose it within every fold's calibration would take an hour.
    """
    keys, truth = patient_key(frame).to_numpy(dtype=object), class_names(is_cancer(frame))
    probabilities = np.empty(len(frame))
    for fold in patient_folds(keys, truth, 5, seed):
        train = vectors[fold.train], truth[fold.train], keys[fold.train]
        head = _head().fit(*train)
        raw = head.predict_proba(vectors[fold.test], keys[fold.test])
        calibration, _ = calibrate(_head, *train, seed=seed)
        calibrated = calibration.transform(raw)
        probabilities[fold.test] = calibrated[:, head.classes_.index(CLASSES[1])]
    return probabilities


def _head() -> LinearHead:
    return LinearHead(HeadConfig(strengths=(HeadConfig.default_strength,)))


def score_rows(
    frame: pd.DataFrame,
    name: str,
    probabilities: Array,
    baseline: Array,
    upright: Array,
    seed: int,
    seconds: float,
) -> list[dict[str, Any]]:
    """Return the rows of the table for one method: its scores, and the paired differences to the baseline.

    Args:
        frame: The images.
        name: The method.
        probabilities: (rows,) of a cancer.
        baseline: (rows,) the baseline's.
        upright: bool (rows,), the images that are not kept inverted.
        seed: Of the folds.
        seconds: What the method took, without the tiles' features.
    """
    keys, positive = patient_key(frame).to_numpy(dtype=object), is_cancer(frame)
    levels = {
        "image": (positive, probabilities, baseline, keys),
        "image, not inverted": (positive[upright], probabilities[upright], baseline[upright], keys[upright]),
    }
    truth, women_probabilities, women = by_woman(positive, probabilities, keys)
    levels["woman"] = (truth, women_probabilities, by_woman(positive, baseline, keys)[1], women)
    rows: list[dict[str, Any]] = []
    for level, (labels, ours, theirs, groups) in levels.items():
        for score, estimate in score_images(labels, ours, groups).items():
            rows.append(_row(name, seed, level, score, estimate, seconds))
        if name != BASELINE:
            first, second = (np.stack([1 - values, values], axis=1) for values in (ours, theirs))
            differences = compare_runs(class_names(labels), first, second, CLASSES, groups, positive=CLASSES[1])
            for score in ("auc", "brier", "calibration_error"):
                rows.append(_row(f"{name} minus {BASELINE}", seed, level, score, differences[score], seconds))
    for row in rows:
        if row["score"] == "auc":
            interval = f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
            print(f"seed {seed}  {row['run']:35s} {row['level']:20s} auc {interval}", flush=True)
    return rows


def _row(run: str, seed: int, level: str, score: str, estimate: Estimate, seconds: float) -> dict[str, Any]:
    return {
        "dataset": "rsna",
        "protocol": f"5 folds by woman, seed {seed}",
        "run": run,
        "level": level,
        "score": score,
        **{key: getattr(estimate, key) for key in ("value", "low", "high", "items", "women")},
        "seconds": seconds,
    }


if __name__ == "__main__":
    main()
