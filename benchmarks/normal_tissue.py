"""Lesion against normal tissue on mini-MIAS: frozen, fine-tuned, with hard negatives, and hand-crafted descriptors.

    python -m benchmarks.normal_tissue --data path/to/mini-mias --work folds-normal

Each of the 119 lesions stands against places of normal tissue, one on each film whose normal tissue is known, with the
sizes of lesions and at the places of other women's lesions (`embedder.normaltissue`). Women are split into five folds,
the same for all runs; a fold's test women are scored by models, votes, heads and calibrations that know its training
women only, and the test places are the same for all runs: drawn at random, never mined.

- `size and place alone`: a control that sees no pixel, logistic regression on the box's size, its place in the breast,
  its share of tissue and their products; what it scores above 0.5 the other runs may owe to how places were drawn.
- `frozen`: the ImageNet backbone, not trained.
- `descriptors` and `frozen + descriptors`: hand-crafted descriptors nearly alone (fusion weight 0.99), and fused (0.6).
- `fine-tuned`: trained with `tissue` as the leading label; `under` makes an epoch as long as the lesions are many, so
  that a training with more normal tissue takes as many steps as one with less.
- `hard negatives`: begun anew, as long, with the false alarms of the fold's fine-tuned model on its training women
  beside their random normal tissue. Votes and heads rest on the same rows as before, but for `hard negatives, also
  voting`, where the mined rows vote too.

Besides random places there are hard ones: of several candidates on each test film the one that the frozen network's
votes and head, fitted on the fold's training women, take for a lesion most surely; neither trained model chose it, but
the frozen network did: its own figures on them are low by construction.

The table in benchmarks/results was made with a short training on small crops, for want of processor time:

    python -m benchmarks.normal_tissue --data path/to/mini-mias --work folds-normal --epochs 6 --candidates 3 \
        --set preparation.height=128 preparation.width=128 training.classes_per_batch=2 \
        training.findings_per_class=8 training.trainable=layers
"""

import argparse
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from benchmarks.cross_validation import RESULTS
from benchmarks.setting import errors_told, find_data, machine_line, say
from classifiers.evaluation import compare_runs, score_classification
from classifiers.folds import Fold, patient_folds
from classifiers.leaks import check_unseen, check_women
from classifiers.mining import choose_hard, lesion_probability
from classifiers.predictions import METHODS, predict_fold
from embedder.crops import crop_shape
from embedder.datasets import read_dataset
from embedder.embedding import Embedder, pretrained_model
from embedder.findings import patient_key
from embedder.manifest import manifest_digest
from embedder.normaltissue import candidate_places, label_tissue, normal_places, with_rows
from embedder.preparation import DESCRIPTOR_GROUPS, PreparationConfig
from embedder.recipe import Recipe
from embedder.rois import CropStore, load_crops, row_box
from embedder.tissuemap import TissueMap
from embedder.training import choose_augmentation, train
from errors import MammoseekError

CONTROL = "size and place alone"
GEOMETRY = ("width", "height", "across", "down", "share")
FROZEN, DESCRIBED, FUSED = "frozen", "descriptors", "frozen + descriptors"
TUNED, HARD, HARD_VOTING = "fine-tuned", "hard negatives", "hard negatives, also voting"
FUSION = {DESCRIBED: 0.99, FUSED: 0.6}
COMPARED = ((TUNED, FROZEN), (HARD, FROZEN), (HARD, TUNED), (HARD_VOTING, TUNED), (DESCRIBED, FROZEN), (FUSED, FROZEN))
LESIONS = ("calcification", "mass", "architectural distortion", "asymmetry")

Vectors = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Setting:
    """What all runs share.

    Attributes:
        rows: Lesions, random normal tissue and candidates, with `tissue`, `kind` (lesion, random, candidate) and the
            columns of GEOMETRY.
        crops: Their crops with the augmentation's margin.
        folds: Positions in `rows` of lesions and random places.
        recipe: How models are trained.
        seed: Of folds, trainings and resamples.
    """

    rows: pd.DataFrame
    crops: CropStore
    folds: list[Fold]
    recipe: Recipe
    seed: int


@dataclass(eq=False)
class Run:
    """The pooled predictions of one run: by method, the probability of a lesion of each queried row.

    Attributes:
        chances: By method and row id; the control's stand with the head's.
    """

    chances: dict[str, dict[str, float]] = field(default_factory=lambda: {method: {} for method in METHODS})


def main() -> None:
    """Run the benchmark and write its table."""
    with errors_told():
        run(_parse())


def run(arguments: argparse.Namespace) -> None:
    """Score all runs for each seed; the table is written anew after each stage that is complete.

    Args:
        arguments: As `_parse` gives them.
    """
    frame = read_dataset("mini-mias", find_data(arguments.data)).frame
    recipe = Recipe.default("finding").with_settings(
        [
            "training.validation_share=0",
            "training.balance=under",
            f"training.epochs={arguments.epochs}",
            *arguments.settings,
        ]
    )
    rows, digest = gather(frame, arguments.candidates)
    margin = choose_augmentation(recipe.training, recipe.preparation).margin
    say(f"{len(rows)} places; reading their crops")
    crops = load_crops(rows, recipe.preparation, margin=margin)
    if crops.failures:
        raise MammoseekError(*crops.failures[0])
    table: list[dict[str, Any]] = []
    for seed in arguments.seeds:
        start = time.monotonic()
        asked = rows[rows["kind"] != "candidate"]
        keys = patient_key(asked).to_numpy(dtype=object)
        folds = patient_folds(keys, asked["native_lesion_type"].to_numpy(dtype=object), arguments.folds, seed)
        check_women(asked, folds)
        setting = Setting(rows, crops, folds, recipe, seed)
        context = {
            "dataset": "mini-mias",
            "manifest": digest[:12],
            "protocol": f"{arguments.folds} folds by woman, seed {seed}",
            "input": f"{recipe.preparation.height} x {recipe.preparation.width}",
            "trained": f"{recipe.training.epochs} epochs, {recipe.training.trainable}",
        }
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        found: list[dict[str, Any]] = []
        for runs, hard, mined in score_runs(setting, arguments.work / f"seed-{seed}", arguments.runs):
            rows_found = table_rows(setting, runs, hard, arguments.resamples)
            found = [{**context, "mined": mined, **row} for row in rows_found]
            pd.DataFrame([*table, *found]).to_csv(arguments.output, index=False, float_format="%.4f")
        table += found
        say(f"seed {seed}: {(time.monotonic() - start) / 60:.1f} minutes on {machine_line()}")


def gather(frame: pd.DataFrame, candidates: int) -> tuple[pd.DataFrame, str]:
    """Return lesions, random normal tissue and candidates as rows, and the digest of the first two.

    The draw has a seed of its own, 0, so that the places are the same whatever the folds.

    Args:
        frame: The manifest of mini-MIAS.
        candidates: Places to draw on an image, among which hard ones are sought.
    """
    frame = frame.assign(tissue=label_tissue(frame))
    tissue = TissueMap.read(frame)
    lesions = frame[frame["granularity"] == "finding"]
    parts = {
        "lesion": lesions,
        "random": normal_places(tissue, per_image=1, seed=0),
        "candidate": candidate_places(tissue, patient_key(frame).unique(), per_image=candidates, seed=1),
    }
    rows = with_rows(with_rows(lesions, parts["random"]), parts["candidate"])
    digest = manifest_digest(with_rows(lesions, parts["random"]))
    images = {str(image.record["path"]): image for image in tissue.images}
    geometry = []
    for _, row in rows.iterrows():
        box, image = row_box(row), images.get(str(row["path"]))
        assert box is not None, "places have boxes"
        if image is None:
            raise MammoseekError(row["path"], "has a lesion, and another one without a place", "draw no places on it")
        geometry.append((box.width, box.height, *image.place_of(box), image.share(box)))
    kinds = np.repeat(list(parts), [len(part) for part in parts.values()])
    return rows.assign(kind=kinds, **pd.DataFrame(geometry, columns=list(GEOMETRY))), digest


def score_runs(setting: Setting, work: Path, names: list[str]) -> Iterator[tuple[dict[str, Run], set[str], int]]:
    """Predict the test women of every fold by every run.

    Args:
        setting: What all runs share.
        work: Where models are kept; a fold that was trained before is not trained again.
        names: The runs to score; `frozen` is always among them, for it chooses the hard test places.

    Yields:
        After each stage: the runs that are complete, the row ids of hard test places, and how many places were mined
        in all folds.
    """
    preparation, network = setting.recipe.preparation, setting.recipe.network
    pretrained_model(work / "pretrained", network, preparation)
    frozen = Embedder.load(work / "pretrained").embed_store(without_margin(setting.crops, preparation))
    runs = {FROZEN: Run()}
    hard_of = [hard_tests(setting, fold, frozen, runs[FROZEN]) for fold in setting.folds]
    hard = set(setting.rows["row_id"].iloc[np.concatenate(hard_of)])
    queries = [np.concatenate([fold.test, places]) for fold, places in zip(setting.folds, hard_of, strict=True)]
    runs[CONTROL] = _control(setting, queries)
    yield runs, hard, 0
    trained = {name: Run() for name in (TUNED, HARD, HARD_VOTING) if name in names}
    mined = _score_trained(setting, work, queries, trained) if trained else 0
    runs |= trained
    yield runs, hard, mined
    described = {name: Run() for name in FUSION if name in names}
    if described:
        _score_described(setting, work, queries, described)
        yield runs | described, hard, mined


def _control(setting: Setting, queries: list[Rows]) -> Run:
    """Return the run that sees no pixel."""
    run = Run()
    rows, features = setting.rows, setting.rows[list(GEOMETRY)].to_numpy(np.float64)
    lesion = (rows["tissue"] == "lesion").to_numpy()
    for fold, asked in zip(setting.folds, queries, strict=True):
        # No model that could learn boxes by heart: a test lesion's exact size and place are those of normal places.
        model = make_pipeline(StandardScaler(), PolynomialFeatures(2), LogisticRegression(max_iter=1000))
        model.fit(features[fold.train], lesion[fold.train])
        chances = model.predict_proba(features[asked])[:, 1]
        run.chances["head"].update(zip(rows["row_id"].iloc[asked], map(float, chances), strict=True))
    return run


def _score_trained(setting: Setting, work: Path, queries: list[Rows], runs: dict[str, Run]) -> int:
    """Fill the trained runs, and return how many places were mined in all folds."""
    mined = 0
    for number, (fold, asked) in enumerate(zip(setting.folds, queries, strict=True), start=1):
        own = set(patient_key(setting.rows.iloc[fold.train]))
        wanted = np.concatenate([fold.train, asked, candidates_of(setting, own)])
        vectors = tuned_vectors(setting, fold, fold.train, wanted, work / f"tuned-{number}")
        if TUNED in runs:
            _predict(setting, runs[TUNED], vectors, fold.train, asked)
        if HARD not in runs and HARD_VOTING not in runs:
            continue
        found = mine_fold(setting, fold, vectors)
        mined += len(found)
        everything = np.concatenate([fold.train, found])
        wanted = np.concatenate([everything, asked])
        vectors = tuned_vectors(setting, fold, everything, wanted, work / f"hard-{number}")
        for name, gallery in ((HARD, fold.train), (HARD_VOTING, everything)):
            if name in runs:
                _predict(setting, runs[name], vectors, gallery, asked)
        say(f"fold {number}: {len(found)} places mined")
    return mined


def _score_described(setting: Setting, work: Path, queries: list[Rows], runs: dict[str, Run]) -> None:
    """Fill the runs with hand-crafted descriptors, standardised on each fold's training women."""
    preparation, network = setting.recipe.preparation, setting.recipe.network
    places = np.unique(np.concatenate([*queries, *(fold.train for fold in setting.folds)]))
    options = replace(preparation, descriptors=DESCRIPTOR_GROUPS["finding"])
    say(f"describing {len(places)} places")
    crops = load_crops(setting.rows.iloc[places], options)
    for name, run in runs.items():
        fused = replace(network, fusion_weight=FUSION[name])
        for number, (fold, asked) in enumerate(zip(setting.folds, queries, strict=True), start=1):
            folder = work / f"{name.replace(' ', '')}-{number}"
            pretrained_model(folder, fused, options, crops.take(setting.rows.iloc[fold.train]))
            embedder = Embedder.load(folder)
            check_unseen(embedder.card, patient_key(setting.rows.iloc[fold.test]), folder)
            vectors = np.zeros((len(setting.rows), embedder.dimension), np.float32)
            vectors[places] = embedder.embed_store(crops)
            _predict(setting, run, vectors, fold.train, asked)


def without_margin(crops: CropStore, preparation: PreparationConfig) -> CropStore:
    """Return crops as the network sees them: their middle."""
    height, width = crop_shape(preparation)
    top, left = (crops.pixels.shape[1] - height) // 2, (crops.pixels.shape[2] - width) // 2
    return replace(crops, pixels=crops.pixels[:, top : top + height, left : left + width])


def candidates_of(setting: Setting, women: set[str]) -> Rows:
    """Return the positions of some women's candidates."""
    own = patient_key(setting.rows).isin(women) & (setting.rows["kind"] == "candidate")
    return np.flatnonzero(own.to_numpy())


def hard_tests(setting: Setting, fold: Fold, frozen: Vectors, run: Run) -> Rows:
    """Return the positions of a fold's hard test places: on each film the one most like a lesion to the frozen network.

    Args:
        setting: What all runs share.
        fold: The fold.
        frozen: Vectors of all rows.
        run: The frozen run, into which the fold's predictions go.
    """
    positions = candidates_of(setting, set(patient_key(setting.rows.iloc[fold.test])))
    _predict(setting, run, frozen, fold.train, np.concatenate([fold.test, positions]))
    places = setting.rows.iloc[positions]
    surety = np.mean([[run.chances[method][name] for name in places["row_id"]] for method in METHODS], axis=0)
    return _hardest(setting, fold, positions, surety, per_image=1, minimum=0.0)


def mine_fold(setting: Setting, fold: Fold, vectors: Vectors) -> Rows:
    """Return the positions of the false alarms of a fold's model on its training women.

    Args:
        setting: What all runs share.
        fold: The fold.
        vectors: Vectors of all rows, by the fold's model.
    """
    known = setting.rows.iloc[fold.train]
    positions = candidates_of(setting, set(patient_key(known)))
    places = setting.rows.iloc[positions]
    surety = lesion_probability(vectors[fold.train], known, vectors[positions], places, seed=setting.seed)
    return _hardest(setting, fold, positions, surety, per_image=2, minimum=0.5)


def _hardest(
    setting: Setting, fold: Fold, positions: Rows, surety: npt.NDArray[np.float64], *, per_image: int, minimum: float
) -> Rows:
    taken = setting.rows.iloc[np.concatenate([fold.train, fold.test])]
    chosen = choose_hard(setting.rows.iloc[positions], surety, taken, per_image=per_image, minimum=minimum)
    return np.flatnonzero(setting.rows["row_id"].isin(chosen["row_id"]).to_numpy())


def tuned_vectors(setting: Setting, fold: Fold, rows: Rows, wanted: Rows, folder: Path) -> Vectors:
    """Train a fold's model from the pretrained backbone on, and return (all rows, dimension) vectors.

    Args:
        setting: What all runs share.
        fold: The fold.
        rows: Positions of the rows to train on.
        wanted: Positions of the rows to embed; the vectors of others are zero.
        folder: Where the model is kept.
    """
    recipe = setting.recipe
    learned = setting.rows.iloc[rows].drop(columns=["kind", *GEOMETRY]).reset_index(drop=True)
    train(
        learned.assign(split="train"),
        folder,
        network=recipe.network,
        preparation=recipe.preparation,
        training=replace(recipe.training, seed=recipe.training.seed + setting.seed),
        labels=recipe.labels,
        metric_labels=recipe.metric_labels,
        crops=setting.crops,
    )
    embedder = Embedder.load(folder)
    check_unseen(embedder.card, patient_key(setting.rows.iloc[fold.test]), folder)
    vectors = np.zeros((len(setting.rows), embedder.dimension), np.float32)
    crops = setting.crops.take(setting.rows.iloc[wanted])
    vectors[wanted] = embedder.embed_store(without_margin(crops, recipe.preparation))
    return vectors


def _predict(setting: Setting, run: Run, vectors: Vectors, gallery: Rows, asked: Rows) -> None:
    rows = setting.rows
    found = predict_fold(
        vectors[gallery], rows.iloc[gallery], vectors[asked], rows.iloc[asked], ("tissue",), seed=setting.seed
    ).targets["tissue"]
    column = found.classes.index("lesion")
    for method in METHODS:
        chances = found.probabilities[method][:, column]
        run.chances[method].update(zip(rows["row_id"].iloc[asked], map(float, chances), strict=True))


def table_rows(setting: Setting, runs: Mapping[str, Run], hard: set[str], resamples: int) -> list[dict[str, Any]]:
    """Return the AUC of every run, by what lesions stand against and by their type, and the runs' paired differences.

    Args:
        setting: What all runs share.
        runs: The runs by name.
        hard: Row ids of hard test places.
        resamples: Bootstrap resamples of the women.
    """
    rows = setting.rows
    keys = patient_key(rows)
    lesion = (rows["kind"] == "lesion").to_numpy()
    random = (rows["kind"] == "random").to_numpy()
    same = random & keys.isin(set(keys[lesion])).to_numpy()
    against = {
        "random normal tissue": random,
        "random normal tissue of women with a lesion": same,
        "hard normal tissue": rows["row_id"].isin(hard).to_numpy(),
    }
    pairs = [(a, b) for a, b in COMPARED if a in runs and b in runs]
    found = []
    for other, normal in against.items():
        for kind in ("all", *LESIONS):
            chosen = lesion if kind == "all" else lesion & (rows["lesion_type"] == kind).to_numpy()
            places = np.flatnonzero(chosen | normal)
            labels = rows["tissue"].to_numpy(dtype=object)[places]
            women = keys.to_numpy(dtype=object)[places]
            options: dict[str, Any] = {"positive": "lesion", "resamples": resamples, "seed": setting.seed}
            for method in METHODS:
                asked = rows["row_id"].iloc[places]
                chances = {name: _chances(run, method, asked) for name, run in runs.items() if run.chances[method]}
                estimates = {
                    name: score_classification(labels, chance, ("lesion", "normal"), women, **options)["auc"]
                    for name, chance in chances.items()
                }
                for a, b in pairs if kind == "all" else []:
                    compared = compare_runs(labels, chances[a], chances[b], ("lesion", "normal"), women, **options)
                    estimates[f"{a} minus {b}"] = compared["auc"]
                for name, estimate in estimates.items():
                    figures = {key: getattr(estimate, key) for key in ("value", "low", "high", "items", "women")}
                    place = {"run": name, "against": other, "lesions": kind, "method": method, "score": "auc"}
                    found.append({**place, **figures})
    return found


def _chances(run: Run, method: str, names: pd.Series) -> npt.NDArray[np.float64]:
    lesion = np.array([run.chances[method][name] for name in names])
    return np.stack([lesion, 1 - lesion], axis=1)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of mini-MIAS")
    parser.add_argument("--folds", type=int, default=5, help="folds of women (5)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of folds, trainings and resamples (0)")
    parser.add_argument("--epochs", type=int, default=8, help="epochs of each training (8)")
    parser.add_argument("--candidates", type=int, default=4, help="places to look at on a film (4)")
    names = [*FUSION, TUNED, HARD, HARD_VOTING]
    parser.add_argument("--runs", nargs="*", choices=names, default=names, help="runs beside the frozen one (all)")
    parser.add_argument("--set", dest="settings", nargs="+", default=[], metavar="NAME=VALUE", help="of the recipe")
    parser.add_argument("--resamples", type=int, default=2000, help="bootstrap resamples of the women (2000)")
    parser.add_argument("--work", type=Path, required=True, help="folder where models are kept")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "mini-mias-normal-tissue.csv")
    return parser.parse_args()


if __name__ == "__main__":
    main()
