"""Text of another system's file, made fit for a cell of a table."""

import re

from embedder.manifestrules import LONGEST_TEXT, MISSING_WORDS, quoted

LONGEST_ID = 256
"""Characters of an id, as in a manifest."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class TextError(ValueError):
    """Text that no cell can hold; the message says why."""


def clean_text(value: object, what: str, *, longest: int = LONGEST_TEXT) -> str | None:
    """Return text without white space around it; None where it is empty or a word for unknown.

    Args:
        value: Text or a whole number, as JSON gives ids; None where there is none.
        what: What it is, for the error.
        longest: Characters at most.

    Raises:
        TextError: It is something else, too long, or contains control characters.

    >>> clean_text(" 007 ", "id"), clean_text(7, "id"), clean_text("n/a", "id")
    ('007', '7', None)
    """
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise TextError(f"{what} {quoted(value)} is no text")
    if isinstance(value, int) and abs(value) > 10**LONGEST_ID:  # str() of more digits than that raises
        raise TextError(f"{what} is a number of more than {LONGEST_ID} digits")
    text = str(value).strip()
    if text in MISSING_WORDS:
        return None
    if len(text) > longest:
        raise TextError(f"{what} has {len(text)} characters: {longest} are the most")
    if _CONTROL.search(text):
        raise TextError(f"{what} {quoted(text)} contains a control character")
    return text
