import json
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index import GalleryError, QueryError
from index.facets import Facet
from index.gallery import Gallery
from index.grouping import PerClass
from index.manifest import GalleryIdentity
from index.refinement import Refinement
from index.retrieval import (
    Answer,
    Question,
    View,
    ask,
    ask_many,
    query_image,
    query_image_views,
    query_row,
    query_row_views,
    query_rows,
)
from index.writer import GalleryWriter, create_gallery

_OPEN: list[Gallery] = []


@pytest.fixture
def gallery(make_gallery: Callable[..., Path]) -> Gallery:
    """33 findings of 11 women. An open gallery never changes: one serves all tests."""
    if not _OPEN:
        _OPEN.append(Gallery.open(make_gallery()))
    return _OPEN[0]


def as_bytes(answer: Answer) -> bytes:
    return json.dumps(answer.to_dict(), sort_keys=True, allow_nan=False).encode()


def ids(answer: Answer) -> list[str]:
    return [neighbour.row_id for neighbour in answer.neighbours]


def slow_answer(
    vectors: np.ndarray, row_ids: list[str], query: np.ndarray, asked: Question, allowed: list[bool], women: list[str]
) -> list[str]:
    """Return the ids that answer: all similarities in float64, sorted, then taken one after the other."""
    scored = []
    for vector, row_id, may, woman in zip(vectors, row_ids, allowed, women, strict=True):
        similarity = np.float32(exact(vector, query))
        if may and (asked.minimum is None or similarity >= np.float32(asked.minimum)):
            scored.append((-float(similarity), row_id, woman))
    taken: list[str] = []
    answered = Counter[str]()
    for _, row_id, woman in sorted(scored):
        answered[woman] += 1
        if asked.per_group == 0 or answered[woman] <= asked.per_group:
            taken.append(row_id)
    return taken[: asked.k]


def exact(vector: np.ndarray, query: np.ndarray) -> float:
    """Return an inner product in the order in which it is defined: the later half folded on the earlier one."""
    terms = [a * b for a, b in zip(vector.tolist(), query.tolist(), strict=True)]
    while len(terms) > 1:
        half = len(terms) // 2
        folded = [terms[i] + terms[half + i] for i in range(half)]
        if len(terms) % 2:
            folded[0] += terms[-1]
        terms = folded
    return terms[0]


@st.composite
def small_worlds(draw: st.DrawFn) -> tuple[np.ndarray, pd.DataFrame]:
    """Galleries with few women, few distinct vectors, and the same id in two data sets."""
    rows = draw(st.integers(1, 24))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    pool = rng.normal(size=(draw(st.integers(1, 6)), 4)).astype(np.float32)
    pool /= np.linalg.norm(pool, axis=1, keepdims=True)
    records = pd.DataFrame(
        {
            "row_id": [f"r{i}" for i in rng.permutation(rows)],
            "granularity": "finding",
            "patient_id": [f"p{i}" for i in rng.integers(0, 4, rows)],
            "dataset": [f"d{i}" for i in rng.integers(0, 2, rows)],
            "density": [None if i == 4 else "ABCD"[i] for i in rng.integers(0, 5, rows)],
        }
    )
    return pool[rng.integers(0, len(pool), rows)], records


@settings(deadline=None, max_examples=25)
@given(
    small_worlds(),
    st.builds(
        Question,
        k=st.integers(1, 30) | st.none(),
        where=st.sampled_from([None, "density == 'A'", "not density == 'A'"]),
        minimum=st.sampled_from([None, -1.0, 0.0, 0.5]),
        per_group=st.sampled_from([0, 1, 2]),
    ).filter(lambda asked: asked.k is not None or asked.minimum is not None),
)
def test_no_woman_meets_herself_and_nobody_else_is_missed(
    world: tuple[np.ndarray, pd.DataFrame], asked: Question
) -> None:
    vectors, records = world
    keys = (records["dataset"] + "/" + records["patient_id"]).tolist()
    row_ids, density = records["row_id"].tolist(), records["density"].tolist()
    where = asked.where
    passes = [where is None or (isinstance(d, str) and (d == "A") == (where[0] == "d")) for d in density]
    with tempfile.TemporaryDirectory() as folder:
        create_gallery(Path(folder), GalleryIdentity("m", "p", "finding", 4))
        with GalleryWriter(Path(folder)) as writer:
            writer.append(vectors, records)
        gallery = Gallery.open(Path(folder))
        together = ask_many(gallery, vectors, keys, asked)
        for position, (row_id, key) in enumerate(zip(row_ids, keys, strict=True)):
            others = [p and other != key for p, other in zip(passes, keys, strict=True)]
            expected = slow_answer(vectors, row_ids, vectors[position], asked, others, keys)
            alone = ask(gallery, vectors[position], asked, patient_key=key)
            by_row = query_row(gallery, row_id, asked)
            assert ids(alone) == ids(by_row) == expected
            assert as_bytes(together[position]) == as_bytes(alone)
            assert key not in {f"{n.record['dataset']}/{n.patient_id}" for n in alone.neighbours}
            assert alone.excluded_patient == records["patient_id"][position]
            assert alone.allowed_rows == sum(others)
            hers = query_row(gallery, row_id, replace(asked, include_same_patient=True))
            not_itself = [p and other != row_id for p, other in zip(passes, row_ids, strict=True)]
            assert ids(hers) == slow_answer(vectors, row_ids, vectors[position], asked, not_itself, keys)
            assert hers.excluded_patient is None


def test_the_answer_says_all_that_a_reader_needs(gallery: Gallery) -> None:
    found = query_row(gallery, "row-0007", Question(k=3, where="density is not None")).to_dict()
    assert found["query"] == {
        "k": 3,
        "where": "density is not None",
        "include_same_patient": False,
        "path": "/images/0003.png",
        "box": [17, 20, 67, 90],
        "row_id": "row-0007",
        "patient": "W002",
        "dataset": "films",
        "spacing_mm": None,
        "view": None,
        "minimum": None,
        "group_by": "woman",
        "per_group": 1,
        "per_class": None,
        "facets": [],
        "refinement": None,
        "fusion": "mean",
        "further_views": [],
        "least_percentile": 5.0,
        "typical": None,
    }
    assert (found["excluded_patient"], found["excluded_dataset"], found["excluded_rows"]) == ("W002", "films", 3)
    assert found["replay"]["gallery_generation"] == gallery.generation
    assert found["replay"]["segments_digest"] == gallery.manifest.segments_digest
    assert found["replay"]["model_digest"] == "a" * 64
    assert found["replay"]["preparation_digest"] == "b" * 64
    assert found["replay"]["engine"] == "exact"
    assert found["replay"]["index_sha256"] is None
    assert found["replay"]["k"] == 3
    assert "where" in found["replay"]
    assert len(found["notes"]) == 1
    assert "is not known" in found["notes"][0]
    for rank, neighbour in enumerate(found["neighbours"], start=1):
        position = gallery.position(neighbour["row_id"])
        assert neighbour["rank"] == rank
        assert neighbour["box"] == [10 + position, 20, 60 + position, 90]
        assert all(type(corner) is int for corner in neighbour["box"])
        assert neighbour["path"] == f"/images/{position // 2:04d}.png"
        age = gallery.records["age"][position]
        assert neighbour["age"] == (None if np.isnan(age) else age)
        assert neighbour["similarity"] == pytest.approx(exact(gallery.matrix[position], gallery.matrix[7]), abs=1e-6)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_a_whole_breast_has_no_box(
    tmp_path: Path, identity: GalleryIdentity, make_findings: Callable[..., Any]
) -> None:
    batch = make_findings(6)
    create_gallery(tmp_path, replace(identity, granularity="breast"))
    with GalleryWriter(tmp_path) as writer:
        records = batch.records.drop(columns="path").assign(granularity="breast", x0=None, y0=None, x1=None, y1=None)
        writer.append(batch.vectors, records)
    found = query_row(Gallery.open(tmp_path), "row-0000", Question(k=2, per_group=0)).to_dict()
    assert [(n["box"], n["path"], n["x0"]) for n in found["neighbours"]] == [(None, None, None)] * 2
    assert found["query"]["box"] is None


def test_the_same_question_gets_the_same_bytes(gallery_folder: Path) -> None:
    first = as_bytes(query_row(Gallery.open(gallery_folder), "row-0007", Question(where="age > 40")))
    assert as_bytes(query_row(Gallery.open(gallery_folder), "row-0007", Question(where="age > 40"))) == first
    with GalleryWriter(gallery_folder) as writer:
        writer.rebuild_index()
    assert as_bytes(query_row(Gallery.open(gallery_folder), "row-0007", Question(where="age > 40"))) == first


class TestFewRows:
    def test_all_that_may_answer_come_with_a_note(self, gallery: Gallery) -> None:
        answer = query_row(gallery, "row-0007", Question(k=1000, per_group=0))
        assert len(answer.neighbours) == answer.allowed_rows == 30
        assert answer.notes[0] == "1000 neighbours were asked for, and only 30 rows may answer"
        assert answer.positions.shape == answer.similarities.shape == (30,)
        assert (np.diff(answer.similarities) <= 0).all()

    def test_the_note_says_what_else_kept_them_away(self, gallery: Gallery) -> None:
        answer = query_row(gallery, "row-0007")
        assert len(answer.neighbours) == 10
        assert len({neighbour.patient_id for neighbour in answer.neighbours}) == 10
        answer = query_row(gallery, "row-0007", Question(k=11, minimum=-1.0))
        assert answer.notes[0] == (
            "11 neighbours were asked for, and only 10 of the 30 rows that may answer came: "
            "at most 1 of one woman and none less similar than -1.0"
        )

    def test_nobody_may_answer(self, gallery: Gallery) -> None:
        answer = query_row(gallery, "row-0007", Question(where="age > 1000"))
        assert answer.to_dict()["neighbours"] == []
        assert "only 0 rows" in answer.notes[0]

    def test_an_empty_gallery_is_refused(self, tmp_path: Path, identity: GalleryIdentity) -> None:
        create_gallery(tmp_path, identity)
        with pytest.raises(QueryError, match="the gallery is empty"):
            ask(Gallery.open(tmp_path), np.eye(16, dtype=np.float32)[0])


class TestBadQuestions:
    @pytest.mark.parametrize("k", [0, -1, 2.0, True, "3"])
    def test_k(self, gallery: Gallery, k: Any) -> None:
        with pytest.raises(QueryError, match="not a number of neighbours"):
            query_row(gallery, "row-0007", Question(k=k))

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"k": None}, "all neighbours are asked for, however far"),
            ({"minimum": 1.5}, "minimum similarity"),
            ({"minimum": float("nan")}, "minimum similarity"),
            ({"minimum": "0.5"}, "minimum similarity"),
            ({"per_group": -1}, "not a number of rows"),
            ({"per_group": True}, "not a number of rows"),
            ({"group_by": "view"}, "woman, study, lesion"),
            ({"group_by": "study"}, "no column study_id"),
            ({"fusion": "median"}, "mean, max"),
            ({"least_percentile": 101}, "percentile"),
            ({"refinement": Refinement()}, "no example"),
            ({"facets": (Facet("margin", 0.1),)}, "no column 'margin'"),
            ({"per_class": PerClass()}, "no column 'pathology'"),
        ],
    )
    def test_the_rest_of_the_question(self, gallery: Gallery, options: dict[str, Any], words: str) -> None:
        with pytest.raises(QueryError, match=words):
            query_row(gallery, "row-0007", Question(**options))

    @pytest.mark.parametrize(
        ("vector", "words"),
        [
            (np.zeros(16, np.float32), "length 0, not 1"),
            (np.full(16, np.nan, np.float32), "not finite"),
            (np.full(16, np.inf, np.float32), "not finite"),
            (np.ones(16, np.float32), "length 4, not 1"),
            (np.eye(15, dtype=np.float32)[0], "float32 (15,)"),
            (np.eye(16, dtype=np.float32), "float32"),
            (np.eye(16, dtype=np.int64)[0], "int64"),
            (np.array(["a"] * 16), "U1"),
            (np.float32(1), "float32"),
        ],
    )
    def test_vectors(self, gallery: Gallery, vector: np.ndarray, words: str) -> None:
        with pytest.raises(QueryError) as error:
            ask(gallery, vector)
        assert words in str(error.value)

    def test_rows_filters_and_women(self, gallery: Gallery) -> None:
        with pytest.raises(QueryError, match="no row"):
            query_row(gallery, "row-7")
        with pytest.raises(QueryError, match="no column"):
            query_row(gallery, "row-0007", Question(where="nonsense == 1"))
        with pytest.raises(QueryError, match="dataset/patient_id"):
            ask(gallery, gallery.matrix[0], patient_key="W000")
        with pytest.raises(QueryError, match="one per vector"):
            ask_many(gallery, gallery.matrix[:2], ["films/W000"])


BOX = (1, 2, 30, 40)


class TestImages:
    @pytest.mark.parametrize(
        ("attribute", "value"),
        [("digest", "f" * 64), ("preparation_digest", "f" * 64), ("granularity", "breast"), ("dimension", 17)],
    )
    def test_another_model_is_refused_before_it_embeds(
        self, gallery: Gallery, make_model: Any, attribute: str, value: Any
    ) -> None:
        model = make_model(gallery.matrix[7])
        setattr(model, attribute, value)
        with pytest.raises(GalleryError) as error:
            query_image(gallery, model, Path("new.png"), BOX)
        assert str(value) in str(error.value)
        assert model.asked == []

    @pytest.mark.parametrize("options", [{"k": 0}, {"where": "("}, {"where": "nonsense == 1"}])
    def test_so_is_a_question_that_cannot_be_answered(
        self, gallery: Gallery, make_model: Any, options: dict[str, Any]
    ) -> None:
        model = make_model(gallery.matrix[7])
        with pytest.raises(QueryError):
            query_image(gallery, model, Path("new.png"), BOX, Question(**options))
        assert model.asked == []

    def test_what_the_asker_says_reaches_the_model_and_the_answer(self, gallery: Gallery, make_model: Any) -> None:
        model = make_model(gallery.matrix[7])
        question = Question(k=4, spacing_mm=0.2, view="CC", patient="W002")
        answer = query_image(gallery, model, Path("new.png"), BOX, question)
        assert model.asked == [(Path("new.png"), BOX, 0.2, "CC")]
        asked = answer.to_dict()["query"]
        assert (asked["path"], asked["box"], asked["spacing_mm"], asked["view"]) == ("new.png", list(BOX), 0.2, "CC")

    def test_a_vector_that_is_no_vector_is_refused(self, gallery: Gallery, make_model: Any) -> None:
        with pytest.raises(QueryError, match="not finite"):
            query_image(gallery, make_model(np.full(16, np.nan, np.float32)), Path("new.png"), BOX)

    def test_views_of_one_finding(self, gallery: Gallery) -> None:
        class Two:
            """An embedder whose vectors depend on the image."""

            granularity, dimension, digest, preparation_digest = "finding", 16, "a" * 64, "b" * 64

            def embed(self, path: Path, box: Any = None, *, spacing_mm: Any = None, view: Any = None) -> Any:
                row = {"cc.png": 6, "mlo.png": 7}[path.name]
                patient = "W002" if view == "MLO" else None
                return SimpleNamespace(vector=gallery.matrix[row], patient_id=patient, path=path)

        views = [View("cc.png", BOX, view="CC"), View("mlo.png", None, spacing_mm=0.1, view="MLO")]
        answer = query_image_views(gallery, Two(), views, Question(k=5))
        by_row = query_row_views(gallery, ["row-0006", "row-0007"], Question(k=5))
        assert ids(answer) == ids(by_row)
        assert np.array_equal(answer.similarities, by_row.similarities)
        fused = [
            (exact(gallery.matrix[p], gallery.matrix[6]) + exact(gallery.matrix[p], gallery.matrix[7])) / 2
            for p in answer.positions
        ]
        assert answer.similarities == pytest.approx(fused, abs=1e-6)
        # The file of the second view names the woman of both.
        assert (answer.excluded_patient, answer.excluded_rows) == ("W002", 3)
        asked = answer.to_dict()["query"]
        assert (asked["path"], asked["box"], asked["view"]) == ("cc.png", list(BOX), "CC")
        further = {"path": "mlo.png", "box": None, "row_id": None, "spacing_mm": 0.1, "view": "MLO"}
        assert asked["further_views"] == [further]
        assert by_row.to_dict()["query"]["further_views"][0]["row_id"] == "row-0007"
        json.dumps(answer.to_dict(), allow_nan=False)

    def test_views_that_are_none(self, gallery: Gallery, make_model: Any) -> None:
        with pytest.raises(QueryError, match="not of one woman"):
            query_row_views(gallery, ["row-0002", "row-0003"])
        with pytest.raises(QueryError, match="no row is named"):
            query_row_views(gallery, [])
        with pytest.raises(QueryError, match="an image is missing"):
            query_image_views(gallery, make_model(gallery.matrix[0]), [])


class TestAllThatAreSimilarEnough:
    def test_all_come(self, gallery: Gallery) -> None:
        answer = query_row(gallery, "row-0007", Question(k=None, minimum=0.1, per_group=0))
        similarities = gallery.matrix @ gallery.matrix[7]
        expected = {f"row-{row:04d}" for row in range(33) if similarities[row] >= 0.1 and row not in (6, 7, 8)}
        assert set(ids(answer)) == expected
        assert answer.similarities.min() >= 0.1

    def test_not_more_than_a_limit(self, gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
        whole = query_row(gallery, "row-0007", Question(k=None, minimum=-1, per_group=0))
        assert len(whole.neighbours) == 30
        monkeypatch.setattr("index.asking.LARGEST_RANGE", 20)
        answer = query_row(gallery, "row-0007", Question(k=None, minimum=-1, per_group=0))
        assert ids(answer) == ids(whole)[:20]
        assert answer.notes[0] == "10 more neighbours are similar enough: only the best 20 are named"


def test_many_rows_are_asked_as_each_alone(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    row_ids = gallery.row_ids.tolist()
    alone = [as_bytes(query_row(gallery, row_id, Question(k=4))) for row_id in row_ids]
    assert [as_bytes(answer) for answer in query_rows(gallery, row_ids, Question(k=4))] == alone
    monkeypatch.setattr("index.grouping._PAIRS", 40)  # a few queries at a time
    assert [as_bytes(answer) for answer in query_rows(gallery, row_ids, Question(k=4))] == alone


def test_no_queries_no_answers(gallery: Gallery) -> None:
    assert query_rows(gallery, []) == []
    assert ask_many(gallery, np.empty((0, 16), np.float32), []) == []
