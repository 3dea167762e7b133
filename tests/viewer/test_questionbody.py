"""Questions in one normal form, and filters that no value can break out of."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from index.filters import parse_filter
from index.table import RecordTable
from viewer.questionbody import FilterBody, QuestionBody, question_id

IMAGE = "a" * 16
NASTY = ["A", "B", "it's", 'say "x"', "A' or density != 'A", "\\", "\\'", "\n", "None", "", "ü", "a" * 200]
values = st.lists(st.sampled_from(NASTY), max_size=5)
cells = st.one_of(st.none(), st.sampled_from(NASTY))


@settings(max_examples=40)
@given(
    rows=st.lists(st.tuples(cells, cells, st.one_of(st.none(), st.floats(20, 90))), min_size=1, max_size=12),
    density=values,
    view=values,
    age=st.one_of(st.none(), st.tuples(st.floats(20, 90), st.floats(20, 90))),
)
def test_filters_are_what_a_loop_finds(
    rows: list[tuple[str | None, str | None, float | None]],
    density: list[str],
    view: list[str],
    age: tuple[float, float] | None,
) -> None:
    frame = pd.DataFrame(rows, columns=["density", "view", "age"]).astype({"age": "float64"})
    frame["density"] = frame["density"].astype(object)
    frame["view"] = frame["view"].astype(object)
    where = FilterBody(density=density, view=view, age=age).where()
    passing = [True] * len(rows) if where is None else parse_filter(where).mask(RecordTable.of_frame(frame)).tolist()

    def passes(row: tuple[str | None, str | None, float | None]) -> bool:
        if density and row[0] not in density:
            return False
        if view and row[1] not in view:
            return False
        return age is None or (row[2] is not None and min(age) <= row[2] <= max(age))

    assert passing == [passes(row) for row in rows]


@settings(max_examples=40)
@given(st.text(max_size=200))
def test_any_text_is_one_value(text: str) -> None:
    where = FilterBody(density=[text]).where()
    assert where is not None
    condition = parse_filter(where)
    frame = RecordTable.of_frame(pd.DataFrame({"density": np.array([text, f"{text}x", None], object)}))
    assert condition.mask(frame).tolist() == [True, False, False]


def test_the_same_question_has_one_name() -> None:
    first = QuestionBody(
        image=IMAGE,
        box=(1, 2, 3, 4),
        filters={"density": ["B", "A", "A"], "age": (60, 40)},
        facets=[{"column": "margin", "weight": 0.1}, {"column": "density", "weight": 0.0}],
        positive=["b", "a"],
    )
    second = QuestionBody(
        image=IMAGE,
        box=(1, 2, 3, 4),
        filters={"density": ["A", "B"], "age": (40, 60)},
        facets=[{"column": "margin", "weight": 0.1}],
        positive=["a", "b", "a"],
    )
    assert question_id(first.plain()) == question_id(second.plain())
    assert first.terms() == second.terms()
    assert question_id(first.plain()) != question_id(QuestionBody(image=IMAGE, box=(1, 2, 3, 4)).plain())


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"image": IMAGE, "row": "r"},
        {"row": "r", "box": (1, 2, 3, 4)},
        {"image": "../../etc/passwd"},
        {"image": IMAGE, "box": (1, 2, 3)},
        {"image": IMAGE, "box": (float("nan"), 0, 1, 1)},
        {"image": IMAGE, "box": (-1, 0, 1, 1)},
        {"row": "r", "k": 0},
        {"row": "r", "k": 10**9},
        {"row": "r", "positive": ["x"] * 10_000},
        {"row": "r", "filters": {"density": ["x"] * 51}},
        {"row": "r", "filters": {"where": "1"}},
        {"row": "r", "filters": {"age": (float("inf"), 3)}},
        {"row": "r", "facets": [{"column": "margin", "weight": float("nan")}]},
        {"row": "r", "facets": [{"column": "margin", "weight": 7}]},
        {"row": "r", "unknown": 1},
    ],
)
def test_what_is_no_question(body: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        QuestionBody(**body)  # type: ignore[arg-type]


@pytest.mark.parametrize(("value", "plain"), [(2, 2.0), (0.5, 0.5), ("round", "round"), (None, None)])
def test_a_facet_prefers_a_value_of_either_kind(value: object, plain: object) -> None:
    body = QuestionBody.model_validate({"row": "r", "facets": [{"column": "size", "weight": 0.5, "value": value}]})
    assert body.plain()["facets"][0]["value"] == plain
    for wrong in (float("nan"), "x" * 201, [1]):
        with pytest.raises(ValueError, match="value"):
            QuestionBody.model_validate({"row": "r", "facets": [{"column": "size", "weight": 0.5, "value": wrong}]})
