"""The questions to a gallery as their users ask them, and every kind of bad input."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.commandline import assert_clear, gallery, line, run

__all__ = ["gallery", "line", "run"]  # fixtures


def test_the_same_question_gives_the_same_bytes_also_after_the_index_is_rebuilt(run, line, gallery):
    question = ("query", gallery, line.frame["path"].iloc[3], "--box", "13,48,37,72", "--json")
    first = run(*question).out
    assert run(*question).out == first
    assert run("index", "rebuild", gallery).code == 0
    assert run(*question).out == first


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
