"""Fetching mini-MIAS from a server of our own: whole, broken off, taken up again, damaged and hostile."""

import gzip
import io
import shutil
import tarfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import pytest

from embedder.datasets import DatasetError, download, minimias, read_dataset
from embedder.datasets.download import content_digest, download_mini_mias

FEW = 4
TRUTH = b"prose\nmdb001 G CIRC B 535 425 197\nmdb002 G NORM\nmdb003 D NORM\nmdb004 D CALC M *NOTE 3*\n"


class Server(ThreadingHTTPServer):
    """Serves one file; what it does wrong is set from outside."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content: bytes | memoryview = b""
        self.cuts: list[int] = []  # bytes after which the next answers break off
        self.ranges = True
        self.status = 200
        self.requests: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/all-mias.tar.gz"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.requests.append(wanted)
        content, start, status = self.server.content, 0, self.server.status
        if status == 200 and wanted is not None and self.server.ranges:
            start, status = int(wanted.removeprefix("bytes=").removesuffix("-")), 206
        if start >= len(content) > 0:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(status)
        self.send_header("Content-Length", str(len(content) - start))
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        end = start + self.server.cuts.pop(0) if self.server.cuts else len(content)
        self.wfile.write(content[start:end])
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join(timeout=10)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make mini-MIAS a set of four images."""
    monkeypatch.setattr(download, "IMAGES", FEW)
    monkeypatch.setattr(minimias, "IMAGES", FEW)


def image(number: int) -> bytes:
    # Not too regular, so that the archive has some size.
    return b"P5\n1024 1024\n255\n" + bytes((i * i * (number + 2)) % 251 for i in range(1024)) * 1024


def members() -> dict[str, bytes]:
    files = {f"mdb{number:03d}.pgm": image(number) for number in range(1, FEW + 1)}
    return {"README": b"see Info.txt", "Info.txt": TRUTH, "Licence.txt": b"research only", **files}


def archive(files: dict[str, bytes], *extra: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for info in extra:
            tar.addfile(info, io.BytesIO(bytes(info.size)))
    return buffer.getvalue()


@pytest.fixture
def digest(tmp_path: Path, few: None) -> str:
    folder = tmp_path / "expected"
    folder.mkdir()
    for name, content in members().items():
        (folder / name).write_bytes(content)
    found = content_digest(folder)
    shutil.rmtree(folder)
    return found


def test_whole(tmp_path: Path, server: Server, digest: str) -> None:
    server.content = archive({f"./{name}": content for name, content in members().items()} | {"index.html": b"-"})
    calls: list[tuple[int, int]] = []
    folder = tmp_path / "data" / "mini-mias"
    assert download_mini_mias(folder, url=server.url, digest=digest, progress=lambda *c: calls.append(c)) == folder
    assert calls[-1] == (len(server.content), len(server.content))
    assert {path.name for path in folder.iterdir()} == set(members())
    assert [path.name for path in folder.parent.iterdir()] == ["mini-mias"]
    # A second call finds it there.
    download_mini_mias(folder, url=server.url, digest=digest)
    assert len(server.requests) == 1


def test_interruptions_are_taken_up(tmp_path: Path, server: Server, digest: str) -> None:
    server.content = archive(members())
    server.cuts = [1000, 0, 500]
    download_mini_mias(tmp_path / "mias", url=server.url, digest=digest)
    assert server.requests == [None, "bytes=1000-", "bytes=1000-", "bytes=1500-"]


def test_a_later_call_goes_on(tmp_path: Path, server: Server, digest: str) -> None:
    server.content = archive(members())
    server.cuts = [400, 300, 200, 100]
    with pytest.raises(DatasetError, match=r"breaks off .*after 1000 of \d+ bytes\); try again later"):
        download_mini_mias(tmp_path / "mias", url=server.url, digest=digest)
    assert [path.name for path in tmp_path.iterdir()] == ["mias.part"]
    assert (tmp_path / "mias.part").read_bytes() == server.content[:1000]
    download_mini_mias(tmp_path / "mias", url=server.url, digest=digest)
    assert server.requests[4:] == ["bytes=1000-"]
    assert [path.name for path in tmp_path.iterdir()] == ["mias"]


def test_a_whole_part_is_only_unpacked(tmp_path: Path, server: Server, digest: str) -> None:
    server.content = archive(members())
    (tmp_path / "mias.part").write_bytes(server.content)
    download_mini_mias(tmp_path / "mias", url=server.url, digest=digest)
    assert server.requests == [f"bytes={len(server.content)}-"]


def test_a_part_of_another_file_is_dropped(tmp_path: Path, server: Server, digest: str) -> None:
    server.content = archive(members())
    (tmp_path / "mias.part").write_bytes(server.content + b"more")
    download_mini_mias(tmp_path / "mias", url=server.url, digest=digest)
    assert server.requests[-1] is None
    shutil.rmtree(tmp_path / "mias")
    (tmp_path / "mias.part").write_bytes(b"something else")
    with pytest.raises(DatasetError, match="no archive of mini-MIAS"):
        download_mini_mias(tmp_path / "mias", url=server.url, digest=digest)
    assert list(tmp_path.iterdir()) == []


def test_a_server_without_ranges_begins_anew(tmp_path: Path, server: Server, digest: str) -> None:
    server.content = archive(members())
    server.ranges = False
    server.cuts = [1000]
    download_mini_mias(tmp_path / "mias", url=server.url, digest=digest)
    assert server.requests == [None, "bytes=1000-"]


def test_an_empty_folder_is_filled_and_a_full_one_left_alone(tmp_path: Path, server: Server, digest: str) -> None:
    server.content = archive(members())
    (tmp_path / "mias").mkdir()
    download_mini_mias(tmp_path / "mias", url=server.url, digest=digest)
    (tmp_path / "mias" / "mdb002.pgm").write_bytes(image(9))
    with pytest.raises(DatasetError, match=r"something else than mini-MIAS \(its pixels or its ground truth differ"):
        download_mini_mias(tmp_path / "mias", url=server.url, digest=digest)
    assert (tmp_path / "mias" / "mdb002.pgm").read_bytes() == image(9)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DatasetError, match="is a file"):
        download_mini_mias(tmp_path / "file", url=server.url, digest=digest)


def changed(name: str, content: bytes | None) -> Callable[[], bytes]:
    files = {other: old for other, old in members().items() if other != name}
    return lambda: archive(files if content is None else {**files, name: content})


def with_member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "", size: int = 0) -> Callable[[], bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, size
    return lambda: archive(members(), info)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (changed("mdb003.pgm", None), "mdb003: the image file is missing"),
        (changed("mdb003.pgm", image(1)), "its pixels or its ground truth differ"),
        (changed("mdb003.pgm", b"P5\n9 9\n255\n" + bytes(81)), "mdb003.pgm: is not an 8-bit image"),
        (changed("Info.txt", TRUTH.replace(b"425", b"426")), "its pixels or its ground truth differ"),
        (changed("Info.txt", TRUTH + b"mdb003 prose"), "Info.txt: line 6"),
        (changed("Info.txt", None), "README: has no line of ground truth"),
        (with_member("../outside.txt"), "would lie outside: '../outside.txt'"),
        (with_member("/tmp/outside.txt"), "would lie outside"),
        (with_member("a/../../mdb001.pgm"), "would lie outside"),
        (with_member("README.txt", tarfile.SYMTYPE, "/etc/passwd"), "link or device"),
        (with_member("README.txt", tarfile.LNKTYPE, "Info.txt"), "link or device"),
        (with_member("README.txt", tarfile.FIFOTYPE), "link or device"),
        (with_member("README.txt", size=1_000_001), "too large"),
        (with_member("more/mdb001.pgm"), "File exists"),
        (lambda: archive({str(number): b"" for number in range(1001)}), "too many files"),
        (lambda: gzip.compress(b"no tar"), "no archive of mini-MIAS"),
        (lambda: b"<html>moved</html>", "no archive of mini-MIAS"),
        (lambda: archive(members())[:-2000], "no archive of mini-MIAS"),
        (lambda: b"", "no archive of mini-MIAS"),
    ],
)
def test_anything_else_is_refused_and_leaves_nothing(
    tmp_path: Path, server: Server, digest: str, content: Callable[[], bytes], message: str
) -> None:
    server.content = content()
    with pytest.raises(DatasetError) as caught:
        download_mini_mias(tmp_path / "mias", url=server.url, digest=digest)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_bombs_are_stopped(tmp_path: Path, server: Server, digest: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_ARCHIVE_LIMIT", 5_000_000)
    server.content = with_member("huge.bin", size=50_000_000)()
    assert len(server.content) < 5_000_000
    with pytest.raises(DatasetError, match="unpacks to more than mini-MIAS has"):
        download_mini_mias(tmp_path / "mias", url=server.url, digest=digest)
    server.content = bytes(5_000_001)
    with pytest.raises(DatasetError, match="too large to be mini-MIAS"):
        download_mini_mias(tmp_path / "mias", url=server.url, digest=digest)


def test_a_home_that_is_not_there(tmp_path: Path, server: Server) -> None:
    server.status = 404
    with pytest.raises(DatasetError, match="HTTP status 404"):
        download_mini_mias(tmp_path / "mias", url=server.url)
    for url, message in (
        ("http://127.0.0.1:1/all-mias.tar.gz", r"can't be reached \(.*refused"),
        ("http://[broken/all-mias.tar.gz", "can't be reached"),
        ("file:///etc/passwd", "no address of the web"),
    ):
        with pytest.raises(DatasetError, match=message) as caught:
            download_mini_mias(tmp_path / "mias", url=url)
        assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_falls_silent_or_trickles(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.content = b"x" * 10_000
    monkeypatch.setattr(download, "_DEADLINE_S", -1.0)
    with pytest.raises(DatasetError, match=r"breaks off while it is fetched \(it is too slow"):
        download_mini_mias(tmp_path / "mias", url=server.url)
    assert len(server.requests) == 1


def test_a_folder_that_cannot_be_written(tmp_path: Path, server: Server, digest: str) -> None:
    server.content = archive(members())
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetError, match="can't be written"):
        download_mini_mias(tmp_path / "file" / "mias", url=server.url, digest=digest)


def test_png_has_the_same_digest(tmp_path: Path, digest: str) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "README").write_bytes(TRUTH)
    for number in range(1, FEW + 1):
        (tmp_path / "raw.pgm").write_bytes(image(number))
        pixels = cv2.imread(str(tmp_path / "raw.pgm"), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(tmp_path / "images" / f"mdb{number:03d}.png"), pixels)
    assert content_digest(tmp_path) == digest


def test_the_real_archive(tmp_path: Path, server: Server, mini_mias: Path) -> None:
    """All of it, packed as its home serves it, comes out as the committed digest says, and is read."""
    buffer = io.BytesIO()
    # Hardly compressed: packing it well takes ten times as long as all the rest.
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=0) as tar:
        tar.add(mini_mias / "Info.txt", "Info.txt")
        for path in sorted((mini_mias / "images").glob("*.png")):
            content = b"P5\n1024 1024\n255\n" + cv2.imread(str(path), cv2.IMREAD_UNCHANGED).tobytes()
            info = tarfile.TarInfo(f"{path.stem}.pgm")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    server.content = buffer.getbuffer()
    server.cuts = [30_000_000]
    folder = download_mini_mias(tmp_path / "mini-mias", url=server.url)
    assert len(read_dataset("mini-mias", folder).frame) == 441
    shutil.rmtree(folder)
