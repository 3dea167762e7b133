import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit

from classifiers import ClassificationError
from classifiers.classification import classify
from classifiers.fitted import ClassifierConfig, fit_classifiers
from classifiers.heads import HeadConfig
from classifiers.reliability import bin_of, reliability
from classifiers.risk import RiskConfig, fit_risk
from tests.classifiers.test_classification import some_gallery

FAST = ClassifierConfig(head=HeadConfig(strengths=(1.0,)), folds=3)
CONFIG = RiskConfig(context=("age", "density"), strengths=(1.0,), folds=3)


def some_case(seed=0, women=40, noise=0.8, classes=("benign", "malignant")):
    gallery = some_gallery(seed, women, noise)
    rng = np.random.default_rng(seed)
    labels = gallery.records["pathology"].to_numpy(dtype=object)
    if len(classes) > 2:
        labels[(labels == "benign") & (rng.random(len(labels)) < 0.4)] = classes[2]
    context = pd.DataFrame(
        {
            "age": 50 + 10.0 * (labels == "malignant") + rng.normal(0, 10, len(labels)),
            "density": gallery.records["density"],
        }
    )
    fitted = fit_classifiers(gallery.matrix, labels, gallery.patient_keys, FAST)
    return gallery, fitted, labels, context


def predicted(fitted, vectors):
    return {"knn": fitted.knn.predict(vectors)[0], "head": fitted.head.predict(vectors)[0]}


@pytest.mark.parametrize("classes", [("benign", "malignant"), ("benign", "malignant", "normal")])
def test_a_risk_is_the_stack_of_what_was_held_out(classes):
    gallery, fitted, labels, context = some_case(classes=classes)
    model = fit_risk(fitted, labels, gallery.patient_keys, "malignant", context=context, config=CONFIG)
    assert model.findings == pd.notna(labels).sum()
    assert model.women == 40
    queries = predicted(fitted, gallery.matrix[:3])
    cells = context.iloc[:3]
    column = fitted.classes.index("malignant")
    scores = np.column_stack([logit(queries[name][:, column]) for name in ("knn", "head")])
    np.testing.assert_allclose(model.predict(queries, cells), expit(model.stack.log_odds(scores, cells)))
    np.testing.assert_allclose(logit(model.predict(queries, cells)), model.parts(queries, cells).sum(axis=1))
    assert model.parts(queries, cells).columns.tolist() == ["base rate", "knn", "head", "age", "density"]
    assert "kNN vote, linear head, age, density, stacked on held-out predictions" in model.basis
    known = pd.notna(labels)
    truth = np.where(labels == "malignant", labels, "rest")[known]
    assert np.isnan(model.held_out[~known]).all()
    told = reliability(truth, model.held_out[known], gallery.patient_keys[known], "malignant", 5)
    assert model.reliability == told
    assert model.support(0.9) == bin_of(told, 0.9)
    assert np.mean(model.held_out[labels == "malignant"]) > np.mean(model.held_out[labels == "benign"]) + 0.2


def test_the_held_out_risk_of_a_woman_does_not_know_her_outcome():
    # Many dimensions of noise, and a head that is free to learn them by heart.
    rng = np.random.default_rng(2)
    vectors = rng.normal(size=(120, 80))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    labels = np.array(["benign", "malignant"] * 60, dtype=object)
    keys = np.array([f"a/{number}" for number in range(120)], dtype=object)
    fitted = fit_classifiers(vectors, labels, keys, ClassifierConfig(head=HeadConfig(strengths=(100.0,))))

    def gap(each):
        held_out = fit_risk(each, labels, keys, "malignant", config=CONFIG).held_out
        return held_out[labels == "malignant"].mean() - held_out[labels == "benign"].mean()

    assert gap(fitted) < 0.05
    by_heart = replace(fitted.head, held_out=fitted.head.predict(vectors)[0])
    assert gap(replace(fitted, head=by_heart)) > 0.5


def test_the_order_of_rows_changes_nothing():
    gallery, fitted, labels, context = some_case()
    first = fit_risk(fitted, labels, gallery.patient_keys, "malignant", context=context, config=CONFIG)
    order = np.random.default_rng(1).permutation(len(labels))
    keys = gallery.patient_keys[order]
    again = fit_classifiers(gallery.matrix[order], labels[order], keys, FAST)
    second = fit_risk(again, labels[order], keys, "malignant", context=context.iloc[order], config=CONFIG)
    np.testing.assert_allclose(second.held_out, first.held_out[order], atol=1e-6)
    np.testing.assert_allclose(second.stack.weights, first.stack.weights, atol=1e-6)


def test_a_risk_is_fitted_on_women_the_embedder_was_not_trained_on_where_there_are_enough():
    gallery, fitted, labels, _ = some_case(women=60)
    seen = np.arange(len(labels)) < 70  # 35 women; of the other 25, 12 and 13
    few, enough = (RiskConfig(strengths=(1.0,), folds=3, women_per_class=5, new_women_per_class=n) for n in (20, 10))
    given = (fitted, labels, gallery.patient_keys, "malignant")
    chosen = fit_risk(*given, seen=seen, config=enough)
    assert chosen.women == 25
    assert np.isnan(chosen.held_out[seen]).all()
    assert chosen.basis.endswith("of 25 women that the embedder was not trained on")
    # Nothing of the trained women's own outcomes and held-out predictions is left in it.
    everyone = fit_risk(*given, seen=seen, config=few)
    assert everyone.women == 60
    assert "may be too sure (of others, 13 women with malignant, 20 are needed)" in everyone.basis
    assert chosen.stack.intercept != everyone.stack.intercept
    nobody = fit_risk(*given, seen=np.zeros(len(labels), bool), config=few)
    assert nobody.basis.endswith("none of whom the embedder was trained on")
    assert "embedder" not in fit_risk(*given, config=few).basis


def test_without_a_head_neighbours_and_context_are_left():
    gallery, _, labels, context = some_case()
    fitted = fit_classifiers(gallery.matrix, labels, gallery.patient_keys, ClassifierConfig(folds=3, head_women=1000))
    model = fit_risk(fitted, labels, gallery.patient_keys, "malignant", context=context, config=CONFIG)
    assert model.methods == ("knn",)
    assert 0 < model.predict({"knn": np.array([[0.2, 0.8]])}, context.iloc[:1])[0] < 1


def test_too_few_women_labels_or_the_label_itself_cost_one_clear_error():
    gallery, fitted, labels, context = some_case()
    keys = gallery.patient_keys

    def refused(cause, labels=labels, keys=keys, positive="malignant", context=context, fitted=fitted, **options):
        with pytest.raises(ClassificationError, match=cause):
            fit_risk(fitted, labels, keys, positive, context=context, config=options.pop("config", CONFIG), **options)

    refused("no finding is 'malignant'", labels=np.full(len(labels), None, dtype=object))
    refused("no finding is 'cyst'", positive="cyst")
    refused("0 women with another outcome", labels=np.full(len(labels), "malignant", dtype=object))
    few = np.where(np.arange(len(labels)) < 4, labels, "benign").astype(object)
    refused("1 women with malignant, 10 are needed", labels=few)
    refused("pass one per row", context=context.iloc[1:])
    refused("whom the embedder saw of", seen=np.ones(3, bool))
    native = np.array([None if pd.isna(label) else label[0].upper() for label in labels], dtype=object)
    context = context.assign(native_pathology=native)
    config = RiskConfig(context=("native_pathology",), strengths=(1.0,), folds=3)
    refused("'native_pathology' is the label in other words", context=context, config=config)
    with pytest.raises(ClassificationError, match="not finite"):
        fit_classifiers(np.full_like(gallery.matrix, np.nan), labels, keys, FAST)
    with pytest.raises(ClassificationError, match="hold none"):
        RiskConfig(strengths=())
    with pytest.raises(ClassificationError, match="folds"):
        RiskConfig(folds=1)


def test_a_query_that_does_not_fit_is_refused():
    gallery, fitted, labels, context = some_case()
    model = fit_risk(fitted, labels, gallery.patient_keys, "malignant", context=context, config=CONFIG)
    queries = predicted(fitted, gallery.matrix[:2])
    with pytest.raises(ClassificationError, match="no head prediction"):
        model.predict({"knn": queries["knn"]})
    with pytest.raises(ClassificationError, match="not finite"):
        model.predict({**queries, "head": np.full((2, 2), np.nan)})
    with pytest.raises(ClassificationError, match="different rows"):
        model.predict({**queries, "head": queries["head"][:1]})
    with pytest.raises(ClassificationError, match="one column per class"):
        model.predict({**queries, "head": queries["head"][:, :1]})
    with pytest.raises(ClassificationError, match="1 rows for 2 queries"):
        model.predict(queries, context.iloc[:1])


def test_classify_tells_the_risk_with_its_parts_and_support():
    gallery = some_gallery()
    vector = gallery.matrix[7]
    found = classify(gallery, vector, target="pathology", patient_keys="a/3", context={"density": "dense"}, config=FAST)
    risk = found.risk
    assert risk.positive == "malignant"
    assert logit(risk.probability) == pytest.approx(sum(risk.parts.values()))
    assert set(risk.parts) == {"base rate", "knn", "head", "density"}
    assert risk.women == 49
    assert risk.support["findings"] > 5
    assert "were malignant" in risk.basis
    content = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert content["risk"]["probability"] == risk.probability
    assert content["replay"]["context"] == {"age": None, "density": "dense"}
    # What is not known of the query is not held against it.
    plain = classify(gallery, vector, target="pathology", patient_keys="a/3", config=FAST).risk
    assert plain.parts["density"] != risk.parts["density"]
    assert plain.parts["knn"] == risk.parts["knn"]


def test_nothing_of_the_querys_woman_reaches_her_risk():
    gallery, poisoned = some_gallery(), some_gallery()
    own = poisoned.patient_keys == "a/3"
    poisoned.matrix[own] = gallery.matrix[7]
    poisoned.records.loc[own, ["pathology", "density"]] = ["benign", "fatty"]
    risks = [
        classify(place, gallery.matrix[7], target="pathology", patient_keys={"a/3"}, config=FAST).risk
        for place in (gallery, poisoned)
    ]
    assert risks[0] == risks[1]


def test_a_risk_that_cannot_be_made_keeps_its_shape_and_says_why():
    gallery = some_gallery()
    told = classify(gallery, gallery.matrix[7], target="density", config=FAST).to_dict()
    assert told["risk"]["probability"] is None
    assert told["risk"]["basis"] == told["reasons"]["risk"] == "density has no class whose risk would be told"
    few = some_gallery(women=12)
    answer = classify(few, few.matrix[0], target="pathology", config=FAST)
    assert answer.risk is None
    assert "10 are needed" in answer.reasons["risk"]
    whole = classify(gallery, gallery.matrix[7], target="pathology", config=FAST).to_dict()
    assert set(told["risk"]) == set(whole["risk"])


def test_classify_hands_on_whom_the_embedder_was_trained_on():
    gallery = some_gallery()
    seen = np.arange(len(gallery.records)) < 50  # half of the women
    found = classify(gallery, gallery.matrix[7], target="pathology", seen=seen, patient_keys="a/3", config=FAST)
    for part in (found.knn, found.head):
        assert part.calibration["women"] == 25
        assert part.calibration["basis"].endswith("that the embedder was not trained on")
    assert found.risk.women == 49
    assert "it may be too sure (of others, 13 women with malignant, 20 are needed)" in found.risk.basis
