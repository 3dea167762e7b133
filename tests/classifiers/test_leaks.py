"""Leaks that were planted on purpose are found, and honest folds pass."""

import dataclasses
import shutil

import cv2
import numpy as np
import pytest

from classifiers import ClassificationError, crossvalidation, leaks
from classifiers.crossvalidation import cross_validate
from classifiers.folds import Fold, patient_folds
from classifiers.leaks import check_images, check_super_resolution, check_unseen, check_women, trained_on
from embedder.checkpoint import image_digests, read_card, woman_digest
from embedder.duplicates import find_duplicates
from embedder.embedding import pretrained_model
from embedder.findings import patient_key
from embedder.recipe import Recipe
from embedder.rois import load_crops


@pytest.fixture
def frame(synthetic_manifest):
    return synthetic_manifest(12)


@pytest.fixture
def folds(frame):
    return patient_folds(patient_key(frame), frame["lesion_type"], 3, 0)


def test_honest_folds_pass(frame, folds):
    check_women(frame, folds)
    check_images(frame, folds, find_duplicates(frame))


def test_a_woman_in_two_folds_is_named(frame, folds):
    woman = frame["patient_id"].iloc[folds[0].test[0]]
    planted = frame.copy()
    planted.loc[folds[1].test[0], "patient_id"] = woman
    with pytest.raises(ClassificationError, match=f"the woman synthetic/{woman} is in sets"):
        check_women(planted, folds)
    both = np.array([folds[0].test[0], *folds[1].test])
    with pytest.raises(ClassificationError, match="is in sets 1 and 2"):
        check_women(frame, [folds[0], Fold(np.setdiff1d(np.arange(len(frame)), both), both)])


def test_one_image_under_two_names_is_found(frame, folds, tmp_path):
    source, target = frame["path"].iloc[folds[0].test[0]], tmp_path / "renamed.jpg"
    image = cv2.imread(source, cv2.IMREAD_GRAYSCALE)
    cv2.imwrite(str(target), image[:, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
    planted = frame.copy()
    planted.loc[folds[1].test[0], "path"] = str(target)
    with pytest.raises(ClassificationError, match=r"renamed\.jpg.* are one image.* both sides of a fold"):
        check_images(planted, folds, find_duplicates(planted))
    # Within one side it teaches nothing about the other.
    planted = frame.copy()
    planted.loc[folds[0].test[1], "path"] = str(shutil.copy(source, tmp_path / "copy.png"))
    check_images(planted, folds, find_duplicates(planted))


def test_a_scaler_fitted_on_everything_is_found(frame, tiny_network, tiny_preparation, tmp_path, monkeypatch):
    preparation = dataclasses.replace(tiny_preparation, descriptors=("intensity",))
    women = patient_key(frame)
    store = load_crops(frame, preparation)
    pretrained_model(tmp_path / "honest", tiny_network, preparation, store.take(frame.iloc[4:]))
    check_unseen(read_card(tmp_path / "honest")[0], women.iloc[:4], "fold")
    pretrained_model(tmp_path / "everything", tiny_network, preparation, store)
    with pytest.raises(ClassificationError, match=r"the woman synthetic/w0 is tested.*\(descriptors\)"):
        check_unseen(read_card(tmp_path / "everything")[0], women.iloc[:4], "fold")
    # And where it matters: a cross-validation whose folds all standardise on all women does not end in a figure.
    monkeypatch.setattr(
        crossvalidation,
        "pretrained_model",
        lambda place, network, asked, known: pretrained_model(place, network, asked, store),
    )
    with pytest.raises(ClassificationError, match="the model has seen her"):
        cross_validate(frame, Recipe(tiny_network, preparation), folds=3, frozen=True, resamples=50, device="cpu")


def test_women_whom_super_resolution_learned_from_are_not_tested(frame, folds, monkeypatch):
    learned = frame[frame["patient_id"] == "w3"]
    by_name = ((woman_digest("synthetic/w3"),), ())
    by_image = ((woman_digest("elsewhere/4711"),), tuple(image_digests(learned["path"]).values()))
    for seen in (by_name, by_image):
        monkeypatch.setattr(leaks, "seen_by", lambda name, seen=seen: seen if name == "srcnn-rsna" else ((), ()))
        with pytest.raises(ClassificationError, match=r"woman synthetic/w3 is tested, .* was trained on her films"):
            check_super_resolution(frame, "srcnn-rsna")
        check_super_resolution(frame[frame["patient_id"] != "w3"], "srcnn-rsna")
        check_super_resolution(frame, "none")
        recipe = Recipe().with_settings(["preparation.super_resolution=srcnn-rsna"])
        with pytest.raises(ClassificationError, match="synthetic/w3"):
            cross_validate(frame, recipe, folds=3, frozen=True)


def test_women_of_the_training_are_told_from_those_who_chose_an_epoch_or_a_scale(frame, tmp_path):
    recipe = Recipe.default("finding")
    pretrained_model(tmp_path / "model", dataclasses.replace(recipe.network, weights="none"), recipe.preparation)
    card = read_card(tmp_path / "model")[0]
    women = ["a/1", "a/2", "a/1", "a/3", "b/1"]
    assert not trained_on(card, women).any()
    roles = {
        "train": (woman_digest("a/1"),),
        "validation": (woman_digest("a/2"),),
        "descriptors": (woman_digest("a/3"),),
    }
    assert trained_on(dataclasses.replace(card, women=roles), women).tolist() == [True, False, True, False, False]
