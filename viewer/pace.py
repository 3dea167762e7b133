"""How fast one client may ask: a bucket that fills at a steady rate and is emptied by requests."""

import threading
import time

_MOST_CLIENTS = 10_000


class Pace:
    """A rate for each client, with room for some requests at once.

    Args:
        per_s: Requests for long.
        at_once: Requests at once after a pause, at least 1.
    """

    def __init__(self, per_s: float, at_once: float) -> None:
        self._per_s, self._at_once = per_s, max(1.0, at_once)
        self._levels: dict[str, tuple[float, float]] = {}
        self._lock = threading.Lock()

    def wait_s(self, client: str, now: float | None = None) -> float:
        """Count a request, and return 0; the seconds to wait where it comes too soon, and is not counted.

        >>> pace = Pace(per_s=2, at_once=1)
        >>> pace.wait_s("a", 0.0), pace.wait_s("a", 0.0), pace.wait_s("b", 0.0), pace.wait_s("a", 0.5)
        (0.0, 0.5, 0.0, 0.0)
        """
        when = time.monotonic() if now is None else now
        with self._lock:
            level, then = self._levels.get(client, (self._at_once, when))
            level = min(self._at_once, level + (when - then) * self._per_s)
            if level < 1:
                self._levels[client] = level, when
                return (1 - level) / self._per_s
            if client not in self._levels and len(self._levels) >= _MOST_CLIENTS:
                self._forget(when)
            self._levels[client] = level - 1, when
            return 0.0

    def _forget(self, now: float) -> None:
        """Drop clients whose bucket is full again; all of them where none is, so that memory stays bounded."""
        known = self._levels
        self._levels = {
            name: (level, then)
            for name, (level, then) in known.items()
            if level + (now - then) * self._per_s < self._at_once
        }
        if len(self._levels) >= _MOST_CLIENTS:
            self._levels = {}
