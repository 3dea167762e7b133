"""What every request passes before any route sees it: who asks, from where, how often and how much."""

import asyncio
import contextlib
import ipaddress
import json
import socket
import time
from collections.abc import Sequence
from http.cookies import CookieError, SimpleCookie

from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from viewer import ViewerError
from viewer.access import Access, AccessError, Person
from viewer.loginpage import LoginPage
from viewer.measures import Measures
from viewer.pace import Pace
from viewer.replies import SECURITY_HEADERS, defect_reply, error_reply, problem_reply
from viewer.settings import LOOPBACK_HOSTS, ServeConfig

_CHANGING = "x-mammoseek"
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
_ANY_LITERAL = ("0.0.0.0", "::", "")
LOGIN = "/login"

Headers = dict[str, list[str]]


class BodyError(ViewerError):
    """A body over the limit (413), one that does not come (408, 400), or one of broken text (422)."""

    def __init__(self, status: int, cause: str) -> None:
        super().__init__("body of the request", cause, "send it whole, and shorter")
        self.status = status


class Guards:
    """An ASGI middleware around all routes.

    In this order: the Host header is one of ours (else the page of another name would be let in by DNS rebinding); the
    request does not come from another site's page; somebody asks who may; not too often; a change shows that it was
    meant (CSRF); its body is not too long, whatever it says of its length. What the routes answer gets the headers that
    keep browsers from harm.

    Args:
        app: The routes.
        config: How the page is served.
        access: Who may ask.
        measures: Where requests are counted.
    """

    def __init__(self, app: ASGIApp, config: ServeConfig, access: Access, measures: Measures) -> None:
        self._app, self._config, self._access, self._measures = app, config, access, measures
        limits = config.limits
        self._requests = Pace(limits.requests_per_s, limits.requests_at_once)
        self._changes = Pace(limits.changes_per_s, limits.changes_at_once)
        self._names = _own_names(config)
        self._public_names = {_host_name(name) for name in config.allowed_hosts} - {""}
        self._login_page = LoginPage.read() if config.tokens is not None else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        started = time.perf_counter()
        reply = _Reply(send)
        try:
            refused = await self._pass(scope, receive, reply)
            if refused is not None:
                await refused(scope, receive, reply)
        except Exception as error:
            # Neither the server's log nor the answer may repeat what was asked.
            answer = defect_reply(error)
            if not reply.begun:
                await answer(scope, receive, reply)
            elif not reply.complete:
                raise ConnectionAbortedError("an answer broke off") from None
        finally:
            route = getattr(scope.get("route"), "path", None) or "other"
            seconds = time.perf_counter() - started
            self._measures.count("requests", route=route, method=_method(scope), status=str(reply.status))
            self._measures.observe("request", seconds, route=route)

    async def _pass(self, scope: Scope, receive: Receive, reply: "_Reply") -> Response | None:
        headers = _headers(scope)
        try:
            person = self._check(scope, headers)
            body = await self._body(headers, receive) if scope["method"] not in _SAFE_METHODS else b""
        except AccessError as error:
            return self._refusal(scope, headers, error)
        except ViewerError as error:
            return _closing(problem_reply(error))
        scope.setdefault("state", {})["person"] = person
        await self._app(scope, _replayed(body, receive), reply)
        return None

    def _check(self, scope: Scope, headers: Headers) -> Person | None:
        """Return who asks; None at the login.

        Raises:
            ViewerError: The request is refused.
        """
        self._check_host(headers)
        self._check_site(scope, headers)
        peer = scope["client"][0] if scope.get("client") else None
        is_login = scope["path"] == LOGIN and scope["method"] == "POST"
        person = None if is_login else self._access.identify(headers, _cookies(headers), peer)
        name = f"peer {peer}" if person is None else f"user {person.name}"
        self._check_pace(self._requests, name)
        if scope["method"] not in _SAFE_METHODS:
            self._check_pace(self._changes, name)
            if person is None or not person.by_program:
                self._check_meant(headers)
        return person

    def _check_host(self, headers: Headers) -> None:
        given = headers.get("host", [])
        name = _host_name(given[0]) if len(given) == 1 else ""
        if name not in self._names and not (self._config.host in _ANY_LITERAL and _is_address(name)):
            raise AccessError(
                400, "Host header", "names another server", "add the name by `mammoseek serve --allowed-host NAME`"
            )

    def _check_site(self, scope: Scope, headers: Headers) -> None:
        """Refuse what another site's page makes a browser ask; a link to the page itself is fine."""
        site = headers.get("sec-fetch-site", ["none"])[-1]
        follows_link = headers.get("sec-fetch-mode") == ["navigate"] and scope["method"] == "GET"
        if site not in ("none", "same-origin") and not (follows_link and scope["path"] == "/"):
            raise AccessError(403, "request", "comes from another site", "open the page itself")

    def _check_meant(self, headers: Headers) -> None:
        """Refuse a change that another site's page could have a browser send."""
        if headers.get(_CHANGING) != ["1"]:
            raise AccessError(403, "request", "lacks the header X-Mammoseek: 1", "send it, or a Bearer token")
        for origin in headers.get("origin", []):
            scheme, separator, name = origin.partition("://")
            own = name.lower() == headers["host"][0].lower() or _host_name(name) in self._public_names
            if not separator or scheme not in ("http", "https") or not own:
                raise AccessError(403, "request", "comes from another site", "open the page itself")

    def _check_pace(self, pace: Pace, name: str) -> None:
        wait = pace.wait_s(name)
        if wait > 0:
            error = AccessError(429, "request", "is one too many at this moment", "wait a little")
            error.retry_after = wait
            raise error

    async def _body(self, headers: Headers, receive: Receive) -> bytes:
        """Return a request's body, which is short, so that routes need not care.

        Raises:
            BodyError: It is too long, or does not come.
        """
        limits = self._config.limits
        told = headers.get("content-length", ["0"])[-1]
        if told.isdecimal() and int(told[:20]) > limits.body_bytes:
            raise BodyError(413, f"is longer than {limits.body_bytes} bytes")
        parts: list[bytes] = []
        length = 0
        try:
            async with asyncio.timeout(limits.body_s):
                more = True
                while more:
                    message = await receive()
                    if message["type"] != "http.request":
                        raise BodyError(400, "broke off")
                    parts.append(message.get("body", b""))
                    length += len(parts[-1])
                    if length > limits.body_bytes:
                        raise BodyError(413, f"is longer than {limits.body_bytes} bytes")
                    more = message.get("more_body", False)
        except TimeoutError as error:
            raise BodyError(408, f"did not come within {limits.body_s:g} s") from error
        body = b"".join(parts)
        if _holds_half_characters(body):
            raise BodyError(422, "holds half of a character, which can't be told back")
        return body

    def _refusal(self, scope: Scope, headers: Headers, error: AccessError) -> Response:
        if error.status != 401:
            return _closing(problem_reply(error))
        challenge = {"www-authenticate": 'Bearer realm="mammoseek"'}
        wants_page = scope["method"] == "GET" and "text/html" in ",".join(headers.get("accept", []))
        if wants_page and self._login_page is not None:
            page = Response(self._login_page.body, 401, challenge, "text/html")
            page.headers["content-security-policy"] = self._login_page.policy
            return page
        return _closing(error_reply(401, error.subject, error.cause, error.remedy, headers=challenge))


class _Reply:
    """Sends an answer on, with the headers that all answers have."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0
        self.begun = self.complete = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self.begun = message["status"], True
            headers = MutableHeaders(scope=message)
            for name, value in SECURITY_HEADERS.items():
                headers.setdefault(name, value)
        elif message["type"] == "http.response.body":
            self.complete = not message.get("more_body", False)
        await self._send(message)


def _closing(reply: JSONResponse) -> JSONResponse:
    """Let the server close the connection after an answer before which the body was not read."""
    reply.headers["connection"] = "close"
    return reply


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Return what hands a body that was read to the routes, and then what comes after it."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _holds_half_characters(body: bytes) -> bool:
    """Tell whether JSON escapes half of a surrogate pair: Python holds such text, and no answer can be made of it."""
    if rb"\u" not in body:
        return False
    try:
        json.dumps(json.loads(body), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    except (ValueError, RecursionError):
        pass  # the route says what is wrong with it
    return False


def _headers(scope: Scope) -> Headers:
    found: Headers = {}
    for name, value in scope["headers"]:
        found.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    return found


def _cookies(headers: Headers) -> dict[str, str]:
    jar: SimpleCookie = SimpleCookie()
    with contextlib.suppress(CookieError):
        jar.load("; ".join(headers.get("cookie", [])))
    return {name: morsel.value for name, morsel in jar.items()}


def _method(scope: Scope) -> str:
    """Return the method for a label, of which there are few whatever clients send."""
    method = str(scope["method"])
    return method if method in (*_SAFE_METHODS, "POST") else "other"


def _own_names(config: ServeConfig) -> set[str]:
    names: Sequence[str] = (config.host, *config.allowed_hosts)
    if config.is_local:
        names = (*names, *LOOPBACK_HOSTS)
    elif config.host in _ANY_LITERAL:
        names = (*names, *LOOPBACK_HOSTS, socket.gethostname())
    return {own_name(name) for name in names} - {""}


def own_name(text: str) -> str:
    """Return a name of the server, as the command line gives it, in one spelling; empty where it is none.

    >>> own_name("Viewer.example:8700"), own_name("::1"), own_name("http://viewer.example/"), own_name("*.example")
    ('viewer.example', '::1', '', '')
    """
    return _host_name(f"[{text}]" if ":" in text and _is_address(text) else text)


def _host_name(text: str) -> str:
    """Return the name of a Host header in one spelling, without the port; empty where it is none.

    >>> _host_name("Localhost:8700"), _host_name("[::1]:8700"), _host_name("a b")
    ('localhost', '::1', '')
    """
    text = text.strip().lower()
    if text.startswith("["):
        name, end, rest = text[1:].partition("]")
        return name if end and _is_address(name) and (not rest or rest[1:].isdecimal()) else ""
    name, colon, port = text.partition(":")
    is_name = bool(name) and all(part.isalnum() or part in "-._" for part in name)
    return name.rstrip(".") if is_name and (not colon or port.isdecimal()) else ""


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
