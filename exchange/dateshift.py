"""Dates of DICOM moved by whole days, so that the time between a woman's studies is kept (PS3.15 E.3.6)."""

import re
from datetime import date, timedelta

# PS3.5 6.2: DA is YYYYMMDD (YYYY.MM.DD in ACR-NEMA), DT is YYYYMMDDHHMMSS.FFFFFF&ZZXX cut anywhere, TM is
# HHMMSS.FFFFFF cut anywhere (HH:MM:SS in ACR-NEMA).
_DATE = re.compile(r"(\d{4})(?:(\d\d)(\d\d)|\.(\d\d)\.(\d\d))")
_MOMENT = re.compile(r"(\d{4})(\d\d)(\d\d)((?:\d\d){0,3}|\d{6}\.\d{1,6})([+-]\d{4})?")
_TIME = re.compile(r"\d\d(?::?\d\d(?::?\d\d(?:\.\d{1,6})?)?)?")


def shift_date(value: str, days: int) -> str | None:
    """Return a DA value moved by days.

    Returns:
        None where it is no whole date, or the moved one is outside the calendar of years 1 to 9999.

    >>> shift_date("20240301", -1), shift_date("2024", -1)
    ('20240229', None)
    """
    match = _DATE.fullmatch(value.strip(" \0"))
    if match is None:
        return None
    year, *rest = match.groups()
    month, day = (part for part in rest if part is not None)
    return _moved(year, month, day, days)


def shift_moment(value: str, days: int) -> str | None:
    """Return a DT value moved by days; its time of day and its offset from UTC stay.

    Returns:
        None where it does not reach to the day (`2024`, `202403`): by days it can't be moved.

    >>> shift_moment("20240301120000.5+0100", -1)
    '20240229120000.5+0100'
    """
    match = _MOMENT.fullmatch(value.strip(" \0"))
    if match is None:
        return None
    moved = _moved(match[1], match[2], match[3], days)
    return None if moved is None else moved + match[4] + (match[5] or "")


def checked_time(value: str) -> str | None:
    """Return a TM value as it is: whole days do not change it. None where it is no time.

    >>> checked_time("101530.25"), checked_time("noon")
    ('101530.25', None)
    """
    stripped = value.strip(" \0")
    return stripped if _TIME.fullmatch(stripped) else None


def _moved(year: str, month: str, day: str, days: int) -> str | None:
    try:
        moved = date(int(year), int(month), int(day)) + timedelta(days)
    except (ValueError, OverflowError):
        return None
    return f"{moved.year:04d}{moved.month:02d}{moved.day:02d}"
