import json
import math

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st

import console
from errors import MammoseekError


def run_and_catch(capsys, action):
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(action)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["mammoseek"])
        with pytest.raises(SystemExit) as caught:
            console.run(app)
    return caught.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (MammoseekError("a.dcm", "is empty", "copy it again"), 1, "Error: a.dcm: is empty; copy it again"),
        (MemoryError(), 1, "memory"),
        (OSError(28, "No space left on device", "x"), 1, "Error: x: No space left"),
    ],
)
def test_an_expected_error_is_one_message(capsys, error, code, says):
    def action() -> None:
        raise error

    found, text = run_and_catch(capsys, action)
    assert (found, says in text, "Traceback" in text) == (code, True, False)


def test_a_defect_of_ours_keeps_its_traceback(capsys):
    def action() -> None:
        raise ZeroDivisionError

    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(action)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["mammoseek"])
        with pytest.raises(ZeroDivisionError):
            console.run(app)


def test_markup_in_a_message_is_printed_as_it_stands(capsys):
    console.say("[red]x[/red] [link=a]")
    assert capsys.readouterr().err == "[red]x[/red] [link=a]\n"


def test_a_table_shows_unknown_cells_markup_and_long_cells_whole(capsys):
    console.print_table(("a", "b"), [(1, None), ("[bold]x", math.nan), (0.12345, "y" * 300)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["1", "-"]
    assert lines[2].split() == ["[bold]x", "-"]
    assert lines[3].split() == ["0.123", "y" * 300]


def test_failures_are_listed_and_the_status_says_so(capsys):
    console.report_failures([], "rows")
    with pytest.raises(typer.Exit) as caught:
        console.report_failures([(f"r{i}", "broken") for i in range(60)], "rows")
    assert caught.value.exit_code == console.EXIT_PARTLY
    text = capsys.readouterr().err
    assert "60 rows failed" in text
    assert "and 10 more" in text


nested = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=20,
)


@given(nested)
@settings(deadline=None, max_examples=50)
def test_json_never_says_nan(value):
    text = json.dumps(console.without_nan(value), allow_nan=False)
    back = json.loads(text)
    if not isinstance(value, float):
        assert type(back) is type(value)


def test_what_was_done_is_told_as_json_or_in_words(capsys):
    console.tell(True, {"rows": 2, "share": math.nan}, "Wrote 2 rows")
    asked = capsys.readouterr()
    assert (json.loads(asked.out), asked.err) == ({"rows": 2, "share": None}, "")
    console.tell(False, {"rows": 2}, "Wrote 2 rows", "[all] of them")
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "Wrote 2 rows\n[all] of them\n")


def test_notes_stand_below_the_answer_or_beside_it(capsys):
    console.print_notes(("a", "b"))
    console.say_notes(("c",))
    found = capsys.readouterr()
    assert (found.out, found.err) == ("Note: a\nNote: b\n", "note: c\n")


def test_a_file_that_can_not_be_written_is_told_before_the_work(tmp_path):
    console.check_output(None)
    console.check_output(tmp_path / "new.csv")
    for path, says in ((tmp_path, "is a folder"), (tmp_path / "no" / "new.csv", "its folder is not there")):
        with pytest.raises(MammoseekError, match=says):
            console.check_output(path)
