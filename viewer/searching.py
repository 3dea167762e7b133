"""Searches of all readers, by a few threads: what waits with the same terms is one search.

A gallery is read from memory once for a batch of queries, which costs hardly more than for one of them; the answers
are those that each would get alone (`index.nearest`). What is the same for all queries of some terms, such as which
rows pass a filter, is kept.
"""

import json
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from errors import MammoseekError
from index.answers import Answer
from index.asking import Asked, Search
from index.gallery import Gallery
from index.questions import Question
from viewer.problems import BusyError

Result = TypeVar("Result")

_THREADS = 2
_SEARCHES_KEPT = 64
_LARGEST_BATCH = 32
_MOST_WAITING = 500


@dataclass(eq=False)
class _Pending(Generic[Result]):
    asked: Callable[[], Asked]
    finish: Callable[[Answer, float], Result]
    future: "Future[Result]"
    since: float = field(default_factory=time.perf_counter)


class SearchPool:
    """Threads that search one gallery.

    Args:
        gallery: The gallery.
        threads: Batches that are searched at a time.
    """

    def __init__(self, gallery: Gallery, threads: int = _THREADS) -> None:
        self._gallery = gallery
        self._condition = threading.Condition()
        self._waiting: OrderedDict[str, tuple[Question, deque[_Pending]]] = OrderedDict()
        self._count = 0
        self._searches: OrderedDict[str, Search] = OrderedDict()
        self._closing = False
        self.batches = 0
        self._threads = [
            threading.Thread(target=self._serve, name=f"mammoseek-search-{number}", daemon=True)
            for number in range(threads)
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End the threads; what waits is told so."""
        with self._condition:
            self._closing = True
            self._condition.notify_all()
            left = [one for _, group in self._waiting.values() for one in group]
            self._waiting.clear()
        for one in left:
            one.future.set_exception(BusyError("search", "the server is being stopped", "ask again when it is back"))
        for thread in self._threads:
            if thread.is_alive():
                thread.join(timeout=10)

    def submit(
        self, question: Question, asked: Callable[[], Asked], finish: Callable[[Answer, float], Result]
    ) -> "Future[Result]":
        """Search, and make something of the answer; all by the pool's threads.

        Args:
            question: What the search needs: how many neighbours, and which.
            asked: Returns the query.
            finish: Makes the result of the answer and of the milliseconds since this call.

        Raises:
            BusyError: Too many searches wait.
        """
        one = _Pending(asked, finish, Future())
        key = json.dumps(question.terms, sort_keys=True)
        with self._condition:
            if self._closing or self._count >= _MOST_WAITING:
                raise BusyError("search", f"{self._count} searches are waiting", "ask again in some seconds", 2)
            self._waiting.setdefault(key, (question, deque()))[1].append(one)
            self._count += 1
            self._condition.notify()
        return one.future

    def _serve(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._waiting or self._closing)
                if self._closing:
                    return
                key, (question, group) = next(iter(self._waiting.items()))
                batch = [group.popleft() for _ in range(min(len(group), _LARGEST_BATCH))]
                self._count -= len(batch)
                # The next batch is of other terms, so that nobody waits for ever behind many of the same.
                del self._waiting[key]
                if group:
                    self._waiting[key] = question, group
                self.batches += 1
            self._run(key, question, batch)

    def _run(self, key: str, question: Question, batch: list[_Pending]) -> None:
        ready: list[tuple[_Pending, Asked]] = []
        for one in batch:
            try:
                ready.append((one, one.asked()))
            except Exception as error:  # whoever asked is told; the thread serves others
                one.future.set_exception(error)
        if not ready:
            return
        try:
            answers = self._search(key, question).run([asked for _, asked in ready])
        except MammoseekError as error:
            if len(ready) == 1:
                ready[0][0].future.set_exception(error)
            else:  # one of them is at fault
                for one, asked in ready:
                    one.asked = lambda asked=asked: asked  # type: ignore[misc]
                    self._run(key, question, [one])
            return
        except Exception as error:
            for one, _ in ready:
                one.future.set_exception(error)
            return
        for (one, _), answer in zip(ready, answers, strict=True):
            try:
                one.future.set_result(one.finish(answer, 1000 * (time.perf_counter() - one.since)))
            except Exception as error:
                one.future.set_exception(error)

    def _search(self, key: str, question: Question) -> Search:
        with self._condition:
            known = self._searches.get(key)
            if known is not None:
                self._searches.move_to_end(key)
                return known
        search = Search(self._gallery, question)
        with self._condition:
            self._searches[key] = search
            while len(self._searches) > _SEARCHES_KEPT:
                self._searches.popitem(last=False)
        return search
