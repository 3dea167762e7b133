"""The process that processes studies: `python -m exchange.pacs.workerchild module:function`, started by a `Worker`.

It is told by lines of JSON on its standard input, and answers by lines of JSON on what was its standard output; what
libraries print goes to standard error. The first line holds the options of the function, which returns the processing.

It ends with its parent, however that ends: the kernel kills it (Linux), and a thread that waits for the end of its
standard input ends it elsewhere.
"""

import contextlib
import ctypes
import importlib
import json
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from errors import MammoseekError

_SET_PARENT_DEATH_SIGNAL = 1  # prctl(2), PR_SET_PDEATHSIG
_FIRST_TO_GO = "300"  # added to the badness by which Linux chooses whom to kill for memory: us before the listener


def main(factory: str) -> None:
    """Process studies until the parent ends or asks for no more."""
    _follow_parent()
    answers = os.fdopen(os.dup(1), "w", encoding="ascii", errors="strict")
    os.dup2(2, 1)
    guard = threading.Lock()

    def answer(**content: Any) -> None:
        with guard:
            answers.write(json.dumps(content) + "\n")
            answers.flush()

    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(lines,), daemon=True).start()
    process = _answered(answer, lambda: _made(factory, json.loads(lines.get()), lambda line: answer(say=line)))
    if process is None:
        return
    answer(files=[])
    while True:
        told = json.loads(lines.get())
        images, work = Path(told["images"]), Path(told["work"])
        files = _answered(answer, lambda: [str(path) for path in process(images, work)])  # noqa: B023
        if files is not None:
            answer(files=files)


def _made(factory: str, options: dict[str, Any], say: Callable[[str], None]) -> Callable[[Path, Path], Any]:
    module, _, name = factory.partition(":")
    made: Callable[[Path, Path], Any] = getattr(importlib.import_module(module), name)(say=say, **options)
    return made


def _answered(answer: Callable[..., None], action: Callable[[], Any]) -> Any:
    """Return what an action returns; None where it failed, which is answered."""
    try:
        return action()
    except MammoseekError as error:
        answer(error=[error.subject, error.cause, error.remedy])
    except (Exception, SystemExit) as error:  # whatever it is, it is one study's failure
        traceback.print_exc()
        answer(error=["processing", f"{type(error).__name__}: {error}", ""])
    return None


def _listen(lines: "queue.SimpleQueue[str]") -> None:
    for line in sys.stdin:
        lines.put(line)
    os._exit(0)


def _follow_parent() -> None:
    parent = os.getppid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches us too; the parent decides
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text(_FIRST_TO_GO)
        if os.getppid() != parent:
            os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
