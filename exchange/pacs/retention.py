"""How long a spool keeps what was sent: images and reports for some days, what they are known by for longer."""

import time
from collections.abc import Callable, Iterable

from exchange.pacs.listenconfig import Listen
from exchange.pacs.spool import Spool

_DAY_S = 86400.0
_SWEEP_S = 3600.0
_AT_A_TIME_S = 0.5


class Retention:
    """Deletes what a spool has kept for long enough. What failed stays.

    Args:
        spool: The spool.
        listen: `keep_days` and `keep_journal_days`.
        say: Told of what is deleted, a line at a time.
        clock: Says the seconds since 1970.
    """

    def __init__(
        self, spool: Spool, listen: Listen, say: Callable[[str], None], clock: Callable[[], float] = time.time
    ) -> None:
        self._spool, self._listen, self._say, self._clock = spool, listen, say, clock
        self._waiting: list[str] = []
        self._next = 0.0

    def go_on(self) -> None:
        """Look at all studies, once an hour, a few at each call: whoever calls has other things to do."""
        now = time.monotonic()
        if not self._waiting and now >= self._next:
            self._waiting, self._next = self._spool.names(), now + _SWEEP_S
        while self._waiting and time.monotonic() < now + _AT_A_TIME_S:
            self.look_at(self._waiting.pop())

    def look_at(self, name: str) -> None:
        """Delete of one study what is due; what can't be deleted is told, and is due again at the next look."""
        try:
            phase = self._spool.state(name).phase
            if phase not in ("sent", "emptied"):
                return
            days = (self._clock() - self._spool.sent_at(name)) / _DAY_S
            if days >= self._listen.keep_days and self._spool.empty(name) and phase == "sent":
                self._say(f"{name}: its images are deleted, {self._listen.keep_days:g} days after it was sent")
            if days >= self._listen.keep_journal_days and self._spool.remove(name, "emptied"):
                self._say(f"{name}: is forgotten, {self._listen.keep_journal_days:g} days after it was sent")
        except OSError as error:
            self._say(f"{name}: can't be deleted ({error.strerror}); trying again")


def delete_studies(spool: Spool, names: Iterable[str]) -> list[tuple[str, str]]:
    """Empty studies that were sent, and remove those that failed; return those that stay, and why."""
    failures = []
    for name in names:
        try:
            if not spool.empty(name) and not spool.remove(name, "failed"):
                failures.append((name, f"is {spool.state(name).phase}: there is work to be done on it"))
        except OSError as error:
            failures.append((name, f"can't be deleted ({error.strerror})"))
    return failures
