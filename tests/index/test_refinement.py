from typing import Any

import numpy as np
import pytest

from index import QueryError
from index.gallery import Gallery
from index.refinement import Refinement, movement
from index.retrieval import Question, ask_many, query_row, query_row_views

_OPEN: list[Gallery] = []


@pytest.fixture
def gallery(make_gallery: Any) -> Gallery:
    """33 findings of 11 women. An open gallery never changes: one serves all tests."""
    if not _OPEN:
        _OPEN.append(Gallery.open(make_gallery()))
    return _OPEN[0]


def moved(gallery: Gallery, row: int, refinement: Refinement) -> np.ndarray:
    """Return Rocchio's query by its formula."""
    query = refinement.alpha * gallery.matrix[row].astype(float)
    for names, weight in ((refinement.positive, refinement.beta), (refinement.negative, -refinement.gamma)):
        for name in names:
            query = query + weight / len(names) * gallery.matrix[gallery.position(name)].astype(float)
    return query / np.linalg.norm(query)


@pytest.mark.parametrize(
    "refinement",
    [
        Refinement(positive=("row-0010", "row-0020")),
        Refinement(negative=("row-0010",), gamma=0.5),
        Refinement(("row-0010",), ("row-0020", "row-0021"), 0.5, 2.0, 1.0),
        Refinement(("row-0010",), alpha=0.0),
        Refinement(("row-0010",), exclude_examples=False),
    ],
)
def test_the_query_moves_by_rocchios_formula(gallery: Gallery, refinement: Refinement) -> None:
    query = moved(gallery, 7, refinement)
    answer = query_row(gallery, "row-0007", Question(k=99, per_group=0, refinement=refinement))
    left = {6, 7, 8}
    if refinement.exclude_examples:
        left |= {gallery.position(name) for name in (*refinement.positive, *refinement.negative)}
    similarities = gallery.matrix.astype(float) @ query
    expected = [row for row in np.argsort(-similarities).tolist() if row not in left]
    assert answer.positions.tolist() == expected
    assert answer.similarities == pytest.approx(similarities[expected], abs=1e-6)
    assert answer.allowed_rows == 33 - len(left)
    found = answer.to_dict()
    assert found["query"]["refinement"] == refinement.to_dict()
    assert found["replay"]["refinement"] == refinement.to_dict()
    again = query_row(gallery, "row-0007", Question(k=99, per_group=0, refinement=refinement)).to_dict()
    assert again == found


def test_it_moves_toward_and_away(gallery: Gallery) -> None:
    before = query_row(gallery, "row-0007", Question(k=99, per_group=0))
    for refinement, sign in ((Refinement(("row-0020",)), 1), (Refinement((), ("row-0020",)), -1)):
        question = Question(
            k=99, per_group=0, refinement=Refinement(**{**refinement.to_dict(), "exclude_examples": False})
        )
        after = query_row(gallery, "row-0007", question)
        places = [answer.positions.tolist().index(20) for answer in (before, after)]
        assert np.sign(places[0] - places[1]) == sign


def test_each_view_and_each_query_moves(gallery: Gallery) -> None:
    refinement = Refinement(("row-0020",))
    question = Question(k=5, refinement=refinement)
    views = query_row_views(gallery, ["row-0006", "row-0007"], question)
    one, two = (moved(gallery, row, refinement) for row in (6, 7))
    fused = gallery.matrix[views.positions].astype(float) @ ((one + two) / 2)
    assert views.similarities == pytest.approx(fused, abs=1e-6)
    keys = ["films/W002", "films/W005"]
    together = ask_many(gallery, gallery.matrix[[7, 16]], keys, question)
    assert together[0].positions.tolist() == query_row(gallery, "row-0007", question).positions.tolist()
    assert together[1].positions.tolist() == query_row(gallery, "row-0016", question).positions.tolist()


@pytest.mark.parametrize(
    ("refinement", "words"),
    [
        (Refinement(), "no example"),
        (Refinement(("row-0001",), ("row-0001",)), "row-0001 is alike and unlike"),
        (Refinement(("row-0001",), alpha=-1.0), "is no weight"),
        (Refinement(("row-0001",), beta=float("nan")), "is no weight"),
        (Refinement(("row-0001",), gamma=float("inf")), "is no weight"),
        (Refinement(("row-0001",), beta=True), "is no weight"),
        (Refinement(("row-9999",)), "no row 'row-9999'"),
        (Refinement((), ("row-0010",), alpha=0.0, gamma=0.0), "nothing is left"),
        (Refinement((), ("row-0007",), gamma=1.0), "cancel the query out"),
    ],
)
def test_examples_that_are_none(gallery: Gallery, refinement: Refinement, words: str) -> None:
    with pytest.raises(QueryError, match=words):
        query_row(gallery, "row-0007", Question(refinement=refinement))


def test_the_same_example_twice_counts_once(gallery: Gallery) -> None:
    once, twice = (movement(gallery, Refinement(names)) for names in (("row-0001",), ("row-0001", "row-0001")))
    assert np.array_equal(once.shift, twice.shift)
    assert once.examples.tolist() == twice.examples.tolist() == [1]
