"""Tokens, sessions and roles: what is kept of them, and what ends them."""

import pytest

from viewer import ViewerError
from viewer.access import Access, AccessError, check_name, make_token, read_tokens, revoke_tokens
from viewer.settings import Limits, ServeConfig


@pytest.fixture
def file(tmp_path):
    return tmp_path / "tokens.toml"


def shown(token: str) -> dict[str, list[str]]:
    return {"authorization": [f"Bearer {token}"]}


def server(file, tmp_path, **settings) -> Access:
    return Access(ServeConfig(tmp_path, tokens=file, reader="x", **settings))


def test_of_a_token_a_salted_hash_alone_is_kept(file):
    first, second = make_token(file, "anna", "reader"), make_token(file, "anna", "reader")
    kept = file.read_text()
    for token in (first, second):
        assert token not in kept
        assert token.split("-", 2)[2] not in kept
    entries = read_tokens(file)
    assert entries[0].salt != entries[1].salt
    assert entries[0].matches(first.split("-", 2)[2])
    assert not entries[1].matches(first.split("-", 2)[2])
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_token_says_who_and_its_role(file, tmp_path):
    token = make_token(file, " Zoë Ångström ", "curator")
    person = server(file, tmp_path).identify(shown(token), {}, None)
    assert (person.name, person.role, person.by_program) == ("Zoë Ångström", "curator", True)


@pytest.mark.parametrize("change", [lambda t: t[:-1] + ("a" if t[-1] != "a" else "b"), str.upper, lambda t: t + "a"])
def test_a_token_that_is_nearly_right_is_wrong(file, tmp_path, change):
    token = make_token(file, "anna", "reader")
    with pytest.raises(AccessError) as caught:
        server(file, tmp_path).identify(shown(change(token)), {}, None)
    assert caught.value.status == 401


def test_two_tokens_at_once_are_none(file, tmp_path):
    token = make_token(file, "anna", "reader")
    with pytest.raises(AccessError):
        server(file, tmp_path).identify({"authorization": [f"Bearer {token}"] * 2}, {}, None)


def test_a_running_server_ends_logins_of_tokens_that_are_taken_away(file, tmp_path):
    anna, bea = make_token(file, "anna", "reader"), make_token(file, "bea", "reader")
    access = server(file, tmp_path)
    cookies = {access.cookie: access.login(anna, "peer")[0]}
    assert access.identify({}, cookies, None).name == "anna"
    assert revoke_tokens(file, "anna") == 1
    for headers, held in (({}, cookies), (shown(anna), {})):
        with pytest.raises(AccessError):
            access.identify(headers, held, None)
    assert access.identify(shown(bea), {}, None).name == "bea"


def test_a_session_ends_by_itself(file, tmp_path):
    token = make_token(file, "anna", "reader")
    access = server(file, tmp_path, limits=Limits(session_s=0))
    cookie, _ = access.login(token, "peer")
    with pytest.raises(AccessError):
        access.identify({}, {access.cookie: cookie}, None)


def test_nobody_is_let_in_while_the_file_can_not_be_used(file, tmp_path):
    token = make_token(file, "anna", "reader")
    access = server(file, tmp_path)
    file.write_text("[[token]]\nnonsense")
    with pytest.raises(ViewerError):
        access.identify(shown(token), {}, None)
    with pytest.raises(ViewerError):
        access.identify(shown(token), {}, None)


@pytest.mark.parametrize("content", ["[[token]]", "token = 3", "no toml", '[[token]]\nkey = "a"'])
def test_what_is_no_file_of_tokens_is_refused(file, tmp_path, content):
    file.write_text(content)
    file.chmod(0o600)
    with pytest.raises(ViewerError, match="is no file of tokens"):
        server(file, tmp_path)


def test_a_file_that_others_can_write_to_is_refused(file, tmp_path):
    make_token(file, "anna", "reader")
    file.chmod(0o666)
    with pytest.raises(ViewerError, match="can be written by others"):
        server(file, tmp_path)


def test_a_file_that_is_not_there_says_how_to_make_it(file, tmp_path):
    with pytest.raises(ViewerError, match="mammoseek serve-token"):
        server(file, tmp_path)


@pytest.mark.parametrize("name", ["", " ", "a\nb", 'a"b', "a\\b", "x" * 65, "\x00"])
def test_names_that_would_spoil_a_log_are_refused(file, name):
    with pytest.raises(ViewerError):
        make_token(file, name, "reader")
    with pytest.raises(ViewerError):
        check_name(name)


def test_an_unknown_role_is_refused(file):
    with pytest.raises(ViewerError, match="reader, curator"):
        make_token(file, "anna", "root")


def test_a_proxy_that_is_no_address_is_refused(tmp_path):
    with pytest.raises(ViewerError, match="no address or network"):
        Access(ServeConfig(tmp_path, identity_header="X", trusted_proxies=("proxy.example",), reader="x"))
