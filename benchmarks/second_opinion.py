"""What a second opinion is worth: false positives of a simulated detector before and after rescoring, on mini-MIAS.

    python -m benchmarks.second_opinion --data path/to/mini-mias -o benchmarks/results/second-opinion.csv
    python -m benchmarks.second_opinion --data path/to/mini-mias --detections detect-work/candidates-*.json ...

The detector is simulated, with a seed: it marks each of the 119 placed lesions with probability 0.9, in a box that is
moved by up to a fifth of its size and scaled by 0.8 to 1.25, and on every film of which normal tissue is known some
false alarms (two on average, Poisson), in boxes with the sizes of lesions at places where other women have lesions:
half of them anywhere, half at the brightest of ten such places (middle against surroundings), as detectors' false
alarms are. The log odds of its scores are drawn from normal distributions of variance 1 whose means differ by
`--separation` (1.6).

Women are split into five folds. A fold's women ask a gallery of the other women's lesions and normal tissue (other
places than the false alarms); the network is ImageNet's, frozen, with hand-crafted descriptors standardised on the
gallery's women. New scores are cross-fitted: a rescoring, its strength included, is fitted without the woman. FROC by
the centre rule, over all films; differences are paired, intervals over women. With several seeds, all is done anew with
each: split, gallery's places, detector.

With `--detections` the marks are read instead: those of `benchmarks.detect`, whose networks did not know the women.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.practices import descriptor_settings
from benchmarks.setting import errors_told, find_data, machine_line
from classifiers.crossvalidation import split_folds
from classifiers.filling import new_gallery
from embedder.datasets import read_dataset
from embedder.embedding import pretrained_model
from embedder.findings import Box, patient_key
from embedder.mammogram import read_mammogram
from embedder.manifest import manifest_digest
from embedder.normaltissue import candidate_places, label_tissue, normal_places, with_rows
from embedder.preparation import DESCRIPTOR_GROUPS
from embedder.recipe import Recipe
from embedder.rois import load_crops, row_box
from embedder.tissuemap import TissueMap
from errors import MammoseekError
from exchange.detections import Detection, detections_frame, known_cell
from exchange.formats import read_detections
from exchange.froc import FrocConfig, score_detections
from exchange.froccomparison import compare_detections
from exchange.judging import Truth, judge, read_truth
from exchange.matching import MatchingRule
from exchange.rescoring import DETECTOR, cross_fitted_scores, evidence_frame
from exchange.secondreader import EVIDENCE, SecondReader

FOUND = 0.9  # of the lesions
FALSE_ALARMS = 2.0  # on a film, on average
_KEPT = ("path", "dataset", "patient_id", "laterality", "view", "spacing_mm", "image_rows", "image_columns")
CANDIDATES = 10  # places on a film of which the brightest is taken


def main() -> None:
    """Run the benchmark and write its table."""
    with errors_told():
        run(_parse())


def run(arguments: argparse.Namespace) -> None:
    """Rescore the detector's marks with each seed; the table is written anew after each.

    Args:
        arguments: As `_parse` gives them.
    """
    frame = read_dataset("mini-mias", find_data(arguments.data)).frame
    frame = frame.assign(tissue=label_tissue(frame))
    tissue = TissueMap.read(frame)
    truth = read_truth(frame)
    table: list[dict[str, Any]] = []
    for seed in arguments.seeds:
        gallery_rows = with_rows(frame, normal_places(tissue, per_image=1, seed=seed))
        if arguments.detections:
            detections = judged_marks(truth, read_marks(arguments.detections))
        else:
            detections = simulated_detections(frame, tissue, arguments.separation, seed)
        evidence = fold_evidence(gallery_rows, detections, arguments.folds, seed)
        table += compared(truth, detections, evidence, arguments.resamples, seed)
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        context = {
            "manifest": manifest_digest(frame)[:12],
            "separation": None if arguments.detections else arguments.separation,
            "machine": machine_line(),
        }
        pd.DataFrame([{**row, **context} for row in table]).to_csv(arguments.output, index=False, float_format="%.4f")


def read_marks(paths: list[Path]) -> pd.DataFrame:
    """Return the detections of several files as one table.

    Args:
        paths: Files in mammoseek's own format.

    Raises:
        MammoseekError: One can't be read whole.
    """
    found: list[Detection] = []
    for path in paths:
        reading = read_detections(path)
        if reading.problems:
            raise MammoseekError(path, f"{reading.problems[0][0]}: {reading.problems[0][1]}")
        found += reading.detections
    return detections_frame(found)


def judged_marks(truth: Truth, detections: pd.DataFrame) -> pd.DataFrame:
    """Return the detections on films whose lesions all have a place: others are neither true nor false."""
    known = judge(truth, detections, MatchingRule()).outcomes["row_id"]
    return detections[detections["row_id"].isin(known)].reset_index(drop=True)


def simulated_detections(frame: pd.DataFrame, tissue: TissueMap, separation: float, seed: int) -> pd.DataFrame:
    """Return what the simulated detector marks, see the head of this module.

    Args:
        frame: The manifest.
        tissue: Its images.
        separation: Difference of the means of the log odds of scores.
        seed: Of the detector.
    """
    random = np.random.default_rng(seed + 1000)
    lesions = frame[(frame["granularity"] == "finding") & frame["x0"].notna()]
    marks: list[tuple[pd.Series, Box, float]] = []
    for _, row in lesions.iterrows():
        box = row_box(row)
        if box is not None and random.random() < FOUND:
            moved = _moved(box, int(row["image_columns"]), int(row["image_rows"]), random)
            marks.append((row, moved, random.normal(separation / 2)))
    women = patient_key(frame).unique()
    places = candidate_places(tissue, women, per_image=CANDIDATES, seed=seed + 1000)
    for _, here in places.groupby("path", sort=True):
        brightness = [_brightness(row) for _, row in here.iterrows()]
        bright = here.iloc[np.argsort(brightness)[::-1]]
        for number in range(int(random.poisson(FALSE_ALARMS))):
            row = bright.iloc[number % len(bright)] if number % 2 == 0 else here.iloc[random.integers(len(here))]
            box = row_box(row)
            assert box is not None, "candidates have places"
            marks.append((row, box, random.normal(-separation / 2)))
    return detections_frame(
        Detection(
            detection_id=f"d{number}",
            score=float(1 / (1 + np.exp(-odds))),
            detector="simulated",
            x0=box.x0,
            y0=box.y0,
            x1=box.x1,
            y1=box.y1,
            **{name: known_cell(row, name) for name in _KEPT},
        )
        for number, (row, box, odds) in enumerate(marks)
    )


def fold_evidence(rows: pd.DataFrame, detections: pd.DataFrame, folds: int, seed: int) -> pd.DataFrame:
    """Return each detection's evidence by a gallery of the women of the other folds.

    Args:
        rows: Lesions, normal tissue and breasts.
        detections: What is asked.
        folds: Folds of women.
        seed: Of the split.

    Returns:
        A row for each detection, in their order, with the columns `EVIDENCE`.
    """
    recipe = Recipe.default("finding").with_settings(descriptor_settings(DESCRIPTOR_GROUPS["finding"], 0.6))
    breasts = rows[rows["granularity"] == "breast"].reset_index(drop=True)
    fold_of: dict[str, int] = {}
    for number, fold in enumerate(split_folds(breasts, ("density",), folds, seed)):
        fold_of |= dict.fromkeys(patient_key(breasts.iloc[fold.test]), number)
    findings = rows[(rows["granularity"] == "finding") & rows["x0"].notna()].reset_index(drop=True)
    crops = load_crops(findings, recipe.preparation)
    owner = patient_key(crops.frame).map(fold_of).to_numpy()
    asked = patient_key(detections).map(fold_of).to_numpy()
    found: dict[str, dict[str, float | None]] = {}
    for number in range(folds):
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            known = crops.frame[owner != number].reset_index(drop=True)
            pretrained_model(place / "model", recipe.network, recipe.preparation, crops.take(known))
            new_gallery(known, place / "model", place / "gallery")
            reader = SecondReader(place / "gallery")
            for batch in reader.read(detections[asked == number].reset_index(drop=True)):
                found |= {one.opinion.detection_id: dict(one.evidence) for one in batch.opinions}
        print(f"seed {seed}: fold {number + 1} of {folds}", file=sys.stderr, flush=True)
    return evidence_frame([found[name] for name in detections["row_id"]])[list(EVIDENCE)]


def compared(
    truth: Any, detections: pd.DataFrame, evidence: pd.DataFrame, resamples: int, seed: int
) -> list[dict[str, Any]]:
    """Return the figures before and after rescoring, and their differences, as rows of the table."""
    rule = MatchingRule()
    config = FrocConfig(rule=rule, resamples=resamples, seed=seed)
    outcomes = judge(truth, detections, rule).outcomes.set_index("row_id")["outcome"]
    hits = (outcomes.loc[detections["row_id"]] != "false positive").to_numpy()
    women = patient_key(detections).to_numpy(dtype=object)
    rows: list[dict[str, Any]] = []
    for name, columns in {
        "rescored": list(EVIDENCE),
        "rescored, without the vote and head of normal tissue": [DETECTOR, "malignancy"],
        "calibrated detector alone": [DETECTOR],
    }.items():
        new = detections.assign(score=cross_fitted_scores(evidence[columns], hits, women, seed=seed))
        before, after = (score_detections(truth, table, config) for table in (detections, new))
        change = compare_detections(truth, detections, new, config)
        for rate in config.rates:
            rows.append(
                {
                    "seed": seed, "scores": name, "figure": f"sensitivity at {rate:g} false positives an image",
                    **_sides(before.units["lesion"].sensitivity[rate], after.units["lesion"].sensitivity[rate],
                             change.sensitivity["lesion"][rate]),
                }
            )  # fmt: skip
        for at, false in change.false_positives.items():
            rows.append(
                {
                    "seed": seed, "scores": name,
                    "figure": f"share of false positives saved at the sensitivity of {at:g} false positives an image",
                    **_interval("difference", false.reduction),
                }
            )  # fmt: skip
        for told, precision in change.average_precision.items():
            rows.append(
                {
                    "seed": seed, "scores": name, "figure": f"average precision, {told}",
                    **_sides(before.average_precision[told], after.average_precision[told], precision),
                }
            )  # fmt: skip
    return [{**row, "detections": len(detections), "hits": int(hits.sum()), "women": len(set(women))} for row in rows]


def _sides(before: Any, after: Any, difference: Any) -> dict[str, float]:
    return {**_interval("before", before), **_interval("after", after), **_interval("difference", difference)}


def _interval(name: str, estimate: Any) -> dict[str, float]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def _moved(box: Box, columns: int, rows: int, random: np.random.Generator) -> Box:
    """Return a box moved by up to a fifth of its size and scaled by 0.8 to 1.25, cut at the image's borders."""
    x, y = box.centre
    x, y = x + random.uniform(-0.2, 0.2) * box.width, y + random.uniform(-0.2, 0.2) * box.height
    scale = float(np.exp(random.uniform(np.log(0.8), np.log(1.25))))
    across, down = scale * box.width / 2, scale * box.height / 2
    return Box(
        max(0, round(x - across)), max(0, round(y - down)), min(columns, round(x + across)), min(rows, round(y + down))
    )


_PIXELS: dict[str, npt.NDArray[np.float32]] = {}


def _brightness(row: pd.Series) -> float:
    """Return how much brighter a place is than what surrounds it."""
    path = str(row["path"])
    if path not in _PIXELS:
        _PIXELS.clear()  # places come image by image
        _PIXELS[path] = read_mammogram(Path(path)).pixels
    pixels, box = _PIXELS[path], row_box(row)
    assert box is not None, "candidates have places"
    aside, below = box.width // 2, box.height // 2
    around = pixels[max(0, box.y0 - below) : box.y1 + below, max(0, box.x0 - aside) : box.x1 + aside]
    inner = pixels[box.y0 : box.y1, box.x0 : box.x1]
    ring = (float(around.sum()) - float(inner.sum())) / max(1, around.size - inner.size)
    return float(inner.mean()) - ring


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of mini-MIAS")
    parser.add_argument(
        "--detections", type=Path, nargs="+", help="files of detections, in place of the simulated ones"
    )
    parser.add_argument("--separation", type=float, default=1.6, help="of the scores' log odds (1.6)")
    parser.add_argument("--folds", type=int, default=5, help="folds of women (5)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of folds, places and detector (0 1 2)")
    parser.add_argument("--resamples", type=int, default=2000, help="bootstrap resamples of the women (2000)")
    parser.add_argument("-o", "--output", type=Path, required=True, help="CSV file to write")
    return parser.parse_args()


if __name__ == "__main__":
    main()
