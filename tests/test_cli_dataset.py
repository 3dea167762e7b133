"""The commands of data sets as their users meet them."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

import console
from embedder.manifest import write_manifest
from tests.commandline import TINY, assert_clear, line, run

__all__ = ["line", "run"]  # fixtures


def test_normal_tissue_is_added_trained_and_mined(run, tissue_manifest, tmp_path):
    plain, normal, harder = (tmp_path / f"{name}.csv" for name in ("plain", "normal", "harder"))
    first, second = tmp_path / "first", tmp_path / "second"
    held = tissue_manifest["patient_id"].isin(["t1", "t2", "t7", "t8"])
    write_manifest(tissue_manifest.assign(split=np.where(held, "test", "train")), plain)
    added = json.loads(run("dataset", "normal", plain, "-o", normal, "--json").out)
    assert added["left_out"] == 3
    frame = pd.read_csv(normal)
    assert (frame["tissue"] == "normal").sum() == added["added"]
    assert set(frame.loc[frame["tissue"].isna(), "granularity"]) == {"breast"}
    quick = ("--epochs", "1", "--set", "training.validation_share=0")
    assert run("train", normal, "-o", first, *TINY, *quick).code == 0
    card = json.loads(run("model", "info", first, "--json").out)
    assert card["heads"]["tissue"] == ["lesion", "normal"]
    assert card["training"]["metric_labels"] == ["tissue", "lesion_type", "pathology"]
    scored = json.loads(run("evaluate", normal, "--model", first, "--resamples", "100", "--json").out)
    assert scored["targets"]["tissue"]["positive"] == "lesion"
    assert 0 <= scored["targets"]["tissue"]["scores"]["head"]["auc"]["value"] <= 1
    # With no least probability every place is hard: as many are added as an image may have.
    asked = ("--minimum", "0", "--per-image", "1", "--candidates", "3")
    mined = json.loads(run("dataset", "mine", normal, "--model", first, "-o", harder, *asked, "--json").out)
    new = pd.read_csv(harder).iloc[len(frame) :]
    assert mined["added"] == len(new) > 5
    assert mined["women"] == 6
    assert not set(new["patient_id"]) & {"t1", "t2", "t7", "t8"}
    assert set(new["split"]) == {"train"}
    assert run("train", harder, "-o", second, *TINY, *quick).code == 0
    none = run("dataset", "mine", normal, "--model", first, "-o", harder, "--minimum", "1")
    assert none.code == 0
    assert "0 hard negatives" in none.err


def test_normal_tissue_that_cannot_be_had_is_told(run, line, tissue_manifest, tmp_path):
    output = tmp_path / "out.csv"
    assert_clear(run("dataset", "normal", tmp_path / "none.csv", "-o", output), "there is no such file")
    assert_clear(run("dataset", "normal", line.manifest, "-o", tmp_path / "no" / "out.csv"), "its folder is not there")
    write_manifest(tissue_manifest[tissue_manifest["granularity"] == "breast"], tmp_path / "breasts.csv")
    assert_clear(run("dataset", "normal", tmp_path / "breasts.csv", "-o", output), "has no lesion")
    assert_clear(run("dataset", "mine", line.manifest, "--model", line.model, "-o", output), "has no normal tissue")
    assert_clear(run("dataset", "mine", line.manifest, "--model", tmp_path, "-o", output))
    broken = tissue_manifest.copy()
    cut = tmp_path / "cut.png"
    cut.write_bytes(Path(broken["path"].iloc[0]).read_bytes()[:200])
    broken.loc[broken["row_id"] == "t00r", "path"] = str(cut)
    write_manifest(broken, tmp_path / "broken.csv")
    partly = run("dataset", "normal", tmp_path / "broken.csv", "-o", output)
    assert partly.code == console.EXIT_PARTLY
    assert "1 images failed" in partly.err
    assert "Traceback" not in partly.err
    assert (pd.read_csv(output)["tissue"] == "normal").any()
