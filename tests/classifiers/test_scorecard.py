import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from classifiers import ClassificationError
from classifiers.evaluation import score_classification, score_retrieval
from classifiers.fitted import ClassifierConfig
from classifiers.heads import HeadConfig
from classifiers.predictions import FoldPredictions, TargetPredictions, predict_fold
from classifiers.scorecard import Scorecard, make_scorecard
from index.metrics import RECALL_LEVELS

CONTEXT = {
    "protocol": "two folds by woman",
    "manifest_digest": "d" * 64,
    "model_digests": ["e" * 64, "f" * 64],
}
FAST = ClassifierConfig(head=HeadConfig(strengths=(1.0,)), folds=3)


def one_fold(rows, target="pathology", classes=("benign", "malignant"), head=True, name="f", seed=0):
    """Make a fold by hand: (woman, lesion type, label, map@r, probabilities) a row."""
    women, kinds, labels, scores, values = (list(column) for column in zip(*rows, strict=True))
    queries = pd.DataFrame(
        {
            "row_id": [f"{name}{i}" for i in range(len(rows))],
            "woman": women,
            "dataset": "a",
            "lesion_type": np.array(kinds, dtype=object),
        }
    )
    columns = ("precision@1", "precision@5", "precision@10", "r_precision", "map@r")
    retrieval = pd.DataFrame(dict.fromkeys(columns, np.array(scores, dtype=float)))
    retrieval["relevant"] = 3
    probabilities = {"knn": np.array(values, dtype=float)}
    if head:
        probabilities["head"] = probabilities["knn"][:, ::-1].copy()
    prediction = TargetPredictions(
        np.array(labels, dtype=object),
        classes,
        retrieval,
        np.full((len(rows), len(RECALL_LEVELS)), 0.5),
        probabilities,
        dict.fromkeys(probabilities, "temperature on 9 women"),
        {} if head else {"head": "too few women"},
    )
    return FoldPredictions("finding", 20, 15, name * 64, queries, {target: prediction}, seed)


def two_folds(**given):
    nan = float("nan")
    return [
        one_fold(
            [
                ("a/1", "mass", "malignant", 1.0, (0.2, 0.8)),
                ("a/1", "mass", "benign", 0.5, (0.6, 0.4)),
                ("a/2", None, None, nan, (nan, nan)),
            ],
            name="f", **given,
        ),
        one_fold(
            [
                ("a/3", "calcification", "malignant", 0.0, (0.7, 0.3)),
                ("a/4", "mass", "benign", nan, (0.9, 0.1)),
            ],
            name="g", **given,
        ),
    ]  # fmt: skip


def test_scores_computed_by_hand():
    scores = make_scorecard(two_folds(), CONTEXT, resamples=50).targets["pathology"].scores
    assert (scores.findings, scores.women) == (4, 3)
    assert scores.retrieval["map@r"].value == 0.5
    assert (scores.retrieval["map@r"].items, scores.retrieval["map@r"].women) == (3, 2)
    assert "relevant" not in scores.retrieval
    assert scores.knn["accuracy"].value == 0.75
    assert scores.knn["auc"].value == 0.75  # 0.8 above both benign ones, 0.3 above one of two
    assert scores.knn["f1"].value == pytest.approx(2 / 3)
    assert scores.head["accuracy"].value == 0.25
    assert "kappa" not in scores.knn


def test_scores_are_broken_down_by_lesion_type():
    target = make_scorecard(two_folds(), CONTEXT, resamples=50).targets["pathology"]
    groups = target.breakdown["lesion_type"]
    assert list(target.breakdown) == ["pathology", "lesion_type"]  # these folds do not know density
    own = target.breakdown["pathology"]
    assert {value: group.findings for value, group in own.items()} == {"benign": 2, "malignant": 2}
    assert (own["benign"].knn["accuracy"].value, own["malignant"].knn["accuracy"].value) == (1, 0.5)  # sensitivities
    assert {value: (group.findings, group.women) for value, group in groups.items()} == {
        "calcification": (1, 1),
        "mass": (3, 2),
    }
    assert groups["mass"].knn["accuracy"].value == 1
    assert groups["calcification"].knn["accuracy"].value == 0
    assert np.isnan(groups["calcification"].knn["auc"].value)
    assert groups["mass"].retrieval["map@r"].value == 0.75


def test_pooled_scores_are_those_of_all_queries_together():
    scorecard = make_scorecard(two_folds(), CONTEXT, resamples=200, seed=3)
    women = ["a/1", "a/1", "a/3", "a/4"]
    expected = score_classification(
        ["malignant", "benign", "malignant", "benign"],
        [(0.2, 0.8), (0.6, 0.4), (0.7, 0.3), (0.9, 0.1)],
        ("benign", "malignant"),
        women,
        positive="malignant",
        folds=[0, 0, 1, 1],
        resamples=200,
        seed=3,
    )
    assert scorecard.targets["pathology"].scores.knn == expected
    retrieval = score_retrieval(pd.DataFrame({"map@r": [1, 0.5, 0, np.nan]}), women, resamples=200, seed=3)
    assert scorecard.targets["pathology"].scores.retrieval["map@r"] == retrieval["map@r"]


def test_density_is_scored_on_its_whole_scale():
    rows = [
        ("a/1", "mass", "A", 1.0, (0.9, 0.1)),
        ("a/2", "mass", "D", 1.0, (0.2, 0.8)),
        ("a/3", "mass", "A", 1.0, (0.4, 0.6)),
        ("a/4", "mass", "C", 1.0, (0.1, 0.9)),
    ]
    fold = one_fold(rows, target="density", classes=("A", "D"))
    found = make_scorecard([fold], CONTEXT, resamples=20).targets["density"].scores.knn
    # Truths A D A C (0 3 0 2) against A D D D (0 3 3 3) on the scale A B C D.
    observed, expected = 9 + 1, 0
    for truth in (0, 3, 0, 2):
        for predicted in (0, 3, 3, 3):
            expected += (truth - predicted) ** 2 / 4
    assert found["kappa"].value == pytest.approx(1 - observed / expected)


def test_a_class_that_one_fold_lacks_has_probability_zero_there():
    folds = [
        one_fold([("a/1", "mass", "mass", 1.0, (0.1, 0.9))], "lesion_type", ("asymmetry", "mass"), name="f"),
        one_fold([("a/2", "mass", "mass", 1.0, (0.9, 0.1))], "lesion_type", ("calcification", "mass"), name="g"),
    ]
    target = make_scorecard(folds, CONTEXT, resamples=20).targets["lesion_type"]
    assert target.scores.knn["accuracy"].value == 0.5
    assert target.scores.knn["brier"].value == pytest.approx((0.1**2 * 2 + 0.9**2 * 2) / 2)


def test_a_method_that_lacks_predictions_is_not_scored_on_the_others():
    folds = two_folds()
    folds[0] = one_fold([("a/1", "mass", "benign", 1.0, (0.6, 0.4))], head=False)
    scorecard = make_scorecard(folds, CONTEXT, resamples=20)
    target = scorecard.targets["pathology"]
    assert target.scores.knn["accuracy"].items == target.scores.findings == 3
    assert target.scores.head == {}
    assert all(group.head == {} for group in target.breakdown["lesion_type"].values())
    assert target.notes == [
        "no head in fold 1: too few women",
        "head is not scored: 1 of 3 labelled rows have no prediction",
    ]
    assert "head is not scored: 1 of 3" in scorecard.to_text()
    nobody = make_scorecard([folds[0]], CONTEXT, resamples=20)
    assert nobody.targets["pathology"].scores.head == {}
    assert "no head in fold 1" in nobody.to_text()
    # A fold that asks nothing of a method takes nothing from it.
    nan = float("nan")
    folds[0] = one_fold([("a/1", "mass", None, nan, (nan, nan))], head=False)
    assert make_scorecard(folds, CONTEXT, resamples=20).targets["pathology"].scores.head["accuracy"].items == 2


def test_a_figure_of_fewer_rows_says_so():
    text = make_scorecard(two_folds(), CONTEXT, resamples=50).to_text()
    assert "4 labelled rows of 3 women" in text
    line = next(line for line in text.splitlines() if line.strip().startswith("map@r"))
    assert line.endswith("of 3 rows")
    line = next(line for line in text.splitlines() if line.strip().startswith("accuracy"))
    assert "rows" not in line


def test_the_table_says_what_the_figures_rest_on():
    text = make_scorecard(two_folds(), CONTEXT, resamples=20).to_text()
    assert "heads and calibrations, on the women of the gallery alone" in text
    assert "auc_within_folds compares within each" in text
    assert (
        "auc_within_folds compares within each" not in make_scorecard(two_folds()[:1], CONTEXT, resamples=20).to_text()
    )


def test_a_target_without_labels_has_no_scores_and_no_error():
    fold = one_fold([("a/1", "mass", None, float("nan"), (0.5, 0.5))])
    scores = make_scorecard([fold], CONTEXT, resamples=20).targets["pathology"].scores
    assert (scores.findings, scores.knn, str(scores.retrieval["map@r"])) == (0, {}, "undefined")


def test_the_context_stands_beside_the_figures():
    scorecard = make_scorecard(two_folds(), {**CONTEXT, "recipe": {"epochs": 3}}, resamples=50, seed=9)
    context = scorecard.context
    assert context["recipe"] == {"epochs": 3}
    assert (context["granularity"], context["datasets"]) == ("finding", ["a"])
    assert (context["test_women"], context["test_rows"], len(context["folds"])) == (4, 5, 2)
    assert context["interval"] == {
        "method": "percentile bootstrap over women", "level": 0.95, "resamples": 50, "seed": 9,
    }  # fmt: skip
    text = scorecard.to_text()
    for word in (
        "two folds by woman",
        "5 rows (finding) of 4 women",
        "d" * 12,
        "e" * 12,
        "f" * 12,
        "50 resamples",
    ):
        assert word in text
    assert "0.75 [" in text
    assert "auc (malignant)" in text
    assert "malignant 2 of 2 women" in text
    assert "a/1" not in json.dumps(scorecard.to_dict())


@pytest.mark.parametrize("lacking", list(CONTEXT))
def test_no_figure_without_its_context(lacking):
    context = {name: value for name, value in CONTEXT.items() if name != lacking}
    with pytest.raises(ClassificationError, match=lacking):
        make_scorecard(two_folds(), context)
    with pytest.raises(ClassificationError, match="plain JSON"):
        make_scorecard(two_folds(), {**CONTEXT, "more": object()})


def test_a_scorecard_survives_a_file(tmp_path):
    scorecard = make_scorecard(two_folds(), CONTEXT, resamples=50)
    path = tmp_path / "scorecard.json"
    scorecard.save(path)
    again = Scorecard.load(path)
    assert again.to_dict() == scorecard.to_dict()
    assert again.to_text() == scorecard.to_text()
    first = path.read_bytes()
    make_scorecard(two_folds(), CONTEXT, resamples=50).save(path)
    assert path.read_bytes() == first
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "damage",
    [
        lambda c: c.pop("targets"),
        lambda c: c.update(format=7),
        lambda c: c.update(context=None),
        lambda c: c["targets"]["pathology"].pop("scores"),
        lambda c: c["targets"]["pathology"].update(breakdown=[1]),
        lambda c: c["targets"]["pathology"]["scores"].update(knn={"auc": {"value": "x"}}),
    ],
)
def test_refuses_damaged_scorecards(tmp_path, damage):
    content = make_scorecard(two_folds(), CONTEXT, resamples=20).to_dict()
    damage(content)
    path = tmp_path / "scorecard.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ClassificationError, match=r"scorecard\.json.*saved form"):
        Scorecard.load(path)


def test_refuses_folds_that_do_not_fit_each_other():
    first, second = two_folds()
    with pytest.raises(ClassificationError, match="no folds"):
        make_scorecard([], CONTEXT)
    with pytest.raises(ClassificationError, match="the row f0 is a query of two folds"):
        make_scorecard([first, first], CONTEXT)
    with pytest.raises(ClassificationError, match="of findings and of breasts"):
        make_scorecard([first, replace(second, granularity="breast")], CONTEXT)
    with pytest.raises(ClassificationError, match="different targets"):
        make_scorecard([first, replace(second, targets={})], CONTEXT)
    shared = replace(second, queries=second.queries.assign(woman=["a/3", "a/1"]))
    with pytest.raises(ClassificationError, match="the woman a/1 is tested in two folds"):
        make_scorecard([first, shared], CONTEXT)


def test_a_planted_signal_is_found_end_to_end():
    rng = np.random.default_rng(0)
    kind = np.arange(40).repeat(2) % 2
    vectors = np.eye(6)[kind] + 0.15 * rng.normal(size=(80, 6))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    frame = pd.DataFrame(
        {
            "row_id": [f"r{i}" for i in range(80)], "dataset": "a",
            "patient_id": np.arange(40).repeat(2).astype(str),
            "granularity": "finding", "pathology": np.where(kind, "malignant", "benign"),
            "density": rng.choice(["fatty", "glandular", "dense"], 80),
        }
    )  # fmt: skip
    test = np.arange(80) < 20
    fold = predict_fold(vectors[~test], frame[~test], vectors[test], frame[test], ["pathology", "density"], config=FAST)
    scorecard = make_scorecard([fold], CONTEXT, resamples=100)
    pathology = scorecard.targets["pathology"].scores
    for scores in (pathology.knn, pathology.head):
        assert scores["auc"].value == scores["accuracy"].value == 1
    assert pathology.retrieval["map@r"].value > 0.95
    density = scorecard.targets["density"]
    assert abs(density.scores.knn["kappa"].value) < 0.6
    assert set(density.breakdown["density"]) == {"fatty", "glandular", "dense"}
    assert "by density" in scorecard.to_text()


def seeded(folds, seed, turn):
    """The same folds with another seed: the same queries in other folds, with other answers."""
    changed = []
    for fold in folds:
        targets = {}
        for name, target in fold.targets.items():
            retrieval = target.retrieval.copy()
            retrieval["map@r"] = (retrieval["map@r"] - turn).abs()
            probabilities = {
                method: np.roll(values, turn > 0, axis=1) for method, values in target.probabilities.items()
            }
            targets[name] = replace(target, retrieval=retrieval, probabilities=probabilities)
        changed.append(replace(fold, targets=targets, seed=seed))
    return changed


def test_of_several_seeds_a_figure_is_the_mean_and_women_and_rows_count_once():
    first = two_folds()
    second = seeded(first, 1, 0.25)
    alone = [make_scorecard(folds, CONTEXT, resamples=200).targets["pathology"] for folds in (first, second)]
    both = make_scorecard([*first, *second], CONTEXT, resamples=200)
    found = both.targets["pathology"]
    assert both.context["test_rows"] == sum(len(fold.queries) for fold in first)
    assert found.classes == alone[0].classes
    assert (found.scores.findings, found.scores.women) == (alone[0].scores.findings, alone[0].scores.women)
    assert alone[0].scores.retrieval["map@r"].value != alone[1].scores.retrieval["map@r"].value
    for part in ("retrieval", "knn"):
        for name, estimate in getattr(found.scores, part).items():
            mean = np.mean([getattr(scores.scores, part)[name].value for scores in alone])
            assert estimate.value == pytest.approx(mean, nan_ok=True), name
            assert estimate.items == getattr(alone[0].scores, part)[name].items
    assert "(2 seeds, the mean of which is given)" in both.to_text()


def test_the_same_seed_twice_narrows_no_interval():
    folds = two_folds()
    once = make_scorecard(folds, CONTEXT, resamples=300).targets["pathology"].scores
    again = make_scorecard([*folds, *seeded(folds, 7, 0)], CONTEXT, resamples=300).targets["pathology"].scores
    assert once.to_dict() == again.to_dict()


def test_seeds_of_different_queries_are_refused():
    folds = two_folds()
    other = seeded(folds, 1, 0)
    other[0] = replace(other[0], queries=other[0].queries.assign(row_id=["x", "y", "z"][: len(other[0].queries)]))
    with pytest.raises(ClassificationError, match="the seeds have different queries"):
        make_scorecard([*folds, *other], CONTEXT, resamples=50)
