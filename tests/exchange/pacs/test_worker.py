"""A processing that hangs or crashes costs one attempt of one study, and no process is left behind."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from benchmarks.listener_parts import environment, wait_for
from exchange import ExchangeError
from exchange.pacs.failures import TransientError
from exchange.pacs.worker import Worker

FACTORY = "tests.exchange.pacs.listening:make_processing"


@pytest.fixture(scope="module")
def told() -> list[str]:
    return []


@pytest.fixture(scope="module")
def worker(told):
    """A worker whose child each test finds as the one before left it."""
    worker = Worker(FACTORY, {}, 60.0, threading.Event(), told.append)
    yield worker
    worker.close()


@pytest.fixture
def process(worker, small, tmp_path):
    """A function of a study's kind that has it processed."""

    def run(kind: str) -> list[Path]:
        images = tmp_path / kind / "1.2.3"
        images.mkdir(parents=True)
        for path in small(images=1):
            path.rename(images / path.name)
        return worker(images.parent, tmp_path)

    return run


def test_the_child_stays_from_study_to_study_and_says_what_it_does(process, told):
    (report,) = process("one")
    assert report.is_file()
    assert process("prints")[0].name == "one.dcm"
    assert process("prints again")
    first, *others = told[-3:]
    assert others == [first, first]


@pytest.mark.parametrize(
    ("kind", "message"),
    [("refused", "a study: is odd: \udcff; mend it"), ("wrong", "processing: ValueError: nothing \n seen")],
)
def test_an_error_comes_back_whole_and_ends_no_child(process, worker, kind, message):
    process("before")
    child = worker._child.pid
    with pytest.raises(ExchangeError) as caught:
        process(kind)
    assert str(caught.value) == message
    assert worker._child.pid == child


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("crashes", "ended by SIGSEGV"),
        ("killed", "ended by SIGKILL.*memory is short"),
        ("leaves", "ended with status 7"),
    ],
)
def test_a_crash_is_that_studys_failure_alone(process, kind, message):
    with pytest.raises(ExchangeError, match=message) as caught:
        process(kind)
    assert not isinstance(caught.value, TransientError)
    assert process("after")


def test_a_child_that_somebody_ends_is_no_failure_of_the_study(process):
    with pytest.raises(TransientError, match="signal from outside"):
        process("ended")


def test_what_hangs_is_ended_at_the_limit(process, worker, monkeypatch):
    process("before")
    child = worker._child.pid
    monkeypatch.setattr(worker, "_limit_s", 0.2)
    with pytest.raises(ExchangeError, match=r"took longer than 0\.2 s") as caught:
        process("hangs")
    assert not isinstance(caught.value, TransientError)
    assert not Path(f"/proc/{child}").exists()


def test_a_stop_gives_the_study_at_hand_a_little_time(process, worker, monkeypatch):
    process("before")
    monkeypatch.setattr("exchange.pacs.worker._GRACE_S", 0.3)
    monkeypatch.setattr(worker, "_stop", threading.Event())
    threading.Timer(0.1, worker._stop.set).start()
    start = time.monotonic()
    with pytest.raises(TransientError, match="is to stop"):
        process("hangs")
    assert 0.3 < time.monotonic() - start < 5


def test_a_start_that_fails_says_why_and_later_is_no_failure_of_a_study(tmp_path):
    worker = Worker("tests.exchange.pacs.listening:make_nothing", {"stones": "sand"}, 60.0, threading.Event())
    with pytest.raises(ExchangeError, match="gallery: is not here; make it of sand") as caught:
        worker.start()
    assert not isinstance(caught.value, TransientError)
    with pytest.raises(TransientError, match="make it of sand"):
        worker(tmp_path, tmp_path)
    assert worker._child is None


PARENT = f"""
import sys, threading
from pathlib import Path
from exchange.pacs.worker import Worker
worker = Worker("{FACTORY}", {{}}, 60.0, threading.Event(), lambda line: print(line, flush=True))
worker(Path("hangs"), Path("x"))
"""


@pytest.mark.parametrize("deaf", [False, True])
def test_no_child_outlives_a_parent_that_is_killed(deaf):
    """`deaf` is a child that can't see its input's end: the kernel ends it."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, env=environment())
    child = int(parent.stdout.readline().split()[1])
    if deaf:
        os.kill(child, signal.SIGSTOP)
    parent.kill()
    parent.wait(10)
    parent.stdout.close()

    def is_gone() -> bool:
        try:
            return Path(f"/proc/{child}/stat").read_text().rpartition(") ")[2][0] in "ZX"
        except OSError:
            return True

    assert wait_for(is_gone, 5)
