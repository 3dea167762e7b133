"""The state folder: where a server's records lie, for itself and for whoever looks at them meanwhile."""

import os
import stat
from pathlib import Path

from index import GalleryError
from index.durable import WriterLock, make_folder, storage_error
from viewer import ViewerError


def records_of(folder: Path) -> dict[str, Path]:
    """Return the files of records that a state folder holds, by what they are of."""
    return {"audit": folder / "audit.jsonl", "verdicts": folder / "verdicts.jsonl"}


def take_folder(folder: Path) -> WriterLock:
    """Make a state folder that its owner alone can read, and take the right to write to it.

    Raises:
        ViewerError: It can't be made or written, is another user's, or another server uses it.
    """
    try:
        if not folder.is_dir():
            make_folder(folder.parent)
            folder.mkdir(mode=0o700)
        status = folder.stat()
        if (mode := stat.S_IMODE(status.st_mode)) & 0o077:
            if status.st_uid != os.getuid():
                raise ViewerError(folder, f"can be read by others (mode {mode:o})", "chmod 700 it, or name another")
            folder.chmod(0o700)
    except OSError as error:
        told = storage_error(folder, error)
        raise ViewerError(told.subject, told.cause, "name another folder by --state") from error
    lock = WriterLock(folder / "lock")
    try:
        lock.acquire()
    except GalleryError as error:
        owner, is_held, _ = error.cause.partition(" is writing to")
        if not is_held:  # the file of the lock can't be made or opened
            reason = (getattr(error.__cause__, "strerror", None) or error.cause).lower()
            raise ViewerError(folder, f"can't be written ({reason})", "name another folder by --state") from error
        cause = f"verdicts and audit log are in use by {owner}"
        raise ViewerError(folder, cause, "stop that server, or name another folder by --state") from error
    return lock
