"""Bounds on what a DIMSE peer can make us keep or wait for, which pynetdicom does not set."""

from typing import Any

from exchange.pacs.config import Limits, Timeouts

_LARGEST_REQUEST = 1 << 20  # bytes of a PDU that is no data: an association request with its many contexts

_PIECE = 1 << 18


class Guard:
    """Bounds one association's PDUs and instances, and its silences.

    pynetdicom reads as many bytes as a PDU claims to have (4 GiB), gathers an instance of any size, and waits without
    end in the middle of a PDU.

    Args:
        limits: Of PDU and instance.
        timeouts: Of silences.
    """

    def __init__(self, limits: Limits, timeouts: Timeouts) -> None:
        self._limits = limits
        self._timeouts = timeouts

    def handlers(self) -> list[tuple[Any, Any]]:
        """Return pynetdicom's event handlers that set the bounds when a connection opens."""
        from pynetdicom import evt

        return [(evt.EVT_CONN_OPEN, self._opened)]

    def _opened(self, event: Any) -> None:
        connection = event.assoc.dul.socket
        if connection.socket is not None:
            connection.socket.settimeout(self._timeouts.response_s)
        largest_pdu = max(self._limits.pdu_kib * 1024 + 64, _LARGEST_REQUEST)
        event.assoc.received_bytes = 0

        def bounded(count: int) -> Any:
            if count > largest_pdu:
                raise OSError(f"a PDU of {count} bytes is larger than {largest_pdu}")
            event.assoc.received_bytes += count
            # PDU headers and the command need a few bytes beside the data set.
            if event.assoc.received_bytes > 1.01 * self._limits.instance_bytes + _LARGEST_REQUEST:
                raise OSError(f"an instance is larger than {self._limits.instance_bytes} bytes")
            # As pynetdicom's own, but not 4 KiB at a time.
            data = bytearray()
            while len(data) < count:
                part = connection.socket.recv(min(count - len(data), _PIECE))
                if not part:
                    break
                data += part
            return data

        connection.recv = bounded


def begin_next_instance(event: Any) -> None:
    """Count the bytes of an association's next instance from zero."""
    event.assoc.received_bytes = 0
