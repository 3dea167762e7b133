"""What every answer has in common: headers that keep browsers from harm, and one form for errors."""

import logging
import math
import traceback
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from errors import MammoseekError
from viewer import ViewerError
from viewer.problems import BusyError, ConflictError, NotFoundError, sayable

LOG = logging.getLogger("mammoseek.viewer")
"""Says what went wrong, without names, texts, addresses of images and values of requests."""

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "font-src 'self'",
        "connect-src 'self'",
        "worker-src 'self'",
        "manifest-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)

SECURITY_HEADERS: dict[str, str] = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
    "cache-control": "no-store",
}
"""Headers of every answer that does not set them itself."""

_DEFECT = ("the server", "failed at this request", "tell whoever runs it: its log says where")

_STATUS_CAUSES = {
    404: ("address", "nothing is there", "see /api for what there is"),
    405: ("method", "is not one of this address", "see /api for what there is"),
}


def error_reply(
    status: int, subject: str, cause: str, remedy: str = "", *, headers: dict[str, str] | None = None
) -> JSONResponse:
    """Return an error as all routes have it."""
    content = {"error": {"subject": sayable(subject), "cause": sayable(cause), "remedy": sayable(remedy)}}
    return JSONResponse(content, status_code=status, headers=headers)


def status_of(error: MammoseekError) -> int:
    """Return an error's HTTP status: its own where it has one, 422 for wrong input, 500 for what the site must mend."""
    known = getattr(error, "status", None)
    if isinstance(known, int):
        return known
    for kind, status in ((NotFoundError, 404), (ConflictError, 409), (BusyError, 503)):
        if isinstance(error, kind):
            return status
    of_the_site = type(error).__name__ in ("GalleryError", "ModelError")
    return 500 if of_the_site or (isinstance(error, ViewerError) and _names_a_file(error)) else 422


def problem_reply(error: MammoseekError) -> JSONResponse:
    """Return one of mammoseek's errors; folders of the server stay unsaid, since they may hold names."""
    headers = {}
    wait = getattr(error, "retry_after", None)
    if wait is not None:
        headers["retry-after"] = str(max(1, math.ceil(wait)))
    subject, cause, remedy = error.subject, error.cause, error.remedy
    if _names_a_file(error):
        cause = cause.replace(subject, "it")
        remedy = remedy if subject not in remedy else "tell whoever runs the server"
        subject = "a file of the server"
    return error_reply(status_of(error), subject, cause, remedy, headers=headers)


def _names_a_file(error: MammoseekError) -> bool:
    """Tell whether an error is of a file; of errors of the page only a whole path is one, since routes have slashes."""
    if isinstance(error, ViewerError):
        return Path(error.subject).is_absolute()
    return "/" in error.subject or "\\" in error.subject


def handle_errors(app: FastAPI) -> None:
    """Let an app answer all errors in one form."""

    @app.exception_handler(MammoseekError)
    async def _problem(_request: Request, error: MammoseekError) -> JSONResponse:
        if status_of(error) == 500:
            LOG.error("%s", _place(error))
        return problem_reply(error)

    @app.exception_handler(RequestValidationError)
    async def _invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        # What was sent is not said back.
        told = [(".".join(map(str, one.get("loc", ()))), str(one.get("msg", ""))) for one in error.errors()[:5]]
        subject = ", ".join(where for where, _ in told) or "request"
        return error_reply(422, subject[:300], "; ".join(what for _, what in told)[:500], "see /api")

    @app.exception_handler(HTTPException)
    async def _http(_request: Request, error: HTTPException) -> JSONResponse:
        subject, cause, remedy = _STATUS_CAUSES.get(error.status_code, ("request", str(error.detail)[:200], ""))
        return error_reply(error.status_code, subject, cause, remedy, headers=dict(error.headers or {}))

    @app.exception_handler(Exception)
    async def _defect(_request: Request, _error: Exception) -> JSONResponse:
        # It is raised on, to the guards, which log where it lies.
        return error_reply(500, *_DEFECT)


def defect_reply(error: BaseException) -> JSONResponse:
    """Log where a defect of mammoseek lies, not what was asked, and return the answer to it."""
    LOG.error("%s", _place(error))
    return error_reply(500, *_DEFECT)


def _place(error: BaseException) -> str:
    """Return an error's kind and the way to it in the code, without its message, which may hold what was asked."""
    frames: list[Any] = traceback.extract_tb(error.__traceback__)[-8:]
    way = " < ".join(f"{Path(one.filename).name}:{one.lineno} {one.name}" for one in reversed(frames))
    return f"{type(error).__name__} at {way}"
