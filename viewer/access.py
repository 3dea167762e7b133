"""Who asks: the user of this machine, the holder of a token, or whom a trusted reverse proxy names."""

import contextlib
import hashlib
import hmac
import ipaddress
import re
import secrets
import threading
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from index.durable import storage_error, write_whole
from viewer import StatusError, ViewerError
from viewer.pace import Pace
from viewer.settings import ServeConfig

READER, CURATOR = "reader", "curator"
ROLES = (READER, CURATOR)
"""Readers ask and decide; curators see the audit log and the collection too."""

_NAME = re.compile(r"[^\x00-\x1f\x7f-\x9f\"\\\ud800-\udfff]{1,64}")
_TOKEN = re.compile(r"mammoseek-([0-9a-f]{12})-([A-Za-z0-9_-]{43})")
_MOST_SESSIONS = 1_000
_MOST_TOKENS = 10_000


class AccessError(StatusError):
    """A request that is refused for who asks, or how.

    Args:
        status: Its HTTP status, 401 or 403 or 429.
    """

    retry_after: float | None = None
    """Seconds after which it is worth asking again; None where it is not."""


@dataclass(frozen=True)
class Person:
    """Who asks.

    Attributes:
        name: As the audit log and verdicts call her.
        role: One of ROLES.
        by_program: Whether it is a program that shows a token with each request, which no other site can make it do.
    """

    name: str
    role: str = READER
    by_program: bool = False

    @property
    def is_curator(self) -> bool:
        """Whether she may look after the collection."""
        return self.role == CURATOR


@dataclass(frozen=True)
class TokenEntry:
    """What is kept of a token: not the token.

    A token holds 256 random bits, so a salted SHA-256 is as good as a slow hash: there is nothing to guess.
    """

    key: str
    name: str
    role: str
    salt: str
    sha256: str
    made: str

    def matches(self, secret: str) -> bool:
        """Tell whether a secret is this token's, in the same time whatever it is."""
        return hmac.compare_digest(_digest(self.salt, secret), self.sha256)


def _digest(salt: str, secret: str) -> str:
    return hashlib.sha256(f"{salt}:{secret}".encode()).hexdigest()


def check_name(name: str) -> str:
    """Return a user's name without white space around it.

    Raises:
        ViewerError: It is none.
    """
    name = name.strip()
    if not _NAME.fullmatch(name):
        raise ViewerError(
            f"user name {name[:64]!r}",
            "is none of 1 to 64 characters without quotes, backslashes and control characters",
            "name the user otherwise",
        )
    return name


def make_token(path: Path, name: str, role: str) -> str:
    """Make a token, and keep its salted hash in a file of tokens.

    Args:
        path: The file; made where it is not there. It can be read by its owner alone.
        name: The user. Several tokens of one user are fine.
        role: One of ROLES.

    Returns:
        The token, which is kept nowhere.

    Raises:
        ViewerError: The name or role is none, or the file is no file of tokens or can't be written.
    """
    name = check_name(name)
    if role not in ROLES:
        raise ViewerError(f"role {role!r}", f"is none of {', '.join(ROLES)}", "name one of them")
    known = read_tokens(path) if path.exists() else []
    key, secret, salt = secrets.token_hex(6), secrets.token_urlsafe(32), secrets.token_hex(16)
    made = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    _write_tokens(path, [*known, TokenEntry(key, name, role, salt, _digest(salt, secret), made)])
    return f"mammoseek-{key}-{secret}"


def revoke_tokens(path: Path, name: str) -> int:
    """Take all tokens of a user out of a file, and return how many there were: a running server ends their logins.

    Raises:
        ViewerError: The file is no file of tokens or can't be written.
    """
    known = read_tokens(path)
    kept = [entry for entry in known if entry.name != name]
    if len(kept) < len(known):
        _write_tokens(path, kept)
    return len(known) - len(kept)


def _write_tokens(path: Path, entries: Sequence[TokenEntry]) -> None:
    parts = ["# Tokens of mammoseek's page, hashed: see `mammoseek serve-token`.\n"]
    for entry in entries:
        parts.append("\n[[token]]\n" + "".join(f'{name} = "{value}"\n' for name, value in vars(entry).items()))
    try:
        path.touch(mode=0o600)
        write_whole(path, "".join(parts).encode())
        path.chmod(0o600)
    except OSError as error:
        told = storage_error(path, error)
        raise ViewerError(told.subject, told.cause, told.remedy) from error


def read_tokens(path: Path) -> list[TokenEntry]:
    """Read a file of tokens.

    Raises:
        ViewerError: It can't be read, is no such file, or others can write to it.
    """
    fields = tuple(TokenEntry.__dataclass_fields__)
    try:
        with path.open("rb") as file:
            if (mode := path.stat().st_mode) & 0o022:
                raise ViewerError(path, f"can be written by others (mode {mode & 0o777:o})", "chmod 600 it")
            given = tomllib.load(file).get("token", [])
        entries = [TokenEntry(*(str(one[name]) for name in fields)) for one in given]
    except OSError as error:
        raise ViewerError(
            path, f"can't be read ({error.strerror})", f"make it by `mammoseek serve-token NAME --tokens {path}`"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ViewerError(path, "is no file of tokens", "make one by `mammoseek serve-token`") from error
    if len(entries) > _MOST_TOKENS or any(entry.role not in ROLES for entry in entries):
        raise ViewerError(path, f"holds another role than {' and '.join(ROLES)}, or too many tokens", "correct it")
    return entries


@dataclass(frozen=True)
class _Session:
    token: str
    ends: float


class Access:
    """Finds out who asks.

    Args:
        config: Whom to believe.

    Raises:
        ViewerError: The file of tokens can't be used, or an address of a proxy is none.
    """

    def __init__(self, config: ServeConfig) -> None:
        self._config = config
        self._networks = [_network(text) for text in config.trusted_proxies]
        self._header = None if config.identity_header is None else config.identity_header.lower()
        self._local = Person(check_name(config.reader), CURATOR)
        self._sessions: dict[str, _Session] = {}
        self._tokens: dict[str, TokenEntry] = {}
        self._stamp: tuple[int, ...] | None = None
        most = config.limits.failed_logins_per_minute
        self._failures = Pace(most / 60, most)
        self._lock = threading.Lock()
        self._refresh()

    @property
    def cookie(self) -> str:
        """Name of the session's cookie: over TLS one that no other host or path can set."""
        return "__Host-mammoseek" if self._config.is_secure else "mammoseek"

    def identify(self, headers: Mapping[str, Sequence[str]], cookies: Mapping[str, str], peer: str | None) -> Person:
        """Return who asks.

        Args:
            headers: The request's headers by their lower-case names, each as often as it was sent.
            cookies: The request's cookies.
            peer: Address of whoever is connected.

        Raises:
            AccessError: Nobody who may (401), or a peer that is not to name users does so (403).
        """
        if not self._config.asks_who:
            return self._local
        named = None if self._header is None else self._named(headers.get(self._header, ()), peer)
        if named is not None:
            return named
        if self._config.tokens is not None:
            self._refresh()
            shown = [value for value in headers.get("authorization", ()) if value.lower().startswith("bearer ")]
            if shown:
                entry = self._entry(shown[0][7:].strip()) if len(shown) == 1 else None
                if entry is None:
                    raise AccessError(401, "token", "is not known here", "get one from whoever runs the server")
                return Person(entry.name, entry.role, by_program=True)
            person = self._of_session(cookies.get(self.cookie, ""))
            if person is not None:
                return person
        raise AccessError(401, "login", "is needed", "log in with the token that you were given")

    def _named(self, values: Sequence[str], peer: str | None) -> Person | None:
        if not values:
            return None
        header = str(self._config.identity_header)
        if not self._is_trusted(peer):
            raise AccessError(403, header, "is believed from the trusted proxy alone", "reach the server through it")
        if len(values) > 1:
            raise AccessError(403, header, "was sent more than once", "let the proxy replace what its clients send")
        try:
            # Header bytes come as Latin-1; names beyond it are sent as UTF-8.
            name = check_name(values[0].encode("latin-1").decode("utf-8"))
        except (ViewerError, UnicodeError) as error:
            raise AccessError(403, header, "names no user", "look at what the proxy sends") from error
        return Person(name, CURATOR if name in self._config.curators else READER)

    def _is_trusted(self, peer: str | None) -> bool:
        try:
            address = ipaddress.ip_address((peer or "").partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in self._networks)

    def _entry(self, token: str) -> TokenEntry | None:
        parts = _TOKEN.fullmatch(token)
        if parts is None:
            return None
        entry = self._tokens.get(parts[1])
        return entry if entry is not None and entry.matches(parts[2]) else None

    def login(self, token: str, peer: str, now: float | None = None) -> tuple[str, Person]:
        """Begin a session.

        Args:
            token: The token.
            peer: Address of whoever is connected.
            now: Seconds of a steady clock; None for the time.

        Returns:
            The cookie's value, and who it is.

        Raises:
            AccessError: The token is not known (401), or one too many was not (429). A right one is always let in.
        """
        with contextlib.suppress(ViewerError):
            self._refresh()
        entry = self._entry(token.strip())
        when = time.monotonic() if now is None else now
        if entry is None:
            error = AccessError(401, "token", "is not known here", "get one from whoever runs the server")
            if (wait := self._failures.wait_s(peer, when)) > 0:
                error = AccessError(429, "token", "is one of too many that are not known", "wait a minute")
                error.retry_after = wait
            raise error
        cookie = secrets.token_urlsafe(32)
        with self._lock:
            self._sessions = {key: one for key, one in self._sessions.items() if one.ends > when}
            while len(self._sessions) >= _MOST_SESSIONS:
                del self._sessions[next(iter(self._sessions))]
            self._sessions[_hashed(cookie)] = _Session(entry.key, when + self._config.limits.session_s)
        return cookie, Person(entry.name, entry.role)

    def logout(self, cookie: str) -> None:
        """End a session."""
        with self._lock:
            self._sessions.pop(_hashed(cookie), None)

    def _of_session(self, cookie: str, now: float | None = None) -> Person | None:
        session = self._sessions.get(_hashed(cookie)) if cookie else None
        if session is None or session.ends <= (time.monotonic() if now is None else now):
            return None
        entry = self._tokens.get(session.token)  # a token that was revoked ends its sessions
        return None if entry is None else Person(entry.name, entry.role)

    def _refresh(self) -> None:
        """Read the file of tokens again where it has changed; nobody is let in while it can't be used."""
        path = self._config.tokens
        if path is None:
            return
        try:
            status = path.stat()
            stamp: tuple[int, ...] | None = (status.st_mtime_ns, status.st_size, status.st_ino)
        except OSError:
            stamp = None
        with self._lock:
            if stamp is not None and stamp == self._stamp:
                return
            self._tokens, self._stamp = {}, None
            self._tokens = {entry.key: entry for entry in read_tokens(path)}
            self._stamp = stamp


def _hashed(cookie: str) -> str:
    return hashlib.sha256(cookie.encode("utf-8", "surrogatepass")).hexdigest()


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise ViewerError(
            f"trusted proxy {text!r}", "is no address or network", "give one such as 10.0.0.5 or 10.0.0.0/24"
        ) from error
