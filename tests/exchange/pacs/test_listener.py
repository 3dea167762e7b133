"""A study that arrives is processed and sent, whatever happens in between."""

import dataclasses
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest

from benchmarks.listener_parts import (
    KilledListener,
    environment,
    phases,
    read_report,
    send_all,
    what_was_sent,
    write_configuration,
)
from exchange.pacs.config import PacsConfig
from exchange.pacs.failures import TransientError
from exchange.pacs.listener import Listener, Process
from exchange.pacs.spool import Spool
from exchange.pacs.storing import store
from tests.exchange.pacs.listening import make_report

STUDIES = 30
KILLS = 5


def wait_for(holds: Callable[[], object], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.02)


@dataclasses.dataclass
class Running:
    """A listener that runs in this process."""

    listener: Listener
    target: PacsConfig  # reaches it
    lines: list[str]
    end: Callable[[], None]


@pytest.fixture
def listen(configure, free_port, tmp_path) -> Iterator[Callable[..., Running]]:
    """A function of a processing and of tables that starts a listener."""
    ends: list[Callable[[], None]] = []

    def start(process: Process, listening: dict[str, Any], **tables: Any) -> Running:
        table = {
            "spool": str(tmp_path / "spool"),
            "port": free_port(),
            "idle_s": 0.2,
            "callers": ["SENDER"],
            **listening,
        }
        config = configure(listen=table, **tables)
        stop, ready, lines = threading.Event(), threading.Event(), []
        listener = Listener(config, process, lines.append)
        thread = threading.Thread(target=listener.run, args=(stop, lambda port: ready.set()))
        thread.start()

        def end() -> None:
            stop.set()
            thread.join(30)
            assert not thread.is_alive()

        ends.append(end)
        assert ready.wait(10)
        peer = {"host": "127.0.0.1", "port": table["port"], "called_ae": "MAMMOSEEK", "calling_ae": "SENDER"}
        return Running(listener, configure(dimse=peer), lines, end)

    yield start
    for end in ends:
        end()


def phase(running: Running, study: str) -> str:
    return running.listener._spool.state(study).phase


def test_each_study_is_processed_once_and_its_report_sent_once(listen, start_sink, small, tmp_path):
    sink = start_sink()
    # However slowly the images come: a study that rests in between is processed twice, and rightly.
    running = listen(make_report, {"idle_s": 1.5}, **sink.tables)
    files = [*small("1.2.3", 3), *small("1.2.4", 1)]
    assert store(running.target, files).failures == []
    wait_for(lambda: [phase(running, study) for study in ("1.2.3", "1.2.4")] == ["sent", "sent"])
    assert len(sink.uids) == len(set(sink.uids)) == 2
    for path in files:
        kept = running.listener._spool.folder(path.stem.partition("-")[0]).rglob(
            f"{pydicom.dcmread(path).SOPInstanceUID}.dcm"
        )
        assert pydicom.dcmread(next(kept)).PixelData == pydicom.dcmread(path).PixelData


def test_a_further_image_begins_a_new_round_and_a_repeated_one_does_not(listen, start_sink, small, tmp_path):
    sink = start_sink()
    rounds: list[int] = []

    def process(images: Path, work: Path) -> list[Path]:
        rounds.append(len(list(images.glob("*/*.dcm"))))
        return make_report(images, work)

    running = listen(process, {}, **sink.tables)
    files = small("1.2.3", 2)
    store(running.target, files)
    wait_for(lambda: phase(running, "1.2.3") == "sent")
    store(running.target, files)
    time.sleep(0.8)
    assert rounds == [2]
    store(running.target, small("1.2.3", 1, first=3))
    wait_for(lambda: rounds == [2, 3] and phase(running, "1.2.3") == "sent")
    # One that was corrected under the same UID is something new as well.
    store(running.target, small("1.2.3", 1, first=3, PatientID="W8"))
    wait_for(lambda: rounds == [2, 3, 3] and phase(running, "1.2.3") == "sent")
    assert len(set(sink.uids)) == 2


def test_a_failing_study_is_kept_with_its_reason_and_keeps_no_other_from_going_on(listen, start_sink, small, tmp_path):
    sink = start_sink()
    tries: Counter[str] = Counter()

    def process(images: Path, work: Path) -> list[Path]:
        study = images.parent.name
        tries[study] += 1
        if study == "1.2.3":
            raise ValueError("the network saw nothing")
        if study == "1.2.4":
            bad = tmp_path / "bad.dcm"
            bad.write_bytes(b"no DICOM at all")
            return [bad]
        if study == "1.2.5":
            sys.exit(4)
        return make_report(images, work)

    running = listen(process, {"attempts": 2}, **sink.tables)
    store(running.target, [one for study in ("1.2.3", "1.2.4", "1.2.5", "1.2.6") for one in small(study, 1)])
    wait_for(lambda: [phase(running, f"1.2.{n}") for n in (3, 4, 5, 6)] == ["failed", "failed", "failed", "sent"])
    assert [tries[f"1.2.{n}"] for n in (3, 4, 5, 6)] == [2, 2, 2, 1]
    assert "the network saw nothing" in running.listener._spool.state("1.2.3").reason
    assert "not a DICOM file" in running.listener._spool.state("1.2.4").reason
    assert len(sink.uids) == 1
    running.end()
    again = listen(make_report, {}, **sink.tables)
    assert phase(again, "1.2.3") == "failed"
    again.end()
    late = listen(make_report, {}, **sink.tables)
    assert late.listener.retry_failed() == ["1.2.3", "1.2.4", "1.2.5"]


def test_a_study_that_was_emptied_and_comes_again_with_its_report_gives_nothing_new(
    listen, start_sink, small, tmp_path
):
    sink = start_sink()
    tries: list[int] = []

    def process(images: Path, work: Path) -> list[Path]:
        tries.append(running.listener._spool.state("1.2.3").interruptions)
        if len(tries) < 3:
            raise TransientError("the processing", "was ended by somebody")
        return make_report(images, work)

    running = listen(process, {"attempts": 1, "keep_days": 0, "idle_s": 0.1}, **sink.tables)
    files = small("1.2.3", 2)
    store(running.target, files)
    wait_for(lambda: phase(running, "1.2.3") == "emptied")
    assert tries == [1, 1, 1], "what was cut short counts neither as a failure nor as an interruption"
    report = tmp_path / "report.dcm"
    read_report(sink.came[0][1]).save_as(report, enforce_file_format=True)
    store(running.target, [*files, report])
    wait_for(lambda: any("gives nothing new" in line for line in running.lines))
    assert phase(running, "1.2.3") == "emptied"
    assert len(tries) == 3
    store(running.target, small("1.2.3", 1, first=3))
    wait_for(lambda: len(sink.uids) == 2 and phase(running, "1.2.3") == "emptied")
    assert len(set(sink.uids)) == 2


def test_results_wait_for_a_target_that_is_down_and_other_studies_do_not(
    listen, start_sink, small, free_port, tmp_path
):
    port = free_port()
    table = {"dimse": {"host": "127.0.0.1", "port": port, "called_ae": "SINK"}}
    done: list[str] = []

    def process(images: Path, work: Path) -> list[Path]:
        done.append(images.parent.name)
        return make_report(images, work)

    running = listen(process, {}, **table, retries={"backoff_s": 0.1, "longest_s": 0.3})
    store(running.target, [*small("1.2.3", 1), *small("1.2.4", 1)])
    wait_for(lambda: sorted(done) == ["1.2.3", "1.2.4"])
    wait_for(lambda: any("trying again" in line and "can't be reached" in line for line in running.lines))
    sink = start_sink(port)
    wait_for(lambda: len(sink.uids) == 2)


def test_a_result_that_the_target_refuses_is_a_failure_with_its_reason(listen, start_sink, small, tmp_path):
    sink = start_sink()
    sink.status = lambda sop_uid, count: 0x0122
    running = listen(make_report, {"attempts": 2}, **sink.tables)
    store(running.target, small("1.2.3", 1))
    wait_for(lambda: phase(running, "1.2.3") == "failed")
    state = running.listener._spool.state("1.2.3")
    assert (state.failed_at, "0x0122" in state.reason) == ("sending", True)


def test_every_study_gets_its_report_whenever_the_listener_is_killed(start_sink, small, free_port, tmp_path):
    sink, port, draw = start_sink(), free_port(), random.Random(5)
    configuration, spool, log = tmp_path / "pacs.toml", tmp_path / "spool", tmp_path / "log"
    write_configuration(configuration, sink, port, spool, idle_s=0.15)
    studies = {study: small(study, 2) for study in (f"1.2.{number}" for number in range(100, 100 + STUDIES))}
    command = [sys.executable, str(Path(__file__).with_name("listening.py")), str(configuration)]
    killed = KilledListener(command, log, environment())
    outcome: list[list[str]] = []
    killed.start()
    pauses = [draw.uniform(0, 0.2) for _ in studies]
    sender = threading.Thread(target=lambda: outcome.append(send_all(port, list(studies.values()), pauses, 2)))
    sender.start()
    try:
        for _ in range(KILLS):
            wait_for(killed.is_listening, 60)
            time.sleep(draw.uniform(0.05, 0.6))
            killed.kill()
        sender.join(180)
        assert outcome == [[]]
        wait_for(lambda: len(what_was_sent(sink).uids) == STUDIES and phases(spool) == {"sent"}, 180)
    finally:
        assert killed.end() == 0
    sent = what_was_sent(sink)
    # A study that a kill cut in two may have a report of one image and then one of both.
    assert set(sent.uids) == set(studies)
    assert sent.differing == 0
    # Again only where the kill fell between the archive's answer and the journal's line, see test_spool.
    assert sent.repeats <= KILLS
    assert Spool(spool).counts()["sent"] == STUDIES
    children = {int(line.split()[1]) for line in log.read_text().splitlines() if line.startswith("process ")}
    assert len(children) > 1
    assert not any(Path(f"/proc/{child}").exists() for child in children)
