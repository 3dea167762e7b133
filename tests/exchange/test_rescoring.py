import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from classifiers.scores import auc
from exchange import ExchangeError
from exchange.rescoring import DETECTOR, Rescorer, cross_fitted_scores, evidence_frame, fit_rescorer


def detections(women=40, each=6, seed=0, detector=1.0, lesion=1.5):
    """Return evidence, hits and women: both scores know the truth as well as they are strong."""
    rng = np.random.default_rng(seed)
    keys = np.repeat([f"a/{number}" for number in range(women)], each).astype(object)
    hits = np.tile([True] + [False] * (each - 1), women)
    sign = np.where(hits, 1.0, -1.0)
    evidence = pd.DataFrame(
        {
            DETECTOR: expit(detector * sign + rng.normal(size=len(sign))),
            "lesion": expit(lesion * sign + rng.normal(size=len(sign))),
        }
    )
    return evidence, hits, keys


def area(hits, scores):
    return float(auc(hits, scores, np.ones((1, len(hits))))[0])


def test_evidence_that_knows_more_than_the_detector_is_used():
    evidence, hits, women = detections()
    scores = cross_fitted_scores(evidence, hits, women)
    assert area(hits, scores) > area(hits, evidence[DETECTOR].to_numpy()) + 0.05
    assert abs(scores.mean() - hits.mean()) < 0.03, "a score is a probability"


def test_evidence_that_tells_nothing_or_the_opposite_does_no_harm():
    evidence, hits, women = detections(women=100)
    evidence["lesion"] = 1 - evidence["lesion"]
    rescorer = fit_rescorer(evidence, hits, women, model_digest="m")
    assert rescorer.stack.weights[1] == 0
    np.testing.assert_array_equal(
        np.argsort(rescorer.rescore(evidence), kind="stable"), np.argsort(evidence[DETECTOR], kind="stable")
    )
    assert "lesion" not in rescorer.basis


def test_a_womans_own_truth_does_not_reach_her_scores():
    evidence, hits, women = detections(women=20)
    hers = women == "a/3"
    turned = np.where(hers, ~hits, hits)
    # The folds are stratified by the truth: hers is turned within the same folds by turning it among her detections.
    turned[hers] = np.roll(hits[hers], 1)
    first, second = (cross_fitted_scores(evidence, truth, women) for truth in (hits, turned))
    np.testing.assert_array_equal(first[hers], second[hers])
    assert not np.array_equal(first[~hers], second[~hers])


def test_what_is_unknown_counts_as_what_is_usual():
    evidence, hits, women = detections()
    evidence.loc[::3, "lesion"] = np.nan
    rescorer = fit_rescorer(evidence, hits, women, model_digest="m")
    scores = rescorer.rescore(evidence)
    assert np.isfinite(scores).all()
    filled = evidence.fillna({"lesion": expit(rescorer.usual[1])})
    np.testing.assert_allclose(rescorer.rescore(filled), scores, rtol=1e-9)
    # A score that nobody has is left out.
    assert fit_rescorer(evidence.assign(risk=np.nan), hits, women, model_digest="m").methods == rescorer.methods


def test_it_survives_a_file(tmp_path):
    evidence, hits, women = detections()
    rescorer = fit_rescorer(evidence[["lesion", DETECTOR]], hits, women, model_digest="m")
    assert rescorer.methods == (DETECTOR, "lesion")
    rescorer.save(tmp_path / "rescorer.json")
    again = Rescorer.load(tmp_path / "rescorer.json")
    np.testing.assert_array_equal(again.rescore(evidence), rescorer.rescore(evidence))
    assert (again.basis, again.women, again.model_digest) == (rescorer.basis, 40, "m")
    assert "a/" not in (tmp_path / "rescorer.json").read_text()


@settings(deadline=None, max_examples=60)
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.integers(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=6,
    ),
    st.sampled_from(["format", "methods", "usual", "spread", "weights", "intercept", "women"]),
)
def test_no_file_ends_in_another_error(tmp_path_factory, value, part):
    folder = tmp_path_factory.mktemp("rescorer")
    evidence, hits, women = detections(women=12)
    fit_rescorer(evidence, hits, women, model_digest="m", folds=2).save(folder / "good.json")
    content = json.loads((folder / "good.json").read_text()) | {part: value}
    (folder / "bad.json").write_text(json.dumps(content))
    try:
        found = Rescorer.load(folder / "bad.json")
    except ExchangeError as error:
        assert "bad.json" in str(error)  # noqa: PT017 - either outcome is right
    else:
        assert np.isfinite(found.rescore(evidence)).all()


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff", b'{"format": 1}'])
def test_what_is_no_rescoring_is_refused(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(ExchangeError, match=r"x\.json: .*mammoseek rescore fit"):
        Rescorer.load(tmp_path / "x.json")
    with pytest.raises(ExchangeError, match="can't be read"):
        Rescorer.load(tmp_path / "absent.json")


def test_what_can_not_be_fitted_is_told():
    evidence, hits, women = detections()
    few = np.flatnonzero(np.isin(women, [f"a/{n}" for n in range(9)]) | ~hits)
    with pytest.raises(ExchangeError, match="9 women have a hit, 10 are needed"):
        fit_rescorer(evidence.iloc[few], hits[few], women[few], model_digest="m")
    with pytest.raises(ExchangeError, match="0 women have a false alarm, 10 are needed"):
        fit_rescorer(evidence[hits], hits[hits], women[hits], model_digest="m")
    with pytest.raises(ExchangeError, match="no column 'detector'"):
        fit_rescorer(evidence[["lesion"]], hits, women, model_digest="m")
    with pytest.raises(ExchangeError, match="no detection has a score"):
        fit_rescorer(evidence.assign(detector=np.nan), hits, women, model_digest="m")
    with pytest.raises(ExchangeError, match=r"not in \[0, 1\]"):
        fit_rescorer(evidence.assign(lesion=1.5), hits, women, model_digest="m")
    with pytest.raises(ExchangeError, match="one truth and one woman"):
        fit_rescorer(evidence, hits[1:], women, model_digest="m")
    some = np.flatnonzero(np.isin(women, [f"a/{n}" for n in range(11)]))
    with pytest.raises(ExchangeError, match=r"with one of 5 folds of women left out, \d women have a hit"):
        cross_fitted_scores(evidence.iloc[some], hits[some], women[some])
    rescorer = fit_rescorer(evidence, hits, women, model_digest="m")
    with pytest.raises(ExchangeError, match="the evidence has no lesion"):
        rescorer.rescore(evidence[[DETECTOR]])


def test_evidence_becomes_a_table():
    table = evidence_frame([{"detector": 0.5, "risk": None}, {"lesion": 0.25}])
    assert table.isna().to_dict("list") == {
        "detector": [False, True],
        "risk": [True, True],
        "lesion": [True, False],
    }
