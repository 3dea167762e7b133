"""Measured figures: a model on women that it has not seen, or a fresh model in every fold of women."""

import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from classifiers import ClassificationError
from classifiers.crosscalibration import CalibratedOn, calibrate_across_folds
from classifiers.folds import Fold, check_no_leak, declared_folds, patient_folds
from classifiers.leaks import check_images, check_super_resolution, check_unseen, check_women
from classifiers.predictions import write_json
from classifiers.scorecard import FoldPredictions, Scorecard, make_scorecard, predict_fold
from classifiers.targets import choose_targets
from classifiers.views import Group, fuse_vectors, view_groups
from embedder.checkpoint import ModelCard, image_digests, woman_digest
from embedder.duplicates import Duplicate
from embedder.embedding import Embedder, pretrained_model
from embedder.findings import patient_key
from embedder.manifest import manifest_digest
from embedder.recipe import Recipe
from embedder.rois import CropStore, load_crops
from embedder.training import TrainingCallbacks, choose_augmentation, train
from embedder.trainingplan import SEEDS

Progress = Callable[..., None]
Views = Mapping[str, Group]
"""By label column, what is asked together."""

FOLDS_WITHOUT_TRAINING = 5
"""Folds of women for a model whose card names none of them."""


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """The outcome of a cross-validation.

    Attributes:
        folds: Every fold's predictions.
        scorecard: Their scores.
        seconds: What it took, with what earlier calls took for the folds that were found finished.
    """

    folds: list[FoldPredictions]
    scorecard: Scorecard
    seconds: float


def evaluate_model(
    frame: pd.DataFrame,
    model: Path,
    *,
    targets: tuple[str, ...] | None = None,
    resamples: int = 2000,
    seed: int = 0,
    device: str = "auto",
    workers: int | None = None,
    progress: Progress | None = None,
) -> Scorecard:
    """Score a model on women that it has not seen.

    The women that the model was trained on are the gallery, all others the queries. They are told by name, and by the
    content of their image files, whatever they are called here. Where the model's card names none of the manifest's
    women and images (a pretrained backbone, another data set's model), they are split into five folds, and each fold's
    women ask among those of the others. Votes, heads and calibration are fitted on the gallery's women only.

    Args:
        frame: A manifest with absolute paths; rows of the other granularity are left out.
        model: Folder of the model.
        targets: Label columns to score; None for the usual ones, see `classifiers.targets`.
        resamples: Bootstrap resamples of the women.
        seed: Of folds and resamples, 0 to 2**32 - 1.
        device: Where to compute.
        workers: Threads that read images.
        progress: Called with rows done and rows in all.

    Raises:
        ClassificationError: The model was trained on every woman, no label can be scored, or the seed is out of range.
        MammoseekError: The model can't be read.
    """
    _check_seed(seed)
    embedder = Embedder.load(model, device=device)
    known = _seen_women(frame, embedder.card, workers)
    frame = rows_of(frame, embedder.granularity)
    digest = manifest_digest(frame)
    vectors, frame, failures = embed_rows(embedder, frame, workers, progress)
    keys = patient_key(frame).to_numpy(dtype=object)
    chosen = choose_targets(frame, targets, embedder.granularity)
    seen = np.array([key in known for key in keys], np.bool_)
    if seen.all():
        raise ClassificationError(
            model,
            "was trained on every woman of this manifest, so no figure would be honest",
            "keep women in the split `test`, or use --cross-validate",
        )
    if seen.any():
        splits = [Fold(np.flatnonzero(seen), np.flatnonzero(~seen))]
        protocol = "hold-out by woman: unseen women ask among the women that the model was trained on"
    else:
        splits = patient_folds(keys, _strata(frame, chosen), FOLDS_WITHOUT_TRAINING, seed)
        unnamed = "no woman or image of this manifest is named in the model's card"
        protocol = f"{len(splits)} folds by woman, seed {seed}; {unnamed}"
    predictions = [_predict(vectors, frame, fold, chosen, seed, {}) for fold in splits]
    context = {
        **_context(frame, embedder.granularity, protocol, digest, failures),
        "model_digests": [embedder.digest],
        "preparation_digest": embedder.preparation_digest,
    }
    return make_scorecard(predictions, context, resamples=resamples, seed=seed)


def cross_validate(
    frame: pd.DataFrame,
    recipe: Recipe,
    *,
    folds: int = 5,
    fold_column: str | None = None,
    frozen: bool = False,
    work: Path | None = None,
    targets: tuple[str, ...] | None = None,
    views: Views | None = None,
    duplicates: Sequence[Duplicate] = (),
    calibration: CalibratedOn = "gallery",
    resamples: int = 2000,
    seed: int = 0,
    device: str = "auto",
    workers: int | None = None,
    progress: Progress | None = None,
) -> CrossValidation:
    """Train a fresh model in every fold of women and score it on the women of that fold.

    Nothing of a fold's test women reaches its model: their rows are not read by the training, validation for the best
    epoch takes some of the training women, and votes, heads and calibration know the training women only. The data
    set's own split is set aside.

    Args:
        frame: A manifest with absolute paths; rows of the other granularity are left out.
        recipe: How each fold's model is made.
        folds: How many folds.
        fold_column: Column that says in which fold a row is tested; None splits the women into `folds`.
        frozen: Use the pretrained backbone as it is instead of training.
        work: Folder where folds are kept; called again with the same arguments, finished folds are taken from there
            and a stopped one goes on. None keeps nothing.
        targets: Label columns to score; None for the usual ones, see `classifiers.targets`.
        views: By label, what is asked together, its vectors averaged: the views of a `lesion`, a `breast` or a `woman`,
            see `classifiers.views`; each row is asked alone for a label that is not named.
        duplicates: Images that stand under two women's names, none of which may be on both sides of a fold.
        calibration: On whom probabilities are calibrated: the women of the fold's own `gallery`, or those of the other
            `folds`, see `classifiers.crosscalibration`.
        resamples: Bootstrap resamples of the women.
        seed: Of folds and resamples, and added to the recipe's; 0 to 2**32 - 1.
        device: Where to compute.
        workers: Threads that read images.
        progress: Called with items done, items in all and what is under way.

    Raises:
        ClassificationError: Too few women for these folds, no label can be scored, the seed is out of range, or a
            woman or an image is on both sides of a fold.
        MammoseekError: Nothing can be learned, or the work folder holds another cross-validation.
    """
    begun, spent = time.monotonic(), 0.0
    views = dict(views or {})
    _check_seed(seed)
    if not frozen:
        _check_seed(recipe.training.seed + seed)
    granularity = recipe.preparation.granularity
    frame = rows_of(frame, granularity)
    check_super_resolution(frame, recipe.preparation.super_resolution, workers)
    digest = manifest_digest(frame)
    with ExitStack() as stack:
        folder = Path(work) if work is not None else Path(stack.enter_context(tempfile.TemporaryDirectory()))
        crops: CropStore | None = None
        described: CropStore | None = None
        if frozen and recipe.preparation.descriptors:
            described = load_crops(frame, recipe.preparation, workers=workers, progress=progress)
            frame, failures = described.frame, described.failures
        elif frozen:
            place = fold_model(folder, recipe, 0, folds, frozen=True)
            model_digest = pretrained_model(place, recipe.network, recipe.preparation)
            embedder = Embedder.load(place, device=device)
            vectors, frame, failures = embed_rows(embedder, frame, workers, progress)
        else:
            margin = choose_augmentation(recipe.training, recipe.preparation).margin
            crops = load_crops(frame, recipe.preparation, margin=margin, workers=workers, progress=progress)
            frame, failures = crops.frame, crops.failures
        chosen = choose_targets(frame, targets, granularity)
        splits = split_folds(frame, chosen, folds, seed, fold_column)
        check_women(frame, splits)
        check_images(frame, splits, duplicates)
        folds = len(splits)
        predictions: list[FoldPredictions] = []
        digests: list[str] = []
        for number, fold in enumerate(splits):
            label = f"Fold {number + 1}/{folds}"
            place = fold_model(folder, recipe, number, folds, frozen=frozen)
            if described is not None:
                outcome, digest_of_model = _run_fused_fold(described, recipe, fold, chosen, views, seed, place, device)
            elif crops is None:
                outcome, digest_of_model = _predict(vectors, frame, fold, chosen, seed, views), model_digest
            else:
                plan = _fold_plan(frame, recipe, fold, chosen, views, seed)
                found = _finished_fold(place, plan)
                if found is None:
                    start = time.monotonic()
                    outcome, digest_of_model = _run_fold(
                        frame, recipe, fold, chosen, views, seed, place, crops, device, workers, label, progress
                    )
                    _keep_fold(place, plan, outcome, digest_of_model, time.monotonic() - start)
                else:
                    outcome, digest_of_model, seconds = found
                    spent += seconds
            predictions.append(outcome)
            digests.append(digest_of_model)
    if calibration == "folds":
        predictions = calibrate_across_folds(predictions)
    protocol = told_protocol(folds, (seed,), views, calibration, frozen=frozen, fold_column=fold_column)
    context = {
        **_context(frame, granularity, protocol, digest, failures),
        "model_digests": digests,
        "preparation_digest": recipe.preparation.digest,
        "recipe": recipe.to_dict(),
        "calibration": calibration,
    }
    scorecard = make_scorecard(predictions, context, resamples=resamples, seed=seed)
    return CrossValidation(predictions, scorecard, spent + time.monotonic() - begun)


def split_folds(
    frame: pd.DataFrame, targets: tuple[str, ...], folds: int, seed: int, fold_column: str | None = None
) -> list[Fold]:
    """Return the folds of women in which a manifest's rows are tested.

    Args:
        frame: The manifest's rows of one granularity.
        targets: The label columns to score, by one of which folds are stratified.
        folds: How many folds.
        seed: Of the split.
        fold_column: Column that says in which fold a row is tested; None splits by woman.

    Raises:
        ClassificationError: Too few women for these folds, there is no such column, or it puts a woman in two folds.
    """
    keys = patient_key(frame).to_numpy(dtype=object)
    if fold_column is None:
        return patient_folds(keys, _strata(frame, targets), folds, seed)
    if fold_column not in frame.columns:
        raise ClassificationError("folds", f"the manifest has no column {fold_column!r}", "name one that it has")
    return declared_folds(keys, frame[fold_column])


def fold_model(folder: Path, recipe: Recipe, number: int, folds: int, *, frozen: bool) -> Path:
    """Return where a cross-validation keeps the model of a fold, in its work folder.

    Args:
        folder: The work folder.
        recipe: How its models are made.
        number: The fold, from 0.
        folds: How many there are.
        frozen: Whether the pretrained backbone is used as it is: without descriptors all folds have one model.
    """
    if frozen and not recipe.preparation.descriptors:
        return folder / "pretrained"
    return folder / f"{'pretrained' if frozen else 'fold'}-{number + 1}-of-{folds}"


def _check_seed(seed: int) -> None:
    if not 0 <= seed < SEEDS:
        raise ClassificationError(
            "seed", f"{seed} is out of range", f"use 0 to {SEEDS - 1}, the training's own included"
        )


def _seen_women(frame: pd.DataFrame, card: ModelCard, workers: int | None) -> set[str]:
    """Return the women whom a model has seen, by their names or by the content of one of their image files.

    Args:
        frame: A manifest's rows of both granularities: one image of hers is enough.
        card: The model's card.
        workers: Threads that read files.
    """
    keys = patient_key(frame)
    women = {digest for digests in card.women.values() for digest in digests}
    known = {key for key in keys.unique() if woman_digest(key) in women}
    images = {digest for digests in card.images.values() for digest in digests}
    if images:
        others = ~keys.isin(known)
        digests = image_digests(frame.loc[others, "path"], workers)
        known |= {
            key
            for key, path in zip(keys[others], frame.loc[others, "path"], strict=True)
            if digests.get(path) in images
        }
    return known


def rows_of(frame: pd.DataFrame, granularity: str) -> pd.DataFrame:
    """Return a manifest's rows of one granularity.

    Raises:
        ClassificationError: There are none.
    """
    rows = frame[frame["granularity"] == granularity].reset_index(drop=True)
    if rows.empty:
        raise ClassificationError(
            "manifest", f"has no rows of granularity {granularity}", "choose the other granularity"
        )
    return rows


def _strata(frame: pd.DataFrame, targets: Sequence[str]) -> npt.NDArray[np.object_]:
    """Return the label by which folds are stratified: the finest lesion type of findings, the density of breasts."""
    name = "native_lesion_type" if "native_lesion_type" in targets else targets[0]
    return frame[name].to_numpy(dtype=object)


def embed_rows(
    embedder: Embedder, frame: pd.DataFrame, workers: int | None, progress: Progress | None
) -> tuple[npt.NDArray[np.float32], pd.DataFrame, list[tuple[str, str]]]:
    """Embed a manifest's rows and keep their order.

    Args:
        embedder: The model.
        frame: The rows, of its granularity.
        workers: Threads that read images.
        progress: Called with rows done, rows in all and what is under way.

    Returns:
        float32 (n, d) vectors, their n rows, and row id and reason of those that failed.

    Raises:
        ClassificationError: None can be read.
    """
    parts, records, failures = [], [], []
    done = 0
    for batch in embedder.embed_manifest(frame, workers=workers):
        parts.append(batch.vectors)
        records.append(batch.records)
        failures += batch.failures
        done += len(batch.records) + len(batch.failures)
        if progress is not None:
            progress(done, len(frame), "Embedding")
    if not sum(len(part) for part in parts):
        reason = failures[0][1] if failures else "no rows"
        raise ClassificationError("manifest", f"none of its {len(frame)} images can be read: {reason}")
    # Rows come image by image: back to the manifest's order.
    embedded = pd.concat(records, ignore_index=True)
    places = {row_id: place for place, row_id in enumerate(embedded["row_id"])}
    rows = frame["row_id"].isin(places)
    order = [places[row_id] for row_id in frame.loc[rows, "row_id"]]
    return np.concatenate(parts)[order], frame[rows].reset_index(drop=True), failures


def _predict(
    vectors: npt.NDArray[np.float32],
    frame: pd.DataFrame,
    fold: Fold,
    targets: tuple[str, ...],
    seed: int,
    views: Views,
) -> FoldPredictions:
    check_no_leak(patient_key(frame).to_numpy(dtype=object), fold.train, fold.test)
    parts = []
    for group in dict.fromkeys(views.get(name) for name in targets):
        asked = fused(vectors, frame, group)
        names = [name for name in targets if views.get(name) == group]
        gallery, queries = frame.iloc[fold.train], frame.iloc[fold.test]
        parts.append(predict_fold(asked[fold.train], gallery, asked[fold.test], queries, names, seed=seed))
    predicted = {name: part.targets[name] for part in parts for name in part.targets}
    return replace(parts[0], targets={name: predicted[name] for name in targets})


def told_protocol(
    folds: int,
    seeds: Sequence[int],
    views: Views,
    calibration: CalibratedOn,
    *,
    frozen: bool,
    fold_column: str | None,
) -> str:
    """Return what stands beside the figures of a cross-validation as its protocol, see `cross_validate`.

    Args:
        folds: How many folds.
        seeds: Those it was run with.
        views: By label, what is asked together.
        calibration: On whom probabilities are calibrated.
        frozen: Whether the pretrained backbone was used as it is.
        fold_column: Column that says in which fold a row is tested; None where the women were split.
    """
    parts = [f"{folds} folds by woman" + (f" as the column {fold_column} declares" if fold_column is not None else "")]
    parts.append(f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}")
    parts += [f"the views of a {group} asked together for {name}" for name, group in views.items()]
    if calibration == "folds":
        parts.append("calibrated on the test women of the other folds")
    model = "the pretrained backbone, not trained" if frozen else "a fresh model trained in each fold"
    return f"{', '.join(parts)}; {model}"


def fused(vectors: npt.NDArray[np.float32], frame: pd.DataFrame, views: Group | None) -> npt.NDArray[np.float32]:
    """Return vectors of which each is the mean of its group's, of unit length.

    Args:
        vectors: float32 (n, d), unit length.
        frame: (n rows) of the manifest.
        views: What makes a group; None leaves the vectors as they are.
    """
    if views is None:
        return vectors
    groups = view_groups(frame, views)
    return fuse_vectors(vectors, groups)[groups].astype(np.float32)


def _run_fold(
    frame: pd.DataFrame,
    recipe: Recipe,
    fold: Fold,
    targets: tuple[str, ...],
    views: Views,
    seed: int,
    place: Path,
    crops: CropStore,
    device: str,
    workers: int | None,
    label: str,
    progress: Progress | None,
) -> tuple[FoldPredictions, str]:
    split = np.full(len(frame), "train", dtype=object)
    split[fold.test] = "test"

    def batch(epoch: int, done: int, total: int) -> None:
        if progress is not None:
            progress(epoch * total + done, recipe.training.all_epochs * total, f"{label}, epoch {epoch + 1}")

    result = train(
        frame.assign(split=split),
        place,
        network=recipe.network,
        preparation=recipe.preparation,
        training=replace(recipe.training, seed=recipe.training.seed + seed),
        labels=recipe.labels,
        metric_labels=recipe.metric_labels,
        device=device,
        workers=workers,
        callbacks=TrainingCallbacks(batch=batch),
        crops=crops,
    )
    embedder = Embedder.load(place, device=device)
    check_unseen(embedder.card, patient_key(frame.iloc[fold.test]), place)
    vectors, embedded, failures = embed_rows(embedder, frame, workers, None)
    if failures or not embedded["row_id"].equals(frame["row_id"]):
        raise ClassificationError(place, f"{len(failures)} images could be read before the training and not after it")
    return _predict(vectors, frame, fold, targets, seed, views), result.digest


def _run_fused_fold(
    crops: CropStore,
    recipe: Recipe,
    fold: Fold,
    targets: tuple[str, ...],
    views: Views,
    seed: int,
    place: Path,
    device: str,
) -> tuple[FoldPredictions, str]:
    """Predict with the pretrained backbone and descriptors that the fold's own training women standardise."""
    known = crops.take(crops.frame.iloc[fold.train])
    digest = pretrained_model(place, recipe.network, recipe.preparation, known)
    embedder = Embedder.load(place, device=device)
    check_unseen(embedder.card, patient_key(crops.frame.iloc[fold.test]), place)
    return _predict(embedder.embed_store(crops), crops.frame, fold, targets, seed, views), digest


def _fold_plan(
    frame: pd.DataFrame, recipe: Recipe, fold: Fold, targets: tuple[str, ...], views: Views, seed: int
) -> dict[str, Any]:
    """Return all that a fold's predictions depend on, as plain JSON values."""
    plan = {
        "manifest": manifest_digest(frame),
        "recipe": recipe.to_dict(),
        "test_rows": frame["row_id"].iloc[fold.test].tolist(),
        "targets": targets,
        "views": views,
        "seed": seed,
    }
    return dict(json.loads(json.dumps(plan)))


def _finished_fold(place: Path, plan: dict[str, Any]) -> tuple[FoldPredictions, str, float] | None:
    """Return what a finished fold predicts, the digest of its model, and the seconds it took."""
    path = place / "predictions.json"
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text("utf-8"))
        if content["plan"] != plan:
            raise ClassificationError(
                place, "holds a fold of another cross-validation", "choose another work folder, or delete this one"
            )
        predictions = FoldPredictions.from_dict(content["predictions"])
        return predictions, str(content["model_digest"]), float(content["seconds"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ClassificationError(path, f"is damaged ({error})", "delete this file to repeat the fold") from error


def _keep_fold(place: Path, plan: dict[str, Any], predictions: FoldPredictions, digest: str, seconds: float) -> None:
    content = {"plan": plan, "model_digest": digest, "seconds": seconds, "predictions": predictions.to_dict()}
    write_json(place / "predictions.json", content)


def _context(
    frame: pd.DataFrame, granularity: str, protocol: str, digest: str, failures: list[tuple[str, str]]
) -> dict[str, Any]:
    """Return what must stand beside every figure (law 6 of the design)."""
    return {
        "protocol": protocol,
        "granularity": granularity,
        "datasets": sorted(frame["dataset"].unique()),
        "rows": len(frame),
        "women": int(patient_key(frame).nunique()),
        "manifest_digest": digest,
        "failed_rows": len(failures),
    }
