"""The commands of galleries as their users meet them: changes, damage, full disks, and interruptions."""

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import console
from embedder.manifest import write_manifest
from index.gallery import Gallery
from tests.commandline import TINY, assert_clear, command_line, environment, gallery, line, run

__all__ = ["gallery", "line", "run"]  # fixtures


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


def test_a_model_swapped_inside_the_gallery_is_refused(run, line, gallery, tmp_path):
    other = tmp_path / "other"
    assert run("model", "pretrained", "-o", other, *TINY, "--set", "preparation.context=2").code == 0
    shutil.rmtree(gallery / "model")
    shutil.copytree(other, gallery / "model")
    assert_clear(run("query", gallery, line.frame["path"].iloc[0], "--box", "13,48,37,72"), "was made with the model")
    assert run("index", "verify", gallery).code == console.EXIT_FAILED


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


def test_a_damaged_segment_is_named_and_nothing_else_is_lost(run, line, gallery):
    [segment] = (gallery / "segments").glob("*.h5")
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 0xFF
    segment.write_bytes(data)
    outcome = run("index", "verify", gallery)
    assert outcome.code == console.EXIT_FAILED
    assert segment.name in outcome.out
    assert_clear(run("query", gallery, "--row", "w0-0"), segment.name)


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


@pytest.mark.gpu
def test_a_gallery_is_built_indexed_and_asked_on_a_gpu(run, line, tmp_path, monkeypatch, cuda):
    monkeypatch.setattr("index.presets.LEAST_ROWS", 10)
    gallery = tmp_path / "gallery"
    built = run("index", "build", line.manifest, "--model", line.model, "-o", gallery, "--device", cuda)
    assert built.code == 0, built.err
    here, there = Gallery.open(line.gallery), Gallery.open(gallery)
    assert np.array_equal(here.row_ids, there.row_ids)
    assert np.abs(here.matrix - there.matrix).max() < 1e-5
    asked = ("--row", line.frame["row_id"][0], "-k", 5, "--json")
    for engine in ("exact", "SQfp16", "IVF2,Flat"):
        assert run("index", "rebuild", gallery, "--engine", engine, "--device", cuda).code == 0
        answer = run("query", gallery, *asked, "--device", cuda)
        assert answer.code == 0, answer.err
        found, expected = (
            json.loads(out)["neighbours"] for out in (answer.out, run("query", line.gallery, *asked).out)
        )
        assert [n["row_id"] for n in found] == [n["row_id"] for n in expected]
        similar = [n["similarity"] for n in expected]
        assert [n["similarity"] for n in found] == pytest.approx(similar, abs=1e-5)
    image = ("query", gallery, line.frame["path"][3], "--box", "13,48,37,72", "--spacing-mm", 0.4, "--json")
    rows = [[n["row_id"] for n in json.loads(run(*image, "--device", d).out)["neighbours"]] for d in ("cpu", cuda)]
    assert rows[0] == rows[1]
    classified = ("classify", gallery, line.frame["path"][3], "--box", "13,48,37,72", "--spacing-mm", 0.4, "--json")
    outcomes = [run(*classified, "--device", device) for device in ("cpu", cuda)]
    assert [outcome.code for outcome in outcomes] == [0, 0], outcomes[1].err
