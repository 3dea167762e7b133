"""Candidates of our own on mini-MIAS: FROC by woman-level cross-validation, and what searching an image costs.

    python -m benchmarks.detect --data path/to/mini-mias --work detect-work --trained --mine 0.5
    python -m benchmarks.detect --data path/to/mini-mias --work detect-work
    python -m benchmarks.detect --cost-only

The women are split into five folds. The gallery of a fold holds lesions and normal tissue (`embedder.normaltissue`) of
the other women, embedded by the frozen ImageNet network, and candidates are sought on all films of the fold's women.
All candidates are scored together by `exchange.froc`: sensitivity at 1, 2 and 4 false positives an image, by lesion
type, with 95 % intervals over women. What is done is kept in the work folder, and not done again.

- `--trained`: each fold's network is trained on the other women with `tissue` as the leading label.
- `--mine SHARE`: a second round. False alarms on the films of this share of the women (`exchange.falsealarms`:
  each woman's are found with what is known of others) join the normal tissue, and network and gallery are made anew.

The cost is the time of searching one image of 4,000 × 3,000 pixels (reading aside) over one bare forward pass of the
backbone on as many pixels, in one process with the same threads, in turns; median of the repeats and their range.

Time, in minutes of one core: of a fold 3 for the search of its films, 2 for known places in the midst of their
surroundings, 4 for 20 epochs of training, and with `--mine 0.5` 5 for false alarms and the same once more.
`--only-folds 1 --films 12` is a trial. The bare pass of the cost needs about 4 GB.
"""

import argparse
import resource
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from benchmarks.cross_validation import RESULTS
from benchmarks.setting import errors_told, find_data, machine_line, say
from classifiers.cases import Source
from classifiers.filling import new_gallery
from classifiers.folds import patient_folds
from classifiers.leaks import check_unseen
from embedder.datasets import read_dataset
from embedder.dense import DenseEmbedder
from embedder.embedding import Embedder, pretrained_model
from embedder.findings import Finding, findings_frame, patient_key
from embedder.normaltissue import add_normal_tissue, with_rows
from embedder.preparation import prepare
from embedder.recipe import Recipe
from embedder.rois import load_crops
from embedder.training import train
from errors import MammoseekError
from exchange.detecting import DetectConfig, Detector, candidates_frame
from exchange.falsealarms import add_false_alarms, film_source
from exchange.formats import read_detections, write_detections
from exchange.froc import FrocConfig, score_detections
from exchange.judging import Truth, read_truth
from index.metrics import Estimate

RATES = (1.0, 2.0, 4.0)
CANDIDATES = DetectConfig(most=20, minimum=0.0, looks=40)
CANDIDATES_FILE = "candidates.json"
LARGE = (4000, 3000)


def main() -> None:
    """Run the benchmark and write its table."""
    with errors_told():
        run(_parse())


def run(arguments: argparse.Namespace) -> None:
    """Search the films of each fold's women, score all candidates together, and measure the cost.

    Args:
        arguments: As `_parse` gives them.
    """
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    rows: list[dict[str, Any]] = []
    if not arguments.cost_only:
        rows += froc_rows(arguments)
    rows += cost_rows(arguments.work, arguments.repeats)
    table = pd.DataFrame(rows).assign(machine=machine_line())
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(arguments.output, index=False, float_format="%.4f")
    print(table.drop(columns="machine").to_string(index=False))


def froc_rows(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return sensitivities of all folds together, as rows of the table."""
    read = read_dataset("mini-mias", find_data(arguments.data)).frame
    frame = add_normal_tissue(read, per_image=arguments.normal).frame
    keys = patient_key(frame).to_numpy(dtype=object)
    kinds = frame["native_lesion_type"].astype("object").to_numpy()
    of_film = {str(path): rows for path, rows in frame.groupby("path")}
    marks: dict[str, list[pd.DataFrame]] = {}
    searched: dict[str, set[str]] = {}
    for number, fold in enumerate(patient_folds(keys, kinds, arguments.folds, arguments.seed), start=1):
        if arguments.only_folds and number not in arguments.only_folds:
            continue
        films = sorted(set(frame["path"].iloc[fold.test].astype(str)))[: arguments.films]
        sources = [film_source(of_film[path]) for path in films]
        rows = frame.iloc[fold.train].reset_index(drop=True)
        unseen = patient_key(frame.iloc[fold.test])
        for name, detections in fold_candidates(rows, unseen, sources, arguments, number):
            marks.setdefault(name, []).append(detections)
            searched.setdefault(name, set()).update(films)
    table: list[dict[str, Any]] = []
    for name, found in marks.items():
        asked = frame[frame["path"].astype(str).isin(searched[name]) & (frame["tissue"] != "normal")]
        truth = read_truth(asked.reset_index(drop=True))
        table += scored_rows(name, pd.concat(found, ignore_index=True), truth, len(searched[name]), arguments)
    return table


def fold_candidates(
    rows: pd.DataFrame, unseen: pd.Series, sources: list[Source], arguments: argparse.Namespace, number: int
) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the candidates of a fold's films with the runs' names; what an earlier call found is read.

    Args:
        rows: Of the manifest with normal tissue, those of the fold's training women.
        unseen: The fold's own women, whom no model may know.
        sources: Their films.
        arguments: As `_parse` gives them.
        number: Of the fold, from 1.
    """
    kind = "trained" if arguments.trained else "frozen"
    place = arguments.work / f"{kind}-seed-{arguments.seed}-fold-{number}"
    rounds = {"first": kind}
    if arguments.mine:
        rounds["second"] = f"{kind}, own false alarms"
    for part, name in rounds.items():
        kept = place / part / CANDIDATES_FILE
        if not kept.is_file():
            known = rows if part == "first" else with_false_alarms(rows, place / "first" / "gallery", arguments, number)
            detector = Detector(fold_round(known, place / part, arguments), config=CANDIDATES)
            check_unseen(detector.embedder.card, unseen, place / part)
            before = time.process_time()
            found, failed = detector.detect_all(sources)
            if failed:
                raise MammoseekError(*failed[0])
            each = (time.process_time() - before) / max(1, len(sources))
            say(f"fold {number}, {name}: {len(sources)} films at {each:.2f} s of processor time")
            write_detections(kept, candidates_frame(found), "json")
        yield name, read_detections(kept).frame()


def scored_rows(
    name: str, detections: pd.DataFrame, truth: Truth, films: int, arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    """Return the sensitivities of one run's candidates, by lesion type, as rows of the table."""
    config = FrocConfig(rates=RATES, seed=arguments.seed, resamples=arguments.resamples)
    scores = score_detections(truth, detections, config)
    only = "".join(f", fold {number}" for number in arguments.only_folds or ())
    context = {
        "run": name,
        "films": films,
        "manifest": scores.context["manifest_digest"][:12],
        "protocol": f"{arguments.folds} folds by woman, seed {arguments.seed}{only}",
    }
    return [
        {
            **context,
            "lesions": kind,
            "score": f"sensitivity at {rate:g} false positives an image",
            **_figures(estimate),
        }
        for kind, unit in (("all", scores.units["lesion"]), *scores.lesion_types.items())
        for rate, estimate in unit.sensitivity.items()
    ]


def with_false_alarms(rows: pd.DataFrame, gallery: Path, arguments: argparse.Namespace, number: int) -> pd.DataFrame:
    """Return the rows of a fold's training women with false alarms on films of some of them as normal tissue.

    Args:
        rows: Of the manifest.
        gallery: Of the first round.
        arguments: As `_parse` gives them.
        number: Of the fold, from 1.
    """
    women = np.sort(patient_key(rows).unique())
    count = round(arguments.mine * len(women))
    searched = np.random.default_rng([arguments.seed, number]).choice(women, count, replace=False)
    part = rows[patient_key(rows).isin(searched)].reset_index(drop=True)
    found = add_false_alarms(part, gallery, per_image=arguments.alarms, seed=arguments.seed)
    if found.failures:
        raise MammoseekError(*found.failures[0])
    say(f"fold {number}: {found.added} false alarms on {found.images} films join the normal tissue")
    return with_rows(rows, found.frame.iloc[len(part) :])


def fold_round(rows: pd.DataFrame, place: Path, arguments: argparse.Namespace) -> Path:
    """Return a gallery of a fold's training women, by a model trained on them or by the frozen network.

    Args:
        rows: Of the manifest.
        place: Folder of model and gallery.
        arguments: As `_parse` gives them.
    """
    # Of the placed rows of the manifest some say neither lesion nor normal: they teach nothing here.
    told = (rows["granularity"] == "finding") & rows["tissue"].notna() & rows["x0"].notna()
    known = rows[told].reset_index(drop=True)
    settings = ["training.validation_share=0", "training.balance=under", f"training.seed={arguments.seed}"]
    recipe = Recipe.default("finding").with_settings([*settings, *arguments.settings])
    if arguments.trained:
        train(known.assign(split="train"), place / "model", **recipe.parts())
    else:
        described = load_crops(known, recipe.preparation) if recipe.preparation.descriptors else None
        pretrained_model(place / "model", recipe.network, recipe.preparation, described)
    new_gallery(known, place / "model", place / "gallery")
    return place / "gallery"


def large_breast() -> npt.NDArray[np.float32]:
    """Return an image of 4,000 × 3,000 pixels: half an ellipse of structured tissue at the left."""
    generator = np.random.default_rng(0)
    y, x = np.mgrid[: LARGE[0], : LARGE[1]]
    inside = ((y - LARGE[0] / 2) / (0.47 * LARGE[0])) ** 2 + (x / (0.75 * LARGE[1])) ** 2 < 1
    coarse = generator.random((LARGE[0] // 40, LARGE[1] // 40)).repeat(40, axis=0).repeat(40, axis=1)
    return np.where(inside, 0.3 + 0.3 * coarse + generator.normal(0, 0.03, LARGE), 0.01).clip(0, 1).astype(np.float32)


def cost_rows(work: Path, repeats: int) -> list[dict[str, Any]]:
    """Return what searching a large image costs, over one forward pass of the backbone on as many pixels.

    Args:
        work: Folder where the frozen model is kept.
        repeats: Of both sides, in turns.
    """
    import cv2

    from embedder.dense import DensePlaces

    recipe = Recipe.default("finding").with_settings(["preparation.descriptors=[]"])
    pretrained_model(work / "frozen", recipe.network, recipe.preparation)
    lesions = _large_gallery(work)
    image = work / "large.png"
    pixels = large_breast()
    cv2.imwrite(str(image), (pixels * 255).astype(np.uint8))
    embedder = Embedder.load(work / "frozen", device="cpu")
    detector = Detector(lesions)
    source = Source(image, patient="nobody", spacing_mm=0.07, view="CC")
    bare = torch.from_numpy(pixels)[None, None]
    dense = DenseEmbedder(embedder.network, embedder.preparation)
    prepared = prepare(pixels, embedder.preparation, spacing_mm=0.07)
    scales = detector.detect(source).scales  # judges are fitted here, once a gallery
    ratios: dict[str, list[float]] = {"detect": [], "dense look alone": []}
    for _ in range(repeats):
        start = time.perf_counter()
        with torch.inference_mode():
            dense.feature_map(bare)
        pass_seconds = time.perf_counter() - start
        start = time.perf_counter()
        detector.detect(source)
        ratios["detect"].append((time.perf_counter() - start) / pass_seconds)
        start = time.perf_counter()
        places: list[DensePlaces] = [dense.places(prepared, scale.window) for scale in scales]
        ratios["dense look alone"].append((time.perf_counter() - start) / pass_seconds)
        assert places
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    context = {"run": "cost", "films": 1, "protocol": f"{len(scales)} scales, 0.07 mm, peak {peak:.1f} GiB with all"}
    return [
        {**context, "score": f"{name}, ratio to one forward pass on the same pixels", "value": statistics.median(found),
         "low": min(found), "high": max(found), "items": repeats}
        for name, found in ratios.items()
    ]  # fmt: skip


def _large_gallery(work: Path) -> Path:
    """Return a small gallery of boxes of 5 to 40 mm on the large image, lesions and normal tissue by turns."""
    import cv2

    image, gallery = work / "gallery.png", work / "cost-gallery"
    work.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(image), (large_breast() * 255).astype(np.uint8))
    generator = np.random.default_rng(1)
    rows = []
    for number in range(60):
        side = int(generator.integers(70, 570))
        x, y = int(generator.integers(0, 1000)), int(generator.integers(800, 2400))
        rows.append(
            Finding(
                f"r{number}", str(image), "finding", "cost", f"w{number}", x0=x, y0=y, x1=x + side, y1=y + side,
                spacing_mm=0.07, lesion_type="mass" if number % 2 else None,
            )
        )  # fmt: skip
    tissue = ["lesion" if number % 2 else "normal" for number in range(60)]
    new_gallery(findings_frame(rows).assign(tissue=tissue), work / "frozen", gallery)
    return gallery


def _figures(estimate: Estimate) -> dict[str, Any]:
    return {name: getattr(estimate, name) for name in ("value", "low", "high", "items", "women")}


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of mini-MIAS")
    parser.add_argument("--folds", type=int, default=5, help="folds of women (5)")
    parser.add_argument("--only-folds", type=int, nargs="+", help="numbers of the folds to run, from 1 (all)")
    parser.add_argument("--films", type=int, help="films of each fold that are searched (all)")
    parser.add_argument("--seed", type=int, default=0, help="of folds, trainings and resamples (0)")
    parser.add_argument("--trained", action="store_true", help="train a network for each fold")
    parser.add_argument(
        "--mine",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="begin anew with false alarms on the films of this share of the gallery's women as normal tissue (0)",
    )
    parser.add_argument("--alarms", type=int, default=5, help="false alarms on a film, at most (5)")
    parser.add_argument("--normal", type=int, default=6, help="places of normal tissue on a film (6)")
    parser.add_argument("--set", dest="settings", nargs="+", default=[], metavar="NAME=VALUE", help="of the recipe")
    parser.add_argument("--resamples", type=int, default=2000, help="bootstrap resamples of the women (2000)")
    parser.add_argument("--repeats", type=int, default=5, help="repeats of the cost (5)")
    parser.add_argument("--cost-only", action="store_true", help="measure the cost alone")
    parser.add_argument("--threads", type=int, help="threads of torch (its own number)")
    parser.add_argument("--work", type=Path, default=Path("detect-work"), help="folder of models and galleries")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "mini-mias-detect.csv")
    return parser.parse_args()


if __name__ == "__main__":
    main()
