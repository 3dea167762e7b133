"""Real partners on this machine's loopback: an Orthanc with DICOMweb, a C-STORE receiver, an HTTP server, studies."""

import base64
import contextlib
import http.server
import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pynetdicom", reason="install mammoseek[exchange] for pynetdicom")
pytest.importorskip("dicomweb_client", reason="install mammoseek[exchange] for dicomweb-client")

from benchmarks.listener_parts import Archive, make_instance, running_archive
from exchange.pacs.config import PacsConfig
from exchange.pacs.options import filled

USER, PASSWORD = "reader", "a good secret"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def free_port() -> Callable[[], int]:
    """A function that returns a port of the loopback that nobody listens on."""
    return _free_port


@pytest.fixture
def configure(tmp_path: Path) -> Callable[..., PacsConfig]:
    """A function of tables that returns a configuration with short waits and timeouts."""
    (tmp_path / "secret").write_text(f"{PASSWORD}\n")
    (tmp_path / "secret").chmod(0o600)

    def make(**tables: Any) -> PacsConfig:
        quick: dict[str, Any] = {
            "retries": {"count": 2, "backoff_s": 0.01},
            "timeouts": {"connect_s": 3.0, "response_s": 10.0},
            "limits": {"free_mib": 0.0},
        }
        for name, table in tables.items():
            quick[name] = {**quick.get(name, {}), **table} if isinstance(table, dict) else table
        config: PacsConfig = filled(PacsConfig, quick, "test")
        return config

    return make


@dataclass
class Orthanc:
    """A running Orthanc."""

    http_port: int
    dicom_port: int
    mover_port: int
    secret: Path

    @property
    def web(self) -> dict[str, Any]:
        """Tables that reach it by DICOMweb."""
        return {
            "dicomweb": {"url": f"http://127.0.0.1:{self.http_port}/dicom-web"},
            "credentials": {"kind": "basic", "user": USER, "secret_file": str(self.secret)},
        }

    def dimse(self, retrieve: str = "get") -> dict[str, Any]:
        """Tables that reach it by DIMSE."""
        peer = {"host": "127.0.0.1", "port": self.dicom_port, "called_ae": "ORTHANC", "retrieve": retrieve}
        return {"dimse": peer, "listen": {"ae_title": "MAMMOSEEK", "port": self.mover_port}}

    def call(self, path: str, method: str = "GET") -> Any:
        """Ask its own interface."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.http_port}{path}", method=method)
        request.add_header("Authorization", "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode())
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read() or b"null")

    def clear(self) -> None:
        """Remove all that it holds."""
        for study in self.call("/studies"):
            self.call(f"/studies/{study}", "DELETE")


@pytest.fixture(scope="session")
def orthanc_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    program = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin")
    homes = [Path(home) for home in ("/usr/share/orthanc/plugins", "/usr/lib/orthanc")]
    plugin = next((one for home in homes for one in sorted(home.glob("libOrthancDicomWeb.so*"))), None)
    if program is None or plugin is None:
        pytest.skip("Orthanc and its DICOMweb plugin are not here (Debian: apt install orthanc orthanc-dicomweb)")
    home = tmp_path_factory.mktemp("orthanc")
    (home / "secret").write_text(PASSWORD)
    (home / "secret").chmod(0o600)
    server = Orthanc(_free_port(), _free_port(), _free_port(), home / "secret")
    settings = {
        "Name": "test",
        "StorageDirectory": str(home / "storage"),
        "IndexDirectory": str(home / "storage"),
        "Plugins": [str(plugin)],
        "HttpPort": server.http_port,
        "DicomPort": server.dicom_port,
        "DicomAet": "ORTHANC",
        "DicomCheckCalledAet": True,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": True,
        "RegisteredUsers": {USER: PASSWORD},
        "DicomModalities": {"us": ["MAMMOSEEK", "127.0.0.1", server.mover_port]},
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        "StrictAetComparison": True,
    }
    (home / "orthanc.json").write_text(json.dumps(settings))
    with (home / "log").open("wb") as log:
        process = subprocess.Popen([program, str(home / "orthanc.json")], stdout=log, stderr=log)
    try:
        for _ in range(200):
            with contextlib.suppress(OSError):
                server.call("/system")
                break
            if process.poll() is not None:
                break
            time.sleep(0.1)
        else:
            pytest.fail("Orthanc does not start")
        if process.poll() is not None:
            pytest.fail(f"Orthanc does not start: {(home / 'log').read_text()[-2000:]}")
        yield server
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)


@pytest.fixture
def orthanc(orthanc_server: Orthanc) -> Orthanc:
    """An Orthanc that holds nothing."""
    orthanc_server.clear()
    return orthanc_server


@pytest.fixture
def small(tmp_path: Path) -> Callable[..., list[Path]]:
    """A function of a study's UID and the number of its images that writes them and returns their files."""

    def make(study: str = "1.2.3", images: int = 2, *, first: int = 1, **attributes: Any) -> list[Path]:
        files = []
        for number in range(first, first + images):
            path = tmp_path / "small" / f"{study}-{number}.dcm"
            path.parent.mkdir(exist_ok=True)
            dataset = make_instance(study, f"{study}.1", f"{study}.1.{number}", seed=number, **attributes)
            dataset.save_as(path, enforce_file_format=True)
            files.append(path)
        return files

    return make


@pytest.fixture
def start_sink() -> Iterator[Callable[..., Archive]]:
    """A function that starts a receiver; all of them end with the test."""
    with contextlib.ExitStack() as running:

        def start(port: int | None = None, **options: Any) -> Archive:
            return running.enter_context(running_archive(port or _free_port(), **options))

        yield start


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """A function that starts an HTTP server which answers as a function says, and returns its address.

    The function is given method, path and body, and returns status, headers and body.
    """
    servers: list[http.server.ThreadingHTTPServer] = []

    def start(
        answer: Callable[[str, str, bytes], tuple[int, dict[str, str], bytes]], tls: tuple[Path, Path] | None = None
    ) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            timeout = 5

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                status, headers, told = answer(self.command, self.path, body)
                self.send_response(status)
                for name, value in {"Content-Length": str(len(told)), **headers}.items():
                    if value:
                        self.send_header(name, value)
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(told)

            do_GET = do_POST = _answer

            def log_message(self, *_: Any) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        server.handle_error = lambda *_: None  # type: ignore[method-assign]
        if tls is not None:
            import ssl

            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        servers.append(server)
        return f"http{'s' if tls else ''}://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Path]]:
    """A function of an address that returns a self-signed certificate for it, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not here")
    home = tmp_path_factory.mktemp("certificates")

    def make(address: str) -> tuple[Path, Path]:
        files = home / f"{address}.pem", home / f"{address}.key"
        if not files[0].exists():
            kind = "IP" if address[0].isdigit() else "DNS"
            command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
            command += ["-days", "2", "-subj", "/CN=test", "-addext", f"subjectAltName={kind}:{address}"]
            subprocess.run([*command, "-out", files[0], "-keyout", files[1]], check=True, capture_output=True)
            files[1].chmod(0o600)
        return files

    return make
