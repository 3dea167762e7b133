"""What all routes share: made once when the server starts, found on the app, closed when it ends."""

import os
import stat
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

from fastapi import Depends, Request

from index import GalleryError
from index.durable import WriterLock, make_folder, storage_error
from index.gallery import Gallery
from viewer import ViewerError
from viewer.access import Access, AccessError, Person
from viewer.audit import SYSTEM, AuditLog
from viewer.facts import gallery_facts, own_version
from viewer.measures import Measures
from viewer.settings import ServeConfig
from viewer.verdicts import VerdictBook

if TYPE_CHECKING:
    from viewer.catalogue import Catalogue
    from viewer.embedworker import EmbedWorker


@dataclass(frozen=True, eq=False)
class ServerState:
    """What the routes work with.

    Attributes:
        config: How the page is served.
        gallery: The gallery, as it was when the server started.
        catalogue: The images that may be shown, and their studies.
        worker: What embeds places on images.
        access: Who asks.
        audit: Who asked what and saw what.
        verdicts: What readers decided.
        measures: Counters and latencies.
        facts: What the page must know of the gallery, see `viewer.facts`.
        lock: The right to write to the state folder.
    """

    config: ServeConfig
    gallery: Gallery
    catalogue: "Catalogue"
    worker: "EmbedWorker"
    access: Access
    audit: AuditLog
    verdicts: VerdictBook
    measures: Measures
    facts: dict[str, Any]
    lock: WriterLock

    def start(self) -> None:
        """Start what works beside the routes."""
        self.audit.note(
            SYSTEM,
            "server started",
            durable=True,
            version=own_version(),
            gallery_generation=self.gallery.generation,
            segments_digest=self.gallery.manifest.segments_digest,
            model_digest=self.gallery.identity.model_digest,
            verdicts_digest=self.verdicts.head,
        )
        self.worker.start()
        threading.Thread(target=self.catalogue.keep_fresh, name="catalogue", daemon=True).start()

    def close(self) -> None:
        """End everything: what was recorded is durable then."""
        self.catalogue.stop()
        self.worker.close()
        self.audit.note(SYSTEM, "server stopped", verdicts_digest=self.verdicts.head)
        self.verdicts.close()
        self.audit.close()
        self.lock.release()


def records_of(folder: Path) -> dict[str, Path]:
    """Return the files of records that a state folder holds, by what they are of."""
    return {"audit": folder / "audit.jsonl", "verdicts": folder / "verdicts.jsonl"}


def open_state(config: ServeConfig, say: Callable[[str], None] = lambda _: None) -> ServerState:
    """Open the gallery, the images and the records that a configuration names.

    Args:
        config: What is served, to whom, and how.
        say: Told what its user should know.

    Raises:
        MammoseekError: One of them can't be used, or another server uses the state folder.
    """
    from viewer.catalogue import Catalogue
    from viewer.embedworker import EmbedWorker

    access = Access(config)
    gallery = Gallery.open(config.gallery)
    catalogue = Catalogue.open(config, gallery)
    folder = config.state_folder
    lock = _take_folder(folder)
    try:
        files = records_of(folder)
        verdicts = VerdictBook(files["verdicts"], longest_text=config.limits.text_characters, say=say)
        audit = AuditLog(files["audit"], say)
    except BaseException:
        lock.release()
        raise
    for note in gallery.notes:
        say(note)
    worker = EmbedWorker(config.gallery, model=config.model, device=config.device, capacity=config.embed_queue)
    return ServerState(
        config, gallery, catalogue, worker, access, audit, verdicts, Measures(), gallery_facts(gallery), lock
    )


def _take_folder(folder: Path) -> WriterLock:
    """Make a state folder that its owner alone can read, and take the right to write to it."""
    try:
        if not folder.is_dir():
            make_folder(folder.parent)
            folder.mkdir(mode=0o700)
        mode = stat.S_IMODE(folder.stat().st_mode)
        if mode & 0o077:
            if folder.stat().st_uid != os.getuid():
                raise ViewerError(folder, f"can be read by others (mode {mode:o})", "chmod 700 it, or name another")
            folder.chmod(0o700)
    except OSError as error:
        told = storage_error(folder, error)
        raise ViewerError(told.subject, told.cause, "name another folder by --state") from error
    lock = WriterLock(folder / "lock")
    try:
        lock.acquire()
    except GalleryError as error:
        owner = error.cause.partition(" is writing to")[0]
        raise ViewerError(
            folder,
            f"verdicts and audit log are in use by {owner}",
            "stop that server, or name another folder by --state",
        ) from error
    return lock


def server_state(request: Request) -> ServerState:
    """Return the server's state."""
    return cast(ServerState, request.app.state.server)


def asking_person(request: Request) -> Person:
    """Return who asks; the guards have found it out before any route runs."""
    return cast(Person, request.state.person)


def asking_curator(request: Request) -> Person:
    """Return who asks, where it is a curator.

    Raises:
        AccessError: It is a reader.
    """
    person = asking_person(request)
    if not person.is_curator:
        raise AccessError(403, "this page", "is for curators", "ask whoever runs the server for that role")
    return person


State = Annotated[ServerState, Depends(server_state)]
"""The annotation of a route's parameter that is the server's state."""

Asking = Annotated[Person, Depends(asking_person)]
"""The annotation of a route's parameter that is whoever asks."""

Curating = Annotated[Person, Depends(asking_curator)]
"""The same, of a route for curators alone."""
