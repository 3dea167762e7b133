"""Opinions as plain values: to JSON and back, and what they refuse."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from exchange import ExchangeError
from exchange.opinions import Risk, SecondOpinion, SimilarCase, StudyOpinions, Vote
from tests.exchange.report_cases import OPINION, some_opinions, studies


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(opinions=studies)
def test_json_gives_back_the_same_opinions(opinions: StudyOpinions):
    assert StudyOpinions.from_dict(json.loads(json.dumps(opinions.to_dict()))) == opinions


def edited(*path: str | int, value: Any) -> dict[str, Any]:
    """Return the JSON of some opinions with one value changed."""
    content: Any = some_opinions().to_dict()
    place = content
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    return content  # type: ignore[no-any-return]


ONE: tuple[str | int, ...] = ("opinions", 0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "NoneType stands where an object must"),
        ([], "list stands where an object must"),
        ({}, "'study_uid' is missing"),
        (edited("study_uid", value="no uid"), "no UID"),
        (edited("study_uid", value=None), "name no study"),
        (edited("version", value="  "), "version is empty"),
        (edited("gallery_generation", value=True), "gallery_generation is True"),
        (edited("surprise", value=1), "no field 'surprise'"),
        (edited("opinions", value="abc"), "str stands where a list must"),
        (edited("opinions", value=[OPINION.__dict__ | {"similar": [], "vote": None, "risk": None}] * 2), "two are of"),
        (edited(*ONE, value=7), "int stands where an object must"),
        (edited(*ONE, "detection_id", value=""), "detection_id is empty"),
        (edited(*ONE, "detection_id", value=7), "detection_id is 7"),
        (edited(*ONE, "score", value=1.01), "score is 1.01"),
        (edited(*ONE, "score", value=float("nan")), "score is nan"),
        (edited(*ONE, "score", value="0.5"), "score is '0.5'"),
        (edited(*ONE, "rescored", value=-0.1), "rescored is -0.1"),
        (edited(*ONE, "laterality", value="left"), "laterality is 'left'"),
        (edited(*ONE, "frame_number", value=0), "frame_number is 0"),
        (edited(*ONE, "frame_number", value=1.0), "frame_number is 1.0"),
        (edited(*ONE, "box", value=[1, 2, 3]), "four whole numbers"),
        (edited(*ONE, "box", value=[1, 2, 1, 4]), "empty, inverted"),
        (edited(*ONE, "box", value=[0, 0, 1.5, 4]), "four whole numbers"),
        (edited(*ONE, "box", value=[0, 0, 10**400, 4]), "no place on an image"),
        (edited(*ONE, "outline", value=[[1, 2], [3]]), "not two numbers"),
        (edited(*ONE, "outline", value=[[1, float("inf")]]), "the outline is inf"),
        (edited(*ONE, "outline", value=[[1, 10**400]]), "the outline is 1000"),
        (edited(*ONE, "notes", value="one note"), "str stands where a list must"),
        (edited(*ONE, "notes", value=[1]), "a note is 1"),
        (edited(*ONE, "no_close_precedent", value=1), "no_close_precedent is 1"),
        (edited(*ONE, "sop_uid", value="1.2." + "3" * 80), "no UID"),
        (edited(*ONE, "risk", "probability", value=2), "probability is 2"),
        (edited(*ONE, "risk", "basis", value=None), "basis is None"),
        (edited(*ONE, "vote", "women", value=-1), "women is -1"),
        (edited(*ONE, "vote", "probabilities", value={"": 0.5}), "none by class"),
        (edited(*ONE, "vote", "probabilities", value={"benign": None}), "probability of 'benign'"),
        (edited(*ONE, "head_probabilities", value=[0.5]), "none by class"),
        (edited(*ONE, "similar", 0, "similarity", value=1.1), "similarity is 1.1"),
        (edited(*ONE, "similar", 0, "sop_uid", value="1.2;rm"), "no UID"),
        (edited(*ONE, "similar", 0, "may_be_shown", value="no"), "may_be_shown is 'no'"),
    ],
)
def test_what_is_no_opinion_is_refused_in_a_sentence(content, message):
    with pytest.raises(ExchangeError, match=message) as told:
        StudyOpinions.from_dict(content)
    assert len(str(told.value)) < 500


def test_a_huge_wrong_value_does_not_fill_the_message():
    with pytest.raises(ExchangeError) as told:
        SimilarCase(similarity="x" * 100_000)  # type: ignore[arg-type]
    assert len(str(told.value)) < 300


def test_a_case_has_a_reference_only_where_it_is_wholly_known_and_may_be_shown():
    whole = {"sop_uid": "1.2.1", "sop_class_uid": "1.2.2", "series_uid": "1.2.3", "study_uid": "1.2.4"}
    assert SimilarCase(0.5, may_be_shown=True, **whole).has_reference
    assert not SimilarCase(0.5, **whole).has_reference
    for name in whole:
        assert not SimilarCase(0.5, may_be_shown=True, **{**whole, name: None}).has_reference


def test_the_ends_of_each_range_are_allowed():
    assert Risk(0, "").probability == 0
    assert Risk(1, "").probability == 1
    assert Vote(0, 0, {}).probabilities == {}
    assert SimilarCase(-1.0).similarity == -1
    assert SecondOpinion("d", score=0, rescored=1).similar == ()
