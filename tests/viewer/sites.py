"""A small site for tests of the server: a gallery of made-up findings, two studies, an embedder that does nothing."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="install mammoseek[viewer] for the page's server")

from fastapi.testclient import TestClient

from index.gallery import Gallery
from index.upkeep import build_gallery
from tests.index.conftest import IDENTITY, findings
from viewer.access import Access
from viewer.app import build_app
from viewer.audit import AuditLog
from viewer.facts import gallery_facts
from viewer.measures import Measures
from viewer.problems import NotFoundError
from viewer.records import records_of, take_folder
from viewer.settings import ServeConfig
from viewer.state import ServerState
from viewer.verdicts import VerdictBook

STUDY, OTHER_STUDY, IMAGE = "0" * 15 + "1", "0" * 15 + "2", "a" * 16
MEANT = {"x-mammoseek": "1"}


@dataclass
class Images:
    """Two studies; the first has one image with one detection."""

    stopped: bool = False
    paths: dict[str, Path] = field(default_factory=dict)

    def study(self, study: str) -> Any:
        if study not in (STUDY, OTHER_STUDY):
            raise NotFoundError("study", "there is none of this id", "reload the worklist")
        image = SimpleNamespace(image=IMAGE, detections=(SimpleNamespace(detection="d1"),))
        return SimpleNamespace(study=study, images=(image,) if study == STUDY else ())

    def detailed(self, image: str) -> Any:
        path = self.paths.get(image, Path("film.png"))
        details = SimpleNamespace(header=SimpleNamespace(rows=100, columns=80))
        return SimpleNamespace(path=str(path), name=path.name, frame=None, details=details)

    def keep_fresh(self) -> None:
        pass

    def stop(self) -> None:
        self.stopped = True


@dataclass
class Worker:
    """An embedder that is always ready."""

    status: str = "ready"
    closed: bool = False

    def start(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


@dataclass
class Table:
    """A desk at which nothing is asked."""

    def start(self) -> None:
        pass

    def close(self) -> None:
        pass

    def health(self) -> dict[str, Any]:
        return {"worker": "ready"}


def small_gallery(folder: Path) -> Gallery:
    """Build a gallery of twelve findings."""
    made = findings(12)
    build_gallery(folder, IDENTITY, made.records, lambda _: [made])
    return Gallery.open(folder)


def open_site(gallery: Gallery, folder: Path, **settings: Any) -> ServerState:
    """Return what a server of this configuration works with."""
    config = ServeConfig(gallery.folder, state=folder, **{"reader": "anna", **settings})
    lock = take_folder(folder)
    files = records_of(folder)
    return ServerState(
        config=config,
        gallery=gallery,
        catalogue=Images(),  # type: ignore[arg-type]
        worker=Worker(),  # type: ignore[arg-type]
        desk=Table(),  # type: ignore[arg-type]
        access=Access(config),
        audit=AuditLog(files["audit"]),
        verdicts=VerdictBook(files["verdicts"], longest_text=config.limits.text_characters),
        measures=Measures(),
        facts=gallery_facts(gallery),
        lock=lock,
    )


@contextmanager
def visit(state: ServerState, peer: str = "127.0.0.1") -> Iterator[TestClient]:
    """Yield a client of a server, which is started and ended."""
    app = build_app(state)
    with TestClient(app, base_url="http://127.0.0.1:8700", client=(peer, 50_000), follow_redirects=False) as client:
        yield client
