"""The page's API with an invented collection behind it, for tests of the page alone: no model, no gallery, no DICOM.

`stub_api` serves the package's static files under the server's own content security policy and answers every route of
the page. What it should do differently (be slow, be busy, fail, want a token) is set on the `Stub` that it yields; what
it was asked stands there too.
"""

import http.server
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from tests.viewer.stubcollection import AUDIT, COLLECTION, MASS, OPENAPI, OPINION, Collection, answer_to, breast, row_of
from tests.viewer.tilesite import STATIC, Film
from viewer.replies import SECURITY_HEADERS

TYPES = {".js": "text/javascript", ".css": "text/css", ".html": "text/html", ".svg": "image/svg+xml"}


LONGEST = 60.0  # seconds that an answer is held at most


@dataclass
class Stub:
    """A running server: how it behaves, and what it was asked."""

    address: str = ""
    role: str = "curator"
    opinion_hidden: bool = True
    names_shown: bool = True
    token: str | None = None  # wanted before anything is answered
    no_precedent: bool = False
    held: dict[str, threading.Event] = field(default_factory=dict)  # answers that wait for their event, by path
    failures: dict[str, list[int]] = field(default_factory=dict)  # statuses of the next answers by path
    queue: dict[str, int] = field(default_factory=lambda: {"waiting": 0, "running": 1, "capacity": 32})
    asked: list[tuple[str, str, Any]] = field(default_factory=list)  # method, path, body
    verdicts: list[dict[str, Any]] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)

    def bodies(self, path: str) -> list[Any]:
        """Return the bodies that a path was sent, in order."""
        return [body for method, asked, body in self.asked if method == "POST" and asked == path]

    def hold(self, path: str) -> threading.Event:
        """Keep the answers of a path until the event that comes back is set."""
        self.held[path] = threading.Event()
        return self.held[path]

    def reset(self) -> None:
        """Go back to the start, for the next test of a file."""
        for event in self.held.values():
            event.set()
        fresh = Stub(address=self.address)
        self.__dict__.update(fresh.__dict__)


def session(stub: Stub) -> dict[str, Any]:
    """Return what `/session` answers."""
    return {
        "user": "dr-may", "role": stub.role, "can_log_out": stub.token is not None,
        "opinion_hidden": stub.opinion_hidden,
        "names_shown": stub.names_shown, "version": "0.1.0", "typical_label": "pathology",
        "gallery": {"rows": 119, "women": 104, "granularity": "finding", "generation": 3, "model": "0a1b2c3d"},
        "filters": {
            "density": ["A", "B", "C", "D"], "view": ["CC", "MLO"], "dataset": ["invented"], "age": [41.0, 64.0],
            "lesion_type": ["architectural distortion", "calcification", "mass"],
        },
        "facets": ["margin", "shape", "density", "size"], "limits": {},
    }  # fmt: skip


@contextmanager
def stub_api() -> Iterator[Stub]:
    """Serve the page and the invented collection on a free loopback port."""
    stub, collection = Stub(), Collection()

    class Handler(_Handler):
        pass

    Handler.stub, Handler.collection = stub, collection
    with _Server(("127.0.0.1", 0), Handler) as server:
        stub.address = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield stub
        finally:
            server.shutdown()
            thread.join()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        pass  # a browser that closes while it is answered


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    stub: Stub
    collection: Collection

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer("GET", None)

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer("POST", json.loads(content or b"null"))

    def _answer(self, method: str, body: Any) -> None:
        parts = urlsplit(self.path)
        path = unquote(parts.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        self.stub.asked.append((method, path, body))
        if path in self.stub.held:
            self.stub.held[path].wait(LONGEST)
        if self.stub.failures.get(path):
            self._fail(self.stub.failures[path].pop(0))
        elif path == "/favicon.ico":
            self._reply(b"", "image/x-icon")
        elif path == "/login.html" or path.startswith("/static/"):
            self._file(path.removeprefix("/static/").lstrip("/"))
        elif method == "POST" and self.headers.get("X-Mammoseek") != "1":
            self._fail(403)
        elif path == "/login":
            self._login(body)
        elif self.stub.token and f"token={self.stub.token}" not in (self.headers.get("Cookie") or ""):
            self._fail(401)
        elif method == "POST":
            self._post(path, body)
        else:
            self._get(path, query)

    def _get(self, path: str, query: dict[str, str]) -> None:
        stub, collection = self.stub, self.collection
        pages = {"/": "index.html", "/api": "api.html"}
        image = re.fullmatch(r"/images/(\w+)(?:/(crop)|/tiles/(\d+)/(\d+)/(\d+))?", path)
        row = re.fullmatch(r"/rows/([\w-]+)(/crop)?", path)
        plain: dict[str, Any] = {
            "/session": session(stub), "/queue": stub.queue, "/collection": COLLECTION, "/openapi.json": OPENAPI,
            "/audit": AUDIT,
            "/verdicts": {"verdicts": stub.verdicts},
        }  # fmt: skip
        if path in pages:
            self._file(pages[path])
        elif path in plain:
            self._json(plain[path])
        elif path == "/studies":
            self._studies(query)
        elif path == "/verdicts.csv":
            self._reply(b"time,user\n", "text/csv")
        elif path.endswith("/report.dcm"):
            self._fail(409)
        elif path.startswith("/studies/"):
            found = next((one for one in collection.studies if path == f"/studies/{one['study']}"), None)
            self._json(found) if found else self._fail(404)
        elif image and image[1] in collection.films:
            self._image(collection.films[image[1]], image, query)
        elif row:
            found = row_of(row[1], collection)
            if found is None or (row[2] and row[1] == "row-7"):
                self._fail(404)
            elif row[2]:
                self._crop(breast(int(row[1][4:]), chest_wall="left", lesion=True), MASS, query)
            else:
                self._json(found)
        else:
            self._fail(404)

    def _post(self, path: str, body: Any) -> None:
        stub = self.stub
        if path == "/query":
            self._json(answer_to(body, self.collection, far=stub.no_precedent))
        elif path == "/opinion":
            self._json(OPINION)
        elif path == "/seen":
            stub.seen.append(body["image"])
            self._json({})
        elif path == "/logout":
            self._json({})
        elif path == "/verdicts":
            kept = next((one for one in stub.verdicts if one["key"] == body["key"]), None)
            if kept is None:
                number = len(stub.verdicts) + 1
                kept = {
                    **body,
                    "id": f"{number:016x}",
                    "time": "2024-03-01T09:15:00Z",
                    "user": "dr-may",
                    "undone_by": None,
                }
                for one in stub.verdicts:
                    if one["id"] == body["undoes"]:
                        one["undone_by"] = kept["id"]
                stub.verdicts.append(kept)
            self._json(kept, 201)
        else:
            self._fail(404)

    def _studies(self, query: dict[str, str]) -> None:
        sought = query.get("search", "").lower()
        found = []
        for study in self.collection.studies:
            own = [one for one in self.stub.verdicts if one["study"] == study["study"] and not one["undoes"]]
            is_seen = any(image["image"] in self.stub.seen for image in study["images"])
            state = "decided" if own else "seen" if is_seen else "new"
            if sought in study["woman"].lower() and query.get("state", state) == state:
                found.append({**study, "state": state, "verdicts": len(own)})
        self._json({"total": len(found), "studies": found})

    def _login(self, body: dict[str, str]) -> None:
        if body["token"] != self.stub.token:
            self._fail(401)
            return
        self._json({}, **{"Set-Cookie": f"token={self.stub.token}; Path=/; HttpOnly; SameSite=Strict"})

    def _image(self, film: Film, parts: re.Match[str], query: dict[str, str]) -> None:
        if parts[2]:
            box = [int(query[name]) for name in ("x0", "y0", "x1", "y1")]
            self._crop(film.values, (box[0], box[1], box[2], box[3]), query)
        elif parts[3] is None:
            info = film.info()
            info["windows"].append({"name": "dense", "centre": 36000, "width": 30000})
            info["name"] = None
            self._json(info)
        else:
            self._pixels(film.tile(*map(int, parts.groups()[2:])), {})

    def _crop(self, values: np.ndarray, box: tuple[int, int, int, int], query: dict[str, str]) -> None:
        x, y, pixels = (box[0] + box[2]) // 2, (box[1] + box[3]) // 2, int(query["pixels"])
        half = int(float(query.get("mm", 20)) / 0.1 / 2)
        padded = np.pad(values, half)
        shown = padded[y : y + 2 * half, x : x + 2 * half]
        take = np.linspace(0, 2 * half - 1, pixels).astype(int)
        scale = pixels / (2 * half)
        corners = [
            (box[0] - x + half) * scale,
            (box[1] - y + half) * scale,
            (box[2] - x + half) * scale,
            (box[3] - y + half) * scale,
        ]
        facts = {"X-Mm-Per-Pixel": 0.1 / scale, "X-Box": ",".join(f"{at:.1f}" for at in corners), "X-Source": "image"}
        self._pixels(shown[np.ix_(take, take)], facts)

    def _pixels(self, values: np.ndarray, facts: dict[str, Any]) -> None:
        rows, columns = values.shape
        body = np.ascontiguousarray(values, dtype="<u2").tobytes()
        self._reply(body, "application/octet-stream", **{"X-Rows": rows, "X-Columns": columns, **facts})

    def _file(self, name: str) -> None:
        file = STATIC / name
        if ".." in name or not file.is_file():
            self._fail(404)
            return
        self._reply(file.read_bytes(), TYPES[file.suffix])

    def _fail(self, status: int) -> None:
        words = {
            401: ("token", "it is not known", "ask whoever runs this server"),
            403: ("request", "it is not allowed", "log in as a curator"),
            404: ("study", "it is not known here", "go back to the worklist"),
            409: ("report", "the images are no DICOM of one study", "download the CSV instead"),
            500: ("server", "something broke", "try again"),
            503: ("embedder", "32 questions wait already", "try again in a moment"),
        }[status]
        error = {"error": dict(zip(("subject", "cause", "remedy"), words, strict=True))}
        self._json(error, status, **({"Retry-After": 1} if status == 503 else {}))

    def _json(self, content: Any, status: int = 200, **headers: Any) -> None:
        self._reply(json.dumps(content).encode(), "application/json", status, **headers)

    def _reply(self, body: bytes, kind: str, status: int = 200, **headers: Any) -> None:
        try:
            self.send_response(status)
            for name, value in {
                "Content-Type": kind,
                "Content-Length": len(body),
                **SECURITY_HEADERS,
                **headers,
            }.items():
                self.send_header(name, str(value))
            self.end_headers()
            self.wfile.write(body)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # a picture that is no longer wanted
