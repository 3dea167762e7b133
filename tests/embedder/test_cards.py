"""A card's checksum covers all of it but itself."""

import json

from hypothesis import given
from hypothesis import strategies as st

from embedder.cards import card_bytes, card_checksum

CARDS = st.dictionaries(st.text(), st.none() | st.integers() | st.text() | st.lists(st.text()), max_size=5)


@given(CARDS)
def test_a_card_is_read_back_with_a_checksum_that_holds(content):
    read = json.loads(card_bytes(content))
    assert read["checksum"] == card_checksum(read) == card_checksum(content)
    assert {name: value for name, value in read.items() if name != "checksum"} == {
        name: value for name, value in content.items() if name != "checksum"
    }


@given(CARDS, CARDS)
def test_another_card_has_another_checksum(first, second):
    first, second = ({name: value for name, value in card.items() if name != "checksum"} for card in (first, second))
    assert (card_checksum(first) == card_checksum(second)) == (first == second)
