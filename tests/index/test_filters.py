import ast
import contextlib
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index import QueryError
from index.filters import DEEPEST_FILTER, LONGEST_FILTER, parse_filter
from index.records import to_column
from index.table import RecordTable, encode_column

RECORDS = pd.DataFrame(
    {
        "density": ["A", "B", None, "D", "D"],
        "view": ["CC", "MLO", "MLO", None, "CC"],
        "age": [40.0, np.nan, 55.5, 60.0, 38.0],
        "subtlety": pd.array([1, 5, None, 3, 2], dtype="Int64"),
        "implant": pd.array([True, None, False, False, True], dtype="boolean"),
        "shape": pd.Series([None] * 5, dtype=object),
    }
)
TABLE = RecordTable.of_frame(RECORDS)


def in_parts(*sizes: int) -> RecordTable:
    """Return the records as several segments hold them: each has its own codes, and a column may be in one only."""
    parts, start = [], 0
    for size in sizes:
        piece = RECORDS.iloc[start : start + size]
        columns = {
            name: to_column(piece[name], name, "test") for name in piece if start == 0 or piece[name].notna().any()
        }
        parts.append({name: encode_column(column) for name, column in columns.items()})
        start += size
    return RecordTable(parts, sizes)


TABLES = [TABLE, in_parts(2, 3), in_parts(1, 1, 2, 1)]
LITERALS: dict[str, st.SearchStrategy[Any]] = {
    "density": st.sampled_from("ABCD"),
    "view": st.sampled_from(["CC", "MLO", "it's"]),
    "age": st.sampled_from([38, 40, 55.5, 60, -1, 1e3]),
    "subtlety": st.integers(-1, 6),
    "implant": st.booleans(),
    "shape": st.sampled_from(["round", 3, True]),
}


@st.composite
def conditions(draw: st.DrawFn) -> str:
    name = draw(st.sampled_from(sorted(LITERALS)))
    literal = draw(LITERALS[name])
    form = draw(st.integers(0, 4))
    operators = ["==", "!="] if name in ("implant", "shape") else ["==", "!=", "<", "<=", ">", ">="]
    operator = draw(st.sampled_from(operators))
    if form == 0:
        return f"{name} is {draw(st.sampled_from(['', 'not ']))}None"
    if form == 1:
        values = [literal, *draw(st.lists(LITERALS[name], max_size=2))]
        return f"{name} {draw(st.sampled_from(['', 'not ']))}in ({', '.join(map(repr, values))},)"
    if form == 2:
        return "implant"
    return f"{name} {operator} {literal!r}" if form == 3 else f"{literal!r} {operator} {name}"


FILTERS = st.recursive(
    conditions(),
    lambda inner: st.one_of(
        st.builds("not ({})".format, inner),
        st.builds("({}) and ({})".format, inner, inner),
        st.builds("{} or {}".format, inner, inner),
    ),
    max_leaves=8,
)


def slow_truth(node: ast.expr, row: dict[str, Any]) -> bool | None:
    """Return whether one row passes, None where that is unknown: Kleene's tables, a case at a time."""
    match node:
        case ast.BoolOp(op=ast.And(), values=parts):
            truths = [slow_truth(part, row) for part in parts]
            return False if False in truths else None if None in truths else True
        case ast.BoolOp(op=ast.Or(), values=parts):
            truths = [slow_truth(part, row) for part in parts]
            return True if True in truths else None if None in truths else False
        case ast.UnaryOp(op=ast.Not(), operand=part):
            truth = slow_truth(part, row)
            return None if truth is None else not truth
        case ast.Name(id=name):
            return row[name]
        case ast.Compare(left=left, ops=[operator], comparators=[right]):
            if isinstance(operator, ast.Is):
                return row[left.id] is None
            if isinstance(operator, ast.IsNot):
                return row[left.id] is not None
            a, b = (row[side.id] if isinstance(side, ast.Name) else ast.literal_eval(side) for side in (left, right))
            if a is None or b is None:
                return None
            return {
                ast.Eq: lambda: a == b,
                ast.NotEq: lambda: a != b,
                ast.Lt: lambda: a < b,
                ast.LtE: lambda: a <= b,
                ast.Gt: lambda: a > b,
                ast.GtE: lambda: a >= b,
                ast.In: lambda: a in b,
                ast.NotIn: lambda: a not in b,
            }[type(operator)]()
    raise AssertionError(ast.dump(node))


@settings(deadline=None, max_examples=50)
@given(FILTERS)
def test_the_slow_obvious_reading_says_the_same(text: str) -> None:
    rows = [
        {name: None if pd.isna(value) else value for name, value in row.items()}
        for row in RECORDS.astype(object).to_dict("records")
    ]
    expected = [slow_truth(ast.parse(text, mode="eval").body, row) is True for row in rows]
    for table in TABLES:
        assert parse_filter(text).mask(table).tolist() == expected


@pytest.mark.parametrize(
    ("text", "passing"),
    [
        ("density == 'D' and view in ('MLO', 'CC') and not (age < 50)", []),
        ("density == 'D'", [3, 4]),
        ("density != 'D'", [0, 1]),
        ("not density == 'D'", [0, 1]),
        ("density == 'D' or view == 'MLO'", [1, 2, 3, 4]),
        ("age < 50 or age >= 50", [0, 2, 3, 4]),
        ("50 < age", [2, 3]),
        ("age is None", [1]),
        ("not (age is not None)", [1]),
        ("implant", [0, 4]),
        ("not implant", [2, 3]),
        ("implant == False", [2, 3]),
        ("subtlety in [1, 2.0, 3]", [0, 3, 4]),
        ("view not in {'CC'}", [1, 2]),
        ("density >= 'B'", [1, 3, 4]),
        ("density == '\\ud800' or view > '\\udfff'", []),
        ("density < '\\ud800'", [0, 1, 3, 4]),
        ("shape == 'round' or not shape == 3 or shape", []),
        ("  age > -1  ", [0, 2, 3, 4]),
    ],
)
def test_what_passes(text: str, passing: list[int]) -> None:
    assert np.flatnonzero(parse_filter(text).mask(TABLE)).tolist() == passing


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "age.real == 1",
        "density[0] == 'D'",
        "(lambda: 1)() == 1",
        "f'{age}' == '40'",
        "density == f'{age}'",
        "[age for age in (1, 2)]",
        "(age := 3) == 3",
        "age + 1 == 41",
        "age == 2 ** 1000000000",
        "age == -'1'",
        "age == -True",
        "age == b'1'",
        "age == 1j",
        "age == ...",
        "density in density",
        "density in ('A', view)",
        "density in (x for x in view)",
        "density == view",
        "density == D",
        "'D' == 'D'",
        "1 == 1",
        "True",
        "'text'",
        "age if age else view",
        "age & 1",
        "~implant",
        "await age",
        "*age",
        "age == (1,)",
        "density is 'D'",
        "density == None",
        "density in ()",
        "density in 'D'",
        "density in ('D')",
        "density in ('D', None)",
        "40 < age < 60",
        "None is age",
        "age == 1e999",
        "age == 99999999999999999999",
        "age == " + "9" * 1900,
    ],
)
def test_everything_else_is_refused(text: str) -> None:
    with pytest.raises(QueryError, match="filter"):
        parse_filter(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("os.system('x')", "not part of the filter language"),
        ("density == D", "put a text in quotes: 'D'"),
        ("density == None", "write `is None`"),
        ("density in 'D'", "needs a list"),
        ("", "is empty"),
        ("   ", "is empty"),
        ("density ==", "can't be read"),
        ("density = 'D'", "can't be read"),
        ("density == 'D", "can't be read"),
        ("a\0b", "can't be read"),
        ("age == 1; view", "can't be read"),
        ("import os", "can't be read"),
        ("x" * (LONGEST_FILTER + 1), "characters"),
        ("not " * (DEEPEST_FILTER + 1) + "implant", "nested deeper"),
        ("(" * 900 + "implant" + ")" * 900, "can't be read"),
        ("not " * 490 + "implant", "nested deeper"),
        ("-" * 1990 + "1 == age", "filter"),
    ],
)
def test_what_the_refusal_says(text: str, words: str) -> None:
    with pytest.raises(QueryError, match=words):
        parse_filter(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("densty == 'D'", "did you mean density"),
        ("nonsense is None", "the columns are density, view, age, subtlety, implant, shape"),
        ("age == '40'", "age holds numbers and is compared with '40'"),
        ("density < 3", "density holds texts"),
        ("density in ('A', 3)", "density holds texts"),
        ("age == True", "age holds numbers"),
        ("implant == 1", "implant holds truth values"),
        ("implant < True", "have no order"),
        ("density", "density holds texts, not truth values"),
        ("age and implant", "age holds numbers, not truth values"),
    ],
)
def test_what_a_column_cannot_answer(text: str, words: str) -> None:
    with pytest.raises(QueryError, match=words):
        parse_filter(text).mask(TABLE)


@settings(deadline=None, max_examples=30)
@given(st.text(max_size=40))
def test_no_text_causes_anything_but_a_clear_error(text: str) -> None:
    with contextlib.suppress(QueryError):
        assert parse_filter(text).mask(TABLE).dtype == np.bool_


def test_a_filter_of_no_rows() -> None:
    assert parse_filter("age > 3").mask(RecordTable.of_frame(RECORDS.iloc[:0])).shape == (0,)
