"""Synthetic mammograms behind the addresses of the page's server, on loopback, for tests of the pictures alone."""

import http.server
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

STATIC = Path(__file__).resolve().parents[2] / "viewer" / "static"
TYPES = {".js": "text/javascript", ".css": "text/css", ".html": "text/html"}
POLICY = "default-src 'self'; base-uri 'none'; object-src 'none'"
SIDE = 512
BARE_PAGE = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Pictures</title>'
    '<link rel="stylesheet" href="/static/image/image.css"><link rel="stylesheet" href="/harness.css"></head>'
    '<body><main><div id="a"></div><div id="b"></div></main></body></html>'
)
HARNESS_STYLE = (
    "body{margin:0;background:#101214} main{display:flex;height:100vh} "
    "#a,#b{flex:1;min-width:0} #b:not(.picture, .hanging){display:none}"
)


@dataclass
class Film:
    """One synthetic image: uint16 rows × columns, and what the server would say of it."""

    name: str
    values: np.ndarray
    spacing_mm: float | None = 0.1
    laterality: str | None = "L"
    view: str | None = "CC"
    chest_wall: str = "left"
    detections: list[dict[str, Any]] = field(default_factory=list)

    @cached_property
    def levels(self) -> list[np.ndarray]:
        """The pyramid: each level has the mean of 2 × 2 pixels of the finer one, until it fits into one tile."""
        levels = [self.values]
        while max(levels[-1].shape) > SIDE:
            fine = levels[-1]
            padded = np.pad(fine, [(0, n % 2) for n in fine.shape], mode="edge").astype(np.uint32)
            quarter = padded[::2, ::2] + padded[1::2, ::2] + padded[::2, 1::2] + padded[1::2, 1::2]
            levels.append(((quarter + 2) // 4).astype(np.uint16))
        return levels

    def info(self) -> dict[str, Any]:
        """Return what /images/{id} answers."""
        rows, columns = self.values.shape
        sizes = [level.shape for level in self.levels]
        return {
            "image": self.name,
            "study": "s",
            "name": self.name,
            "rows": rows,
            "columns": columns,
            "spacing_mm": self.spacing_mm,
            "bits": 16,
            "view": self.view,
            "laterality": self.laterality,
            "chest_wall": self.chest_wall,
            "tile": SIDE,
            "detections": self.detections,
            "notes": [],
            "windows": [{"name": "all", "centre": 32768, "width": 65536}],
            "levels": [{"level": n, "rows": h, "columns": w, "scale": 2**n} for n, (h, w) in enumerate(sizes)],
        }

    def tile(self, level: int, row: int, column: int) -> np.ndarray:
        """Return one tile, cut at the image's edges."""
        return self.levels[level][row * SIDE : (row + 1) * SIDE, column * SIDE : (column + 1) * SIDE]


def random_film(name: str, rows: int, columns: int, seed: int = 0, **facts: Any) -> Film:
    """Return a film of noise on a slope: every tile differs from every other, every pixel from its neighbours."""
    noise = np.random.default_rng(seed).integers(0, 20000, (rows, columns))
    slope = np.linspace(0, 45000, rows)[:, None] * np.linspace(0.3, 1, columns)
    return Film(name, (noise + slope).astype(np.uint16), **facts)


@dataclass
class Site:
    """A running server: its address, its films, and what it was asked."""

    address: str
    films: dict[str, Film]
    asked: list[str]
    busy: list[int]  # statuses to answer to the next requests of tiles, one each
    pages: dict[str, Any]  # further addresses: JSON of studies


@contextmanager
def tile_site(*films: Film) -> Iterator[Site]:
    """Serve the package's static files, a bare page and the films on a free loopback port."""
    site = Site("", {film.name: film for film in films}, [], [], {})

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            site.asked.append(self.path)
            if path == "/":
                self.reply(BARE_PAGE.encode(), "text/html; charset=utf-8")
            elif path == "/harness.css":
                self.reply(HARNESS_STYLE.encode(), "text/css")
            elif path == "/favicon.ico":
                self.reply(b"", "image/x-icon")
            elif path in site.pages:
                self.reply(json.dumps(site.pages[path]).encode(), "application/json")
            elif path.startswith("/static/") and ".." not in path:
                file = STATIC / path.removeprefix("/static/")
                self.reply(file.read_bytes(), TYPES[file.suffix])
            else:
                self.reply_film(path)

        def reply_film(self, path: str) -> None:
            parts = re.fullmatch(r"/images/(\w+)(?:/(crop)|/tiles/(\d+)/(\d+)/(\d+))?", path)
            film = site.films.get(parts[1]) if parts else None
            if parts is None or film is None:
                self.reply(b"{}", "application/json", 404)
            elif parts[2]:
                body = np.ascontiguousarray(film.values, dtype="<u2")
                rows, columns = body.shape
                facts = {"X-Rows": rows, "X-Columns": columns, "X-Mm-Per-Pixel": film.spacing_mm or ""}
                facts |= {"X-Box": f"{columns // 4},{rows // 4},{columns // 2},{rows // 2}", "X-Source": "image"}
                self.reply(body.tobytes(), "application/octet-stream", **facts)
            elif parts[3] is None:
                self.reply(json.dumps(film.info()).encode(), "application/json")
            elif site.busy:
                self.reply(b"{}", "application/json", site.busy.pop())
            else:
                body = np.ascontiguousarray(film.tile(*map(int, parts.groups()[2:])), dtype="<u2")
                rows, columns = body.shape
                self.reply(body.tobytes(), "application/octet-stream", **{"X-Rows": rows, "X-Columns": columns})

        def reply(self, body: bytes, kind: str, status: int = 200, **headers: Any) -> None:
            try:
                self.send_response(status)
                fixed = {"Content-Type": kind, "Content-Length": len(body), "Content-Security-Policy": POLICY}
                for name, value in {**fixed, "X-Content-Type-Options": "nosniff", **headers}.items():
                    self.send_header(name, str(value))
                self.end_headers()
                self.wfile.write(body)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True  # a tile that is no longer wanted

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            pass  # a browser that closes while it is answered

    with Server(("127.0.0.1", 0), Handler) as server:
        site.address = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield site
        finally:
            server.shutdown()
            thread.join()
