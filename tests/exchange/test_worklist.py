import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange import ExchangeError
from exchange.worklist import Worklist

PLAN = {"gallery": "abc", "detections": "def", "k": 10}


def answers(*names):
    return [{"id": name, "text": "ü" * 50} for name in names]


def test_answers_come_back_in_their_order_and_a_new_start_knows_them(tmp_path):
    path = tmp_path / "deep" / "worklist.jsonl"
    with Worklist(path, PLAN) as worklist:
        worklist.append(answers("a", "b"))
        assert [answer["id"] for answer in worklist] == ["a", "b"], "they can be read while it is open"
        worklist.append(answers("c"))
    with Worklist(path, PLAN) as again:
        assert again.answered() == {"a", "b", "c"}
        again.append(answers("d"))
        assert list(again) == answers("a", "b", "c", "d")


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_wherever_a_kill_cuts_it_whole_answers_stay_and_the_rest_is_answered_again(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("cut") / "worklist.jsonl"
    with Worklist(path, PLAN) as worklist:
        worklist.append(answers("a", "b", "c"))
    whole = path.read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    lines = whole[:cut].count(b"\n")
    with Worklist(path, PLAN) as again:
        assert list(again) == answers("a", "b", "c")[: max(0, lines - 1)]
        left = [one for one in answers("a", "b", "c") if one["id"] not in again.answered()]
        again.append(left)
    assert path.read_bytes() == whole


def test_a_process_that_is_killed_loses_nothing_that_was_appended(tmp_path):
    path = tmp_path / "worklist.jsonl"
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom exchange.worklist import Worklist\n"
        f"worklist = Worklist(Path({str(path)!r}), {PLAN!r})\n"
        "worklist.append([{'id': 'a'}])\nos.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=os.getcwd(), check=False, timeout=60)  # noqa: PTH109
    assert done.returncode == -9
    with Worklist(path, PLAN) as again:
        assert again.answered() == {"a"}


def test_another_triage_does_not_go_on_with_it(tmp_path):
    path = tmp_path / "worklist.jsonl"
    Worklist(path, PLAN).__exit__()
    with pytest.raises(ExchangeError, match="triage with another gallery, k; choose another folder"):
        Worklist(path, PLAN | {"gallery": "xyz", "k": 5})


@pytest.mark.parametrize(
    "content", [b"my notes", b"[]\n", b"\xff\xfe\n", b"{}\n", b"[" * 100_000 + b"\n", b"null\n"], ids=range(6)
)
def test_what_is_no_worklist_is_refused_and_left_alone(tmp_path, content):
    path = tmp_path / "worklist.jsonl"
    path.write_bytes(content)
    with pytest.raises(ExchangeError, match=r"worklist\.jsonl"):
        Worklist(path, PLAN)
    assert path.read_bytes() == content


@pytest.mark.parametrize("line", [b"3\n", b'{"id": 3}\n', b"{}\n", b"{\n"])
def test_a_damaged_answer_is_told(tmp_path, line):
    path = tmp_path / "worklist.jsonl"
    with Worklist(path, PLAN) as worklist:
        worklist.append(answers("a"))
    path.write_bytes(path.read_bytes() + line)
    with pytest.raises(ExchangeError, match=r"is damaged .*; delete this file to answer everything again"):
        Worklist(path, PLAN)


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "worklist.jsonl"
    with Worklist(path, PLAN) as worklist:
        worklist.append(answers("a"))
        before = path.read_bytes()

        def full(descriptor):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("exchange.worklist.os.fsync", full)
        with pytest.raises(ExchangeError, match="the disk is full"):
            worklist.append(answers("b"))
        monkeypatch.undo()
        assert path.read_bytes() == before
        worklist.append(answers("b"))
        assert worklist.answered() == {"a", "b"}


def test_a_place_that_can_not_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ExchangeError):
        Worklist(tmp_path / "file" / "worklist.jsonl", PLAN)
    with pytest.raises(ExchangeError):
        Worklist(tmp_path, PLAN)
