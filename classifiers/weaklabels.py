"""Learning from whole images that say only whether there is a cancer: fit, cross-fit by woman, score."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from classifiers import ClassificationError
from classifiers.calibration import Calibration
from classifiers.evaluation import score_classification
from classifiers.folds import patient_folds
from classifiers.labels import Array
from classifiers.leaks import check_unseen
from embedder.bags import BagFiles, embed_bags
from embedder.checkpoint import load_model
from embedder.devices import choose_device
from embedder.findings import patient_key
from embedder.roles import stated_splits
from embedder.tiles import TileConfig, TileEmbedder
from embedder.weakrecipe import WeakRecipe
from embedder.weakscorers import Inputs, Scorer, ScorerConfig, make_scorer, scorer_inputs
from index.metrics import Estimate

Progress = Callable[..., None]

CLASSES = ("no cancer", "cancer")
INNER_FOLDS = 5
"""Folds of women within the training women, whose held-out scores the calibration is fitted on."""

_FEWEST_WOMEN = 2  # of each class; a calibration asks for more, and says so


@dataclass(frozen=True, eq=False)
class WeakFit:
    """A fitted model.

    Attributes:
        scorer: What scores a breast.
        calibration: Of its probabilities, fitted on cross-fitted scores of the training women.
        held_out: (rows,) the cross-fitted logits that it rests on: each of a scorer that knows nothing of the woman.
    """

    scorer: Scorer
    calibration: Calibration
    held_out: Array

    def predict(self, inputs: Inputs) -> Array:
        """Return (rows,) calibrated probabilities of a cancer."""
        return calibrated(self.calibration, self.scorer.logits(inputs))


@dataclass(frozen=True, eq=False)
class WeakPredictions:
    """A cross-validation's predictions, each by a model that knows nothing of the woman.

    Attributes:
        frame: The rows.
        positive: bool (rows,), the truth.
        probabilities: (rows,) of a cancer.
        failures: Row id and message of images that could not be read.
    """

    frame: pd.DataFrame
    positive: Array
    probabilities: Array
    failures: list[tuple[str, str]]

    def scores(self, resamples: int = 2000, seed: int = 0) -> dict[str, dict[str, Estimate]]:
        """Return the scores of images, and of women by the mean of their images' probabilities."""
        keys = patient_key(self.frame).to_numpy(dtype=object)
        image = score_images(self.positive, self.probabilities, keys, resamples, seed)
        positive, probabilities, women = by_woman(self.positive, self.probabilities, keys)
        return {"image": image, "woman": score_images(positive, probabilities, women, resamples, seed)}


def is_cancer(frame: pd.DataFrame) -> Array:
    """Return bool (rows,): which images of `weak_rows` show a cancer."""
    return (frame["pathology"] == "malignant").to_numpy(dtype=np.bool_)


def weak_rows(frame: pd.DataFrame, subject: object = "manifest") -> pd.DataFrame:
    """Return the images of whole breasts of which it is known whether they show a cancer.

    Malignant is a cancer; benign, normal and no cancer are none; an image whose pathology is unknown is left out.

    Args:
        frame: A manifest.
        subject: What an error is about.

    Raises:
        ClassificationError: There is no such image, or there are fewer than two women of a class.
    """
    chosen = frame[(frame["granularity"] == "breast") & frame["pathology"].notna()].reset_index(drop=True)
    if chosen.empty:
        raise ClassificationError(
            subject, "has no whole breast with a pathology", "label whole images as malignant, benign or no cancer"
        )
    check_classes(is_cancer(chosen), patient_key(chosen).to_numpy(dtype=object), subject)
    return chosen


def check_classes(positive: Array, women: Array, subject: object = "manifest") -> None:
    """Refuse images with fewer than two women of a class.

    Raises:
        ClassificationError: There are.
    """
    for name, members in zip(CLASSES, (~positive, positive), strict=True):
        count = len(set(women[members].tolist()))
        if count < _FEWEST_WOMEN:
            raise ClassificationError(
                subject,
                f"has {count} women with {name}",
                f"it needs {_FEWEST_WOMEN} at least, and many more to learn from",
            )


def fit_weak(
    inputs: Inputs,
    positive: Array,
    women: Array,
    features: int,
    config: ScorerConfig,
    *,
    progress: Progress | None = None,
) -> WeakFit:
    """Fit on images with a label, and calibrate on scores of women that a fold's scorer has not seen.

    Args:
        inputs: One a breast, see `embedder.weakscorers.scorer_inputs`.
        positive: bool (rows,) the labels.
        women: (rows,) the women's keys.
        features: How many numbers a tile has.
        config: How tiles are scored.
        progress: Called with fits done and fits in all.

    Raises:
        ClassificationError: There are fewer than two women of a class.
    """
    check_classes(positive, women)
    truth = class_names(positive)
    fewest = min(len(set(women[members].tolist())) for members in (positive, ~positive))
    folds = patient_folds(women, truth, min(INNER_FOLDS, fewest), config.seed)
    held_out = np.empty(len(positive))
    for number, fold in enumerate(folds):
        scorer = make_scorer(features, config)
        scorer.fit([inputs[row] for row in fold.train], positive[fold.train])
        held_out[fold.test] = scorer.logits([inputs[row] for row in fold.test])
        if progress is not None:
            progress(number + 1, len(folds) + 1)
    scorer = make_scorer(features, config)
    scorer.fit(inputs, positive)
    if progress is not None:
        progress(len(folds) + 1, len(folds) + 1)
    calibration = Calibration().fit(_pairs(held_out), truth, women, CLASSES)
    return WeakFit(scorer, calibration, held_out)


def class_names(positive: Array) -> Array:
    """Return (rows,) the names of the classes."""
    return np.asarray(CLASSES, dtype=object)[np.asarray(positive).astype(int)]


def calibrated(calibration: Calibration, logits: Array) -> Array:
    """Return (rows,) calibrated probabilities of a cancer."""
    return calibration.transform(_pairs(np.asarray(logits, np.float64)))[:, 1]


def _pairs(logits: Array) -> Array:
    """Return (rows, 2) probabilities of no cancer and of a cancer."""
    cancer = 1 / (1 + np.exp(-np.clip(logits, -30, 30)))
    return np.stack([1 - cancer, cancer], axis=1)


def cross_validate_weak(
    frame: pd.DataFrame,
    model: Path,
    recipe: WeakRecipe,
    *,
    folds: int = 5,
    seed: int = 0,
    work: Path | None = None,
    device: str = "auto",
    workers: int | None = None,
    progress: Progress | None = None,
) -> WeakPredictions:
    """Fit a model in every fold of women, and predict the women of that fold.

    Args:
        frame: A manifest with absolute paths.
        model: Folder of the patch embedder; it must not have been trained on these women.
        recipe: How the models are made.
        folds: How many folds.
        seed: Of the folds and of what is fitted.
        work: Folder that keeps the tiles' features; None for a temporary one.
        device: Where to embed.
        workers: Threads that read images.
        progress: Called with items done, items in all and what is done.

    Raises:
        ClassificationError: The patch embedder was trained on one of the women, or there are too few.
    """
    rows = weak_rows(frame)
    with ExitStack() as stack:
        folder = work or Path(stack.enter_context(TemporaryDirectory()))
        bags = load_bags(rows, model, recipe.tiles, folder, device=device, workers=workers, progress=progress)
        config = replace(recipe.scorer, seed=seed)
        inputs, features = scorer_inputs(bags, config.method), bags.features(0).shape[1]
        probabilities = predict_folds(inputs, bags.frame, features, config, folds=folds, progress=progress)
    return WeakPredictions(bags.frame, is_cancer(bags.frame), probabilities, bags.failures)


def predict_folds(
    inputs: Inputs,
    frame: pd.DataFrame,
    features: int,
    config: ScorerConfig,
    *,
    folds: int = 5,
    progress: Progress | None = None,
) -> Array:
    """Return (rows,) probabilities, each of a model fitted and calibrated on the women of the other folds.

    Args:
        inputs: One a breast, see `embedder.weakscorers.scorer_inputs`.
        frame: Their rows of the manifest.
        features: How many numbers a tile has.
        config: How tiles are scored; its seed is the folds' too.
        folds: How many folds.
        progress: Called with fits done, fits in all and what is done.
    """
    keys, positive = patient_key(frame).to_numpy(dtype=object), is_cancer(frame)
    check_classes(positive, keys)
    probabilities = np.empty(len(positive))
    for number, fold in enumerate(patient_folds(keys, class_names(positive), folds, config.seed)):

        def told(done: int, total: int, number: int = number) -> None:
            if progress is not None:
                progress(number * total + done, folds * total, "Training")

        train = [inputs[row] for row in fold.train]
        fitted = fit_weak(train, positive[fold.train], keys[fold.train], features, config, progress=told)
        probabilities[fold.test] = fitted.predict([inputs[row] for row in fold.test])
    return probabilities


def load_bags(
    rows: pd.DataFrame,
    model: Path,
    tiles: TileConfig,
    folder: Path,
    *,
    device: str = "auto",
    workers: int | None = None,
    progress: Progress | None = None,
) -> BagFiles:
    """Embed the tiles of images by a patch embedder that knows none of their women.

    Raises:
        ClassificationError: It was trained on one of them, or no image can be read.
        MammoseekError: The model or the folder can't be used.
    """
    network, card, digest = load_model(model)
    check_unseen(card, patient_key(rows), model)
    embedder = TileEmbedder(network.to(choose_device(device)), card.preparation, tiles)
    bags = embed_bags(rows, embedder, digest, folder, workers=workers, progress=progress)
    if bags.frame.empty:
        raise ClassificationError("manifest", f"none of its {len(rows)} images can be read ({bags.failures[0][1]})")
    return bags


def training_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """Return `weak_rows` without the women of the split `test`."""
    return weak_rows(frame[(stated_splits(frame).astype("object") != "test").to_numpy()].reset_index(drop=True))


def by_woman(positive: Array, probabilities: Array, keys: Array) -> tuple[Array, Array, Array]:
    """Return each woman's truth (a cancer in any image), the mean of her images' probabilities, and her key."""
    table = pd.DataFrame({"positive": positive, "probability": probabilities, "woman": keys}).groupby(
        "woman", sort=True
    )
    truth, mean = table["positive"].max(), table["probability"].mean()
    return truth.to_numpy(dtype=np.bool_), mean.to_numpy(), truth.index.to_numpy(dtype=object)


def score_images(
    positive: Array, probabilities: Array, keys: Array, resamples: int = 2000, seed: int = 0
) -> dict[str, Estimate]:
    """Return AUC, Brier score and calibration error of probabilities of a cancer, with intervals over women."""
    truth = class_names(positive)
    pairs = np.stack([1 - probabilities, probabilities], axis=1)
    scores = score_classification(truth, pairs, CLASSES, keys, positive=CLASSES[1], resamples=resamples, seed=seed)
    return {name: scores[name] for name in ("auc", "brier", "calibration_error")}
