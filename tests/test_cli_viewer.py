"""The commands of the page's server as their users meet them."""

import csv
import json
import socket
import sys
from pathlib import Path

import pytest

from tests.commandline import assert_clear, run
from viewer.access import Person, read_tokens
from viewer.audit import AuditLog
from viewer.records import take_folder
from viewer.verdicts import Draft, VerdictBook

__all__ = ["run"]  # a fixture

ANNA = Person("anna")
STUDY = "0" * 16


@pytest.fixture
def state(tmp_path) -> Path:
    """A state folder with two verdicts, one taken back, and what was asked."""
    folder = tmp_path / "state"
    take_folder(folder).release()
    book, log = VerdictBook(folder / "verdicts.jsonl"), AuditLog(folder / "audit.jsonl")
    first, _ = book.add(ANNA, Draft("key-00001", STUDY, birads="4A", text="=1+1 [sic]"))
    book.add(ANNA, Draft("key-00002", STUDY, undoes=first.id))
    book.add(Person("bea"), Draft("key-00003", "1" * 16, birads="2"))
    log.note(ANNA, "login")
    log.note(Person("bea"), "query", rows=["a", "b"])
    book.close()
    log.close()
    return folder


def test_verdicts_are_shown_and_written_as_csv(run, state, tmp_path):
    shown = run("verdicts", "show", state)
    assert shown.code == 0, shown.err
    assert shown.out.startswith("3 verdicts\n")
    assert "[sic]" in shown.out
    told = json.loads(run("verdicts", "show", state, "--study", STUDY, "--json").out)
    assert [one["birads"] for one in told] == ["4A", None]
    assert told[0]["undone_by"] == told[1]["id"]
    written = run("verdicts", "export", state, "-o", tmp_path / "out.csv")
    assert written.code == 0
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["user"] for row in rows] == ["anna", "anna", "bea"]
    assert rows[0]["text"] == "'=1+1 [sic]"
    assert_clear(run("verdicts", "export", state, "-o", tmp_path / "none" / "out.csv"), "its folder is not there")


def test_the_audit_log_is_shown_newest_last(run, state):
    shown = run("audit", "show", state)
    assert shown.code == 0
    assert [line.split()[2] for line in shown.out.splitlines()[2:]] == ["anna", "bea"]
    told = json.loads(run("audit", "show", state, "--action", "query", "--json").out)
    assert [(one["user"], one["rows"]) for one in told] == [("bea", ["a", "b"])]
    assert json.loads(run("audit", "show", state, "--user", "cleo", "--json").out) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("audit", "show", "state", "--last", "9" * 23),
        ("serve", "gallery", "--requests-per-s", "inf"),
        ("serve", "gallery", "--changes-per-s", "inf"),
        ("serve", "gallery", "--embed-queue", "9" * 23),
        ("serve", "gallery", "--port", "9" * 23),
    ],
)
def test_numbers_beyond_all_use_are_refused(run, arguments):
    assert_clear(run(*arguments), arguments[-2])


def test_chains_that_are_whole_are_verified_with_their_heads(run, state):
    told = run("audit", "verify", state)
    assert told.code == 0, told.err
    heads = json.loads(run("audit", "verify", state, "--json").out)["chains"]
    assert heads["verdicts"]["records"] == 3
    assert heads["audit"]["head"] in told.out
    kept = heads["audit"]["head"]
    log = AuditLog(state / "audit.jsonl")
    log.note(ANNA, "logout")
    log.close()
    assert run("audit", "verify", state, "--head", kept).code == 0
    lines = (state / "audit.jsonl").read_text().splitlines(keepends=True)
    (state / "audit.jsonl").write_text("".join(lines[:1]))  # lines taken off the end: the chain itself is whole
    assert run("audit", "verify", state).code == 0
    assert_gone = run("audit", "verify", state, "--head", kept)
    assert assert_gone.code == 1
    assert "is in neither chain" in assert_gone.err


def test_the_first_line_that_was_changed_is_said_and_the_status_says_so(run, state):
    path = state / "verdicts.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"4A"', b'"4B"'))
    told = run("audit", "verify", state)
    assert told.code == 1
    assert "verdicts.jsonl: line 1: the line was changed" in told.err
    assert json.loads(run("audit", "verify", state, "--json").out)["chains"]["verdicts"]["broken_line"] == 1
    assert_clear(run("verdicts", "show", state), "line 1 is not what was written")


def test_what_is_no_state_folder_is_told_in_a_sentence(run, tmp_path):
    for command in (("audit", "verify"), ("audit", "show"), ("verdicts", "show")):
        assert_clear(run(*command, tmp_path / "none"), "is no folder", "mammoseek serve")
        assert_clear(run(*command, tmp_path), "holds no records")


def test_a_token_is_printed_once_and_taken_away(run, tmp_path):
    path = tmp_path / "tokens.toml"
    made = run("serve-token", "anna", "--tokens", path, "--role", "curator")
    assert made.code == 0, made.err
    token = made.out.strip()
    assert token.startswith("mammoseek-")
    assert token not in path.read_text()
    assert [(entry.name, entry.role) for entry in read_tokens(path)] == [("anna", "curator")]
    assert run("serve-token", "anna", "--tokens", path, "--revoke").code == 0
    assert read_tokens(path) == []
    assert_clear(run("serve-token", "anna", "--tokens", path, "--revoke"), "holds no token of anna")
    assert_clear(run("serve-token", "bea", "--tokens", path, "--role", "root"), "reader, curator")
    assert_clear(run("serve-token", "bea", "--tokens", tmp_path / "no" / "tokens.toml"), "its folder is not there")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--host", "0.0.0.0"), "nobody would have to say who she is"),
        (("--host", "0.0.0.0", "--tokens", "tokens.toml"), "in the clear"),
        (("--identity-header", "X-User"), "--trusted-proxy"),
        (("--tls-cert", "cert.pem"), "--tls-key"),
        (("--reader", 'a"b', "--port", "0"), "user name"),
        (("--tokens", "none.toml", "--port", "0"), "mammoseek serve-token NAME"),
        (("--port", "0"), "is not a gallery"),
    ],
)
def test_a_server_that_can_not_be_started_says_why(run, tmp_path, arguments, told):
    pytest.importorskip("fastapi", reason="install mammoseek[viewer] for the page's server")
    assert_clear(run("serve", tmp_path, "--state", tmp_path / "state", *arguments), told)
    assert not (tmp_path / "state").exists()


def test_a_port_in_use_is_told(run, tmp_path):
    pytest.importorskip("uvicorn", reason="install mammoseek[viewer] for the page's server")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert_clear(run("serve", tmp_path, "--port", taken.getsockname()[1]), "in use by another program")


def test_without_the_extra_the_message_names_it(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert_clear(run("serve", tmp_path), 'pip install "mammoseek[viewer]"')
