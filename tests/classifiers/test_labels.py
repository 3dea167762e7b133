import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classifiers import ClassificationError
from classifiers.labels import (
    MISSING,
    canonical_order,
    check_vectors,
    encode_labels,
    encode_patients,
    order_classes,
    scale_of,
    spread_columns,
    women_per_class,
)

terms = st.sampled_from(["mass", "asymmetry", "calcification", None, float("nan"), pd.NA])


@settings(deadline=None, max_examples=50)
@given(st.lists(terms, max_size=20))
def test_codes_lead_back_to_the_labels(labels):
    classes, codes = encode_labels(labels)
    back = [None if code == MISSING else classes[code] for code in codes]
    assert back == [None if pd.isna(label) else label for label in labels]
    assert list(classes) == sorted(classes)


@pytest.mark.parametrize("dtype", ["Int64", "string", "boolean", "category"])
def test_pandas_columns_with_missing_values(dtype):
    values = {"Int64": [4, None], "string": ["4", None], "boolean": [True, None], "category": ["4", None]}
    classes, codes = encode_labels(pd.Series(values[dtype], dtype=dtype))
    assert codes.tolist() == [0, MISSING]
    assert classes == (("True",) if dtype == "boolean" else ("4",))


def test_given_classes_keep_their_order():
    assert encode_labels(["dense", "fatty"], ["fatty", "dense"]) == (
        ("fatty", "dense"),
        pytest.approx([1, 0]),
    )


@pytest.mark.parametrize(
    ("labels", "classes", "cause"),
    [
        (np.array(["mass", np.nan]), None, "'nan' stands where"),
        (["mass"], ["asymmetry"], "'mass' is none of"),
        (["mass"], ["mass", "mass"], "twice"),
        ([["mass"], ["mass"]], None, "shape"),
    ],
)
def test_refuses_labels_that_are_none(labels, classes, cause):
    with pytest.raises(ClassificationError, match=cause):
        encode_labels(labels, classes)


def test_patients_are_encoded_in_sorted_order():
    women, codes = encode_patients(["b/1", "a/2", "b/1"], 3)
    assert women.tolist() == ["a/2", "b/1"]
    assert codes.tolist() == [1, 0, 1]


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA])
def test_a_row_without_a_woman_is_refused(missing):
    with pytest.raises(ClassificationError, match="row 1 has no woman"):
        encode_patients(["a/1", missing], 2)


def test_numbers_of_keys_must_fit():
    with pytest.raises(ClassificationError, match="keys for 3 rows"):
        encode_patients(["a/1"], 3)


@pytest.mark.parametrize(
    ("vectors", "cause"), [([1.0, 2.0], "shape"), ([[1.0], [np.inf]], "row 1"), ([[np.nan]], "row 0")]
)
def test_refuses_vectors_that_are_none(vectors, cause):
    with pytest.raises(ClassificationError, match=cause):
        check_vectors(vectors)


def test_canonical_order_does_not_depend_on_the_order_of_rows():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(30, 3))[rng.integers(0, 10, 30)]
    codes, women = rng.integers(0, 2, 30), rng.integers(0, 4, 30)
    shuffled = rng.permutation(30)
    first = canonical_order(vectors, codes, women)
    second = shuffled[canonical_order(vectors[shuffled], codes[shuffled], women[shuffled])]
    for array in (vectors, codes, women):
        assert np.array_equal(array[first], array[second])
    assert canonical_order(np.empty((2, 0)), np.array([1, 0]), np.array([0, 0])).tolist() == [1, 0]


def test_women_per_class_counts_women_once():
    codes = np.array([0, 0, 1, MISSING, 1])
    assert women_per_class(codes, np.array([0, 0, 0, 1, 2]), 3).tolist() == [1, 2, 0]
    assert women_per_class(codes[:0], codes[:0], 2).tolist() == [0, 0]


def test_spread_columns_fills_absent_classes_with_zero():
    spread = spread_columns(np.array([[0.3, 0.7]]), ["c", "a"], ["a", "b", "c"])
    assert spread.tolist() == [[0.7, 0.0, 0.3]]


def test_density_is_in_order_and_nothing_else():
    assert order_classes(["D", "A", "C"]) == ("A", "C", "D")
    assert order_classes(["glandular", "dense", "fatty"]) == ("fatty", "glandular", "dense")
    assert order_classes(["mass", "A"]) == ("A", "mass")
    assert scale_of([]) is None
