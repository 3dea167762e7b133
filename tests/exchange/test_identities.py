import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from exchange.identities import Identities, find_identities


def test_names_are_taken_apart_and_found_in_sequences_and_short_words_are_not_taken() -> None:
    dataset, item = Dataset(), Dataset()
    dataset.PatientName = "Li^Adaeze=大川花子^はなこさん"
    dataset.PatientID = "4711-0815"
    item.ReferringPhysicianName = "Okonkwo"
    dataset.RequestAttributesSequence = Sequence([item])
    dataset.Manufacturer = "Maker"
    words = find_identities(dataset).words
    assert {"adaeze", "大川花子", "はなこさん", "4711-0815", "okonkwo"} <= words
    assert not {"li", "maker", ""} & words


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("JANE", True),
        ("seen by Jane.", True),
        ("Janeway", False),
        ("preSURNAMEs", True),
        ("SUR NAME", False),
        ("", False),
    ],
)
def test_short_words_are_found_whole_and_long_ones_anywhere(text: str, found: bool) -> None:
    assert Identities(frozenset({"jane", "surname"})).are_in(text) is found


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be"])
def test_long_words_are_found_in_bytes_in_any_case(encoding: str) -> None:
    identities = Identities(frozenset({"öffnung", "surname"}))
    for word in ("SURNAME", "Surname", "ÖFFNUNG", "öffnung"):
        assert identities.in_bytes(b"\x01\x02" + word.encode(encoding) + b"\x03\x04")
    assert not identities.in_bytes(b"nothing of that kind")


def test_a_number_is_found_by_itself_and_not_within_a_uid() -> None:
    identities = Identities(frozenset({"471108"}))
    assert identities.in_bytes(b"id 471108 ")
    assert not identities.in_bytes(b"2.25.9471108123")
    assert not identities.in_bytes(b"471108.2")
