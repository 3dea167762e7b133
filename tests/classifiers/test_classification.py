import json
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pytest

from classifiers import ClassificationError, fitted
from classifiers.calibration import Calibration, cross_fitted_probabilities
from classifiers.classification import CaseClassifier, HeadAnswer, classify, keys_of_patient
from classifiers.fitted import ClassifierConfig, fit_classifiers
from classifiers.heads import HeadConfig, LinearHead
from classifiers.neighbours import NeighbourVote, VoteConfig

FAST = ClassifierConfig(head=HeadConfig(strengths=(1.0,)), folds=3)


@dataclass
class Identity:
    model_digest: str = "m" * 64
    preparation_digest: str = "p" * 64


@dataclass
class StandIn:
    """What `classify` asks of a gallery."""

    matrix: np.ndarray
    records: pd.DataFrame
    generation: int = 3
    identity: Identity = field(default_factory=Identity)

    @property
    def patient_keys(self):
        return (self.records["dataset"] + "/" + self.records["patient_id"]).to_numpy(dtype=object)


def some_gallery(seed=0, women=50, noise=0.5, datasets=("a",)):
    rng = np.random.default_rng(seed)
    pathology = np.array([("benign", "malignant")[i % 2] for i in range(women)], dtype=object).repeat(2)
    vectors = np.eye(6)[(pathology == "malignant").astype(int)] + noise * rng.normal(size=(2 * women, 6))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    records = pd.DataFrame(
        {
            "row_id": [f"r{i}" for i in range(2 * women)],
            "patient_id": [str(i) for i in range(women) for _ in range(2)],
            "dataset": [datasets[i % len(datasets)] for i in range(2 * women)],
            "pathology": pathology,
            "density": np.array(["dense", "fatty", "glandular"] * women, dtype=object)[: 2 * women],
        }
    )
    records.loc[records.index % 9 == 0, "pathology"] = None
    return StandIn(vectors.astype(np.float32), records)


def test_the_parts_are_the_classifiers_of_other_women_calibrated():
    gallery = some_gallery()
    vector = gallery.matrix[7]
    found = classify(gallery, vector, target="pathology", patient_keys="a/3", config=FAST)
    others = gallery.patient_keys != "a/3"
    labels, keys = gallery.records["pathology"].to_numpy(dtype=object)[others], gallery.patient_keys[others]
    vectors = gallery.matrix[others]
    for part, make in ((found.knn, NeighbourVote), (found.head, lambda: LinearHead(FAST.head))):
        estimator = make().fit(vectors, labels, keys)
        raw = estimator.predict_proba(vector[None])
        values, classes = cross_fitted_probabilities(make, vectors, labels, keys, 3, 0)
        calibration = Calibration().fit(values, labels, keys, classes)
        assert list(part.raw_probabilities.values()) == raw[0].tolist()
        assert list(part.probabilities.values()) == calibration.transform(raw)[0].tolist()
        assert part.calibration == calibration.to_dict()
    assert found.knn.neighbours == 10
    assert 5 <= found.knn.women <= 10
    assert found.head.women == found.women == 49
    assert found.head.findings == found.findings == pd.notna(labels).sum()
    assert (found.excluded_patient, found.excluded_rows) == ("a/3", 2)


def test_nothing_of_the_querys_woman_reaches_her_answer():
    gallery, poisoned = some_gallery(), some_gallery()
    own = poisoned.patient_keys == "a/3"
    poisoned.matrix[own] = gallery.matrix[7]
    poisoned.records.loc[own, "pathology"] = "benign"
    answers = [
        classify(place, gallery.matrix[7], target="pathology", patient_keys={"a/3"}, config=FAST).to_dict()
        for place in (gallery, poisoned)
    ]
    assert answers[0] == answers[1]
    told = classify(poisoned, gallery.matrix[7], target="pathology", config=FAST).to_dict()
    assert told["knn"]["raw_probabilities"]["benign"] > answers[0]["knn"]["raw_probabilities"]["benign"]
    assert told["excluded_patient"] is None


def test_an_id_without_a_data_set_leaves_every_data_set_out():
    gallery = some_gallery(datasets=("a", "b"))
    assert keys_of_patient(gallery, "3") == {"a/3", "b/3"}
    found = classify(gallery, gallery.matrix[7], target="pathology", patient_id="3", config=FAST)
    assert (found.excluded_patient, found.excluded_rows) == ("3", 2)
    one = classify(gallery, gallery.matrix[7], target="pathology", patient_keys="a/3", config=FAST)
    assert (one.excluded_patient, one.excluded_rows) == ("a/3", 1)


def test_the_answer_is_plain_json_and_always_the_same():
    gallery = some_gallery()
    shuffled = some_gallery()
    order = np.random.default_rng(1).permutation(len(gallery.matrix))
    shuffled.matrix, shuffled.records = (
        gallery.matrix[order],
        gallery.records.iloc[order].reset_index(drop=True),
    )
    first, again, other = (
        classify(place, gallery.matrix[7], target="pathology", patient_id="3", config=FAST).to_dict()
        for place in (gallery, gallery, shuffled)
    )
    texts = [json.dumps(answer, allow_nan=False) for answer in (first, again, other)]
    assert texts[0] == texts[1] == texts[2]
    assert list(first)[:4] == ["target", "classes", "knn", "head"]
    assert first["classes"] == ["benign", "malignant"]
    for part in (first["knn"], first["head"]):
        assert sum(part["probabilities"].values()) == pytest.approx(1)
    assert first["head"]["basis"].startswith("fitted on 86 findings of 49 women; temperature")
    assert first["knn"]["basis"].startswith("10 neighbours of")
    assert first["replay"]["gallery_generation"] == 3
    assert first["replay"]["settings"]["vote"]["k"] == 10


def test_density_is_in_order():
    gallery = some_gallery()
    found = classify(gallery, gallery.matrix[7], target="density", config=FAST)
    assert found.classes == ("fatty", "glandular", "dense")
    assert list(found.head.probabilities) == ["fatty", "glandular", "dense"]
    raw = NeighbourVote().fit(gallery.matrix, gallery.records["density"], gallery.patient_keys)
    expected = dict(zip(raw.classes_, raw.predict_proba(gallery.matrix[7:8])[0], strict=True))
    assert found.knn.raw_probabilities == pytest.approx(expected)


def test_many_answers_equal_single_ones_and_share_fits(monkeypatch):
    gallery = some_gallery()
    rows = [7, 8, 20, 21, 22]
    keys = [{"a/3"}, {"a/4"}, (), {"z/1"}, {"a/3"}]
    fits = []
    real = fitted.fit_classifiers
    monkeypatch.setattr(
        "classifiers.classification.fit_classifiers",
        lambda *given, **options: fits.append(1) or real(*given, **options),
    )
    classifier = CaseClassifier(gallery, "pathology", config=FAST)
    many = [
        classifier.classify(gallery.matrix[row], frozenset(own), name=", ".join(sorted(own)) or None)
        for row, own in zip(rows, keys, strict=True)
    ]
    assert len(fits) == 3  # without a/3, without a/4, with everyone
    for row, own, found in zip(rows, keys, many, strict=True):
        alone = classify(gallery, gallery.matrix[row], target="pathology", patient_keys=own, config=FAST)
        assert alone.to_dict() == found.to_dict()


def test_too_few_women_for_a_head_leave_the_vote():
    gallery = some_gallery(women=4)
    gallery.records["pathology"] = [*["benign"] * 6, *["malignant"] * 2]
    found = classify(gallery, gallery.matrix[0], target="pathology")
    assert found.head is None
    plain = found.to_dict()
    assert plain["head"]["probabilities"] is None
    assert plain["head"]["basis"] == found.reasons["head"]
    assert set(plain["head"]) == {*HeadAnswer.__dataclass_fields__, "basis"}
    assert "two classes of 2 women or more" in found.reasons["head"]
    assert found.knn.calibration["basis"] == "not calibrated: 1 women with malignant, 5 are needed"
    assert found.knn.probabilities == found.knn.raw_probabilities


@pytest.mark.parametrize(
    ("target", "change", "cause"),
    [
        ("shape", {}, "no column 'shape'; its label columns are pathology, density"),
        ("pathology", {"vector": np.ones(6)}, "length is 2.45"),
        ("pathology", {"vector": np.full(6, np.nan)}, "length is nan"),
        ("pathology", {"vector": np.eye(7)[0]}, "has 6 dimensions"),
        ("pathology", {"vector": ["x"] * 6}, "is none"),
        ("row_id", {}, "different values"),
        ("empty", {}, "no finding has one"),
        ("alike", {}, "all 100 labelled findings are 'mass'"),
        ("hers", {"patient_keys": "a/3"}, "hers of other women: no finding has one"),
    ],
)
def test_what_cannot_be_answered_is_one_clear_error(target, change, cause, monkeypatch):
    gallery = some_gallery()
    gallery.records["empty"] = None
    gallery.records["alike"] = "mass"
    gallery.records["hers"] = None
    gallery.records.loc[gallery.patient_keys == "a/3", "hers"] = ["mass", "asymmetry"]
    monkeypatch.setattr(fitted, "MOST_CLASSES", 60)
    with pytest.raises(ClassificationError, match=cause):
        classify(gallery, **({"vector": gallery.matrix[7], "target": target} | change))


def test_an_empty_gallery_answers_nothing():
    gallery = some_gallery()
    gallery.matrix, gallery.records = gallery.matrix[:0], gallery.records.iloc[:0]
    with pytest.raises(ClassificationError, match="no finding has one"):
        classify(gallery, np.eye(6)[0], target="pathology", patient_id="1")


def test_fits_are_forgotten_when_there_are_many(monkeypatch):
    gallery = some_gallery()
    fits, real = [], fit_classifiers
    monkeypatch.setattr(
        "classifiers.classification.fit_classifiers",
        lambda *given, **options: fits.append(1) or real(*given, **options),
    )
    classifier = CaseClassifier(gallery, "pathology", config=FAST, kept=2)
    for woman in ("a/1", "a/2", "a/1", "a/3", "a/1", "a/2"):
        classifier.classify(gallery.matrix[0], frozenset({woman}))
    assert len(fits) == 4, "a/2 was forgotten when a/3 came, a/1 was not"


def test_calibrated_probabilities_keep_the_order_of_classes():
    gallery = some_gallery()
    both = fit_classifiers(gallery.matrix, gallery.records["density"], gallery.patient_keys, FAST)
    raw, calibrated = both.knn.predict(gallery.matrix[:5])
    assert raw.shape == calibrated.shape == (5, 3)
    expected = both.knn.calibration.transform(both.knn.estimator.predict_proba(gallery.matrix[:5]))
    assert calibrated.tolist() == expected[:, [1, 2, 0]].tolist()  # sorted: dense, fatty, glandular


def test_settings_reach_the_classifiers():
    gallery = some_gallery()
    config = ClassifierConfig(vote=VoteConfig(k=3), head=HeadConfig(strengths=(0.5,)), folds=2)
    found = classify(gallery, gallery.matrix[7], target="pathology", config=config)
    assert (found.knn.neighbours, found.head.strength) == (3, 0.5)
