"""A protocol's run: leaks stop it, its files are whole, it goes on, and two runs are compared."""

import base64
import html.parser
import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest

from classifiers import ClassificationError
from classifiers.benchmark import compare_benchmarks, run_benchmark
from classifiers.crosscalibration import calibrate_across_folds
from classifiers.crossvalidation import cross_validate
from classifiers.predictions import load_predictions
from classifiers.protocol import Protocol
from classifiers.scorecard import Scorecard
from embedder.recipe import Recipe


@pytest.fixture
def frame(synthetic_manifest):
    return synthetic_manifest(12, density=["fatty", "dense", "glandular"] * 4)


@pytest.fixture
def protocol(tiny_network, tiny_preparation):
    recipe = Recipe(tiny_network, tiny_preparation).with_settings(["training.epochs=1", "training.validation_share=0"])
    return Protocol(
        "Two seeds", dataset="mini-mias", model="pretrained", recipe=recipe, folds=3, seeds=(0, 1), resamples=100
    )


def test_a_run_is_the_cross_validations_of_its_seeds(frame, protocol, tmp_path):
    run = run_benchmark(protocol, frame, tmp_path / "run", device="cpu")
    alone = [
        cross_validate(frame, protocol.recipe, folds=3, frozen=True, seed=seed, resamples=100, device="cpu")
        for seed in protocol.seeds
    ]
    assert [fold.seed for fold in run.folds] == [0, 0, 0, 1, 1, 1]
    for label, target in run.scorecard.targets.items():
        for score, estimate in target.scores.retrieval.items():
            values = [each.scorecard.targets[label].scores.retrieval[score].value for each in alone]
            assert estimate.value == pytest.approx(np.mean(values))
        accuracy = [each.scorecard.targets[label].scores.knn["accuracy"].value for each in alone]
        assert target.scores.knn["accuracy"].value == pytest.approx(np.mean(accuracy))
    saved = Scorecard.load(tmp_path / "run" / "scorecard.json")
    assert saved.to_dict() == json.loads(json.dumps(run.scorecard.to_dict()))
    assert saved.context["protocol"] == "3 folds by woman, seeds 0, 1; the pretrained backbone, not trained"
    again = load_predictions(tmp_path / "run" / "predictions.json")
    assert [fold.to_dict() for fold in again] == [json.loads(json.dumps(fold.to_dict())) for fold in run.folds]


def test_calibration_may_be_on_the_other_folds(frame, protocol, tmp_path):
    run = run_benchmark(replace(protocol, calibration="folds"), frame, tmp_path / "run", device="cpu")
    usual = run_benchmark(protocol, frame, tmp_path / "usual", device="cpu")
    expected = calibrate_across_folds(usual.folds)
    assert [fold.to_dict() for fold in run.folds] == [fold.to_dict() for fold in expected]
    assert "calibrated on the test women of the other folds" in run.scorecard.context["protocol"]
    page = (tmp_path / "run" / "index.html").read_text()
    assert "calibrations, on the test women of the other folds" in page
    page = (tmp_path / "usual" / "index.html").read_text()
    assert "heads and calibrations, on the women of the gallery alone" in page
    assert run.by_seed[1].context["protocol"].startswith("3 folds by woman, seed 1, calibrated on")


class _Page(html.parser.HTMLParser):
    """What a page shows, and what it would load."""

    def __init__(self):
        super().__init__()
        self.open, self.images, self.links, self.text = [], [], [], []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)
        if tag == "img":
            assert given["alt"]
            self.images.append(given["src"])
        self.links += [given[name] for name in ("href", "src") if name in given and tag != "img"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_is_whole_and_needs_nothing_beside_it(frame, protocol, tmp_path):
    frame["row_id"] = [f"<b>{row}</b>&" for row in frame["row_id"]]
    run = run_benchmark(replace(protocol, name="<script>x</script>"), frame, tmp_path / "run", device="cpu")
    text = (tmp_path / "run" / "index.html").read_text("utf-8")
    page = _Page()
    page.feed(text)
    assert not page.open, "every element is closed"
    assert "<script>" not in text
    assert all(link.startswith("#") for link in page.links), "nothing is loaded"
    kinds = [source.split(";")[0] for source in page.images]
    assert set(kinds) == {"data:image/svg+xml", "data:image/png"}
    for source in page.images:
        data = base64.b64decode(source.split(",", 1)[1], validate=True)
        if source.startswith("data:image/svg"):
            ET.fromstring(data)  # well-formed
        else:
            assert data.startswith(b"\x89PNG")
    shown = " ".join(page.text)
    assert "Not a medical device" in shown
    for label, target in run.scorecard.targets.items():
        assert label in shown
        figure = target.scores.retrieval["precision@10"]
        assert f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]" in shown
    # Best and worst are of the first fold's queries, and no query is both.
    pictured = re.findall(r"(Best|Worst): lesion_type", text)
    assert pictured.count("Best") == 4 >= pictured.count("Worst") > -1


def test_trained_folds_are_kept_and_not_trained_again(frame, protocol, tmp_path, monkeypatch):
    trained = replace(protocol, model="trained", seeds=(3,))
    first = run_benchmark(trained, frame, tmp_path / "run", device="cpu").scorecard
    monkeypatch.setattr("classifiers.crossvalidation.train", None)
    again = run_benchmark(trained, frame, tmp_path / "run", device="cpu").scorecard
    figures = [{label: target.to_dict() for label, target in card.targets.items()} for card in (first, again)]
    assert figures[0] == figures[1]
    assert again.context["model_digests"] == first.context["model_digests"]


def test_one_image_under_two_names_stops_it_before_anything_is_trained(frame, protocol, tmp_path, monkeypatch):
    monkeypatch.setattr("classifiers.crossvalidation.train", None)
    frame["path"] = [frame["path"].iloc[0], *frame["path"].iloc[1:-1], frame["path"].iloc[0]]
    with pytest.raises(ClassificationError, match=r"are one image .* both sides of a fold"):
        run_benchmark(replace(protocol, model="trained"), frame, tmp_path / "run", device="cpu")
    assert not (tmp_path / "run" / "scorecard.json").exists()


def test_declared_folds_are_used_and_checked(frame, protocol, tmp_path):
    frame["part"] = ["north", "south"] * 6
    declared = replace(protocol, fold_column="part", seeds=(0,))
    run = run_benchmark(declared, frame, tmp_path / "run", device="cpu")
    north = {f"w{woman}-0" for woman in range(0, 12, 2)}
    assert [set(fold.queries["row_id"]) == north for fold in run.folds] == [True, False]
    frame.loc[1, "patient_id"] = "w0"
    with pytest.raises(ClassificationError, match="the woman synthetic/w0 is in sets 1 and 2"):
        run_benchmark(declared, frame, tmp_path / "leak", device="cpu")
    for column, cells, cause in (
        ("other", 1, "has no column 'fold'"),
        ("fold", 1, "1 cannot be cross-validated"),
        ("fold", [None, *range(11)], "row 1 is in none"),
    ):
        with pytest.raises(ClassificationError, match=cause):
            run_benchmark(
                replace(declared, fold_column="fold"),
                frame.assign(**{column: cells}),
                tmp_path / cause[:5],
                device="cpu",
            )


@pytest.mark.parametrize(
    ("changes", "labels", "cause"),
    [
        ({}, ("margin",), "'margin' can't be scored"),
        ({}, ("colour",), "there is no column 'colour'"),
        ({"pathology": ["benign"] * 11 + ["malignant"]}, ("pathology",), "two classes of two women each"),
        ({"pathology": None}, ("pathology",), "can't be scored"),
        ({"pathology": None, "lesion_type": None, "density": None}, None, "no label column has two classes"),
    ],
)
def test_labels_that_can_not_be_scored_are_told(frame, protocol, tmp_path, changes, labels, cause):
    with pytest.raises(ClassificationError, match=cause):
        run_benchmark(replace(protocol, labels=labels), frame.assign(**changes), tmp_path / "run", device="cpu")


def test_a_folder_belongs_to_one_protocol(frame, protocol, tmp_path):
    run_benchmark(replace(protocol, seeds=(0,)), frame, tmp_path / "run", device="cpu")
    before = (tmp_path / "run" / "scorecard.json").read_bytes()
    with pytest.raises(ClassificationError, match="holds the run of another protocol"):
        run_benchmark(replace(protocol, seeds=(5,)), frame, tmp_path / "run", device="cpu")
    assert (tmp_path / "run" / "scorecard.json").read_bytes() == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(ClassificationError, match="not empty"):
        run_benchmark(protocol, frame, tmp_path / "mine", device="cpu")
    (tmp_path / "file").write_text("x")
    with pytest.raises(ClassificationError):
        run_benchmark(protocol, frame, tmp_path / "file", device="cpu")


def test_two_runs_are_compared(frame, protocol, tmp_path):
    run_benchmark(protocol, frame, tmp_path / "a", device="cpu")
    other = replace(protocol, name="other", recipe=protocol.recipe.with_settings(["preparation.normalise=false"]))
    run_benchmark(other, frame, tmp_path / "b", device="cpu")
    same = compare_benchmarks(tmp_path / "a", tmp_path / "a", resamples=100)
    assert {e.value for parts in same.differences.values() for s in parts.values() for e in s.values()} <= {0.0}
    found = compare_benchmarks(tmp_path / "a", tmp_path / "b", resamples=100)
    assert (found.a, found.b) == ("Two seeds", "other")
    a, b = (Scorecard.load(tmp_path / name / "scorecard.json").targets["lesion_type"].scores for name in "ab")
    difference = found.differences["lesion_type"]["retrieval"]["map@r"]
    assert difference.value == pytest.approx(a.retrieval["map@r"].value - b.retrieval["map@r"].value)
    assert difference.low <= difference.value <= difference.high


def test_runs_of_other_folds_or_rows_are_not_compared(frame, protocol, tmp_path, synthetic_manifest):
    run_benchmark(protocol, frame, tmp_path / "a", device="cpu")
    run_benchmark(replace(protocol, seeds=(0, 2)), frame, tmp_path / "b", device="cpu")
    with pytest.raises(ClassificationError, match="folds"):
        compare_benchmarks(tmp_path / "a", tmp_path / "b")
    run_benchmark(protocol, synthetic_manifest(10), tmp_path / "c", device="cpu")
    with pytest.raises(ClassificationError, match="different manifests"):
        compare_benchmarks(tmp_path / "a", tmp_path / "c")
    with pytest.raises(ClassificationError, match=r"scorecard\.json"):
        compare_benchmarks(tmp_path / "a", tmp_path / "none")
    (tmp_path / "b" / "predictions.json").write_text("{")
    with pytest.raises(ClassificationError, match=r"predictions\.json"):
        compare_benchmarks(tmp_path / "a", tmp_path / "b")
