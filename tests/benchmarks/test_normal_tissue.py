"""The benchmark of normal tissue: no test woman trains, is mined or votes, and the test places are the same for all."""

import argparse
import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import save_file

from benchmarks import normal_tissue
from embedder.findings import patient_key
from embedder.network import EmbedderNetwork, NetworkConfig
from embedder.preparation import PreparationConfig
from embedder.recipe import Recipe


@pytest.fixture
def measured(
    tissue_manifest: pd.DataFrame,
    tiny_network: NetworkConfig,
    tiny_preparation: PreparationConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> pd.DataFrame:
    """The table of a run on synthetic films, and a check of what every training and every vote knew."""
    # A network that starts at random is another one every time.
    weights = tmp_path / "weights.safetensors"
    save_file(EmbedderNetwork(tiny_network, {}).state_dict(), weights)
    network = dataclasses.replace(tiny_network, weights=str(weights))
    # Its data set's own words are what folds are stratified by.
    frame = tissue_manifest.assign(native_lesion_type=tissue_manifest["lesion_type"])

    class Read:
        pass

    Read.frame = frame  # type: ignore[attr-defined]
    monkeypatch.setattr(normal_tissue, "read_dataset", lambda name, folder: Read)
    monkeypatch.setattr(normal_tissue, "find_data", lambda data: tmp_path)
    monkeypatch.setattr(Recipe, "default", lambda granularity: Recipe(network, tiny_preparation))
    trained: list[pd.DataFrame] = []
    train, predict = normal_tissue.train, normal_tissue.predict_fold

    def watched_train(rows: pd.DataFrame, folder: Path, **options: object) -> object:
        trained.append(rows)
        return train(rows, folder, **options)  # type: ignore[arg-type]

    def watched_predict(gallery: np.ndarray, known: pd.DataFrame, asked: np.ndarray, *rest: object, **more: object):  # type: ignore[no-untyped-def]
        queries = rest[0]
        assert isinstance(queries, pd.DataFrame)
        assert not set(patient_key(known)) & set(patient_key(queries))
        assert (np.abs(np.linalg.norm(np.vstack([gallery, asked]), axis=1) - 1) < 1e-3).all()
        return predict(gallery, known, asked, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(normal_tissue, "train", watched_train)
    monkeypatch.setattr(normal_tissue, "predict_fold", watched_predict)
    monkeypatch.setattr(normal_tissue, "DESCRIPTOR_GROUPS", {"finding": ("intensity",)})
    output = tmp_path / "results" / "normal.csv"
    names = [*normal_tissue.FUSION, normal_tissue.TUNED, normal_tissue.HARD, normal_tissue.HARD_VOTING]
    normal_tissue.run(
        argparse.Namespace(
            data=None,
            folds=3,
            seeds=[0],
            epochs=1,
            candidates=4,
            runs=names,
            settings=[],
            resamples=30,
            work=tmp_path / "work",
            output=output,
        )
    )
    # The second training of a fold has the rows of the first, and mined ones of the same women.
    for first, second in zip(trained[::2], trained[1::2], strict=True):
        assert set(first["row_id"]) <= set(second["row_id"])
        mined = second[~second["row_id"].isin(first["row_id"])]
        assert (mined["tissue"] == "normal").all()
        assert set(patient_key(second)) == set(patient_key(first))
    assert len(trained) == 6
    return pd.read_csv(output)


def test_every_run_is_scored_on_the_same_places(measured: pd.DataFrame) -> None:
    runs = {normal_tissue.FROZEN, *normal_tissue.FUSION, normal_tissue.TUNED, normal_tissue.HARD}
    assert runs < set(measured["run"])
    assert "hard negatives minus fine-tuned" in set(measured["run"])
    for _, rows in measured.groupby(["against", "lesions"]):
        assert len({*zip(rows["items"], rows["women"], strict=True)}) == 1
    whole = measured[(measured["lesions"] == "all") & (measured["method"] == "head")].set_index(["against", "run"])
    for against in whole.index.unique("against"):
        figures = whole.loc[against, "value"]
        difference = figures["fine-tuned"] - figures["frozen"]
        assert figures["fine-tuned minus frozen"] == pytest.approx(difference, abs=2e-4)
    control = measured[measured["run"] == normal_tissue.CONTROL]
    assert set(control["method"]) == {"head"}
    # Ten lesions against one place on each of twenty films.
    assert (whole.loc["random normal tissue", "items"] == 30).all()
    # Bright discs on flat tissue are told from it even by measures of intensity.
    assert whole.loc[("random normal tissue", normal_tissue.DESCRIBED), "value"] > 0.8
