import json

import pytest

from embedder.findings import Box, patient_key
from embedder.manifest import read_manifest, write_manifest
from embedder.normaltissue import overlap
from exchange import ExchangeError
from exchange.detecting import Detector
from exchange.falsealarms import add_false_alarms
from tests.commandline import assert_clear, run

__all__ = ["run"]  # a fixture


def boxes_on(frame, path, tissue):
    rows = frame[(frame["path"] == path) & (frame["tissue"] == tissue)]
    return [Box(*map(int, box)) for box in rows[["x0", "y0", "x1", "y1"]].to_numpy()]


@pytest.fixture(scope="module")
def searched(detect_rows, detect_gallery):
    return add_false_alarms(detect_rows, detect_gallery, per_image=4, minimum=0.0)


def test_false_alarms_are_normal_tissue_away_from_every_mark(searched, detect_rows):
    old, new = searched.frame.iloc[: len(detect_rows)], searched.frame.iloc[len(detect_rows) :]
    assert old["row_id"].tolist() == detect_rows["row_id"].tolist()
    assert searched.added == len(new) > 0
    assert searched.frame["row_id"].is_unique
    assert set(new["tissue"]) == {"normal"}
    assert set(new["granularity"]) == {"finding"}
    assert new["lesion_type"].isna().all()
    assert new["pathology"].isna().all()
    assert new.groupby("path").size().max() <= 4
    known = dict(zip(detect_rows["path"], patient_key(detect_rows), strict=True))
    assert patient_key(new).tolist() == [known[path] for path in new["path"]]
    marked = 0
    for path in new["path"].unique():
        marks = boxes_on(detect_rows, path, "lesion")
        marked += len(marks)
        assert not any(overlap(box, mark) for box in boxes_on(new, path, "normal") for mark in marks)
    assert marked, "films with lesions are searched too"


def test_a_woman_does_not_say_what_is_a_false_alarm_on_her_own_films(detect_rows, detect_gallery, monkeypatch):
    asked = []
    original = Detector.detect

    def detect(self, source, *, barred=None):
        asked.append((source.patient, set(self.gallery.records["patient_id"].to_numpy()[barred])))
        return original(self, source, barred=barred)

    monkeypatch.setattr(Detector, "detect", detect)
    add_false_alarms(detect_rows, detect_gallery, per_image=1)
    assert {woman for woman, _ in asked} == {f"t{number}" for number in range(10)}, "of the others nobody knows"
    assert all(woman in barred for woman, barred in asked)
    everyone = set(detect_rows["patient_id"])
    assert all(barred < everyone for _, barred in asked)


def test_test_and_validation_women_are_left_alone(detect_rows, detect_gallery):
    women = ["t0", "t1", *sorted(set(detect_rows["patient_id"]) - {"t0", "t1"})]
    splits = dict.fromkeys(women, "train") | {women[0]: "test", women[1]: "validation"}
    frame = detect_rows.assign(split=detect_rows["patient_id"].map(splits))
    found = add_false_alarms(frame, detect_gallery, per_image=2, minimum=0.0)
    assert not set(women[:2]) & set(found.frame["patient_id"].iloc[len(frame) :])
    assert found.women == 8


def test_the_same_question_gives_the_same_rows(searched, detect_rows, detect_gallery):
    again = add_false_alarms(detect_rows.sample(frac=1, random_state=1), detect_gallery, per_image=4, minimum=0.0)
    names = ["path", "x0", "y0", "x1", "y1"]
    first, second = (
        {tuple(row) for row in frame[names].tail(searched.added).astype(str).to_numpy()}
        for frame in (searched.frame, again.frame)
    )
    assert first == second


def test_a_film_that_vanished_costs_only_itself(detect_rows, detect_gallery):
    path = detect_rows["path"].iloc[0]
    frame = detect_rows.assign(path=detect_rows["path"].where(detect_rows["path"] != path, "/nowhere/film.png"))
    found = add_false_alarms(frame, detect_gallery, per_image=1, minimum=0.0)
    assert [name for name, _ in found.failures] == ["/nowhere/film.png"]
    assert found.added
    assert found.to_dict()["rows"] == len(frame) + found.added


@pytest.mark.parametrize("options", [{"per_image": 0}, {"minimum": 1.5}, {"per_image": 1001}])
def test_options_out_of_range_are_refused(detect_rows, detect_gallery, options):
    with pytest.raises(ExchangeError, match="out of range"):
        add_false_alarms(detect_rows, detect_gallery, **options)


def test_without_an_image_whose_normal_tissue_is_known_there_is_nothing_to_search(detect_rows, detect_gallery):
    with pytest.raises(ExchangeError, match="no image of a training woman"):
        add_false_alarms(detect_rows.assign(split="test"), detect_gallery)


def test_the_command_line_adds_them_to_a_manifest(run, detect_rows, detect_gallery, tmp_path):
    given, output = tmp_path / "normal.csv", tmp_path / "harder.csv"
    write_manifest(detect_rows, given)
    asked = ("dataset", "false-alarms", given, "--gallery", detect_gallery, "-o", output)
    told = json.loads(run(*asked, "--minimum", "0", "--per-image", "2", "--json").out)
    written = read_manifest(output)
    assert told["rows"] == len(written)
    assert told["added"] == len(written) - len(detect_rows) > 5
    said = run(*asked, "--minimum", "1")
    assert said.code == 0
    assert "0 false alarms" in said.err
    assert_clear(run("dataset", "false-alarms", given, "--gallery", tmp_path, "-o", output), "gallery")
