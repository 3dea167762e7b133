"""The configuration of a PACS: one TOML file, read into frozen values."""

import os
import re
import stat
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from exchange import ExchangeError
from exchange.pacs.checks import check_ae_title, check_range
from exchange.pacs.listenconfig import Listen
from exchange.pacs.options import filled

Transport = Literal["dicomweb", "dimse"]

_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_LARGEST_CONFIG = 1 << 20
_LARGEST_SECRET = 1 << 16


def is_loopback(host: str) -> bool:
    """Tell whether a host name means this machine alone."""
    return host in _LOOPBACK


@dataclass(frozen=True)
class Dicomweb:
    """A DICOMweb server.

    Args:
        url: Its root, such as `https://pacs.example/dicom-web`.
        qido: Path of its search service below the root, where it has one of its own.
        wado: Path of its retrieve service.
        stow: Path of its store service.
    """

    url: str
    qido: str = ""
    wado: str = ""
    stow: str = ""

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            fine = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
        except ValueError:
            fine = False
        if not fine or parts.query or parts.fragment or not self.url.isprintable() or " " in self.url:
            remedy = "write it as https://host:port/path"
            raise ExchangeError("configuration", f"url can't be {self.url[:80]!r}", remedy)
        if parts.username is not None or parts.password is not None:
            # Not shown: it holds a secret.
            raise ExchangeError("configuration", "url holds a user or a password", "write them in [credentials]")
        for name in ("qido", "wado", "stow"):
            if not re.fullmatch(r"[\w./-]*", getattr(self, name), re.ASCII):
                raise ExchangeError("configuration", f"{name} is no path", "write it as path/below/the/root")

    @property
    def is_secure(self) -> bool:
        """Whether it is spoken to by TLS."""
        return self.url.startswith("https:")

    @property
    def host(self) -> str:
        """Its host name."""
        return urlsplit(self.url).hostname or ""


@dataclass(frozen=True)
class Dimse:
    """A DIMSE peer.

    Args:
        host: Its host name or address.
        port: Its port.
        called_ae: Its AE title.
        calling_ae: Our AE title, which the peer must know.
        retrieve: `get` fetches on our own association (C-GET), `move` has the peer send to our receiver, whose title
            and place stand in `[listen]` and must be known to the peer (C-MOVE).
        tls: Whether it is spoken to by TLS.
    """

    host: str
    port: int
    called_ae: str
    calling_ae: str = "MAMMOSEEK"
    retrieve: Literal["get", "move"] = "get"
    tls: bool = False

    def __post_init__(self) -> None:
        if not self.host or not self.host.isprintable() or " " in self.host:
            raise ExchangeError("configuration", f"host can't be {self.host[:80]!r}", "name the peer's host")
        check_range("port", self.port, 1, 65535)
        check_ae_title("called_ae", self.called_ae)
        check_ae_title("calling_ae", self.calling_ae)


@dataclass(frozen=True)
class Tls:
    """Whom we trust, and how we prove who we are.

    Args:
        ca_file: PEM file of the authorities that we trust; None for the system's.
        certificate: PEM file of our client certificate.
        private_key: PEM file of its key.
        verify: Whether the server's certificate is checked.
    """

    ca_file: str | None = None
    certificate: str | None = None
    private_key: str | None = None
    verify: bool = True

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.private_key is None):
            raise ExchangeError("configuration", "certificate and private_key go together", "write both or neither")


@dataclass(frozen=True)
class Credentials:
    """What a DICOMweb server knows us by: never the secret, but where it is.

    Args:
        kind: `basic` (user and password) or `bearer` (a token).
        user: The user's name; of `basic` alone.
        secret_env: The environment variable that holds the password or token.
        secret_file: The file that holds it, without its line end.
    """

    kind: Literal["basic", "bearer"]
    user: str | None = None
    secret_env: str | None = None
    secret_file: str | None = None

    def __post_init__(self) -> None:
        if (self.user is None) != (self.kind == "bearer"):
            raise ExchangeError("configuration", "user goes with kind basic, and with no other", "mend one of them")
        if (self.secret_env is None) == (self.secret_file is None):
            raise ExchangeError("configuration", "one of secret_env and secret_file says where the secret is")

    def secret(self) -> str:
        """Return the password or token.

        Raises:
            ExchangeError: The variable is not set, or the file can't be read.
        """
        if self.secret_env is not None:
            subject, text = f"environment variable {self.secret_env}", os.environ.get(self.secret_env, "")
        else:
            subject = str(self.secret_file)
            try:
                with Path(subject).open("rb") as file:
                    text = file.read(_LARGEST_SECRET).decode("utf-8").rstrip("\r\n")
            except (OSError, ValueError) as error:
                reason = (error.strerror if isinstance(error, OSError) else None) or "it is no UTF-8 text"
                raise ExchangeError(subject, f"the secret can't be read ({reason})") from error
        if not text or not text.isprintable():
            raise ExchangeError(subject, "holds no password or token", "set it to one line of text")
        return text


@dataclass(frozen=True)
class Retries:
    """How often a transient failure is met again: a wait of `backoff_s`, then twice that, up to `longest_s` seconds."""

    count: int = 4
    backoff_s: float = 1.0
    longest_s: float = 60.0

    def __post_init__(self) -> None:
        check_range("count", self.count, 0, 100)
        check_range("backoff_s", self.backoff_s, 0.0, 3600.0)
        check_range("longest_s", self.longest_s, 0.0, 86400.0)

    def wait_s(self, failures: int) -> float:
        """Return the seconds to wait after so many failures.

        >>> [Retries(backoff_s=2, longest_s=5).wait_s(failures) for failures in (1, 2, 3, 4000)]
        [2.0, 4.0, 5.0, 5.0]
        """
        return float(min(self.backoff_s * 2.0 ** min(failures - 1, 1000), self.longest_s))


@dataclass(frozen=True)
class Timeouts:
    """Seconds to wait for a connection, and for the next bytes of an answer."""

    connect_s: float = 10.0
    response_s: float = 60.0

    def __post_init__(self) -> None:
        check_range("connect_s", self.connect_s, 0.1, 3600.0)
        check_range("response_s", self.response_s, 0.1, 3600.0)


@dataclass(frozen=True)
class Limits:
    """What is refused.

    Args:
        instance_mib: An instance larger than this, in MiB, in any direction.
        results: A query that finds more instances.
        pdu_kib: Largest PDU that we ask a DIMSE peer for, in KiB.
        associations: Associations at one time, of the listener.
        free_mib: MiB that must stay free on the disk that is received to.
    """

    instance_mib: float = 1024.0
    results: int = 20000
    pdu_kib: int = 64
    associations: int = 8
    free_mib: float = 1024.0

    def __post_init__(self) -> None:
        check_range("instance_mib", self.instance_mib, 0.001, 65536.0)
        check_range("results", self.results, 1, 10_000_000)
        check_range("pdu_kib", self.pdu_kib, 4, 16384)
        check_range("associations", self.associations, 1, 1000)
        check_range("free_mib", self.free_mib, 0.0, 1e9)

    @property
    def instance_bytes(self) -> int:
        """Largest instance in bytes."""
        return int(self.instance_mib * (1 << 20))


@dataclass(frozen=True)
class PacsConfig:
    """All that is said of a PACS.

    Args:
        dicomweb: Its DICOMweb server.
        dimse: Its DIMSE service.
        transport: Which of the two is used where both are there.
        tls: Trust and client certificate, for both.
        credentials: User and password, or token, for DICOMweb.
        retries: Of transient failures.
        timeouts: Of connections and answers.
        limits: What is refused.
        listen: Our own receiver.
    """

    dicomweb: Dicomweb | None = None
    dimse: Dimse | None = None
    transport: Transport | None = None
    tls: Tls = field(default_factory=Tls)
    credentials: Credentials | None = None
    retries: Retries = field(default_factory=Retries)
    timeouts: Timeouts = field(default_factory=Timeouts)
    limits: Limits = field(default_factory=Limits)
    listen: Listen = field(default_factory=Listen)

    def __post_init__(self) -> None:
        if self.dicomweb is None and self.dimse is None:
            raise ExchangeError("configuration", "names no PACS", "write a table [dicomweb] or [dimse]")
        if self.dicomweb is not None and self.dimse is not None and self.transport is None:
            remedy = 'write transport = "dicomweb" or transport = "dimse" at the top'
            raise ExchangeError("configuration", "has both [dicomweb] and [dimse]", remedy)
        if self.transport is not None and getattr(self, self.transport) is None:
            raise ExchangeError("configuration", f"transport is {self.transport}, which has no table", "write it")

    @classmethod
    def read(cls, path: Path) -> "PacsConfig":
        """Read a TOML file with tables named as the fields of this class.

        Raises:
            ExchangeError: It can't be read, or an option is unknown, missing, of the wrong type or out of its range.
        """
        try:
            with Path(path).open("rb") as file:
                text = file.read(_LARGEST_CONFIG + 1)
            if len(text) > _LARGEST_CONFIG:
                raise ExchangeError(path, "is too large for a configuration")
            content = tomllib.loads(text.decode("utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise ExchangeError(path, f"can't be read as TOML ({reason})") from error
        config: PacsConfig = filled(cls, content, str(path))
        return config

    @property
    def chosen(self) -> Transport:
        """The transport that is used."""
        return self.transport or ("dicomweb" if self.dicomweb is not None else "dimse")

    @property
    def target(self) -> str:
        """The PACS in a few words, the same for the same one: `url`, or `AE@host:port`."""
        if self.chosen == "dicomweb" and self.dicomweb is not None:
            return self.dicomweb.url
        assert self.dimse is not None
        return f"{self.dimse.called_ae}@{self.dimse.host}:{self.dimse.port}"

    def warnings(self) -> list[str]:
        """Return what is allowed but unwise: files that others can read, no verification, secrets in clear text."""
        found = []
        secrets = {"credentials.secret_file": self.credentials.secret_file if self.credentials else None}
        secrets |= {"tls.private_key": self.tls.private_key, "listen.private_key": self.listen.private_key}
        for name, path in secrets.items():
            try:
                if path is not None and Path(path).stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
                    found.append(f"{name}: {path} can be read by others; chmod 600 it")
            except OSError:
                continue  # whoever needs it says so
        if not self.tls.verify:
            found.append("tls.verify is off: whoever stands between can read and change everything")
        server = self.dicomweb
        if server is not None and not server.is_secure and not is_loopback(server.host):
            found.append(
                f"dicomweb.url: {server.host} is spoken to without TLS"
                + ", password and all" * (self.credentials is not None)
            )
        if self.dimse is not None and not self.dimse.tls and not is_loopback(self.dimse.host):
            found.append(f"dimse: {self.dimse.host} is spoken to without TLS")
        if not is_loopback(self.listen.host) and self.listen.certificate is None:
            found.append(f"listen: images are received on {self.listen.host} without TLS")
        return found
