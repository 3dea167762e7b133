"""Text that comes from anywhere, made fit for DICOM."""

import re

# PS3.5 6.1.3: of the control characters only LF, FF and CR belong in text; ESC only where character sets change.
# Surrogates and the two last code points of the plane are no characters; UTF-8 refuses the former.
_UNFIT = re.compile("[\0-\x08\x0b\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_BREAKS = re.compile(r"[\n\f\r]+")
_BLANK = " \n\f\r"


def clean_text(text: str) -> str:
    """Return a text as an element of VR UT or LT can hold it.

    What is no text becomes U+FFFD, a tab a blank, and blanks and line breaks at the end go: a text of nothing else
    counts as empty.

    >>> clean_text("a\\0b\\tc  ")
    'a\\ufffdb c'
    """
    return _UNFIT.sub("\ufffd", text.replace("\t", " ")).rstrip(_BLANK)


def clean_line(text: str, longest: int) -> str:
    """Return a text as an element of VR LO or SH can hold it: one line, no backslash, cut to a length.

    Args:
        text: The text.
        longest: Bytes of UTF-8. The standard counts characters, but not everybody does.

    >>> clean_line("a\\nb\\\\c", 4)
    'a b/'
    """
    return (
        _BREAKS.sub(" ", clean_text(text))
        .replace("\\", "/")
        .strip()
        .encode()[:longest]
        .decode(errors="ignore")
        .rstrip()
    )


def is_line(text: str) -> bool:
    """Return whether a text is one line of characters, as all short texts of DICOM must be."""
    return _UNFIT.search(text) is None and _BREAKS.search(text) is None and "\t" not in text
