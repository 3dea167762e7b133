"""UIDs: derived ones are valid, the same for the same content, and different for another."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange import ExchangeError
from exchange.uids import LONGEST_UID, check_uid_root, derived_uid, is_uid

roots = st.just("2.25") | st.from_regex(r"[0-2]\.[1-9](\.[1-9][0-9]{0,4}){0,5}", fullmatch=True)


@settings(deadline=None)
@given(root=roots, parts=st.lists(st.text(), max_size=4))
def test_a_derived_uid_is_valid_as_the_standard_spells_it(root, parts):
    uid = derived_uid(root, *parts)
    assert len(uid) <= LONGEST_UID
    assert uid.startswith(root + ".")
    assert all(part == str(int(part)) for part in uid.split("."))
    assert uid == derived_uid(root, *parts)


@settings(deadline=None)
@given(parts=st.lists(st.lists(st.text(max_size=5), max_size=3).map(tuple), min_size=2, max_size=6, unique=True))
def test_other_parts_give_another_uid(parts):
    assert len({derived_uid("2.25", *one) for one in parts}) == len(parts)


def test_parts_are_told_apart_where_they_end():
    assert derived_uid("2.25", "ab", "c") != derived_uid("2.25", "a", "bc")
    assert derived_uid("2.25", "a\0b") != derived_uid("2.25", "a", "b")
    assert derived_uid("2.25", "a", "") != derived_uid("2.25", "a")


def test_below_2_25_stands_a_uuid():
    number = int(derived_uid("2.25", "x").rpartition(".")[2])
    assert 0 < number < 2**128
    assert (number >> 76) & 0xF == 5  # version
    assert (number >> 62) & 0b11 == 0b10  # variant of RFC 9562


def test_a_derived_uid_stays_what_it_was_when_this_was_written():
    assert derived_uid("2.25", "report", "1.2.3") == "2.25.227177987257308457696156322253969251785"


@pytest.mark.parametrize("root", ["", "1", "1.", ".1", "1.02", "3.1", "1..2", "1.2.x", "1.2\n", " 1.2", "1.-2", "²·1"])
def test_what_is_no_root_is_refused(root):
    with pytest.raises(ExchangeError, match="is none"):
        check_uid_root(root)


def test_a_root_that_leaves_no_room_is_refused():
    longest = "1.2." + "9" * 35
    check_uid_root(longest)
    assert len(derived_uid(longest, "x")) <= 64
    with pytest.raises(ExchangeError, match="40 characters"):
        check_uid_root(longest + "9")


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("1.2.840.10008.1.2", True),
        ("1.2.03", True),
        ("2." + "1" * 62, True),
        ("2." + "1" * 63, False),
        ("1.2.", False),
        ("1.2\n", False),
        ("1.2.٣", False),
        ("1", False),
    ],
)
def test_what_may_stand_as_a_uid(text, is_one):
    assert is_uid(text) is is_one
