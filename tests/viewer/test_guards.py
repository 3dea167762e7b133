"""No request gets past the guards that should not: without a token, from elsewhere, too often, too long, not meant."""

import itertools
import re
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="install mammoseek[viewer] for the page's server")

from fastapi.testclient import TestClient
from starlette.routing import Mount

from tests.viewer.sites import IMAGE, MEANT, STUDY, open_site, small_gallery, visit
from viewer.access import make_token
from viewer.replies import CONTENT_SECURITY_POLICY
from viewer.settings import Limits


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    return small_gallery(tmp_path_factory.mktemp("gallery") / "gallery")


@pytest.fixture
def tokens(tmp_path) -> dict[str, str]:
    path = tmp_path / "tokens.toml"
    return {role: make_token(path, f"the {role}", role) for role in ("reader", "curator")}


@pytest.fixture
def wide(gallery, tmp_path, tokens):
    """A server that others reach, with tokens."""
    settings = {"host": "0.0.0.0", "tokens": tmp_path / "tokens.toml", "behind_proxy": True}
    with visit(open_site(gallery, tmp_path / "state", **settings)) as client:
        yield client


@pytest.fixture
def local(gallery, tmp_path):
    """A server for the user of this machine."""
    with visit(open_site(gallery, tmp_path / "local")) as client:
        yield client


def addresses(client: TestClient) -> list[tuple[str, str]]:
    """Return method and address of everything that the app answers, and of some things that it does not."""
    found = [("GET", "/"), ("GET", "/nothing"), ("GET", "/static/../viewer/app.py"), ("PUT", "/verdicts")]
    routes = list(client.app.routes)  # type: ignore[attr-defined]
    while routes:
        route = routes.pop()
        routes += getattr(getattr(route, "original_router", None), "routes", [])  # a router that was included
        path = re.sub(r"{[^}]*}", "0" * 16, getattr(route, "path", "") or "")
        if isinstance(route, Mount):
            found += [("GET", f"{path}/index.html"), ("GET", f"{path}/login.js"), ("GET", path)]
        elif path:
            found += [(method, path) for method in getattr(route, "methods", None) or ("GET",)]
    return sorted(set(found))


def test_every_route_is_looked_at(wide):
    known = {path for _, path in addresses(wide)}
    assert {"/", "/login", "/session", "/health", "/metrics", "/verdicts", "/audit", "/openapi.json", "/api"} <= known
    described = {re.sub(r"{[^}]*}", "0" * 16, path) for path in wide.app.openapi()["paths"]}
    assert described <= known
    assert len(known) > 12


def test_no_route_answers_without_the_token(wide):
    for method, path in addresses(wide):
        for headers in ({}, {"authorization": "Bearer mammoseek-0"}, {"cookie": "__Host-mammoseek=a; mammoseek=b"}):
            body = {"token": "wrong"} if path == "/login" else {}
            answer = wide.request(method, path, headers={**MEANT, **headers}, json=body)
            is_login = (method, path) == ("POST", "/login")
            assert answer.status_code in ((401, 429) if is_login else (401,)), (method, path)
            assert "www-authenticate" in answer.headers or is_login
            assert method == "HEAD" or set(answer.json()["error"]) == {"subject", "cause", "remedy"}


def test_a_browser_that_is_not_logged_in_gets_the_login_page_whole(wide):
    answer = wide.get("/anything", headers={"accept": "text/html,*/*"})
    assert answer.status_code == 401
    assert "<form" in answer.text
    assert "src=" not in answer.text
    assert "stylesheet" not in answer.text
    assert "'sha256-" in answer.headers["content-security-policy"]
    assert "unsafe" not in answer.headers["content-security-policy"]


def test_a_token_opens_and_logging_out_closes(wide, tokens):
    assert wide.get("/session", headers={"authorization": f"Bearer {tokens['reader']}"}).json()["role"] == "reader"
    answer = wide.post("/login", json={"token": tokens["reader"]}, headers=MEANT)
    assert answer.status_code == 200
    cookie = answer.headers["set-cookie"]
    assert all(part in cookie for part in ("__Host-mammoseek=", "HttpOnly", "SameSite=lax", "Secure", "Path=/"))
    held = {"cookie": cookie.partition(";")[0]}
    assert wide.get("/session", headers=held).json()["user"] == "the reader"
    assert wide.post("/logout", headers={**held, **MEANT}).headers["clear-site-data"] == '"cache"'
    assert wide.get("/session", headers=held).status_code == 401


def test_a_curators_page_is_refused_to_a_reader_and_that_is_on_record(wide, tokens):
    refused = wide.get("/audit", headers={"authorization": f"Bearer {tokens['reader']}"})
    assert refused.status_code == 403
    seen = wide.get("/audit", headers={"authorization": f"Bearer {tokens['curator']}"}).json()
    assert ("denied", "the reader") in {(entry["action"], entry["user"]) for entry in seen["entries"]}


def test_wrong_tokens_are_slowed_down_and_a_right_one_is_let_in_still(wide, tokens):
    statuses = [wide.post("/login", json={"token": "guess"}, headers=MEANT).status_code for _ in range(30)]
    assert statuses[0] == 401
    assert statuses[-1] == 429
    assert wide.post("/login", json={"token": tokens["reader"]}, headers=MEANT).status_code == 200


def test_only_hosts_of_our_own_are_answered(gallery, tmp_path):
    with visit(open_site(gallery, tmp_path / "state", allowed_hosts=("viewer.example",))) as client:
        for host in ("localhost:9", "127.0.0.1", "[::1]:8700", "LOCALHOST", "viewer.example", "viewer.example:443"):
            assert client.get("/health", headers={"host": host}).status_code == 200, host
        for host in ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "", "10.0.0.1", "a b", "[::1"):
            assert client.get("/health", headers={"host": host}).status_code == 400, host


def test_head_tells_balancers_that_the_server_lives_behind_the_same_guards(local, wide, tokens):
    for path in ("/", "/health"):
        answer = local.head(path)
        assert answer.status_code == 200, path
        assert answer.content == b""
        assert answer.headers["content-type"] == local.get(path).headers["content-type"]
        assert answer.headers["content-length"] == local.get(path).headers["content-length"]
        assert local.head(path, headers={"host": "evil.example"}).status_code == 400
        assert local.head(path, headers={"sec-fetch-site": "cross-site"}).status_code == 403
        assert wide.head(path).status_code == 401
        assert wide.head(path, headers={"authorization": f"Bearer {tokens['reader']}"}).status_code == 200
        assert ("HEAD", path) in addresses(wide)


def test_two_host_headers_are_refused(local):
    answer = local.get("/health", headers=[("host", "localhost"), ("host", "evil.example")])
    assert answer.status_code == 400


def proxied(gallery, folder: Path, peer: str, **settings):
    known = {"identity_header": "X-Remote-User", "trusted_proxies": ("10.0.0.0/24",), "behind_proxy": True}
    return visit(open_site(gallery, folder, host="0.0.0.0", **{**known, **settings}), peer)


def test_the_trusted_proxy_names_the_user(gallery, tmp_path):
    with proxied(gallery, tmp_path / "s", "10.0.0.7", curators=("Zoë",)) as client:
        assert client.get("/session").status_code == 401
        assert client.get("/session", headers={"x-remote-user": "anna"}).json()["role"] == "reader"
        named = client.get("/session", headers={"x-remote-user": "Zoë".encode()}).json()
        assert (named["user"], named["role"]) == ("Zoë", "curator")
        twice = client.get("/session", headers=[("x-remote-user", "anna"), ("x-remote-user", "root")])
        assert twice.status_code == 403
        assert client.get("/session", headers={"x-remote-user": " "}).status_code == 403


@pytest.mark.parametrize("peer", ["10.0.1.7", "192.168.0.1", "::1", "testclient"])
def test_a_forged_identity_header_is_refused(gallery, tmp_path, peer):
    with proxied(gallery, tmp_path / "s", peer) as client:
        for headers in ({}, {"x-forwarded-for": "10.0.0.7", "forwarded": "for=10.0.0.7", "x-real-ip": "10.0.0.7"}):
            assert client.get("/session", headers={"x-remote-user": "anna", **headers}).status_code == 403
            assert client.get("/session", headers=headers).status_code == 401


def test_an_identity_header_that_nobody_asked_for_says_nothing(wide, local):
    assert wide.get("/session", headers={"x-remote-user": "root"}).status_code == 401
    assert local.get("/session", headers={"x-remote-user": "root"}).json()["user"] == "anna"


def test_changes_must_be_meant(local):
    body = {"study": STUDY, "image": IMAGE}
    assert local.post("/seen", json=body).status_code == 403
    for origin in ("https://evil.example", "null", "http://127.0.0.1.evil.example:8700", "file://", "127.0.0.1:8700"):
        assert local.post("/seen", json=body, headers={**MEANT, "origin": origin}).status_code == 403, origin
    assert local.post("/seen", json=body, headers={**MEANT, "origin": "http://127.0.0.1:8700"}).status_code == 200
    form = {"content-type": "application/x-www-form-urlencoded"}
    assert local.post("/seen", content=b"study=1", headers={**form, **MEANT}).status_code == 422
    assert local.post("/login", json={"token": "x"}).status_code == 403


def test_other_sites_pages_can_ask_nothing(local):
    for site, mode in itertools.product(("cross-site", "same-site"), ("no-cors", "cors", "navigate")):
        headers = {"sec-fetch-site": site, "sec-fetch-mode": mode}
        assert local.get("/studies", headers=headers).status_code == 403
        assert local.get("/", headers=headers).status_code == (200 if mode == "navigate" else 403)
    assert local.get("/health", headers={"sec-fetch-site": "same-origin"}).status_code == 200
    preflight = local.options("/verdicts", headers={"origin": "https://evil.example"})
    assert "access-control-allow-origin" not in preflight.headers


def test_a_body_over_the_limit_is_refused_whatever_it_says_of_its_length(gallery, tmp_path):
    with visit(open_site(gallery, tmp_path / "s", limits=Limits(body_bytes=1_000))) as client:
        assert client.post("/seen", content=b"x" * 1_001, headers=MEANT).status_code == 413

        def chunks():
            for _ in range(50):
                yield b" " * 100

        chunked = client.post("/seen", content=chunks(), headers={**MEANT, "content-type": "application/json"})
        assert chunked.status_code == 413
        assert set(chunked.json()["error"]) == {"subject", "cause", "remedy"}
        assert client.post("/seen", content=b"{}", headers={**MEANT, "content-length": "99999"}).status_code == 413
        short = client.post("/seen", json={"study": STUDY, "image": IMAGE}, headers=MEANT)
        assert short.status_code == 200


def test_one_user_who_asks_too_often_waits_and_others_do_not(gallery, tmp_path, tokens):
    settings = {"tokens": tmp_path / "tokens.toml", "limits": Limits(changes_per_s=0.01, changes_at_once=3)}
    with visit(open_site(gallery, tmp_path / "s", **settings)) as client:
        held = [{"authorization": f"Bearer {token}"} for token in tokens.values()]
        body = {"study": STUDY, "image": IMAGE}
        statuses = [client.post("/seen", json=body, headers=held[0]).status_code for _ in range(5)]
        assert statuses == [200, 200, 200, 429, 429]
        slowed = client.post("/seen", json=body, headers=held[0])
        assert int(slowed.headers["retry-after"]) >= 1
        assert client.post("/seen", json=body, headers=held[1]).status_code == 200
        assert client.get("/health", headers=held[0]).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        *("/static/../../pyproject.toml", "/static/%2e%2e/%2e%2e/pyproject.toml", "/static/..%2f..%2fpyproject.toml"),
        *("/static//etc/passwd", "/static/%00", "/static/..\\..\\pyproject.toml", "/static/image/../../app.py"),
        *("/../etc/passwd", "/%2e%2e/app.py", "/static/", "/static", "/verdicts/../audit.jsonl", "/audit.jsonl"),
    ],
)
def test_path_tricks_lead_nowhere(local, path):
    answer = local.get(path)
    assert answer.status_code in (404, 405, 307)
    assert "[project]" not in answer.text
    assert "root:" not in answer.text


def test_every_answer_keeps_browsers_from_harm(local):
    for path in ("/health", "/nothing", "/openapi.json", "/verdicts.csv", "/static/login.js"):
        headers = local.get(path).headers
        assert headers["content-security-policy"] == CONTENT_SECURITY_POLICY
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == ("private, no-cache" if "/static/" in path else "no-store")
        assert "server" not in headers
    assert "unsafe" not in CONTENT_SECURITY_POLICY
    assert "http" not in CONTENT_SECURITY_POLICY


def test_a_defect_says_nothing_of_what_was_asked_in_answer_or_log(local, caplog):
    state = local.app.state.server

    def fail(study):
        raise RuntimeError(f"secret of {study}")

    state.catalogue.study = fail
    answer = local.get("/verdicts", params={"study": STUDY})
    assert answer.status_code == 500
    assert "secret" not in answer.text + caplog.text
    assert STUDY not in caplog.text
    assert "RuntimeError at test_guards.py" in caplog.text


def test_a_wrong_value_is_not_said_back(local):
    answer = local.post("/seen", json={"study": "<script>alert(1)</script>", "image": IMAGE}, headers=MEANT)
    assert answer.status_code == 422
    assert "script" not in answer.text


def test_the_page_names_no_other_host():
    static = Path(__file__).resolve().parents[2] / "viewer" / "static"
    for path in (*static.rglob("*.html"), *static.rglob("*.js"), *static.rglob("*.css")):
        found = re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}[^\s\"'`)]*", path.read_text("utf-8"))
        assert [name for name in found if "w3.org" not in name] == [], path
