import numpy as np
import pandas as pd
import pytest

from classifiers import ClassificationError
from classifiers.asymmetry import differences, mirrored_findings, opposite_images, spread_rows, unlikeness
from embedder.findings import Finding, findings_frame


def image(row_id, side, view="MLO", woman="1", study=None, columns=100, **cells):
    granularity = "finding" if "x0" in cells else "breast"
    return Finding(
        row_id=row_id, path=f"{row_id}.png", granularity=granularity, dataset="a", patient_id=woman, laterality=side,
        view=view, study_id=study, image_rows=80, image_columns=columns, **cells,
    )  # fmt: skip


BREASTS = findings_frame(
    [
        image("l", "L"),
        image("r", "R"),
        image("rcc", "R", view="CC"),
        image("r2", "R", woman="2"),
        image("l3", "L", woman="3", study="x"),
        image("r3", "R", woman="3", study="y"),
        image("side unknown", None, woman="2"),
        image("r4", "R", woman="4"),
        image("l4", "L", woman="4", columns=90),
    ]
)


def test_the_other_breast_is_of_the_same_woman_view_and_examination():
    assert opposite_images(BREASTS, BREASTS).tolist() == [1, 0, -1, -1, -1, -1, -1, 8, 7]


def test_a_finding_is_mirrored_onto_the_other_breast_and_keeps_no_label():
    findings = findings_frame(
        [
            image("f1", "L", x0=10, y0=5, x1=30, y1=15, pathology="malignant"),
            image("f2", "R", view="CC", x0=1, y0=2, x1=3, y1=4),
            image("f3", "L", woman="4", columns=90, x0=1, y0=2, x1=3, y1=4),
        ]
    )
    found = mirrored_findings(findings, BREASTS)
    assert found["row_id"].tolist() == ["f1"]
    row = found.iloc[0]
    assert (row["path"], row["laterality"]) == ("r.png", "R")
    assert row[["x0", "y0", "x1", "y1"]].tolist() == [70, 5, 90, 15]
    assert pd.isna(row["pathology"])
    assert found.dtypes.equals(findings.dtypes)
    assert mirrored_findings(findings.iloc[1:], BREASTS).empty


def test_a_missing_side_is_unknown_and_not_alike():
    own = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    other = np.array([[1.0, 0.0], [1.0, 0.0], [np.nan, np.nan]])
    np.testing.assert_array_equal(unlikeness(own, other), [0, 1, np.nan])
    table = differences(own, other, ["x", "y"])
    assert table.columns.tolist() == ["asymmetry of x", "asymmetry of y"]
    np.testing.assert_array_equal(table, [[0, 0], [-1, 1], [np.nan, np.nan]])


def test_rows_are_spread_by_their_ids():
    found = spread_rows([[1.0], [2.0]], ["b", "a"], ["a", "c", "b"])
    np.testing.assert_array_equal(found, [[2.0], [np.nan], [1.0]])


def test_what_is_no_pair_is_refused():
    with pytest.raises(ClassificationError, match="one row per side"):
        unlikeness(np.eye(2), np.eye(3))
    with pytest.raises(ClassificationError, match="not finite"):
        unlikeness([[np.nan, 0.0]], [[1.0, 0.0]])
    with pytest.raises(ClassificationError, match="not finite"):
        unlikeness([[1.0, 0.0]], [[np.nan, 0.0]])
    with pytest.raises(ClassificationError, match="unit length"):
        unlikeness([[1.0, 0.0]], [[2.0, 0.0]])
    with pytest.raises(ClassificationError, match="1 names for 2"):
        differences(np.eye(2), np.eye(2), ["x"])
