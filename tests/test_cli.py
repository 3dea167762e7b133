"""The command line as its users meet it: the main job on synthetic films, and every kind of bad input."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import cli
import console
from embedder.manifest import write_manifest

REPOSITORY = Path(cli.__file__).parent
TINY = (
    *("--set", "network.backbone=test_efficientnet", "--set", "network.weights=none"),
    *("--set", "network.embedding_dimension=16", "--set", "preparation.height=32", "--set", "preparation.width=32"),
    *("--set", "preparation.floor_mm=12.0"),
)
EVERY_COMMAND = (
    *(("dataset", name) for name in ("read", "check", "terms", "normal", "mine", "download")),
    ("roi", "sheet"),
    *(("model", name) for name in ("recipe", "pretrained", "compact", "list", "get", "info")),
    ("train",),
    *(
        ("index", name)
        for name in ("build", "add", "remove", "info", "verify", "rebuild", "compact", "typicality", "copy")
    ),
    *(("benchmark", name) for name in ("retrieval", "compare")),
    *(("weak", name) for name in ("train", "score", "evaluate")),
    *(("detections", name) for name in ("convert", "show", "merge")),
    *(("rescore", name) for name in ("fit", "cross-validate")),
    *(("pacs", name) for name in ("echo", "fetch", "store", "listen")),
    *((name,) for name in ("detect", "triage", "evaluate-detections", "report", "gate", "deidentify")),
    *((name,) for name in ("query", "classify", "evaluate", "demo")),
)


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


@pytest.fixture
def run(monkeypatch, capsys) -> Callable[..., Outcome]:
    """Run the command line in this process."""

    def invoke(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["mammoseek", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            console.run(cli.app)
        captured = capsys.readouterr()
        return Outcome(int(caught.value.code or 0), captured.out, captured.err)

    return invoke


@dataclass(frozen=True)
class Line:
    """A manifest of synthetic films, a tiny model and its gallery."""

    manifest: Path
    model: Path
    gallery: Path
    frame: pd.DataFrame


@pytest.fixture(scope="module")
def line(tmp_path_factory, synthetic_manifest) -> Line:
    folder = tmp_path_factory.mktemp("line")
    frame = synthetic_manifest(12, view_count=2)
    write_manifest(frame, folder / "manifest.csv")
    for arguments in (
        ("model", "pretrained", "-o", folder / "model", *TINY),
        ("index", "build", folder / "manifest.csv", "--model", folder / "model", "-o", folder / "gallery"),
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["mammoseek", *map(str, arguments)])
            with pytest.raises(SystemExit) as caught:
                console.run(cli.app)
        assert not caught.value.code
    return Line(folder / "manifest.csv", folder / "model", folder / "gallery", frame)


@pytest.fixture
def gallery(line, tmp_path) -> Path:
    """A copy of the gallery that a test may spoil."""
    return Path(shutil.copytree(line.gallery, tmp_path / "gallery"))


def assert_clear(outcome: Outcome, *says: str) -> None:
    """One message, no traceback, a status that says so."""
    assert outcome.code not in (0, None)
    assert "Traceback" not in outcome.err
    assert outcome.err.startswith(("Error: ", "Usage: ")), outcome.err
    for text in says:
        assert text in outcome.err


@pytest.mark.parametrize("command", EVERY_COMMAND, ids=" ".join)
def test_every_command_helps_with_examples(run, command):
    outcome = run(*command, "--help")
    assert outcome.code == 0
    assert "Example" in outcome.out
    assert f"mammoseek {' '.join(command)}" in outcome.out


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


def test_descriptors_beside_a_pretrained_backbone(run, line, tmp_path):
    asked = ("--set", 'preparation.descriptors=["intensity", "texture"]')
    assert_clear(run("model", "pretrained", "-o", tmp_path / "none", *TINY, *asked), "descriptors have to be")
    model, gallery = tmp_path / "model", tmp_path / "gallery"
    assert run("model", "pretrained", "-o", model, *TINY, *asked, "--fit", line.manifest).code == 0
    assert run("index", "build", line.manifest, "--model", model, "-o", gallery).code == 0
    row = line.frame.iloc[0]
    asking = [
        run("query", gallery, *which, "--json")
        for which in ((row["path"], "--box", "13,48,37,72"), ("--row", row["row_id"]))
    ]
    by_image, by_row = (json.loads(outcome.out)["neighbours"] for outcome in asking)
    assert [n["row_id"] for n in by_image] == [n["row_id"] for n in by_row]
    wrong = run("model", "pretrained", "-o", tmp_path / "b", *TINY, "--set", 'preparation.descriptors=["zones"]')
    assert_clear(wrong, "descriptors are some of shape")


def test_the_main_job(run, line, tmp_path):
    model, gallery = tmp_path / "model", tmp_path / "gallery"
    trained = run("train", line.manifest, "-o", model, "--epochs", 2, *TINY)
    assert trained.code == 0, trained.err
    assert "epoch 2/2" in trained.err
    assert run("index", "build", line.manifest, "--model", model, "-o", gallery, "--thumbnails").code == 0
    row = line.frame.iloc[0]
    montage = tmp_path / "answer.png"
    image_query = run(*("query", gallery, row["path"], "--box", "13,48,37,72", "-k", 5, "--json", "--montage", montage))
    answer = json.loads(image_query.out)
    assert [n["rank"] for n in answer["neighbours"]] == [1, 2, 3, 4, 5]
    assert row["patient_id"] not in [n["patient_id"] for n in answer["neighbours"]]
    assert {"row_id", "similarity", "path", "box", "lesion_type", "pathology", "density"} <= set(
        answer["neighbours"][0]
    )
    assert {"gallery_generation", "model_digest", "preparation_digest"} <= set(answer["replay"])
    assert answer["excluded_patient"] == row["patient_id"]
    with Image.open(montage) as picture:
        assert picture.size[0] > 500
    by_row = json.loads(run("query", gallery, "--row", row["row_id"], "-k", 5, "--json").out)
    assert [n["row_id"] for n in by_row["neighbours"]] == [n["row_id"] for n in answer["neighbours"]]
    classified = json.loads(run("classify", gallery, "--row", row["row_id"], "--json").out)
    assert {found["target"] for found in classified["targets"]} == {"lesion_type", "pathology"}
    for found in classified["targets"]:
        assert sum(found["knn"]["probabilities"].values()) == pytest.approx(1)
        assert found["excluded_patient"] == row["patient_id"]
    assert classified["excluded_patient"] == row["patient_id"]
    by_image = json.loads(run("classify", gallery, row["path"], "--box", "13,48,37,72", "--json").out)
    for one, two in zip(by_image["targets"], classified["targets"], strict=True):
        assert one["knn"]["probabilities"] == pytest.approx(two["knn"]["probabilities"], abs=1e-3)
    table = run("query", gallery, "--row", row["row_id"])
    assert "similarity" in table.out
    assert run("index", "verify", gallery).code == 0
    assert run("model", "info", model).code == 0


def test_the_same_question_gives_the_same_bytes_also_after_the_index_is_rebuilt(run, line, gallery):
    question = ("query", gallery, line.frame["path"].iloc[3], "--box", "13,48,37,72", "--json")
    first = run(*question).out
    assert run(*question).out == first
    assert run("index", "rebuild", gallery).code == 0
    assert run(*question).out == first


def test_an_engine_is_chosen_and_says_what_it_finds(run, line, gallery, monkeypatch):
    monkeypatch.setattr("index.presets.LEAST_ROWS", 10)
    exact = run("query", gallery, "--row", line.frame["row_id"][0], "-k", 5, "--json")
    rebuilt = run("index", "rebuild", gallery, "--engine", "SQfp16", "--json")
    assert rebuilt.code == 0, rebuilt.err
    assert json.loads(rebuilt.out)["engine"] == "SQfp16"
    info = json.loads(run("index", "info", gallery, "--json").out)
    assert info["engine"]["engine"] == "SQfp16"
    assert info["index"]["rows"] == info["rows"]
    found = json.loads(run("query", gallery, "--row", line.frame["row_id"][0], "-k", 5, "--json").out)
    # A gallery this small is gone through whole, in whatever precision, and compared exactly.
    assert found["neighbours"] == json.loads(exact.out)["neighbours"]
    assert_clear(run("index", "rebuild", gallery, "--engine", "nonsense"), "nonsense")
    assert run("query", gallery, "--row", line.frame["row_id"][0]).code == 0


def test_a_damaged_index_is_told_answered_without_and_made_again(run, line, gallery, monkeypatch):
    monkeypatch.setattr("index.presets.LEAST_ROWS", 10)
    assert run("index", "rebuild", gallery, "--engine", "SQfp16").code == 0
    [cache] = (gallery / "cache").glob("*.faiss")
    cache.write_bytes(cache.read_bytes()[:-1])
    row = line.frame["row_id"][0]
    outcome = run("query", gallery, "--row", row, "--json")
    assert outcome.code == 0
    assert any("index is damaged" in note for note in json.loads(outcome.out)["notes"])
    assert run("index", "verify", gallery).code == console.EXIT_FAILED
    repaired = run("index", "verify", gallery, "--repair")
    assert repaired.code == 0, repaired.err
    assert not any("damaged" in note for note in json.loads(run("query", gallery, "--row", row, "--json").out)["notes"])


def test_nightly_additions_are_joined(run, line, tmp_path):
    gallery = tmp_path / "gallery"
    for night, rows in enumerate(np.array_split(np.arange(len(line.frame)), 3)):
        write_manifest(line.frame.iloc[rows], tmp_path / f"night-{night}.csv")
        arguments = ("build", tmp_path / "night-0.csv", "--model", line.model, "-o", gallery)
        assert run("index", *(arguments if not night else ("add", gallery, tmp_path / f"night-{night}.csv"))).code == 0
    before = run("query", gallery, "--row", line.frame["row_id"][0], "--json").out
    outcome = run("index", "compact", gallery, "--json")
    assert json.loads(outcome.out) == {"gallery": str(gallery), "segments": 1, "fewer": 2}
    after = run("query", gallery, "--row", line.frame["row_id"][0], "--json").out
    assert json.loads(after)["neighbours"] == json.loads(before)["neighbours"]


def test_one_finding_of_a_woman_answers_unless_more_are_wanted(run, line):
    row = line.frame["row_id"][0]
    several = json.loads(run("query", line.gallery, "--row", row, "-k", 11, "--json").out)["neighbours"]
    women = [n["patient_id"] for n in several]
    assert len(women) == len(set(women)) > 5
    all_rows = json.loads(run("query", line.gallery, "--row", row, "-k", 11, "--per-group", 0, "--json").out)
    women = [n["patient_id"] for n in all_rows["neighbours"]]
    assert len(women) > len(set(women))


def test_the_nearest_of_each_class_stand_side_by_side(run, line):
    row = line.frame["row_id"][0]
    found = json.loads(run("query", line.gallery, "--row", row, "-k", 2, "--per-class", "pathology", "--json").out)
    assert [part["value"] for part in found["classes"]] == ["benign", "malignant"]
    assert [n["pathology"] for n in found["neighbours"]] == ["benign"] * 2 + ["malignant"] * 2
    shown = run("query", line.gallery, "--row", row, "-k", 2, "--per-class", "pathology").out
    assert shown.index("benign:") < shown.index("malignant:")


def test_all_that_are_similar_enough_come_without_a_number(run, line):
    row = line.frame["row_id"][0]
    nearest = json.loads(run("query", line.gallery, "--row", row, "-k", 4, "--json").out)["neighbours"]
    least = nearest[-1]["similarity"]
    found = json.loads(run("query", line.gallery, "--row", row, "--minimum", least, "--json").out)["neighbours"]
    assert [n["row_id"] for n in found] == [n["row_id"] for n in nearest]


def test_examples_preferences_and_views_are_taken(run, line):
    first, other = line.frame["row_id"][0], line.frame["row_id"][9]
    refined = run("query", line.gallery, "--row", first, "--like", other, "--prefer", "density:0.2", "--json")
    assert refined.code == 0, refined.err
    assert other not in [n["row_id"] for n in json.loads(refined.out)["neighbours"]]
    views = line.frame["row_id"][line.frame["patient_id"] == "w1"].tolist()[:2]
    by_row = json.loads(run("query", line.gallery, "--row", views[0], "--row", views[1], "--json").out)
    places = line.frame.set_index("row_id").loc[views]
    boxes = [",".join(str(int(row[c])) for c in ("x0", "y0", "x1", "y1")) for _, row in places.iterrows()]
    also = f"{places['path'].iloc[1]}@{boxes[1]}"
    by_image = json.loads(
        run("query", line.gallery, places["path"].iloc[0], "--box", boxes[0], "--also", also, "--json").out
    )
    assert [n["row_id"] for n in by_image["neighbours"]] == [n["row_id"] for n in by_row["neighbours"]]
    assert_clear(run("query", line.gallery, "--row", first, "--prefer", "nothing"), "facet")
    assert_clear(run("query", line.gallery, "--row", first, "--like", "nobody"), "nobody")


def test_atypical_rows_are_listed_and_can_be_kept_from_answering(run, line):
    listed = json.loads(run("index", "typicality", line.gallery, "--label", "lesion_type", "--json").out)
    assert len(listed["rows"]) == listed["judged"] == 24
    scores = [row["typicality"] for row in listed["rows"]]
    assert scores == sorted(scores)
    least = scores[12]
    part = run("index", "typicality", line.gallery, "--label", "lesion_type", "--below", least)
    shown = [line.split()[0] for line in part.out.splitlines()[1:-1]]
    assert shown == [row["row_id"] for row in listed["rows"] if row["typicality"] < least]
    assert "24 of 24 findings could be judged" in part.out
    row = line.frame["row_id"][0]
    asked = ("query", line.gallery, "--row", row, "-k", 3)
    held = json.loads(run(*asked, "--typical-only", "lesion_type:1", "--json").out)
    assert held["atypical_rows"] > 0
    assert held["replay"]["typical"] == {"label": "lesion_type", "least": 1.0, "neighbours": 10}
    assert held["allowed_rows"] + held["atypical_rows"] == 22
    assert "were held out as atypical" in run(*asked, "--typical-only", "lesion_type").out
    assert_clear(run(*asked, "--typical-only", "colour"), "colour")
    assert_clear(run(*asked, "--typical-only", "lesion_type:2"), "smallest score")
    assert_clear(run("index", "typicality", line.gallery, "--label", "age"), "age")
    assert_clear(run("index", "typicality", line.gallery, "--label", "lesion_type", "--below", 0), "below")
    assert_clear(run("index", "typicality", line.gallery / "none", "--label", "lesion_type"), "none")
    assert_clear(run("index", "typicality", "milvus://127.0.0.1:1/findings", "--label", "pathology"), "folder")


def test_a_gallery_goes_to_milvus_answers_there_and_comes_back(run, line, tmp_path):
    pytest.importorskip("milvus_lite")
    address, row = f"milvus://{tmp_path}/findings.db/findings", line.frame["row_id"][0]
    copied = run("index", "copy", line.gallery, address)
    assert copied.code == 0, copied.err
    asked = ("--row", row, "-k", 4, "--json")
    here, there = (json.loads(run("query", place, *asked).out) for place in (line.gallery, address))
    same = ("row_id", "similarity", "pathology", "rank")
    assert [[n[f] for f in same] for n in here["neighbours"]] == [[n[f] for f in same] for n in there["neighbours"]]
    assert json.loads(run("index", "info", address, "--json").out)["rows"] == len(line.frame)
    assert run("index", "copy", address, tmp_path / "back").code == 0
    back = json.loads(run("query", tmp_path / "back", *asked).out)
    assert back["neighbours"] == here["neighbours"]
    assert_clear(run("index", "copy", line.gallery, tmp_path / "other"), "folder")
    assert_clear(run("query", "milvus://127.0.0.1:1/findings", "--row", row), "127.0.0.1")


def test_an_evaluation_is_saved_with_its_context(run, line, tmp_path):
    card = tmp_path / "scorecard.json"
    outcome = run("evaluate", line.manifest, "--model", line.model, "-o", card, "--resamples", 100)
    assert outcome.code == 0, outcome.err
    content = json.loads(card.read_text())
    assert {"protocol", "granularity", "manifest_digest", "model_digests", "test_women"} <= set(content["context"])
    assert "95%" in outcome.out
    assert "women" in outcome.out


def test_a_cross_validation_trains_a_model_in_every_fold(run, line, tmp_path):
    work = tmp_path / "folds"
    arguments = ("evaluate", line.manifest, "--cross-validate", 2, "--work", work, "--resamples", 100, *TINY)
    first = run(*arguments, "--set", "training.epochs=1", "--json")
    assert first.code == 0, first.err
    digests = json.loads(first.out)["context"]["model_digests"]
    assert len(set(digests)) == 2
    models = {path: path.stat().st_mtime_ns for path in work.rglob("model.safetensors")}
    again = run(*arguments, "--set", "training.epochs=1", "--json")
    assert again.out == first.out
    assert {path: path.stat().st_mtime_ns for path in work.rglob("model.safetensors")} == models


def test_whole_images_are_learned_scored_and_evaluated(run, line, tmp_path):
    nothing = dict.fromkeys(("x0", "y0", "x1", "y1", "lesion_type"))
    outcome = line.frame["lesion_type"].map({"mass": "malignant", "calcification": "no cancer"})
    breasts = line.frame.assign(granularity="breast", pathology=outcome, **nothing)
    known = breasts["patient_id"] != "w0"
    write_manifest(breasts[known].reset_index(drop=True), tmp_path / "known.csv")
    small = ("--set", "tiles.side=128", "--workers", 1)
    train = ("weak", "train", tmp_path / "known.csv", "--model", line.model, "-o", tmp_path / "weak", *small)
    trained = run(*train)
    assert trained.code == 0
    assert "22 images of 11 women" in trained.err
    assert "holds a model already" in run(*train).err
    image, seen = breasts["path"].iloc[0], breasts["path"].iloc[-1]
    scored = run("weak", "score", tmp_path / "weak", image, "--json", "--picture", tmp_path / "evidence.png")
    assert scored.code == 0
    [answer] = json.loads(scored.out)["answers"]
    assert 0 < answer["probability"] < 1
    assert len(answer["places"][0]["box"]) == 4
    assert (tmp_path / "evidence.png").is_file()
    partly = run("weak", "score", tmp_path / "weak", image, seen)
    assert partly.code == console.EXIT_PARTLY
    assert "probability of a cancer" in partly.out
    assert "was trained on this image" in partly.err
    evaluate = ("weak", "evaluate", tmp_path / "known.csv", "--model", line.model, "--cross-validate", 3, *small)
    found = json.loads(run(*evaluate, "--json").out)
    assert found["woman"]["auc"]["women"] == 11


def test_a_removed_woman_no_longer_answers(run, line, gallery):
    woman = json.loads(run("query", gallery, "--row", "w0-0", "-k", 1, "--json").out)["neighbours"][0]["patient_id"]
    outcome = run("index", "remove", gallery, "--patient", woman, "--json")
    assert json.loads(outcome.out)["removed"] == 2
    rest = json.loads(run("query", gallery, "--row", "w0-0", "-k", 100, "--json").out)
    assert woman not in {n["patient_id"] for n in rest["neighbours"]}


def test_files_that_fail_are_listed_and_the_rest_is_indexed(run, line, tmp_path):
    frame = line.frame.copy()
    broken = tmp_path / "broken.png"
    broken.write_bytes(Path(frame["path"].iloc[4]).read_bytes()[:200])
    frame.loc[4, "path"] = str(broken)
    frame.loc[7, "path"] = str(tmp_path / "gone.png")
    write_manifest(frame, tmp_path / "manifest.csv")
    outcome = run("index", "build", tmp_path / "manifest.csv", "--model", line.model, "-o", tmp_path / "g", "--json")
    assert outcome.code == console.EXIT_PARTLY
    report = json.loads(outcome.out)
    assert report["added"] == len(frame) - 2
    assert {name for name, _ in report["failures"]} == {frame["row_id"].iloc[4], frame["row_id"].iloc[7]}
    assert "broken.png" in outcome.err
    assert "gone.png" in outcome.err


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("missing.dcm", None, "missing.dcm"),
        ("empty.png", b"", "empty"),
        ("text.dcm", b"this is a letter, no mammogram\n" * 20, "text.dcm"),
        ("text.png", b"this is a letter, no mammogram\n" * 20, "text.png"),
        ("folder.png", "folder", "folder"),
        ("tiny.png", "tiny", "tiny.png"),
    ],
)
@pytest.mark.parametrize("command", ["query", "classify"])
def test_an_unusable_image_costs_one_clear_error(run, line, tmp_path, command, name, content, says):
    path = tmp_path / name
    if content == "folder":
        path.mkdir()
    elif content == "tiny":
        Image.fromarray(np.array([[7]], np.uint8)).save(path)
    elif content is not None:
        path.write_bytes(content)
    assert_clear(run(command, line.gallery, path, "--box", "0,0,1,1"), name, says)


def test_a_truncated_dicom_costs_one_clear_error(run, line, tmp_path, cbis_dicom):
    path = tmp_path / "cut.dcm"
    path.write_bytes(cbis_dicom[0].read_bytes()[:300_000])
    assert_clear(run("query", line.gallery, path, "--box", "100,100,400,400"), "cut.dcm")


def test_the_codec_that_nobody_has_is_named(run, line, dicom_samples):
    assert_clear(run("query", line.gallery, dicom_samples / "MG1_JPLY.dcm", "--box", "10,10,90,90"), "MG1_JPLY.dcm")


@pytest.mark.parametrize(
    ("box", "says"),
    [
        ("13,48,37,172", "does not lie inside the image"),
        ("-5,48,37,72", "does not lie inside the image"),
        ("37,48,13,72", "inverted"),
        ("13,48,13,72", "empty"),
        ("13,48,37", "not four numbers"),
        ("a,b,c,d", "not four numbers"),
        ("nan,0,5,5", "not four numbers"),
        ("inf,0,5,5", "not four numbers"),
        ("9" * 5000 + ",0,5,5", "not four numbers"),
        (None, "needs a place"),
    ],
)
def test_an_impossible_box_costs_one_clear_error(run, line, box, says):
    options = ("--box", box) if box is not None else ()
    assert_clear(run("query", line.gallery, line.frame["path"].iloc[0], *options), says)


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("colour == 'red'", "colour"),
        ("__import__('os').system('touch pwned')", ""),
        ("density.__class__ == 'D'", ""),
        ("(lambda: 1)() == 1", ""),
        ("density ==", ""),
        ("", ""),
        ("(" * 500 + "view == 'CC'" + ")" * 500, ""),
        ("spacing_mm == 'wide'", "spacing_mm"),
        ("view == 'CC'" + " or view == 'CC'" * 100_000, ""),
    ],
)
def test_a_filter_that_is_none_costs_one_clear_error_and_runs_nothing(run, line, tmp_path, monkeypatch, where, says):
    monkeypatch.chdir(tmp_path)
    assert_clear(run("query", line.gallery, "--row", "w0-0", "--where", where), says)
    assert not (tmp_path / "pwned").exists()


def test_a_filter_chooses_rows_inside_the_search(run, line):
    outcome = run("query", line.gallery, "--row", "w0-0", "--where", "pathology == 'malignant'", "-k", 3, "--json")
    assert [n["pathology"] for n in json.loads(outcome.out)["neighbours"]] == ["malignant"] * 3


def test_more_neighbours_than_there_are_come_with_a_note(run, line):
    answer = json.loads(run("query", line.gallery, "--row", "w0-0", "-k", 1000, "--per-group", 0, "--json").out)
    assert len(answer["neighbours"]) == 22
    assert any("1000 neighbours" in note for note in answer["notes"])


@pytest.mark.parametrize("k", ["0", "-3"])
def test_no_neighbours_asked_for_is_a_mistake(run, line, k):
    assert_clear(run("query", line.gallery, "--row", "w0-0", "-k", k), "neighbours")


def test_an_empty_gallery_says_so(run, line, gallery):
    assert run("index", "remove", gallery, "--dataset", "synthetic").code == 0
    assert_clear(run("query", gallery, line.frame["path"].iloc[0], "--box", "13,48,37,72"), "empty")
    assert_clear(run("classify", gallery, line.frame["path"].iloc[0], "--box", "13,48,37,72"), "empty")
    assert run("index", "info", gallery).code == 0


def test_another_models_gallery_is_refused(run, line, tmp_path):
    other = tmp_path / "other"
    assert run("model", "pretrained", "-o", other, *TINY, "--set", "preparation.context=2").code == 0
    image = line.frame["path"].iloc[0]
    says = "was made with the model"
    assert_clear(run("query", line.gallery, image, "--box", "13,48,37,72", "--model", other), says)
    assert_clear(run("classify", line.gallery, image, "--box", "13,48,37,72", "--model", other), says)
    assert_clear(run("index", "add", line.gallery, line.manifest, "--model", other), says)
    assert_clear(run("index", "build", line.manifest, "--model", other, "-o", line.gallery), says)


def test_a_model_swapped_inside_the_gallery_is_refused(run, line, gallery, tmp_path):
    other = tmp_path / "other"
    assert run("model", "pretrained", "-o", other, *TINY, "--set", "preparation.context=2").code == 0
    shutil.rmtree(gallery / "model")
    shutil.copytree(other, gallery / "model")
    assert_clear(run("query", gallery, line.frame["path"].iloc[0], "--box", "13,48,37,72"), "was made with the model")
    assert run("index", "verify", gallery).code == console.EXIT_FAILED


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        ("x1", "NaN", "needs a box"),
        ("x1", "wide", "not a whole number"),
        ("x1", "5000", "outside the image"),
        ("x1", "1", "inverted"),
        ("row_id", "", "is empty"),
        ("pathology", "evil", "'evil' is none of"),
        ("patient_id", "nan", "is empty"),
        ("spacing_mm", "inf", "not a number"),
    ],
)
def test_a_wrong_manifest_is_told_by_row_and_column(run, line, tmp_path, column, value, says):
    table = line.frame.astype(object)
    table.loc[2, column] = value
    path = tmp_path / "manifest.csv"
    table.to_csv(path, index=False)
    for command in (
        ("dataset", "check", path),
        ("index", "build", path, "--model", line.model, "-o", tmp_path / "g"),
        ("train", path, "-o", tmp_path / "m", *TINY),
        ("evaluate", path, "--model", line.model),
    ):
        assert_clear(run(*command), "row 3", column, says)
    assert not (tmp_path / "g").exists()


def test_missing_things_are_named(run, line, tmp_path):
    gone = tmp_path / "gone"
    image = line.frame["path"].iloc[0]
    for command in (
        ("query", gone, image, "--box", "13,48,37,72"),
        ("index", "info", gone),
        ("index", "verify", gone),
        ("index", "remove", gone, "--patient", "x"),
        ("model", "info", gone),
        ("train", gone, "-o", tmp_path / "m"),
        ("dataset", "check", gone),
        ("dataset", "read", "mini-mias", gone, "-o", tmp_path / "m.csv"),
        ("index", "build", line.manifest, "--model", gone, "-o", tmp_path / "g"),
        ("evaluate", line.manifest, "--model", gone),
        ("train", line.manifest, "--recipe", gone, "-o", tmp_path / "m"),
    ):
        assert_clear(run(*command), "gone")
    assert_clear(run("dataset", "read", "mini-mios", gone, "-o", tmp_path / "m.csv"), "mini-mias")
    assert_clear(run("query", line.gallery, "--row", "w0-9"), "w0-9", "w0-0")
    assert_clear(run("classify", line.gallery, "--row", "w0-0", "--target", "colour"), "colour")
    assert_clear(run("evaluate", line.manifest, "--model", line.model, "--target", "density"), "density")


def test_a_woman_whom_nobody_knows_or_who_is_mistyped_is_told(run, line, tmp_path):
    copy = Path(shutil.copy(line.frame["path"].iloc[0], tmp_path / "copy.png"))
    question = (line.gallery, copy, "--box", "13,48,37,72", "--spacing-mm", 0.4, "--view", "CC", "--json")
    for command in ("query", "classify"):
        unknown = json.loads(run(command, *question).out)
        assert unknown["excluded_patient"] is None
        assert any("not known" in note for note in unknown["notes"])
        mistyped = json.loads(run(command, *question, "--patient", "x0").out)
        assert any("no row of x0" in note for note in mistyped["notes"])
    own = json.loads(run("query", *question, "--patient", " W0").out)
    assert "w0" not in {n["patient_id"] for n in own["neighbours"]}, "letter case and white space do not hide a woman"


@pytest.mark.parametrize(
    ("option", "value"), [("--patient", "w1"), ("--dataset", "synthetic"), ("--spacing-mm", "0.2"), ("--view", "CC")]
)
@pytest.mark.parametrize("command", ["query", "classify"])
def test_what_the_gallery_knows_of_a_row_is_not_said_again(run, line, command, option, value):
    assert_clear(run(command, line.gallery, "--row", "w0-0", option, value), "leave these options out")


@pytest.mark.parametrize("name", ["answer.txt", "answer", "folder.png"])
def test_a_montage_goes_where_it_was_told_or_nowhere(run, line, tmp_path, name):
    (tmp_path / "folder.png").mkdir()
    assert_clear(run("query", line.gallery, "--row", "w0-0", "--montage", tmp_path / name), name)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.png"]


def test_hours_of_work_are_not_done_for_a_file_that_can_not_be_written(run, line, tmp_path, monkeypatch):
    monkeypatch.setattr("classifiers.crossvalidation.evaluate_model", None)
    for place in (tmp_path, tmp_path / "gone" / "card.json"):
        assert_clear(run("evaluate", line.manifest, "--model", line.model, "-o", place), place.name)


def test_a_request_to_remove_nobody_is_no_success(run, line, gallery):
    for options in (("--patient", "nobody"), ("--patient", "w0", "--dataset", "other"), ("--where", "view == 'MLO'")):
        assert_clear(run("index", "remove", gallery, *options), "no row")
    assert len(json.loads(run("query", gallery, "--row", "w0-0", "-k", 99, "--json").out)["neighbours"]) == 11


def test_a_changed_outcome_is_not_passed_over_in_silence(run, line, gallery, tmp_path):
    changed = line.frame.assign(pathology="malignant")
    write_manifest(changed, tmp_path / "changed.csv")
    outcome = run("index", "add", gallery, tmp_path / "changed.csv")
    assert outcome.code == console.EXIT_PARTLY
    assert "pathology" in outcome.err


def test_a_damaged_copy_of_the_model_is_made_again_by_the_next_build(run, line, gallery):
    weights = gallery / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert run("index", "verify", gallery).code == console.EXIT_FAILED
    assert run("index", "build", line.manifest, "--model", line.model, "-o", gallery).code == 0
    assert run("index", "verify", gallery).code == 0


def test_a_frame_and_a_for_processing_image_can_be_asked_for(run, line, write_dicom):
    film = np.asarray(Image.open(line.frame["path"].iloc[0])).astype(np.uint16) * 16
    frames = write_dicom(np.stack([film, film[::-1]]), bits=12, PatientID="w0")
    question = ("query", line.gallery, frames, "--box", "13,48,37,72", "--spacing-mm", 0.4, "--json")
    assert_clear(run(*question), "frame")
    first = json.loads(run(*question, "--frame", 1).out)
    second = json.loads(run(*question, "--frame", 2).out)
    assert first["neighbours"] != second["neighbours"]
    raw = write_dicom(4095 - film, bits=12, PatientID="w0", PresentationIntentType="FOR PROCESSING")
    question = ("query", line.gallery, raw, "--box", "13,48,37,72", "--spacing-mm", 0.4, "--json")
    assert_clear(run(*question), "For Processing")
    assert len(json.loads(run(*question, "--for-processing").out)["neighbours"]) == 10


@pytest.mark.parametrize(
    "arguments",
    [
        ("query", "GALLERY", "x.png", "--view", "sideways"),
        ("evaluate", "MANIFEST", "--model", "MODEL", "--frozen"),
        ("evaluate", "MANIFEST", "--model", "MODEL", "--seed", "-1"),
        ("query", "GALLERY"),
        ("query", "GALLERY", "x.png", "--row", "w0-0"),
        ("evaluate", "MANIFEST"),
        ("nonsense",),
    ],
)
def test_wrong_usage_is_told(run, line, arguments):
    places = {"GALLERY": line.gallery, "MANIFEST": line.manifest, "MODEL": line.model}
    outcome = run(*[places.get(argument, argument) for argument in arguments])
    assert outcome.code == 2
    assert "Traceback" not in outcome.err


def test_a_damaged_segment_is_named_and_nothing_else_is_lost(run, line, gallery):
    [segment] = (gallery / "segments").glob("*.h5")
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 0xFF
    segment.write_bytes(data)
    outcome = run("index", "verify", gallery)
    assert outcome.code == console.EXIT_FAILED
    assert segment.name in outcome.out
    assert_clear(run("query", gallery, "--row", "w0-0"), segment.name)


# ---- things that need a process, a file system or a signal of their own


def command_line(*arguments: object) -> list[str]:
    return [sys.executable, "-c", "import cli; cli.main()", *map(str, arguments)]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own with 600 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system takes root")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_while_adding_loses_nothing(run, line, small_disk, tmp_path):
    gallery = Path(shutil.copytree(line.gallery, small_disk / "gallery"))
    before = run("query", gallery, "--row", "w0-0", "--json").out
    filler = small_disk / "filler"
    with pytest.raises(OSError, match="No space"):
        filler.write_bytes(b"\0" * 600 * 1024)
    more = line.frame.assign(row_id="new-" + line.frame["row_id"], patient_id="new-" + line.frame["patient_id"])
    write_manifest(more, tmp_path / "more.csv")
    outcome = run("index", "add", gallery, tmp_path / "more.csv")
    assert_clear(outcome, "disk is full")
    assert run("query", gallery, "--row", "w0-0", "--json").out == before
    filler.unlink()
    assert run("index", "add", gallery, tmp_path / "more.csv").code == 0
    assert run("index", "verify", gallery).code == 0


def test_a_read_only_gallery_answers_and_refuses_to_change(run, line, small_disk, tmp_path):
    gallery = Path(shutil.copytree(line.gallery, small_disk / "gallery"))
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert run("query", gallery, "--row", "w0-0", "--json").code == 0
    more = line.frame.assign(row_id="new-" + line.frame["row_id"])
    write_manifest(more, tmp_path / "more.csv")
    assert_clear(run("index", "add", gallery, tmp_path / "more.csv"), "gallery")
    assert_clear(run("index", "remove", gallery, "--patient", "w0"), "gallery")
    assert_clear(run("train", line.manifest, "-o", small_disk / "m", "--epochs", 1, *TINY), "can't be written")


def test_ctrl_c_while_training_keeps_the_last_epoch_and_goes_on(line, tmp_path):
    model = tmp_path / "model"
    arguments = command_line("train", line.manifest, "-o", model, "--epochs", 400, *TINY)
    with subprocess.Popen(arguments, env=environment(), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for text in process.stderr:
            if text.startswith("epoch 2/"):
                break
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == console.EXIT_INTERRUPTED
    assert "Interrupted. The last whole epoch is kept" in rest
    assert "Traceback" not in rest
    with subprocess.Popen(arguments, env=environment(), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        first = next(text for text in process.stderr if text.startswith("epoch"))
        process.send_signal(signal.SIGINT)
        process.stderr.read()
    assert int(first.split()[1].split("/")[0]) >= 3, "the training goes on where it was"


def test_ctrl_c_while_indexing_keeps_what_was_committed(line, tmp_path):
    frame = pd.concat(
        [line.frame.assign(row_id=line.frame["row_id"] + f"-{copy}") for copy in range(300)], ignore_index=True
    )
    write_manifest(frame, tmp_path / "big.csv")
    gallery = tmp_path / "gallery"
    arguments = command_line("index", "build", tmp_path / "big.csv", "--model", line.model, "-o", gallery)
    with subprocess.Popen(arguments, env=environment(), stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while not (gallery / "model" / "card.json").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        rest = process.stderr.read()
    assert process.returncode == console.EXIT_INTERRUPTED, rest
    assert "run the same command again" in rest
    assert "Traceback" not in rest
    verified = subprocess.run(
        command_line("index", "verify", gallery), env=environment(), capture_output=True, text=True
    )
    assert verified.returncode == 0, verified.stdout


def test_a_declared_benchmark_is_run_and_compared(run, synthetic_manifest, tmp_path):
    write_manifest(synthetic_manifest(12), tmp_path / "mine.csv")
    (tmp_path / "protocol.toml").write_text(
        'name = "mine"\nmanifest = "mine.csv"\nmodel = "pretrained"\nfolds = 2\nresamples = 100\n'
        'labels = ["pathology"]\n[recipe.network]\nbackbone = "test_efficientnet"\nweights = "none"\n'
        "[recipe.preparation]\nheight = 48\nwidth = 48\n"
    )
    result = run("benchmark", "retrieval", tmp_path / "protocol.toml", "-o", tmp_path / "run", "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out)["targets"]["pathology"]["scores"]["women"] == 12
    compared = run("benchmark", "compare", tmp_path / "run", tmp_path / "run", "-o", tmp_path / "c.json")
    assert compared.code == 0, compared.err
    assert "+0.000 [+0.000, +0.000]" in compared.out
    assert json.loads((tmp_path / "c.json").read_text())["a"]
    for arguments, cause in (
        (("retrieval", tmp_path / "none.toml", "-o", tmp_path / "x"), "can't be read as a TOML protocol"),
        (("retrieval", tmp_path / "protocol.toml", "-o", tmp_path / "x", "--data", tmp_path), "needs no folder"),
        (("compare", tmp_path, tmp_path), "scorecard.json"),
    ):
        failed = run("benchmark", *arguments)
        assert failed.code == 1
        assert cause in failed.err
        assert "Traceback" not in failed.err
