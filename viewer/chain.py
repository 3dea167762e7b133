"""Records that are only ever added to, each bound to all before it, and durable before they are acknowledged.

A record is one line, a JSON object that ends with the SHA-256 of all before that in the line. The line holds the
digest of the record before it, so that whoever changes, moves or takes out a line breaks the chain there. Whoever can
write the file can make a whole new chain: against that, and against lines taken off its end, keep the digest of the
newest record elsewhere now and then (`mammoseek audit verify --head`).
"""

import contextlib
import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from index.durable import sync_folder
from viewer import StatusError, ViewerError

_MARK = b',"hash":"'
_TAIL = len(_MARK) + 64 + len(b'"}')
_LONGEST = 1 << 24


@dataclass(frozen=True)
class Record:
    """One record of a chain.

    Attributes:
        number: From 0.
        time: When it was made, ISO 8601 UTC.
        entry: What it says, plain JSON values.
        digest: SHA-256 that stands at its end, 64 hexadecimal digits.
    """

    number: int
    time: str
    entry: dict[str, Any]
    digest: str


@dataclass(frozen=True)
class Torn:
    """The end of a chain that a kill cut short, which nobody was told is kept.

    Attributes:
        offset: Where it begins, bytes from the file's beginning.
        data: What there is of it.
        whole: Whether only the line's end is missing, so that the record itself is kept.
    """

    offset: int
    data: bytes
    whole: bool


@dataclass(frozen=True)
class Verification:
    """What a chain is found to be.

    Attributes:
        records: Records that are whole, in order, before anything that is not.
        head: Digest of the last of them; the chain's beginning where there is none.
        broken: Line that is not what was written, from 1; None where the chain is whole.
        cause: What is wrong with it.
        torn: A record that was never finished, at the end of an otherwise whole chain.
    """

    records: int
    head: str
    broken: int | None = None
    cause: str = ""
    torn: Torn | None = None

    @property
    def intact(self) -> bool:
        """Whether nothing was changed."""
        return self.broken is None


def beginning(purpose: str) -> str:
    """Return what the first record of a chain follows, 64 hexadecimal digits: chains of two purposes never mix."""
    return hashlib.sha256(f"mammoseek chain of {purpose}".encode()).hexdigest()


def verify(path: Path, purpose: str, seen: Callable[[Record], None] | None = None) -> Verification:
    """Check a chain from its beginning, without changing anything.

    Args:
        path: The file; one that is not there is a chain without records.
        purpose: What the chain is of.
        seen: Called with each record that is whole, in order.

    Raises:
        ViewerError: The file can't be read.
    """
    number, head, offset = 0, beginning(purpose), 0
    try:
        with path.open("rb") as file:
            while line := file.readline(_LONGEST):
                if not line.endswith(b"\n"):
                    return _ending(line, number, head, offset, purpose)
                record = _read(line[:-1], number, head)
                if isinstance(record, str):
                    return Verification(number, head, number + 1, record)
                if seen is not None:
                    seen(record)
                number, head, offset = number + 1, record.digest, offset + len(line)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise ViewerError(path, f"can't be read ({error.strerror})", "check the folder's permissions") from error
    return Verification(number, head)


def _ending(line: bytes, number: int, head: str, offset: int, purpose: str) -> Verification:
    """Judge a last line without an end: cut short by a kill, or changed."""
    if not isinstance(_read(line, number, head), str):
        return Verification(number, head, torn=Torn(offset, line, whole=True))
    opening = _opening(number, head)
    # A power cut may leave zeros where a line was to be.
    written = line.rstrip(b"\0")
    begins = opening.startswith(written) or written.startswith(opening)
    if begins and b"\0" not in written and not _holds_whole(written, number, head):
        return Verification(number, head, torn=Torn(offset, line, whole=False))
    return Verification(number, head, number + 1, f"the last line is none of the {purpose}")


def _holds_whole(line: bytes, number: int, head: str) -> bool:
    """Tell whether a whole record is followed by something: then its line's end was changed, not cut."""
    place = line.find(_MARK)
    while place >= 0:
        if not isinstance(_read(line[: place + _TAIL], number, head), str):
            return True
        place = line.find(_MARK, place + 1)
    return False


def _opening(number: int, head: str) -> bytes:
    return f'{{"n":{number},"prev":"{head}",'.encode()


def _read(line: bytes, number: int, head: str) -> Record | str:
    """Return the record of a line without its end, or what is wrong with it."""
    digest, told = line[-66:-2], line[:-_TAIL]
    if line[-_TAIL:] != _MARK + digest + b'"}' or not told:
        return "the line does not end as a record does"
    if hashlib.sha256(told).hexdigest().encode() != digest:
        return "the line was changed: its digest is another one"
    if not told.startswith(_opening(number, head)):
        return "the line does not follow the one before it: lines were taken out, moved or put in"
    try:
        content = json.loads(line)
        return Record(number, str(content["time"]), dict(content["entry"]), digest.decode())
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        return f"the line is no record ({type(error).__name__})"


class Chain:
    """A file of records, open to be added to. Threads may add at the same time; one process may.

    Opening verifies the whole file. A record that a kill cut short is moved aside; anything else that is not what was
    written is left as it is, and the chain can't be opened.

    Args:
        path: The file; made where it is not there.
        purpose: What the chain is of.
        seen: Called with each record that is there already, in order.
        say: Told what was repaired.

    Raises:
        ViewerError: It was changed, can't be read or can't be written.
    """

    def __init__(
        self,
        path: Path,
        purpose: str,
        *,
        seen: Callable[[Record], None] | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.path, self.purpose = path, purpose
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        found = verify(path, purpose, seen)
        if not found.intact:
            raise ViewerError(
                path,
                f"line {found.broken} is not what was written ({found.cause})",
                "keep the file as evidence, move it away and restore the last good copy, or begin a new one",
            )
        self._number, self._head = found.records, found.head
        self.repaired = found.torn
        """What was repaired; None where nothing was to be."""
        try:
            self._open(found.torn, say)
            if found.torn is not None and found.torn.whole:
                verify(path, purpose, self._last(found.records, seen))
        except OSError as error:
            self.close()
            raise ViewerError(path, f"can't be written ({error.strerror})", "check the folder and its disk") from error

    def _open(self, torn: Torn | None, say: Callable[[str], None]) -> None:
        is_new = not self.path.exists()
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(self.path, flags, 0o600)
        if torn is not None and torn.whole:
            os.write(self._descriptor, b"\n")
            say(f"{self.path}: the last record lacked its line's end, which was added")
        elif torn is not None:
            aside = self.path.with_name(f"{self.path.name}.torn-{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}")
            descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(torn.data)
                file.flush()
                os.fsync(file.fileno())
            os.ftruncate(self._descriptor, torn.offset)
            say(
                f"{self.path}: a record of {len(torn.data)} bytes was cut short and never acknowledged;"
                f" it was moved to {aside.name}"
            )
        os.fsync(self._descriptor)
        if is_new or torn is not None:
            sync_folder(self.path.absolute().parent)

    def _last(self, known: int, seen: Callable[[Record], None] | None) -> Callable[[Record], None]:
        """Return what takes over a last record that was made whole."""

        def take(record: Record) -> None:
            if record.number >= known:
                self._number, self._head = record.number + 1, record.digest
                if seen is not None:
                    seen(record)

        return take

    @property
    def head(self) -> str:
        """Digest of the newest record."""
        return self._head

    def __len__(self) -> int:
        return self._number

    def append(self, entry: dict[str, Any], *, durable: bool = True, time: datetime | None = None) -> Record:
        """Add a record.

        Args:
            entry: Plain JSON values.
            durable: Wait until a power cut can't take it any more. Where not, a kill of this process can't either.
            time: When; None for now.

        Returns:
            The record, once it is kept.

        Raises:
            ViewerError: It can't be written, and is not kept; or it is no JSON.
        """
        when = (time or datetime.now(UTC)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        try:
            content = json.dumps({"time": when, "entry": entry}, allow_nan=False, separators=(",", ":"))
        except (TypeError, ValueError, RecursionError) as error:
            raise ViewerError(f"a record of the {self.purpose}", f"is no JSON ({error})"[:200]) from error
        if len(content) > _LONGEST // 2:
            raise ViewerError(f"a record of the {self.purpose}", "is too long", "say it in fewer words")
        with self._lock:
            told = _opening(self._number, self._head) + content[1:-1].encode()
            digest = hashlib.sha256(told).hexdigest()
            self._write(told + _MARK + digest.encode() + b'"}\n', durable)
            record = Record(self._number, when, entry, digest)
            self._number, self._head = self._number + 1, digest
        return record

    def _write(self, line: bytes, durable: bool) -> None:
        descriptor = self._descriptor
        if descriptor is None:
            raise ViewerError(self.path, "is closed")
        end = os.fstat(descriptor).st_size
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            if durable:
                os.fsync(descriptor)
        except OSError as error:
            try:
                os.ftruncate(descriptor, end)
                os.fsync(descriptor)
            except OSError:
                # What stands at the end is not known any more: the next start finds out.
                self._release()
            cause = f"can't be written ({error.strerror}): nothing was recorded"
            raise StatusError(507, self.path, cause, "free some space on its disk, and restart the server") from error

    def sync(self) -> None:
        """Make all records durable, while others are being added."""
        with self._lock:
            descriptor = self._descriptor
        if descriptor is not None:
            os.fsync(descriptor)

    def close(self) -> None:
        """Make all records durable, and close the file."""
        with contextlib.suppress(OSError):
            self.sync()
        with self._lock:
            self._release()

    def _release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def records(self) -> Iterator[Record]:
        """Yield the records that the file holds, oldest first, as far as it is whole."""
        number, head = 0, beginning(self.purpose)
        with self.path.open("rb") as file:
            while (line := file.readline(_LONGEST)).endswith(b"\n"):
                record = _read(line[:-1], number, head)
                if isinstance(record, str):
                    return
                yield record
                number, head = number + 1, record.digest
