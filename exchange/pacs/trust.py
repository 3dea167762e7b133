"""TLS: the contexts of a client and of a receiver."""

import socket
import ssl
from typing import Any

from exchange import ExchangeError
from exchange.pacs.config import Tls
from exchange.pacs.listenconfig import Listen


def client_context(tls: Tls) -> ssl.SSLContext:
    """Return what a client trusts and shows.

    Raises:
        ExchangeError: A file can't be read, or is no certificate or key.
    """
    try:
        context = ssl.create_default_context(cafile=tls.ca_file)
        if tls.certificate is not None:
            context.load_cert_chain(tls.certificate, tls.private_key)
    except OSError as error:
        raise _unusable(f"{tls.ca_file or tls.certificate}", error) from error
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def receiver_context(listen: Listen, handshake_s: float) -> ssl.SSLContext | None:
    """Return what a receiver shows and asks for; None where it speaks no TLS.

    Args:
        listen: The receiver.
        handshake_s: Seconds that a caller may be silent.

    Raises:
        ExchangeError: A file can't be read, or is no certificate or key.
    """
    if listen.certificate is None:
        return None
    context = _PatientContext(ssl.PROTOCOL_TLS_SERVER)
    context.silence_s = handshake_s
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(listen.certificate, listen.private_key)
        if listen.client_ca is not None:
            context.load_verify_locations(listen.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except OSError as error:
        raise _unusable(listen.certificate, error) from error
    return context


def _unusable(subject: str, error: OSError) -> ExchangeError:
    reason = "it is no PEM file of that kind" if isinstance(error, ssl.SSLError) else error.strerror
    return ExchangeError(subject, f"certificate, key or authorities can't be read ({reason})", "check the PEM files")


class _PatientContext(ssl.SSLContext):
    """Leaves the handshake to the connection's own thread.

    pynetdicom wraps a new connection in the thread that accepts all of them: one caller that says nothing would keep
    everybody else out.
    """

    silence_s: float

    def wrap_socket(self, sock: socket.socket, *arguments: Any, **options: Any) -> ssl.SSLSocket:
        sock.settimeout(self.silence_s)
        return super().wrap_socket(sock, *arguments, **{**options, "do_handshake_on_connect": False})
