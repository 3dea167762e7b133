"""A control: does a lesion stand out from normal tissue because its box is centred on it?

    python -m benchmarks.jittered_boxes --data path/to/mini-mias

A reader's box has the lesion in its middle; a box drawn at random on normal tissue has nothing particular there. What a
descriptor makes of that (a segmentation that starts in the middle finds an edge around it) would be no knowledge of a
lesion, and would be lost where a detector marks places less neatly. So the lesions' boxes are moved at random, by up to
a share of their size each way, in training and test alike, and lesion against normal tissue is scored anew: five folds
by woman, the frozen network with descriptors as in `benchmarks.normal_tissue`.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.cross_validation import RESULTS
from benchmarks.practices import descriptor_settings
from benchmarks.setting import errors_told, find_data
from classifiers.crossvalidation import cross_validate
from embedder.datasets import read_dataset
from embedder.normaltissue import add_normal_tissue
from embedder.preparation import DESCRIPTOR_GROUPS
from embedder.recipe import Recipe

SHARES = (0.0, 0.25)
RUNS: dict[str, tuple[str, ...]] = {
    "frozen": (),
    "frozen + descriptors": descriptor_settings(DESCRIPTOR_GROUPS["finding"], 0.6),
    "descriptors": descriptor_settings(DESCRIPTOR_GROUPS["finding"], 0.99),
}


def main() -> None:
    """Run the control and write its table."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of mini-MIAS")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "mini-mias-jittered-boxes.csv")
    arguments = parser.parse_args()
    with errors_told():
        run(find_data(arguments.data), arguments.output)


def run(data: Path, output: Path) -> None:
    """Score each run with boxes moved by each share.

    Args:
        data: Folder of mini-MIAS.
        output: The table.
    """
    whole = add_normal_tissue(read_dataset("mini-mias", data).frame, per_image=1, seed=0).frame
    frame = whole[whole["granularity"] == "finding"].reset_index(drop=True)
    table: list[dict[str, Any]] = []
    for share in SHARES:
        moved = moved_lesions(frame, share, seed=0)
        for name, settings in RUNS.items():
            recipe = Recipe.default("finding").with_settings(settings)
            card = cross_validate(moved, recipe, frozen=True, targets=("tissue",)).scorecard
            for method in ("knn", "head"):
                figure = getattr(card.targets["tissue"].scores, method)["auc"]
                row = {"moved by up to": share, "run": name, "method": method, "score": "auc", **figure.to_dict()}
                table.append({**row, "protocol": card.context["protocol"], "manifest": card.context["manifest_digest"]})
                print(f"{share} {name} {method}: {figure}", file=sys.stderr, flush=True)
            pd.DataFrame(table).to_csv(output, index=False, float_format="%.4f")


def moved_lesions(frame: pd.DataFrame, share: float, seed: int) -> pd.DataFrame:
    """Return the rows with each lesion's box moved, as far as the image allows.

    Args:
        frame: Findings, with the column `tissue`.
        share: How far at most, as a share of the box's width and height.
        seed: Of the moves.
    """
    random = np.random.default_rng(seed)
    moved = frame.copy()
    lesions = (frame["tissue"] == "lesion").to_numpy()
    for low, high, side in (("x0", "x1", "image_columns"), ("y0", "y1", "image_rows")):
        starts, ends, sides = (frame[name].to_numpy(dtype=np.float64) for name in (low, high, side))
        by = np.round(random.uniform(-share, share, len(frame)) * (ends - starts))
        by = np.where(lesions, np.clip(by, -starts, sides - ends), 0)
        for name, corners in ((low, starts), (high, ends)):
            moved[name] = (corners + by).astype(np.int64)
            moved[name] = moved[name].astype(frame[name].dtype)
    return moved


if __name__ == "__main__":
    main()
