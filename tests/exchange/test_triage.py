"""Triage: opinions are the answers to single questions, a woman never meets herself, and a stop loses nothing."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classifiers.cases import Source, ask_source, classify_source
from classifiers.classification import CaseClassifier
from classifiers.filling import new_gallery
from classifiers.parts import parts_of_women
from embedder.embedding import pretrained_model
from embedder.findings import Box
from exchange import ExchangeError
from exchange.detections import Detection, detections_frame
from exchange.opinions import opinion_from_dict
from exchange.rescoring import DETECTOR, fit_rescorer
from exchange.secondreader import EVIDENCE, OpinionConfig, SecondReader, lesion_batches, lesion_codes
from exchange.triage import OPINIONS_FILE, TABLE_FILE, WORKLIST_FILE, read_opinions, triage


@pytest.fixture(scope="module")
def manifest(synthetic_manifest):
    frame = synthetic_manifest(24, view_count=2)
    normal = frame.iloc[::2].copy()
    normal["row_id"] += "-normal"
    normal[["x0", "x1"]] += 20
    normal = normal.assign(pathology=None, lesion_type=None, tissue="normal")
    return pd.concat([frame.assign(tissue="lesion"), normal], ignore_index=True)


@pytest.fixture(scope="module")
def gallery(manifest, tiny_network, tiny_preparation, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("triage")
    pretrained_model(folder / "model", tiny_network, tiny_preparation)
    new_gallery(manifest, folder / "model", folder / "gallery", device="cpu", workers=1)
    return folder / "gallery"


def detection(number: int, path: str, woman: str, **changes) -> Detection:
    given = {"x0": 14, "y0": 46, "x1": 38, "y1": 70, "score": 0.3 + number / 40, "detector": "finder", "view": "CC"}
    given |= {"spacing_mm": 0.4, "dataset": "archive"} | changes
    return Detection(detection_id=f"d{number}", path=path, patient_id=woman, **given)


@pytest.fixture(scope="module")
def known(manifest) -> pd.DataFrame:
    """Detections on images of the gallery's own women."""
    paths = manifest.drop_duplicates("path").set_index("row_id")["path"]
    return detections_frame(
        [
            detection(0, paths["w0-0"], "w0", lesion_id="a", dataset="synthetic"),
            detection(1, paths["w0-1"], "w0", lesion_id="a", dataset="synthetic"),
            detection(2, paths["w1-0"], "w1", dataset="elsewhere"),
            detection(3, paths["w2-0"], "nobody knows her"),
            detection(4, paths["w3-0"], "new", lesion_id="a"),
            detection(5, paths["w3-0"], "new", x0=33, x1=57),
        ]
    )


@pytest.fixture(scope="module")
def triaged(gallery, known, tmp_path_factory) -> Path:
    """What was said of them."""
    output = tmp_path_factory.mktemp("triaged")
    report = triage(SecondReader(gallery, device="cpu"), known, output, workers=1)
    assert (report.detections, report.answered, report.kept, report.failures) == (6, 6, 0, [])
    return output


@pytest.fixture(scope="module")
def detections(synthetic_manifest) -> pd.DataFrame:
    """Detections on images of women whom the gallery does not know."""
    paths = synthetic_manifest(27).set_index("row_id")["path"]
    return detections_frame(
        [detection(number, paths[f"w{24 + number % 3}-0"], f"n{number % 3}", x0=10 + number) for number in range(6)]
    )


def opinions(output: Path) -> dict:
    return {one.opinion.detection_id: one for one in read_opinions(output)}


def test_opinions_are_the_answers_to_single_questions(gallery, known, triaged):
    found = opinions(triaged)
    rows = known.set_index("row_id")

    def source(name):
        row = rows.loc[name]
        box = Box(*(int(row[corner]) for corner in ("x0", "y0", "x1", "y1")))
        return Source(Path(row["path"]), box, patient=row["patient_id"], spacing_mm=0.4, view="CC")

    for names in (["d0", "d1"], ["d5"]):
        first, *further = (source(name) for name in names)
        answer = ask_source(gallery, first, further=further)
        classified = {part.target: part for part in classify_source(gallery, first, further=further).targets}
        for name in names:
            said = found[name].opinion
            assert [case.row_id for case in said.similar] == [one.row_id for one in answer.neighbours]
            np.testing.assert_allclose(
                [case.similarity for case in said.similar], [one.similarity for one in answer.neighbours], atol=1e-5
            )
            assert said.no_close_precedent == answer.no_close_precedent
            pathology, tissue = classified["pathology"], classified["tissue"]
            assert said.vote.probabilities == pytest.approx(pathology.knn.probabilities, abs=1e-4)
            assert said.head_probabilities == pytest.approx(pathology.head.probabilities, abs=1e-4)
            assert said.risk.probability == pytest.approx(pathology.risk.probability, abs=1e-4)
            assert found[name].evidence == pytest.approx(
                {
                    DETECTOR: rows.loc[name, "score"],
                    "lesion vote": tissue.knn.probabilities["lesion"],
                    "lesion head": tissue.head.probabilities["lesion"],
                    "malignancy": pathology.risk.probability,
                },
                abs=1e-4,
            )


def test_a_detection_never_meets_its_own_woman(triaged):
    found = opinions(triaged)
    # By the table's id, whatever it calls the data set; by the image, whatever the table calls her.
    for name, woman in (("d0", "w0"), ("d1", "w0"), ("d2", "w1"), ("d3", "w2"), ("d5", "w3")):
        met = [case.patient_id for case in found[name].opinion.similar]
        assert met
        assert woman not in met
        assert len(set(met)) == len(met), "one finding of each woman"


def test_who_is_of_a_part_is_judged_without_all_of_it(gallery, known, monkeypatch):
    monkeypatch.setattr("classifiers.parts._FEWEST_WOMEN", 1)
    asked = []
    original = CaseClassifier.classify

    def classify(self, vector, keys, context):
        asked.append((self.target, keys))
        return original(self, vector, keys, context)

    monkeypatch.setattr(CaseClassifier, "classify", classify)
    reader = SecondReader(gallery)
    parts = parts_of_women(reader.gallery.patient_keys)
    found = [one for batch in reader.read(known) for one in batch.opinions]
    for _, keys in asked:
        assert keys == {woman for woman, part in parts.items() if part in {parts[key] for key in keys}}
    left_out = {keys for _, keys in asked if keys}
    assert any(len(keys) > 1 for keys in left_out)
    assert len(left_out) <= 10
    wider = {one.opinion.detection_id: one.opinion for one in found}
    monkeypatch.setattr("classifiers.parts._FEWEST_WOMEN", 100)
    single = [one for batch in SecondReader(gallery).read(known) for one in batch.opinions]
    alone = {one.opinion.detection_id: one.opinion for one in single}
    assert {name: one.similar for name, one in wider.items()} == {name: one.similar for name, one in alone.items()}


def test_normal_tissue_is_told_as_what_it_is(triaged):
    outcomes = {
        case.row_id.endswith("-normal"): case.outcome
        for one in read_opinions(triaged)
        for case in one.opinion.similar
        if case.row_id.endswith("-normal")
    }
    assert outcomes == {True: "normal"}


def test_views_of_one_lesion_share_their_opinion_and_other_womens_lesions_do_not(known, triaged):
    found = opinions(triaged)
    first, second, other = (found[name].opinion for name in ("d0", "d1", "d4"))
    assert first.similar == second.similar
    assert first.risk == second.risk
    assert first.similar != other.similar
    assert first.box == second.box == (14, 46, 38, 70)
    assert (first.path, second.path) == tuple(known["path"][:2])


def test_the_table_is_sorted_and_is_a_table_of_detections(known, triaged):
    table = pd.read_csv(triaged / TABLE_FILE)
    assert set(table["detection_id"]) == set(known["row_id"])
    assert table["woman"].is_monotonic_increasing
    for _, hers in table.groupby("woman"):
        assert hers["urgency"].is_monotonic_decreasing
    assert table.set_index("detection_id")["score"].to_dict() == pytest.approx(
        known.set_index("row_id")["score"].to_dict()
    )
    content = json.loads((triaged / OPINIONS_FILE).read_text())
    assert len(content["opinions"]) == 6
    assert content["plan"]["gallery_generation"] >= 1
    assert all(opinion_from_dict(one["opinion"]) for one in content["opinions"])


def test_a_bad_image_and_a_finding_without_a_place_cost_themselves_only(gallery, detections, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"\x89PNG no more")
    more = detections_frame(
        [
            detection(6, str(bad), "new"),
            detection(7, str(tmp_path / "absent.png"), "new"),
            detection(8, detections["path"][4], "new", x0=None, y0=None, x1=None, y1=None),
            detection(9, detections["path"][4], "new", x0=5000, x1=5100),
        ]
    )
    report = triage(
        SecondReader(gallery, device="cpu"),
        pd.concat([detections, more], ignore_index=True),
        tmp_path / "out",
        workers=1,
    )
    assert report.answered == 6
    reasons = dict(report.failures)
    assert set(reasons) == {"d6", "d7", "d8", "d9"}
    assert "no coordinates" in reasons["d8"]
    assert "bad.png" in reasons["d6"]


class Stopped(Exception):
    """A triage is stopped from outside."""


def test_a_stopped_triage_goes_on_to_the_same_answers(gallery, detections, tmp_path, monkeypatch):
    monkeypatch.setattr("exchange.secondreader._LARGEST_BATCH", 2)
    reader = SecondReader(gallery, device="cpu")
    triage(reader, detections, tmp_path / "whole", workers=1)

    def stop(done, total):
        if done >= 3:
            raise Stopped

    with pytest.raises(Stopped):
        triage(reader, detections, tmp_path / "stopped", workers=1, progress=stop)
    assert not (tmp_path / "stopped" / TABLE_FILE).exists()
    report = triage(reader, detections, tmp_path / "stopped", workers=1)
    assert report.kept >= 2
    assert report.answered == 6
    whole, again = ((tmp_path / name / TABLE_FILE).read_bytes() for name in ("whole", "stopped"))
    assert whole == again
    asked = []
    monkeypatch.setattr(type(reader.embedder), "embed_batches", lambda *given, **options: asked.append(1) or iter(()))
    assert triage(reader, detections, tmp_path / "whole", workers=1).kept == 6


def test_another_triage_does_not_go_on_in_its_folder(gallery, detections, tmp_path):
    triage(SecondReader(gallery, device="cpu"), detections, tmp_path, workers=1)
    before = (tmp_path / WORKLIST_FILE).read_bytes()
    with pytest.raises(ExchangeError, match="another detections"):
        triage(SecondReader(gallery, device="cpu"), detections[:5], tmp_path, workers=1)
    other = OpinionConfig(neighbours=3)
    with pytest.raises(ExchangeError, match="another opinions"):
        triage(SecondReader(gallery, device="cpu", config=other), detections, tmp_path, workers=1)
    assert (tmp_path / WORKLIST_FILE).read_bytes() == before


def test_new_scores_are_those_of_the_rescorer(gallery, detections, tmp_path):
    reader = SecondReader(gallery, device="cpu")
    triage(reader, detections, tmp_path / "plain", workers=1)
    random = np.random.default_rng(0)
    women, hits = np.repeat([f"x/{n}" for n in range(20)], 4).astype(object), np.tile([True, False, False, False], 20)
    known = pd.DataFrame({name: random.random(80) * 0.5 + 0.4 * hits for name in EVIDENCE})
    rescorer = fit_rescorer(known, hits, women, model_digest=reader.embedder.digest)
    triage(SecondReader(gallery, device="cpu", rescorer=rescorer), detections, tmp_path / "new", workers=1)
    plain, new = opinions(tmp_path / "plain"), opinions(tmp_path / "new")
    for name, one in new.items():
        assert plain[name].opinion.rescored is None
        expected = rescorer.rescore(pd.DataFrame([dict(one.evidence)], dtype=float))[0]
        assert one.opinion.rescored == pytest.approx(expected)
        assert one.urgency == one.opinion.rescored
        assert dataclasses.replace(one.opinion, rescored=None) == plain[name].opinion
    with pytest.raises(ExchangeError, match="another model"):
        SecondReader(gallery, device="cpu", rescorer=dataclasses.replace(rescorer, model_digest="other"))


def test_names_of_similar_cases_are_withheld_from_reports_unless_asked_for(gallery, detections, tmp_path):
    for name, shown in (("not", False), ("yes", True)):
        triage(
            SecondReader(gallery, device="cpu", config=OpinionConfig(name_cases=shown)),
            detections[:1],
            tmp_path / name,
            workers=1,
        )
        assert {case.may_be_shown for one in read_opinions(tmp_path / name) for case in one.opinion.similar} == {shown}


def test_tables_that_can_not_be_triaged_are_refused(gallery, detections, tmp_path):
    reader = SecondReader(gallery, device="cpu")
    with pytest.raises(ExchangeError, match="there are none"):
        triage(reader, detections[:0], tmp_path)
    with pytest.raises(ExchangeError, match="the id d0 names two"):
        triage(reader, pd.concat([detections, detections[:1]]), tmp_path)
    with pytest.raises(ExchangeError, match="run `mammoseek triage` first"):
        list(read_opinions(tmp_path / "nowhere"))


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5) | st.none()), min_size=1, max_size=40), st.integers(1, 8)
)
def test_batches_keep_lesions_together_and_hold_every_row_once(rows, size):
    frame = detections_frame(
        [
            detection(
                number, f"{woman}-{number % 3}.png", str(woman), lesion_id=None if lesion is None else str(lesion)
            )
            for number, (woman, lesion) in enumerate(rows)
        ]
    )
    lesions = lesion_codes(frame)
    for first in range(len(rows)):
        for second in range(first):
            same = rows[first] == rows[second] and rows[first][1] is not None
            assert (lesions[first] == lesions[second]) == same
    batches = lesion_batches(frame, lesions, size)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(rows)))
    place = {row: number for number, batch in enumerate(batches) for row in batch.tolist()}
    for lesion in set(lesions.tolist()):
        assert len({place[row] for row in np.flatnonzero(lesions == lesion).tolist()}) == 1
    largest = max(np.bincount(lesions))
    assert max(map(len, batches)) <= max(size, largest)
    women = frame["patient_id"].to_numpy()[np.concatenate(batches)]
    assert (np.diff([int(woman) for woman in women]) >= 0).all(), "a woman's detections follow on one another"
