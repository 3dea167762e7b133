"""mini-MIAS from its official home: fetched piecewise, checked to the pixel, unpacked whole or not at all."""

import gzip
import hashlib
import http.client
import re
import shutil
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO, cast

import cv2
import numpy as np

from embedder.datasets.minimias import IMAGES, SIZE, find_image, find_truth, parse_truth
from embedder.datasets.reading import DatasetError, Progress

OFFICIAL_URL = "http://peipa.essex.ac.uk/pix/mias/all-mias.tar.gz"
"""The Pilot European Image Processing Archive at the University of Essex, where MIAS publishes it."""

CONTENT_DIGEST = "a7a4e37098e0911a53e02dc8f7161d2cdf7f497c2303c8342ca7fc9eaf477c49"
"""`content_digest` of the whole of mini-MIAS."""

_TIMEOUT_S = 20.0  # for a connection, and for a server that falls silent
_DEADLINE_S = 3600.0  # for the whole: a server that trickles must not hold us for ever
_ATTEMPTS = 4
_CHUNK = 1 << 18
_ARCHIVE_LIMIT = 400_000_000  # bytes; 322 images of 1 MB are 340 MB before compression
_MEMBERS_LIMIT = 1000
_IMAGE_NAME = re.compile(r"mdb\d{3}\.(pgm|png)")
_TEXT_NAME = re.compile(r"(info|readme|licen[cs]e)(\.txt)?", re.IGNORECASE)
_IMAGE_LIMIT = 2_000_000
_TEXT_LIMIT = 1_000_000


class _Interrupted(Exception):
    """A transfer that broke off and may be taken up again."""


def download_mini_mias(
    folder: Path, *, url: str = OFFICIAL_URL, digest: str = CONTENT_DIGEST, progress: Progress | None = None
) -> Path:
    """Fetch mini-MIAS into a folder, unless it is there.

    A download that breaks off is taken up where it stopped, by this call and by the next (`FOLDER.part`). The
    folder appears only when its content has been checked. mini-MIAS is for research only: see `Licence.txt`.

    Args:
        folder: Where it shall lie: absent, empty, or holding mini-MIAS already.
        url: Where `all-mias.tar.gz` is served.
        digest: What `content_digest` must give.
        progress: Called with bytes fetched and bytes in all (0 while unknown).

    Returns:
        The folder.

    Raises:
        DatasetError: The home can't be reached, it serves something else, or the folder can't be written.
    """
    folder = Path(folder)
    try:
        if folder.exists() and not folder.is_dir():
            raise DatasetError(folder, "is a file", "choose another folder")
        if folder.is_dir() and any(folder.iterdir()):
            flaw = _flaw(folder, digest)
            if flaw is not None:
                cause = f"holds something else than mini-MIAS ({flaw})"
                raise DatasetError(folder, cause, "choose another folder")
            return folder
        part = folder.with_name(folder.name + ".part")
        folder.parent.mkdir(parents=True, exist_ok=True)
        _fetch(url, part, progress)
        _install(url, part, folder, digest)
    except OSError as error:
        raise DatasetError(error.filename or folder, f"can't be written ({error.strerror or error})") from error
    return folder


def content_digest(folder: Path) -> str:
    """Return the SHA-256 of mini-MIAS in a folder: all pixels in the order of the films, then the truth.

    The same for the official .pgm files and for .png files made of them.

    Raises:
        DatasetError: An image or the ground truth is missing or can't be read.
    """
    digest = hashlib.sha256()
    for number in range(1, IMAGES + 1):
        image = find_image(folder, f"mdb{number:03d}")
        # The stored grey values themselves: how they are rendered may change, what they are must not.
        pixels = cv2.imread(str(image), cv2.IMREAD_UNCHANGED)
        if pixels is None or pixels.shape != (SIZE, SIZE) or pixels.dtype != np.uint8:
            raise DatasetError(image, f"is not an 8-bit image of {SIZE} by {SIZE}")
        digest.update(pixels.tobytes())
    films, _ = parse_truth(find_truth(folder))
    for film in films:
        digest.update(f"{film.name} {film.tissue}\n".encode())
        for lesion in film.lesions:
            place = " ".join(map(str, lesion.circle or ()))
            digest.update(f"{lesion.kind} {lesion.severity} {place}\n".encode())
    return digest.hexdigest()


def _flaw(folder: Path, digest: str) -> str | None:
    """Say what is wrong with the content of a folder; None where it is mini-MIAS."""
    try:
        same = content_digest(folder) == digest
    except DatasetError as error:
        return f"{Path(error.subject).name}: {error.cause}"
    return None if same else "its pixels or its ground truth differ"


def _install(url: str, part: Path, folder: Path, digest: str) -> None:
    """Unpack aside, check, and move into place in one step."""
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as name:
        unpacked = Path(name) / "unpacked"
        unpacked.mkdir()
        try:
            _unpack(url, part, unpacked)
            flaw = _flaw(unpacked, digest)
            if flaw is not None:
                raise DatasetError(url, f"what it serves is not mini-MIAS ({flaw})")
        except DatasetError:
            # To go on with these bytes would fail again.
            part.unlink()
            raise
        # An empty folder: not every system renames onto it.
        if folder.exists():
            folder.rmdir()
        unpacked.rename(folder)
    part.unlink()


def _fetch(url: str, part: Path, progress: Progress | None) -> None:
    """Fetch a file, going on from what is there, and again after an interruption."""
    if not url.startswith(("http://", "https://")):
        raise DatasetError(url, "is no address of the web")
    deadline = time.monotonic() + _DEADLINE_S
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            _fetch_rest(url, part, progress, deadline)
            return
        except _Interrupted as error:
            if attempt == _ATTEMPTS or time.monotonic() > deadline:
                remedy = "try again later: it goes on from there"
                raise DatasetError(url, f"breaks off while it is fetched ({error})", remedy) from error


def _fetch_rest(url: str, part: Path, progress: Progress | None, deadline: float) -> None:
    """Fetch what is missing of a file."""
    start = part.stat().st_size if part.exists() else 0
    response = _open(url, part, start)
    if response is None:
        return
    with response:
        start = start if start and _continues(response, start) else 0
        length = response.headers.get("Content-Length", "")
        total = start + int(length) if re.fullmatch(r"\d{1,15}", length) else 0
        if total > _ARCHIVE_LIMIT:
            raise DatasetError(url, f"is too large to be mini-MIAS ({total} bytes)")
        done = start
        with part.open("ab" if start else "wb") as file:
            for chunk in _chunks(response):
                file.write(chunk)
                done += len(chunk)
                if progress is not None:
                    progress(done, total)
                if done > _ARCHIVE_LIMIT:
                    raise DatasetError(url, "is too large to be mini-MIAS")
                if time.monotonic() > deadline:
                    raise _Interrupted("it is too slow")
    if done < total:
        raise _Interrupted(f"after {done} of {total} bytes")


def _open(url: str, part: Path, start: int) -> http.client.HTTPResponse | None:
    """Ask for a file from one byte on; None where all of it is here already."""
    try:
        request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
        return cast(http.client.HTTPResponse, urllib.request.urlopen(request, timeout=_TIMEOUT_S))
    except urllib.error.HTTPError as error:
        if error.code != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not start:
            raise DatasetError(url, f"can't be fetched (HTTP status {error.code} {error.reason})") from error
        if error.headers.get("Content-Range") == f"bytes */{start}":
            return None
        part.unlink()
        raise _Interrupted("the server's file has changed") from error
    # Not tried again: who has no network shouldn't wait for it.
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise DatasetError(url, f"can't be reached ({reason})", "try again later") from error


def _continues(response: http.client.HTTPResponse, start: int) -> bool:
    """Whether a server answers with the rest of a file, and not from its beginning."""
    partial = response.status == HTTPStatus.PARTIAL_CONTENT
    return partial and response.headers.get("Content-Range", "").startswith(f"bytes {start}-")


def _chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    try:
        while chunk := response.read(_CHUNK):
            yield chunk
    except (OSError, http.client.HTTPException) as error:
        raise _Interrupted(str(error) or type(error).__name__) from error


class _Limited:
    """A stream that refuses to give more than it should: a small archive can unpack to anything."""

    def __init__(self, stream: BinaryIO, limit: int) -> None:
        self.stream = stream
        self.left = limit

    def read(self, size: int) -> bytes:
        chunk = self.stream.read(min(size, self.left + 1))
        self.left -= len(chunk)
        if self.left < 0:
            raise tarfile.ReadError("it unpacks to more than mini-MIAS has")
        return chunk


def _unpack(url: str, part: Path, folder: Path) -> None:
    """Unpack images and texts, flat; anything hostile that an archive may hold beside them is refused."""
    try:
        with gzip.open(part) as stream:
            limited = cast(BinaryIO, _Limited(cast(BinaryIO, stream), _ARCHIVE_LIMIT))
            with tarfile.open(fileobj=limited, mode="r|") as archive:
                for count, member in enumerate(archive, 1):
                    if count > _MEMBERS_LIMIT:
                        raise tarfile.ReadError("it has too many files")
                    _unpack_member(archive, member, folder)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, FileExistsError) as error:
        raise DatasetError(url, f"what it serves is no archive of mini-MIAS ({error})") from error


def _unpack_member(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    parts = member.name.split("/")
    if member.name.startswith("/") or ".." in parts or "\\" in member.name:
        raise tarfile.ReadError(f"it has a file that would lie outside: {member.name[:80]!r}")
    if member.isdir():
        return
    if not member.isreg():
        raise tarfile.ReadError(f"it has a link or device: {member.name[:80]!r}")
    name = parts[-1]
    if _IMAGE_NAME.fullmatch(name):
        limit = _IMAGE_LIMIT
    elif _TEXT_NAME.fullmatch(name):
        limit = _TEXT_LIMIT
    else:
        return
    source = archive.extractfile(member)
    if source is None or member.size > limit:
        raise tarfile.ReadError(f"{name} is too large")
    with source, (folder / name).open("xb") as target:
        shutil.copyfileobj(source, target)
