import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index import GalleryError, QueryError
from index.gallery import Gallery
from index.manifest import GalleryIdentity
from index.retrieval import Answer, ask, ask_many, query_image, query_row
from index.writer import GalleryWriter, create_gallery


@pytest.fixture
def gallery(gallery_folder: Path) -> Gallery:
    return Gallery.open(gallery_folder)


def as_bytes(answer: Answer) -> bytes:
    return json.dumps(answer.to_dict(), sort_keys=True, allow_nan=False).encode()


def ids(answer: Answer) -> list[str]:
    return [neighbour.row_id for neighbour in answer.neighbours]


def slow_answer(vectors: np.ndarray, row_ids: list[str], query: np.ndarray, k: int, allowed: list[bool]) -> list[str]:
    """Return the ids of the k nearest allowed rows: all similarities in float64, one at a time, then sorted."""
    scored = []
    for vector, row_id, may in zip(vectors, row_ids, allowed, strict=True):
        if may:
            total = 0.0
            for a, b in zip(vector.tolist(), query.tolist(), strict=True):
                total += a * b
            scored.append((-float(np.float32(total)), row_id))
    return [row_id for _, row_id in sorted(scored)[:k]]


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
@given(small_worlds(), st.integers(1, 30), st.sampled_from([None, "density == 'A'", "not density == 'A'"]))
def test_no_woman_meets_herself_and_nobody_else_is_missed(
    world: tuple[np.ndarray, pd.DataFrame], k: int, where: str | None
) -> None:
    vectors, records = world
    keys = (records["dataset"] + "/" + records["patient_id"]).tolist()
    row_ids, density = records["row_id"].tolist(), records["density"].tolist()
    passes = [where is None or (isinstance(d, str) and (d == "A") == (where[0] == "d")) for d in density]
    with tempfile.TemporaryDirectory() as folder:
        create_gallery(Path(folder), GalleryIdentity("m", "p", "finding", 4))
        with GalleryWriter(Path(folder)) as writer:
            writer.append(vectors, records)
        gallery = Gallery.open(Path(folder))
        together = ask_many(gallery, vectors, keys, k=k, where=where)
        for position, (row_id, key) in enumerate(zip(row_ids, keys, strict=True)):
            others = [p and other != key for p, other in zip(passes, keys, strict=True)]
            expected = slow_answer(vectors, row_ids, vectors[position], k, others)
            assert len(expected) == min(k, sum(others))
            alone = ask(gallery, vectors[position], k=k, patient_key=key, where=where)
            by_row = query_row(gallery, row_id, k=k, where=where)
            assert ids(alone) == ids(by_row) == expected
            assert as_bytes(together[position]) == as_bytes(alone)
            assert key not in {f"{n.record['dataset']}/{n.patient_id}" for n in alone.neighbours}
            assert alone.excluded_patient == records["patient_id"][position]
            hers = query_row(gallery, row_id, k=k, where=where, include_same_patient=True)
            not_itself = [p and other != row_id for p, other in zip(passes, row_ids, strict=True)]
            assert ids(hers) == slow_answer(vectors, row_ids, vectors[position], k, not_itself)
            assert hers.excluded_patient is None


def test_the_answer_says_all_that_a_reader_needs(gallery: Gallery) -> None:
    found = query_row(gallery, "row-0007", k=3, where="density is not None").to_dict()
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
    }
    assert (found["excluded_patient"], found["excluded_dataset"], found["excluded_rows"]) == ("W002", "films", 3)
    assert found["replay"]["gallery_generation"] == gallery.generation
    assert found["replay"]["segments_digest"] == gallery.manifest.segments_digest
    assert found["replay"]["model_digest"] == "a" * 64
    assert found["replay"]["preparation_digest"] == "b" * 64
    assert found["notes"] == []
    for rank, neighbour in enumerate(found["neighbours"], start=1):
        position = gallery.position(neighbour["row_id"])
        assert neighbour["rank"] == rank
        assert neighbour["box"] == [10 + position, 20, 60 + position, 90]
        assert all(type(corner) is int for corner in neighbour["box"])
        assert neighbour["path"] == f"/images/{position // 2:04d}.png"
        age = gallery.records["age"][position]
        assert neighbour["age"] == (None if np.isnan(age) else age)
        exact = np.dot(gallery.vectors[position].astype(float), gallery.vectors[7].astype(float))
        assert neighbour["similarity"] == pytest.approx(exact, abs=1e-6)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_a_whole_breast_has_no_box(
    tmp_path: Path, identity: GalleryIdentity, make_findings: Callable[..., Any]
) -> None:
    batch = make_findings(6)
    create_gallery(tmp_path, replace(identity, granularity="breast"))
    with GalleryWriter(tmp_path) as writer:
        records = batch.records.drop(columns="path").assign(granularity="breast", x0=None, y0=None, x1=None, y1=None)
        writer.append(batch.vectors, records)
    found = query_row(Gallery.open(tmp_path), "row-0000", k=2).to_dict()
    assert [(n["box"], n["path"], n["x0"]) for n in found["neighbours"]] == [(None, None, None)] * 2
    assert found["query"]["box"] is None


def test_the_same_question_gets_the_same_bytes(gallery_folder: Path) -> None:
    first = as_bytes(query_row(Gallery.open(gallery_folder), "row-0007", where="age > 40"))
    assert as_bytes(query_row(Gallery.open(gallery_folder), "row-0007", where="age > 40")) == first
    with GalleryWriter(gallery_folder) as writer:
        writer.rebuild_cache()
    assert as_bytes(query_row(Gallery.open(gallery_folder), "row-0007", where="age > 40")) == first


class TestFewRows:
    def test_all_that_may_answer_come_with_a_note(self, gallery: Gallery) -> None:
        answer = query_row(gallery, "row-0007", k=1000)
        assert len(answer.neighbours) == answer.allowed_rows == 30
        assert answer.notes == ("1000 neighbours were asked for, and only 30 rows may answer",)
        assert answer.positions.shape == answer.similarities.shape == (30,)
        assert (np.diff(answer.similarities) <= 0).all()

    def test_nobody_may_answer(self, gallery: Gallery) -> None:
        answer = query_row(gallery, "row-0007", where="age > 1000")
        assert answer.to_dict()["neighbours"] == []
        assert "only 0 rows" in answer.notes[0]

    def test_an_empty_gallery_is_refused(self, tmp_path: Path, identity: GalleryIdentity) -> None:
        create_gallery(tmp_path, identity)
        with pytest.raises(QueryError, match="the gallery is empty"):
            ask(Gallery.open(tmp_path), np.eye(16, dtype=np.float32)[0])


class TestBadQuestions:
    @pytest.mark.parametrize("k", [0, -1, 2.0, True, "3", None])
    def test_k(self, gallery: Gallery, k: Any) -> None:
        with pytest.raises(QueryError, match="not a number of neighbours"):
            query_row(gallery, "row-0007", k=k)

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
            query_row(gallery, "row-0007", where="nonsense == 1")
        with pytest.raises(QueryError, match="dataset/patient_id"):
            ask(gallery, gallery.vectors[0], patient_key="W000")
        with pytest.raises(QueryError, match="one per vector"):
            ask_many(gallery, gallery.vectors[:2], ["films/W000"])


BOX = (1, 2, 30, 40)


class TestImages:
    @pytest.mark.parametrize(
        ("attribute", "value"),
        [("digest", "f" * 64), ("preparation_digest", "f" * 64), ("granularity", "breast"), ("dimension", 17)],
    )
    def test_another_model_is_refused_before_it_embeds(
        self, gallery: Gallery, make_model: Any, attribute: str, value: Any
    ) -> None:
        model = make_model(gallery.vectors[7])
        setattr(model, attribute, value)
        with pytest.raises(GalleryError) as error:
            query_image(gallery, model, Path("new.png"), BOX)
        assert str(value) in str(error.value)
        assert model.asked == []

    @pytest.mark.parametrize("options", [{"k": 0}, {"where": "("}, {"where": "nonsense == 1"}])
    def test_so_is_a_question_that_cannot_be_answered(
        self, gallery: Gallery, make_model: Any, options: dict[str, Any]
    ) -> None:
        model = make_model(gallery.vectors[7])
        with pytest.raises(QueryError):
            query_image(gallery, model, Path("new.png"), BOX, **options)
        assert model.asked == []

    def test_what_the_asker_says_reaches_the_model_and_the_answer(self, gallery: Gallery, make_model: Any) -> None:
        model = make_model(gallery.vectors[7])
        answer = query_image(gallery, model, Path("new.png"), BOX, spacing_mm=0.2, view="CC", patient="W002", k=4)
        assert model.asked == [(Path("new.png"), BOX, 0.2, "CC")]
        asked = answer.to_dict()["query"]
        assert (asked["path"], asked["box"], asked["spacing_mm"], asked["view"]) == ("new.png", list(BOX), 0.2, "CC")

    def test_a_vector_that_is_no_vector_is_refused(self, gallery: Gallery, make_model: Any) -> None:
        with pytest.raises(QueryError, match="not finite"):
            query_image(gallery, make_model(np.full(16, np.nan, np.float32)), Path("new.png"), BOX)
