"""Text of others' files."""

import pytest

from exchange.text import TextError, clean_text


def test_ids_keep_their_zeros_and_whole_numbers_have_no_fraction() -> None:
    assert [clean_text(value, "id") for value in (" 007 ", 7, 7.0, "NA", "", None)] == [
        "007",
        "7",
        "7",
        None,
        None,
        None,
    ]


@pytest.mark.parametrize("value", ["a\0b", "a\nb", "x" * 5000, True, 1.5, ["a"], {}, 10**400, "\ud800", float("nan")])
def test_what_no_cell_can_hold_is_refused_shortly(value: object) -> None:
    with pytest.raises(TextError) as caught:
        clean_text(value, "id")
    assert len(str(caught.value)) < 200
