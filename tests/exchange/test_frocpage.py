import json
import re
from html.parser import HTMLParser

import pandas as pd
import pytest

from embedder.findings import Finding, findings_frame
from exchange import ExchangeError
from exchange.detections import Detection, detections_frame
from exchange.froc import FrocConfig, score_detections
from exchange.froccomparison import compare_detections
from exchange.frocpage import FIGURES, OUTCOMES, PAGE, TEXT, evaluation_page, evaluation_text, write_evaluation
from exchange.froctables import percent
from exchange.judging import read_truth
from index.metrics import Estimate

CONFIG = FrocConfig(rates=(0.5, 1.0), resamples=20)
BOX = {"x0": 10, "y0": 10, "x1": 30, "y1": 30}


def table(shift, detector="cad"):
    shared = {"dataset": "d", "patient_id": "woman-7", "detector": detector, "detector_version": "2"}
    rows = [
        Detection(detection_id="h", path="/secret-a.png", score=0.4 + shift, **shared, **BOX),
        Detection(detection_id="f", path="/secret-b.png", score=0.6 - shift, **shared, **BOX),
    ]
    return detections_frame(rows)


@pytest.fixture(scope="module")
def truth():
    shared = {"dataset": "d", "density": "C"}
    marked = {"granularity": "finding", "lesion_type": "mass", **BOX}
    rows = [
        Finding(row_id="l", path="/secret-a.png", patient_id="woman-7", **marked, **shared),
        Finding(row_id="m", path="/secret-c.png", patient_id="woman-8", **marked, **shared),
        Finding(row_id="n", path="/secret-b.png", patient_id="woman-7", granularity="breast", **shared),
    ]
    return read_truth(findings_frame(rows))


@pytest.fixture(scope="module")
def evaluation(truth):
    scores = {
        "given": score_detections(truth, table(0), CONFIG),
        "rescored": score_detections(truth, table(0.3), CONFIG),
    }
    return scores, compare_detections(truth, table(0), table(0.3), CONFIG)


@pytest.fixture(scope="module")
def folder(evaluation, tmp_path_factory):
    place = tmp_path_factory.mktemp("evaluation") / "new" / "folder"
    write_evaluation(place, *evaluation)
    return place


class Links(HTMLParser):
    """Collects what a page would fetch, and checks that its elements are closed in order."""

    def __init__(self):
        super().__init__()
        self.fetched, self.open = [], []

    def handle_starttag(self, tag, attributes):
        self.fetched += [value for name, value in attributes if name in ("src", "href", "srcset", "action", "data")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_a_folder_holds_the_page_the_figures_the_text_and_every_outcome(folder):
    assert sorted(path.name for path in folder.iterdir()) == sorted([PAGE, FIGURES, TEXT, OUTCOMES])
    content = json.loads((folder / FIGURES).read_text())
    assert content["scores"]["given"]["units"]["lesion"]["sensitivity"]["0.5"]["value"] == 0.5
    assert content["comparison"]["false_positives"]["0.5"]["reduction"]["value"] == 1.0
    outcomes = pd.read_csv(folder / OUTCOMES)
    assert outcomes["outcome"].tolist() == [*["false positive", "true positive"], *["true positive", "false positive"]]
    assert outcomes["detections"].tolist() == ["given", "given", "rescored", "rescored"]


def test_the_page_fetches_nothing_and_names_neither_woman_nor_image(folder):
    page = (folder / PAGE).read_text()
    links = Links()
    links.feed(page)
    assert links.open == []
    assert links.fetched
    assert all(link.startswith("data:image/svg+xml;base64,") for link in links.fetched)
    assert not re.search(r"url\(|@import|<script", page)
    for name in (PAGE, FIGURES, TEXT):
        assert "secret" not in (folder / name).read_text()
        assert "woman-" not in (folder / name).read_text()


def test_the_text_tells_the_figures_with_their_intervals(evaluation):
    scores, comparison = evaluation
    text = evaluation_text(scores, comparison)
    assert "centre; duplicates ignored" in text
    assert "cad 2" in text
    assert re.search(r"lesion\s+2\s+2\s+0\.50 \[0\.00, 1\.00\]", text)
    assert re.search(r"at\s+sensitivity\s+given\s+rescored\s+saved an image\s+reduction", text)
    assert "100 % [" in text
    assert "given: sensitivity by breast density" in text


def test_one_set_alone_has_a_page_without_a_comparison_and_its_bytes_are_the_same_again(evaluation, truth):
    page = evaluation_page({"given": evaluation[0]["given"]})
    assert "minus" not in page
    assert page.count("<img") == 4
    assert evaluation_page({"given": score_detections(truth, table(0), CONFIG)}) == page


def test_names_that_are_markup_stay_text(truth):
    hostile = "<script>alert(1)</script>"
    strange = pd.concat([table(0, hostile), table(0).assign(row_id=["x", "y"], path=f"/{hostile}")], ignore_index=True)
    page = evaluation_page({hostile: score_detections(truth, strange, CONFIG)})
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_a_note_of_both_sets_stands_once(truth):
    more = [pd.concat([table(shift), table(0).assign(row_id=["x", "y"], path="/z.png")]) for shift in (0, 0.3)]
    scores = {name: score_detections(truth, own, CONFIG) for name, own in zip(("one", "two"), more, strict=True)}
    scores["three"] = score_detections(truth, table(0), CONFIG)
    text = evaluation_text(scores)
    assert text.count("note: one: 2 detections left out") == 1
    del scores["three"]
    assert evaluation_text(scores).count("2 detections left out") == 1


def test_figures_without_intervals_and_without_detections_are_drawn(truth):
    shared = {"path": "/a.png", "dataset": "d", "patient_id": "w"}
    alone = read_truth(findings_frame([Finding(row_id="l", granularity="finding", **BOX, **shared)]))
    empty = score_detections(alone, detections_frame([]), CONFIG)
    assert evaluation_page({"none": empty}).count("<img") == 2
    assert "no interval" in evaluation_text({"none": empty})


def test_a_set_without_detections_beside_one_with_detections_is_written(truth, tmp_path):
    scores = {"none": score_detections(truth, detections_frame([]), CONFIG)}
    scores["some"] = score_detections(truth, table(0), CONFIG)
    write_evaluation(tmp_path, scores)
    assert pd.read_csv(tmp_path / OUTCOMES)["detections"].tolist() == ["some", "some"]


def test_a_folder_that_cannot_be_made_is_one_clear_error(evaluation, tmp_path):
    with pytest.raises(ExchangeError, match="null byte"):
        write_evaluation(tmp_path / "a\0b", *evaluation)
    file = tmp_path / "file"
    file.write_text("kept")
    with pytest.raises(ExchangeError, match="file"):
        write_evaluation(file, *evaluation)
    with pytest.raises(ExchangeError):
        write_evaluation(tmp_path / ("x" * 300), *evaluation)
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(ExchangeError):
        write_evaluation(loop, *evaluation)
    assert file.read_text() == "kept"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "loop"]


def test_shares_are_told_in_per_cent():
    assert percent(Estimate(-0.25, -1.5, 0.304, 0.95, 1, 1, 9)) == "-25 % [-150, 30]"
    assert percent(Estimate(0.5, float("nan"), float("nan"), 0.95, 1, 1, 0)) == "50 % [no interval]"
    assert percent(Estimate(float("nan"), 0.1, 0.2, 0.95, 1, 1, 0)) == "undefined"
