"""The audit log: who asked what and saw which cases, and who uncovered the opinion. Ids alone, no names, no pictures.

A request is recorded before it is answered, so that nobody sees what is not on record. An entry is plain JSON with
`action`, `user` and `role`; the other keys are those of the methods that write it.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from viewer.access import Person
from viewer.chain import Chain, Record

PURPOSE = "audit"

ACTIONS = (
    *("server started", "server stopped", "repaired", "login", "login refused", "logout", "denied"),
    *("study opened", "study seen", "image opened", "row opened", "query", "embed", "opinion", "triage"),
    *("verdict", "verdicts exported", "report", "audit read", "collection read"),
)
"""What an entry's `action` may be."""

SYSTEM = Person("mammoseek")

_SYNC_EVERY_S = 1.0


class AuditLog:
    """Who asked what and saw what.

    Entries survive a kill of the server as soon as they are written, and a power cut a second later; those of logins,
    opinions and verdicts at once.

    Args:
        path: The file of the chain.
        say: Told what was repaired.

    Raises:
        ViewerError: The log was changed, or can't be read or written.
    """

    def __init__(self, path: Path, say: Callable[[str], None] = lambda _: None) -> None:
        self._seen: set[str] = set()
        self._chain = Chain(path, PURPOSE, seen=self._take, say=say)
        self._stop = threading.Event()
        self._syncing = threading.Thread(target=self._sync, name="audit", daemon=True)
        self._syncing.start()
        if self._chain.repaired is not None:
            self.note(SYSTEM, "repaired", file=path.name, bytes=len(self._chain.repaired.data))

    def _take(self, record: Record) -> None:
        if record.entry.get("action") == "study seen":
            self._seen.add(str(record.entry.get("study")))

    def _sync(self) -> None:
        known = ""
        while not self._stop.wait(_SYNC_EVERY_S):
            if known != self._chain.head:
                known = self._chain.head
                with contextlib.suppress(OSError):  # the next entry that can't be written says so
                    self._chain.sync()

    @property
    def path(self) -> Path:
        """The file."""
        return self._chain.path

    @property
    def head(self) -> str:
        """Digest of the newest entry, to be kept elsewhere."""
        return self._chain.head

    def __len__(self) -> int:
        return len(self._chain)

    def note(self, person: Person, action: str, *, durable: bool = False, **facts: Any) -> Record:
        """Record what somebody did.

        Args:
            person: Who.
            action: One of ACTIONS.
            durable: Wait until a power cut can't take it any more.
            facts: What of, as ids and numbers: no names of patients, no free text, no pixels, no vectors.

        Raises:
            ViewerError: It can't be written: the request must not be answered then.
        """
        if action not in ACTIONS:
            raise ValueError(f"{action!r} is no action of the audit log")
        record = self._chain.append(
            {"action": action, "user": person.name, "role": person.role, **facts}, durable=durable
        )
        self._take(record)
        return record

    def study_seen(self, person: Person, study: str, image: str) -> None:
        """Record that somebody looked at an image of a study."""
        self.note(person, "study seen", study=study, image=image)

    def query(
        self,
        person: Person,
        *,
        question_id: str,
        question: dict[str, Any],
        study: str | None,
        rows: Sequence[str],
        similarities: Sequence[float],
        no_close_precedent: bool | None,
        replay: dict[str, Any],
    ) -> None:
        """Record a question, and which cases answered it.

        Args:
            person: Who asked.
            question_id: Names the question.
            question: The question as the API has it, with ids of images: enough to ask it again.
            study: The study that it is about; None for a row of the gallery.
            rows: Names of the gallery's rows that were shown, best first.
            similarities: Cosine of each of them.
            no_close_precedent: Whether none was close.
            replay: What the answer came from, as the answer has it.
        """
        self.note(
            person,
            "query",
            question_id=question_id,
            question=question,
            study=study,
            rows=list(rows),
            similarities=[round(float(value), 6) for value in similarities],
            no_close_precedent=no_close_precedent,
            replay=replay,
        )

    def opinion(
        self,
        person: Person,
        *,
        question_id: str,
        question: dict[str, Any],
        study: str | None,
        targets: list[dict[str, Any]],
        replay: dict[str, Any],
    ) -> None:
        """Record, durably, that somebody uncovered the opinion, and what it said.

        Args:
            person: Who.
            question_id: Names the question, as in the entry of the query.
            question: The question as the API has it.
            study: The study that it is about; None for a row of the gallery.
            targets: Votes and probabilities as they are answered.
            replay: What the answer came from.
        """
        self.note(
            person,
            "opinion",
            durable=True,
            question_id=question_id,
            question=question,
            study=study,
            targets=targets,
            replay=replay,
        )

    def has_seen(self, study: str) -> bool:
        """Tell whether anybody looked at a study."""
        return study in self._seen

    def entries(self, *actions: str) -> Iterator[Record]:
        """Yield the entries of some actions, or all, oldest first; they are read from the file."""
        for record in self._chain.records():
            if not actions or record.entry.get("action") in actions:
                yield record

    def close(self) -> None:
        """Make everything durable, and close the file."""
        self._stop.set()
        self._syncing.join(timeout=10)
        self._chain.close()
