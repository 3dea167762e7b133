"""A gallery on Milvus and the same gallery in a folder give the same answers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from index import GalleryError, QueryError, retrieval
from index.facets import Facet
from index.gallery import Gallery
from index.grouping import PerClass
from index.manifest import GalleryIdentity
from index.questions import Question
from index.refinement import Refinement
from index.typicalrows import Typical
from index.writer import GalleryWriter, create_gallery

pytest.importorskip("pymilvus", reason="pymilvus is not installed (mammoseek[milvus])", exc_type=ImportError)
pytest.importorskip("milvus_lite", reason="milvus-lite is not installed (mammoseek[milvus])", exc_type=ImportError)

from index.milvus import query as milvusquery
from index.milvus.copy import copy_to_milvus
from index.milvus.gallery import MilvusGallery

DIMENSION = 16
BOX = (1, 2, 30, 40)


def world(rows: int, distinct: int) -> tuple[np.ndarray, pd.DataFrame]:
    """Return findings of which many look exactly alike, of women whose ids differ in letter case or data set only."""
    rng = np.random.default_rng([rows, distinct])
    pool = rng.normal(size=(distinct, DIMENSION)).astype(np.float32)
    pool /= np.linalg.norm(pool, axis=1, keepdims=True)
    women = rng.integers(0, max(rows // 4, 2), rows)
    records = pd.DataFrame(
        {
            "row_id": [f"r{i}" for i in rng.permutation(rows)],
            "granularity": "finding",
            "patient_id": [f"{'Pp'[i % 2]}{w}" for i, w in enumerate(women)],
            "dataset": [["films", "Films", "screen/ing"][w % 3] for w in women],
            "path": [f"/images/{i // 2}.png" for i in range(rows)],
            "sop_uid": [f"1.2.{i // 3}" if i % 2 else None for i in range(rows)],
            "study_id": [None if i % 7 == 0 else f"s{i % 2}" for i in range(rows)],
            "lesion_id": pd.array([None if i % 3 == 0 else i % 2 for i in range(rows)], dtype="Int64"),
            "implant": pd.array([None if i % 3 == 2 else i % 2 == 0 for i in range(rows)], dtype="boolean"),
            "density": [None if i % 5 == 0 else "ABCD"[i % 4] for i in range(rows)],
            "age": [np.nan if i % 3 == 0 else float(40 + i % 30) for i in range(rows)],
            "x0": pd.array([i if i % 4 else None for i in range(rows)], dtype="Int64"),
            "y0": 1, "x1": 2000, "y1": 2000,
        }
    )  # fmt: skip
    return pool[rng.integers(0, distinct, rows)], records


def store(folder: Path, vectors: np.ndarray, records: pd.DataFrame) -> Gallery:
    create_gallery(folder, GalleryIdentity("a" * 64, "b" * 64, "finding", vectors.shape[1]))
    with GalleryWriter(folder) as writer:
        writer.append(vectors, records)
    return Gallery.open(folder)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gallery, MilvusGallery]]:
    folder = tmp_path_factory.mktemp("both")
    gallery = store(folder / "gallery", *world(300, 40))
    address = f"milvus://{folder}/m.db/findings"
    copy_to_milvus(folder / "gallery", address)
    with MilvusGallery.open(address) as copy:
        yield gallery, copy


def plain(answer: Any) -> dict[str, Any]:
    """Return an answer without what says where it comes from."""
    found = answer.to_dict()
    where_from = ("gallery", "gallery_generation", "segments_digest", "engine", "index_sha256", "precedents_sha256")
    found["replay"] = {name: value for name, value in found["replay"].items() if name not in where_from}
    return found


WHERE = [None, "density == 'A'", "not density == 'A' and age < 60", "density is None or age > 65", "age > 1000"]


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("include_same_patient", [False, True])
def test_a_row_asks_both(both: Any, where: str | None, include_same_patient: bool) -> None:
    gallery, copy = both
    for position, k, per_group in ((0, 1, 1), (7, 10, 0), (133, 40, 2), (299, 1000, 0)):
        row_id = gallery.row_id(position)
        question = Question(k, where, include_same_patient, per_group=per_group)
        there = milvusquery.query_row(copy, row_id, question)
        here = retrieval.query_row(gallery, row_id, question)
        assert plain(there) == plain(here)
        assert there.positions.tolist() == here.positions.tolist()
        assert there.similarities.tobytes() == here.similarities.tobytes()


QUESTIONS = [
    Question(10, per_group=0),
    Question(60),
    Question(100),
    Question(20, per_group=2),
    Question(20, per_group=1, group_by="study"),
    Question(40, per_group=2, group_by="lesion", where="age > 41"),
    Question(300, per_group=1, group_by="lesion"),
    Question(10, minimum=0.3, per_group=0),
    Question(40, minimum=0.3),
    Question(None, minimum=0.2),
    Question(None, minimum=0.2, per_group=0, where="density == 'A'"),
    Question(3, minimum=1.0),
    Question(5, per_class=PerClass("density", ("A", "D"))),
    Question(5, per_class=PerClass("density", None), where="age < 60"),
    Question(5, per_class=PerClass("implant", None), per_group=0),
    Question(4, per_class=PerClass("density", ("Z",))),
    Question(10, refinement=Refinement(("r3", "r5"), ("r9",))),
    Question(10, refinement=Refinement(("r3",), exclude_examples=False), per_group=0),
]


@pytest.mark.parametrize("question", QUESTIONS)
def test_every_question_asks_both(both: Any, question: Question) -> None:
    gallery, copy = both
    for place in (5, 17, 250):
        here = retrieval.ask(gallery, gallery.matrix[place], question, patient_key=gallery.patient_key(place))
        there = milvusquery.ask(copy, gallery.matrix[place], question, patient_key=gallery.patient_key(place))
        assert plain(there) == plain(here)
        here = retrieval.query_row(gallery, gallery.row_id(place), question)
        assert plain(milvusquery.query_row(copy, gallery.row_id(place), question)) == plain(here)


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("most_results", [64, 24])
def test_so_does_one_that_takes_more_rows_than_milvus_returns(
    both: Any, question: Question, most_results: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery, copy = both
    monkeypatch.setattr(MilvusGallery, "most", most_results)
    here = retrieval.ask(gallery, gallery.matrix[5], question)
    there = milvusquery.ask(copy, gallery.matrix[5], question)
    assert plain(there) == plain(here)


def test_more_ties_than_milvus_returns_are_told(both: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery, copy = both
    monkeypatch.setattr(MilvusGallery, "most", 4)
    answer = milvusquery.ask(copy, gallery.matrix[5], Question(2, per_group=0))
    assert answer.similarities.tolist() == [1.0, 1.0]
    assert any("some may be missing" in note for note in answer.notes)


@pytest.mark.parametrize(
    "key",
    [
        None,
        "films/P3",
        "FILMS/p3 ",
        "films/nobody",
        "screen/ing/P5",
        "Screen/ing/p5",
        "screen/nothing/p5",
        "films/P'\"\\",
    ],
)
def test_a_vector_asks_both(both: Any, key: str | None) -> None:
    gallery, copy = both
    vector = gallery.matrix[42]
    question = Question(12, "age > 41")
    here = retrieval.ask(gallery, vector, question, patient_key=key)
    assert plain(milvusquery.ask(copy, vector, question, patient_key=key)) == plain(here)
    row = here.neighbours[0].row_id
    without = milvusquery.ask(copy, vector, question, patient_key=key, exclude_row=row)
    assert plain(without) == plain(retrieval.ask(gallery, vector, question, patient_key=key, exclude_row=row))
    assert row not in {neighbour.row_id for neighbour in without.neighbours}


def test_many_ask_as_one_does(both: Any) -> None:
    gallery, copy = both
    keys = [None if i % 3 else gallery.patient_key(i) for i in range(9)]
    together = milvusquery.ask_many(copy, gallery.matrix[:9], keys, Question(5))
    here = retrieval.ask_many(gallery, gallery.matrix[:9], keys, Question(5))
    assert [plain(answer) for answer in together] == [plain(answer) for answer in here]
    assert milvusquery.ask_many(copy, np.empty((0, DIMENSION), np.float32), []) == []


@pytest.mark.parametrize(
    ("path", "sop_uid", "patient", "named", "dataset"),
    [
        ("/elsewhere/new.png", None, None, None, None),
        ("/images/7.png", None, None, None, None),
        ("/images/x/../7.png", None, None, None, None),
        ("/elsewhere/new.png", "1.2.9", None, None, None),
        ("/elsewhere/new.png", None, "p3", None, None),
        ("/elsewhere/new.png", None, "p3", "P4", "FILMS"),
        ("/images/7.png", "1.2.9", "p3", "P4", "films"),
        ("/elsewhere/new.png", None, "nobody", None, "films"),
        ("/elsewhere/new.png", None, None, None, "screen/ing"),
    ],
)
def test_an_image_asks_both(
    both: Any, make_model: Any, path: str, sop_uid: Any, patient: Any, named: Any, dataset: Any
) -> None:
    gallery, copy = both
    model = make_model(gallery.matrix[3], named, sop_uid)
    question = Question(9, "age > 41", patient=patient, dataset=dataset, spacing_mm=0.2, view="CC")
    here = retrieval.query_image(gallery, model, Path(path), BOX, question)
    assert plain(milvusquery.query_image(copy, model, Path(path), BOX, question)) == plain(here)
    assert model.asked[0] == model.asked[1]


class TestBadQuestions:
    def test_what_milvus_cannot_do(self, both: Any) -> None:
        with pytest.raises(QueryError, match="copy the gallery to a folder"):
            milvusquery.query_row(both[1], "r7", Question(facets=(Facet("density", 0.1),)))
        with pytest.raises(QueryError, match="typicality: can't be asked of a gallery on Milvus"):
            milvusquery.query_row(both[1], "r7", Question(typical=Typical("density")))

    @pytest.mark.parametrize(
        "question",
        [
            Question(per_class=PerClass("age", None)),
            Question(per_class=PerClass("row_id", None)),
            Question(per_class=PerClass("nonsense", None)),
            Question(refinement=Refinement(("nobody",))),
            Question(per_group=-1),
            Question(minimum=2),
        ],
    )
    def test_as_in_a_folder(self, both: Any, question: Question) -> None:
        gallery, copy = both
        for module, asked in ((retrieval, gallery), (milvusquery, copy)):
            with pytest.raises(QueryError):
                module.query_row(asked, "r7", question)

    @pytest.mark.parametrize("k", [0, -1, 2.0, True, "3", None, 10_001])
    def test_k(self, both: Any, k: Any) -> None:
        with pytest.raises(QueryError, match=r"number of neighbours|can't return|however far"):
            milvusquery.query_row(both[1], "r7", Question(k))

    @pytest.mark.parametrize(
        ("vector", "words"),
        [
            (np.zeros(16, np.float32), "length 0, not 1"),
            (np.full(16, np.nan, np.float32), "not finite"),
            (np.eye(15, dtype=np.float32)[0], "float32 (16,)"),
            (np.eye(16, dtype=np.int64)[0], "int64"),
        ],
    )
    def test_vectors(self, both: Any, vector: np.ndarray, words: str) -> None:
        with pytest.raises(QueryError) as error:
            milvusquery.ask(both[1], vector)
        assert words in str(error.value)

    def test_rows_filters_and_women(self, both: Any, make_model: Any) -> None:
        gallery, copy = both
        with pytest.raises(QueryError, match="no row"):
            milvusquery.query_row(copy, 'r7" or _row != "')
        with pytest.raises(QueryError, match="no row"):
            milvusquery.ask(copy, gallery.matrix[0], exclude_row="nobody")
        with pytest.raises(QueryError, match="no column"):
            milvusquery.query_row(copy, "r7", Question(where="nonsense == 1"))
        with pytest.raises(QueryError, match="dataset/patient_id"):
            milvusquery.ask(copy, gallery.matrix[0], patient_key="P3")
        with pytest.raises(QueryError, match="one per vector"):
            milvusquery.ask_many(copy, gallery.matrix[:2], ["films/P3"])
        model = make_model(gallery.matrix[3])
        with pytest.raises(QueryError, match="Films, films, screen/ing"):
            milvusquery.query_image(copy, model, Path("new.png"), BOX, Question(dataset="nowhere"))
        with pytest.raises(QueryError, match="is no name"):
            milvusquery.query_image(copy, model, Path("new.png"), BOX, Question(patient=" "))
        assert model.asked == []
        model.digest = "f" * 64
        with pytest.raises(GalleryError, match="ffff"):
            milvusquery.query_image(copy, model, Path("new.png"), BOX)

    def test_an_empty_gallery(self, tmp_path: Path, identity: GalleryIdentity) -> None:
        with (
            MilvusGallery.create(f"milvus://{tmp_path}/m.db/f", identity) as gallery,
            pytest.raises(QueryError, match="the gallery is empty"),
        ):
            milvusquery.ask(gallery, np.eye(16, dtype=np.float32)[0])


def test_twenty_thousand_rows(tmp_path: Path) -> None:
    """Ties and near ties in plenty: every vector stands there four times, once off by one unit in the last place."""
    rng = np.random.default_rng(8)
    vectors = np.repeat(rng.normal(size=(5_000, 64)).astype(np.float32), 4, axis=0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[3::4, 0] = np.nextafter(vectors[3::4, 0], np.float32(2))
    order = rng.permutation(len(vectors))
    records = world(len(vectors), 2)[1][["row_id", "granularity", "patient_id", "dataset", "density", "age"]]
    gallery = store(tmp_path / "gallery", vectors[order], records)
    with MilvusGallery.create(f"milvus://{tmp_path}/m.db/findings", gallery.identity) as copy:
        copy.add(gallery.matrix, records)
        queries = gallery.matrix[:24]
        for question in (Question(10, per_group=0), Question(10, "density == 'A' and age < 50"), Question(50)):
            here = retrieval.ask_many(gallery, queries, [None] * 24, question)
            there = milvusquery.ask_many(copy, queries, [None] * 24, question)
            for one, other in zip(here, there, strict=True):
                assert one.positions.tolist() == other.positions.tolist()
                assert one.similarities.tobytes() == other.similarities.tobytes()
