"""Calibrated on the gallery's women, whom the embedder was trained on, or on the test women of the other folds.

    python -m benchmarks.starter --mini-mias MINI-MIAS --work starter-work
    python -m benchmarks.fold_calibration starter-work/run-finding starter-work/run-breast \
        -o benchmarks/results/fold-calibration.csv

reads the folds that runs of trained models keep (`run_benchmark` keeps them as they are calibrated on the gallery) and
calibrates them anew by `classifiers.crosscalibration`. The table has each score both ways and the paired difference
with its 95 % interval over women. Of `brier` and `calibration_error` lower is better.
"""

import argparse
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.setting import errors_told
from classifiers.benchmark import FOLDS_FOLDER, SCORECARD_FILE
from classifiers.comparison import compare_folds
from classifiers.crosscalibration import calibrate_across_folds
from classifiers.predictions import METHODS, FoldPredictions, read_json
from classifiers.scorecard import Scorecard, make_scorecard
from errors import MammoseekError

SCORES = ("accuracy", "auc", "auc_within_folds", "kappa", "brier", "calibration_error")


def main() -> None:
    """Compare the calibrations and write the table."""
    with errors_told():
        run(_parse())


def run(arguments: argparse.Namespace) -> None:
    """Compare the two calibrations of each run.

    Args:
        arguments: As `_parse` gives them.
    """
    rows = [row for folder in arguments.runs for row in compared(folder, arguments.resamples)]
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(arguments.output, index=False, float_format="%.4f")


def kept_folds(folder: Path) -> list[FoldPredictions]:
    """Return the folds that a run of trained models kept, seed by seed.

    Raises:
        MammoseekError: It kept none.
    """
    places = sorted((folder / FOLDS_FOLDER).glob("seed-*/fold-*/predictions.json"))
    if not places:
        raise MammoseekError(folder, "keeps no folds of trained models", "name a run of a protocol with model=trained")
    return [FoldPredictions.from_dict(read_json(place)["predictions"]) for place in places]


def compared(folder: Path, resamples: int) -> list[dict[str, Any]]:
    """Return one row for each label, method and score of a run.

    Args:
        folder: The run.
        resamples: Bootstrap resamples of the women.
    """
    gallery = kept_folds(folder)
    folds = calibrate_across_folds(gallery)
    context = Scorecard.load(folder / SCORECARD_FILE).context
    differences = compare_folds(folds, gallery, context, resamples=resamples).differences
    cards = {
        "on_gallery": make_scorecard(gallery, context, resamples=resamples),
        "on_folds": make_scorecard(folds, context, resamples=resamples),
    }
    rows = []
    for label, parts in differences.items():
        for method in METHODS:
            for score in SCORES:
                if score not in parts.get(method, {}):
                    continue
                difference = parts[method][score]
                row: dict[str, Any] = {"granularity": gallery[0].granularity, "label": label, "method": method}
                row["score"] = score
                for name, card in cards.items():
                    figure = getattr(card.targets[label].scores, method)[score]
                    row |= {name: figure.value, f"{name}_low": figure.low, f"{name}_high": figure.high}
                row |= {"difference": difference.value}
                row |= {"difference_low": difference.low, "difference_high": difference.high}
                row |= {"items": difference.items, "women": difference.women}
                rows.append({**row, "manifest": str(context["manifest_digest"])[:12]})
    return rows


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", help="folders of runs of `mammoseek benchmark retrieval`")
    parser.add_argument("--resamples", type=int, default=2000, help="bootstrap resamples of the women (2000)")
    parser.add_argument("-o", "--output", type=Path, required=True, help="CSV file to write")
    return parser.parse_args()


if __name__ == "__main__":
    main()
