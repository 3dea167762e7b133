"""The commands of detections, triage and rescoring as their users meet them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import console
from embedder.manifest import write_manifest
from tests.commandline import TINY, Outcome, assert_clear, run, status_of

__all__ = ["run"]  # a fixture

PLACES = ((13, 48, True), (60, 48, False), (60, 80, False))


@pytest.fixture(scope="module")
def folder(tmp_path_factory, synthetic_manifest) -> Path:
    """A gallery of twelve women with normal tissue, and a detector's marks on the films of 24 others."""
    place = tmp_path_factory.mktemp("exchange")
    whole = synthetic_manifest(36)
    known = whole[:12].assign(tissue="lesion")
    normal = known.assign(row_id=known["row_id"] + "-normal", x0=60, x1=84, pathology=None, lesion_type=None)
    write_manifest(pd.concat([known, normal.assign(tissue="normal")], ignore_index=True), place / "known.csv")
    write_manifest(whole[12:].reset_index(drop=True), place / "truth.csv")
    assert not status_of("model", "pretrained", "-o", place / "model", *TINY)
    assert not status_of("index", "build", place / "known.csv", "--model", place / "model", "-o", place / "gallery")
    random = np.random.default_rng(0)
    rows = [
        f"{row.path},{x},{y},{x + 24},{y + 24},{random.random():.3f},mass"
        for row in whole[12:].itertuples()
        for x, y, _ in PLACES
    ]
    (place / "detections.csv").write_text("\n".join(["image,x0,y0,x1,y1,score,label", *rows]) + "\n")
    return place


@pytest.fixture(scope="module")
def triaged(folder) -> Path:
    output = folder / "triaged"
    assert not status_of(
        "triage", folder / "gallery", folder / "detections.csv", "--manifest", folder / "truth.csv", "-o", output
    )
    return output


def test_the_chain_from_a_detectors_table_to_fewer_false_positives(run, folder, triaged, tmp_path):
    table = pd.read_csv(triaged / "triage.csv")
    assert len(table) == 24 * len(PLACES)
    assert (triaged / "index.html").stat().st_size > 10_000
    outcome = run("rescore", "fit", triaged, folder / "truth.csv", "-o", tmp_path / "r.json", "--json")
    assert outcome.code == 0, outcome.err
    fitted = json.loads(outcome.out)
    assert fitted["women"] == 24
    rescored = tmp_path / "rescored.csv"
    assert run("rescore", "cross-validate", triaged, folder / "truth.csv", "-o", rescored).code == 0
    outcome = run(
        "evaluate-detections", folder / "truth.csv", folder / "detections.csv", "--manifest", folder / "truth.csv",
        "--rescored", rescored, "-o", tmp_path / "evaluation", "--resamples", 100, "--json",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)
    assert {path.name for path in (tmp_path / "evaluation").iterdir()} >= {"detections.html", "detections.json"}
    again = run(
        "triage", folder / "gallery", folder / "detections.csv", "--manifest", folder / "truth.csv",
        "--rescorer", tmp_path / "r.json", "-o", tmp_path / "new", "--json",
    )  # fmt: skip
    assert json.loads(again.out)["answered"] == 24 * len(PLACES)
    new = pd.read_csv(tmp_path / "new" / "triage.csv")
    assert new["rescored"].between(0, 1).all()
    coco = json.loads((tmp_path / "new" / "coco.json").read_text())
    assert sorted(one["score"] for one in coco) == pytest.approx(sorted(new["rescored"]))


def test_the_same_detections_in_other_formats_give_the_same_triage(run, folder, triaged, tmp_path):
    given = ("--manifest", folder / "truth.csv")
    expected = pd.read_csv(triaged / "triage.csv").drop(columns=["notes"])
    for kind, name in (("coco", "marks.json"), ("yolo", "marks"), ("json", "own.json")):
        converted = tmp_path / name
        outcome = run("detections", "convert", folder / "detections.csv", *given, "-o", converted, "--to", kind)
        assert outcome.code == 0, outcome.err
        output = tmp_path / f"triage-{kind}"
        outcome = run("triage", folder / "gallery", converted, *given, "-o", output, "--pictures", 0)
        assert outcome.code == 0, outcome.err
        found = pd.read_csv(output / "triage.csv").drop(columns=["notes"])
        keys = ["path", "x0", "y0", "x1", "y1"]
        both = [each.sort_values(keys).reset_index(drop=True) for each in (expected, found)]
        scores = ["similarity", "malignancy", "lesion_vote", "lesion_head"]
        pd.testing.assert_frame_equal(both[0][[*keys, "woman", "nearest"]], both[1][[*keys, "woman", "nearest"]])
        np.testing.assert_allclose(both[0][scores], both[1][scores], atol=1e-6)
        np.testing.assert_allclose(both[0]["score"], both[1]["score"], atol=1e-6)


def test_a_triage_goes_on_and_refuses_another_ones_folder(run, folder, triaged, tmp_path):
    copy = Path(shutil.copytree(triaged, tmp_path / "copy"))
    lines = (copy / "worklist.jsonl").read_bytes().splitlines(keepends=True)
    (copy / "worklist.jsonl").write_bytes(b"".join(lines[:20]) + lines[20][:30])
    command = ("triage", folder / "gallery", folder / "detections.csv", "--manifest", folder / "truth.csv", "-o", copy)
    outcome = run(*command, "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["kept"] == 19
    assert (copy / "triage.csv").read_bytes() == (triaged / "triage.csv").read_bytes()
    other = run(*command, "-k", 3)
    assert other.code == 1
    assert "holds the answers of a triage with another opinions" in other.err
    assert (copy / "triage.csv").read_bytes() == (triaged / "triage.csv").read_bytes()


def bad(folder: Path, text: str) -> Path:
    path = folder / "bad.csv"
    path.write_text(text)
    return path


def test_bad_rows_are_listed_and_the_rest_goes_on(run, folder, tmp_path):
    head, *rows = (folder / "detections.csv").read_text().splitlines()
    image = rows[0].split(",")[0]
    wrong = [
        f"{image},900,900,930,930,0.5,mass",
        f"{image},13,48,37,72,7,mass",
        "nothing.png,1,2,3,4,0.5,mass",
        f"{image},5",
    ]
    path = bad(tmp_path, "\n".join([head, rows[0], *wrong]) + "\n")
    outcome = run("triage", folder / "gallery", path, "--manifest", folder / "truth.csv", "-o", tmp_path / "out")
    assert outcome.code == console.EXIT_PARTLY
    assert "4 detections failed" in outcome.err
    assert len(pd.read_csv(tmp_path / "out" / "triage.csv")) == 1
    shown = run("detections", "show", path, "--manifest", folder / "truth.csv", "--json")
    assert shown.code == console.EXIT_PARTLY
    assert len(json.loads(shown.out)["rows"]) == 1


def test_what_can_not_be_done_is_one_clear_message(run, folder, triaged, tmp_path):
    truth, marks = folder / "truth.csv", folder / "detections.csv"
    for arguments, says in (
        (("triage", tmp_path / "no", marks, "--manifest", truth, "-o", tmp_path / "o"), "no"),
        (("triage", folder / "gallery", tmp_path / "no.csv", "-o", tmp_path / "o"), "no.csv"),
        (("triage", folder / "gallery", marks, "-o", tmp_path / "o"), "images"),
        (("triage", folder / "gallery", marks, "--manifest", tmp_path / "no.csv", "-o", tmp_path / "o"), "no.csv"),
        (
            ("triage", folder / "gallery", marks, "--manifest", truth, "--rescorer", truth, "-o", tmp_path / "o"),
            "rescoring",
        ),
        (("triage", folder / "gallery", marks, "--manifest", truth, "-o", truth), "truth.csv"),
        (("rescore", "fit", tmp_path, truth, "-o", tmp_path / "r.json"), "mammoseek triage"),
        (("rescore", "fit", triaged, folder / "known.csv", "-o", tmp_path / "r.json"), ""),
        (("evaluate-detections", truth, tmp_path / "no.csv"), "no.csv"),
        (("evaluate-detections", truth, marks, "--manifest", truth, "--rule", "luck"), "luck"),
        (("detections", "convert", marks, "--manifest", truth, "-o", tmp_path / "x.xyz"), "--to"),
    ):
        outcome: Outcome = run(*arguments)
        # What a file was taken for may have been said before.
        told = [line for line in outcome.err.splitlines() if line.startswith(("Error: ", "Usage: "))]
        assert_clear(Outcome(outcome.code, "", outcome.err[outcome.err.index(told[0]) :]), says)
    assert not (tmp_path / "r.json").exists()
