"""The route of the collection, for curators."""

from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter

from viewer.collection import asked_of, counts, drift, find_scorecard
from viewer.state import Curating, State

router = APIRouter(tags=["collection"])


@router.get("/collection")
def collection(state: State, person: Curating) -> dict[str, Any]:
    """Return what the gallery holds, how it scores, whether queries drift from it, and rows to look at."""
    gallery = state.gallery
    state.audit.note(person, "collection read")
    asked = [asked_of(record.time, record.entry) for record in state.audit.entries("query")]
    return {
        "gallery": {
            "rows": len(gallery),
            "women": int(gallery.women.max()) + 1 if len(gallery) else 0,
            "generation": gallery.generation,
            "granularity": gallery.identity.granularity,
            "model_digest": gallery.identity.model_digest,
            "updated": gallery.updated,
        },
        "counts": counts(gallery),
        "scorecard": find_scorecard([gallery.folder, state.config.state_folder]),
        "drift": drift(gallery, asked, f"{datetime.now(UTC):%Y-%m}"),
        "curate": state.desk.curated(),
    }
