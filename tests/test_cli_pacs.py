"""The commands of a listener and its spool as their users meet them."""

import importlib
import inspect
import io
import json
import signal
import sys
from pathlib import Path

import pytest

pytest.importorskip("pynetdicom", reason="install mammoseek[exchange] for pynetdicom")

from benchmarks.listener_parts import make_instance
from exchange.pacs.instances import identify
from exchange.pacs.listener import Listener
from exchange.pacs.spool import Spool
from exchange.pacs.worker import Worker
from tests.commandline import assert_clear, run

__all__ = ["run"]  # a fixture


@pytest.fixture
def config(tmp_path) -> Path:
    path = tmp_path / "pacs.toml"
    path.write_text(
        '[dimse]\nhost = "127.0.0.1"\nport = 104\ncalled_ae = "PACS"\n'
        f'[listen]\nspool = "{tmp_path / "spool"}"\ncandidates = "without-cad"\nprocessing_s = 77\n'
    )
    return path


@pytest.fixture
def spool(tmp_path) -> Spool:
    """A spool with one study that was sent, one that failed and one that is being received."""
    spool = Spool(tmp_path / "spool")
    for study in ("1.2.3", "1.2.4", "1.2.5"):
        path = tmp_path / "one.dcm"
        make_instance(study, f"{study}.1", f"{study}.1.1").save_as(path, enforce_file_format=True)
        spool.add(identify(path.read_bytes(), path), path.read_bytes())
    for study in ("1.2.3", "1.2.4"):
        spool.complete(study)
    spool.record("1.2.3", {"2.25.1": b"report"})
    spool.sent("1.2.3")
    spool.refused("1.2.4", "processing", "an odd study [of all]", 1)
    yield spool
    spool.close()


def test_a_spool_is_shown_while_a_listener_holds_it_and_emptied_when_none_does(run, config, spool, monkeypatch):
    shown = run("pacs", "spool", "--config", config)
    assert shown.code == 0, shown.err
    lines = [line.split() for line in shown.out.splitlines()[2:]]
    assert [line[:4] for line in lines] == [
        ["1.2.3", "sent", "1", "1"],
        ["1.2.4", "failed", "1", "1"],
        ["1.2.5", "receiving", "0", "1"],
    ]
    assert "an odd study [of all]" in shown.out
    assert_clear(run("pacs", "spool", "--config", config, "--empty", "--yes"), "in use", "stop the other listener")
    spool.close()
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    assert run("pacs", "spool", "--config", config, "--empty").code == 1, "nobody said yes"
    emptied = run("pacs", "spool", "--config", config, "--empty", "--yes", "--json")
    assert json.loads(emptied.out) == {"deleted": 1, "failures": {}}
    rows = json.loads(run("pacs", "spool", "--config", config, "--json").out)["studies"]
    assert [(row["phase"], row["images"]) for row in rows] == [("emptied", 0), ("failed", 1), ("receiving", 1)]
    assert rows[1]["reason"] == "an odd study [of all]"
    assert run("pacs", "spool", "--config", config, "--empty", "--study", "1.2.4", "--yes").code == 0
    assert_clear(run("pacs", "spool", "--config", config, "--study", "1.2.4"), "holds no study 1.2.4")


def test_a_listener_starts_a_worker_with_what_its_processing_takes_and_ends_it(run, config, monkeypatch):
    started, closed = [], []
    monkeypatch.setattr(Worker, "start", lambda worker: started.append(worker))
    monkeypatch.setattr(Worker, "close", lambda worker: closed.append(worker))
    monkeypatch.setattr(Listener, "run", lambda listener, stop: signal.raise_signal(signal.SIGTERM) or stop.wait(1))
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    try:
        outcome = run("pacs", "listen", "here", "--config", config, "--captures")
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])
    assert outcome.code == 0, outcome.err
    (worker,) = started
    assert closed == started
    assert worker._stop.is_set()
    assert worker._limit_s == 77
    module, _, name = worker._factory.partition(":")
    taken = inspect.signature(getattr(importlib.import_module(module), name)).parameters
    assert {*worker._options, "say"} == set(taken)
    assert (worker._options["gallery"], worker._options["candidates"], worker._options["captures"]) == ("here", 1, 1)
    json.dumps(worker._options)
