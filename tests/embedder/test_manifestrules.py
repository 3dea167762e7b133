import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedder.findings import Finding, findings_frame
from embedder.manifestrules import ManifestError, Problem, validate


def a_finding(number: int = 1, **values: object) -> Finding:
    given = {
        "row_id": f"f{number}",
        "path": f"/images/{number}.png",
        "granularity": "finding",
        "dataset": "d",
        "patient_id": f"w{number}",
        "x0": 10,
        "y0": 20,
        "x1": 30,
        "y1": 60,
        "image_rows": 100,
        "image_columns": 80,
    }
    return Finding(**{**given, **values})  # type: ignore[arg-type]


def message_of(*findings: Finding) -> str:
    with pytest.raises(ManifestError) as caught:
        validate(findings_frame(findings), "cases.csv")
    return str(caught.value)


def test_a_right_table_passes() -> None:
    whole = a_finding(2, granularity="breast", x0=None, y0=None, x1=None, y1=None, split="train")
    edges = a_finding(3, x0=0, y0=0, x1=80, y1=100, shape="irregular + architectural distortion")
    validate(findings_frame([a_finding(), whole, edges]))


@pytest.mark.parametrize(
    ("values", "place", "cause"),
    [
        ({"patient_id": None}, "row 2, column patient_id", "is empty"),
        ({"row_id": "  "}, "row 2, column row_id", "is empty"),
        ({"granularity": "lesion"}, "row 2, column granularity", "'lesion' is none of finding, breast"),
        ({"laterality": "left"}, "row 2, column laterality", "none of L, R"),
        ({"view": "mlo"}, "row 2, column view", "'mlo' is none of CC"),
        ({"pathology": "cancer"}, "row 2, column pathology", "'cancer' is none of benign"),
        ({"shape": "oval + square"}, "row 2, column shape", "none of round"),
        ({"split": "train + test"}, "row 2, column split", "none of train"),
        ({"spacing_mm": 0.0}, "row 2, column spacing_mm", "0 is not 0.001 to 5"),
        ({"age": 150.0}, "row 2, column age", "150 is not 0 to 130"),
        ({"subtlety": 6}, "row 2, column subtlety", "6 is not 1 to 5"),
        ({"image_rows": -100}, "row 2, column image_rows", "-100 is not 1 to"),
        ({"x0": None, "y1": None}, "row 2, column x0, y1", "a finding needs a box"),
        ({"granularity": "breast"}, "row 2, column x0, y0, x1, y1", "a whole breast has no box"),
        ({"x0": 30}, "row 2, column x0, x1", "empty or inverted (x0 30, x1 30)"),
        ({"y0": 70}, "row 2, column y0, y1", "empty or inverted (y0 70, y1 60)"),
        ({"x0": -1}, "row 2, column x0", "-1 lies outside the image"),
        ({"y0": -5}, "row 2, column y0", "-5 lies outside the image"),
        ({"x1": 81}, "row 2, column x1", "81 lies outside the image, which has 80 columns"),
        ({"y1": 101}, "row 2, column y1", "101 lies outside the image, which has 100 rows"),
        ({"row_id": "f1"}, "row 2, column row_id", "'f1' stands in row 1 already"),
        ({"patient_id": "NaN"}, "row 2, column patient_id", "stands for an unknown value"),
        ({"study_id": " 7"}, "row 2, column study_id", "begins or ends with white space"),
        ({"study_id": " "}, "row 2, column study_id", "begins or ends with white space"),
        ({"row_id": "a\nb"}, "row 2, column row_id", "contains a control character"),
        ({"row_id": "a\x1b[2J"}, "row 2, column row_id", "contains a control character"),
        ({"path": "/a\0b.png"}, "row 2, column path", "contains a control character"),
        ({"path": "/" + "x" * 4096}, "row 2, column path", "has 4097 characters: 4096 are the most"),
        ({"row_id": "x" * 257}, "row 2, column row_id", "has 257 characters: 256 are the most"),
        ({"patient_id": "x" * 257}, "row 2, column patient_id", "has 257 characters: 256 are the most"),
        ({"native_density": "x" * 4097}, "row 2, column native_density", "has 4097 characters: 4096"),
        ({"patient_id": "4711.0"}, "row 2, column patient_id", "write it as 4711"),
        ({"path": "/images/1.png"}, "row 2, column patient_id", "the image 1.png is of d/w1 in row 1"),
        ({"patient_id": "W1"}, "row 2, column patient_id", "'W1' is 'w1' of row 1 but for case or spaces"),
        ({"patient_id": "w1 "}, "row 2, column patient_id", "'w1 ' is 'w1' of row 1 but for case or spaces"),
        ({"patient_id": "w1", "dataset": "D"}, "row 2, column dataset", "'D' is 'd' of row 1 but for case"),
    ],
)
def test_each_rule_names_row_and_column(values: dict[str, object], place: str, cause: str) -> None:
    message = message_of(a_finding(1), a_finding(2, **values))
    assert message.startswith("cases.csv: ")
    assert f"{place}: " in message
    assert cause in message


def test_a_woman_in_two_splits() -> None:
    message = message_of(
        a_finding(1, patient_id="w", split="train"), a_finding(2), a_finding(3, patient_id="w", split="test")
    )
    assert "row 3, column split: the woman d/w is in train and in test" in message
    # The same id in another data set is another woman.
    validate(
        findings_frame(
            [a_finding(1, patient_id="w", split="train"), a_finding(2, patient_id="w", split="test", dataset="e")]
        )
    )


@settings(deadline=None, max_examples=25)
@given(
    st.lists(
        st.tuples(st.sampled_from(["/a.png", "/b.png"]), st.sampled_from(["1", "2"]), st.sampled_from(["d", "e"])),
        min_size=1,
        max_size=6,
    )
)
def test_an_image_is_of_one_woman(rows: list[tuple[str, str, str]]) -> None:
    frame = findings_frame(
        [
            a_finding(number, path=path, patient_id=woman, dataset=name)
            for number, (path, woman, name) in enumerate(rows)
        ]
    )
    expected = []
    for number, row in enumerate(rows):
        earlier = next(place for place, other in enumerate(rows) if other[0] == row[0])
        if rows[earlier][1:] != row[1:]:
            expected.append(f"row {number + 1}, column patient_id: the image {row[0][1:]} is of")
    try:
        validate(frame)
        message = ""
    except ManifestError as error:
        message = str(error)
    assert message.count("column patient_id") == len(expected)
    assert all(place in message for place in expected)


def test_women_of_similar_names_are_different_women() -> None:
    validate(
        findings_frame([a_finding(1, patient_id="007"), a_finding(2, patient_id="7"), a_finding(3, patient_id="7a")])
    )


@pytest.mark.parametrize("spoilt", [{}, {"view": "mlo "}, {"row_id": "\x1b"}])
def test_large_tables_are_checked(spoilt: dict[str, str]) -> None:
    rows = 50_000
    numbers = np.arange(rows).astype(str).astype(object)
    frame = findings_frame([a_finding()]).loc[np.zeros(rows, int)].reset_index(drop=True)
    frame = frame.assign(row_id="r" + numbers, path="/" + numbers, patient_id="w" + numbers)
    # Every row is wrong in its own way.
    frame = frame.assign(**{name: pd.Series(cell + numbers, dtype="str") for name, cell in spoilt.items()})
    if spoilt:
        with pytest.raises(ManifestError, match=r"and [49]9990 more"):
            validate(frame)
    else:
        validate(frame)


def test_ten_problems_are_shown_and_the_rest_counted() -> None:
    message = message_of(*(a_finding(number, age=-1.0) for number in range(1, 14)))
    assert message.count("column age") == 10
    assert "row 10, " in message
    assert "row 11, " not in message
    assert message.endswith("and 3 more")


def test_a_long_cell_is_cut_in_the_message() -> None:
    assert len(message_of(a_finding(1, pathology="x" * 100_000))) < 400


def test_problem_without_a_place() -> None:
    assert str(Problem(None, None, "is wrong")) == "is wrong"
