"""`mammoseek demo` on a part of mini-MIAS, and on the eight DICOM files where there is no other data."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import demo
from embedder.datasets import DatasetError, read_dataset
from embedder.findings import patient_key


def test_no_woman_is_on_both_sides_and_every_lesion_type_is(mini_mias):
    frame = demo.hold_out_women(read_dataset("mini-mias", mini_mias).frame)
    keys = patient_key(frame)
    sides = {split: set(keys[frame["split"] == split]) for split in ("train", "test")}
    assert not sides["train"] & sides["test"]
    assert 0.2 < len(sides["test"]) / 161 < 0.3
    for split in sides:
        findings = frame[(frame["granularity"] == "finding") & (frame["split"] == split)]
        assert findings["native_lesion_type"].nunique() == 6
    assert demo.hold_out_women(frame)["split"].equals(frame["split"]), "the split does not depend on a former one"


@pytest.fixture
def part_of_mini_mias(mini_mias, tmp_path):
    """Links to the films of 25 women, with their lines of Info.txt."""
    folder = tmp_path / "mini-mias"
    folder.mkdir()
    lines = (mini_mias / "Info.txt").read_text("latin-1").splitlines()
    chosen = {f"mdb{number:03d}" for number in (*range(1, 17), *range(91, 101), *range(169, 181), *range(209, 221))}
    kept = [line for line in lines if not line.startswith("mdb") or line[:6] in chosen]
    (folder / "Info.txt").write_text("\n".join(kept) + "\n", "latin-1")
    for name in sorted(chosen):
        (folder / f"{name}.png").symlink_to(mini_mias / "images" / f"{name}.png")
    return folder


def test_the_whole_line_on_a_part_of_mini_mias(part_of_mini_mias, tmp_path, capsys):
    output = tmp_path / "out"
    demo.run_demo(output, data=part_of_mini_mias, epochs=1, device="cpu")
    told = capsys.readouterr()
    made = output / "mini-mias"
    with Image.open(made / "answer.png") as picture:
        assert picture.size[0] > 800
    manifest = pd.read_csv(made / "manifest.csv")
    test_women = set(manifest.loc[manifest["split"] == "test", "patient_id"])
    for granularity in ("finding", "breast"):
        card = json.loads((made / f"scorecard-{granularity}.json").read_text())
        assert card["context"]["test_women"] <= len(test_women)
        assert "unseen women" in card["context"]["protocol"]
    assert "kNN vote" in told.out
    assert "Not a medical device" in told.err
    assert f"mammoseek serve {made / 'gallery-finding'} --open" in told.err
    before = {path: path.stat().st_mtime_ns for path in made.rglob("model.safetensors")}
    demo.run_demo(output, data=part_of_mini_mias, epochs=1, device="cpu")
    assert {path: path.stat().st_mtime_ns for path in made.rglob("model.safetensors")} == before


def test_without_data_it_runs_on_the_dicom_files_and_says_so(cbis_dicom, tmp_path, monkeypatch, capsys):
    def unreachable(*_args, **_kwargs):
        raise DatasetError("http://example.invalid", "can't be reached")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("embedder.datasets.download.download_mini_mias", unreachable)
    demo.run_demo(tmp_path / "out", device="cpu")
    told = capsys.readouterr()
    says = [line for line in told.err.splitlines() if "eight public DICOM files" in line]
    assert len(says) == 1
    assert "can't be reached" in says[0]
    assert "No training and no score" in told.err
    [served] = [line.split() for line in told.err.splitlines() if "mammoseek serve" in line]
    assert Path(served[served.index("--images") + 1]) in cbis_dicom[0].parents
    with Image.open(tmp_path / "out" / "dicom" / "answer.png") as picture:
        assert picture.size[0] > 800
    manifest = pd.read_csv(tmp_path / "out" / "dicom" / "manifest.csv")
    assert (manifest["granularity"] == "breast").sum() == 8
    assert (manifest["granularity"] == "finding").sum() == 96
    lines = [line.split() for line in told.out.splitlines()]
    answers = [line for line in lines if line and line[0].isdigit()]
    assert len(answers) == 11
    assert all(line[2].startswith("mias-") for line in answers), "the reference gallery answers"
    densities = [line for line in lines if len(line) == 5 and line[0].startswith("P_")]
    estimates = np.array([line[1:] for line in densities if line[1] not in ("breast",)], dtype=float)
    assert estimates.shape == (8, 4)
    np.testing.assert_allclose(estimates[:, :3].sum(axis=1), 1, atol=0.002)
    assert ((estimates[:, 3] > 0) & (estimates[:, 3] < 1)).all()


def test_a_named_folder_that_is_no_mini_mias_is_an_error_and_no_fallback(tmp_path):
    with pytest.raises(DatasetError, match="nowhere"):
        demo.run_demo(tmp_path / "out", data=tmp_path / "nowhere")
