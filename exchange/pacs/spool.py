"""The spool: studies that were received, and what became of each, in files that outlive a kill at any moment.

    <spool>/lock
    <spool>/studies/<study>/images/<series>/<instance>.dcm         what was received
    <spool>/studies/<study>/state.json                             its state; not there: it is being received
    <spool>/studies/<study>/results/<round>/<number>-<uid>.dcm     what processing gave, in place in one step
    <spool>/studies/<study>/sent.jsonl                             journal of what was sent
    <spool>/studies/<study>/round, work                            while it is processed

A study goes receiving -> complete -> processed -> sent -> emptied, or ends as failed. Each step is one file or folder
that is renamed into place after it is durable, so that a kill leaves the state before or the one after. The images
that a round covers stand in `state.json`: when it is done and others are there, a new round begins.

A study is emptied in this order: the SHA-256 of its images is written into `state.json` with the phase `emptied`, then
the images are renamed away in one step, then all is deleted. An image of an emptied study that is there all the same,
because a kill came in between or because it was sent again, is compared with these digests when the study is complete:
where all are known nothing new came, and they go again; else a new round begins with all that is there.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

from errors import MammoseekError
from exchange import ExchangeError
from exchange.pacs import studystate
from exchange.pacs.instances import Instance, safe_name
from exchange.pacs.journal import Journal
from exchange.pacs.studystate import IMAGES, PHASES, RESULTS, ROUND, STATE_FILE, WORK, Phase, StudyState
from index.durable import TEMPORARY_SUFFIX, WriterLock, make_folder, sync_folder, write_whole


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
        """Remove what a kill left unfinished: nobody was told that it is there, or it was to be deleted."""
        for pattern in ("*", "*/*", f"*/{IMAGES}/*/*", f"*/{RESULTS}/*"):
            for half in self._studies.glob(f"{pattern}{TEMPORARY_SUFFIX}"):
                if half.is_dir() and not half.is_symlink():
                    shutil.rmtree(half, ignore_errors=True)
                else:
                    half.unlink(missing_ok=True)

    def names(self) -> list[str]:
        """Return the names of all studies, sorted."""
        return studystate.names(self._studies)

    def folder(self, name: str) -> Path:
        """Return a study's folder of images."""
        return self._studies / name / IMAGES

    def journal(self, name: str) -> Path:
        """Return a study's journal of what was sent."""
        return self._studies / name / "sent.jsonl"

    def add(self, instance: Instance, data: bytes) -> tuple[str, bool]:
        """Keep an image durably; one that comes again with other bytes takes the place of the first.

        What we made of the study ourselves, and an archive sends back with it, is nothing new and is not kept.

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
            if self._is_ours(name, instance.sop_uid):
                return name, False
            if shutil.disk_usage(self._studies).free - len(data) < self._free_bytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            make_folder(path.parent)
            write_whole(path, data)
        return name, True

    def _is_ours(self, name: str, sop_uid: str) -> bool:
        results = (self._studies / name / RESULTS).glob(f"*/*-{safe_name(sop_uid)}.dcm")
        if next(results, None) is not None:
            return True
        with contextlib.suppress(ExchangeError):  # a damaged journal keeps no image out
            return Journal(self.journal(name)).names(sop_uid)
        return False

    def images(self, name: str) -> dict[str, str]:
        """Return a study's images: relative path to a mark of the file's version."""
        return studystate.images(self._studies / name)

    def state(self, name: str) -> StudyState:
        """Return what became of a study. What is done is being received again when it has other images than it had."""
        return studystate.study_state(self._studies / name)

    def _read(self, name: str) -> StudyState:
        return studystate.written_state(self._studies / name)

    def _write(self, name: str, state: StudyState) -> StudyState:
        write_whole(self._studies / name / STATE_FILE, json.dumps(asdict(state), indent=1).encode())
        return state

    # -------------------------------------------------------------------------------------------------- rounds

    def complete(self, name: str) -> StudyState:
        """Begin a round with the images that are there."""
        with self._guard:
            state = self.state(name)
            begun = max([state.round, *studystate.rounds(self._studies / name)])
            return self._write(name, StudyState("complete", begun + 1, self.images(name), known=state.known))

    def view(self, name: str) -> Path:
        """Return the folder of exactly those images that a study's round covers, while it is processed."""
        return self._studies / name / ROUND

    def work(self, name: str) -> Path:
        """Return a folder for what the processing of a study's round writes; it is deleted when the round is done."""
        return self._studies / name / WORK

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
            self.work(name).mkdir(exist_ok=True)
            return self._write(name, replace(state, covered=covered, interruptions=state.interruptions + 1))

    def results(self, name: str) -> list[Path] | None:
        """Return what this round's processing gave; None where it has not ended."""
        folder = self._results_folder(name)
        return sorted(folder.glob("*.dcm")) if folder.is_dir() else None

    def _results_folder(self, name: str) -> Path:
        return self._studies / name / RESULTS / str(self._read(name).round)

    def record(self, name: str, results: Mapping[str, bytes]) -> StudyState:
        """Keep what this round's processing gave, SOP Instance UIDs and files, all in one step."""
        folder = self._results_folder(name)
        if not folder.is_dir():
            half = folder.with_name(f"{folder.name}{TEMPORARY_SUFFIX}")
            shutil.rmtree(half, ignore_errors=True)
            make_folder(half)
            for number, (sop_uid, data) in enumerate(results.items()):
                write_whole(half / f"{number:04d}-{safe_name(sop_uid)}.dcm", data)
            half.rename(folder)
            sync_folder(folder.parent)
        return self.processed(name)

    def processed(self, name: str) -> StudyState:
        """Note that this round's results are there; what the processing worked with goes."""
        self._delete(name, ROUND, WORK)
        state = self._read(name)
        return self._write(name, replace(state, phase="processed", failures=0, reason="", failed_at=""))

    def sent(self, name: str) -> StudyState:
        """Note that this round's results are all sent."""
        state = self._read(name)
        return self._write(name, replace(state, phase="sent", reason="", failed_at="", sent_at=time.time()))

    def refused(self, name: str, at: Literal["processing", "sending"], reason: str, attempts: int) -> StudyState:
        """Note a failure; the study has failed when it is the last of so many attempts."""
        state = self._read(name)
        failures = state.failures + 1
        phase: Phase = "failed" if failures >= attempts else state.phase
        changed = replace(state, phase=phase, failures=failures, interruptions=0, reason=reason[:2000], failed_at=at)
        return self._write(name, changed)

    def postponed(self, name: str) -> StudyState:
        """Note that the processing was cut short by none of the study's fault."""
        state = self._read(name)
        return self._write(name, replace(state, interruptions=max(state.interruptions - 1, 0)))

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
        counts: dict[str, int] = dict.fromkeys(PHASES, 0)
        for name in self.names():
            with contextlib.suppress(OSError):
                counts[self.state(name).phase] += 1
        return counts

    # ------------------------------------------------------------------------------------------------ emptying

    def empty(self, name: str) -> bool:
        """Delete the images and results of a study that was sent, and remember its images by their digests.

        Returns:
            Whether it is emptied; not where it was not sent, or an image came in between.
        """
        if self._read(name).phase == "emptied":
            self._delete(name, RESULTS, ROUND, WORK)  # a kill may have left them
            return not self.images(name)
        marks, digests = self._digests(name)
        with self._guard:
            state = self.state(name)
            if state.phase != "sent" or self.images(name) != marks:
                return False
            known = {**state.known, **digests}
            self._write(name, StudyState("emptied", state.round, sent_at=state.sent_at, known=known))
            gone = self._set_aside(name, IMAGES)
        shutil.rmtree(gone, ignore_errors=True)
        self._delete(name, RESULTS, ROUND, WORK)
        return True

    def nothing_new(self, name: str) -> bool:
        """Delete the images of an emptied study again where all of them are known; tell whether they were."""
        state = self._read(name)
        if state.phase != "emptied":
            return False
        while True:
            marks, digests = self._digests(name)
            if any(state.known.get(path) != digest for path, digest in digests.items()):
                return False
            with self._guard:
                if self.images(name) != marks:
                    continue  # an image came in between
                gone = self._set_aside(name, IMAGES)
            shutil.rmtree(gone, ignore_errors=True)
            return True

    def remove(self, name: str, phase: Literal["failed", "emptied"]) -> bool:
        """Delete all of a study that is in a phase, so that nothing is known of it any more; tell whether it was.

        Raises:
            OSError: It can't be deleted.
        """
        with self._guard:
            if self.state(name).phase != phase:
                return False
            gone = self._set_aside(name, "")
        shutil.rmtree(gone)
        return True

    def sent_at(self, name: str) -> float:
        """Return when a study was sent, in seconds since 1970."""
        # The state of an older spool does not say, but was written then.
        return self._read(name).sent_at or (self._studies / name / STATE_FILE).stat().st_mtime

    def _digests(self, name: str) -> tuple[dict[str, str], dict[str, str]]:
        """Return marks and SHA-256 of a study's images; marks that are still the same afterwards vouch for both."""
        marks = self.images(name)
        digests = {}
        for relative in marks:
            with (self.folder(name) / relative).open("rb") as file:
                digests[relative] = hashlib.file_digest(file, "sha256").hexdigest()
        return marks, digests

    def _set_aside(self, name: str, part: str) -> Path:
        """Rename a folder of a study, or the study, to a name that the next start removes, and return that."""
        path = self._studies / name / part
        aside = path.with_name(f"{path.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
        if path.exists():
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
            sync_folder(aside.parent)
        return aside

    def _delete(self, name: str, *parts: str) -> None:
        for part in parts:
            shutil.rmtree(self._studies / name / part, ignore_errors=True)
