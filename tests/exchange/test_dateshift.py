from datetime import date, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.dateshift import checked_time, shift_date, shift_moment

DAYS = st.integers(-3650, -1)
DATES = st.dates(date(1900, 1, 1), date(2100, 12, 31))


@settings(deadline=None, max_examples=50)
@given(DATES, DATES, DAYS)
def test_the_days_between_two_dates_are_kept(first: date, second: date, days: int) -> None:
    moved = [shift_date(one.strftime("%Y%m%d"), days) for one in (first, second)]
    dates = [datetime.strptime(str(one), "%Y%m%d").date() for one in moved]
    assert dates[1] - dates[0] == second - first
    assert (dates[0] - first).days == days


@settings(deadline=None, max_examples=50)
@given(st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1)), DAYS, st.sampled_from(["", "+0100", "-1130"]))
def test_a_moment_keeps_its_time_of_day_and_its_zone(moment: datetime, days: int, zone: str) -> None:
    written = moment.strftime("%Y%m%d%H%M%S.%f") + zone
    moved = shift_moment(written, days)
    assert moved is not None
    assert moved[8:] == written[8:]
    assert moved[:8] == shift_date(written[:8], days)


@pytest.mark.parametrize(
    ("value", "days", "moved"),
    [
        ("19000101", -1, "18991231"),
        ("20240301", -1, "20240229"),
        ("2024.03.01", -1, "20240229"),
        ("20240301 ", -366, "20230301"),
        ("20240301\0", -1, "20240229"),
        ("00010101", -1, None),
        ("20230229", -1, None),
        ("20241301", -1, None),
        ("202403", -1, None),
        ("2024", -1, None),
        ("", -1, None),
        ("20240301-20240401", -1, None),
        ("2024.0301", -1, None),
        ("SMITH", -1, None),
        ("２０２４0301x", -1, None),
    ],
)
def test_a_date_is_moved_or_none(value: str, days: int, moved: str | None) -> None:
    assert shift_date(value, days) == moved


@pytest.mark.parametrize(
    "value", ["", "2024", "202403", "2024030112000", "20240301120000.1234567", "20240301+1", "now"]
)
def test_a_moment_without_its_day_or_malformed_is_none(value: str) -> None:
    assert shift_moment(value, -1) is None


@pytest.mark.parametrize("value", ["20240301", "2024030112", "202403011200", "20240301120000.123456", "20240301+0100"])
def test_a_moment_cut_behind_its_day_is_moved(value: str) -> None:
    assert shift_moment(value, -1) == "20240229" + value[8:]


@pytest.mark.parametrize(("value", "kept"), [("12", True), ("12:30", True), ("123059.25", True), ("noon", False)])
def test_a_time_is_kept_where_it_is_one(value: str, kept: bool) -> None:
    assert checked_time(value) == (value if kept else None)


@settings(deadline=None, max_examples=50)
@given(st.text(max_size=30), DAYS)
def test_whatever_stands_there_comes_out_as_digits_or_not_at_all(value: str, days: int) -> None:
    for moved in (shift_date(value, days), shift_moment(value, days), checked_time(value)):
        assert moved is None or (moved.isascii() and set(moved) <= set("0123456789.+-:"))
