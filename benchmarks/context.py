"""What more than one picture tells: both breasts together, the other breast beside a finding, the context of a case.

    python -m benchmarks.context --data path/to/mini-mias --work frozen -o benchmarks/results/views-and-context.csv

The frozen ImageNet network sees mini-MIAS, findings plain and with hand-crafted descriptors, breasts with these, which
each fold's training women standardise. Women are split into five folds, three times; test women ask among the training
women, and votes, heads, calibrations, stacks and what they know of missing context are fitted on these alone. Every
figure is of all predictions of the three splits together, with 95 % intervals over women; a difference is the paired
one to the question's own baseline, marked in the table. Of `brier` and `calibration_error` lower is better.
`auc_within_folds` compares predictions of one fold only: a probability near the base rate is the lower the more of a
class is tested in its fold, because the less of it was learned from, and pooled folds hold that against it.

Density is asked of one breast, and of both of a woman, who have one density: every image then has its woman's
prediction. Pathology is asked of findings and of whole breasts (a cancer against everything else). A reader's own word
for the kind of lesion stands in rows of its own: it is not known before a reader has looked. The stack's
weights are pulled to the mean of its scores since a pull to 0 had done worse with context on these same folds: its rows
are somewhat optimistic.

Vectors put the women that an embedder was trained on where their labels want them. What a risk loses that is fitted on
such women, and keeps that is fitted on others, is measured by an embedding layer trained on half of each gallery.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.contextquestions import (
    Images,
    Predicted,
    Question,
    ask_density,
    ask_pathology,
    ask_trained,
    see,
    two_classes,
)
from benchmarks.setting import describe_machine, errors_told, find_data
from classifiers.evaluation import compare_retrieval, compare_runs, score_classification, score_retrieval
from classifiers.folds import patient_folds
from classifiers.labels import encode_labels
from embedder.datasets import read_dataset
from embedder.findings import patient_key

SCORES = ("accuracy", "auc", "auc_within_folds", "kappa", "brier", "calibration_error", "precision@10")

PARTS: tuple[tuple[str, str, float, str, Question, str], ...] = (
    ("finding", "plain", 0.0, "pathology", ask_pathology, "linear head"),
    ("finding", "with descriptors", 0.3, "pathology", ask_pathology, "linear head"),
    ("finding", "layer trained on half of the gallery", 0.0, "pathology", ask_trained, "risk of all women"),
    ("breast", "with descriptors", 0.6, "density", ask_density, "one breast"),
    ("breast", "with descriptors", 0.6, "pathology", ask_pathology, "linear head"),
)
"""Granularity, what the vectors are, share of a similarity that the descriptors have, label, question, and how the name
of the variant ends that the others are compared with."""


def main() -> None:
    """Run the benchmark and write its table."""
    with errors_told():
        run(_parse())


def run(arguments: argparse.Namespace) -> None:
    """Measure every question, plain and with descriptors; the table is written anew after each.

    Args:
        arguments: As `_parse` gives them.
    """
    start = time.monotonic()
    frame = read_dataset("mini-mias", find_data(arguments.data)).frame
    table: list[dict[str, Any]] = []
    seen: dict[str, Images] = {}
    machine = {name: describe_machine(torch.device("cpu"))[name] for name in ("processor", "threads")}
    for granularity, vectors, weight, label, question, baseline in PARTS:
        if granularity not in seen:
            seen[granularity] = see(frame, granularity, arguments.work)
        rows = measure(seen[granularity], label, question, baseline, weight, arguments)
        seconds = round(time.monotonic() - start)
        print(f"{granularity}: {label}, {vectors}, {seconds} s", file=sys.stderr, flush=True)
        asked = {"granularity": granularity, "label": label, "vectors": vectors}
        said = {"folds": arguments.folds, "seeds": " ".join(map(str, arguments.seeds)), **machine}
        table += [{**asked, **row, **said} for row in rows]
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(table).to_csv(arguments.output, index=False, float_format="%.4f")


def measure(
    images: Images, label: str, question: Question, baseline: str, weight: float, arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    """Return one row of the table for each variant and score.

    Args:
        images: What is asked.
        label: The label column.
        question: What asks the variants in one fold.
        baseline: How the variant's name ends that the others of its method are compared with.
        weight: Share of a similarity that the descriptors have.
        arguments: As `_parse` gives them.
    """
    frame = images.frame
    labels, keys = frame[label].to_numpy(dtype=object), patient_key(frame).to_numpy(dtype=object)
    if label == "pathology":
        labels = two_classes(labels)
    answers: dict[str, list[Predicted]] = {}
    for seed in arguments.seeds:
        for fold in patient_folds(keys, frame[label].to_numpy(dtype=object), arguments.folds, seed):
            asked = question(images.vectors(fold.train, weight), frame, label, fold, seed)
            for name, answer in asked.items():
                answers.setdefault(name, []).append(answer)
    classes = encode_labels(labels)[0]
    options: dict[str, Any] = {"resamples": arguments.resamples, "seed": 0}
    kinds = {"positive": "malignant"} if label == "pathology" else {"ordered": ("fatty", "glandular", "dense")}
    found = next(iter(answers.values()))
    rows = np.concatenate([each.rows for each in found])
    values = {name: np.concatenate([each.probabilities for each in given]) for name, given in answers.items()}
    blocks = np.repeat(np.arange(len(found)), [len(each.rows) for each in found])
    table = []
    for name, given in answers.items():
        start = name.partition(": ")[0] + ": " + baseline if ": " in name else baseline
        common = {**kinds, **options, "folds": blocks if label == "pathology" else None}
        ours = score_classification(labels[rows], values[name], classes, keys[rows], **common)
        gain = compare_runs(labels[rows], values[name], values[start], classes, keys[rows], **common)
        if given[0].retrieval is not None:
            retrieved, before = (_retrieved(answers[each]) for each in (name, start))
            ours |= score_retrieval(retrieved, keys[rows], **options)
            gain |= compare_retrieval(retrieved, before, keys[rows], **options)
        for score in SCORES:
            if score in ours:
                row: dict[str, Any] = {"variant": name, "baseline": name == start, "score": score}
                row |= {end: getattr(ours[score], end) for end in ("value", "low", "high")}
                ends = {"": "value", "_low": "low", "_high": "high"}
                row |= {f"difference{end}": getattr(gain[score], field) for end, field in ends.items()}
                table.append({**row, "predictions": len(rows), "items": len(set(rows)), "women": ours[score].women})
    return table


def _retrieved(found: list[Predicted]) -> pd.DataFrame:
    return pd.concat([each.retrieval for each in found if each.retrieval is not None], ignore_index=True)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of mini-MIAS")
    parser.add_argument("--work", type=Path, required=True, help="folder for the frozen models")
    parser.add_argument("--folds", type=int, default=5, help="folds of women (5)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="splits of the women (0 1 2)")
    parser.add_argument("--resamples", type=int, default=2000, help="bootstrap resamples of the women (2000)")
    parser.add_argument("-o", "--output", type=Path, required=True, help="CSV file to write")
    return parser.parse_args()


if __name__ == "__main__":
    main()
