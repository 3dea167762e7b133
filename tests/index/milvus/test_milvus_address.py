import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index import GalleryError
from index.milvus.address import among, is_milvus_address, parse_address, quote


@pytest.mark.parametrize(
    ("text", "uri", "collection", "printed"),
    [
        ("milvus://db.ward:1234/findings", "http://db.ward:1234", "findings", "milvus://db.ward:1234/findings"),
        ("milvus://db/findings", "http://db:19530", "findings", "milvus://db:19530/findings"),
        ("milvus+tls://db:443/f1", "https://db:443", "f1", "milvus+tls://db:443/f1"),
        ("milvus://[::1]:19530/main/f", "http://[::1]:19530", "f", "milvus://[::1]:19530/main/f"),
        ("milvus:///data/m.db/findings", "/data/m.db", "findings", "milvus:///data/m.db/findings"),
        ("milvus:here/m.db/findings", "here/m.db", "findings", "milvus:here/m.db/findings"),
    ],
)
def test_what_an_address_says(text: str, uri: str, collection: str, printed: str) -> None:
    address = parse_address(text)
    assert (address.uri, address.collection, str(address)) == (uri, collection, printed)
    assert parse_address(str(address)) == address
    assert is_milvus_address(text)


def test_a_database_of_the_server() -> None:
    assert parse_address("milvus://db:19530/screening/findings").database == "screening"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "milvus",
        "milvus:",
        "milvus://",
        "milvus://db",
        "milvus://db/",
        "milvus:///",
        "milvus:///m.db",
        "milvus:///m.db/",
        "milvus:///m.sqlite/findings",
        "milvus+tls:///m.db/findings",
        "milvus:///m\0.db/findings",
        "milvus://db:0/f",
        "milvus://db:65536/f",
        "milvus://db:99999999/f",
        "milvus://db:port/f",
        "milvus://db /f",
        "milvus://db\n/f",
        "milvus://db/f?x=1",
        "milvus://db/f#x",
        "milvus://db/a/b/c",
        "milvus://db/../f",
        "milvus://db/find ings",
        "milvus://db/findings\n",
        'milvus://db/f" or 1 == 1',
        "milvus://db/1st",
        "milvus://db/_hidden",
        "milvus://db/a__about",
        "milvus://db/" + "f" * 129,
        "milvus://db/überblick",
        "http://db:19530/f",
        "/data/milvus",
    ],
)
def test_everything_else_is_refused(text: str) -> None:
    with pytest.raises(GalleryError):
        parse_address(text)


def test_a_password_is_refused_and_not_repeated() -> None:
    for text in ("milvus://root:hunter2@db:19530/f", "milvus://hunter2@db/f", "milvus://db/hunter2@f"):
        with pytest.raises(GalleryError, match="MILVUS_TOKEN") as error:
            parse_address(text)
        assert "hunter2" not in str(error.value)


@settings(deadline=None, max_examples=50)
@given(st.text(max_size=30))
def test_no_text_causes_anything_but_a_clear_error(text: str) -> None:
    for address in (text, f"milvus:{text}", f"milvus://{text}", f"milvus:///a.db/{text}"):
        with contextlib.suppress(GalleryError):
            parsed = parse_address(address)
            assert parse_address(str(parsed)) == parsed


def test_a_literal_ends_where_its_text_ends() -> None:
    assert quote('D" or "D"=="D') == '"D\\" or \\"D\\"==\\"D"'
    assert quote("a\\") == '"a\\\\"'
    assert quote("a\nb\tc") == '"a\\nb\\tc"'
    assert among("_row", ["a", 'b"']) == '_row in ["a", "b\\""]'
    assert among("_row", ["a"], none=True) == '_row not in ["a"]'
