"""Whole images that say only cancer or none: learned by woman, calibrated, saved, and scored with its places."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from classifiers import ClassificationError
from classifiers.weaklabels import by_woman, cross_validate_weak, fit_weak, weak_rows
from classifiers.weakmodel import CARD_FILE, WEIGHTS_FILE, WeakModel, draw_answer, train_weak
from embedder.bags import embed_bags
from embedder.checkpoint import ModelError, load_model, woman_digest
from embedder.embedding import pretrained_model
from embedder.findings import Finding, findings_frame, patient_key
from embedder.network import NetworkConfig
from embedder.preparation import PreparationConfig
from embedder.tiles import TileConfig, TileEmbedder
from embedder.weakrecipe import WeakRecipe
from embedder.weakscorers import ScorerConfig
from tests.conftest import draw_breast

RECIPE = WeakRecipe(TileConfig(side=128), ScorerConfig(strength=1.0))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], pd.DataFrame]:
    """A function of the number of women: two images each, every second woman with a bright mass."""
    folder = tmp_path_factory.mktemp("breasts")

    def make(women: int) -> pd.DataFrame:
        rows = []
        for woman in range(women):
            for view in range(2):
                path = folder / f"w{woman}-{view}.png"
                if not path.exists():
                    pixels = draw_breast(100 * woman + view, mass=woman % 2 == 0)
                    if woman % 2:  # what draw_breast draws instead of a mass are specks
                        pixels = np.where(pixels > 150, 90, pixels).astype(np.uint8)
                    cv2.imwrite(str(path), pixels[:, ::-1] if view else pixels)
                pathology = "no cancer" if woman % 2 else "malignant"
                rows.append(
                    Finding(f"w{woman}-{view}", str(path), "breast", "synthetic", f"w{woman}", pathology=pathology)
                )
        return findings_frame(rows)

    return make


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_network: NetworkConfig) -> Path:
    folder = tmp_path_factory.mktemp("patch") / "model"
    pretrained_model(folder, tiny_network, PreparationConfig(height=32, width=32))
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, images, model) -> Path:
    folder = tmp_path_factory.mktemp("weak") / "weak"
    train_weak(images(24), model, folder, RECIPE, device="cpu", workers=1)
    return folder


def test_women_with_a_mass_are_told_and_the_mass_is_the_place(images, model, trained, tmp_path):
    frame = images(28).iloc[48:]
    scorer = WeakModel.load(trained)
    answers, failures = scorer.score_all([Path(path) for path in frame["path"]], most=1)
    assert not failures
    probabilities = np.array([answer.probability for answer in answers])
    positive = (frame["pathology"] == "malignant").to_numpy()
    assert probabilities[positive].min() > probabilities[~positive].max()
    for answer, (_, row) in zip(answers, frame.iterrows(), strict=True):
        if row["pathology"] == "malignant":
            x = 95 if row["row_id"].endswith("-1") else 25
            box = answer.places[0].box
            assert box.x0 <= x < box.x1
            assert box.y0 <= 60 < box.y1
    draw_answer(answers[0], tmp_path / "evidence.png")
    assert (tmp_path / "evidence.png").stat().st_size > 1000


def test_evidence_adds_up_and_the_answer_is_the_same_again(images, trained):
    path = Path(images(28).iloc[50]["path"])
    first, again = WeakModel.load(trained).score(path), WeakModel.load(trained).score(path)
    assert first.to_dict() == again.to_dict()
    assert np.array_equal(first.evidence, again.evidence)
    assert first.attention.sum() == pytest.approx(1, abs=1e-4)
    json.dumps(first.to_dict())


def test_the_card_names_the_women_and_its_embedder(images, model, trained):
    card = json.loads((trained / CARD_FILE).read_text())
    assert card["women"] == sorted({woman_digest(key) for key in patient_key(images(24))})
    assert card["embedder"] == load_model(model)[2]
    assert card["data"]["women"] == 24
    assert card["figures"]["auc of cross-fitted scores"]["woman"]["value"] > 0.9


def test_an_image_that_it_was_trained_on_is_refused(images, trained):
    scorer = WeakModel.load(trained)
    answers, failures = scorer.score_all([Path(images(24)["path"].iloc[0]), Path("nowhere.png")])
    assert answers == []
    assert "was trained on this image" in failures[0][1]
    assert "there is no such file" in failures[1][1]


def test_the_same_seed_gives_the_same_model_and_women_of_the_test_are_left_out(images, model, trained, tmp_path):
    frame = images(28)
    frame["split"] = np.where(np.arange(56) < 48, "train", "test")
    card = train_weak(frame, model, tmp_path / "again", RECIPE, device="cpu", workers=1)
    assert card["women"] == json.loads((trained / CARD_FILE).read_text())["women"]
    assert (tmp_path / "again" / WEIGHTS_FILE).read_bytes() == (trained / WEIGHTS_FILE).read_bytes()
    with pytest.raises(ModelError, match="holds a model already"):
        train_weak(frame, model, tmp_path / "again", RECIPE, device="cpu", workers=1)


@pytest.mark.parametrize("damage", ["cut", "mixed", "changed", "card", "gone", "other embedder"])
def test_a_damaged_model_is_refused(trained, tiny_network, tmp_path, damage):
    folder = tmp_path / "weak"
    shutil.copytree(trained, folder)
    card = folder / CARD_FILE
    if damage == "cut":
        (folder / WEIGHTS_FILE).write_bytes((folder / WEIGHTS_FILE).read_bytes()[:-7])
    elif damage == "mixed":
        (folder / WEIGHTS_FILE).unlink()
    elif damage == "changed":
        card.write_text(card.read_text().replace('"strength": 1.0', '"strength": 2.0'))
    elif damage == "card":
        card.write_text("[")
    elif damage == "gone":
        card.unlink()
    else:
        shutil.rmtree(folder / "embedder")
        pretrained_model(folder / "embedder", tiny_network, PreparationConfig(height=32, width=32, clahe=2.0))
    with pytest.raises(ModelError):
        WeakModel.load(folder)


def test_every_woman_is_predicted_by_a_model_of_others(images, model, tmp_path, monkeypatch):
    frame = images(20)
    seen = []
    import classifiers.weaklabels as module

    def watched(inputs, positive, women, features, config, *, progress=None):
        fitted = fit_weak(inputs, positive, women, features, config, progress=progress)
        seen.append(set(women))
        return fitted

    monkeypatch.setattr(module, "fit_weak", watched)
    found = cross_validate_weak(frame, model, RECIPE, folds=5, work=tmp_path, device="cpu", workers=1)
    everybody = set(patient_key(frame))
    assert len(seen) == 5
    assert set().union(*(everybody - women for women in seen)) == everybody
    assert sum(len(everybody - women) for women in seen) == len(everybody)
    scores = found.scores(resamples=100)
    assert scores["image"]["auc"].value > 0.8
    assert scores["woman"]["auc"].items == 20
    files = sorted(path.name for path in tmp_path.iterdir())
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again = cross_validate_weak(frame, model, RECIPE, folds=5, work=tmp_path, device="cpu", workers=1)
    assert np.array_equal(again.probabilities, found.probabilities)
    assert files == sorted(path.name for path in tmp_path.iterdir())
    assert stamps == {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}


def test_images_that_fail_are_listed_and_the_rest_is_embedded(images, model, tmp_path):
    frame = images(6)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\nno more")
    frame.loc[3, "path"] = str(broken)
    frame.loc[5, "path"] = str(tmp_path / "nowhere.png")
    embedder = TileEmbedder(load_model(model)[0], PreparationConfig(), RECIPE.tiles)
    bags = embed_bags(frame, embedder, "digest", tmp_path / "tiles", workers=2)
    assert [row for row, _ in bags.failures] == ["w1-1", "w2-1"]
    assert bags.frame["row_id"].tolist() == [row for row in frame["row_id"] if row not in ("w1-1", "w2-1")]
    for row in range(len(bags.frame)):
        own = embed_bags(bags.frame.iloc[[row]], embedder, "digest", tmp_path / "tiles", workers=1)
        assert own.files == (bags.files[row],)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"granularity": "finding"}, "no whole breast with a pathology"),
        ({"pathology": None}, "no whole breast with a pathology"),
        ({"pathology": "malignant"}, "0 women with no cancer"),
        ({"pathology": "benign"}, "0 women with cancer"),
        ({"patient_id": "one"}, "1 women with no cancer"),
    ],
)
def test_too_little_to_learn_from_is_told(images, change, says):
    with pytest.raises(ClassificationError, match=says):
        weak_rows(images(4).assign(**change))


def test_an_embedder_that_knows_the_women_is_refused(images, model, tmp_path, monkeypatch):
    import dataclasses

    import classifiers.weaklabels as module

    network, card, digest = load_model(model)
    known = dataclasses.replace(card, women={"train": (woman_digest("synthetic/w1"),)})
    monkeypatch.setattr(module, "load_model", lambda _: (network, known, digest))
    with pytest.raises(ClassificationError, match="the model has seen her"):
        cross_validate_weak(images(6), model, RECIPE, work=tmp_path, device="cpu")


def test_a_womans_probability_is_the_mean_of_her_images():
    positive, probabilities, women = by_woman(
        np.array([False, True, False]), np.array([0.2, 0.6, 0.5]), np.array(["b", "b", "a"], dtype=object)
    )
    assert women.tolist() == ["a", "b"]
    assert positive.tolist() == [False, True]
    assert probabilities.tolist() == [0.5, 0.4]


def test_attention_learns_the_same_job(images, model, tmp_path):
    settings = ["scorer.method=attention", "scorer.attention.members=1", "scorer.attention.epochs=8"]
    recipe = RECIPE.with_settings(settings)
    train_weak(images(16), model, tmp_path / "weak", recipe, device="cpu", workers=1)
    frame = images(28).iloc[48:]
    answers, _ = WeakModel.load(tmp_path / "weak").score_all([Path(path) for path in frame["path"]])
    assert all(0 < answer.probability < 1 for answer in answers)
    assert all(answer.attention.sum() == pytest.approx(1, abs=1e-4) for answer in answers)


@pytest.mark.parametrize(
    "setting",
    ["scorer.method=guess", "scorer.strength=-1", "tiles.levels=[3]", "tiles.nothing=1", "scorer.attention=3"],
)
def test_a_wrong_setting_is_told(setting):
    with pytest.raises(ModelError):
        RECIPE.with_settings([setting])


def test_settings_reach_lists_of_numbers():
    assert RECIPE.with_settings(["tiles.magnifications=[1, 2]"]).tiles.magnifications == (1, 2)
