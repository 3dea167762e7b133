from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index import GalleryError
from index.records import clashing_column, patient_keys, stored_kind, to_columns, to_frame

TEXT = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=8)
CELLS = {
    "text": TEXT,
    "integer": st.integers(-(2**63), 2**63 - 1),
    "number": st.floats(allow_nan=False, allow_infinity=False),
    "boolean": st.booleans(),
}


def frame(rows: int = 2, **columns: Any) -> pd.DataFrame:
    """Return records with the required columns and some more."""
    required = {
        "row_id": [f"r{i}" for i in range(rows)],
        "granularity": ["finding"] * rows,
        "patient_id": [f"p{i}" for i in range(rows)],
        "dataset": ["d"] * rows,
    }
    return pd.DataFrame(required | columns)


@st.composite
def optional_cells(draw: st.DrawFn) -> tuple[str, list[Any]]:
    kind = draw(st.sampled_from(sorted(CELLS)))
    return kind, draw(st.lists(st.none() | CELLS[kind], min_size=1, max_size=6))


def plain(series: pd.Series) -> list[Any]:
    return [None if pd.isna(value) else value for value in series.tolist()]


@settings(deadline=None, max_examples=50)
@given(optional_cells(), st.data())
def test_a_column_comes_back_as_it_was(column: tuple[str, list[Any]], data: st.DataObject) -> None:
    kind, cells = column
    records = frame(len(cells), extra=pd.Series(cells, dtype=object))
    cut = data.draw(st.integers(0, len(cells)))
    pieces = [piece for piece in (records.iloc[:cut], records.iloc[cut:]) if len(piece)]
    parts = [to_columns(piece, "test") for piece in pieces]
    back = to_frame([(len(piece), part) for piece, part in zip(pieces, parts, strict=True)])
    assert plain(back["extra"]) == cells
    assert back["row_id"].tolist() == records["row_id"].tolist()
    if any(cell is not None for cell in cells):
        assert stored_kind([part["extra"] for part in parts]) == kind


@pytest.mark.parametrize(
    "series",
    [
        pd.Series(["a", None]),
        pd.Series(["a", "b"], dtype="category"),
        pd.Series([1, None], dtype="Int64"),
        pd.Series([True, None], dtype="boolean"),
        pd.Series([1.5, np.nan]),
        pd.Series([1.5, None], dtype="Float64"),
        pd.Series([1, 2], dtype="uint8"),
        pd.Series([np.int16(3), None], dtype=object),
        pd.Series([None, None], dtype=object),
        pd.Series([np.nan, np.nan]),
    ],
)
def test_every_type_that_pandas_has_for_it(series: pd.Series) -> None:
    back = to_frame([(2, to_columns(frame(extra=series), "test"))])["extra"]
    assert plain(back) == plain(series)


@pytest.mark.parametrize(
    ("series", "words"),
    [
        (pd.Series(["a", 1], dtype=object), "neither all text nor all numbers"),
        (pd.Series([True, 1], dtype=object), "neither all text nor all numbers"),
        (pd.Series([b"a", b"b"], dtype=object), "neither all text nor all numbers"),
        (pd.Series([[1], [2]], dtype=object), "neither all text nor all numbers"),
        (pd.Series([np.inf, 1.0]), "infinite"),
        (pd.Series([10**400, 1], dtype=object), "too large"),
        (pd.Series([2**64 - 1, 1], dtype="uint64"), "too large"),
        (pd.Series(["a\0", "b"], dtype=object), "zero byte"),
        (pd.Series(["x" * 65_537, "b"]), "65537 bytes"),
        (pd.Series(["\ud800", "b"], dtype=object), "Unicode"),
    ],
)
def test_what_cannot_be_stored_is_refused(series: pd.Series, words: str) -> None:
    with pytest.raises(GalleryError, match=words):
        to_columns(frame(extra=series), "test")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\0", "\udc00", "rank", "similarity", "box", 7])
def test_names_that_are_refused(name: Any) -> None:
    records = frame()
    records["extra"] = 1
    records.columns = pd.Index([*records.columns[:-1], name], dtype=object)
    with pytest.raises(GalleryError, match="name"):
        to_columns(records, "test")


def test_two_columns_of_one_name_are_refused() -> None:
    records = pd.concat([frame(), pd.DataFrame({"row_id": ["x", "y"]})], axis=1)
    with pytest.raises(GalleryError, match="two columns"):
        to_columns(records, "test")


@pytest.mark.parametrize("column", ["row_id", "granularity", "patient_id", "dataset"])
@pytest.mark.parametrize("cells", [["a", None], ["a", ""], [None, None], [1, 2], None])
def test_no_record_without_what_keeps_women_apart(column: str, cells: list[Any] | None) -> None:
    records = frame()
    if cells is None:
        records = records.drop(columns=column)
    else:
        records[column] = pd.Series(cells, dtype=object)
    with pytest.raises(GalleryError, match=column):
        to_columns(records, "test")


def test_kinds_that_meet() -> None:
    whole = to_columns(frame(extra=[1, 2]), "test")
    broken = to_columns(frame(extra=[1.5, None]), "test")
    text = to_columns(frame(extra=["a", "b"]), "test")
    nothing = to_columns(frame(extra=[None, None]), "test")
    assert clashing_column([whole, broken, nothing]) is None
    assert clashing_column([nothing, text]) is None
    assert clashing_column([whole, text]) == "extra"
    joined = to_frame([(2, whole), (2, broken), (2, nothing), (2, to_columns(frame(), "test"))])
    assert plain(joined["extra"]) == [1, 2, 1.5, None, None, None, None, None]


def test_no_part_makes_an_empty_table() -> None:
    empty = to_frame([])
    assert len(empty) == 0
    assert patient_keys(empty).shape == (0,)


def test_the_same_id_in_two_data_sets_is_two_women() -> None:
    records = frame(2, patient_id=["p", "p"], dataset=["a", "b"])
    assert patient_keys(records).tolist() == ["a/p", "b/p"]
