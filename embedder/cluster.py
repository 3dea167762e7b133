"""Reaching a Ray cluster, or starting one on this machine, within bounded time; and leaving it as it was."""

import contextlib
import io
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import TextIO

from embedder.fleetworker import FleetError

CONNECT_SECONDS = 5.0
"""How long a cluster's port may take to answer."""

_HOST_AND_PORT = re.compile(r"(ray://)?(?P<host>[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\]):(?P<port>[0-9]{1,5})")

_INSTALL = "install mammoseek[ray]"

# Of a local cluster's shared memory: the model, and the vectors and pictures of a few tasks.
_STORE_BYTES = 256 << 20

_LONGEST_FOLDER = 24

# No usage reports go anywhere, and what Ray has to say of itself stays in its log files.
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # A task that takes too much memory is tried again this often; without, for ever.
    "RAY_task_oom_retries": "3",
}


def check_address(address: str) -> None:
    """Refuse what is no address of a cluster.

    Args:
        address: `local`, `auto` or `ray://host:port`.

    Raises:
        FleetError: It is none of these.
    """
    if address in ("local", "auto") or (address.startswith("ray://") and _HOST_AND_PORT.fullmatch(address)):
        return
    raise FleetError(
        f"address {address[:200]!r}",
        "is not one of a Ray cluster",
        "use local (start one on this machine), auto (the one that runs on this machine) or ray://host:port",
    )


@contextlib.contextmanager
def connected(address: str, model_bytes: int = 0) -> Iterator[ModuleType]:
    """Connect to a cluster, and leave it at the end; one that was started for this is stopped.

    Where this process is connected to a cluster already, that one is used and stays connected.

    Args:
        address: See `check_address`.
        model_bytes: What the model takes; sets the memory of a local cluster.

    Yields:
        The module `ray`.

    Raises:
        FleetError: Ray is not installed, or there is no cluster at this address.
    """
    check_address(address)
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    if address == "local" and "ray" not in sys.modules:
        # Ray's own switch for a cluster that only this machine can reach: every port is bound to the loopback.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        import ray
    except ImportError as error:
        raise FleetError("ray", "is not installed", _INSTALL) from error
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(_WithoutRay(sys.stdout)))
        if ray.is_initialized():
            yield ray
            return
        stack.enter_context(_terminated_as_before())
        if address == "local":
            _start(ray, stack, model_bytes)
        else:
            stack.callback(_leave, ray)
            _join(ray, address)
        yield ray


def _start(ray: ModuleType, stack: contextlib.ExitStack, model_bytes: int) -> None:
    """Start a cluster on this machine, for this process alone."""
    # Its sockets lie in this folder, and a socket's name may have a hundred characters only.
    base = tempfile.gettempdir()
    folder = tempfile.mkdtemp(prefix="mammoseek-ray-", dir=base if len(base) <= _LONGEST_FOLDER else "/tmp")
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    stack.callback(_leave, ray)
    try:
        ray.init(
            address="local",
            num_cpus=_usable_cores(),
            include_dashboard=False,
            log_to_driver=False,
            logging_level="error",
            object_store_memory=_STORE_BYTES + 3 * model_bytes,
            _temp_dir=folder,
        )
    # Whatever a dozen processes that are started can fail of.
    except Exception as error:
        raise FleetError(
            "ray", f"can't start a cluster on this machine ({first_line(error)})", "build without --ray"
        ) from error


def _join(ray: ModuleType, address: str) -> None:
    """Connect to a cluster that runs."""
    named = os.environ.get("RAY_ADDRESS", "") if address == "auto" else address
    if found := _HOST_AND_PORT.fullmatch(named):
        # Ray itself waits for minutes.
        try:
            port = int(found["port"])
            socket.create_connection((found["host"].strip("[]"), port), CONNECT_SECONDS).close()
        except (OSError, OverflowError) as error:
            raise _unreachable(named, getattr(error, "strerror", None) or str(error) or "no answer") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ray.init(address=address, log_to_driver=False, logging_level="error")
    except ImportError as error:
        raise FleetError("ray", f"lacks its client ({error})", _INSTALL) from error
    # Connecting fails in as many ways as there are between two versions of Ray and two machines.
    except Exception as error:
        raise _unreachable(named or address, first_line(error)) from error


def _leave(ray: ModuleType) -> None:
    # It says now what it has kept back of repeated messages.
    with contextlib.redirect_stdout(io.StringIO()):
        ray.shutdown()


def _unreachable(address: str, cause: str) -> FleetError:
    if address == "auto":
        return FleetError(
            "Ray", f"does not run on this machine ({cause})", "start it by `ray start`, or use --ray local"
        )
    return FleetError(
        f"Ray at {address}",
        f"can't be reached ({cause})",
        "see that it runs there, in the same version as here, and that RAY_AUTH_MODE and its token are the cluster's",
    )


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def first_line(error: Exception) -> str:
    """Return the first line of what an error says, which may be long."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


class _WithoutRay(io.TextIOBase):
    """Standard output without the pages that a thread of Ray prints of every dead worker: its log files have them.

    Args:
        stream: Standard output.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Print text, unless it is Ray's."""
        if threading.current_thread().name.startswith("ray_"):
            return len(text)
        return self._stream.write(text)

    def flush(self) -> None:
        """Flush standard output."""
        self._stream.flush()

    def fileno(self) -> int:
        """Return standard output's number."""
        return self._stream.fileno()

    def isatty(self) -> bool:
        """Return whether standard output is a terminal."""
        return self._stream.isatty()


@contextlib.contextmanager
def _terminated_as_before() -> Iterator[None]:
    """Undo what Ray does to the handling of SIGTERM."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)
