"""What all routes share: made once when the server starts, found on the app, closed when it ends."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, cast

from fastapi import Depends, Request

from index.durable import WriterLock
from index.gallery import Gallery
from viewer import ViewerError
from viewer.access import Access, AccessError, Person
from viewer.audit import SYSTEM, AuditLog
from viewer.facts import gallery_facts, own_version
from viewer.measures import Measures
from viewer.records import records_of, take_folder
from viewer.settings import ServeConfig
from viewer.verdicts import VerdictBook

_CARD = "card.json"  # of a model; the module that names it loads the libraries of the model, which takes seconds

if TYPE_CHECKING:
    from viewer.catalogue import Catalogue
    from viewer.desk import Desk
    from viewer.embedworker import EmbedWorker


@dataclass(frozen=True, eq=False)
class ServerState:
    """What the routes work with.

    Attributes:
        config: How the page is served.
        gallery: The gallery, as it was when the server started.
        catalogue: The images that may be shown, and their studies.
        worker: What embeds places on images.
        desk: What answers questions with them.
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
    desk: "Desk"
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
        self.desk.start()
        threading.Thread(target=self.catalogue.keep_fresh, name="catalogue", daemon=True).start()

    def close(self) -> None:
        """End everything: what was recorded is durable then."""
        self.catalogue.stop()
        self.desk.close()
        self.worker.close()
        self.audit.note(SYSTEM, "server stopped", verdicts_digest=self.verdicts.head)
        self.verdicts.close()
        self.audit.close()
        self.lock.release()


def open_state(config: ServeConfig, say: Callable[[str], None] = lambda _: None) -> ServerState:
    """Open the gallery, the images and the records that a configuration names.

    Args:
        config: What is served, to whom, and how.
        say: Told what its user should know.

    Raises:
        MammoseekError: One of them can't be used, or another server uses the state folder.
    """
    from viewer.catalogue import Catalogue
    from viewer.desk import Desk
    from viewer.embedworker import EmbedWorker

    access = Access(config)
    if config.model is not None and not (config.model / _CARD).is_file():
        raise ViewerError(config.model, "is no model", "name the folder that mammoseek wrote, or leave --model out")
    gallery = Gallery.open(config.gallery)
    catalogue = Catalogue.open(config, gallery, say)
    folder = config.state_folder
    lock = take_folder(folder)
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
        config=config,
        gallery=gallery,
        catalogue=catalogue,
        worker=worker,
        desk=Desk(config, gallery, catalogue, worker),
        access=access,
        audit=audit,
        verdicts=verdicts,
        measures=Measures(),
        facts=gallery_facts(gallery),
        lock=lock,
    )


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
        server_state(request).audit.note(person, "denied", path=request.url.path)
        raise AccessError(403, "this page", "is for curators", "ask whoever runs the server for that role")
    return person


State = Annotated[ServerState, Depends(server_state)]
"""The annotation of a route's parameter that is the server's state."""

Asking = Annotated[Person, Depends(asking_person)]
"""The annotation of a route's parameter that is whoever asks."""

Curating = Annotated[Person, Depends(asking_curator)]
"""The same, of a route for curators alone."""
