import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedder.findings import (
    COLUMNS,
    INTEGER_COLUMNS,
    NUMBER_COLUMNS,
    Box,
    Finding,
    FindingError,
    findings_frame,
    patient_key,
    typed_columns,
)

corners = st.integers(-(10**6), 10**6)


@settings(deadline=None, max_examples=50)
@given(corners, corners, st.integers(1, 10**6), st.integers(1, 10**6))
def test_box_round_trip(x0: int, y0: int, width: int, height: int) -> None:
    box = Box(x0, y0, x0 + width, y0 + height)
    assert Box.parse(str(box)) == box
    assert (box.width, box.height) == (width, height)
    assert box.centre == (x0 + width / 2, y0 + height / 2)


@pytest.mark.parametrize("corners", [(5, 0, 5, 9), (0, 9, 5, 9), (6, 0, 5, 9), (0, 10, 5, 9)])
def test_empty_and_inverted_boxes_are_refused(corners: tuple[int, int, int, int]) -> None:
    with pytest.raises(FindingError, match="empty or inverted"):
        Box(*corners)


@pytest.mark.parametrize("text", ["", "1,2,3", "1,2,3,4,5", "a,b,c,d", "nan,0,1,1", "0,0,inf,1", "1;2;3;4"])
def test_text_that_is_no_box_is_refused(text: str) -> None:
    with pytest.raises(FindingError, match="four numbers"):
        Box.parse(text)


@settings(deadline=None, max_examples=50)
@given(st.text(max_size=30))
def test_any_text_is_a_box_or_one_error(text: str) -> None:
    try:
        box = Box.parse(text)
    except FindingError:
        return
    assert box.width > 0
    assert box.height > 0


def test_fractions_are_rounded_outwards() -> None:
    assert Box.parse("1.5,2.5,3.1,4.0") == Box(1, 2, 4, 4)


def test_frame_has_every_column_in_its_type() -> None:
    frame = findings_frame(
        [Finding("a", "a.png", "breast", "d", "1"), Finding("b", "b.png", "breast", "d", "2", age=61)]
    )
    assert tuple(frame.columns) == COLUMNS
    for name in COLUMNS:
        if name in INTEGER_COLUMNS:
            assert str(frame[name].dtype) == "Int64"
        elif name in NUMBER_COLUMNS:
            assert str(frame[name].dtype) == "float64"
        else:
            assert pd.api.types.is_string_dtype(frame[name].dtype)
    # What is unknown is missing, not the word for it.
    assert frame.isna().sum().sum() == 2 * (len(COLUMNS) - 5) - 1
    assert frame["age"].tolist()[1] == 61


def test_frame_of_nothing() -> None:
    frame = findings_frame([])
    assert frame.empty
    assert tuple(frame.columns) == COLUMNS


def test_typed_columns_keep_further_ones_and_any_index() -> None:
    raw = pd.DataFrame({"row_id": [7, 8], "x0": ["3", None], "mine": ["a", "b"]}, index=[4, 4])
    typed = typed_columns(raw)
    assert typed["row_id"].tolist() == ["7", "8"]
    assert typed["x0"].tolist()[0] == 3
    assert pd.isna(typed["x0"].iloc[1])
    assert typed["mine"].tolist() == ["a", "b"]
    assert typed.index.tolist() == [0, 1]


def test_categories_become_text_and_numbers() -> None:
    raw = pd.DataFrame({"view": pd.Categorical(["CC", None]), "x0": pd.Categorical([3, None])})
    typed = typed_columns(raw)
    assert typed["view"].iloc[0] == "CC"
    assert typed["x0"].iloc[0] == 3
    assert typed.loc[1, ["view", "x0"]].isna().all()


def test_whole_numbers_kept_as_fractions_become_whole_ids() -> None:
    raw = pd.DataFrame({"patient_id": [4711.0, None], "row_id": ["007", "4711.0"], "assessment": [4.0, None]})
    typed = typed_columns(raw)
    assert typed["patient_id"].iloc[0] == "4711"
    assert pd.isna(typed["patient_id"].iloc[1])
    assert typed["row_id"].tolist() == ["007", "4711.0"]
    assert typed["assessment"].iloc[0] == "4"
    assert typed_columns(raw.astype({"patient_id": "float32"}))["patient_id"].iloc[0] == "4711"


def test_one_patient_id_in_two_data_sets_is_two_women() -> None:
    frame = findings_frame([Finding("a", "a.png", "breast", "d", "1"), Finding("b", "b.png", "breast", "e", "1")])
    assert patient_key(frame).tolist() == ["d/1", "e/1"]
