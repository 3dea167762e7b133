"""The table of the trainings of `benchmarks.gpu_trainings`: each trial's scores, and their differences to the recipe's.

    python -m benchmarks.gpu_trainings_table --work WORK -o benchmarks/results/gpu-trainings.csv

A trial is compared with the unchanged recipe of its kind over the seeds that both have finished, on the same folds, by
a paired bootstrap over women. The part `network` is what the network's own head says of cancer in an image of the RSNA
subset, where it was trained for nothing else; it is not calibrated, so its AUC is pooled over folds as it is.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.gpu_trainings import FOLDS, Job
from benchmarks.gpu_trials import FINAL, KINDS
from benchmarks.practices import compared
from benchmarks.setting import errors_told
from classifiers.crosscalibration import calibrate_across_folds
from classifiers.crossvalidation import CrossValidation, told_protocol
from classifiers.evaluation import compare_runs, score_classification
from classifiers.predictions import load_predictions
from classifiers.scorecard import make_scorecard

Told = dict[str, Any]
"""What a job wrote beside its predictions."""

_CANCER = "malignant"


def main() -> None:
    """Write the table of what is finished."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="the work folder of benchmarks.gpu_trainings")
    parser.add_argument("--resamples", type=int, default=2000, help="bootstrap resamples of the women (2000)")
    parser.add_argument("-o", "--output", type=Path, required=True, help="CSV file to write")
    with errors_told():
        run(parser.parse_args())


def run(arguments: argparse.Namespace) -> None:
    """Score and compare each trial that is finished.

    Args:
        arguments: As `main` parses them.
    """
    rows: list[dict[str, Any]] = []
    for kind, of_kind in KINDS.items():
        done = {trial: finished_seeds(kind, trial, arguments.work) for trial in of_kind.trials}
        for trial, seeds in done.items():
            common = [seed for seed in seeds if seed in done[FINAL]]
            if not common:
                print(f"{kind}, {trial}: not finished", file=sys.stderr)
                continue
            rows += trial_rows(kind, trial, common, arguments.work, arguments.resamples)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(arguments.output, index=False, float_format="%.4f")


def finished_seeds(kind: str, trial: str, work: Path) -> list[int]:
    """Return the seeds of which every fold is finished, upwards.

    Args:
        kind: A key of `benchmarks.gpu_trials.KINDS`.
        trial: A key of its trials.
        work: The work folder.
    """
    files = Job(kind, trial, 0, 0).place(work).glob("seed-*-fold-*.json")
    counts = Counter(int(file.stem.split("-")[1]) for file in files)
    return sorted(seed for seed, count in counts.items() if count == FOLDS)


def trial_rows(kind: str, trial: str, seeds: Sequence[int], work: Path, resamples: int) -> list[dict[str, Any]]:
    """Return the rows of the table for a trial.

    Args:
        kind: A key of `benchmarks.gpu_trials.KINDS`.
        trial: A key of its trials.
        seeds: That it and the recipe have finished.
        work: The work folder.
        resamples: Bootstrap resamples of the women.
    """
    told = {name: _told(kind, name, seeds, work) for name in (trial, FINAL)}
    runs = {name: _run(kind, name, seeds, work, told[name], resamples) for name in (trial, FINAL)}
    found = compared(runs[trial], runs[FINAL], resamples, seeds[0])
    if kind == "rsna":
        found += _head_rows(told[trial], told[FINAL], resamples)
    about = {
        "settings": " ".join(KINDS[kind].trials[trial]),
        "folds": FOLDS,
        "seeds": " ".join(map(str, seeds)),
        "seconds_of_a_fold": round(float(np.median([one["seconds"] for one in told[trial]]))),
        **{name: told[trial][0]["machine"][name] for name in ("device", "processor", "cores", "torch")},
    }
    return [{"kind": kind, "trial": trial, **row, **about} for row in found]


def _told(kind: str, trial: str, seeds: Sequence[int], work: Path) -> list[Told]:
    places = [Job(kind, trial, seed, fold).file(work).with_suffix(".about") for seed in seeds for fold in range(FOLDS)]
    return [dict(json.loads(place.read_text("utf-8"))) for place in places]


def _run(
    kind: str, trial: str, seeds: Sequence[int], work: Path, told: Sequence[Told], resamples: int
) -> CrossValidation:
    of_kind = KINDS[kind]
    jobs = [Job(kind, trial, seed, number) for seed in seeds for number in range(FOLDS)]
    folds = [fold for job in jobs for fold in load_predictions(job.file(work))]
    if of_kind.calibration == "folds":
        folds = calibrate_across_folds(folds)
    context = {
        "protocol": told_protocol(FOLDS, seeds, of_kind.views, of_kind.calibration, frozen=False, fold_column=None),
        "manifest_digest": told[0]["manifest"],
        "model_digests": [one["model"] for one in told],
        "recipe": of_kind.recipe_of(trial).to_dict(),
    }
    seconds = sum(float(one["seconds"]) for one in told)
    return CrossValidation(folds, make_scorecard(folds, context, resamples=resamples, seed=seeds[0]), seconds)


def _head_rows(ours: Sequence[Told], theirs: Sequence[Told], resamples: int) -> list[dict[str, Any]]:
    """Return the rows of what the networks' own heads say of cancer; of several seeds, of the first."""
    first = [one for one in ours if one["seed"] == ours[0]["seed"]]
    other = [one for one in theirs if one["seed"] == first[0]["seed"]]
    a, b = (np.concatenate([_probabilities(one) for one in side]) for side in (first, other))
    truth, women = (np.concatenate([one[name] for one in first]).astype(object) for name in ("truth", "women"))
    classes = ("other", _CANCER)
    labels = np.where(truth == _CANCER, _CANCER, "other").astype(object)
    score = score_classification(labels, a, classes, women, positive=_CANCER, resamples=resamples)["auc"]
    base = score_classification(labels, b, classes, women, positive=_CANCER, resamples=resamples)["auc"]
    apart = compare_runs(labels, a, b, classes, women, positive=_CANCER, resamples=resamples)["auc"]
    row = {"label": "pathology", "part": "network", "score": "auc", "default": base.value, "difference": apart.value}
    row |= {name: getattr(score, name) for name in ("value", "low", "high", "items", "women")}
    return [{**row, "difference_low": apart.low, "difference_high": apart.high}]


def _probabilities(told: Told) -> Any:
    """Return (rows, 2): of anything else, and of cancer."""
    logits = np.asarray(told["heads"]["pathology"], np.float64)
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    cancer = (shares / shares.sum(axis=1, keepdims=True))[:, told["classes"]["pathology"].index(_CANCER)]
    return np.stack([1 - cancer, cancer], axis=1)


if __name__ == "__main__":
    main()
