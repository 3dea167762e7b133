"""A child process that does one kind of work, so that neither its time nor its death is the server's.

Jobs wait in the server in a bounded queue, questions before what is only done ahead of time. A thread hands them to the
child in batches and takes the results back. A child that dies is started again; what it was working on is tried once
more, and if it dies again over it, whoever asked is told. The child ends when the server does, however that ends: its
end of the pipe is then closed.
"""

import contextlib
import heapq
import itertools
import multiprocessing
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

from errors import MammoseekError
from viewer import ViewerError
from viewer.problems import BusyError

QUESTION, AHEAD = 0, 1
"""Priorities: what somebody waits for, and what is only done ahead of time."""

_MOST_AHEAD = 16  # jobs done ahead of time that wait; older ones are dropped for newer
_BATCH = 8
_ATTEMPTS = 2
_PATIENCE_S = 180.0
_START_PATIENCE_S = 300.0
_PAUSE_S = 5.0  # after a child that could not start
_POLL_S = 0.5


class Work(Protocol):
    """What the child does, made within it."""

    def run(self, jobs: Sequence[Any]) -> Iterator[Any]:
        """Yield for each job its result, or the MammoseekError that it ends with, in the same order."""


@dataclass(order=True)
class _Waiting:
    priority: int
    number: int
    job: Any = field(compare=False)
    batch_key: object = field(compare=False)
    future: "Future[Any]" = field(compare=False)
    attempts: int = field(default=0, compare=False)
    since: float = field(default_factory=time.monotonic, compare=False)


class Child:
    """A child process and its queue.

    Args:
        name: What errors call it.
        make: Makes the child's work; a function at the top of a module, called in the child.
        arguments: What it is called with; they can be pickled.
        capacity: Questions that may wait or be worked on; more are told to come back.
        batch: Jobs of one batch key that are handed over together.
        patience_s: A child that is silent for so long over one job is ended.
    """

    def __init__(
        self,
        name: str,
        make: Callable[..., Work],
        arguments: tuple[Any, ...],
        *,
        capacity: int,
        batch: int = _BATCH,
        patience_s: float = _PATIENCE_S,
    ) -> None:
        self.name, self.capacity, self._patience_s = name, capacity, patience_s
        self._make, self._arguments, self._batch = make, arguments, batch
        self._condition = threading.Condition()
        self._heap: list[_Waiting] = []
        self._numbers = itertools.count()
        self._running: list[_Waiting] = []
        self._process: Any = None
        self._connection: Connection | None = None
        self._ready = self._closing = False
        self._broken: MammoseekError | None = None
        self._thread = threading.Thread(target=self._serve, name=f"mammoseek-{name}", daemon=True)

    def start(self) -> None:
        """Start the child and the thread that serves it, unless it is closed already."""
        with self._condition:
            if not self._closing:
                self._thread.start()

    def close(self) -> None:
        """End the child; what waits is told so."""
        with self._condition:
            self._closing = True
            self._condition.notify_all()
        self._stop_process()
        if self._thread.is_alive():
            self._thread.join(timeout=10)
        with self._condition:
            left = [*self._running, *self._heap]
            self._running, self._heap = [], []
        for one in left:
            _fail(one.future, BusyError(self.name, "the server is being stopped", "ask again when it is back"))

    @property
    def pid(self) -> int | None:
        """The child's process id; None where there is none now."""
        process = self._process
        return None if process is None or not process.is_alive() else int(process.pid)

    @property
    def status(self) -> str:
        """`ready`, `busy` or `starting`; `broken` where the child could not start."""
        with self._condition:
            if not self._ready:
                return "starting" if self._broken is None else "broken"
            return "busy" if self._questions() >= self.capacity else "ready"

    @property
    def waiting(self) -> int:
        """Questions that wait."""
        with self._condition:
            return sum(one.priority == QUESTION for one in self._heap)

    @property
    def running(self) -> int:
        """Questions that are worked on."""
        with self._condition:
            return sum(one.priority == QUESTION for one in self._running)

    def submit(self, job: Any, *, batch_key: object = None, priority: int = QUESTION) -> "Future[Any]":
        """Let the child do something.

        Args:
            job: What; it can be pickled.
            batch_key: Jobs of the same key are handed over together.
            priority: QUESTION or AHEAD.

        Raises:
            BusyError: As many questions wait already as may.
        """
        future: Future[Any] = Future()
        with self._condition:
            if self._closing:
                raise BusyError(self.name, "the server is being stopped", "ask again when it is back")
            if priority == QUESTION and self._questions() >= self.capacity:
                raise BusyError(
                    self.name, f"{self.capacity} questions are waiting already", "ask again in some seconds", 2
                )
            if priority == AHEAD:
                self._drop_ahead()
            heapq.heappush(self._heap, _Waiting(priority, next(self._numbers), job, batch_key, future))
            self._condition.notify_all()
        return future

    def _questions(self) -> int:
        return sum(one.priority == QUESTION for one in (*self._heap, *self._running))

    def _drop_ahead(self) -> None:
        ahead = sorted(one for one in self._heap if one.priority == AHEAD)
        for one in ahead[: max(0, len(ahead) - _MOST_AHEAD + 1)]:
            self._heap.remove(one)
            one.future.cancel()
        heapq.heapify(self._heap)

    def _serve(self) -> None:
        while not self._closing:
            try:
                self._start_process()
            except MammoseekError as error:
                self._give_up(error)
                continue
            except (OSError, EOFError, RuntimeError):
                if not self._closing:
                    self._give_up(ViewerError(self.name, "ended while it was starting", "look at the server's output"))
                continue
            while not self._closing:
                batch = self._next_batch()
                if batch is None or not self._work(batch):
                    self._stop_process()
                    break
        self._stop_process()

    def _start_process(self) -> None:
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        process = context.Process(
            target=_child_main, args=(there, self._make, self._arguments), name=f"mammoseek-{self.name}", daemon=True
        )
        process.start()
        there.close()
        self._connection, self._process = here, process
        answer = self._receive(_START_PATIENCE_S)
        if isinstance(answer, MammoseekError):
            raise answer
        with self._condition:
            self._ready, self._broken = True, None

    def _give_up(self, error: MammoseekError) -> None:
        """Tell all who wait, and whoever runs the server, that the child can't start; it is tried again later."""
        print(f"{self.name} can't start: {error}", file=sys.stderr, flush=True)
        self._stop_process()
        with self._condition:
            self._ready, self._broken = False, error
            left, self._heap = self._heap, []
        for one in left:
            _fail(one.future, error)
        with self._condition:
            self._condition.wait_for(lambda: self._closing, timeout=_PAUSE_S)
            # Then it is tried again when somebody asks.
            self._condition.wait_for(lambda: self._closing or bool(self._heap))

    def _next_batch(self) -> list[_Waiting] | None:
        """Return what is to be done next; None where the child is gone, or the server ends."""
        with self._condition:
            while not self._heap:
                self._condition.wait(timeout=_POLL_S)
                if self._closing or not self._process.is_alive():
                    return None
            first = heapq.heappop(self._heap)
            batch = [first]
            if first.batch_key is not None:
                alike = sorted(
                    one for one in self._heap if one.batch_key == first.batch_key and one.priority == first.priority
                )
                batch += alike[: self._batch - 1]
                kept = {id(one) for one in batch}
                self._heap = [one for one in self._heap if id(one) not in kept]
                heapq.heapify(self._heap)
            self._running = [one for one in batch if one.attempts or one.future.set_running_or_notify_cancel()]
            return list(self._running)

    def _work(self, batch: list[_Waiting]) -> bool:
        """Have one batch done; return whether the child is still there."""
        if not batch:
            return True
        left = list(batch)
        try:
            if self._connection is None:  # `close` was quicker
                raise EOFError("the child was ended")
            self._connection.send([one.job for one in batch])
            while left:
                answer = self._receive(self._patience_s)
                one = left.pop(0)
                if isinstance(answer, MammoseekError):
                    _fail(one.future, answer)
                else:
                    _finish(one.future, answer)
        except (OSError, EOFError):
            self._again(left)
            return False
        finally:
            with self._condition:
                self._running = []
        return True

    def _again(self, left: list[_Waiting]) -> None:
        """Put back what the child did not finish, once."""
        for one in left:
            one.attempts += 1
            if one.attempts < _ATTEMPTS and not self._closing:
                with self._condition:
                    heapq.heappush(self._heap, one)
                continue
            cause = "ended over this request twice" if not self._closing else "was ended"
            _fail(one.future, ViewerError(self.name, cause, "ask otherwise, or look at the server's output"))

    def _receive(self, patience: float) -> Any:
        """Return what the child sends next.

        Raises:
            EOFError: It has ended, or is silent for too long.
        """
        connection, process = self._connection, self._process
        until = time.monotonic() + patience
        while connection is not None and process is not None and time.monotonic() < until and not self._closing:
            try:
                told = connection in wait([connection, process.sentinel], timeout=_POLL_S)
                ended = not told and not process.is_alive() and not connection.poll()
            except ValueError:  # `close` has closed the process meanwhile
                break
            if told:
                return connection.recv()
            if ended:
                break
        raise EOFError("the child is gone")

    def _stop_process(self) -> None:
        process, connection = self._process, self._connection
        self._process = self._connection = None
        with self._condition:
            self._ready = False
        if connection is not None:
            connection.close()
        if process is not None:
            with contextlib.suppress(ValueError):
                process.join(timeout=0.2)
                if process.is_alive():
                    process.kill()
                    process.join(timeout=5)
                process.close()


class OutOfMemoryError(ViewerError):
    """A job that took more memory than there is."""


def result_of(name: str, do: Callable[[], Any]) -> Any:
    """Return what one job returns, or the MammoseekError that it ends with: one bad image ends no child.

    Args:
        name: What errors call the child.
        do: Does the job.
    """
    try:
        return do()
    except MammoseekError as error:
        return error
    except MemoryError:
        return OutOfMemoryError(name, "there is not enough memory for this", "ask again")
    except Exception:
        traceback.print_exc()
        return ViewerError(name, "failed at this request", "tell whoever runs the server: its output says where")


def _finish(future: "Future[Any]", value: Any) -> None:
    if not future.done():
        future.set_result(value)


def _fail(future: "Future[Any]", error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)


def _child_main(connection: Connection, make: Callable[..., Work], arguments: tuple[Any, ...]) -> None:
    """Serve one pipe until its other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all processes; the server ends its child
    try:
        work = make(*arguments)
    except MammoseekError as error:
        connection.send(error)
        return
    connection.send("ready")
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            for answer in work.run(connection.recv()):
                connection.send(answer)
