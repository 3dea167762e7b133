import dataclasses
import errno
import json
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest

from classifiers import ClassificationError, crossvalidation
from classifiers.crossvalidation import cross_validate, evaluate_model
from embedder.embedding import Embedder, pretrained_model
from embedder.findings import patient_key
from embedder.recipe import Recipe
from embedder.training import TrainingConfig, train
from errors import MammoseekError


@pytest.fixture
def recipe(tiny_network, tiny_preparation) -> Recipe:
    return Recipe(tiny_network, tiny_preparation, TrainingConfig(epochs=1, validation_share=0.0))


def test_a_fresh_model_in_each_fold_never_sees_the_women_of_that_fold(
    synthetic_manifest, recipe, tmp_path, monkeypatch
):
    frame = synthetic_manifest(12, view_count=2)
    seen = []
    original = crossvalidation.train

    def spy(rows, *args, **kwargs):
        result = original(rows, *args, **kwargs)
        seen.append((set(patient_key(rows)[rows["split"] == "test"]), result.card))
        return result

    monkeypatch.setattr(crossvalidation, "train", spy)
    outcome = cross_validate(frame, recipe, folds=3, work=tmp_path, resamples=50, device="cpu")
    assert len(seen) == 3
    for test_women, card in seen:
        assert all(card.role(woman) == "unseen" for woman in test_women)
        assert sum(card.role(woman) != "unseen" for woman in set(patient_key(frame))) == 12 - len(test_women)
    tested = [row_id for fold in outcome.folds for row_id in fold.queries["row_id"]]
    assert sorted(tested) == sorted(frame["row_id"])


def test_finished_folds_are_kept_and_another_plan_is_refused(synthetic_manifest, recipe, tmp_path, monkeypatch):
    frame = synthetic_manifest(12)
    first = cross_validate(frame, recipe, folds=2, work=tmp_path, resamples=50, device="cpu").scorecard.to_dict()
    monkeypatch.setattr(crossvalidation, "train", None)
    again = cross_validate(frame, recipe, folds=2, work=tmp_path, resamples=50, device="cpu").scorecard.to_dict()
    assert again == first
    other = replace(recipe, training=replace(recipe.training, epochs=2))
    with pytest.raises(ClassificationError, match="another cross-validation"):
        cross_validate(frame, other, folds=2, work=tmp_path, resamples=50, device="cpu")
    (tmp_path / "fold-1-of-2" / "predictions.json").write_text("{")
    with pytest.raises(ClassificationError, match="is damaged"):
        cross_validate(frame, recipe, folds=2, work=tmp_path, resamples=50, device="cpu")


def test_a_fold_that_cannot_be_kept_is_told(synthetic_manifest, recipe, tmp_path, monkeypatch):
    def full(path, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("classifiers.predictions.write_whole", full)
    with pytest.raises(ClassificationError, match=r"fold-1-of-2.predictions\.json: the disk is full"):
        cross_validate(synthetic_manifest(12), recipe, folds=2, work=tmp_path, resamples=50, device="cpu")


def test_a_frozen_run_scores_the_same_queries_on_the_same_folds(synthetic_manifest, recipe):
    frame = synthetic_manifest(12, view_count=2)
    frozen = cross_validate(frame, recipe, folds=3, frozen=True, resamples=50, device="cpu")
    trained = cross_validate(frame, recipe, folds=3, resamples=50, device="cpu")
    for one, two in zip(frozen.folds, trained.folds, strict=True):
        assert one.queries.equals(two.queries)
    context = frozen.scorecard.to_dict()["context"]
    assert context["women"] == 12
    assert "not trained" in context["protocol"]


@pytest.mark.parametrize("frozen", [True, False])
def test_no_descriptor_is_standardised_on_a_folds_test_women(synthetic_manifest, recipe, tmp_path, frozen):
    frame = synthetic_manifest(12, view_count=2)
    fused = dataclasses.replace(
        recipe, preparation=dataclasses.replace(recipe.preparation, descriptors=("intensity", "hog"))
    )
    found = cross_validate(frame, fused, folds=3, frozen=frozen, work=tmp_path, resamples=50, device="cpu")
    plain = cross_validate(frame, recipe, folds=3, frozen=frozen, resamples=50, device="cpu")
    digests = found.scorecard.context["model_digests"]
    assert len(set(digests)) == 3
    for number, fold in enumerate(found.folds, 1):
        place = tmp_path / (f"pretrained-{number}-of-3" if frozen else f"fold-{number}-of-3")
        card = Embedder.load(place, device="cpu").card
        test_women = set(fold.queries["woman"])
        assert {card.role(woman) for woman in test_women} == {"unseen"}
        assert {card.role(woman) for woman in set(patient_key(frame)) - test_women} <= {
            "descriptors",
            "train",
            "validation",
        }
        assert fold.queries.equals(plain.folds[number - 1].queries)
    assert set(digests).isdisjoint(plain.scorecard.context["model_digests"])


def test_a_trained_model_is_scored_on_unseen_women_only(synthetic_manifest, recipe, tmp_path):
    frame = synthetic_manifest(12, view_count=2)
    women = patient_key(frame)
    test = sorted(set(women))[:4]
    frame = frame.assign(split=["test" if woman in test else "train" for woman in women])
    train(
        frame,
        tmp_path,
        network=recipe.network,
        preparation=recipe.preparation,
        training=recipe.training,
        device="cpu",
    )
    scorecard = evaluate_model(frame, tmp_path, resamples=50, device="cpu").to_dict()
    assert scorecard["context"]["test_women"] == 4
    assert scorecard["context"]["test_rows"] == 8
    with pytest.raises(ClassificationError, match="trained on every woman"):
        evaluate_model(frame[frame["split"] == "train"], tmp_path, resamples=50, device="cpu")


@pytest.fixture
def half_seen(synthetic_manifest, recipe, tmp_path):
    """A manifest of 12 women with two images each, and the folder of a model trained on eight of them."""
    frame = synthetic_manifest(12, view_count=2)
    train(
        frame[~frame["patient_id"].isin(["w0", "w1", "w2", "w3"])],
        tmp_path,
        network=recipe.network,
        preparation=recipe.preparation,
        training=recipe.training,
        device="cpu",
    )
    return frame, tmp_path


@pytest.mark.parametrize(
    "rename",
    [
        lambda frame: frame.assign(dataset="renamed"),
        lambda frame: frame.assign(patient_id=frame["patient_id"].str.upper()),
    ],
)
def test_women_whose_images_were_trained_on_are_seen_whatever_they_are_called(half_seen, rename):
    frame, model = half_seen
    expected = evaluate_model(frame, model, resamples=50, device="cpu").to_dict()
    assert expected["context"]["test_women"] == 4
    found = evaluate_model(rename(frame), model, resamples=50, device="cpu").to_dict()
    assert found["context"]["protocol"] == expected["context"]["protocol"]
    assert (found["context"]["test_women"], found["context"]["folds"][0]["gallery_women"]) == (4, 8)


def test_one_image_of_hers_is_enough(half_seen, tmp_path):
    frame, model = half_seen
    renamed = frame.assign(dataset="renamed")
    # Her first image was written anew, and the one that was trained on stands on a row of the other granularity only.
    own = np.flatnonzero(frame["patient_id"] == "w4")
    anew = cv2.imread(renamed.loc[own[0], "path"], cv2.IMREAD_GRAYSCALE)
    anew[0, 0] ^= 1
    cv2.imwrite(str(tmp_path / "anew.png"), anew)
    renamed.loc[own[0], "path"] = str(tmp_path / "anew.png")
    renamed.loc[own[1], ["x0", "y0", "x1", "y1"]] = pd.NA
    renamed.loc[own[1], "granularity"] = "breast"
    context = evaluate_model(renamed, model, resamples=50, device="cpu").to_dict()["context"]
    assert (context["test_women"], context["folds"][0]["gallery_women"]) == (4, 8)


def test_a_model_whose_card_names_none_of_them_says_no_more_than_that(
    synthetic_manifest, tiny_network, tiny_preparation, tmp_path
):
    pretrained_model(tmp_path, tiny_network, tiny_preparation)
    protocol = evaluate_model(synthetic_manifest(12), tmp_path, resamples=50, device="cpu").context["protocol"]
    assert protocol == "5 folds by woman, seed 0; no woman or image of this manifest is named in the model's card"


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seeds_out_of_range_are_refused(synthetic_manifest, recipe, tmp_path, seed):
    frame = synthetic_manifest(4)
    with pytest.raises(ClassificationError, match=f"seed: {seed} is out of range; use 0 to 4294967295"):
        evaluate_model(frame, tmp_path, seed=seed)
    for frozen in (True, False):
        with pytest.raises(ClassificationError, match=f"seed: {seed} is out of range"):
            cross_validate(frame, recipe, folds=2, seed=seed, frozen=frozen)
    late = replace(recipe, training=replace(recipe.training, seed=2**32 - 1))
    with pytest.raises(ClassificationError, match=f"seed: {2**32} is out of range"):
        cross_validate(frame, late, folds=2, seed=1)


def test_rows_come_back_in_the_manifests_order_whatever_the_order_of_images(
    synthetic_manifest, tiny_network, tiny_preparation, tmp_path
):
    pretrained_model(tmp_path, tiny_network, tiny_preparation)
    embedder = Embedder.load(tmp_path, device="cpu")
    frame = synthetic_manifest(6)
    # The same image in rows 0 and 3: the reader takes both at once.
    twice = frame.iloc[[0, 1, 2, 0, 4]].reset_index(drop=True)
    twice = twice.assign(row_id=[f"r{i}" for i in range(5)])
    twice.loc[2, "path"] = str(tmp_path / "gone.png")
    vectors, rows, failures = crossvalidation.embed_rows(embedder, twice, None, None)
    assert rows["row_id"].tolist() == ["r0", "r1", "r3", "r4"]
    assert [name for name, _ in failures] == ["r2"]
    assert np.array_equal(vectors[0], vectors[2])
    alone, _, _ = crossvalidation.embed_rows(embedder, twice.iloc[[4]].reset_index(drop=True), None, None)
    assert np.allclose(vectors[3], alone[0], atol=1e-5)


@pytest.mark.parametrize(("women", "folds"), [(2, 3), (1, 2)])
def test_too_few_women_for_the_folds_are_named(synthetic_manifest, recipe, women, folds):
    with pytest.raises(MammoseekError):
        cross_validate(synthetic_manifest(women), recipe, folds=folds, frozen=True, device="cpu")


def test_other_granularity_and_unreadable_images_are_clear_errors(synthetic_manifest, recipe, tmp_path):
    frame = synthetic_manifest(6)
    breast = Recipe(recipe.network, replace(recipe.preparation, granularity="breast"), recipe.training)
    with pytest.raises(ClassificationError, match="granularity breast"):
        cross_validate(frame, breast, folds=2, frozen=True)
    with pytest.raises(ClassificationError, match="none of its 6 images"):
        cross_validate(frame.assign(path=str(tmp_path / "gone.png")), recipe, folds=2, frozen=True)


def test_the_plan_of_a_fold_is_plain_json(synthetic_manifest, recipe):
    frame = synthetic_manifest(4)
    fold = crossvalidation.Fold(np.arange(2), np.arange(2, 4))
    plan = crossvalidation._fold_plan(frame, recipe, fold, ("pathology",), {}, 0)
    assert json.loads(json.dumps(plan)) == plan


def test_views_are_asked_together_for_the_labels_that_say_so(synthetic_manifest, tiny_network, tiny_preparation):
    frame = synthetic_manifest(12, view_count=2)
    recipe = Recipe(tiny_network, tiny_preparation)
    options = {"folds": 3, "frozen": True, "resamples": 50, "device": "cpu", "targets": ("lesion_type", "pathology")}
    alone = cross_validate(frame, recipe, **options)
    together = cross_validate(frame, recipe, views={"pathology": "woman"}, **options)
    assert "the views of a woman asked together for pathology" in together.scorecard.context["protocol"]
    for first, second in zip(alone.folds, together.folds, strict=True):
        assert first.targets["lesion_type"].retrieval.equals(second.targets["lesion_type"].retrieval)
        # The two views of a woman are one question, and so they get one answer.
        spread = [
            fold.targets["pathology"].retrieval.groupby(fold.queries["woman"]).agg(np.ptp).fillna(0)
            for fold in (first, second)
        ]
        assert (spread[0] > 0).any(axis=None)
        assert (spread[1] == 0).all(axis=None)
