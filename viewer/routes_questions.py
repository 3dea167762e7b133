"""Routes of questions: a place's vector, its neighbours, and, when a reader uncovers them, votes and probabilities."""

import asyncio
import hashlib
from concurrent.futures import Future
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from exchange.detections import Detection
from index.answers import Answer
from viewer import ViewerError
from viewer.asking import Prepared
from viewer.opinions import TriageJob, opinion_sentence
from viewer.problems import BusyError, ConflictError
from viewer.questionbody import Box, ImageId, PlaceBody, QuestionBody
from viewer.state import Asking, ServerState, State

router = APIRouter(tags=["questions"])

_OPINION_PATIENCE_S = 20.0
_TRIAGE_PATIENCE_S = 60.0


class MarkBody(BaseModel):
    """A detection of a program's own."""

    model_config = ConfigDict(extra="forbid")

    box: Box
    score: Annotated[float | None, Field(ge=0, le=1, allow_inf_nan=False)] = None
    label: Annotated[str | None, Field(max_length=200)] = None


class TriageBody(BaseModel):
    """Body of `POST /triage`; without detections, those that the server knows of."""

    model_config = ConfigDict(extra="forbid")

    image: ImageId
    detections: Annotated[list[MarkBody], Field(max_length=100)] | None = None


@router.post("/embed")
async def embed(
    body: PlaceBody, state: State, person: Asking, vector: Annotated[bool, Query()] = False
) -> JSONResponse:
    """Embed a place; programs may ask for the vector, which is patient data."""
    asker = state.desk.asker
    view = await run_in_threadpool(asker.view, body)
    await run_in_threadpool(lambda: state.audit.note(person, "embed", image=body.image, box=_plain(view.box)))
    [made], times = await asker.embedded([view])
    content: dict[str, Any] = {
        "image": body.image,
        "box": _plain(view.box),
        "digest": hashlib.sha256(made.vector.tobytes()).hexdigest(),
        "cached": times.cached,
        "milliseconds": {"queued": round(times.queued, 2), "embedding": round(times.embedding, 2)},
    }
    if vector:
        content["vector"] = made.vector.tolist()
    state.measures.observe("embedding", (times.queued + times.embedding) / 1000)
    return JSONResponse(content)


@router.post("/query")
async def query(body: QuestionBody, state: State, person: Asking) -> JSONResponse:
    """Return the most similar findings of other women, with what became of them: no vote, and no probability."""
    question = await run_in_threadpool(_prepared, state, body)

    def record(asked: Prepared, answer: Answer, told: dict[str, Any]) -> None:
        rows = [one["row"] for one in told["neighbours"]]
        state.desk.sightings.add(person.name, "row", rows)
        state.audit.query(
            person,
            question_id=asked.question_id,
            question=asked.plain,
            study=_study(state, asked),
            rows=rows,
            similarities=[one["similarity"] for one in told["neighbours"]],
            no_close_precedent=answer.no_close_precedent,
            replay=told["replay"],
        )
        state.desk.pictures.prefetch(answer.positions[:3].tolist())

    told = await state.desk.asker.ask(question, record)
    took = told["milliseconds"]
    for name in ("search", "embedding", "all"):
        state.measures.observe("query" if name == "all" else name, took[name] / 1000)
    return JSONResponse(told)


@router.post("/opinion")
async def opinion(body: QuestionBody, state: State, person: Asking) -> JSONResponse:
    """Return votes and calibrated probabilities with their support; that they were uncovered is on record."""
    question = await run_in_threadpool(_prepared, state, body)
    embedded, _ = await state.desk.asker.embedded(question.views)
    job = await run_in_threadpool(state.desk.asker.opinion_job, question, embedded)
    remedy = "classifiers are being fitted without this woman: ask again"
    targets = await _patient(state.desk.opinions.ask(job), _OPINION_PATIENCE_S, "opinion", remedy)
    content = {
        "question_id": question.question_id,
        "targets": targets,
        "sentences": [opinion_sentence(one) for one in targets],
        "excluded_women": len(job.women),
        "replay": state.desk.teller.replay,
    }
    await run_in_threadpool(
        lambda: state.audit.opinion(
            person,
            question_id=question.question_id,
            question=question.plain,
            study=_study(state, question),
            targets=targets,
            replay=state.desk.teller.replay,
        )
    )
    return JSONResponse(content)


@router.post("/triage")
async def triage(body: TriageBody, state: State, person: Asking) -> JSONResponse:
    """Return second opinions on detections, as `mammoseek triage` has them."""
    job = await run_in_threadpool(_triage_job, state, body)
    found: dict[str, Any] = {"opinions": [], "failures": []}
    if job.detections:
        remedy = "classifiers are being fitted without this woman: ask again"
        found = await _patient(state.desk.opinions.triage(job), _TRIAGE_PATIENCE_S, "triage", remedy)
    failures = [{"detection": name, "cause": reason} for name, reason in found["failures"]]
    opinions = [{**one, "path": None} for one in found["opinions"]]
    names = [one["detection_id"] for one in opinions]
    await run_in_threadpool(
        lambda: state.audit.note(person, "triage", image=body.image, detections=names, durable=True)
    )
    return JSONResponse(
        {"image": body.image, "opinions": opinions, "failures": failures, "replay": state.desk.teller.replay}
    )


@router.get("/queue")
def queue(state: State, person: Asking) -> dict[str, Any]:
    """Return how many questions wait for the embedder."""
    worker = state.desk.worker
    return {
        "waiting": worker.waiting,
        "running": worker.running,
        "capacity": worker.capacity,
        "worker": worker.status,
        "opinions": state.desk.opinions.status,
    }


def _prepared(state: ServerState, body: QuestionBody) -> Prepared:
    if body.typical:
        state.desk.check_typical()
    return state.desk.asker.prepare(body)


def _study(state: ServerState, question: Prepared) -> str | None:
    return state.desk.catalogue.study_of(question.views[0].entry.image) if question.views else None


def _plain(box: tuple[int, int, int, int] | None) -> list[int] | None:
    return None if box is None else list(box)


async def _patient(future: "Future[Any]", patience_s: float, subject: str, remedy: str) -> Any:
    """Return what a future returns, or tell to come back: the work goes on meanwhile, and is kept.

    Raises:
        BusyError: It is not there in time.
    """
    waiting = asyncio.ensure_future(asyncio.shield(asyncio.wrap_future(future)))
    done, _ = await asyncio.wait({waiting}, timeout=patience_s)
    if not done:
        waiting.add_done_callback(lambda late: late.cancelled() or late.exception())  # whoever asks again is told
        raise BusyError(subject, "takes longer", remedy, 10)
    return waiting.result()


def _triage_job(state: ServerState, body: TriageBody) -> TriageJob:
    if state.gallery.identity.granularity != "finding":
        raise ConflictError("triage", "the gallery compares whole breasts, not places", "serve a gallery of findings")
    entry = state.desk.catalogue.detailed(body.image)
    details = entry.details
    assert details is not None, "its header was read"
    if body.detections is None:
        return TriageJob(tuple(mark.whole for mark in entry.marks))
    found = []
    for number, one in enumerate(body.detections, 1):
        state.desk.asker.view(PlaceBody(image=body.image, box=one.box))
        x0, y0, x1, y1 = one.box
        found.append(
            Detection(
                f"{body.image}-{number}",
                entry.path,
                entry.dataset,
                details.woman or entry.image,
                x0,
                y0,
                x1,
                y1,
                score=one.score,
                native_label=one.label,
                sop_uid=details.header.sop_uid,
                study_id=details.study_uid,
                laterality=details.laterality,
                view=details.view,
                spacing_mm=details.stated_spacing_mm,
                image_rows=details.header.rows,
                image_columns=details.header.columns,
                frame_number=entry.frame,
            )
        )
    if len({one.box for one in body.detections}) < len(found):
        raise ViewerError("detections", "two have the same box", "send each place once")
    return TriageJob(tuple(found))
