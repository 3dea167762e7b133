"""Searches of many at a time are those of one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from index import QueryError
from index.answers import Answer
from index.asking import Asked
from index.gallery import Gallery
from index.grouping import PerClass
from index.questions import Question
from index.refinement import Refinement
from index.retrieval import asked_rows, query_row
from viewer.problems import BusyError
from viewer.searching import SearchPool

QUESTIONS = (
    Question(k=3),
    Question(k=5, where="density == 'A'"),
    Question(k=4, per_class=PerClass()),
    Question(k=3, refinement=Refinement(("w1-0",), ("w2-0",))),
)


@pytest.fixture(scope="module")
def gallery(room_gallery: Path) -> Gallery:
    return Gallery.open(room_gallery)


@pytest.fixture
def pool(gallery: Gallery) -> Iterator[SearchPool]:
    made = SearchPool(gallery)
    yield made
    made.close()


def plain(answer: Answer, _: float = 0) -> dict[str, Any]:
    return answer.to_dict()


def test_a_batch_answers_as_single_questions_do(gallery: Gallery, pool: SearchPool) -> None:
    rows = [f"w{woman}-0" for woman in range(3, 15)]
    futures = [
        (row, question, pool.submit(question, lambda row=row, q=question: asked_rows(gallery, [row], q), plain))
        for row in rows
        for question in QUESTIONS
    ]
    pool.start()  # all of them wait: as many batches as there are terms
    for row, question, future in futures:
        assert future.result(30) == query_row(gallery, row, question).to_dict()
    assert pool.batches == len(QUESTIONS)


def test_one_that_fails_spoils_no_other(gallery: Gallery, pool: SearchPool) -> None:
    def broken() -> Asked:
        raise ZeroDivisionError

    def unknown() -> Asked:
        return asked_rows(gallery, ["nobody"])

    good = pool.submit(Question(k=2), lambda: asked_rows(gallery, ["w3-0"], Question(k=2)), plain)
    bad = pool.submit(Question(k=2), broken, plain)
    none = pool.submit(Question(k=2), unknown, plain)
    wrong = pool.submit(Question(k=2, where="nothing == 1"), lambda: asked_rows(gallery, ["w3-0"]), plain)
    untold = pool.submit(Question(k=2), lambda: asked_rows(gallery, ["w3-0"]), lambda *_: 1 / 0)
    pool.start()
    assert len(good.result(30)["neighbours"]) == 2
    for future, kind in (
        (bad, ZeroDivisionError),
        (none, QueryError),
        (wrong, QueryError),
        (untold, ZeroDivisionError),
    ):
        with pytest.raises(kind):
            future.result(30)


def test_what_waits_is_bounded_and_told_at_the_end(gallery: Gallery, pool: SearchPool) -> None:
    def ask() -> Any:
        return pool.submit(Question(k=2), lambda: asked_rows(gallery, ["w3-0"]), plain)

    waiting = [ask() for _ in range(500)]
    with pytest.raises(BusyError, match="500 searches are waiting"):
        ask()
    pool.close()
    with pytest.raises(BusyError, match="stopped"):
        waiting[0].result(1)


def test_searches_of_terms_are_kept(gallery: Gallery, pool: SearchPool) -> None:
    pool.start()
    for number in range(70):
        question = Question(k=1, where=f"age > {number}")
        pool.submit(question, lambda q=question: asked_rows(gallery, ["w3-0"], q), plain).result(30)
    assert len(pool._searches) == 64
