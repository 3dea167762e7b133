"""Routes of the worklist: which studies there are, and how one hangs."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query

from viewer.imagetelling import image_facts
from viewer.state import Asking, ServerState, State
from viewer.worklist import Sort, WorklistQuery, page_of, study_line
from viewer.worklist import State as StudyState

router = APIRouter(tags=["studies"])

_PATIENCE_S = 20.0  # headers of a folder are being read

StudyId = Annotated[str, Path(pattern=r"^[0-9a-f]{16}$")]


@router.get("/studies")
def studies(
    state: State,
    person: Asking,
    search: Annotated[str, Query(max_length=200)] = "",
    status: Annotated[StudyState | None, Query(alias="state")] = None,
    sort: Sort = "urgency",
    offset: Annotated[int, Query(ge=0, le=10_000_000)] = 0,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> dict[str, Any]:
    """Return a page of the worklist."""
    known = state.desk.catalogue.studies(_PATIENCE_S)
    query = WorklistQuery(search, status, sort, offset, limit)
    found, total = page_of(known.values(), query, lambda study: study_state(state, study))
    names = state.config.names_shown
    return {
        "total": total,
        "studies": [study_line(study, now, _standing(state, study.study), names_shown=names) for study, now in found],
        "problems": [{"image": name, "cause": cause} for name, cause in state.desk.catalogue.problems[:50]],
    }


@router.get("/studies/{study}")
def one_study(study: StudyId, state: State, person: Asking) -> dict[str, Any]:
    """Return a study, its images with their places on the screen, and what is marked on them."""
    desk = state.desk
    found = desk.catalogue.study(study, _PATIENCE_S)
    state.audit.note(person, "study opened", study=study)
    line = study_line(found, study_state(state, study), _standing(state, study), names_shown=state.config.names_shown)
    images = []
    for one in found.images:
        entry = desk.catalogue.detailed(one.image)
        pyramid = desk.pyramids.kept(desk.pyramids.version(entry.path, entry.frame))
        images.append({**image_facts(entry, study, pyramid), "place": one.place.to_dict()})
    for one in found.images:  # they are looked at next
        entry = desk.catalogue.detailed(one.image)
        desk.pyramids.ask(desk.pyramids.version(entry.path, entry.frame))
    return {**line, "images": images}


def study_state(state: ServerState, study: str) -> StudyState:
    """Return what readers have made of a study so far."""
    if state.verdicts.is_decided(study):
        return "decided"
    return "seen" if state.audit.has_seen(study) else "new"


def _standing(state: ServerState, study: str) -> int:
    return sum(one.stands for one in state.verdicts.of_study(study))
