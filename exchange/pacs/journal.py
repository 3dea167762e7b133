"""A journal of what was sent: one line an instance, durable before the next one is sent."""

import contextlib
import hashlib
import json
import os
from pathlib import Path

from exchange import ExchangeError
from exchange.pacs.instances import Instance
from index.durable import sync_folder


class Journal:
    """What was sent where, in a file of JSON lines that is only ever added to.

    A line is written after the archive has said that it keeps the instance. Whoever is killed between the two sends
    that one instance again: the same bytes under the same SOP Instance UID, which an archive keeps once. A line that
    a kill cut short is no line.

    Args:
        path: The file; None keeps it in memory alone.

    Raises:
        ExchangeError: The file can't be read, or is something else.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._sent: set[tuple[str, str, str]] = set()
        if path is None:
            return
        try:
            lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        except OSError as error:
            raise ExchangeError(path, f"can't be read ({error.strerror})") from error
        for number, line in enumerate(lines, 1):
            try:
                entry = json.loads(line)
                self._sent.add((str(entry["target"]), str(entry["sop_uid"]), str(entry["sha256"])))
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                if line.strip() and (number == 1 and not line.startswith(b"{")):
                    raise ExchangeError(path, "is no journal of what was sent", "name another file") from error
                continue  # cut short by a kill: that instance is sent again

    def has(self, target: str, instance: Instance, data: bytes) -> bool:
        """Tell whether an instance with these bytes was sent to a target."""
        return (target, instance.sop_uid, hashlib.sha256(data).hexdigest()) in self._sent

    def names(self, sop_uid: str) -> bool:
        """Tell whether an instance of this name was sent anywhere."""
        return any(sop_uid == sent for _, sent, _ in self._sent)

    def add(self, target: str, instance: Instance, data: bytes) -> None:
        """Note an instance as sent, durably.

        Raises:
            ExchangeError: It can't be written.
        """
        digest = hashlib.sha256(data).hexdigest()
        self._sent.add((target, instance.sop_uid, digest))
        if self._path is None:
            return
        line = json.dumps({"target": target, "sop_uid": instance.sop_uid, "sha256": digest}) + "\n"
        try:
            is_new = not self._path.exists()
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o666)
            try:
                end = os.fstat(descriptor).st_size
                cut = bool(end) and os.pread(descriptor, 1, end - 1) != b"\n"
                # A line that was cut short stays a line of its own.
                whole = ("\n" * cut + line).encode()
                try:
                    while whole:
                        whole = whole[os.write(descriptor, whole) :]
                    os.fsync(descriptor)
                except OSError:
                    with contextlib.suppress(OSError):
                        os.ftruncate(descriptor, end)
                    raise
            finally:
                os.close(descriptor)
            if is_new:
                sync_folder(self._path.absolute().parent)
        except OSError as error:
            cause = f"can't be written ({error.strerror}): {instance.sop_uid} was sent, and will be sent again"
            raise ExchangeError(self._path, cause) from error
