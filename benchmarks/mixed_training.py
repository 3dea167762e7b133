"""Film and digital mixed in one training, and judged on each: what the other kind of image adds to a model, or takes.

    python -m benchmarks.mixed_training --mini-mias path/to/mini-mias --rsna path/to/rsna-subset --work folder \
        -o benchmarks/results/mixed-training.csv

Whole breasts of mini-MIAS (digitised film) and of the RSNA subset (digital). The women of each data set are split into
five folds. In every fold three models are trained, on the other folds' film, digital images, or both; each then embeds
the women of both data sets, and a data set's test women ask among its own training women. So the galleries and the
questions are the same for all models, the frozen ImageNet network included, and the differences are paired.

All trainings have the same few epochs and small input (`benchmarks.practices.BUDGET`); an epoch is each training
breast once, so that the training on both takes the most steps. Triplets and heads are of cancer, and of density, which
film alone tells. Models are kept in the work folder; called again, the benchmark goes on.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.practices import BUDGET, compared
from benchmarks.setting import describe_machine, errors_told, find_data
from classifiers.crossvalidation import CrossValidation, rows_of, split_folds
from classifiers.predictions import FoldPredictions, predict_fold
from classifiers.scorecard import make_scorecard
from embedder.datasets import read_dataset
from embedder.embedding import Embedder, pretrained_model
from embedder.manifest import manifest_digest
from embedder.recipe import Recipe
from embedder.rois import CropStore, load_crops
from embedder.training import choose_augmentation, train

KINDS = {"film": "mini-mias", "digital": "rsna"}
LABELS = {"film": ("density", "pathology"), "digital": ("pathology",)}
TRAINED_ON: dict[str, tuple[str, ...]] = {
    "nothing (ImageNet, frozen)": (),
    "film": ("film",),
    "digital": ("digital",),
    "film and digital": ("film", "digital"),
}

Answers = dict[tuple[str, str], list[FoldPredictions]]
"""By what was trained on and what was asked, the folds."""


def main() -> None:
    """Run the benchmark and write its table."""
    with errors_told():
        run(_parse())


def run(arguments: argparse.Namespace) -> None:
    """Train and judge every model of every fold.

    Args:
        arguments: As `_parse` gives them.
    """
    folders = {"film": find_data(arguments.mini_mias), "digital": arguments.rsna}
    frame = rows_of(
        pd.concat([read_dataset(name, folders[kind]).frame for kind, name in KINDS.items()], ignore_index=True),
        "breast",
    )
    recipe = Recipe.default("breast").with_settings([*BUDGET["breast"], "training.balance=weights"])
    margin = choose_augmentation(recipe.training, recipe.preparation).margin
    crops = load_crops(frame, recipe.preparation, margin=margin)
    frame = crops.frame
    asked_crops = load_crops(frame, recipe.preparation)  # as they are embedded: without the augmentation's margin
    kind_of = frame["dataset"].map({name: kind for kind, name in KINDS.items()}).to_numpy()
    fold_of = _folds(frame, kind_of, arguments.folds, arguments.seed)
    answers: Answers = {}
    digests: dict[str, list[str]] = {name: [] for name in TRAINED_ON}
    seconds = dict.fromkeys(TRAINED_ON, 0.0)
    for fold in range(arguments.folds):
        for name, kinds in TRAINED_ON.items():
            start = time.process_time()
            place = arguments.work / f"fold-{fold + 1}-{'-and-'.join(kinds) or 'frozen'}"
            learned = np.isin(kind_of, kinds) & (fold_of != fold)
            embedder = _model(frame, crops, learned, recipe, place, arguments.seed)
            seconds[name] += time.process_time() - start
            digests[name].append(embedder.digest)
            vectors = embedder.embed_store(asked_crops)
            for kind in KINDS:
                gallery, asked = ((kind_of == kind) & side for side in (fold_of != fold, fold_of == fold))
                found = predict_fold(
                    vectors[gallery], frame[gallery], vectors[asked], frame[asked], LABELS[kind], seed=arguments.seed
                )
                answers.setdefault((name, kind), []).append(found)
            print(f"fold {fold + 1}, {name}: {seconds[name]:.0f} s so far", file=sys.stderr, flush=True)
    table = _table(answers, digests, seconds, frame, recipe, arguments)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(arguments.output, index=False, float_format="%.4f")


def _folds(frame: pd.DataFrame, kind_of: Any, folds: int, seed: int) -> Any:
    """Return the fold in which each row is tested; the women of each kind of image are split by themselves."""
    fold_of = np.full(len(frame), -1)
    for kind, labels in LABELS.items():
        rows = np.flatnonzero(kind_of == kind)
        for number, fold in enumerate(split_folds(frame.iloc[rows].reset_index(drop=True), labels, folds, seed)):
            fold_of[rows[fold.test]] = number
    return fold_of


def _model(frame: pd.DataFrame, crops: CropStore, learned: Any, recipe: Recipe, place: Path, seed: int) -> Embedder:
    """Return the model that was trained on some of the rows; the pretrained one where there are none."""
    if learned.any():
        split = np.where(learned, "train", "test")
        settings = recipe.with_settings([f"training.seed={seed}"])
        train(frame.assign(split=split), place, **settings.parts(), crops=crops)
    else:
        pretrained_model(place, recipe.network, recipe.preparation)
    return Embedder.load(place)


def _table(
    answers: Answers,
    digests: dict[str, list[str]],
    seconds: dict[str, float],
    frame: pd.DataFrame,
    recipe: Recipe,
    arguments: argparse.Namespace,
) -> pd.DataFrame:
    """Return every figure with its difference to the model trained on the asked kind of image alone."""
    machine = {name: describe_machine(torch.device("cpu"))[name] for name in ("processor", "cores", "threads", "torch")}
    runs = {
        (name, kind): CrossValidation(
            folds,
            make_scorecard(
                folds,
                {
                    "protocol": f"{len(folds)} folds by woman, seed {arguments.seed}; trained on {name}, asked {kind}",
                    "manifest_digest": manifest_digest(frame),
                    "model_digests": digests[name],
                    "recipe": recipe.to_dict(),
                },
                resamples=arguments.resamples,
                seed=arguments.seed,
            ),
            seconds[name],
        )
        for (name, kind), folds in answers.items()
    }
    return pd.DataFrame(
        {
            "trained_on": name,
            "asked": kind,
            **{"against" if column == "default" else column: cell for column, cell in row.items()},
            "folds": arguments.folds,
            "seed": arguments.seed,
            "budget": " ".join(BUDGET["breast"]),
            "manifest": manifest_digest(frame)[:12],
            "seconds": round(seconds[name]),
            **machine,
        }
        for (name, kind), found in runs.items()
        for row in compared(found, runs[kind, kind], arguments.resamples, arguments.seed)
    )


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--mini-mias", type=Path, help="folder of mini-MIAS")
    parser.add_argument("--rsna", type=Path, required=True, help="folder of the RSNA subset")
    parser.add_argument("--work", type=Path, required=True, help="folder of the models; kept, and gone on with")
    parser.add_argument("--folds", type=int, default=5, help="folds of women (5)")
    parser.add_argument("--seed", type=int, default=0, help="of folds, trainings and resamples (0)")
    parser.add_argument("--resamples", type=int, default=2000, help="bootstrap resamples of the women (2000)")
    parser.add_argument("-o", "--output", type=Path, required=True, help="CSV file to write")
    return parser.parse_args()


if __name__ == "__main__":
    main()
