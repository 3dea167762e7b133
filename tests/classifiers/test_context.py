import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifiers import ClassificationError
from classifiers.context import CONTEXT_COLUMNS, ContextEncoder

TRAIN = pd.DataFrame(
    {
        "age": [40.0, 60.0, np.nan, 50.0],
        "view": ["CC", "MLO", "MLO", "CC"],
        "laterality": ["L", None, None, "L"],
        "density": ["fatty", "dense", "C", "B"],
    }
)


def features(encoder, table):
    return dict(zip(encoder.features_, encoder.transform(table).T.tolist(), strict=True))


def test_numbers_places_and_terms_become_features():
    encoder = ContextEncoder().fit(TRAIN)
    assert encoder.columns == CONTEXT_COLUMNS
    found = features(encoder, TRAIN)
    spread = np.std([40, 60, 50])
    np.testing.assert_allclose(found["age"], [-10 / spread, 10 / spread, 0, 0])
    assert found["age: unknown"] == [0, 0, 1, 0]
    assert found["view: CC"] == [1, 0, 0, 1]
    assert found["view: MLO"] == [0, 1, 1, 0]
    places = np.array([0, 1, 2 / 3, 1 / 3])
    np.testing.assert_allclose(found["density"], (places - places.mean()) / places.std())
    # One known side tells nothing but that it is known.
    assert found["laterality: unknown"] == [0, 1, 1, 0]
    assert set(found) == {"age", "age: unknown", "view: CC", "view: MLO", "density", "laterality: unknown"}
    assert encoder.columns_ == ("age", "age", "view", "view", "laterality", "density")


def test_what_a_query_does_not_know_stands_at_the_mean_of_training_women():
    encoder = ContextEncoder().fit(TRAIN)
    (row,) = encoder.transform({"view": "XCCL"})
    told = dict(zip(encoder.features_, row, strict=True))
    assert told == {
        "age": 0, "age: unknown": 1, "view: CC": 0, "view: MLO": 0, "laterality: unknown": 1, "density": 0
    }  # fmt: skip


def test_statistics_are_of_the_fitted_rows_alone():
    encoder = ContextEncoder(["age"]).fit(TRAIN)
    before = encoder.transform({"age": 45}).tolist()
    encoder.transform(pd.DataFrame({"age": [1000.0, -1000.0]}))
    assert encoder.transform({"age": 45}).tolist() == before


def test_what_was_the_same_in_training_has_no_feature():
    encoder = ContextEncoder(["age", "view", "density"]).fit(
        pd.DataFrame({"age": [50, 50], "view": ["CC", "CC"], "density": [None, None]}, dtype="object")
    )
    assert encoder.features_ == ()
    assert encoder.transform(TRAIN).shape == (4, 0)


def test_a_tables_own_columns_are_numbers_or_terms_by_what_they_hold():
    own = pd.DataFrame({"implant": [True, False], "score": pd.array([1, 3], "Int64"), "site": ["x", "y"]})
    encoder = ContextEncoder(["implant", "score", "site"]).fit(own)
    assert encoder.features_ == ("implant", "score", "site: x", "site: y")
    np.testing.assert_allclose(encoder.transform(own)[:, :2], [[1, -1], [-1, 1]])


CELLS = st.one_of(st.none(), st.floats(-1e6, 1e6), st.sampled_from(["A", "D", "fatty", "CC", ""]))


@given(st.lists(CELLS, min_size=1, max_size=12), st.lists(CELLS, max_size=6))
def test_whatever_cells_hold_features_are_finite_or_refused(train, queries):
    for name in ("density", "view"):
        encoder = ContextEncoder([name]).fit(pd.DataFrame({name: pd.Series(train, dtype="object")}))
        try:
            values = encoder.transform(pd.DataFrame({name: pd.Series(queries, dtype="object")}))
        except ClassificationError:
            continue
        assert values.shape == (len(queries), len(encoder.features_))
        assert np.isfinite(values).all()


@pytest.mark.parametrize(
    ("column", "cells", "cause"),
    [
        ("age", [50.0, np.inf], "not a finite number"),
        ("site", [f"hospital {number}" for number in range(101)], "no context"),
    ],
)
def test_columns_that_are_no_context_are_refused(column, cells, cause):
    with pytest.raises(ClassificationError, match=cause):
        ContextEncoder([column]).fit(pd.DataFrame({column: cells}))


def test_a_query_that_does_not_fit_is_refused():
    with pytest.raises(ClassificationError, match="no column 'margin'"):
        ContextEncoder(["margin"]).fit(TRAIN)
    encoder = ContextEncoder().fit(TRAIN)
    with pytest.raises(ClassificationError, match="age 'old' is not a finite number"):
        encoder.transform({"age": "old"})
    with pytest.raises(ClassificationError, match="density 'E' is not a density"):
        encoder.transform({"density": "E"})
