"""How the page is served: one frozen configuration, made by the command line and never changed."""

import getpass
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

DEFAULT_PORT = 8700

LOOPBACK_HOSTS = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class Limits:
    """What one client may ask of the server.

    Args:
        body_bytes: Bytes of a request's body, counted as they come.
        body_s: Seconds that a body may take to come.
        requests_per_s: Requests a user may send for long; a screen of tiles is some dozens at once.
        requests_at_once: Requests a user may send at once after a pause.
        changes_per_s: Questions, verdicts and other POST requests of a user, for long.
        changes_at_once: The same, at once after a pause.
        failed_logins_per_minute: Wrong tokens from one address.
        session_s: Seconds after which a login ends.
        text_characters: Characters of a verdict's free text.
    """

    body_bytes: int = 1 << 20
    body_s: float = 20.0
    requests_per_s: float = 500.0
    requests_at_once: int = 2_000
    changes_per_s: float = 50.0
    changes_at_once: int = 200
    failed_logins_per_minute: int = 20
    session_s: int = 12 * 3600
    text_characters: int = 10_000


@dataclass(frozen=True)
class ServeConfig:
    """What is served, to whom, and how.

    Args:
        gallery: Folder of the gallery.
        model: Folder of its model, where it is not the copy that the gallery keeps.
        images: Folders of images that readers may look at.
        detections: Tables of detections on them.
        device: Where to compute.
        host: Address to listen at.
        port: Port to listen at; 0 for any that is free.
        tokens: File of hashed tokens, see `viewer.access`; None where no token is asked for.
        identity_header: Header in which a reverse proxy names the user; None where there is none.
        trusted_proxies: Addresses or networks from which that header is believed.
        curators: Users of the proxy who are curators; all others are readers.
        allowed_hosts: Names by which browsers reach the server, besides `host`.
        tls_cert: PEM file of the certificate.
        tls_key: PEM file of its key.
        behind_proxy: Whether a reverse proxy speaks TLS for the server.
        limits: What one client may ask.
        state: Folder of verdicts and audit log; None for `default_state(gallery)`.
        opinion_hidden: Whether votes and probabilities stay hidden until a reader asks for them.
        names_shown: Whether names of patients are shown.
        embed_queue: Questions that may wait for the embedder; more are told that it is busy.
        reader: Who asks where neither a token nor a proxy says so.
    """

    gallery: Path
    model: Path | None = None
    images: tuple[Path, ...] = ()
    detections: tuple[Path, ...] = ()
    device: str = "auto"
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    tokens: Path | None = None
    identity_header: str | None = None
    trusted_proxies: tuple[str, ...] = ()
    curators: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    tls_cert: Path | None = None
    tls_key: Path | None = None
    behind_proxy: bool = False
    limits: Limits = field(default_factory=Limits)
    state: Path | None = None
    opinion_hidden: bool = True
    names_shown: bool = False
    embed_queue: int = 32
    reader: str = field(default_factory=lambda: local_user())

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches the server."""
        return self.host in LOOPBACK_HOSTS

    @property
    def is_secure(self) -> bool:
        """Whether browsers reach the server by TLS."""
        return self.tls_cert is not None or self.behind_proxy

    @property
    def asks_who(self) -> bool:
        """Whether a request must say who asks."""
        return self.tokens is not None or self.identity_header is not None

    @property
    def state_folder(self) -> Path:
        """Folder of verdicts and audit log."""
        return self.state if self.state is not None else default_state(self.gallery)


def local_user() -> str:
    """Return the name of the user who runs the server; `reader` where the system does not know it."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "reader"


def default_state(gallery: Path, environment: Mapping[str, str] | None = None) -> Path:
    """Return the folder of a gallery's verdicts and audit log: in the user's own folder for what programs keep.

    Not in the gallery, which other users read and which is copied and deleted as a whole.

    Args:
        gallery: Folder of the gallery.
        environment: Environment variables; None for this process's.

    >>> default_state(Path("/data/gallery"), {"XDG_STATE_HOME": "/home/anna/state"}).as_posix()
    '/home/anna/state/mammoseek/gallery-cd2c94ba'
    """
    known = os.environ if environment is None else environment
    given = known.get("XDG_STATE_HOME", "")
    base = Path(given) if Path(given).is_absolute() else Path.home() / ".local" / "state"
    place = gallery.resolve()
    digest = hashlib.sha256(str(place).encode("utf-8", "surrogateescape")).hexdigest()
    return base / "mammoseek" / f"{place.name[:64] or 'gallery'}-{digest[:8]}"
