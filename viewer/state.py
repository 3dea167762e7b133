"""What all routes share: made once when the server starts, found on the app, closed when it ends."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, cast

from fastapi import Depends, Request

from index.gallery import Gallery
from viewer.access import Access, AccessError, Person
from viewer.audit import AuditLog
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
    """

    config: ServeConfig
    gallery: Gallery
    catalogue: "Catalogue"
    worker: "EmbedWorker"
    access: Access
    audit: AuditLog
    verdicts: VerdictBook
    measures: Measures


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
