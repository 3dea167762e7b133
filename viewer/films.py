"""Films as the model reads them: prepared once, kept while they are in use, and made ahead of time where that is known.

A question must not wait behind a film that somebody else has only just opened, so what is made ahead is made by a
thread of its own, at low priority; a question's own film is made by whoever asks, unless that thread is at it already.
"""

import contextlib
import os
import sys
import threading
import traceback
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from errors import MammoseekError
from viewer.keeping import Sized, keep_within

_MOST_WANTED = 16  # films made ahead that wait; older ones are dropped for newer
_NICENESS = 10


Key = TypeVar("Key", bound=Hashable)
Made = TypeVar("Made", bound=Sized)


class Films(Generic[Key, Made]):
    """Films by key, those used last.

    Args:
        make: Reads and prepares one; called by several threads.
        most_bytes: Bytes that films may take together; the one used last stays however large it is.
    """

    def __init__(self, make: Callable[[Key], Made], most_bytes: int) -> None:
        self._make, self._most_bytes = make, most_bytes
        self._condition = threading.Condition()
        self._kept: OrderedDict[Key, Made] = OrderedDict()
        self._wanted: OrderedDict[Key, None] = OrderedDict()
        self._making: Key | None = None
        self._thread: threading.Thread | None = None

    def __contains__(self, key: Key) -> bool:
        """Tell whether a film is kept."""
        with self._condition:
            return key in self._kept

    def get(self, key: Key) -> Made:
        """Return a film.

        Raises:
            MammoseekError: It can't be read or prepared.
        """
        with self._condition:
            self._wanted.pop(key, None)
            self._condition.wait_for(lambda: self._making != key)
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        return self._keep(key, self._make(key))

    def ahead(self, key: Key) -> None:
        """Let a film be made soon, unless it is kept."""
        with self._condition:
            if key in self._kept or key == self._making:
                return
            self._wanted[key] = None
            if len(self._wanted) > _MOST_WANTED:
                self._wanted.popitem(last=False)
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="mammoseek-films", daemon=True)
                self._thread.start()
            self._condition.notify_all()

    def clear(self) -> None:
        """Forget all films, and what was to be made ahead."""
        with self._condition:
            self._kept.clear()
            self._wanted.clear()

    def _keep(self, key: Key, made: Made) -> Made:
        with self._condition:
            self._kept[key] = made
            self._kept.move_to_end(key)
            keep_within(self._kept, self._most_bytes)
        return made

    def _serve(self) -> None:
        if sys.platform == "linux":  # elsewhere a thread has no priority of its own
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._wanted)
                key, _ = self._wanted.popitem(last=False)
                self._making = key
            try:
                self._keep(key, self._make(key))
            except MammoseekError:
                pass  # whoever asks is told
            except MemoryError:
                self.clear()
            except Exception:  # a defect over one film: others are made all the same
                traceback.print_exc()
            finally:
                with self._condition:
                    self._making = None
                    self._condition.notify_all()
