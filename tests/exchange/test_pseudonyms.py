import re
import uuid
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange import ExchangeError
from exchange.pseudonyms import LONGEST_SHIFT_DAYS, PseudonymKey, key_from_environment, read_key, write_new_key

NAMES = st.text(max_size=40)


@settings(deadline=None, max_examples=50)
@given(NAMES, NAMES, st.binary(min_size=16, max_size=64))
def test_a_woman_gets_the_same_pseudonym_from_the_same_key_in_another_run(
    issuer: str, woman: str, secret: bytes
) -> None:
    first, second = PseudonymKey(secret), PseudonymKey(bytes(secret))
    assert first.woman(issuer, woman) == second.woman(issuer, woman)
    assert first.shift_days(issuer, woman) == second.shift_days(issuer, woman)
    assert re.fullmatch(r"W[0-9a-f]{24}", first.woman(issuer, woman))
    assert -LONGEST_SHIFT_DAYS <= first.shift_days(issuer, woman) <= -1


@settings(deadline=None, max_examples=50)
@given(NAMES, NAMES, st.binary(min_size=16, max_size=64), st.binary(min_size=16, max_size=64))
def test_two_keys_give_a_woman_two_pseudonyms(issuer: str, woman: str, secret: bytes, other: bytes) -> None:
    first, second = PseudonymKey(secret), PseudonymKey(other)
    # HMAC fills a short key up with zeros.
    assert (first.woman(issuer, woman) == second.woman(issuer, woman)) == (secret.rstrip(b"\0") == other.rstrip(b"\0"))


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(NAMES, NAMES), unique=True, max_size=20))
def test_no_two_women_share_a_pseudonym_whatever_issuer_and_id_are_made_of(women: list[tuple[str, str]]) -> None:
    key = PseudonymKey(b"k" * 32)
    assert len({key.woman(*woman) for woman in women}) == len(women)


def test_one_id_of_two_issuers_is_two_women() -> None:
    key = PseudonymKey(b"k" * 32)
    assert key.woman("north", "7") != key.woman("south", "7")
    assert key.woman("a", "b7") != key.woman("ab", "7")


@settings(deadline=None, max_examples=50)
@given(st.text(min_size=1, max_size=64))
def test_a_new_uid_is_valid_and_always_the_same(uid: str) -> None:
    new = PseudonymKey(b"k" * 32).uid(uid)
    assert new == PseudonymKey(b"k" * 32).uid(uid) != PseudonymKey(b"l" * 32).uid(uid)
    assert re.fullmatch(r"2\.25\.(0|[1-9]\d*)", new)
    assert len(new) <= 64
    assert uuid.UUID(int=int(new.removeprefix("2.25."))).version == 4


def test_the_key_is_not_shown() -> None:
    key = PseudonymKey(b"very secret key!")
    assert "secret" not in repr(key) + str(key) + key.fingerprint


def test_a_key_file_is_read_without_its_line_end(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"0123456789abcdef\r\n")
    path.chmod(0o600)
    assert read_key(path).woman("", "7") == PseudonymKey(b"0123456789abcdef").woman("", "7")


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"0123456789abcdef")
    path.chmod(0o640)
    with pytest.raises(ExchangeError, match="chmod 600"):
        read_key(path)


@pytest.mark.parametrize("content", [b"", b"short", b"   \n   " * 4, b"x" * 5000])
def test_a_key_that_is_too_short_or_no_key_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ExchangeError, match="bytes"):
        read_key(path)


@pytest.mark.parametrize("name", ["nowhere", "a\0b", "."])
def test_a_key_file_that_is_not_there_costs_one_message(tmp_path: Path, name: str) -> None:
    with pytest.raises(ExchangeError):
        read_key(tmp_path / name)


def test_a_new_key_is_random_its_owners_alone_and_never_replaced(tmp_path: Path) -> None:
    first, second = write_new_key(tmp_path / "a"), write_new_key(tmp_path / "b")
    assert first.fingerprint != second.fingerprint
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600
    assert read_key(tmp_path / "a").fingerprint == first.fingerprint
    with pytest.raises(ExchangeError, match="never replaced"):
        write_new_key(tmp_path / "a")
    assert read_key(tmp_path / "a").fingerprint == first.fingerprint


def test_a_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAMMOSEEK_KEY", "0123456789abcdef")
    assert key_from_environment("MAMMOSEEK_KEY").fingerprint == PseudonymKey(b"0123456789abcdef").fingerprint
    monkeypatch.delenv("MAMMOSEEK_KEY")
    with pytest.raises(ExchangeError, match="not set"):
        key_from_environment("MAMMOSEEK_KEY")
