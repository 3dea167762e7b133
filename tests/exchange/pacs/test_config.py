"""A configuration says what it means, or says what is wrong with it."""

import math
import tomllib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exchange import ExchangeError
from exchange.pacs.config import PacsConfig, Retries
from exchange.pacs.options import filled

WEB = '[dicomweb]\nurl = "http://127.0.0.1:8042/dicom-web"\n'


def read(tmp_path: Path, text: str | bytes) -> PacsConfig:
    path = tmp_path / "pacs.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return PacsConfig.read(path)


def test_what_is_left_out_keeps_its_safe_default(tmp_path):
    config = read(tmp_path, WEB)
    assert (config.chosen, config.tls.verify, config.listen.host) == ("dicomweb", True, "127.0.0.1")
    assert (config.listen.callers, config.listen.candidates) == ((), "never")
    assert config.warnings() == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (WEB + "colour = 1", "there is no option 'colour' in [dicomweb]; there are url, qido, wado, stow"),
        (WEB + "[dicomwep]\nurl = 'x'", "there is no option 'dicomwep'; there are dicomweb, dimse"),
        (WEB + "[credentials]\nkind = 'basic'\nuser = 'a'\npassword = 'b'", "there is no option 'password'"),
        (WEB + "[credentials]\nkind = 'digest'\nsecret_env = 'A'", "use basic or bearer"),
        (WEB + "[credentials]\nkind = 'basic'\nuser = 'a'", "one of secret_env and secret_file"),
        (WEB + "[credentials]\nkind = 'bearer'\nuser = 'a'\nsecret_env = 'A'", "user goes with kind basic"),
        (WEB + "[retries]\ncount = true", "count can't be True in [retries]; use a whole number"),
        (WEB + "[retries]\nbackoff_s = nan", "backoff_s is nan in [retries]"),
        (WEB + f"[timeouts]\nconnect_s = {10**400}", "connect_s can't be 1000"),
        (WEB + "[tls]\ncertificate = 'a'", "certificate and private_key go together"),
        (WEB + "[listen]\nclient_ca = 'a'", "client_ca only with them"),
        (WEB + "[listen]\ncallers = ['A', 'a title that is too long']", "callers can't be"),
        (WEB + "[listen]\ncallers = 'A'", "use a list of texts"),
        (WEB + "[listen]\ncandidates = 'always'", "use never or without-cad"),
        (WEB + "[listen]\nkeep_days = 400", "keep_journal_days is 365, less than keep_days"),
        (WEB + "[listen]\nprocessing_s = 0", "processing_s is 0"),
        (WEB + "[dimse]\nhost = 'a'\nport = 104\ncalled_ae = 'A'", "has both [dicomweb] and [dimse]"),
        ("transport = 'dimse'\n" + WEB, "transport is dimse, which has no table"),
        ("dicomweb = 3", "'dicomweb' is a table of options"),
        ("[dicomweb]\nqido = 'x'", "url is missing in [dicomweb]"),
        ("", "names no PACS"),
        ("[dimse]\nhost = 'a'\nport = 0\ncalled_ae = 'A'", "port is 0"),
        ("[dimse]\nhost = 'a'\nport = 104\ncalled_ae = 'A\\\\B'", "no backslash"),
        ("[dicomweb]\nurl = 'ftp://a/b'", "url can't be 'ftp://a/b'"),
        ("[dicomweb]\nurl = 'http://a:99999999/'", "url can't be"),
        ("[dicomweb]\nurl = 'http://[::1'", "url can't be"),
        (WEB + "qido = 'a?b'", "qido is no path"),
        ("x = ", "can't be read as TOML"),
        (b"\xff\xfe\0", "can't be read as TOML"),
        (b"#" * (1 << 21), "too large"),
        ("a = " + "[" * 5000, "can't be read as TOML"),
    ],
)
def test_a_mistake_is_told_with_its_file_and_what_to_write(tmp_path, text, told):
    with pytest.raises(ExchangeError) as caught:
        read(tmp_path, text)
    assert told in str(caught.value)
    assert str(tmp_path / "pacs.toml") in str(caught.value)


def test_a_password_in_the_address_is_refused_without_being_shown(tmp_path):
    with pytest.raises(ExchangeError) as caught:
        read(tmp_path, '[dicomweb]\nurl = "https://reader:hunter2@pacs/dicom-web"')
    assert "user or a password" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(ExchangeError, match="No such file"):
        PacsConfig.read(tmp_path / "absent.toml")


def test_a_secret_comes_from_the_environment_or_a_file_and_never_stands_in_the_configuration(tmp_path, monkeypatch):
    secret = tmp_path / "secret"
    secret.write_text("pass word\n")
    config = read(tmp_path, WEB + f"[credentials]\nkind = 'bearer'\nsecret_file = '{secret}'")
    assert config.credentials.secret() == "pass word"
    assert "pass word" not in repr(config)
    named = read(tmp_path, WEB + "[credentials]\nkind = 'basic'\nuser = 'a'\nsecret_env = 'PACS_SECRET'").credentials
    monkeypatch.setenv("PACS_SECRET", "x")
    assert named.secret() == "x"
    monkeypatch.delenv("PACS_SECRET")
    with pytest.raises(ExchangeError, match="environment variable PACS_SECRET"):
        named.secret()
    for wrong in (b"", b"\xff", b"two\nlines\n"):
        secret.write_bytes(wrong)
        with pytest.raises(ExchangeError, match="secret"):
            config.credentials.secret()
    secret.unlink()
    with pytest.raises(ExchangeError, match="No such file"):
        config.credentials.secret()


def test_what_is_unwise_is_warned_of(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("x")
    secret.chmod(0o644)
    text = f"""
    [dicomweb]
    url = "http://pacs.example/dicom-web"
    [credentials]
    kind = "bearer"
    secret_file = "{secret}"
    [tls]
    verify = false
    [listen]
    host = "0.0.0.0"
    """
    found = "\n".join(read(tmp_path, text).warnings())
    for part in ("chmod 600", "tls.verify is off", "without TLS, password and all", "received on 0.0.0.0"):
        assert part in found
    secret.chmod(0o600)
    assert "chmod" not in "\n".join(read(tmp_path, text).warnings())


@given(st.integers(1, 10**6), st.floats(0, 3600), st.floats(0, 86400))
def test_waits_double_and_never_exceed_the_longest(failures, backoff_s, longest_s):
    wait = Retries(backoff_s=backoff_s, longest_s=longest_s).wait_s(failures)
    slow = min(backoff_s * math.prod([2.0] * min(failures - 1, 1000)), longest_s)
    assert wait == pytest.approx(slow)


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.lists(st.text(max_size=5))
names = st.sampled_from(["dicomweb", "dimse", "tls", "credentials", "listen", "limits", "url", "host", "port", "kind"])


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(names, leaves | st.dictionaries(names, leaves, max_size=3), max_size=4))
def test_any_nested_options_make_a_configuration_or_one_clear_error(content):
    try:
        told = filled(PacsConfig, content, "any.toml").target
    except ExchangeError as error:
        told = str(error).partition("any.toml: ")[2]
    assert told


def test_the_example_that_we_give_is_read(tmp_path):
    example = Path(__file__).parents[3] / "docs" / "pacs-example.toml"
    if not example.is_file():
        pytest.skip("the example is not here yet")
    assert PacsConfig.read(example).chosen in tomllib.loads(example.read_text("utf-8"))
