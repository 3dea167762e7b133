import datetime
import decimal

import numpy as np
import pandas as pd
import pytest

from embedder.manifestrules import ManifestError
from embedder.manifesttypes import check_types
from index import GalleryError
from index.records import ANSWER_FIELDS, to_columns


def message_of(frame: pd.DataFrame) -> str:
    with pytest.raises(ManifestError) as caught:
        check_types(frame, "cases.csv")
    assert len(str(caught.value)) < 1000
    return str(caught.value)


@pytest.mark.parametrize(
    ("column", "cell", "cause"),
    [
        ("x0", "ten", "'ten' is not a whole number"),
        ("x0", "1.5", "'1.5' is not a whole number"),
        ("y1", "inf", "'inf' is not a whole number"),
        ("y1", "99999999999", "is not a whole number"),
        ("spacing_mm", "0,2", "'0,2' is not a number"),
        ("spacing_mm", "-inf", "'-inf' is not a number"),
        ("age", "1e999", "'1e999' is not a number"),
        ("age", "0x10", "'0x10' is not a number"),
    ],
)
def test_text_in_numbers(column: str, cell: str, cause: str) -> None:
    with pytest.raises(ManifestError) as caught:
        check_types(pd.DataFrame({column: ["1", None, cell]}), "cases.csv")
    assert f"row 3, column {column}: " in str(caught.value)
    assert cause in str(caught.value)


def test_numbers_of_every_type_pass() -> None:
    check_types(pd.DataFrame({"x0": ["1", "2.0", None], "age": [1, 2.5, None]}), "cases")
    check_types(pd.DataFrame({"x0": pd.array([1, None], "Int64"), "age": pd.Categorical([3.5, None])}), "cases")


@pytest.mark.parametrize("cell", [[1], b"1", {"a": 1}, np.array([1, 2])])
def test_several_values_are_no_number(cell: object) -> None:
    column = pd.Series([1, None, None], dtype="object")
    column.iloc[2] = cell
    assert "row 3, column age: " in message_of(pd.DataFrame({"age": column}))


@pytest.mark.parametrize("column", ["row_id", "path", "dataset", "patient_id", "study_id"])
@pytest.mark.parametrize(
    ("cell", "cause"),
    [
        (4711.5, "'4711.5' is no whole number: write ids as text"),
        (np.float32(0.5), "'0.5' is no whole number"),
        (float("inf"), "'inf' is no whole number"),
        (2.0**53, "is too large to be exact as a number"),
        (True, "'True' is a truth value"),
        (np.bool_(False), "'False' is a truth value"),
        (b"4711", "is of type bytes: write it as text"),
        (["a", "b"], "is of type list"),
        (datetime.date(2020, 1, 2), "'2020-01-02' is a date"),
        (pd.Timestamp("2020-01-02"), "is a date"),
        (decimal.Decimal("4711.00"), "is of type Decimal"),
    ],
)
def test_ids_are_text_or_whole_numbers(column: str, cell: object, cause: str) -> None:
    cells = pd.Series(["a", 7, None, 4711.0, None], dtype="object")
    check_types(pd.DataFrame({column: cells}), "cases")
    cells.iloc[4] = cell
    message = message_of(pd.DataFrame({column: cells}))
    assert f"row 5, column {column}: " in message
    assert cause in message


def test_columns_of_ids_in_every_type() -> None:
    check_types(pd.DataFrame({"patient_id": [1, 2], "row_id": [1.0, np.nan], "study_id": ["007", None]}), "cases")
    assert "row 1, column patient_id" in message_of(pd.DataFrame({"patient_id": [0.25, np.nan]}))
    assert "row 1, column patient_id" in message_of(pd.DataFrame({"patient_id": [True, False]}))
    check_types(pd.DataFrame({"assessment": [4.0, np.nan], "native_density": [1.5, 2.5]}), "cases")
    assert "row 1, column native_density" in message_of(pd.DataFrame({"native_density": [["a"], None]}))


@pytest.mark.parametrize("name", [*ANSWER_FIELDS, "a/b", "", ".", "..", "a\0b", "a\nb", "x" * 1000])
def test_names_that_a_gallery_cannot_store(name: str) -> None:
    message = message_of(pd.DataFrame({"row_id": ["1"], name: ["a"]}))
    assert "column 2 has no name" in message if not name else repr(name)[1:60].strip("'") in message


@pytest.mark.parametrize(
    ("cells", "cause"),
    [
        ([None, [1, 2]], "row 2, column own: '[1, 2]' is of type list"),
        ([None, np.array(["a"])], "row 2, column own: \"['a']\" is of type ndarray"),
        ([datetime.date(2020, 1, 2), None], "row 1, column own: '2020-01-02' is a date"),
        (pd.to_datetime(["2020-01-02", None]), "row 1, column own: '2020-01-02 00:00:00' is a date"),
        (pd.to_timedelta(["1h", None]), "row 1, column own"),
        (pd.Categorical([pd.Timestamp("2020-01-02"), None]), "row 1, column own"),
        ([b"x", None], "row 1, column own: \"b'x'\" is of type bytes"),
        ([decimal.Decimal("1.5"), None], "is of type Decimal"),
        ([1j, 2j], "is of type complex"),
        ([1.0, np.inf], "row 2, column own: 'inf' is infinite"),
        ([1, 2**63], "row 2, column own: '9223372036854775808' is too large a number"),
        (["a", 1], "column own: holds numbers and text"),
        ([True, 1], "column own: holds numbers and truth values"),
        (["a", "x" * 4097], "row 2, column own: 'xxx"),
        (["a", "b\0"], "row 2, column own: 'b\\x00' contains a zero byte"),
    ],
)
def test_cells_that_a_gallery_cannot_store(cells: object, cause: str) -> None:
    assert cause in message_of(pd.DataFrame({"own": pd.Series(cells)}))


@pytest.mark.parametrize(
    "cells",
    [
        ["a", None],
        [1, 2],
        [1.5, None],
        [True, False],
        [True, None],
        pd.array([1, None], "Int64"),
        pd.array([True, None], "boolean"),
        pd.Categorical(["a", None]),
        pd.Categorical([1, 2]),
        [None, None],
        np.array([1, 2], np.uint8),
        np.array([1, 2], np.float16),
        ["two\nlines", "ok"],
    ],
)
def test_what_passes_a_gallery_can_store(cells: object) -> None:
    own = pd.DataFrame({"own": pd.Series(cells)})
    check_types(own, "cases")
    ids = {name: ["a", "b"] for name in ("row_id", "granularity", "patient_id", "dataset")}
    try:
        to_columns(own.assign(**ids), "cases")
    except GalleryError as error:
        pytest.fail(str(error))
