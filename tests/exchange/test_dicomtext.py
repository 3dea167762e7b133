"""Text made fit for DICOM."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.dicomtext import clean_line, clean_text, is_line

any_text = st.text() | st.text(st.sampled_from("a\0\x1b\t\n\r\f\\ \x7f\x85\ud800\ufffe"))


def slowly_cleaned(text: str) -> str:
    """Return what PS3.5 6.1.3 leaves of a text, character by character."""
    kept = []
    for character in text:
        code = ord(character)
        is_control = code < 32 or 127 <= code < 160
        if character == "\t":
            kept.append(" ")
        elif (is_control and character not in "\n\f\r") or 0xD800 <= code < 0xE000 or code in (0xFFFE, 0xFFFF):
            kept.append("\ufffd")
        else:
            kept.append(character)
    while kept and kept[-1] in " \n\f\r":
        kept.pop()
    return "".join(kept)


@settings(deadline=None)
@given(text=any_text)
def test_clean_text_keeps_what_the_standard_allows(text):
    assert clean_text(text) == slowly_cleaned(text)
    assert clean_text(clean_text(text)) == clean_text(text)
    clean_text(text).encode("utf-8")


@pytest.mark.parametrize("text", ["", " ", "\t", "\n", "\f", "\r\n", " \n \t"])
def test_a_text_of_blanks_is_empty(text):
    assert clean_text(text) == ""


@settings(deadline=None)
@given(text=any_text, longest=st.integers(1, 70))
def test_a_clean_line_is_one_line_of_the_length(text, longest):
    line = clean_line(text, longest)
    assert is_line(line)
    assert len(line.encode()) <= longest
    assert "\\" not in line
    assert line == line.strip()


@pytest.mark.parametrize("text", ["a\nb", "a\tb", "a\0", "\x1b$B", "\ud800"])
def test_breaks_and_controls_are_no_line(text):
    assert not is_line(text)
