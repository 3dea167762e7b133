"""The listener: receives studies, has each one processed, and sends what that gives.

What is promised. An image is on disk before its sender is told so. Every study that is complete is processed at least
once, killed in between or not. What processing gave is kept before any of it is sent, so that a result which is sent
twice - only when we are killed between the archive's answer and the journal's line - is the same bytes under the same
SOP Instance UID, which an archive keeps once: at least once on the wire, once in the archive.
"""

import dataclasses
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from exchange import ExchangeError
from exchange.pacs.config import PacsConfig, Retries
from exchange.pacs.failures import TransientError
from exchange.pacs.instances import Instance, identify_file
from exchange.pacs.receiving import Receiver, start_receiver
from exchange.pacs.retention import Retention
from exchange.pacs.spool import Spool
from exchange.pacs.storing import store

Process = Callable[[Path, Path], Sequence[Path]]
"""Is given a study's folder of images and a folder to write to, and returns the DICOM files to send."""

_INTERRUPTIONS = 25  # processings of a study that took the whole process down, before it is left alone
_LONGEST_TICK_S = 0.5


class Listener:
    """Receives, processes and sends until it is told to stop.

    Args:
        config: Our receiver (`listen`), and the PACS that results are sent to.
        process: Is given a study's folder of images, `<series>/<instance>.dcm`, and a folder of its own, which is
            deleted when what it returns is kept: the DICOM files to send. What it raises is that study's failure, but
            for `TransientError`. It is called in one thread, one study at a time, and may be called again for a study
            whose processing was cut short. A study that gets further images is processed again. One that may hang
            or crash belongs in a `Worker`.
        say: Told of what happens, a line at a time.

    Raises:
        ExchangeError: The spool is in use, or can't be written to.
    """

    def __init__(self, config: PacsConfig, process: Process, say: Callable[[str], None] = lambda line: None) -> None:
        self._config = config
        # Waits are kept here, where they can be ended, and do not hold up other studies.
        self._sending = dataclasses.replace(config, retries=Retries(count=0))
        self._process = process
        self._say = say
        self._spool = Spool(Path(config.listen.spool), int(config.limits.free_mib * (1 << 20)))
        self._retention = Retention(self._spool, config.listen, say)
        self._guard = threading.Lock()
        self._active: set[str] = set()
        self._due: dict[str, float] = {}
        self._delays: dict[str, int] = {}
        self._stopping = threading.Event()

    def retry_failed(self) -> list[str]:
        """Have the studies that failed tried again; return their names."""
        return self._spool.retry_failed()

    def run(self, stop: threading.Event, started: Callable[[int], None] = lambda port: None) -> None:
        """Work until `stop` is set; then let the processing at hand come to its end, and return.

        Args:
            stop: Ends the work.
            started: Told the port, when callers are listened to.

        Raises:
            ExchangeError: The port can't be listened on.
        """
        listen = self._config.listen
        receiver: Receiver | None = None
        sender = threading.Thread(target=self._send_all, name="mammoseek-sender", daemon=True)
        try:
            for name in self._spool.names():
                if self._spool.state(name).phase not in ("sent", "failed", "emptied"):
                    self._arrived(name)
            receiver = start_receiver(
                listen, listen.callers, self._keep, self._say, self._config.limits, self._config.timeouts
            )
            self._say(f"Listening as {listen.ae_title} on {listen.host}:{receiver.port}")
            started(receiver.port)
            sender.start()
            tick = min(listen.idle_s / 4, _LONGEST_TICK_S)
            while not stop.wait(tick):
                self._each_due(("receiving", "complete"), self._advance, stop)
        finally:
            self._stopping.set()
            if receiver is not None:
                receiver.stop()
            if sender.is_alive():
                sender.join()
            self._spool.close()

    # --------------------------------------------------------------------------------------------- receiving

    def _keep(self, instance: Instance, data: bytes) -> None:
        name, is_new = self._spool.add(instance, data)
        if is_new:
            self._arrived(name)

    def _arrived(self, name: str) -> None:
        with self._guard:
            self._active.add(name)
            if self._delays.get(name, 0) == 0:
                self._due[name] = time.monotonic() + self._config.listen.idle_s

    def _each_due(self, phases: tuple[str, ...], action: Callable[[str, str], None], stop: threading.Event) -> None:
        now = time.monotonic()
        with self._guard:
            names = sorted((name for name in self._active if self._due[name] <= now), key=lambda name: self._due[name])
        for name in names:
            if stop.is_set():
                return
            try:
                phase = self._spool.state(name).phase
                if phase in phases:
                    action(name, phase)
            except OSError as error:
                self._say(f"{name}: the spool can't be written ({error.strerror}); trying again")
                self._wait(name)

    def _wait(self, name: str) -> None:
        with self._guard:
            self._delays[name] = self._delays.get(name, 0) + 1
            self._due[name] = time.monotonic() + self._config.retries.wait_s(self._delays[name])

    def _go_on(self, name: str) -> None:
        with self._guard:
            self._delays.pop(name, None)
            self._due[name] = time.monotonic()

    def _done(self, name: str) -> None:
        """Leave a study alone, unless an image came that its round does not cover."""
        with self._guard:
            self._delays.pop(name, None)
            if self._spool.state(name).phase == "receiving":
                self._due[name] = time.monotonic() + self._config.listen.idle_s
            else:
                self._active.discard(name)
                self._due.pop(name, None)

    # -------------------------------------------------------------------------------------------- processing

    def _advance(self, name: str, phase: str) -> None:
        if phase == "receiving":
            with self._guard:
                if self._due[name] > time.monotonic():
                    return  # an image came just now
            if not self._spool.images(name):
                self._leave(name)
                return
            if self._spool.nothing_new(name):
                self._say(f"{name}: came again as it was sent, which gives nothing new")
                self._leave(name)
                return
            state = self._spool.complete(name)
            self._say(f"{name}: complete with {len(state.covered)} images (round {state.round})")
        if self._spool.results(name) is not None:
            self._spool.processed(name)  # we were killed between the results and the note of them
            self._go_on(name)
            return
        if self._spool.state(name).interruptions >= _INTERRUPTIONS:
            self._failed(name, "processing", f"its processing was cut short {_INTERRUPTIONS} times", attempts=1)
            return
        self._spool.begin(name)
        try:
            results = self._run(name)
        except TransientError as error:
            self._spool.postponed(name)
            self._say(f"{name}: processing did not come to its end, trying again: {error}")
            self._wait(name)
            return
        except ExchangeError as error:
            self._failed(name, "processing", str(error), self._config.listen.attempts)
            return
        self._spool.record(name, results)
        self._say(f"{name}: processed, {len(results)} results")
        self._go_on(name)

    def _run(self, name: str) -> dict[str, bytes]:
        """Return the files that the processing gave, by SOP Instance UID.

        Raises:
            TransientError: It was ended for no fault of the study.
            ExchangeError: It failed, or gave something else than DICOM files.
        """
        try:
            files = [Path(path) for path in self._process(self._spool.view(name), self._spool.work(name))]
        except ExchangeError:
            raise
        except (Exception, SystemExit) as error:
            raise ExchangeError("processing", f"{type(error).__name__}: {error}") from error
        largest = self._config.limits.instance_bytes
        return {instance.sop_uid: data for instance, data in (identify_file(path, largest) for path in files)}

    def _failed(self, name: str, at: str, reason: str, attempts: int) -> None:
        step = "sending" if at == "sending" else "processing"
        state = self._spool.refused(name, step, reason, attempts)  # type: ignore[arg-type]
        if state.phase == "failed":
            self._say(f"{name}: failed in {step}: {reason}")
            self._done(name)
        else:
            self._say(f"{name}: {step} failed, {state.failures} of {attempts} times: {reason}")
            self._wait(name)

    def _leave(self, name: str) -> None:
        """Leave a study alone that has no images, unless one came just now."""
        with self._guard:
            if self._spool.images(name):
                return
            self._active.discard(name)
            self._due.pop(name, None)

    # ----------------------------------------------------------------------------------------------- sending

    def _send_all(self) -> None:
        tick = min(self._config.listen.idle_s / 4, _LONGEST_TICK_S)
        while not self._stopping.wait(tick):
            self._each_due(("processed",), self._send, self._stopping)
            self._retention.go_on()

    def _send(self, name: str, _phase: str) -> None:
        files = self._spool.results(name) or []
        try:
            outcome = store(self._sending, files, self._spool.journal(name)) if files else None
        except ExchangeError as error:
            self._say(f"{name}: can't be sent, trying again: {error}")
            self._wait(name)
            return
        if outcome is None or not outcome.failures:
            self._spool.sent(name)
            self._say(f"{name}: sent to {self._config.target}")
            self._done(name)
            self._retention.look_at(name)
        elif outcome.transient:
            self._say(f"{name}: can't be sent, trying again: {outcome.failures[0][1]}")
            self._wait(name)
        else:
            self._failed(name, "sending", outcome.failures[0][1], self._config.listen.attempts)
