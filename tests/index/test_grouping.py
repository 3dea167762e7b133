from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index import QueryError
from index.engines import exact_engine
from index.gallery import Gallery
from index.grouping import Groups, PerClass, groups_of, nearest_in_groups, within_groups
from index.nearest import Hits
from index.retrieval import Question, query_row
from index.vectors import StoredVectors


@st.composite
def worlds(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
    """Vectors of which many are the same, and the group of each."""
    rows = draw(st.integers(1, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    pool = rng.normal(size=(draw(st.integers(1, 9)), 5)).astype(np.float32)
    pool /= np.linalg.norm(pool, axis=1, keepdims=True)
    groups = rng.integers(0, draw(st.integers(1, 20)), rows)
    return pool[rng.integers(0, len(pool), rows)], np.unique(groups, return_inverse=True)[1], rng


@settings(deadline=None, max_examples=50)
@given(
    worlds(), st.integers(1, 12), st.integers(1, 3), st.sampled_from([None, 0.0, 0.7]), st.booleans(), st.integers(1, 9)
)
def test_the_nearest_are_taken_one_after_the_other(
    world: tuple[np.ndarray, np.ndarray, np.random.Generator],
    k: int,
    most: int,
    minimum: float | None,
    filtered: bool,
    spare: int,
) -> None:
    vectors, codes, rng = world
    rows = len(vectors)
    names = np.array([f"r{i}" for i in rng.permutation(rows)], object)
    engine = exact_engine(StoredVectors([vectors], 5), lambda positions: names[positions])
    allowed = rng.random(rows) < 0.7 if filtered else None
    barred = [rng.choice(rows, rng.integers(0, min(rows, 5)), replace=False).astype(np.int64) for _ in range(4)]
    queries = vectors[rng.integers(0, rows, 4)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("index.grouping._SPARE", spare - 2 * k)  # few at a time: the engine is asked again and again
        found = nearest_in_groups(
            engine, queries, k, Groups(codes), most, minimum=minimum, allowed=allowed, barred=barred
        )
    everything = engine.search(queries, rows, allowed=allowed, barred=barred)
    for query, hits in enumerate(found):
        taken: list[int] = []
        seen = Counter[int]()
        for position, similarity in zip(everything.positions[query], everything.similarities[query], strict=True):
            if position < 0 or (minimum is not None and similarity < np.float32(minimum)) or len(taken) == k:
                break
            if seen[codes[position]] < most:
                seen[codes[position]] += 1
                taken.append(int(position))
        assert hits.positions.tolist() == taken
        every = Hits(everything.similarities[query], everything.positions[query])
        reached = every.positions >= 0
        cut = within_groups(Hits(every.similarities[reached], every.positions[reached]), Groups(codes), most)
        assert cut.positions[: len(taken)].tolist() == taken


def test_one_group_of_many_rows_does_not_hide_the_others() -> None:
    vectors = np.tile(np.eye(4, dtype=np.float32)[0], (5000, 1))
    vectors[-3:] = np.eye(4, dtype=np.float32)[1]
    codes = np.r_[np.zeros(4997, int), [1, 2, 3]]
    asked = []

    class Counted:
        """An engine that notes how many rows it is asked for."""

        def search(self, queries: np.ndarray, k: int, **options: Any) -> Hits:
            asked.append(k)
            return inner.search(queries, k, **options)

    inner = exact_engine(StoredVectors([vectors], 4), lambda positions: positions.astype(str).astype(object))
    hits = nearest_in_groups(Counted(), vectors[:1], 4, Groups(codes), 1, barred=[np.empty(0, np.int64)])[0]
    assert sorted(hits.positions.tolist()[1:]) == [4997, 4998, 4999]
    assert max(asked) < 100


_OPEN: list[Gallery] = []


@pytest.fixture
def gallery(make_gallery: Callable[..., Path], make_findings: Callable[..., Any]) -> Gallery:
    """Two data sets with the same women; each woman has three rows, two of one study and lesion, or of none known.

    An open gallery never changes: one serves all tests.
    """
    if _OPEN:
        return _OPEN[0]
    parts = []
    for dataset, first in (("films", 0), ("digital", 12)):
        batch = make_findings(12, first=first)
        batch.records["dataset"] = dataset
        batch.records["patient_id"] = [f"W{i // 3}" for i in range(12)]
        batch.records["study_id"] = ["s1", "s1", "s2"] * 3 + [None, None, "s1"]
        batch.records["lesion_id"] = [1, 1, 2] * 4
        batch.records["pathology"] = ["benign", "malignant", None, "malignant"] * 3
        batch.records["implant"] = [True, False, None] * 4
        parts.append(batch)
    _OPEN.append(Gallery.open(make_gallery(*parts)))
    return _OPEN[0]


class TestGroups:
    def test_a_woman_a_study_a_lesion(self, gallery: Gallery) -> None:
        women = groups_of(gallery, "woman")
        assert (women.count, women.codes.tolist()) == (8, [i // 3 for i in range(24)])
        assert women.rows([1, 7]).tolist() == [3, 4, 5, 21, 22, 23]
        study = groups_of(gallery, "study").codes
        # s1 of two women, or of two data sets, is not one study; rows of an unknown study are not one either.
        assert len(set(study[:9])) == 6
        assert study[0] == study[1] != study[2]
        assert len({*study[:3], *study[12:15]}) == 4
        assert len(set(study[9:12])) == 3
        assert len(set(study)) == 18
        lesion = groups_of(gallery, "lesion").codes
        assert lesion[9] == lesion[10] != lesion[11]
        assert len(set(lesion)) == 16
        assert groups_of(gallery, "woman") is women

    def test_what_cannot_be_grouped_by(self, gallery: Gallery, make_gallery: Callable[..., Path]) -> None:
        with pytest.raises(QueryError, match="woman, study, lesion"):
            groups_of(gallery, "view")
        with pytest.raises(QueryError, match="no column lesion_id"):
            groups_of(Gallery.open(make_gallery(name="without")), "lesion")

    def test_a_column_without_a_value_groups_nothing(
        self, make_gallery: Callable[..., Path], make_findings: Callable[..., Any]
    ) -> None:
        batch = make_findings(6)
        batch.records["study_id"] = None
        assert len(set(groups_of(Gallery.open(make_gallery(batch)), "study").codes)) == 6

    def test_the_answer_keeps_to_them(self, gallery: Gallery) -> None:
        for by, most, count in (
            ("woman", 1, 7),
            ("woman", 2, 14),
            ("study", 1, 16),
            ("lesion", 1, 14),
            ("study", 0, 21),
        ):
            answer = query_row(gallery, "row-0000", Question(k=99, group_by=by, per_group=most))
            assert len(answer.neighbours) == count
            if most:
                assert max(Counter(groups_of(gallery, by).codes[answer.positions].tolist()).values()) == most


class TestClasses:
    def test_benign_and_malignant_side_by_side(self, gallery: Gallery) -> None:
        answer = query_row(gallery, "row-0000", Question(k=3, per_class=PerClass()))
        assert [n.record["pathology"] for n in answer.neighbours] == ["benign"] * 3 + ["malignant"] * 3
        assert [n.rank for n in answer.neighbours] == [1, 2, 3] * 2
        for value, part in (("benign", answer.positions[:3]), ("malignant", answer.positions[3:])):
            alone = query_row(gallery, "row-0000", Question(k=3, where=f"pathology == '{value}'"))
            assert alone.positions.tolist() == part.tolist()
            assert len(set(gallery.women[part].tolist())) == 3
        found = answer.to_dict()
        assert found["classes"] == [
            {"value": "benign", "neighbours": 3, "allowed_rows": 5},
            {"value": "malignant", "neighbours": 3, "allowed_rows": 11},
        ]
        assert found["allowed_rows"] == 16
        assert found["query"]["per_class"] == {"column": "pathology", "values": ["benign", "malignant"]}

    def test_a_class_may_be_short_of_rows(self, gallery: Gallery) -> None:
        answer = query_row(gallery, "row-0000", Question(k=6, where="view == 'CC'", per_class=PerClass(), per_group=0))
        assert [part.neighbours for part in answer.classes or ()] == [5, 0]
        assert answer.notes[:2] == (
            "6 neighbours with pathology benign were asked for, and only 5 rows may answer",
            "6 neighbours with pathology malignant were asked for, and only 0 rows may answer",
        )

    @pytest.mark.parametrize(
        ("text", "values"),
        [
            ("density", ["A", "B", "C", "D"]),
            ("implant", [False, True]),
            ("implant=true", [True]),
            ("lesion_id=2", [2]),
            ("x0=9999", [9999]),
            ("pathology=no such thing", ["no such thing"]),
        ],
    )
    def test_values(self, gallery: Gallery, text: str, values: list[Any]) -> None:
        answer = query_row(gallery, "row-0000", Question(k=2, per_class=PerClass.parse(text)))
        assert [part.value for part in answer.classes or ()] == values
        column = text.partition("=")[0]
        for part, neighbours in zip(answer.classes or (), np.split(answer.positions, len(values)), strict=False):
            if part.neighbours == 2:
                assert {gallery.record(position)[column] for position in neighbours} == {part.value}

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("nonsense", "no column 'nonsense'"),
            ("age", "which are no classes"),
            ("x0", "has 24 values"),
            ("x0=" + ",".join(map(str, range(21))), "21 values were named"),
            ("view=1", "None"),
            ("lesion_id=x", "lesion_id holds numbers"),
        ],
    )
    def test_no_classes(self, gallery: Gallery, text: str, words: str) -> None:
        if words == "None":  # a text that looks like a number is a text
            assert query_row(gallery, "row-0000", Question(per_class=PerClass.parse(text))).positions.tolist() == []
            return
        with pytest.raises(QueryError, match=words):
            query_row(gallery, "row-0000", Question(per_class=PerClass.parse(text)))

    @pytest.mark.parametrize("text", ["", "=", "pathology=", "=benign", "pathology= , "])
    def test_texts_that_name_nothing(self, text: str) -> None:
        with pytest.raises(QueryError, match="names no column and values"):
            PerClass.parse(text)
