import json
from functools import cache

import numpy as np
import pandas as pd
import pytest

from classifiers import ClassificationError
from classifiers.fitted import ClassifierConfig, fit_classifiers
from classifiers.heads import HeadConfig
from classifiers.predictions import FoldPredictions, load_predictions, predict_fold, save_predictions
from errors import MammoseekError
from index.metrics import retrieval_scores

FAST = ClassifierConfig(head=HeadConfig(strengths=(1.0,)), folds=3)
TARGETS = ("pathology", "density")


def some_rows(seed=0, women=60, noise=0.6):
    """Return the vectors and manifest rows of women with two findings each."""
    rng = np.random.default_rng(seed)
    kind = np.arange(women).repeat(2) % 2
    vectors = np.eye(6)[kind] + noise * rng.normal(size=(2 * women, 6))
    frame = pd.DataFrame(
        {
            "row_id": [f"r{i}" for i in range(2 * women)],
            "dataset": "a",
            "patient_id": [str(i) for i in range(women) for _ in range(2)],
            "granularity": "finding",
            "lesion_type": rng.choice(np.array(["mass", "calcification", None], dtype=object), 2 * women),
            "pathology": np.array(["benign", "malignant"], dtype=object)[kind],
            "density": rng.choice(np.array(["A", "B", "C"], dtype=object), 2 * women),
        }
    )
    frame.loc[frame.index % 10 == 0, "pathology"] = None
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), frame


def some_folds(count=2):
    vectors, frame = some_rows()
    place = frame["patient_id"].astype(int).to_numpy() // 2 % count
    return [
        predict_fold(
            vectors[place != i],
            frame[place != i],
            vectors[place == i],
            frame[place == i],
            TARGETS,
            config=FAST,
        )
        for i in range(count)
    ]


def test_predictions_are_those_of_the_gallery():
    vectors, frame = some_rows()
    test = frame["patient_id"].astype(int).to_numpy() < 15
    fold = predict_fold(vectors[~test], frame[~test], vectors[test], frame[test], TARGETS, seed=4, config=FAST)
    keys = ("a/" + frame["patient_id"]).to_numpy(dtype=object)
    labels = frame["pathology"].to_numpy(dtype=object)
    target = fold.targets["pathology"]
    pd.testing.assert_frame_equal(
        target.retrieval,
        retrieval_scores(vectors[test], labels[test], keys[test], vectors[~test], labels[~test], keys[~test]),
    )
    config = ClassifierConfig(head=HeadConfig(strengths=(1.0,), seed=4), folds=3, seed=4)
    both = fit_classifiers(vectors[~test], labels[~test], keys[~test], config)
    known = frame["pathology"].notna().to_numpy()[test]
    for method, part in (("knn", both.knn), ("head", both.head)):
        found = target.probabilities[method]
        assert np.array_equal(found[known], part.predict(vectors[test][known])[1])
        assert np.isnan(found[~known]).all()
        assert target.calibration[method] == part.calibration.basis_
    assert (fold.gallery_rows, fold.gallery_women, fold.granularity) == (90, 45, "finding")
    assert fold.queries["woman"].tolist() == keys[test].tolist()


def test_a_planted_leak_is_refused():
    vectors, frame = some_rows()
    test = np.arange(len(frame)) < 21  # cuts the woman 10 in two
    with pytest.raises(ClassificationError, match="the woman a/10 is in sets 1 and 2"):
        predict_fold(vectors[~test], frame[~test], vectors[test], frame[test], TARGETS)


def test_labels_of_test_women_reach_nothing():
    vectors, frame = some_rows()
    test = frame["patient_id"].astype(int).to_numpy() < 15
    turned = frame.copy()
    known = test & frame["pathology"].notna()
    turned.loc[known, "pathology"] = frame.loc[known, "pathology"].map({"benign": "malignant", "malignant": "benign"})
    runs = [
        predict_fold(vectors[~test], rows[~test], vectors[test], rows[test], ["pathology"], config=FAST)
        for rows in (frame, turned)
    ]
    for method in ("knn", "head"):
        first, second = (run.targets["pathology"].probabilities[method] for run in runs)
        assert np.array_equal(first, second, equal_nan=True)


def test_the_same_fold_gives_the_same_bytes():
    first, second = (json.dumps([fold.to_dict() for fold in some_folds()]) for _ in range(2))
    assert first == second


def test_predictions_survive_a_file(tmp_path):
    folds = some_folds()
    save_predictions(tmp_path / "run.json", folds)
    again = load_predictions(tmp_path / "run.json")
    assert [fold.to_dict() for fold in again] == [fold.to_dict() for fold in folds]
    for fold, same in zip(folds, again, strict=True):
        for name, target in fold.targets.items():
            pd.testing.assert_frame_equal(target.retrieval, same.targets[name].retrieval)
            assert np.array_equal(target.probabilities["knn"], same.targets[name].probabilities["knn"], equal_nan=True)
    assert list(tmp_path.iterdir()) == [tmp_path / "run.json"]


def test_one_class_in_the_gallery_predicts_nothing_and_says_so():
    vectors, frame = some_rows()
    frame["pathology"] = "benign"
    test = frame["patient_id"].astype(int).to_numpy() < 15
    target = predict_fold(vectors[~test], frame[~test], vectors[test], frame[test], ["pathology"]).targets["pathology"]
    assert target.probabilities == {}
    assert "'benign'" in target.reasons["knn"]
    assert target.retrieval["precision@1"].eq(1).all()


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda f: f.drop(columns="dataset"), "no column 'dataset'"),
        (lambda f: f.assign(patient_id=None), "a row has no patient_id"),
        (lambda f: f.assign(granularity="breast"), "2 granularities"),
        (lambda f: f.assign(row_id="x"), "the row x stands twice"),
        (lambda f: f.iloc[:-1], "30 vectors for 29 rows"),
        (
            lambda f: f.assign(pathology=np.array(["nan"] * len(f), dtype=object)),
            "stands where a label is missing",
        ),
    ],
)
def test_refuses_sides_that_do_not_fit(change, cause):
    vectors, frame = some_rows()
    test = frame["patient_id"].astype(int).to_numpy() < 15
    with pytest.raises(ClassificationError, match=cause):
        predict_fold(vectors[~test], frame[~test], vectors[test], change(frame[test]), ["pathology"])


@pytest.mark.parametrize("side", ["gallery", "queries"])
def test_a_vector_that_is_not_finite_is_refused(side):
    vectors, frame = some_rows()
    test = frame["patient_id"].astype(int).to_numpy() < 15
    vectors[np.flatnonzero(test == (side == "queries"))[3], 2] = np.nan
    with pytest.raises(MammoseekError, match="vector 3 holds a value that is not finite"):
        predict_fold(vectors[~test], frame[~test], vectors[test], frame[test], ["pathology"])


def test_empty_sides_are_refused():
    vectors, frame = some_rows()
    with pytest.raises(ClassificationError, match="empty"):
        predict_fold(vectors, frame, vectors[:0], frame.iloc[:0], ["pathology"])


@cache
def saved_fold():
    return json.dumps(some_folds()[0].to_dict())


@pytest.mark.parametrize(
    "damage",
    [
        lambda c: c.pop("queries"),
        lambda c: c.pop("seed"),
        lambda c: c["targets"]["density"]["curve"].pop(),
        lambda c: c["targets"]["density"]["curve"][0].pop(),
        lambda c: c.update(format=99),
        lambda c: c.update(queries=3),
        lambda c: c["queries"].pop("woman"),
        lambda c: c["queries"]["woman"].pop(),
        lambda c: c["targets"]["density"]["labels"].pop(),
        lambda c: c["targets"]["density"]["classes"].append("D"),
        lambda c: c["targets"]["density"]["retrieval"].pop("relevant"),
        lambda c: c["targets"]["density"]["probabilities"].update(oracle=[]),
        lambda c: c["targets"]["density"]["probabilities"]["knn"].pop(),
        lambda c: c["targets"]["density"]["probabilities"].update(knn="x"),
        lambda c: c["targets"].update(density=None),
    ],
)
def test_refuses_damaged_predictions(damage):
    content = json.loads(saved_fold())
    damage(content)
    with pytest.raises(ClassificationError, match="saved form"):
        FoldPredictions.from_dict(content)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"{}", b"\xff\xfe", b"[" * 100_000, b'{"folds": [1]}'])
def test_refuses_files_that_are_no_predictions(tmp_path, data):
    path = tmp_path / "run.json"
    path.write_bytes(data)
    with pytest.raises(ClassificationError, match=r"run\.json"):
        load_predictions(path)


def test_names_a_file_that_is_not_there_or_cannot_be_written(tmp_path):
    with pytest.raises(ClassificationError, match=r"none\.json: cannot be read"):
        load_predictions(tmp_path / "none.json")
    with pytest.raises(ClassificationError, match=r"run\.json"):
        save_predictions(tmp_path / "no folder" / "run.json", some_folds())
