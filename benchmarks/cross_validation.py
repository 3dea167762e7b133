"""Cross-validation by woman on mini-MIAS: the fine-tuned embedder against the frozen ImageNet backbone, same folds.

    python -m benchmarks.cross_validation --data path/to/mini-mias

In each fold the queries are the test women's and the gallery is the training women's, both embedded by that fold's
model. The recipe is the default one, but no training woman is held out for validation and the last epoch stands: the
schedule ends by itself, and nothing is chosen. Writes a scorecard for each run, their paired comparison, and one table
of all figures (`mini-mias.csv`) to benchmarks/results. mini-MIAS is for research only; the figures hold no image.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from benchmarks.setting import errors_told, find_data, machine_line
from classifiers.comparison import Comparison, compare_folds
from classifiers.crossvalidation import CrossValidation, cross_validate
from classifiers.scorecard import Scorecard
from embedder.datasets import read_dataset
from embedder.findings import GRANULARITIES
from embedder.recipe import Recipe
from index.metrics import Estimate

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Run the benchmark and write its tables."""
    with errors_told():
        run(_parse())


def run(arguments: argparse.Namespace) -> None:
    """Cross-validate both runs of each granularity and write what they give.

    Args:
        arguments: As `_parse` gives them.
    """
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    frame = read_dataset("mini-mias", find_data(arguments.data)).frame
    arguments.output.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for granularity in arguments.granularity:
        recipe = Recipe.default(granularity).with_settings(["training.validation_share=0", *arguments.settings])
        runs: dict[str, CrossValidation] = {}
        for name, frozen in (("frozen", True), ("fine-tuned", False)):
            start = time.monotonic()
            work = arguments.work / f"{granularity}-{name}" if arguments.work else None
            runs[name] = cross_validate(
                frame,
                recipe,
                folds=arguments.folds,
                frozen=frozen,
                work=work,
                resamples=arguments.resamples,
                seed=arguments.seed,
                progress=_progress(f"{granularity}, {name}"),
            )
            minutes = (time.monotonic() - start) / 60
            stem = arguments.output / f"mini-mias-{granularity}-{name}"
            _write(stem, runs[name].scorecard, f"{minutes:.1f} minutes on {machine_line()}")
            rows += scorecard_rows(name, runs[name].scorecard)
        fine, frozen_run = runs["fine-tuned"], runs["frozen"]
        comparison = compare_folds(
            fine.folds,
            frozen_run.folds,
            {
                **fine.scorecard.context,
                "protocol": f"{arguments.folds} folds by woman, seed {arguments.seed}; the same folds for both runs",
                "model_digests": [
                    *fine.scorecard.context["model_digests"],
                    *frozen_run.scorecard.context["model_digests"],
                ],
            },
            a="fine-tuned",
            b="frozen",
            resamples=arguments.resamples,
            seed=arguments.seed,
        )
        _write(arguments.output / f"mini-mias-{granularity}-comparison", comparison, machine_line())
        rows += comparison_rows(comparison)
        print(comparison.to_text())
    pd.DataFrame(rows).to_csv(arguments.output / "mini-mias.csv", index=False, float_format="%.4f")


def _progress(label: str):  # type: ignore[no-untyped-def]
    last = [""]

    def show(done: int, total: int, what: str = "Reading") -> None:
        # One line a stage: benchmarks are watched through a log more often than at a terminal.
        if what != last[0]:
            last[0] = what
            print(f"{label}: {what}", file=sys.stderr, flush=True)

    return show


def _write(stem: Path, outcome: Scorecard | Comparison, cost: str) -> None:
    outcome.save(stem.with_suffix(".json"))
    stem.with_suffix(".txt").write_text(f"{outcome.to_text()}\n\ncost       {cost}\n", encoding="utf-8")


def scorecard_rows(run: str, scorecard: Scorecard) -> Iterator[dict[str, Any]]:
    """Yield one row of the table of figures for each score of a run, with its context."""
    for label, target in scorecard.targets.items():
        parts = {"retrieval": target.scores.retrieval, "knn": target.scores.knn, "head": target.scores.head}
        for part, scores in parts.items():
            for score, estimate in scores.items():
                yield _row(scorecard.context, run, label, part, score, estimate)


def comparison_rows(comparison: Comparison) -> Iterator[dict[str, Any]]:
    """Yield one row of the table of figures for each difference of two runs, with its context."""
    for label, parts in comparison.differences.items():
        for part, scores in parts.items():
            for score, estimate in scores.items():
                run = f"{comparison.a} minus {comparison.b}"
                yield _row(comparison.context, run, label, part, score, estimate)


def _row(context: Mapping[str, Any], run: str, label: str, part: str, score: str, estimate: Estimate) -> dict[str, Any]:
    return {
        "dataset": " + ".join(context["datasets"]),
        "manifest": context["manifest_digest"][:12],
        "protocol": context["protocol"],
        "granularity": context["granularity"],
        "run": run,
        "label": label,
        "part": part,
        "score": score,
        **{name: getattr(estimate, name) for name in ("value", "low", "high", "level", "items", "women")},
    }


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0] if __doc__ else "", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder of mini-MIAS")
    parser.add_argument("--granularity", nargs="+", choices=GRANULARITIES, default=list(GRANULARITIES))
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0, help="of folds, training and resamples")
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0 leaves its own choice")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--work", type=Path, help="folder that keeps finished folds, to go on after a stop")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
