"""The processing of studies in a process of its own, which can be ended when it hangs and may crash."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from exchange import ExchangeError
from exchange.pacs.failures import TransientError

_TICK_S = 0.2
_GRACE_S = 10.0  # for the study at hand when we are told to stop
_LARGEST_ANSWER = 4 << 20  # bytes
_ASKED_TO_END = (-signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP)


class Worker:
    """Processes studies in a child process, which holds model and gallery loaded from study to study.

    A study that takes too long, or during which the child dies, is that study's failure; the child is started anew for
    the next one. Where the child can't be started, or ends because it was asked to, it is no study's failure. The child
    never outlives us, see `exchange.pacs.workerchild`. Start it in the thread that uses it.

    Args:
        factory: `module:function` of what makes the processing in the child; it is called with `say` and the options.
        options: The options, plain JSON values.
        limit_s: Seconds that a study, or the start, may take.
        stop: When set, the study at hand is given a few seconds more.
        say: Told of what happens, a line at a time.
    """

    def __init__(
        self,
        factory: str,
        options: Mapping[str, Any],
        limit_s: float,
        stop: threading.Event,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._factory, self._options, self._limit_s = factory, dict(options), limit_s
        self._stop, self._say = stop, say
        self._child: subprocess.Popen[bytes] | None = None
        self._rest = b""

    def start(self) -> None:
        """Start the child and wait until it is ready.

        Raises:
            ExchangeError: It can't be: what it said, or how it ended.
        """
        self.close()
        # The same places of modules as ours, but never the folder that we happen to be in (-P).
        places = [place or str(Path.cwd()) for place in sys.path]
        command = [sys.executable, "-P", "-X", "faulthandler", "-m", "exchange.pacs.workerchild", self._factory]
        self._child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(places)},
        )
        self._rest = b""
        try:
            self._ask(self._options, "the start of the processing")
        except BaseException:
            self.close()
            raise

    def __call__(self, images: Path, work: Path) -> list[Path]:
        """Process a study.

        Args:
            images: Its folder of images.
            work: A folder for what the processing writes.

        Returns:
            The files that it gave.

        Raises:
            TransientError: It was not the study's fault that nothing came of it.
            ExchangeError: It failed, took too long, or took the child down.
        """
        if self._child is None or self._child.poll() is not None:
            try:
                self.start()
            except ExchangeError as error:
                raise TransientError(error.subject, error.cause, error.remedy) from error
        return [Path(name) for name in self._ask({"images": str(images), "work": str(work)}, "processing")]

    def close(self) -> None:
        """End the child."""
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()

    def _ask(self, question: Mapping[str, Any], what: str) -> list[str]:
        """Send a line, and return the files of the answer.

        Raises:
            TransientError: We are to stop, or somebody asked the child to end.
            ExchangeError: The answer is an error, or none came.
        """
        child = self._child
        assert child is not None
        assert child.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended: the answer says how
            child.stdin.write(json.dumps(question).encode() + b"\n")
            child.stdin.flush()
        end = time.monotonic() + self._limit_s
        while True:
            answer = self._answer(end, what)
            if "say" in answer:
                self._say(str(answer["say"]))
            elif "error" in answer:
                raise ExchangeError(*answer["error"])
            else:
                return [str(name) for name in answer["files"]]

    def _answer(self, end: float, what: str) -> dict[str, Any]:
        """Return the child's next line."""
        assert self._child is not None
        assert self._child.stdout is not None
        pipe, poll = self._child.stdout.fileno(), select.poll()
        poll.register(pipe, select.POLLIN)
        stopped_at: float | None = None
        while b"\n" not in self._rest:
            now = time.monotonic()
            if self._stop.is_set():
                stopped_at = stopped_at or now
                if now - stopped_at >= _GRACE_S:
                    self.close()
                    raise TransientError(what, "was cut short, for the listener is to stop")
            if now >= end:
                self.close()
                remedy = "look for what is odd in the study, or raise listen.processing_s"
                raise ExchangeError(what, f"took longer than {self._limit_s:g} s, and was ended", remedy)
            if poll.poll(1000 * min(_TICK_S, end - now)):
                part = os.read(pipe, 1 << 16)
                if not part:
                    raise self._ended(what)
                self._rest += part
            if len(self._rest) > _LARGEST_ANSWER:
                self.close()
                raise ExchangeError(what, f"gave an answer of more than {_LARGEST_ANSWER} bytes")
        line, _, self._rest = self._rest.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _ended(self, what: str) -> ExchangeError:
        """Return how the child ended."""
        assert self._child is not None
        try:
            status = self._child.wait(_TICK_S)
        except subprocess.TimeoutExpired:  # it closed its end, and goes on
            self._child.kill()
            status = self._child.wait()
        self.close()
        remedy = "see what it wrote to standard error"
        if status in _ASKED_TO_END:
            return TransientError(what, "was ended by a signal from outside")
        if status < 0:
            name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
            memory = ", as Linux does where memory is short" if -status == signal.SIGKILL else ""
            return ExchangeError(
                what, f"its process was ended by {name}{memory}", "see what it wrote to standard error"
            )
        return ExchangeError(what, f"its process ended with status {status}", remedy)
