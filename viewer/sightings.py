"""What a person has been shown since the server started, so that each picture is on record once."""

import threading
from collections import OrderedDict
from collections.abc import Iterable

_MOST = 200_000


class Sightings:
    """Who has seen what, the last 200,000 of them: beyond, something is put on record once more."""

    def __init__(self) -> None:
        self._seen: OrderedDict[tuple[str, str, str], None] = OrderedDict()
        self._lock = threading.Lock()

    def is_new(self, person: str, kind: str, name: str) -> bool:
        """Tell whether a person sees something for the first time, and remember that she does.

        Args:
            person: Who.
            kind: What kind of thing, such as `image`.
            name: Its id.
        """
        return bool(self.add(person, kind, [name]))

    def add(self, person: str, kind: str, names: Iterable[str]) -> list[str]:
        """Remember that a person sees several things, and return those that she had not seen."""
        new = []
        with self._lock:
            for name in names:
                if (person, kind, name) not in self._seen:
                    new.append(name)
                self._seen[person, kind, name] = None
                self._seen.move_to_end((person, kind, name))
            while len(self._seen) > _MOST:
                self._seen.popitem(last=False)
        return new
