"""Checks of single options of a configuration."""

import re

from exchange import ExchangeError

_AE_TITLE = re.compile(r"[\x21-\x5b\x5d-\x7e](?:[\x20-\x5b\x5d-\x7e]{0,14}[\x21-\x5b\x5d-\x7e])?")


def check_range(name: str, value: float, lowest: float, highest: float) -> None:
    """Refuse a number out of its range.

    Raises:
        ExchangeError: It is.
    """
    if not lowest <= value <= highest:
        raise ExchangeError("configuration", f"{name} is {value}", f"use {lowest:g} to {highest:g}")


def check_ae_title(name: str, value: str) -> None:
    """Refuse a text that is no AE title (DICOM PS3.5, value representation AE): 16 characters, no backslash.

    Raises:
        ExchangeError: It is none.
    """
    if not _AE_TITLE.fullmatch(value):
        remedy = "an AE title has 1 to 16 printable ASCII characters, no backslash, no space at its ends"
        raise ExchangeError("configuration", f"{name} can't be {value[:40]!r}", remedy)
