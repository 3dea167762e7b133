"""The spool: studies that were received, and what became of each, in files that outlive a kill at any moment.

    <spool>/lock
    <spool>/studies/<study>/images/<series>/<instance>.dcm    what was received
    <spool>/studies/<study>/state.json                        its state; not there: it is being received
    <spool>/studies/<study>/results/<round>/<number>.dcm      what processing gave, in place in one step
    <spool>/studies/<study>/sent.jsonl                        journal of what was sent

A study goes receiving -> complete -> processed -> sent, or ends as failed. Each step is one file or folder that is
renamed into place after it is durable, so that a kill leaves the state before or the one after. The images that a
round covers stand in `state.json`: when it is done and others are there, a new round begins.
"""

import contextlib
import errno
import json
import os
import shutil
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

from errors import MammoseekError
from exchange import ExchangeError
from exchange.pacs.instances import Instance, safe_name
from index.durable import TEMPORARY_SUFFIX, WriterLock, make_folder, sync_folder, write_whole

Phase = Literal["receiving", "complete", "processed", "sent", "failed"]

_PHASES: tuple[Phase, ...] = get_args(Phase)
_STATE_FILE = "state.json"


@dataclass(frozen=True)
class StudyState:
    """What became of a study.

    Args:
        phase: Where it is.
        round: Which processing of the study, from 1.
        covered: Its images of this round: relative path to a mark of the file's version.
        failures: How often this round's processing, or the sending of it, was refused.
        interruptions: How often the processing was begun and not ended.
        reason: What failed last.
        failed_at: The step that failed.
    """

    phase: Phase = "receiving"
    round: int = 0
    covered: dict[str, str] = field(default_factory=dict)
    failures: int = 0
    interruptions: int = 0
    reason: str = ""
    failed_at: Literal["", "processing", "sending"] = ""


class Spool:
    """A spool, held by one process at a time.

    Args:
        folder: Its folder; is made where it is not there, for its owner alone.
        free_bytes: What must stay free on its disk.

    Raises:
        ExchangeError: Another process holds it, or it can't be written to.
    """

    def __init__(self, folder: Path, free_bytes: int = 0) -> None:
        self._studies = folder / "studies"
        self._free_bytes = free_bytes
        self._guard = threading.Lock()
        try:
            if not folder.exists():
                make_folder(folder)
                folder.chmod(0o700)
            make_folder(self._studies)
            self._lock = WriterLock(folder / "lock")
            self._lock.acquire()
        except MammoseekError as error:
            cause, remedy = "the spool is in use, or can't be locked", "stop the other listener, or name another spool"
            raise ExchangeError(folder, cause, remedy) from error
        except OSError as error:
            raise ExchangeError(
                folder, f"can't be used as a spool ({error.strerror})", "check its permissions"
            ) from error
        self._remove_halves()

    def close(self) -> None:
        """Let another process have it."""
        self._lock.release()

    def _remove_halves(self) -> None:
        """Remove what a kill left unfinished; nobody was told that it is there."""
        for pattern in (f"*/*{TEMPORARY_SUFFIX}", f"*/images/*/*{TEMPORARY_SUFFIX}", f"*/results/*{TEMPORARY_SUFFIX}"):
            for half in self._studies.glob(pattern):
                if half.is_dir() and not half.is_symlink():
                    shutil.rmtree(half, ignore_errors=True)
                else:
                    half.unlink(missing_ok=True)

    def names(self) -> list[str]:
        """Return the names of all studies, sorted."""
        return sorted(entry.name for entry in os.scandir(self._studies) if entry.is_dir(follow_symlinks=False))

    def folder(self, name: str) -> Path:
        """Return a study's folder of images."""
        return self._studies / name / "images"

    def journal(self, name: str) -> Path:
        """Return a study's journal of what was sent."""
        return self._studies / name / "sent.jsonl"

    def add(self, instance: Instance, data: bytes) -> tuple[str, bool]:
        """Keep an image durably; one that comes again with other bytes takes the place of the first.

        Returns:
            Its study's name, and whether it is new.

        Raises:
            OSError: It can't be written, or too little of the disk would stay free: nothing is changed.
        """
        name = safe_name(instance.study_uid)
        path = self.folder(name) / instance.path.relative_to(name)
        with self._guard:
            if path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data:
                return name, False
            if shutil.disk_usage(self._studies).free - len(data) < self._free_bytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            make_folder(path.parent)
            write_whole(path, data)
        return name, True

    def images(self, name: str) -> dict[str, str]:
        """Return a study's images: relative path to a mark of the file's version."""
        home = self.folder(name)
        found = {}
        for path in home.glob("*/*.dcm"):
            status = path.stat()
            found[path.relative_to(home).as_posix()] = f"{status.st_size}-{status.st_mtime_ns}"
        return dict(sorted(found.items()))

    def state(self, name: str) -> StudyState:
        """Return what became of a study. What is done is being received again when it has other images than it had."""
        state = self._read(name)
        if state.phase in ("sent", "failed") and state.covered != self.images(name):
            return StudyState(round=state.round)
        return state

    def _read(self, name: str) -> StudyState:
        try:
            content = json.loads((self._studies / name / _STATE_FILE).read_bytes())
            state = StudyState(**content)
            counts = (state.round, state.failures, state.interruptions)
            if state.phase not in _PHASES or type(state.covered) is not dict or {type(one) for one in counts} != {int}:
                raise ValueError(_STATE_FILE)
            return state
        except FileNotFoundError:
            return StudyState()
        except (OSError, ValueError, TypeError, RecursionError):
            # Not ours or damaged: the images are there, and are processed again.
            return StudyState(round=max(self._rounds(name), default=0))

    def _rounds(self, name: str) -> list[int]:
        results = self._studies / name / "results"
        return [int(path.name) for path in results.glob("*") if path.name.isdecimal()] if results.is_dir() else []

    def _write(self, name: str, state: StudyState) -> StudyState:
        write_whole(self._studies / name / _STATE_FILE, json.dumps(asdict(state), indent=1).encode())
        return state

    def complete(self, name: str) -> StudyState:
        """Begin a round with the images that are there."""
        with self._guard:
            begun = max([self.state(name).round, *self._rounds(name)], default=0)
            return self._write(name, StudyState("complete", begun + 1, self.images(name)))

    def view(self, name: str) -> Path:
        """Return the folder of exactly those images that a study's round covers, while it is processed."""
        return self._studies / name / "round"

    def begin(self, name: str) -> StudyState:
        """Note that the processing begins, before it does: what kills us is counted as well.

        The round covers what is there now. An image that comes later is not seen by it, and begins a new one.
        """
        with self._guard:
            state, view = self._read(name), self.view(name)
            shutil.rmtree(view, ignore_errors=True)
            covered = self.images(name)
            for relative in covered:
                (view / relative).parent.mkdir(parents=True, exist_ok=True)
                os.link(self.folder(name) / relative, view / relative)
            return self._write(name, replace(state, covered=covered, interruptions=state.interruptions + 1))

    def results(self, name: str) -> list[Path] | None:
        """Return what this round's processing gave; None where it has not ended."""
        folder = self._results_folder(name)
        return sorted(folder.glob("*.dcm")) if folder.is_dir() else None

    def _results_folder(self, name: str) -> Path:
        return self._studies / name / "results" / str(self._read(name).round)

    def record(self, name: str, results: Sequence[bytes]) -> StudyState:
        """Keep what this round's processing gave, all in one step."""
        folder = self._results_folder(name)
        if not folder.is_dir():
            half = folder.with_name(f"{folder.name}{TEMPORARY_SUFFIX}")
            shutil.rmtree(half, ignore_errors=True)
            make_folder(half)
            for number, data in enumerate(results):
                write_whole(half / f"{number:04d}.dcm", data)
            half.rename(folder)
            sync_folder(folder.parent)
        shutil.rmtree(self.view(name), ignore_errors=True)
        return self.processed(name)

    def processed(self, name: str) -> StudyState:
        """Note that this round's results are there."""
        state = self._read(name)
        return self._write(name, replace(state, phase="processed", failures=0, reason="", failed_at=""))

    def sent(self, name: str) -> StudyState:
        """Note that this round's results are all sent."""
        return self._write(name, replace(self._read(name), phase="sent", reason="", failed_at=""))

    def refused(self, name: str, at: Literal["processing", "sending"], reason: str, attempts: int) -> StudyState:
        """Note a failure; the study has failed when it is the last of so many attempts."""
        state = self._read(name)
        failures = state.failures + 1
        phase: Phase = "failed" if failures >= attempts else state.phase
        changed = replace(state, phase=phase, failures=failures, interruptions=0, reason=reason[:2000], failed_at=at)
        return self._write(name, changed)

    def retry_failed(self) -> list[str]:
        """Have the studies that failed tried again, from the step that failed; return their names."""
        names = []
        for name in self.names():
            state = self.state(name)
            if state.phase == "failed":
                phase: Phase = "processed" if state.failed_at == "sending" else "complete"
                self._write(name, replace(state, phase=phase, failures=0, interruptions=0))
                names.append(name)
        return names

    def counts(self) -> dict[str, int]:
        """Return how many studies are in each phase."""
        counts: dict[str, int] = dict.fromkeys(_PHASES, 0)
        for name in self.names():
            with contextlib.suppress(OSError):
                counts[self.state(name).phase] += 1
        return counts
