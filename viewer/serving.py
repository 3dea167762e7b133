"""From a configuration to a server that listens: what must be so before it does, and a clean end."""

import asyncio
import contextlib
import errno
import re
import signal
import socket
import ssl
import webbrowser
from collections.abc import Callable
from typing import TYPE_CHECKING

from viewer import ViewerError
from viewer.access import read_tokens
from viewer.settings import ServeConfig

if TYPE_CHECKING:
    import uvicorn

_GRACE_S = 5
_BACKLOG = 256
_MOST_CONNECTIONS = 1_000
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")

# What browsers, proxies and the page itself send for another purpose: its value would pass for a user's name. Not all
# of X-Forwarded-*, since X-Forwarded-User and X-Forwarded-Email do name one.
_OTHER_HEADER = re.compile(
    r"(accept|access-control|content|if|sec)(-.*)?|(proxy-)?(authorization|connection)|cache-control|cookie|date|dnt"
    r"|expect|forwarded|host|keep-alive|max-forwards|origin|pragma|priority|range|referer|set-cookie|te|trailer"
    r"|transfer-encoding|upgrade(-insecure-requests)?|user-agent|via|x-mammoseek|x-real-ip|x-request(-id|ed-with)"
    r"|x-forwarded-(by|for|host|port|prefix|proto|protocol|scheme|server|ssl|uri)",
    re.IGNORECASE,
)


def check_exposure(config: ServeConfig) -> None:
    """Refuse to listen in a way that would let in whoever can reach the port, or send patients' data in the clear.

    Raises:
        ViewerError: It would, or what is given to prevent it would prevent nothing.
    """
    _check_identity_header(config.identity_header)
    _check_names(config)
    if config.tokens is not None and config.tokens.is_file() and not read_tokens(config.tokens):
        raise ViewerError(
            config.tokens, "holds no token", f"make one by `mammoseek serve-token NAME --tokens {config.tokens}`"
        )
    if config.identity_header is not None and not config.trusted_proxies:
        raise ViewerError(
            "--identity-header", "is believed from nobody", "name the proxy's address by --trusted-proxy ADDRESS"
        )
    if config.trusted_proxies and config.identity_header is None:
        raise ViewerError("--trusted-proxy", "is named without a header", "name it by --identity-header NAME")
    if (config.tls_cert is None) != (config.tls_key is None):
        raise ViewerError("TLS", "needs a certificate and its key", "give both --tls-cert and --tls-key")
    if config.tls_cert is not None:
        _check_certificate(config)
    if config.is_local:
        return
    if not config.asks_who:
        raise ViewerError(
            f"--host {config.host}",
            "lets others reach the server, and nobody would have to say who she is",
            "add --tokens FILE (see `mammoseek serve-token`), or --identity-header and --trusted-proxy",
        )
    if not config.is_secure:
        raise ViewerError(
            f"--host {config.host}",
            "would send patients' images and tokens in the clear",
            "add --tls-cert and --tls-key, or --behind-proxy where a reverse proxy speaks TLS",
        )


def _check_identity_header(name: str | None) -> None:
    if name is None:
        return
    if not _HEADER_NAME.fullmatch(name):
        raise ViewerError(
            f"--identity-header {name[:64]!r}", "is no name of a header", "name one such as X-Remote-User"
        )
    if _OTHER_HEADER.fullmatch(name):
        raise ViewerError(
            f"--identity-header {name}", "says something else than who asks", "name one such as X-Remote-User"
        )


def _check_names(config: ServeConfig) -> None:
    if not config.allowed_hosts:
        return
    from viewer.guards import own_name

    for name in config.allowed_hosts:
        if not own_name(name):
            raise ViewerError(
                f"--allowed-host {name[:64]!r}",
                "is no name of a host",
                "give one such as viewer.example, without scheme and path",
            )


def _check_certificate(config: ServeConfig) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(str(config.tls_cert), str(config.tls_key))
    except OSError as error:
        reason = "no PEM certificate with its key" if isinstance(error, ssl.SSLError) else error.strerror
        raise ViewerError(str(config.tls_cert), f"can't be used ({reason})", "check both PEM files") from error


def listen(config: ServeConfig) -> socket.socket:
    """Return a socket that listens where it should; connections wait until the server takes them.

    Raises:
        ViewerError: The port is in use, or the address is none of this machine.
    """
    host, port = ("127.0.0.1" if config.host == "localhost" else config.host), config.port
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        family, kind, protocol, _, address = found
        # With the protocol named, asyncio sends small answers at once; else each may wait 40 ms for the one before.
        sock = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ViewerError(f"address {host}", f"is none ({error.strerror})", "give one of this machine") from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            cause, remedy = "is in use by another program", "stop it, or give another --port (0 takes any that is free)"
        elif error.errno == errno.EACCES:
            cause, remedy = "may not be used by this user", "give a --port from 1024 on"
        else:
            cause, remedy = f"can't be listened at ({error.strerror})", "give an address of this machine"
        raise ViewerError(f"{host}:{port}", cause, remedy) from error
    return sock


def address_of(config: ServeConfig, sock: socket.socket) -> str:
    """Return the address that a browser on this machine opens."""
    host, port = sock.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    scheme = "https" if config.tls_cert is not None else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}/"


def serve(config: ServeConfig, say: Callable[[str], None], *, open_page: bool = False) -> None:
    """Serve until Ctrl-C or SIGTERM.

    Args:
        config: What is served, to whom, and how.
        say: Told the address, and what its user should know.
        open_page: Open the page in the user's browser.

    Raises:
        MammoseekError: Something that is named can't be used, or the port is in use.
    """
    check_exposure(config)
    with contextlib.closing(listen(config)) as sock:  # before models are loaded, which takes long
        from viewer.app import create_app

        app = create_app(config, say)
        address = address_of(config, sock)
        server = _server(config, app, lambda: _ready(config, address, say, open_page))
        # uvicorn raises the signal that ended it once more, to whoever handled it before: it was heard.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        asyncio.run(server.serve(sockets=[sock]))
    if server.started:
        say("The server has ended; everything that was recorded is kept.")
    else:
        raise ViewerError("the server", "could not start", "its messages above say why")


def _ready(config: ServeConfig, address: str, say: Callable[[str], None], open_page: bool) -> None:
    say(f"Serving at {address} until Ctrl-C. For research, not for diagnosis.")
    say(f"Verdicts and audit log are in {config.state_folder}")
    if open_page:
        webbrowser.open(address)


def _server(config: ServeConfig, app: object, ready: Callable[[], None]) -> "uvicorn.Server":
    import uvicorn

    from viewer.punctual import PunctualProtocol

    class Announced(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                ready()

    return Announced(
        uvicorn.Config(
            app,  # type: ignore[arg-type]
            # Addresses hold searches and ids; who asked what stands in the audit log.
            access_log=False,
            log_level="warning",
            server_header=False,
            date_header=True,
            # Who is connected is what the socket says, whatever a client writes into X-Forwarded-For.
            proxy_headers=False,
            ws="none",
            http=PunctualProtocol,
            limit_concurrency=_MOST_CONNECTIONS,
            lifespan="on",
            backlog=_BACKLOG,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=_GRACE_S,
            ssl_certfile=None if config.tls_cert is None else str(config.tls_cert),
            ssl_keyfile=None if config.tls_key is None else str(config.tls_key),
        )
    )
