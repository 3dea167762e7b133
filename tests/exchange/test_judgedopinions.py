"""A triage against the truth: what marks a lesion, and new scores by rescorings that do not know the woman."""

import json

import numpy as np
import pandas as pd
import pytest

from exchange import ExchangeError
from exchange.detections import Detection
from exchange.judgedopinions import judge_opinions, opinion_detections
from exchange.opinions import SecondOpinion
from exchange.secondreader import EVIDENCE, Opinion
from exchange.triage import WORKLIST_FILE, opinion_record


@pytest.fixture
def truth(synthetic_manifest) -> pd.DataFrame:
    return synthetic_manifest(24)


@pytest.fixture
def folder(truth, tmp_path):
    """A triage of one hit, one near miss of it and two false alarms for each woman; the evidence knows which."""
    random = np.random.default_rng(0)
    lines = [{"model_digest": "m"}]
    for number, row in enumerate(truth.itertuples()):
        for place, (x, hit) in enumerate(((13, True), (15, True), (60, False), (80, False))):
            opinion = SecondOpinion(
                f"d{number}-{place}", path=row.path, box=(x, 48, x + 24, 72), score=float(random.random()),
                lesion_type="mass",
            )  # fmt: skip
            evidence = dict.fromkeys(EVIDENCE, float(np.clip(0.2 + 0.6 * hit + 0.1 * random.normal(), 0, 1)))
            evidence["detector"] = opinion.score
            lines.append(opinion_record(Opinion(f"synthetic/w{number}", None, "CC", opinion, evidence)))
    (tmp_path / WORKLIST_FILE).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def test_what_lies_on_a_lesion_marks_it_and_nothing_else_does(folder, truth):
    judged = judge_opinions(folder, truth)
    assert len(judged.detections) == 96
    expected = judged.detections["x0"].to_numpy(dtype=int) < 50
    np.testing.assert_array_equal(judged.hits, expected)
    assert set(judged.women) == {f"synthetic/w{number}" for number in range(24)}
    assert judged.model_digest == "m"
    assert list(judged.evidence.columns) == list(EVIDENCE)


def test_new_scores_tell_lesions_from_false_alarms(folder, truth):
    judged = judge_opinions(folder, truth)
    new = judged.cross_fitted()
    assert new["score"][judged.hits].min() > new["score"][~judged.hits].max()
    assert new.drop(columns="score").equals(judged.detections.drop(columns="score"))
    assert judged.fit().model_digest == "m"


def test_images_that_the_manifest_does_not_know_are_left_out(folder, truth):
    judged = judge_opinions(folder, truth[:20])
    assert len(judged.detections) == 80
    assert any("16" in note for note in judged.notes)
    with pytest.raises(ExchangeError):
        judge_opinions(folder, truth[:0])


def test_detections_come_back_from_their_opinions(folder):
    opinion = SecondOpinion(
        "d", path="a.png", box=(1, 2, 3, 4), outline=((1.0, 2.0), (3.0, 4.0), (1.0, 4.0)), score=0.5, lesion_id="l",
        sop_uid="1.2.3", laterality="L", frame_number=2, detector="x", detector_version="1", lesion_type="mass",
    )  # fmt: skip
    frame = opinion_detections([Opinion("set/a/b", "study", "MLO", opinion)])
    row = frame.iloc[0]
    found = {name: row[name] for name in ("path", "dataset", "patient_id", "study_id", "view", "lesion_id", "score")}
    assert found == {
        "path": "a.png", "dataset": "set", "patient_id": "a/b", "study_id": "study", "view": "MLO", "lesion_id": "l",
        "score": 0.5,
    }  # fmt: skip
    assert row["outline"] == opinion.outline
    assert {field for field in Detection.__dataclass_fields__ if field not in frame.columns} == {"detection_id"}
