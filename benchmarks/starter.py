"""Make the starter models anew from their committed recipes, measure them, and say whether they are what is committed.

    python -m benchmarks.starter --mini-mias path/to/mini-mias --work starter-work

trains on mini-MIAS by the protocols `finding.toml` and `breast.toml` of `benchmarks/protocols`, in every fold, which
gives the figures; then on all its women, which gives the models; rounds their weights to 16 bits; and fills the
reference galleries. What is made lies in the work folder, and `--install` puts it into the package. Without it the
figures are compared with the committed ones: each must lie within the committed interval. A run that was stopped goes
on. `--seeds 0` measures with one seed instead of three, in a third of the time.

A start from a network that had learned whole breasts of the RSNA subset (`benchmarks/recipes/rsna-breast.toml`) was
tried and is not used: it made everything worse, see `docs/recipes.md`.
"""

import argparse
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.setting import errors_told
from classifiers.benchmark import run_benchmark
from classifiers.filling import new_gallery
from classifiers.protocol import Protocol
from classifiers.scorecard import Scorecard
from classifiers.starter import CARD_FILE, NAMES, starter_folder
from embedder.checkpoint import compact_model
from embedder.datasets import read_dataset
from embedder.embedding import Embedder
from embedder.findings import patient_key
from embedder.recipe import Recipe
from embedder.training import train
from index.metrics import Estimate

HERE = Path(__file__).parent
LICENCE = "From mini-MIAS: research only."
HEADLINES = {
    "finding": (
        ("native_lesion_type", "retrieval", "precision@10"),
        ("native_lesion_type", "head", "accuracy"),
        ("lesion_type", "retrieval", "precision@10"),
        ("pathology", "retrieval", "precision@10"),
        ("pathology", "head", "auc"),
        ("pathology", "head", "auc_within_folds"),
        ("pathology", "head", "brier"),
    ),
    "breast": (
        ("density", "retrieval", "precision@10"),
        ("density", "head", "accuracy"),
        ("density", "head", "kappa"),
        ("density", "head", "brier"),
        ("pathology", "head", "auc"),
    ),
}
"""Label, part and score of what is told beside each starter model."""


def main() -> None:
    """Make the models, and install them or compare them with the committed ones."""
    with errors_told():
        run(_parse())


def run(arguments: argparse.Namespace) -> None:
    """Make everything in the work folder.

    Args:
        arguments: As `_parse` gives them.
    """
    work = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    frame = read_dataset("mini-mias", arguments.mini_mias).frame
    agreed = True
    for name in arguments.names:
        protocol = Protocol.read(HERE / "protocols" / f"{name}.toml")
        if arguments.seeds:
            protocol = replace(protocol, seeds=tuple(arguments.seeds))
        scorecard = run_benchmark(protocol, frame, work / f"run-{name}", device=arguments.device).scorecard
        gallery = make_gallery(frame, protocol.recipe, name, work, arguments.device)
        card = starter_card(frame, name, scorecard)
        if arguments.install:
            install(gallery, card, HERE.parent / "starter" / name)
        else:
            agreed &= compare(name, scorecard, starter_folder(name))
    if not agreed:
        sys.exit(1)


def make_gallery(frame: pd.DataFrame, recipe: Recipe, name: str, work: Path, device: str) -> Path:
    """Train on all women, round the weights, and fill the reference gallery."""
    rows = frame[frame["granularity"] == name].assign(split=None).astype({"split": frame["split"].dtype})
    whole, small, gallery = (work / f"{kind}-{name}" for kind in ("model", "small", "gallery"))
    train(
        rows,
        whole,
        **recipe.parts(),
        device=device,
    )
    compact_model(whole, small)
    new_gallery(rows.reset_index(drop=True), small, gallery, names_only=True, device=device)
    Embedder.load(gallery / "model", device="cpu")  # it is whole
    return gallery


def starter_card(frame: pd.DataFrame, name: str, scorecard: Scorecard) -> dict[str, Any]:
    """Return what is told of a starter model, as plain JSON values."""
    rows = frame[frame["granularity"] == name]
    return {
        "granularity": name,
        "rows": len(rows),
        "women": int(patient_key(rows).nunique()),
        "licence": LICENCE,
        "protocol": scorecard.context["protocol"],
        "figures": [
            (label, f"{score}, {part}", f"{value.value:.2f} [{value.low:.2f}, {value.high:.2f}]")
            for label, part, score, value in headlines(name, scorecard)
        ],
        "intervals": [
            {"label": label, "part": part, "score": score, "value": value.value, "low": value.low, "high": value.high}
            for label, part, score, value in headlines(name, scorecard)
        ],
    }


def headlines(name: str, scorecard: Scorecard) -> list[tuple[str, str, str, Estimate]]:
    """Return the figures that are told of a starter model."""
    return [
        (label, part, score, getattr(scorecard.targets[label].scores, part)[score])
        for label, part, score in HEADLINES[name]
    ]


def install(gallery: Path, card: dict[str, Any], place: Path) -> None:
    """Put a gallery and its card into the package."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(gallery, place, ignore=shutil.ignore_patterns("writer.lock"))
    (place / CARD_FILE).write_text(json.dumps(card, indent=1) + "\n")


def compare(name: str, scorecard: Scorecard, place: Path) -> bool:
    """Print the figures beside the committed ones, and tell whether each lies within the committed interval."""
    stated = json.loads((place / CARD_FILE).read_text("utf-8"))["intervals"]
    agreed = True
    for figure, (label, part, score, value) in zip(stated, headlines(name, scorecard), strict=True):
        within = figure["low"] <= value.value <= figure["high"]
        agreed &= within
        interval = f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"
        verdict = "within" if within else "OUTSIDE"
        print(f"{name} {label} {part} {score}: {value.value:.3f}, committed {interval}: {verdict}")
    return agreed


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--mini-mias", type=Path, required=True, help="folder of mini-MIAS")
    parser.add_argument("--work", type=Path, required=True, help="folder of all that is made; kept, and gone on with")
    parser.add_argument("--names", nargs="+", choices=NAMES, default=list(NAMES), help="which models (both)")
    parser.add_argument("--seeds", type=int, nargs="+", help="seeds to measure with; the protocols' unless named")
    parser.add_argument("--install", action="store_true", help="put models and figures into the package")
    parser.add_argument("--device", default="auto", help="where to compute (auto)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
