"""A child process: batches, priorities, a bounded queue, and what happens when it dies."""

import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import pytest

from viewer import ViewerError
from viewer.childprocess import AHEAD, Child, _Waiting, result_of
from viewer.problems import BusyError


class Echo:
    """Says what it was told, and in which batch; or dies, fails and sleeps as asked."""

    def run(self, jobs: Sequence[Any]) -> Iterator[Any]:
        for job in jobs:
            if job == "die" or (isinstance(job, tuple) and job[0] == "die once" and not os.path.exists(job[1])):  # noqa: PTH110
                if isinstance(job, tuple):
                    open(job[1], "w").close()  # noqa: PTH123
                os._exit(3)
            if isinstance(job, float):
                time.sleep(job)
            yield result_of("echo", lambda job=job: 1 / 0 if job == "fail" else (job, len(jobs), os.getpid()))


def refuse() -> Echo:
    raise ViewerError("echo", "has no model", "give it one")


@pytest.fixture
def child() -> Iterator[Child]:
    made = Child("echo", Echo, (), capacity=4)
    yield made
    made.close()


def test_batches_priorities_and_a_full_queue(child: Child) -> None:
    ahead = child.submit("later", batch_key="film", priority=AHEAD)
    jobs = [child.submit(number, batch_key="film") for number in range(3)]
    other = child.submit("other", batch_key="another")
    with pytest.raises(BusyError, match="4 questions are waiting") as busy:
        child.submit("too many")
    assert busy.value.retry_after >= 1
    assert (child.waiting, child.status) == (4, "starting")
    for number in range(40):
        child.submit(number, priority=AHEAD)  # never too many: the oldest are dropped
    assert ahead.cancelled()
    child.start()
    assert [future.result(60)[:2] for future in jobs] == [(0, 3), (1, 3), (2, 3)]
    assert other.result(60)[:2] == ("other", 1)
    assert child.status == "ready"
    with pytest.raises(ViewerError, match="failed at this request"):
        child.submit("fail").result(60)


def test_a_child_that_dies_is_started_again(child: Child, tmp_path: Any) -> None:
    child.start()
    first = child.submit("a").result(60)[2]
    os.kill(first, 9)
    second = child.submit("b").result(60)[2]
    assert second != first
    assert child.submit(("die once", str(tmp_path / "died"))).result(60)[2] != second
    with pytest.raises(ViewerError, match="ended over this request twice"):
        child.submit("die").result(60)
    assert child.submit("c").result(60)[0] == "c"


def test_a_child_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("viewer.childprocess._PAUSE_S", 0.0)
    child = Child("echo", refuse, (), capacity=2)
    future = child.submit("a")
    child.start()
    try:
        with pytest.raises(ViewerError, match="has no model"):
            future.result(60)
        assert child.status == "broken"
        with pytest.raises(ViewerError, match="has no model"):
            child.submit("b").result(60)
    finally:
        child.close()


def test_what_waits_at_the_end_is_told(child: Child) -> None:
    child.start()
    child.submit("a").result(60)
    slow = child.submit(30.0)
    waiting = child.submit("b")
    pid = child.pid
    time.sleep(0.2)
    child.close()
    for future in (slow, waiting):
        with pytest.raises(ViewerError, match=r"ended|stopped"):
            future.result(10)
    assert pid is not None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(BusyError, match="stopped"):
        child.submit("c")


class Closed:
    """A process that `close` has closed in another thread."""

    @property
    def sentinel(self) -> int:
        raise ValueError("process object is closed")


def test_what_close_overtakes_ends_quietly(child: Child) -> None:
    here, there = multiprocessing.Pipe()
    for connection, process in ((here, Closed()), (here, None), (None, None)):
        child._connection, child._process = connection, process
        with pytest.raises(EOFError):
            child._receive(5.0)
        assert not child._work([_Waiting(AHEAD, 10_000, "b", None, Future())])
    child._connection = child._process = None
    here.close()
    there.close()
