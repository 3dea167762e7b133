"""What must be so before the server listens, and how it ends: by a signal, or by a kill that loses no verdict."""

import contextlib
import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from tests.viewer.sites import IMAGE, STUDY, small_gallery
from viewer import ViewerError
from viewer.access import make_token
from viewer.records import take_folder
from viewer.serving import address_of, check_exposure, listen
from viewer.settings import ServeConfig
from viewer.state import open_state
from viewer.verdicts import read_verdicts

SERVER = """
import sys
from pathlib import Path
import viewer.app
import viewer.punctual
from index.gallery import Gallery
from tests.viewer.sites import open_site
from viewer.records import take_folder
from viewer.serving import serve
from viewer.settings import ServeConfig
from viewer.state import open_state
folder, state = Path(sys.argv[1]), Path(sys.argv[2])
viewer.punctual.HEAD_S = 3
viewer.app.ROUTERS = ("routes_records",)  # the others load the libraries of the model, which takes seconds
viewer.app.create_app = lambda config, say: viewer.app.build_app(open_site(Gallery.open(folder), state))
serve(ServeConfig(folder, state=state, port=0, reader="anna"), lambda line: print(line, flush=True))
"""
WIDE = ServeConfig(Path("gallery"), host="0.0.0.0", reader="anna")


@dataclass
class Running:
    process: subprocess.Popen
    address: str

    def decide(self, key: str) -> str:
        """Send a verdict, and return its id once it is acknowledged."""
        body = json.dumps({"key": key, "study": STUDY, "image": IMAGE, "birads": "2", "text": key}).encode()
        headers = {"Content-Type": "application/json", "X-Mammoseek": "1"}
        with urllib.request.urlopen(
            urllib.request.Request(f"{self.address}verdicts", body, headers), timeout=30
        ) as told:
            return json.load(told)["id"]


@contextlib.contextmanager
def running(gallery: Path, state: Path) -> Iterator[Running]:
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(gallery), str(state)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    try:
        assert process.stdout is not None
        told = process.stdout.readline()
        assert told.startswith("Serving at http://127.0.0.1:"), told + process.stdout.read()
        yield Running(process, told.split()[2])
    finally:
        process.kill()
        process.wait(timeout=30)
        if process.stdout is not None:
            process.stdout.close()


@pytest.fixture(scope="module")
def gallery(tmp_path_factory) -> Path:
    return small_gallery(tmp_path_factory.mktemp("gallery") / "gallery").folder


def test_kills_at_random_moments_lose_no_verdict_that_was_acknowledged(gallery, tmp_path):
    random = np.random.default_rng(11)
    state, acknowledged = tmp_path / "state", []
    for round_ in range(2):
        with running(gallery, state) as server:

            def send(reader: int, server=server, round_=round_) -> None:
                # Cut off before an answer, in its head, or in its body.
                with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
                    for number in range(1_000):
                        acknowledged.append(server.decide(f"key-{round_}-{reader}-{number:04d}"))

            readers = [threading.Thread(target=send, args=(number,)) for number in range(3)]
            for reader in readers:
                reader.start()
            first = len(acknowledged)
            deadline = time.monotonic() + 60
            while len(acknowledged) == first and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(random.uniform(0.05, 0.4))
            server.process.send_signal(signal.SIGKILL)
            for reader in readers:
                reader.join(timeout=30)
        kept = {verdict.id for verdict in read_verdicts(state / "verdicts.jsonl")}
        assert set(acknowledged) <= kept
    assert len(acknowledged) > 20


def test_a_signal_ends_it_cleanly(gallery, tmp_path):
    with running(gallery, tmp_path / "state") as server:
        server.decide("key-000001")
        server.process.send_signal(signal.SIGINT)
        assert server.process.stdout is not None
        assert server.process.stdout.read().splitlines() == [
            f"Verdicts and audit log are in {tmp_path / 'state'}",
            "The server has ended; everything that was recorded is kept.",
        ]
        assert server.process.wait(timeout=60) == 0
    last = (tmp_path / "state" / "audit.jsonl").read_text().splitlines()[-1]
    assert json.loads(last)["entry"]["action"] == "server stopped"


def test_who_does_not_say_what_she_wants_is_hung_up_on(gallery, tmp_path):
    with running(gallery, tmp_path / "state") as server:
        host, port = server.address.split("/")[2].split(":")
        question = f"GET /health HTTP/1.1\r\nHost: {host}:{port}\r\n".encode()

        def connect() -> socket.socket:
            return socket.create_connection((host, int(port)), timeout=30)

        def answered(raw: socket.socket) -> bool:
            told = b""
            while not told.endswith(b"}"):
                told += raw.recv(65_536)
            return told.startswith(b"HTTP/1.1 200")

        with connect() as silent, connect() as slow, connect() as second, connect() as patient:
            begun = time.monotonic()
            slow.sendall(question)
            for raw in (second, patient):
                raw.sendall(question + b"\r\n")
            assert answered(second)
            assert answered(patient)
            second.sendall(question)  # the head of a further request, which never ends
            assert silent.recv(100) == b""
            assert slow.recv(100) == b""
            assert second.recv(100) == b""
            assert 2 < time.monotonic() - begun < 20
            time.sleep(1.5)
            patient.sendall(question + b"\r\n")  # between two requests she may take her time
            assert answered(patient)


def test_one_server_at_a_time_and_real_bodies_over_the_limit(gallery, tmp_path):
    with running(gallery, tmp_path / "state") as server:
        with pytest.raises(ViewerError, match=f"are in use by process {server.process.pid}"):
            take_folder(tmp_path / "state")
        host, port = server.address.split("/")[2].split(":")
        with socket.create_connection((host, int(port)), timeout=30) as raw:
            head = f"POST /seen HTTP/1.1\r\nHost: {host}:{port}\r\nX-Mammoseek: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
            raw.sendall(head.encode())
            with contextlib.suppress(OSError):  # the server hangs up as soon as it has seen enough
                for _ in range(64):
                    raw.sendall(b"10000\r\n" + b"x" * 65_536 + b"\r\n")
            assert raw.recv(100).startswith(b"HTTP/1.1 413")
        with pytest.raises(urllib.error.HTTPError, match="400"):
            urllib.request.urlopen(urllib.request.Request(server.address, headers={"Host": "evil.example"}), timeout=30)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, "nobody would have to say who she is"),
        ({"tokens": Path("t")}, "in the clear"),
        ({"identity_header": "X-User", "trusted_proxies": ("10.0.0.1",)}, "in the clear"),
        ({"identity_header": "X-User", "behind_proxy": True}, "believed from nobody"),
        ({"trusted_proxies": ("10.0.0.1",), "behind_proxy": True}, "without a header"),
        ({"behind_proxy": True}, "nobody would have to say who she is"),
        ({"tokens": Path("t"), "tls_cert": Path("c")}, "a certificate and its key"),
        ({"tokens": Path("t"), "tls_cert": Path("c"), "tls_key": Path("k")}, "can't be used"),
        ({"host": "192.168.0.9"}, "nobody would have to say who she is"),
        ({"host": "::"}, "nobody would have to say who she is"),
        ({"host": ""}, "nobody would have to say who she is"),
        ({"host": "example.org"}, "nobody would have to say who she is"),
    ],
)
def test_listening_wider_without_the_means_is_refused(settings, told):
    with pytest.raises(ViewerError, match=told):
        check_exposure(replace(WIDE, **settings))


@pytest.mark.parametrize(
    "settings",
    [
        {"tokens": Path("t"), "behind_proxy": True},
        {"identity_header": "X-User", "trusted_proxies": ("10.0.0.1",), "behind_proxy": True},
        {"host": "127.0.0.1"},
        {"host": "::1"},
        {"host": "localhost", "tokens": Path("t")},
    ],
)
def test_listening_with_the_means_is_fine(settings):
    check_exposure(replace(WIDE, **settings))


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
@pytest.mark.parametrize(
    ("header", "told"),
    [
        *((name, "is no name of a header") for name in ("X User", "", "X-User:", "X-Üser", "X\n")),
        *((name, "something else") for name in ("Host", "authorization", "Cookie", "Origin", "X-Mammoseek")),
        *((name, "something else") for name in ("X-Forwarded-For", "Forwarded", "Sec-Fetch-Site", "Content-Type")),
    ],
)
def test_an_identity_header_that_names_nobody_is_refused(host, header, told):
    settings = {"host": host, "trusted_proxies": ("10.0.0.1",), "behind_proxy": True}
    with pytest.raises(ViewerError, match=told):
        check_exposure(replace(WIDE, identity_header=header, **settings))


@pytest.mark.parametrize("header", ["X-Remote-User", "x-forwarded-user", "X-Forwarded-Email", "Remote_User"])
def test_headers_in_which_proxies_name_users_are_fine(header):
    check_exposure(replace(WIDE, identity_header=header, trusted_proxies=("10.0.0.1",), behind_proxy=True))


@pytest.mark.parametrize("name", ["", " ", "http://x/y", "viewer.example/", "a b", "*.example", "viewer.example:port"])
def test_an_allowed_host_that_is_no_host_is_refused(name):
    with pytest.raises(ViewerError, match="is no name of a host"):
        check_exposure(ServeConfig(Path("gallery"), allowed_hosts=("fine.example", name), reader="anna"))


def test_allowed_hosts_are_names_and_addresses():
    names = ("Viewer.example", "viewer.example:8443", "10.0.0.5", "::1", "[::1]:8700", "viewer_1")
    check_exposure(ServeConfig(Path("gallery"), allowed_hosts=names, reader="anna"))


def test_a_file_that_holds_no_token_is_refused(tmp_path):
    tokens = tmp_path / "tokens.toml"
    config = ServeConfig(Path("gallery"), tokens=tokens, reader="anna")
    for content in ("", "[project]\nname = 'x'\n"):
        tokens.write_text(content)
        tokens.chmod(0o600)
        with pytest.raises(ViewerError, match="holds no token; make one by `mammoseek serve-token NAME --tokens"):
            check_exposure(config)
    make_token(tokens, "anna", "reader")
    check_exposure(config)


def test_a_port_in_use_is_told_in_a_sentence():
    config = ServeConfig(Path("gallery"), port=0, reader="anna")
    with listen(config) as sock:
        taken = sock.getsockname()[1]
        assert address_of(config, sock) == f"http://127.0.0.1:{taken}/"
        with pytest.raises(ViewerError, match="in use by another program"):
            listen(replace(config, port=taken))


def test_small_answers_are_sent_at_once():
    config = ServeConfig(Path("gallery"), port=0, reader="anna")
    with listen(config) as sock:
        assert sock.proto == socket.IPPROTO_TCP  # asyncio switches Nagle's algorithm off where it sees that


def test_an_address_of_another_machine_is_told_in_a_sentence():
    with pytest.raises(ViewerError):
        listen(ServeConfig(Path("gallery"), host="192.0.2.1", port=0, reader="anna"))


def test_a_folder_that_is_no_model_is_told_before_anything_listens(gallery, tmp_path):
    with pytest.raises(ViewerError, match="is no model"):
        open_state(ServeConfig(gallery, state=tmp_path / "state", model=tmp_path, reader="anna"))
