"""What a triage has answered so far: a file of one JSON line each, which a kill can cut but not spoil.

The first line says what the answers depend on. A triage that was stopped goes on with what is missing; one of other
detections, another gallery or other options is refused. A line that a kill cut short is dropped and answered again.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Self

from exchange import ExchangeError
from index.durable import make_folder, storage_error, sync_folder

_LONGEST_LINE = 16 << 20  # bytes of one answer


class Worklist:
    """Answers by the id of what they answer, in the order in which they came.

    Args:
        path: The file.
        plan: All that the answers depend on, as plain JSON values.

    Raises:
        ExchangeError: The file is of another plan, is none, or can't be written.
    """

    def __init__(self, path: Path, plan: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self.plan = json.loads(json.dumps(plan))
        self._file: IO[bytes] | None = None
        try:
            make_folder(self.path.parent)
            end = self._check()
            # Unbuffered: what is written is what a reader finds.
            self._file = self.path.open("r+b" if end else "wb", buffering=0)
            if end:
                self._file.truncate(end)
                self._file.seek(end)
            else:
                self._write(self.plan)
                sync_folder(self.path.parent)
        except OSError as error:
            raise self._refused(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def answered(self) -> set[str]:
        """Return the ids that have an answer."""
        return {str(answer["id"]) for answer in self}

    def append(self, answers: Sequence[Mapping[str, Any]]) -> None:
        """Add answers; they are durable when this returns.

        Args:
            answers: Plain JSON values, each with an `id`.

        Raises:
            ExchangeError: The disk is full or can't be written; what stood there before is whole.
        """
        try:
            self._write(*answers)
        except OSError as error:
            raise self._refused(error) from error

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the answers, one at a time from the file."""
        for number, line in enumerate(self._lines()):
            if number:
                yield json.loads(line)

    def _write(self, *values: Mapping[str, Any]) -> None:
        assert self._file is not None
        start = self._file.tell()
        lines = b"".join(map(_line, values))
        try:
            view = memoryview(lines)
            while view:
                view = view[self._file.write(view) :]
            os.fsync(self._file.fileno())
        except OSError:
            self._file.truncate(start)
            self._file.seek(start)
            raise

    def _lines(self) -> Iterator[bytes]:
        """Yield the whole lines of the file."""
        with self.path.open("rb") as file:
            while line := file.readline(_LONGEST_LINE):
                if not line.endswith(b"\n"):
                    return
                yield line

    def _check(self) -> int:
        """Return where the last whole answer ends; 0 where nothing is there yet."""
        if not self.path.exists():
            return 0
        end = 0
        try:
            for line in self._lines():
                content = json.loads(line)
                if not end and content != self.plan:
                    given = content if isinstance(content, dict) else {}
                    other = ", ".join(name for name in self.plan if given.get(name) != self.plan[name])
                    raise ExchangeError(
                        self.path,
                        f"holds the answers of a triage with another {other or 'plan'}",
                        "choose another folder, or delete this file to begin anew",
                    )
                if end and not (isinstance(content, dict) and isinstance(content.get("id"), str)):
                    raise ValueError("an answer without its id")
                end += len(line)
        except (ValueError, RecursionError) as error:
            raise ExchangeError(
                self.path, f"is damaged ({error})", "delete this file to answer everything again"
            ) from error
        if not end and not _line(self.plan).startswith(self.path.read_bytes()[:_LONGEST_LINE]):
            raise ExchangeError(self.path, "is no triage's file", "choose another folder, or delete this file first")
        return end

    def _refused(self, error: OSError) -> ExchangeError:
        reason = storage_error(self.path, error)
        return ExchangeError(self.path, reason.cause, reason.remedy)


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, allow_nan=False).encode() + b"\n"
