"""Routes of what is on record: who asks, verdicts, the audit log; and of the server's own health."""

from itertools import islice
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel, ConfigDict, Field

from viewer import StatusError, ViewerError
from viewer.chain import verify
from viewer.facts import own_version
from viewer.problems import NotFoundError
from viewer.questionbody import Box, QuestionBody, check_box
from viewer.reporting import study_document
from viewer.state import Asking, Curating, ServerState, State
from viewer.verdicts import Draft, to_csv

router = APIRouter(tags=["records"])

Id = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
_MOST_ENTRIES = 1_000


class Login(BaseModel):
    """Body of `POST /login`."""

    model_config = ConfigDict(extra="forbid")

    token: Annotated[str, Field(max_length=256)]


class VerdictBody(BaseModel):
    """Body of `POST /verdicts`, see `viewer.verdicts.Draft`."""

    model_config = ConfigDict(extra="forbid")

    key: Annotated[str, Field(max_length=128)]
    study: Id
    image: Id | None = None
    box: Box | None = None
    detection: Annotated[str, Field(max_length=1_000)] | None = None
    birads: Annotated[str, Field(max_length=4)] | None = None
    decision: Annotated[str, Field(max_length=10)] | None = None
    text: str = ""
    question_id: Id | None = None
    question: QuestionBody | None = None
    undoes: Id | None = None


class SeenBody(BaseModel):
    """Body of `POST /seen`."""

    model_config = ConfigDict(extra="forbid")

    study: Id
    image: Id


@router.post("/login")
def login(body: Login, request: Request, response: Response, state: State) -> dict[str, str]:
    """Begin a session with a token; the answer sets its cookie."""
    peer = request.client.host if request.client else "unknown"
    cookie, person = state.access.login(body.token, peer)
    state.audit.note(person, "login", durable=True, peer=peer)
    response.set_cookie(
        state.access.cookie,
        cookie,
        max_age=state.config.limits.session_s,
        path="/",
        secure=state.config.is_secure,
        httponly=True,
        # Not strict: a colleague's link to a question, followed from a mail, would find her logged out.
        samesite="lax",
    )
    return {"user": person.name, "role": person.role}


@router.post("/logout")
def logout(request: Request, response: Response, state: State, person: Asking) -> dict[str, bool]:
    """End the session, and let the browser forget the pictures that it kept."""
    state.access.logout(request.cookies.get(state.access.cookie, ""))
    state.audit.note(person, "logout")
    response.delete_cookie(state.access.cookie, path="/", secure=state.config.is_secure, httponly=True, samesite="lax")
    response.headers["clear-site-data"] = '"cache"'
    return {"logged_in": False}


@router.get("/session")
def session(state: State, person: Asking) -> dict[str, Any]:
    """Tell who asks, what the site allows, and what the gallery offers to filter and steer by."""
    limits = state.config.limits
    return {
        "user": person.name,
        "role": person.role,
        "can_log_out": state.config.tokens is not None and not person.by_program,
        "opinion_hidden": state.config.opinion_hidden,
        "names_shown": state.config.names_shown,
        **state.facts,
        "version": own_version(),
        "limits": {
            "body_bytes": limits.body_bytes,
            "text_characters": limits.text_characters,
            "embed_queue": state.config.embed_queue,
        },
    }


@router.get("/health")
def health(state: State) -> dict[str, Any]:
    """Tell that the server answers, and whether its embedder does."""
    return {"status": "ok", **state.desk.health()}


@router.get("/metrics", response_class=PlainTextResponse)
def metrics(state: State) -> PlainTextResponse:
    """Return counters and latencies as Prometheus reads them."""
    state.measures.set("rows", len(state.gallery))
    state.measures.set("verdicts", len(state.verdicts))
    state.measures.set("audit_entries", len(state.audit))
    return PlainTextResponse(state.measures.text(), media_type="text/plain; version=0.0.4")


@router.get("/verdicts")
def verdicts(study: Annotated[Id, Query()], state: State) -> dict[str, Any]:
    """Return a study's verdicts, oldest first, with those that were taken back."""
    state.catalogue.study(study)
    return {"verdicts": [one.to_dict() for one in state.verdicts.of_study(study)]}


@router.post("/verdicts", status_code=201)
def decide(body: VerdictBody, response: Response, state: State, person: Asking) -> dict[str, Any]:
    """Record a verdict, or take one back by a new entry. The answer comes when it can't be lost any more."""
    question = None if body.question is None else body.question.plain()  # of known depth: it is read again for ever
    draft = Draft(**{**body.model_dump(), "question": question})
    _check_place(state, draft)
    verdict, is_new = state.verdicts.add(person, draft)
    facts = {"study": verdict.study, "verdict": verdict.id, "undoes": verdict.undoes, "digest": state.verdicts.head}
    try:
        state.audit.note(person, "verdict", durable=True, resent=not is_new, **facts)
    except ViewerError as error:
        cause, remedy = "can't be written, but the verdict is recorded", "free some space on its disk; nothing is lost"
        raise StatusError(507, "the audit log", cause, remedy) from error
    state.measures.count("verdicts_recorded", 1 if is_new else 0)
    response.status_code = 201 if is_new else 200
    return verdict.to_dict()


@router.get("/verdicts.csv")
def verdicts_csv(state: State, person: Asking, study: Annotated[Id | None, Query()] = None) -> Response:
    """Return the verdicts of a study, or all, as a table."""
    if study is not None:
        state.catalogue.study(study)
    found = state.verdicts.all() if study is None else state.verdicts.of_study(study)
    state.audit.note(person, "verdicts exported", study=study, verdicts=len(found))
    name = "verdicts.csv" if study is None else f"verdicts-{study}.csv"
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return Response(to_csv(found), media_type="text/csv; charset=utf-8", headers=headers)


@router.get("/studies/{study}/report.dcm")
def report(study: Id, state: State, person: Asking) -> Response:
    """Return a study's verdicts and last answers as a DICOM structured report."""
    content = study_document(state, study)
    state.audit.note(person, "report", study=study)
    headers = {"content-disposition": f'attachment; filename="report-{study}.dcm"'}
    return Response(content, media_type="application/dicom", headers=headers)


@router.post("/seen")
def seen(body: SeenBody, state: State, person: Asking) -> dict[str, str]:
    """Record that somebody looked at an image of a study."""
    _check_image(state, body.study, body.image)
    state.audit.study_seen(person, body.study, body.image)
    return {"study": body.study, "state": "decided" if state.verdicts.is_decided(body.study) else "seen"}


@router.get("/audit")
def audit(
    state: State,
    person: Curating,
    offset: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1, le=_MOST_ENTRIES)] = 200,
) -> dict[str, Any]:
    """Verify the audit log and the verdicts, and return the log's newest entries, newest first."""
    total = len(state.audit)
    first = max(0, total - offset - limit)
    last = max(0, total - offset)
    entries = [
        {"number": record.number, "time": record.time, **record.entry}
        for record in islice(state.audit.entries(), first, last)
    ]
    found = {name: verify(book.path, name) for name, book in (("audit", state.audit), ("verdicts", state.verdicts))}
    state.audit.note(person, "audit read", first=first, last=last)
    return {
        "entries": entries[::-1],
        "total": total,
        "intact": all(one.intact for one in found.values()),
        "head": found["audit"].head,
        "chains": {
            name: {"intact": one.intact, "entries": one.records, "head": one.head, "broken_line": one.broken}
            for name, one in found.items()
        },
    }


def _check_place(state: ServerState, draft: Draft) -> None:
    """Refuse a verdict on what is not there.

    Raises:
        NotFoundError: Its study, image or detection is unknown, or they do not belong together.
        MammoseekError: Its box does not lie inside the image, or the image can't be read.
    """
    if draft.image is None:
        state.catalogue.study(draft.study)
        return
    image = _check_image(state, draft.study, draft.image)
    if draft.detection is not None and draft.detection not in {one.detection for one in image.detections}:
        raise NotFoundError("detection", "is none of this image", "reload the study")
    if draft.box is not None:
        details = state.catalogue.detailed(draft.image).details
        assert details is not None, "its header was read"
        check_box(draft.box, details.header.rows, details.header.columns)


def _check_image(state: ServerState, study: str, image: str) -> Any:
    found = {one.image: one for one in state.catalogue.study(study).images}
    if image not in found:
        raise NotFoundError(f"image {image}", "is none of this study", "reload the study")
    return found[image]
