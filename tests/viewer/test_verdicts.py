"""Verdicts: attributed, only added to, undone by a new entry, recorded once however often they are sent."""

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from viewer import ViewerError
from viewer.access import Person
from viewer.chain import verify
from viewer.verdicts import COLUMNS, Draft, Verdict, VerdictBook, VerdictError, read_verdicts, to_csv

ANNA, BEA, CURATOR = Person("anna"), Person("bea"), Person("cleo", "curator")


@pytest.fixture
def book(tmp_path):
    opened = VerdictBook(tmp_path / "verdicts.jsonl")
    yield opened
    opened.close()


def draft(key: str = "key-00001", **fields) -> Draft:
    return Draft(key, "study", **{"birads": "4A", **fields})


def test_a_verdict_is_on_disk_when_it_is_acknowledged_and_comes_back(book):
    question = {"image": "a" * 16, "box": [1, 2, 3, 4], "filters": {}}
    given_ = {"image": "i", "box": (1, 2, 30, 40), "detection": "d", "decision": "accept", "text": " <b>ö</b>\n"}
    verdict, is_new = book.add(ANNA, draft(question=question, question_id="q", **given_))
    assert is_new
    (kept,) = read_verdicts(book.path)
    assert kept == verdict
    assert (kept.user, kept.box, kept.text, kept.question) == ("anna", (1, 2, 30, 40), " <b>ö</b>\n", question)
    again = VerdictBook(book.path)
    assert again.all() == [verdict]
    again.close()


def test_the_same_draft_sent_again_is_recorded_once_also_after_a_restart(book):
    first, _ = book.add(ANNA, draft(box=(1, 2, 3, 4), image="i"))
    again, is_new = book.add(ANNA, draft(box=(1, 2, 3, 4), image="i"))
    assert (again, is_new, len(book)) == (first, False, 1)
    reopened = VerdictBook(book.path)
    assert reopened.add(ANNA, draft(box=(1, 2, 3, 4), image="i"))[1] is False
    reopened.close()
    with pytest.raises(VerdictError) as caught:
        book.add(ANNA, draft(birads="5"))
    assert caught.value.status == 409
    assert book.add(BEA, draft(birads="5"))[1] is True


def test_undo_is_a_new_entry_of_whoever_takes_it_back(book):
    first, _ = book.add(ANNA, draft())
    assert book.is_decided("study")
    undo, _ = book.add(ANNA, draft("key-00002", birads=None, undoes=first.id, text="wrong side"))
    assert book.of_study("study")[0].undone_by == undo.id
    assert not book.is_decided("study")
    assert [one.id for one in read_verdicts(book.path)] == [first.id, undo.id]
    assert verify(book.path, "verdicts").records == 2


@pytest.mark.parametrize(
    ("person", "undoes", "status"), [(BEA, 0, 403), (CURATOR, 0, None), (ANNA, 1, 409), (ANNA, "none", 404)]
)
def test_who_may_take_back_what(book, person, undoes, status):
    first, _ = book.add(ANNA, draft())
    second, _ = book.add(ANNA, draft("key-00002"))
    undone, _ = book.add(ANNA, draft("key-00003", birads=None, undoes=second.id))
    names = [first.id, second.id, undone.id]
    change = draft("key-00009", birads=None, undoes=undoes if undoes == "none" else names[undoes])
    if status is None:
        assert book.add(person, change)[0].undoes == first.id
        return
    with pytest.raises(VerdictError) as caught:
        book.add(person, change)
    assert caught.value.status == status
    assert len(book) == 3


def test_an_undo_is_not_undone_and_no_other_studys(book):
    first, _ = book.add(ANNA, draft())
    undo, _ = book.add(ANNA, draft("key-00002", birads=None, undoes=first.id))
    with pytest.raises(VerdictError, match="takes another one back"):
        book.add(ANNA, draft("key-00003", birads=None, undoes=undo.id))
    with pytest.raises(VerdictError, match="none of this study"):
        book.add(ANNA, Draft("key-00004", "other", undoes=first.id))


@pytest.mark.parametrize(
    "fields",
    [
        {"birads": None},
        {"birads": None, "text": "  \n"},
        {"birads": "7"},
        {"birads": "4a"},
        {"birads": None, "decision": "maybe", "detection": "d", "image": "i"},
        {"decision": "accept"},
        {"detection": "d"},
        {"box": (1, 2, 3, 4)},
        {"image": "i", "box": (3, 2, 3, 4)},
        {"text": "x" * 10_001},
        {"undoes": "0" * 16},
    ],
)
def test_what_is_no_verdict_is_refused(book, fields):
    with pytest.raises(VerdictError) as caught:
        book.add(ANNA, draft(**fields))
    assert caught.value.status == 422
    assert len(book) == 0


@pytest.mark.parametrize("key", ["", "short", "x" * 129])
def test_a_key_that_is_none_is_refused(book, key):
    with pytest.raises(VerdictError):
        book.add(ANNA, draft(key))


def test_a_verdict_that_was_changed_on_disk_is_found_and_nothing_goes_on(book):
    book.add(ANNA, draft())
    book.add(ANNA, draft("key-00002"))
    lines = book.path.read_text().splitlines(keepends=True)
    changed = json.loads(lines[0])
    changed["entry"]["birads"] = "1"
    book.path.write_text(json.dumps(changed, separators=(",", ":")) + "\n" + lines[1])
    assert verify(book.path, "verdicts").broken == 1
    for use in (VerdictBook, read_verdicts):
        with pytest.raises(ViewerError, match="line 1 is not what was written"):
            use(book.path)


@given(st.text(max_size=40), st.text(max_size=20))
def test_no_cell_of_the_csv_is_a_formula_and_texts_come_back(text, detection):
    table = to_csv([Verdict("1", "t", "anna", "s", text=text, detection=detection)])
    header, row = csv.reader(io.StringIO(table, newline=""))
    assert tuple(header) == COLUMNS
    for name, cell in zip(header, row, strict=True):
        assert not cell.lstrip(" ").startswith(("=", "+", "-", "@", "\t", "\r"))
        if name in ("text", "detection"):
            assert cell.removeprefix("'") == {"text": text, "detection": detection}[name].removeprefix("'")
