"""The final recipes against what they must beat: the table `benchmarks/results/final-recipes.csv`.

    python -m benchmarks.starter --mini-mias MINI-MIAS --work starter-work
    mammoseek benchmark retrieval benchmarks/protocols/finding-frozen.toml --data MINI-MIAS -o finding-frozen
    mammoseek benchmark retrieval benchmarks/protocols/finding-handcrafted.toml --data MINI-MIAS -o finding-handcrafted
    mammoseek benchmark retrieval benchmarks/protocols/finding-triplet.toml --data MINI-MIAS -o finding-triplet
    python -m benchmarks.final_recipes starter-work/run-finding --against finding-frozen finding-handcrafted \
        finding-triplet -o benchmarks/results/final-recipes.csv

and the same for `breast`. Every score of the first run stands beside that of each other, with the paired difference on
the same folds. Where the other was run with fewer seeds, the first is compared with these alone. Rows that the table
has of the other granularity stay.
"""

import argparse
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.setting import errors_told
from classifiers.benchmark import PREDICTIONS_FILE, PROTOCOL_FILE, SCORECARD_FILE
from classifiers.comparison import compare_folds
from classifiers.predictions import METHODS, load_predictions, read_json
from classifiers.scorecard import Scorecard, make_scorecard


def main() -> None:
    """Compare the runs and write the table."""
    with errors_told():
        run(_parse())


def run(arguments: argparse.Namespace) -> None:
    """Compare the first run with each other one.

    Args:
        arguments: As `_parse` gives them.
    """
    rows = [row for other in arguments.against for row in compared(arguments.run, other, arguments.resamples)]
    table = pd.DataFrame(rows)
    if arguments.output.exists():
        standing = pd.read_csv(arguments.output)
        table = pd.concat([standing[~standing["granularity"].isin(table["granularity"])], table], ignore_index=True)
    table.to_csv(arguments.output, index=False, float_format="%.4f")


def compared(first: Path, second: Path, resamples: int) -> list[dict[str, Any]]:
    """Return one row for each label and score that two runs have.

    Args:
        first: Folder of a run of `mammoseek benchmark retrieval`.
        second: Folder of another, with the same folds or some of them.
        resamples: Bootstrap resamples of the women.
    """
    theirs = load_predictions(second / PREDICTIONS_FILE)
    seeds = sorted({fold.seed for fold in theirs})
    ours = [fold for fold in load_predictions(first / PREDICTIONS_FILE) if fold.seed in seeds]
    contexts = [Scorecard.load(folder / SCORECARD_FILE).context for folder in (first, second)]
    told = ", ".join(map(str, seeds))
    context = {
        "protocol": f"{len(theirs) // len(seeds)} folds by woman, seed{'s' if len(seeds) > 1 else ''} {told}",
        "manifest_digest": contexts[0]["manifest_digest"],
        "model_digests": [digest for each in contexts for digest in each["model_digests"]],
    }
    differences = compare_folds(ours, theirs, context, resamples=resamples).differences
    cards = [make_scorecard(folds, context, resamples=resamples) for folds in (ours, theirs)]
    names = [str(read_json(folder / PROTOCOL_FILE)["name"]) for folder in (first, second)]
    rows = []
    for label, parts in differences.items():
        for part in ("retrieval", *METHODS):
            for score, difference in parts.get(part, {}).items():
                row: dict[str, Any] = {"granularity": ours[0].granularity, "a": names[0], "b": names[1]}
                row |= {"label": label, "part": part, "score": score}
                for side, card in zip("ab", cards, strict=True):
                    figure = getattr(card.targets[label].scores, part)[score]
                    row |= {f"{side}_value": figure.value, f"{side}_low": figure.low, f"{side}_high": figure.high}
                row |= {"difference": difference.value}
                row |= {"difference_low": difference.low, "difference_high": difference.high}
                row |= {"items": difference.items, "women": difference.women, "protocol": context["protocol"]}
                row |= {"calibrated_on": str(read_json(first / PROTOCOL_FILE).get("calibration", "gallery"))}
                rows.append({**row, "manifest": str(context["manifest_digest"])[:12]})
    return rows


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of the final recipe's run")
    parser.add_argument("--against", type=Path, nargs="+", required=True, help="folders of the other runs")
    parser.add_argument("--resamples", type=int, default=2000, help="bootstrap resamples of the women (2000)")
    parser.add_argument("-o", "--output", type=Path, required=True, help="CSV file; other granularities' rows stay")
    return parser.parse_args()


if __name__ == "__main__":
    main()
