"""The command line as its users meet it: the main job on synthetic films, and what goes wrong in any command."""

import json

import numpy as np
import pytest
from PIL import Image
from typer.main import get_command

import cli
from tests.commandline import TINY, assert_clear, gallery, line, run

__all__ = ["gallery", "line", "run"]  # fixtures

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
    *(("pacs", name) for name in ("echo", "fetch", "store", "listen", "spool")),
    *((name,) for name in ("detect", "triage", "evaluate-detections", "report", "gate", "deidentify")),
    *(("verdicts", name) for name in ("show", "export")),
    *(("audit", name) for name in ("verify", "show")),
    *((name,) for name in ("query", "classify", "evaluate", "demo", "serve", "serve-token")),
)


@pytest.mark.parametrize("command", EVERY_COMMAND, ids=" ".join)
def test_every_command_helps_with_examples(run, command):
    outcome = run(*command, "--help")
    assert outcome.code == 0
    assert "Example" in outcome.out
    assert f"mammoseek {' '.join(command)}" in outcome.out


def test_options_are_spelled_in_small_letters_whatever_the_version_of_typer():
    # typer 0.27 takes a metavar for the option's name where both are the same word: `--GALLERY`.
    def options(command, path=()):
        for name, inner in getattr(command, "commands", {}).items():
            yield from options(inner, (*path, name))
        for parameter in command.params:
            yield from ((path, name) for name in parameter.opts if name.startswith("--"))

    found = list(options(get_command(cli.app)))
    assert len(found) > 300
    assert [one for one in found if one[1] != one[1].lower()] == []


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
