"""A question that atypical rows do not answer: the right rows come, k of them, whoever asks."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from index import QueryError
from index.facets import Facet
from index.gallery import Gallery
from index.grouping import PerClass
from index.retrieval import Answer, Question, ask, ask_many, query_row, query_row_views, query_rows
from index.typicality import typicality, witnesses_of
from index.typicalrows import Typical

TYPICAL = Typical("density", 0.5, 3)


_OPEN: list[Gallery] = []


@pytest.fixture
def gallery(make_gallery: Callable[..., Path]) -> Gallery:
    """33 findings of 11 women, of which 26 have a density. An open gallery never changes: one serves all tests."""
    if not _OPEN:
        _OPEN.append(Gallery.open(make_gallery()))
    return _OPEN[0]


def hers(gallery: Gallery, row: int) -> np.ndarray:
    """Return which rows are of the women who are seen on a row's image."""
    paths = np.array([gallery.table.cell("path", other) for other in range(len(gallery))])
    return np.isin(gallery.women, gallery.women[paths == paths[row]])


def names(answer: Answer) -> list[str]:
    return [neighbour.row_id for neighbour in answer.neighbours]


def slow_names(gallery: Gallery, row: int, asked: Question, typical: Typical) -> tuple[list[str], int]:
    """Return who answers a row of the gallery, and how many were held out: her woman is taken out first of all."""
    others = np.flatnonzero(~hers(gallery, row))
    labels = [gallery.table.cell(typical.label, other) for other in others]
    ids = gallery.row_ids[others].tolist()
    scores = typicality(gallery.matrix[others], labels, gallery.patient_keys[others], typical.neighbours, row_ids=ids)
    wanted = asked.where is None or np.array([label == "A" for label in labels])
    held = (scores < typical.least) & wanted
    taken: dict[object, str] = {}
    found = []
    closeness = (gallery.matrix[others].astype(np.float64) @ gallery.matrix[row].astype(np.float64)).tolist()
    for place in sorted(range(len(others)), key=lambda i: (-closeness[i], ids[i])):
        if np.broadcast_to(wanted & ~held, len(others))[place]:
            woman = gallery.women[others[place]]
            if asked.per_group == 0 or woman not in taken:
                taken[woman] = ids[place]
                found.append(ids[place])
    return found[: asked.k], int(held.sum())


@pytest.mark.parametrize("where", [None, "density == 'A'"])
@pytest.mark.parametrize("per_group", [0, 1])
@pytest.mark.parametrize("least", [0.4, 0.5, 1.0])
def test_k_typical_rows_come_back_and_no_other(
    gallery: Gallery, where: str | None, per_group: int, least: float
) -> None:
    typical = Typical("density", least, 3)
    asked = Question(k=4, where=where, per_group=per_group, typical=typical)
    answers = query_rows(gallery, gallery.row_ids.tolist(), asked)
    for row, answer in enumerate(answers):
        expected, held = slow_names(gallery, row, asked, typical)
        assert names(answer) == expected
        assert answer.atypical_rows == held
        assert answer.allowed_rows + held == query_row(gallery, gallery.row_id(row), Question(where=where)).allowed_rows
        if row % 8 == 0:
            assert names(query_row(gallery, gallery.row_id(row), asked)) == expected
    assert any(answer.atypical_rows for answer in answers)


def test_a_woman_does_not_say_who_is_typical_for_her(gallery: Gallery) -> None:
    scores = witnesses_of(gallery, "density", 3).scores
    differ = 0
    for row in range(33):
        asked = Question(k=33, per_group=0, typical=TYPICAL)
        answer = query_row(gallery, gallery.row_id(row), asked)
        others = set(gallery.row_ids[~hers(gallery, row) & ~(scores < 0.5)])
        differ += set(names(answer)) != others
        # Where she may answer, her other rows testify; the row that asks never does.
        kept = query_row(gallery, gallery.row_id(row), Question(k=33, per_group=0, typical=TYPICAL,
                                                              include_same_patient=True))  # fmt: skip
        alone = witnesses_of(gallery, "density", 3).without(np.array([row])).scores
        rest = ~(alone < 0.5) & (np.arange(33) != row)
        assert set(names(kept)) == set(gallery.row_ids[rest])
    assert differ > 0  # or nothing was tested


def test_unknown_is_not_atypical_unless_asked(gallery: Gallery) -> None:
    unknown = {gallery.row_id(row) for row in range(33) if gallery.table.cell("density", row) is None}
    vector = gallery.matrix[0]
    everyone = set(names(ask(gallery, vector, Question(k=33, per_group=0, typical=Typical("density", 1.0)))))
    assert unknown <= everyone
    known = Question(k=33, per_group=0, where="density is not None", typical=Typical("density", 1.0))
    assert not unknown & set(names(ask(gallery, vector, known)))


def test_the_answer_says_so_and_replays(gallery_folder: Path) -> None:
    asked = Question(k=3, typical=TYPICAL)
    answer = query_row(Gallery.open(gallery_folder), "row-0007", asked)
    found = answer.to_dict()
    assert found["query"]["typical"] == {"label": "density", "least": 0.5, "neighbours": 3}
    assert found["replay"]["typical"] == found["query"]["typical"]
    assert found["atypical_rows"] == answer.atypical_rows > 0
    assert any(note.startswith(f"{answer.atypical_rows} rows were held out as atypical") for note in found["notes"])
    again = query_row(Gallery.open(gallery_folder), "row-0007", asked)
    assert json.dumps(again.to_dict(), sort_keys=True) == json.dumps(found, sort_keys=True)
    plain = query_row(Gallery.open(gallery_folder), "row-0007", Question(k=3)).to_dict()
    assert plain["atypical_rows"] is None
    assert plain["query"]["typical"] is None
    assert not any("atypical" in note for note in plain["notes"])


def test_a_batch_answers_as_each_alone(gallery: Gallery) -> None:
    keys = [None, *gallery.patient_keys[::3], None]
    vectors = gallery.matrix[[0, *range(0, 33, 3), 5]]
    asked = Question(k=5, typical=TYPICAL)
    together = ask_many(gallery, vectors, keys, asked)
    for vector, key, answer in zip(vectors, keys, together, strict=True):
        alone = ask(gallery, vector, asked, patient_key=key)
        assert json.dumps(alone.to_dict()) == json.dumps(answer.to_dict())


def test_with_classes_ranges_views_and_preferences(gallery: Gallery) -> None:
    typical = {gallery.row_id(row) for row in np.flatnonzero(
        ~(witnesses_of(gallery, "density", 3).without(gallery.rows_of([gallery.women[0]])).scores < 0.5))}  # fmt: skip
    for question in (
        Question(k=9, per_class=PerClass("density", ("A", "B")), typical=TYPICAL),
        Question(k=None, minimum=-0.2, typical=TYPICAL),
        Question(k=9, facets=(Facet("view", 0.3),), typical=TYPICAL),
    ):
        answer = query_row(gallery, "row-0000", question)
        assert len(answer.neighbours) > 1
        assert set(names(answer)) <= typical
        assert (
            not set(names(query_row(gallery, "row-0000", Question(**{**vars(question), "typical": None})))) <= typical
        )
    views = query_row_views(gallery, ["row-0000", "row-0001"], Question(k=10, typical=TYPICAL))
    assert set(names(views)) <= typical


def test_a_large_gallery_says_that_it_needs_computing(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = names(query_row(gallery, "row-0007", Question(k=3, typical=TYPICAL)))
    monkeypatch.setattr("index.typicalrows.MOST_ROWS_AT_ONCE", 32)
    again = Gallery.open(gallery.folder)
    with pytest.raises(QueryError, match=r"up to 32 rows, and the gallery has 33"):
        query_row(again, "row-0007", Question(k=3, typical=TYPICAL))
    witnesses_of(again, "density", 3)
    assert names(query_row(again, "row-0007", Question(k=3, typical=TYPICAL))) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no label column"),
        (":0.5", "no label column"),
        ("density:", "no score"),
        ("density:much", "no score"),
        ("density:0", "smallest score"),
        ("density:1.1", "smallest score"),
        ("density:nan", "smallest score"),
        ("density:-inf", "smallest score"),
    ],
)
def test_what_is_no_question_is_refused(text: str, says: str) -> None:
    with pytest.raises(QueryError, match=says):
        Typical.parse(text)


@pytest.mark.parametrize(
    ("typical", "says"),
    [
        (Typical("colour"), "no column 'colour'"),
        (Typical("density", True), "smallest score"),
        (Typical("density", 0.5, 0), "number of neighbours"),
        (Typical(7), "no label column"),  # type: ignore[arg-type]
    ],
)
def test_what_can_not_be_asked_of_a_gallery_is_refused(gallery: Gallery, typical: Any, says: str) -> None:
    with pytest.raises(QueryError, match=says):
        query_row(gallery, "row-0000", Question(typical=typical))


def test_a_threshold_is_read() -> None:
    assert Typical.parse(" density : 0.7 ") == Typical("density", 0.7)


def test_of_an_engine_with_an_index(
    index_engine: Any, make_gallery: Callable[..., Path], make_findings: Callable[..., Any], gallery: Gallery
) -> None:
    folder = make_gallery(name="indexed")
    answer = query_row(Gallery.open(folder), "row-0007", Question(k=3, typical=TYPICAL))
    assert names(answer) == names(query_row(gallery, "row-0007", Question(k=3, typical=TYPICAL)))
