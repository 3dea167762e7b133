"""The table holds every variant beside its baseline, and what a fold's test women are cannot reach its predictions."""

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import save_file

from benchmarks import context, contextquestions
from benchmarks.contextquestions import Images, ask_density, ask_pathology, ask_trained, embed_trained
from classifiers.fitted import ClassifierConfig, FittedClassifiers, fit_classifiers
from classifiers.folds import patient_folds
from classifiers.heads import HeadConfig
from embedder.embedding import Embedder, pretrained_model
from embedder.findings import patient_key, typed_columns
from embedder.network import EmbedderNetwork, NetworkConfig
from embedder.preparation import PreparationConfig
from embedder.recipe import Recipe
from embedder.rois import load_crops

WOMEN = 60


@pytest.fixture(scope="module")
def images() -> Images:
    """Both breasts of 60 women, whose density and pathology show in their vectors."""
    rng = np.random.default_rng(0)
    women = np.arange(2 * WOMEN) // 2
    frame = pd.DataFrame(
        {
            "row_id": [f"r{row}" for row in range(2 * WOMEN)],
            "dataset": "a",
            "patient_id": women.astype(str),
            "granularity": "finding",
            "laterality": ["L", "R"] * WOMEN,
            "density": np.array(["fatty", "glandular", "dense"], dtype=object)[women % 3],
            "pathology": np.array(["benign", "malignant", None], dtype=object)[women // 3 % 2],
            "lesion_type": np.array(["mass", "calcification"], dtype=object)[women % 2],
            **{
                name: rng.normal(size=2 * WOMEN) for name in contextquestions.CONTEXTS["finding"]["risk with asymmetry"]
            },
        }
    )
    pixels = rng.normal(size=(2 * WOMEN, 12))
    pixels[:, 0] += 4.0 * (women % 3 - 1)
    pixels[:, 1] += 1.5 * (women // 3 % 2)
    pixels /= np.linalg.norm(pixels, axis=1, keepdims=True)
    return Images(frame, pixels, rng.normal(size=(2 * WOMEN, 5)))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads of one strength, in few folds."""

    def fit(
        vectors: np.ndarray, labels: np.ndarray, keys: np.ndarray, seed: int, seen: np.ndarray | None = None
    ) -> FittedClassifiers:
        config = ClassifierConfig(head=HeadConfig(strengths=(1.0,)), folds=2, seed=seed)
        return fit_classifiers(vectors, labels, keys, config, seen=seen)

    monkeypatch.setattr(contextquestions, "_fit", fit)


def arguments(**given: object) -> argparse.Namespace:
    return argparse.Namespace(folds=3, seeds=[0], resamples=50, **given)


def test_both_breasts_of_a_woman_are_asked_together(images: Images) -> None:
    frame = images.frame
    keys = patient_key(frame).to_numpy(dtype=object)
    fold = patient_folds(keys, frame["density"].to_numpy(dtype=object), 3, 0)[0]
    found = ask_density(images.pixels, frame, "density", fold, 0)
    for name, answer in found.items():
        values = answer.probabilities
        np.testing.assert_allclose(values.sum(axis=1), 1)
        np.testing.assert_array_equal(answer.rows, fold.test)
        # The rows of a woman stand one after the other.
        alike = np.abs(values[::2] - values[1::2]).max() < 1e-9
        assert alike == ("both breasts" in name)
    one = found["linear head: one breast"].probabilities
    both = found["linear head: both breasts, mean of probabilities"].probabilities
    np.testing.assert_allclose(both[::2], (one[::2] + one[1::2]) / 2)


@pytest.mark.parametrize(
    ("question", "label", "baseline", "reference"),
    [
        (ask_density, "density", "one breast", "kNN vote: one breast"),
        (ask_pathology, "pathology", "linear head", "linear head"),
        (ask_trained, "pathology", "risk of all women", "risk of all women"),
    ],
)
def test_every_variant_stands_beside_its_baseline(
    images: Images, question: context.Question, label: str, baseline: str, reference: str
) -> None:
    table = pd.DataFrame(context.measure(images, label, question, baseline, 0.3, arguments()))
    assert (table["women"] == WOMEN).all()
    assert (table["predictions"] == 2 * WOMEN).all()
    assert (table["items"] == 2 * WOMEN).all()
    assert reference in set(table.loc[table["baseline"], "variant"])
    same = table[table["baseline"]]
    assert (same[["difference", "difference_low", "difference_high"]] == 0).all(axis=None)
    values = table.set_index(["variant", "score"])["value"]
    for _, row in table[~table["baseline"]].iterrows():
        start = f"{row['variant'].partition(': ')[0]}: {baseline}" if label == "density" else baseline
        if row["score"] != "auc_within_folds":
            assert row["value"] - values[start, row["score"]] == pytest.approx(row["difference"], abs=1e-9)
    assert (table["low"] <= table["high"]).all()
    # What was put into the vectors is found.
    found = values[reference, "accuracy" if label == "density" else "auc"]
    assert found > (0.6 if label == "density" else 0.55)


def test_outcomes_of_test_women_do_not_reach_their_predictions(images: Images) -> None:
    keys = patient_key(images.frame).to_numpy(dtype=object)
    fold = patient_folds(keys, images.frame["pathology"].to_numpy(dtype=object), 3, 0)[0]
    changed = images.frame.copy()
    changed.loc[fold.test, "pathology"] = np.where(
        changed.loc[fold.test, "pathology"] == "benign", "malignant", "benign"
    )
    for question in (ask_pathology, ask_trained):
        first, second = (
            question(images.vectors(fold.train, 0.3), frame, "pathology", fold, 0) for frame in (images.frame, changed)
        )
        for name in first:
            np.testing.assert_array_equal(first[name].probabilities, second[name].probabilities)


def test_a_trained_layer_knows_the_women_it_was_trained_on(images: Images) -> None:
    noise = np.random.default_rng(3).normal(size=(2 * WOMEN, 40))
    labels = images.frame["pathology"].to_numpy(dtype=object)
    rows = np.arange(WOMEN)
    found = embed_trained(noise, labels, rows, 0)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1)
    np.testing.assert_array_equal(found, embed_trained(noise, labels, rows, 0))
    malignant = labels == "malignant"

    def apart(half: np.ndarray) -> float:
        own = found[half] @ found[half].T
        same = malignant[half][:, None] == malignant[half]
        return own[same].mean() - own[~same].mean()

    assert apart(rows) > apart(np.arange(WOMEN, 2 * WOMEN)) + 0.3


def test_vectors_are_those_of_the_model_with_descriptors(
    synthetic_manifest: Callable[..., pd.DataFrame],
    tiny_network: NetworkConfig,
    tiny_preparation: PreparationConfig,
    tmp_path: Path,
) -> None:
    weights = tmp_path / "weights.safetensors"
    save_file(EmbedderNetwork(tiny_network, {}).state_dict(), weights)
    network = dataclasses.replace(tiny_network, weights=str(weights))
    fused = dataclasses.replace(tiny_preparation, descriptors=("shape",))
    frame = synthetic_manifest(12)
    crops, train = load_crops(frame, fused), np.arange(8)
    pretrained_model(tmp_path / "plain", network, tiny_preparation)
    pretrained_model(tmp_path / "fused", network, fused, crops.take(frame.iloc[train]))
    pixels = Embedder.load(tmp_path / "plain", device="cpu").embed_store(crops).astype(np.float64)
    expected = Embedder.load(tmp_path / "fused", device="cpu").embed_store(crops).astype(np.float64)
    images = Images(frame, pixels, crops.descriptors.astype(np.float64))
    found = images.vectors(train, network.fusion_weight)
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-5)


def test_each_row_is_compared_with_the_womans_other_breast(
    synthetic_manifest: Callable[..., pd.DataFrame],
    tiny_network: NetworkConfig,
    tiny_preparation: PreparationConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        Recipe,
        "default",
        lambda granularity: Recipe(tiny_network, dataclasses.replace(tiny_preparation, granularity=granularity)),
    )
    findings = synthetic_manifest(4, view_count=2, laterality=["L", "R"] * 4)
    breasts = findings.assign(granularity="breast", x0=pd.NA, y0=pd.NA, x1=pd.NA, y1=pd.NA)
    breasts["row_id"] += "-breast"
    frame = typed_columns(pd.concat([findings.iloc[:7], breasts.iloc[:7]], ignore_index=True))
    for granularity in ("finding", "breast"):
        seen = contextquestions.see(frame, granularity, tmp_path)
        assert len(seen.frame) == len(seen.pixels) == len(seen.described) == 7
        unlike = seen.frame["asymmetry"].to_numpy()
        # The last woman's other breast is not there: unknown, and not alike.
        assert np.isnan(unlike[6])
        assert (unlike[:6] > 0).all()
        compared = [f"asymmetry of {name}" for name in contextquestions.COMPARED[granularity]]
        assert seen.frame[compared].notna().sum().tolist() == [6] * len(compared)
        if granularity == "breast":
            np.testing.assert_allclose(unlike[:6:2], unlike[1:6:2])
            np.testing.assert_allclose(unlike[:6:2], 1 - (seen.pixels[:6:2] * seen.pixels[1:6:2]).sum(axis=1))


def test_the_whole_table_is_written(images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Read:
        frame = images.frame

    monkeypatch.setattr(context, "read_dataset", lambda name, folder: Read)
    monkeypatch.setattr(context, "find_data", lambda data: tmp_path)
    monkeypatch.setattr(context, "see", lambda frame, granularity, work: images)
    monkeypatch.setattr(context, "PARTS", [part for part in context.PARTS if part[0] == "finding"][:1])
    output = tmp_path / "results" / "table.csv"
    context.run(arguments(data=None, work=tmp_path, output=output))
    table = pd.read_csv(output)
    assert set(table["variant"]) == {"kNN vote", "linear head", *contextquestions.CONTEXTS["finding"]}
    assert {"granularity", "vectors", "processor", "seeds"} <= set(table.columns)
