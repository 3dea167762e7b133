"""Files that are either wholly there or not there at all, and one writer at a time."""

import contextlib
import errno
import fcntl
import io
import json
import os
import socket
import stat
from pathlib import Path
from typing import Self

from index import GalleryError

TEMPORARY_SUFFIX = ".tmp"

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
_NO_PERMISSION = {errno.EACCES, errno.EPERM, errno.EROFS}


def storage_error(path: Path, error: OSError) -> GalleryError:
    """Return the error that tells a reader why a file could not be written or read.

    >>> print(storage_error(Path("g"), OSError(errno.ENOSPC, "No space left on device")))
    g: the disk is full; free some space and try again: nothing that was stored is lost
    """
    if error.errno in _NO_ROOM:
        return GalleryError(path, "the disk is full", "free some space and try again: nothing that was stored is lost")
    if error.errno == errno.EFBIG:
        return GalleryError(
            path,
            "the file would be larger than this system allows",
            "raise the limit (`ulimit -f`) and try again",
        )
    if error.errno in _NO_PERMISSION:
        reason = os.strerror(error.errno or 0).lower()
        return GalleryError(path, f"can't be written or read here ({reason})", "check the folder's permissions")
    return GalleryError(path, error.strerror or str(error))


def open_plain(path: Path) -> io.FileIO:
    """Open a file for reading, unbuffered; never wait for a pipe, nor read a device that has no end.

    Raises:
        GalleryError: It is no plain file.
        OSError: It can't be opened.
    """
    file = io.FileIO(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    try:
        kind = os.fstat(file.fileno()).st_mode
        if stat.S_ISDIR(kind):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(kind):
            raise GalleryError(path, "is no plain file", "restore it from a copy")
    except BaseException:
        file.close()
        raise
    return file


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable: a rename survives a power cut only after this."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Create a folder where it is not there, durably, and its parents likewise."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file aside, make it durable, then put it in place in one step.

    A failure or an interrupt at any moment leaves either the old file or the new one under `path`, and no
    temporary file unless the process is killed.

    Raises:
        OSError: It could not be written.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
    try:
        # A link that somebody left under this name must not lead the bytes elsewhere.
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o666)
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


class WriterLock:
    """The right to write to a gallery, held by one process at a time.

    The kernel drops the lock when its holder dies, so a killed writer never blocks the next one. The file
    itself stays; what it says is only for the message that a refused writer gets.

    Args:
        path: The lock file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock without waiting.

        Raises:
            GalleryError: Another writer holds it, or the folder can't be written.
        """
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        except OSError as error:
            raise storage_error(self._path.parent, error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = self._owner(descriptor)
            os.close(descriptor)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise GalleryError(
                    self._path.parent, f"{owner} is writing to this gallery", "wait until it has finished"
                ) from error
            raise storage_error(self._path.parent, error) from error
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        try:
            # A full disk must not stop a removal that would free it: the note is a courtesy.
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode(), 0)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Give the lock back."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()

    @staticmethod
    def _owner(descriptor: int) -> str:
        try:
            note = json.loads(os.pread(descriptor, 1024, 0))
            return f"process {int(note['pid'])} on {str(note['host'])[:200]}"
        except (OSError, ValueError, KeyError, TypeError):
            return "another process"
