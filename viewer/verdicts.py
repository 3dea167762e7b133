"""What readers decided: entries that are only ever added, each by somebody; to take one back is an entry too."""

import csv
import io
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from viewer import StatusError, ViewerError
from viewer.access import Person
from viewer.chain import Chain, Record, verify

PURPOSE = "verdicts"

BIRADS = ("0", "1", "2", "3", "4", "4A", "4B", "4C", "5", "6")
DECISIONS = ("accept", "reject")

COLUMNS = (
    *("id", "time", "user", "study", "image", "x0", "y0", "x1", "y1", "detection"),
    *("birads", "decision", "text", "question_id", "undone_by", "undoes"),
)
"""Columns of the CSV export."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


class VerdictError(StatusError):
    """A verdict that can't be recorded.

    Args:
        status: Its HTTP status: 404 unknown, 409 contradicts another, 422 wrong.
    """


@dataclass(frozen=True)
class Verdict:
    """One entry.

    Attributes:
        id: The first 16 digits of its record's digest.
        time: When, ISO 8601 UTC.
        user: Who.
        study: The study.
        image: The image; None where it is of the study as a whole.
        box: The place, x0, y0, x1, y1 in pixels of the stored image, half-open; None where it is of no place.
        detection: The detection that is accepted or rejected; None where it is of none.
        birads: One of BIRADS, or None.
        decision: One of DECISIONS, or None.
        text: Free text, as it was written.
        question_id: The question whose answer was before the reader, or None.
        question: The same, to ask it again.
        undoes: The entry that this one takes back, or None.
        undone_by: The entry that takes this one back, or None.
    """

    id: str
    time: str
    user: str
    study: str
    image: str | None = None
    box: tuple[int, int, int, int] | None = None
    detection: str | None = None
    birads: str | None = None
    decision: str | None = None
    text: str = ""
    question_id: str | None = None
    question: dict[str, Any] | None = None
    undoes: str | None = None
    undone_by: str | None = None

    @property
    def stands(self) -> bool:
        """Whether it is a verdict that nobody took back."""
        return self.undone_by is None and self.undoes is None

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return {**vars(self), "box": None if self.box is None else list(self.box)}


@dataclass(frozen=True)
class Draft:
    """A verdict before it is recorded; the fields are those of `Verdict`.

    Args:
        key: Made by the client, unique: the same draft sent again is recorded once.
    """

    key: str
    study: str
    image: str | None = None
    box: tuple[int, int, int, int] | None = None
    detection: str | None = None
    birads: str | None = None
    decision: str | None = None
    text: str = ""
    question_id: str | None = None
    question: dict[str, Any] | None = None
    undoes: str | None = None

    def check(self, longest_text: int) -> None:
        """Refuse what can be seen to be wrong by itself.

        Raises:
            VerdictError: Something is.
        """
        if not 8 <= len(self.key) <= 128:
            raise VerdictError(422, "key", f"has {len(self.key)} characters", "give a unique one of 8 to 128")
        if self.birads is not None and self.birads not in BIRADS:
            raise VerdictError(422, f"BI-RADS {self.birads[:20]!r}", "is no category", f"give {', '.join(BIRADS)}")
        if self.decision is not None and self.decision not in DECISIONS:
            raise VerdictError(422, f"decision {self.decision[:20]!r}", "is none", "accept or reject")
        if self.decision is not None and self.detection is None:
            raise VerdictError(422, "decision", "is of no detection", "name the detection that is accepted or rejected")
        if len(self.text) > longest_text:
            cause = f"has {len(self.text)} characters: {longest_text} are the most"
            raise VerdictError(422, "text", cause, "say it in fewer words")
        if (self.box is not None or self.detection is not None) and self.image is None:
            raise VerdictError(422, "place", "is on no image", "name the image")
        if self.box is not None and not (self.box[0] < self.box[2] and self.box[1] < self.box[3]):
            raise VerdictError(422, f"box {list(self.box)}", "is empty or inverted", "give x0, y0, x1, y1")
        says = (self.birads, self.decision, self.text.strip() or None)
        if self.undoes is None and says == (None, None, None):
            raise VerdictError(422, "verdict", "says nothing", "give a BI-RADS category, a decision or a text")
        if self.undoes is not None and (self.birads, self.decision) != (None, None):
            raise VerdictError(422, "verdict", "takes one back and gives one", "send them one after the other")

    @property
    def content(self) -> dict[str, Any]:
        """What the record says, as plain JSON values."""
        return {**vars(self), "box": None if self.box is None else list(self.box)}


class Ledger:
    """Verdicts in memory, in the order in which they were recorded."""

    def __init__(self) -> None:
        self._by_id: dict[str, Verdict] = {}
        self._by_study: dict[str, list[str]] = {}
        self._by_key: dict[tuple[str, str], tuple[str, dict[str, Any]]] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def take(self, record: Record) -> None:
        """Take in a record of the chain."""
        entry = dict(record.entry)
        user, key = str(entry.pop("user")), str(entry.get("key"))
        entry.pop("role", None)
        made = record.digest[:16]
        self._by_key[user, key] = (made, dict(entry))
        del entry["key"]
        box = entry["box"]
        verdict = Verdict(made, record.time, user, **{**entry, "box": None if box is None else tuple(box)})
        self._by_id[made] = verdict
        self._by_study.setdefault(verdict.study, []).append(made)
        other = self._by_id.get(verdict.undoes or "")
        if other is not None:
            self._by_id[other.id] = replace(other, undone_by=made)

    def of_study(self, study: str) -> list[Verdict]:
        """Return the verdicts of a study, oldest first, with those that were taken back."""
        return [self._by_id[name] for name in self._by_study.get(study, ())]

    def all(self) -> list[Verdict]:
        """Return all verdicts, oldest first."""
        return list(self._by_id.values())

    def is_decided(self, study: str) -> bool:
        """Tell whether a study has a verdict that stands."""
        return any(verdict.stands for verdict in self.of_study(study))


class VerdictBook(Ledger):
    """All verdicts, in memory and in a chain of records.

    Args:
        path: The file of the chain.
        longest_text: Characters of a free text.
        say: Told what was repaired.

    Raises:
        ViewerError: The file was changed, or can't be read or written.
    """

    def __init__(self, path: Path, *, longest_text: int = 10_000, say: Callable[[str], None] = lambda _: None) -> None:
        super().__init__()
        self._longest_text = longest_text
        self._lock = threading.Lock()
        self._chain = Chain(path, PURPOSE, seen=self.take, say=say)

    @property
    def path(self) -> Path:
        """The file."""
        return self._chain.path

    @property
    def head(self) -> str:
        """Digest of the newest entry, to be kept elsewhere."""
        return self._chain.head

    def add(self, person: Person, draft: Draft) -> tuple[Verdict, bool]:
        """Record a verdict; it is durable when this returns.

        Returns:
            The verdict, and whether it is new: not where the same draft was recorded before.

        Raises:
            VerdictError: It is wrong, its key stands for another one, or what it takes back is not there, not the
                person's own (of a curator: anybody's) or taken back already.
            ViewerError: It can't be written, and is not recorded.
        """
        draft.check(self._longest_text)
        with self._lock:
            known = self._by_key.get((person.name, draft.key))
            if known is not None:
                if known[1] != draft.content:
                    raise VerdictError(409, "key", "stands for another verdict already", "make a new one")
                return self._by_id[known[0]], False
            if draft.undoes is not None:
                self._check_undo(person, draft)
            record = self._chain.append({"user": person.name, "role": person.role, **draft.content})
            self.take(record)
            return self._by_id[record.digest[:16]], True

    def _check_undo(self, person: Person, draft: Draft) -> None:
        name = f"verdict {str(draft.undoes)[:16]}"
        other = self._by_id.get(draft.undoes or "")
        if other is None or other.study != draft.study:
            raise VerdictError(404, name, "is none of this study", "reload the study")
        if other.user != person.name and not person.is_curator:
            raise VerdictError(403, name, f"is {other.user}'s", "record one of your own")
        if other.undoes is not None:
            raise VerdictError(409, name, "takes another one back itself", "record that verdict anew")
        if other.undone_by is not None:
            raise VerdictError(409, name, "is taken back already", "reload the study")

    def close(self) -> None:
        """Close the file."""
        self._chain.close()


def read_verdicts(path: Path) -> list[Verdict]:
    """Return the verdicts of a file that a server may be adding to, oldest first.

    Raises:
        ViewerError: It was changed, or can't be read.
    """
    ledger = Ledger()
    found = verify(path, PURPOSE, ledger.take)
    if not found.intact:
        raise ViewerError(path, f"line {found.broken} is not what was written ({found.cause})", "restore a good copy")
    return ledger.all()


def to_csv(verdicts: Iterable[Verdict]) -> str:
    """Return verdicts as CSV with COLUMNS; a cell that a spreadsheet would take for a formula begins with '.

    >>> to_csv([Verdict("1", "t", "anna", "s", text="=1+1")]).splitlines()[1]
    "1,t,anna,s,,,,,,,,,'=1+1,,,"
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for one in verdicts:
        values = {**vars(one), **dict(zip(("x0", "y0", "x1", "y1"), one.box or (), strict=False))}
        writer.writerow([_cell(values.get(name)) for name in COLUMNS])
    return text.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, str) and value.lstrip(" ").startswith(_FORMULA):
        return "'" + value
    return "" if value is None else value
