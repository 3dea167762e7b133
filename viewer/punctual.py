"""Connections that are closed when a client takes too long to say what it wants.

uvicorn waits for the head of a request for as long as it takes, and has only so many connections: a client that opens
many and sends a byte now and then would keep all others out.
"""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_S = 20.0
"""Seconds from the connection, or from the first byte of a further request on it, until its head must be whole."""


class PunctualProtocol(H11Protocol):
    """HTTP/1.1 with a time limit on the head of a request."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection up, and wait for its first request."""
        super().connection_made(transport)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        """Take bytes; an unfinished head of a further request has its own time."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:  # the head is whole: what follows is the body, see `viewer.guards`
            self._stop_waiting()
        elif self.conn.trailing_data[0]:
            self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let a connection go."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _expect_head(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_S, self._give_up)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        transport: Any = self.transport
        if self.conn.their_state is h11.IDLE and not transport.is_closing():
            transport.close()
