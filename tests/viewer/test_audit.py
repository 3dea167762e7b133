"""The audit log: who did what, in order, and nothing of patients but ids."""

import pytest

from viewer import ViewerError
from viewer.access import Person
from viewer.audit import AuditLog
from viewer.chain import verify

ANNA = Person("anna")


@pytest.fixture
def log(tmp_path):
    opened = AuditLog(tmp_path / "audit.jsonl")
    yield opened
    opened.close()


def test_questions_and_what_was_seen_are_on_record_before_they_are_answered(log):
    question = {"image": "i", "box": [1, 2, 3, 4]}
    replay = {"generation": 3}
    log.query(
        ANNA,
        question_id="q",
        question=question,
        study="s",
        rows=["a", "b"],
        similarities=[0.75, 0.5],
        no_close_precedent=False,
        replay=replay,
    )
    log.opinion(ANNA, question_id="q", question=question, study="s", targets=[{"target": "pathology"}], replay=replay)
    entries = [record.entry for record in log.entries()]
    assert [entry["action"] for entry in entries] == ["query", "opinion"]
    assert entries[0] == {
        "action": "query",
        "user": "anna",
        "role": "reader",
        "question_id": "q",
        "question": question,
        "study": "s",
        "rows": ["a", "b"],
        "similarities": [0.75, 0.5],
        "no_close_precedent": False,
        "replay": replay,
    }
    assert verify(log.path, "audit").records == 2
    assert [record.entry["action"] for record in log.entries("opinion")] == ["opinion"]


def test_what_was_looked_at_is_known_after_a_restart(log):
    log.study_seen(ANNA, "s", "i")
    assert log.has_seen("s")
    log.close()
    again = AuditLog(log.path)
    assert again.has_seen("s")
    assert not again.has_seen("t")
    again.close()


def test_a_repair_is_itself_on_record(log):
    log.note(ANNA, "login")
    log.close()
    with log.path.open("ab") as file:
        file.write(b'{"n":1,"prev":"')
    told: list[str] = []
    again = AuditLog(log.path, told.append)
    assert [record.entry["action"] for record in again.entries()] == ["login", "repaired"]
    assert "cut short" in told[0]
    again.close()


def test_a_log_that_was_changed_is_not_added_to(log):
    log.note(ANNA, "login")
    log.close()
    content = log.path.read_bytes().replace(b"anna", b"anne")
    log.path.write_bytes(content)
    with pytest.raises(ViewerError, match="keep the file as evidence"):
        AuditLog(log.path)
    assert log.path.read_bytes() == content


def test_an_action_that_is_none_is_a_defect(log):
    with pytest.raises(ValueError, match="no action"):
        log.note(ANNA, "gossip")
