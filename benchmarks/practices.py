"""What the literature advises, measured on mini-MIAS against our default recipe.

    python -m benchmarks.practices --data path/to/mini-mias -o benchmarks/results/practices-frozen.csv
    python -m benchmarks.practices --trained --data path/to/mini-mias -o benchmarks/results/practices-trained.csv

The first takes what needs no training, with the frozen ImageNet network; the second trains a fresh model in every fold
of every run, all of them, the default too, within one small budget (`BUDGET`): it tells what learns well in little
time, not what would be ahead after hours.

Each practice changes one thing of the default recipe (`PRACTICES`). Women are split into five folds, with the same
folds for all; the test women ask among the training women, and votes, heads, calibrations and the standardisation of
descriptors know the training women only. The table has, for each practice, label and score, the figure, the default's,
and their paired difference with its 95 % interval over women; and the seconds of processor time that the run took. Of
`brier` and `calibration_error` lower is better. A practice that the table has already, with the same settings, folds
and rows, is not run again: a run that was stopped goes on.

A hundred differences are looked at here: some of them exclude 0 by chance. What is taken from this table into a recipe
is measured again, in other folds.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from benchmarks.setting import describe_machine, errors_told, find_data
from classifiers.comparison import compare_folds
from classifiers.crossvalidation import CrossValidation, cross_validate, rows_of
from embedder.datasets import read_dataset
from embedder.findings import GRANULARITIES
from embedder.manifest import manifest_digest
from embedder.preparation import DESCRIPTOR_GROUPS
from embedder.recipe import Recipe

SCORES = {
    "retrieval": ("precision@10", "map@r"),
    "knn": ("accuracy", "auc", "kappa", "calibration_error"),
    "head": ("accuracy", "auc", "kappa", "calibration_error"),
}
"""What the table holds of each run; a score that a label does not have is left out."""


def descriptor_settings(groups: tuple[str, ...], weight: float) -> tuple[str, ...]:
    """Return the settings of a recipe with these descriptors, which have this share of a similarity."""
    named = ", ".join(f'"{group}"' for group in groups)
    return (f"preparation.descriptors=[{named}]", f"network.fusion_weight={weight}")


PRACTICES: dict[str, dict[str, tuple[str, ...]]] = {
    "finding": {
        "CLAHE, clip limit 2": ("preparation.clahe=2",),
        "CLAHE, clip limit 4": ("preparation.clahe=4",),
        "median 3": ("preparation.median=3",),
        "unsharp 1": ("preparation.unsharp=1",),
        "pectoral muscle blanked": ("preparation.remove_pectoral=true",),
        "nothing blanked outside the breast": ("preparation.breast_only=false",),
        "contrast not normalised": ("preparation.normalise=false",),
        "chest wall where it is": ("preparation.chest_wall_left=false",),
        "context 1": ("preparation.context=1",),
        "context 2.5": ("preparation.context=2.5",),
        "fixed scale, 40 mm": ("preparation.context=1", "preparation.floor_mm=40"),
        "input 96": ("preparation.height=96", "preparation.width=96"),
        "input 224": ("preparation.height=224", "preparation.width=224"),
        "input 320": ("preparation.height=320", "preparation.width=320"),
        "eight symmetries averaged": ("network.test_time=symmetries",),
        **{
            f"descriptors {group}, weight 0.3": descriptor_settings((group,), 0.3)
            for group in DESCRIPTOR_GROUPS["finding"]
        },
        "all descriptors, weight 0.3": descriptor_settings(DESCRIPTOR_GROUPS["finding"], 0.3),
        "all descriptors, weight 0.6": descriptor_settings(DESCRIPTOR_GROUPS["finding"], 0.6),
        "all descriptors, weight 0.99": descriptor_settings(DESCRIPTOR_GROUPS["finding"], 0.99),
    },
    "breast": {
        "CLAHE, clip limit 2": ("preparation.clahe=2",),
        "median 3": ("preparation.median=3",),
        "unsharp 1": ("preparation.unsharp=1",),
        "pectoral muscle blanked": ("preparation.remove_pectoral=true",),
        "nothing blanked outside the breast": ("preparation.breast_only=false",),
        "contrast not normalised": ("preparation.normalise=false",),
        "input 144 x 96": ("preparation.height=144", "preparation.width=96"),
        "input 288 x 192": ("preparation.height=288", "preparation.width=192"),
        "input 448 x 320": ("preparation.height=448", "preparation.width=320"),
        "upside down averaged": ("network.test_time=flip",),
        **{
            f"descriptors {group}, weight 0.5": descriptor_settings((group,), 0.5)
            for group in DESCRIPTOR_GROUPS["breast"]
        },
        "all descriptors, weight 0.3": descriptor_settings(DESCRIPTOR_GROUPS["breast"], 0.3),
        "all descriptors, weight 0.6": descriptor_settings(DESCRIPTOR_GROUPS["breast"], 0.6),
        "all descriptors, weight 0.99": descriptor_settings(DESCRIPTOR_GROUPS["breast"], 0.99),
        "all descriptors, weight 0.6, input 288 x 192": (
            *descriptor_settings(DESCRIPTOR_GROUPS["breast"], 0.6), "preparation.height=288", "preparation.width=192"
        ),
    },
}  # fmt: skip
"""Settings by granularity and practice, of those that need no training."""

BUDGET: dict[str, tuple[str, ...]] = {
    "finding": (
        "training.epochs=8", "training.validation_share=0", "preparation.height=112", "preparation.width=112"
    ),
    "breast": (
        "training.epochs=4", "training.validation_share=0", "preparation.height=144", "preparation.width=96"
    ),
}  # fmt: skip
"""What every training of a comparison may cost, by granularity; the last epoch stands."""

TRAININGS: dict[str, dict[str, tuple[str, ...]]] = {
    "finding": {
        "all descriptors beside the learned vector, weight 0.3": descriptor_settings(DESCRIPTOR_GROUPS["finding"], 0.3),
        "all descriptors into the embedding layer": (
            *descriptor_settings(DESCRIPTOR_GROUPS["finding"], 0.3), "network.fusion=embedding"
        ),
        "random start": ("network.weights=none",),
        "frozen backbone, trained embedding": ("training.trainable=head",),
        "layer-wise opening": ("training.trainable=layers",),
        "cross-entropy alone": ("training.objective.metric_weight=0",),
        "triplet alone": ("training.objective.classification_weight=0",),
        "supervised contrastive": ("training.objective.metric=contrastive",),
        "multi-similarity": ("training.objective.metric=multi-similarity",),
        "proxy-anchor": ("training.objective.metric=proxy-anchor",),
        "arcface": ("training.objective.metric=arcface",),
        "triplet, batch-hard": ("training.objective.miner=batch-hard",),
        "triplet, all": ("training.objective.miner=all",),
        "focal loss, 2": ("training.objective.focal=2",),
        "classes as they come": ("training.balance=none",),
        "class weights": ("training.balance=weights",),
        "under-sampling": ("training.balance=under",),
        "batch norm re-estimated": ("training.backbone_norm=batch",),
        "dropout 0.5": ("network.dropout=0.5",),
        "no batch norm of the embedding": ("network.batch_norm=false",),
        "one task: lesion type": ('labels=["native_lesion_type"]', 'metric_labels=["native_lesion_type"]'),
        "one task: pathology": ('labels=["pathology"]', 'metric_labels=["pathology"]'),
        "no augmentation": (
            "training.augmentation.vertical_flip=false", "training.augmentation.horizontal_flip=false",
            "training.augmentation.right_angles=false", "training.augmentation.degrees=0",
            "training.augmentation.scale=0", "training.augmentation.shift=0", "training.augmentation.contrast=0",
            "training.augmentation.brightness=0",
        ),
        "flips and quarter turns alone": (
            "training.augmentation.degrees=0", "training.augmentation.scale=0", "training.augmentation.shift=0",
            "training.augmentation.contrast=0", "training.augmentation.brightness=0",
        ),
        "elastic bending": ("training.augmentation.elastic=0.1",),
        "mixup 0.2": ("training.augmentation.mixing=0.2",),
        "eight symmetries averaged": ("network.test_time=symmetries",),
        "twice the epochs": ("training.epochs=16",),
        "three times the epochs": ("training.epochs=24",),
        "ensemble of three, by folds": ("training.members=3",),
        "ensemble of three, by seeds": ("training.members=3", "training.members_by=seeds"),
    },
    "breast": {
        "all descriptors beside the learned vector, weight 0.5": descriptor_settings(DESCRIPTOR_GROUPS["breast"], 0.5),
        "all descriptors into the embedding layer": (
            *descriptor_settings(DESCRIPTOR_GROUPS["breast"], 0.5), "network.fusion=embedding"
        ),
        "frozen backbone, trained embedding": ("training.trainable=head",),
        "cross-entropy alone": ("training.objective.metric_weight=0",),
        "one task: density": ('labels=["density"]', 'metric_labels=["density"]'),
        "proxy-anchor": ("training.objective.metric=proxy-anchor",),
    },
}  # fmt: skip
"""Settings by granularity and practice, of those that need a training."""


def main() -> None:
    """Run the benchmark and write its table."""
    with errors_told():
        run(_parse())


def run(arguments: argparse.Namespace) -> None:
    """Cross-validate each practice; the table is written anew after each.

    Args:
        arguments: As `_parse` gives them.
    """
    frame = read_dataset("mini-mias", find_data(arguments.data)).frame
    machine = {name: describe_machine(torch.device("cpu"))[name] for name in ("processor", "cores", "threads", "torch")}
    table = _standing(arguments.output)
    for granularity in arguments.granularity:
        base = Recipe.default(granularity)
        if arguments.trained:
            base = base.with_settings(BUDGET[granularity])
        practices = (TRAININGS if arguments.trained else PRACTICES)[granularity]
        run_of = {
            "granularity": granularity,
            "budget": " ".join(BUDGET[granularity]) if arguments.trained else "not trained",
            "folds": arguments.folds,
            "seed": arguments.seed,
            "manifest": manifest_digest(rows_of(frame, granularity))[:12],
        }
        missing = {
            practice: settings
            for practice, settings in practices.items()
            if not _measured(table, {**run_of, "practice": practice, "settings": " ".join(settings)})
        }
        if not missing:
            continue
        default, seconds = _timed(frame, base, arguments)
        print(f"{granularity}: default {seconds:.0f} s", file=sys.stderr, flush=True)
        for practice, settings in missing.items():
            changed, seconds = _timed(frame, base.with_settings(settings), arguments)
            print(f"{granularity}: {practice} {seconds:.0f} s", file=sys.stderr, flush=True)
            rows = compared(changed, default, arguments.resamples, arguments.seed)
            table += [
                {
                    "granularity": granularity,
                    "practice": practice,
                    **row,
                    "settings": " ".join(settings),
                    **run_of,
                    "seconds": round(seconds),
                    **machine,
                }
                for row in rows
            ]
            arguments.output.parent.mkdir(parents=True, exist_ok=True)
            pd.DataFrame(table).to_csv(arguments.output, index=False, float_format="%.4f")


def _standing(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a table that was begun."""
    if not path.exists():
        return []
    rows = pd.read_csv(path).fillna({"settings": ""})
    return [{str(name): cell for name, cell in row.items()} for row in rows.to_dict("records")]


def _measured(table: list[dict[str, Any]], wanted: dict[str, Any]) -> bool:
    return any(all(row[name] == value for name, value in wanted.items()) for row in table)


def _timed(frame: pd.DataFrame, recipe: Recipe, arguments: argparse.Namespace) -> tuple[CrossValidation, float]:
    start = time.process_time()
    found = cross_validate(
        frame,
        recipe,
        folds=arguments.folds,
        frozen=not arguments.trained,
        resamples=arguments.resamples,
        seed=arguments.seed,
    )
    return found, time.process_time() - start


def compared(changed: CrossValidation, default: CrossValidation, resamples: int, seed: int) -> list[dict[str, Any]]:
    """Return one row of the table for each label and score that both runs have.

    Args:
        changed: The run with the practice.
        default: The run without.
        resamples: Bootstrap resamples of the women.
        seed: Of the resampling.
    """
    context = {
        **changed.scorecard.context,
        "model_digests": [*changed.scorecard.context["model_digests"], *default.scorecard.context["model_digests"]],
    }
    comparison = compare_folds(changed.folds, default.folds, context, resamples=resamples, seed=seed)
    rows = []
    for label, parts in comparison.differences.items():
        for part, scores in parts.items():
            ours, theirs = (getattr(run.scorecard.targets[label].scores, part) for run in (changed, default))
            for score in SCORES[part]:
                if score in scores:
                    figure, difference = ours[score], scores[score]
                    row: dict[str, Any] = {"label": label, "part": part, "score": score}
                    row |= {name: getattr(figure, name) for name in ("value", "low", "high")}
                    row |= {"default": theirs[score].value, "difference": difference.value}
                    row |= {"difference_low": difference.low, "difference_high": difference.high}
                    rows.append({**row, "items": difference.items, "women": difference.women})
    return rows


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of mini-MIAS")
    parser.add_argument("--trained", action="store_true", help="the practices that need a training")
    parser.add_argument("--granularity", nargs="+", choices=GRANULARITIES, default=list(GRANULARITIES))
    parser.add_argument("--folds", type=int, default=5, help="folds of women (5)")
    parser.add_argument("--seed", type=int, default=0, help="of folds and resamples (0)")
    parser.add_argument("--resamples", type=int, default=2000, help="bootstrap resamples of the women (2000)")
    parser.add_argument("-o", "--output", type=Path, required=True, help="CSV file to write")
    return parser.parse_args()


if __name__ == "__main__":
    main()
