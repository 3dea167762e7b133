import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.records import Columns, to_column, to_frame
from index.table import Encoded, RecordTable, encode_column, encode_columns, join, take_rows

CELLS: dict[str, st.SearchStrategy[Any]] = {
    # Few distinct texts, so that parts share some and rows repeat them.
    "text": st.sampled_from(["A", "B", "ü", "", "A "]),
    "integer": st.integers(-(2**40), 2**40),
    "number": st.floats(allow_nan=False, allow_infinity=False),
    "boolean": st.booleans(),
}
KINDS = {"text": ["text"], "boolean": ["boolean"], "number": ["integer", "number"], "integer": ["integer"]}
Part = tuple[int, Columns]


@st.composite
def tables(draw: st.DrawFn) -> list[Part]:
    """Draw the parts of a table: in each, a column may have gaps, be empty throughout, be absent, or come late."""
    names = {f"column {n}": draw(st.sampled_from(sorted(KINDS))) for n in range(draw(st.integers(1, 3)))}
    parts = []
    for _ in range(draw(st.integers(1, 4))):
        rows = draw(st.integers(1, 5))
        columns = {"row_id": to_column(pd.Series([f"r{draw(st.integers(0, 9))}" for _ in range(rows)]), "row_id", "t")}
        for name, kind in names.items():
            if draw(st.booleans()):
                of_part = draw(st.sampled_from(KINDS[kind]))
                cells = draw(st.lists(st.none() | CELLS[of_part], min_size=rows, max_size=rows))
                columns[name] = to_column(pd.Series(cells, dtype=object), name, "t")
        parts.append((rows, columns))
    return parts


def table_of(parts: list[Part]) -> RecordTable:
    return RecordTable([encode_columns(columns) for _, columns in parts], [rows for rows, _ in parts])


def plain(value: Any) -> Any:
    return None if pd.isna(value) else value


def check_codes(column: Encoded) -> None:
    """Every distinct text stands there once, and some row has it."""
    if column.codes is not None:
        assert len(set(column.distinct)) == len(column.distinct)
        assert sorted(set(column.codes[column.codes >= 0])) == list(range(len(column.distinct)))
        assert ((column.codes < 0) == column.missing).all()


@settings(deadline=None, max_examples=50)
@given(tables(), st.data())
def test_the_table_is_what_pandas_makes_of_it(parts: list[Part], data: st.DataObject) -> None:
    table, expected = table_of(parts), to_frame(parts)
    assert len(table) == len(expected)
    assert table.names == list(expected.columns)
    pd.testing.assert_frame_equal(table.frame(), expected)
    rows = np.array(data.draw(st.lists(st.integers(0, len(expected) - 1), max_size=6)), np.int64)
    # Of some rows, a column may be without a value, and its type that of another.
    assert [[plain(v) for v in line] for line in table.frame(rows).astype(object).to_numpy()] == [
        [plain(v) for v in line] for line in expected.iloc[rows].astype(object).to_numpy()
    ]
    for position in rows.tolist():
        assert table.record(position) == {name: plain(expected[name].iloc[position]) for name in expected}
        for name, value in table.record(position).items():
            kind = table.kind(name)
            assert value is None or type(value) is {"text": str, "integer": int, "number": float, "boolean": bool}[kind]
    assert table.texts("row_id", rows).tolist() == expected["row_id"].iloc[rows].tolist()
    for name in expected:
        column = table.column(name)
        check_codes(column)
        assert column.kind == table.kind(name)
        for text in ("A", "ü", "C", "\ud800"):
            found = np.flatnonzero([plain(value) == text for value in expected[name]])
            assert table.find(name, text).tolist() == (found.tolist() if column.kind == "text" else [])
        said = column.spread(np.array([value is not None for value in column.distinct], np.bool_), False)
        assert said.tolist() == expected[name].notna().tolist()


@settings(deadline=None, max_examples=50)
@given(tables(), st.data())
def test_rows_are_taken_and_parts_joined_without_a_trace_of_the_others(parts: list[Part], data: st.DataObject) -> None:
    sizes = [rows for rows, _ in parts]
    encoded = [encode_columns(columns) for _, columns in parts]
    for name in dict.fromkeys(name for part in encoded for name in part):
        whole = join([part.get(name) for part in encoded], sizes)
        check_codes(whole)
        rows = np.array(data.draw(st.lists(st.integers(0, sum(sizes) - 1), max_size=6, unique=True)), np.int64)
        taken = take_rows(whole, rows)
        check_codes(taken)
        assert [taken.value(row) for row in range(len(rows))] == [whole.value(int(row)) for row in rows]
        # In another order of work: take of each part first, then join.
        starts = np.cumsum([0, *sizes])
        upwards = np.sort(rows)
        pieces = [upwards[(upwards >= a) & (upwards < b)] - a for a, b in itertools.pairwise(starts)]
        again = join(
            [None if (c := p.get(name)) is None else take_rows(c, r) for p, r in zip(encoded, pieces, strict=True)],
            [len(piece) for piece in pieces],
        )
        assert [again.value(row) for row in range(len(rows))] == [whole.value(int(row)) for row in upwards]
        for column, chosen in ((whole, None), (whole, rows)):
            dense = column.dense(chosen)
            wanted = range(len(column)) if chosen is None else chosen.tolist()
            cells = [None if gap else v for v, gap in zip(dense.cells.tolist(), dense.missing, strict=True)]
            assert cells == [column.value(row) for row in wanted]


def test_whole_numbers_beside_broken_ones_are_said_as_these() -> None:
    parts = [(1, {"x": to_column(pd.Series([3]), "x", "t")}), (1, {"x": to_column(pd.Series([2.5]), "x", "t")})]
    assert [repr(table_of(parts).cell("x", row)) for row in (0, 1)] == ["3.0", "2.5"]


def test_a_large_table_is_not_turned_into_texts_to_answer_for_a_few_rows() -> None:
    column = encode_column(to_column(pd.Series([f"text {n}" for n in range(100_000)]), "x", "t"))
    assert column.dense(np.array([99_999, 0])).cells.tolist() == ["text 99999", "text 0"]
    assert "distinct" not in vars(column)


@pytest.mark.parametrize("dtype", ["str", "float64", "Int64", "boolean"])
def test_a_table_of_no_rows(dtype: str) -> None:
    table = RecordTable.of_frame(pd.DataFrame({"x": pd.Series([], dtype=dtype)}))
    assert (len(table), table.names, "x" in table, "y" in table) == (0, ["x"], True, False)
    assert len(table.column("x")) == 0
    assert table.kind("x") in ("text", "number", "integer", "boolean")
    assert table.find("x", "a").tolist() == []
    assert len(RecordTable([], [])) == 0
    with pytest.raises(KeyError):
        table.column("y")
