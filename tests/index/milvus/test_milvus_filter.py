"""The same filter on Milvus and on a table: the same rows."""

import operator
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from index import QueryError
from index.filters import parse_filter
from index.manifest import GalleryIdentity
from index.table import RecordTable

pytest.importorskip("pymilvus", reason="pymilvus is not installed (mammoseek[milvus])", exc_type=ImportError)
pytest.importorskip("milvus_lite", reason="milvus-lite is not installed (mammoseek[milvus])", exc_type=ImportError)

from index.milvus.filter import every, some, translate
from index.milvus.gallery import MilvusGallery
from index.milvus.rows import StoredColumn

ROWS = 48
HOSTILE = ['D"', "D'", "D\\", 'D" or 1 == 1 or "', "D\nE", "D\tE", "", "Ä", "乳", "{x}", "%", "$meta", "D\x01"]


def records() -> pd.DataFrame:
    rng = np.random.default_rng(5)
    texts = ["A", "B", "D", *HOSTILE, None]
    return pd.DataFrame(
        {
            "row_id": [f"r{i:02d}" for i in range(ROWS)],
            "granularity": "finding",
            "patient_id": [f"p{i // 3}" for i in range(ROWS)],
            "dataset": "films",
            "density": [texts[i % len(texts)] for i in range(ROWS)],
            "age": [None if i % 5 == 0 else float(rng.integers(38, 44)) + 0.5 * (i % 2) for i in range(ROWS)],
            "subtlety": pd.array([None if i % 4 == 1 else int(i % 6) - 1 for i in range(ROWS)], dtype="Int64"),
            "big": pd.array([2**53 + 1 + i % 3 if i % 7 else None for i in range(ROWS)], dtype="Int64"),
            "implant": pd.array([None if i % 3 == 2 else i % 2 == 0 for i in range(ROWS)], dtype="boolean"),
            "nothing": pd.Series([np.nan] * ROWS, dtype=float),
            "Größe": [float(i) if i % 2 else None for i in range(ROWS)],
            "exists": ["yes" if i % 2 else None for i in range(ROWS)],
            "_record": [f"own {i % 3}" for i in range(ROWS)],
            'row"_x': [None if i % 3 else "x" for i in range(ROWS)],
            "column_3": ["odd" if i % 2 else "even" for i in range(ROWS)],
        }
    )


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusGallery]:
    folder: Path = tmp_path_factory.mktemp("milvus")
    identity = GalleryIdentity("m", "p", "finding", 4)
    with MilvusGallery.create(f"milvus://{folder}/m.db/filters", identity) as gallery:
        vectors = np.eye(4, dtype=np.float32)[np.arange(ROWS) % 4]
        gallery.add(vectors, records())
        yield gallery


def passing(gallery: MilvusGallery, text: str) -> list[int]:
    condition = translate(parse_filter(text), gallery.by_name)
    if isinstance(condition, bool):
        return list(range(ROWS)) if condition else []
    return [row["_number"] for row in gallery.meeting(condition, [])]


def expected(text: str) -> list[int]:
    return np.flatnonzero(parse_filter(text).mask(RecordTable.of_frame(records()))).tolist()


texts = st.sampled_from(["A", "B", "C", "D", "d", *HOSTILE])
numbers = st.one_of(st.integers(-2, 45), st.sampled_from([38.5, 39.0, 40.5, -0.0, 1e-7, 1e18, 5e-324]))
bigs = st.sampled_from([2**53, 2**53 + 1, 2**53 + 2, 2**53 + 3, 0])
orders = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])
leaves = st.one_of(
    st.builds(lambda o, v: f"density {o} {v!r}", orders, texts),
    st.builds(lambda o, v: f"{v!r} {o} density", orders, texts),
    st.builds(
        lambda n, o, v: f"{n} {o} {v!r}", st.sampled_from(["age", "subtlety", "Größe", "nothing"]), orders, numbers
    ),
    st.builds(lambda o, v: f"big {o} {v}", orders, bigs),
    st.builds(lambda o, v: f"implant {o} {v}", st.sampled_from(["==", "!="]), st.booleans()),
    st.builds(
        lambda n, v: f"density {n} in {v!r}", st.sampled_from(["", "not"]), st.lists(texts, min_size=1, max_size=4)
    ),
    st.builds(
        lambda n, v: f"age {n} in {v!r}", st.sampled_from(["", "not"]), st.lists(numbers, min_size=1, max_size=4)
    ),
    st.builds(
        lambda c, n: f"{c} is {n} None",
        st.sampled_from(["density", "age", "subtlety", "implant", "nothing", "Größe", "exists", "column_3"]),
        st.sampled_from(["", "not"]),
    ),
    st.just("implant"),
    st.just("nothing"),
    st.just("exists == 'yes'"),
    st.just("column_3 != 'odd'"),
    st.just("_record == 'own 1'"),
)
filters = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(lambda a: f"not ({a})", inner),
        st.builds(lambda a, b: f"({a}) and ({b})", inner, inner),
        st.builds(lambda a, b: f"({a}) or ({b})", inner, inner),
    ),
    max_leaves=6,
)


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=filters)
def test_milvus_passes_the_rows_that_a_table_passes(gallery: MilvusGallery, text: str) -> None:
    assert passing(gallery, text) == expected(text)


def holds(node: Any, row: dict[str, Any]) -> Any:
    """Evaluate an expression as releases of Milvus have done that know no unknown: a missing value differs from all."""
    match type(node).__name__:
        case "And":
            return all(holds(part, row) for part in node.operands)
        case "Or":
            return any(holds(part, row) for part in node.operands)
        case "Not":
            return not holds(node.operand, row)
        case "IsNullOp":
            return (row.get(node.field.key) is None) != node.negate
        case "CmpOp":
            left, right = row.get(node.left.key), node.right.value
            if left is None:
                return node.op == "!="
            operators = {"==": "eq", "!=": "ne", "<": "lt", "<=": "le", ">": "gt", ">=": "ge"}
            return getattr(operator, operators[node.op])(left, right)
        case other:
            raise AssertionError(other)


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=filters)
def test_nothing_depends_on_what_milvus_makes_of_missing_values(gallery: MilvusGallery, text: str) -> None:
    from milvus_lite.search.filter import parse_expr

    condition = translate(parse_filter(text), gallery.by_name)
    if isinstance(condition, str):
        node = parse_expr(condition)
        table = records()
        keys = {column.name: column.key for column in gallery.columns}
        cells = [
            {keys[name]: None if pd.isna(value) else value for name, value in row.items()}
            for row in table.astype(object).to_dict("records")
        ]
        assert [place for place, row in enumerate(cells) if holds(node, row)] == expected(text)


@pytest.mark.parametrize("symbol", ["==", "!=", "<", "<=", ">", ">="])
@pytest.mark.parametrize("negated", [False, True])
def test_what_is_missing_is_neither(gallery: MilvusGallery, symbol: str, negated: bool) -> None:
    for column, literal in (("density", "'B'"), ("age", "40"), ("subtlety", "2.5"), ("Größe", "3"), ("big", "0")):
        text = f"{column} {symbol} {literal}"
        text = f"not ({text})" if negated else text
        assert passing(gallery, text) == expected(text)
        assert records()[column].notna().to_numpy()[passing(gallery, text)].all()


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_are_found_and_find_nothing_else(gallery: MilvusGallery, text: str) -> None:
    for condition in (
        f"density == {text!r}",
        f"density != {text!r}",
        f"density in ({text!r}, 'A')",
        f"density < {text!r}",
    ):
        assert passing(gallery, condition) == expected(condition)
    if text:
        assert passing(gallery, f"density == {text!r}")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("densty == 'D'", "did you mean density"),
        ("_row == 'D'", "no column"),
        ("age == '40'", "age holds numbers"),
        ("density < 3", "density holds texts"),
        ("implant < True", "have no order"),
        ("density", "not truth values"),
    ],
)
def test_what_a_column_cannot_answer(gallery: MilvusGallery, text: str, words: str) -> None:
    with pytest.raises(QueryError, match=words):
        passing(gallery, text)


def test_a_column_without_values_clashes_with_nothing(gallery: MilvusGallery) -> None:
    assert (
        passing(gallery, "nothing == 'text'")
        == passing(gallery, "nothing")
        == passing(gallery, "not nothing > 3")
        == []
    )
    assert passing(gallery, "nothing is None") == list(range(ROWS))


def test_the_longest_filter(gallery: MilvusGallery) -> None:
    text = " or ".join(f"age == {38 + i / 8}" for i in range(110))
    assert passing(gallery, text) == expected(text)
    deep = "not (" * 19 + "density == 'A' and age > 39" + ")" * 19
    assert passing(gallery, deep) == expected(deep)


def test_what_columns_are_called_within_milvus() -> None:
    keys = {
        name: StoredColumn(name, "text", True, 7).key for name in ("density", "_record", 'row"_x', "Größe", "column_3")
    }
    assert keys == {
        "density": "density",
        "_record": "column_7",
        'row"_x': "column_7",
        "Größe": "column_7",
        "column_3": "column_7",
    }


def test_joining() -> None:
    assert every() is True
    assert some() is False
    assert every(True, "a", True, "a") == "a"
    assert every("a", False) is False
    assert some("a", True) is True
    assert some(every("a", "b"), False, "c") == "((a and b) or c)"
