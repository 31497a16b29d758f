import io
import json
import logging
import re

import pytest
from fastapi import APIRouter, FastAPI, Form, Request
from fastapi.responses import PlainTextResponse, StreamingResponse
from fastapi.testclient import TestClient
from starlette.requests import ClientDisconnect

from cxr.errors import ConfigError
from cxr.serving.refusal import Refusal
from cxr.serving.silence import SilentFormatter, log
from cxr.serving.wrapping import SECURITY_HEADERS, wrap

from .asgi import post

LIMIT = 1000


def make_app(origins=()):
    app, router = FastAPI(), APIRouter(prefix="/v1")

    @router.post("/things/{name}")
    async def things(name: str, request: Request):
        return {"size": len(await request.body()), "id": request.state.request_id}

    @app.post("/form")
    async def form(word: str = Form()):
        return word

    @app.get("/kept")
    async def kept():
        return PlainTextResponse("style", headers={"Cache-Control": "max-age=60"})

    @app.get("/refused")
    async def refused():
        raise Refusal(418, "teapot", "expected coffee")

    @app.get("/broken")
    async def broken():
        raise RuntimeError("PLANTED")

    @app.get("/half")
    async def half():
        async def parts():
            yield "begun"
            raise RuntimeError("PLANTED")

        return StreamingResponse(parts())

    @app.get("/gone")
    async def gone():
        raise ClientDisconnect

    app.include_router(router)
    wrap(app, LIMIT, origins)
    return app


@pytest.fixture(scope="module")
def client():
    return TestClient(make_app())


@pytest.fixture
def lines():
    """Gives the lines that were written since the test began."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(SilentFormatter())
    log.addHandler(handler)
    before = log.level
    log.setLevel(logging.INFO)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    log.removeHandler(handler)
    log.setLevel(before)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("POST", "/v1/things/a", 200), ("GET", "/refused", 418), ("GET", "/broken", 500), ("GET", "/none", 404),
     ("GET", "/form", 405), ("POST", "/form", 422)],
)  # fmt: skip
def test_every_answer_has_an_id_and_the_security_headers(client, method, path, status):
    answer = client.request(method, path)
    assert answer.status_code == status
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["X-Request-ID"])
    assert {name: answer.headers.get(name) for name in SECURITY_HEADERS} == SECURITY_HEADERS


def test_the_policy_of_content_allows_nothing_inline_and_nobody_else():
    policy = dict(part.strip().split(" ", 1) for part in SECURITY_HEADERS["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'self'"
    assert policy["img-src"] == "'self' data: blob:"
    assert policy["frame-ancestors"] == "'none'"
    assert "unsafe" not in str(policy)


def test_an_answer_may_set_a_header_itself(client):
    assert client.get("/kept").headers["Cache-Control"] == "max-age=60"


@pytest.mark.parametrize("given", ["0123456789abcdef" * 2, "123e4567-e89b-12d3-a456-426614174000"])
def test_a_random_id_is_taken_over(client, given):
    answer = client.post("/v1/things/a", headers={"X-Request-ID": given})
    assert (answer.headers["X-Request-ID"], answer.json()["id"]) == (given, given)


@pytest.mark.parametrize("given", ["DOE_JOHN", "0123456789", "DEADBEEF" * 4, "0" * 33, ""])
def test_any_other_id_is_not(client, given):
    assert client.post("/v1/things/a", headers={"X-Request-ID": given}).headers["X-Request-ID"] != given


def test_a_request_is_one_line_without_what_was_sent(client, lines):
    answer = client.post("/v1/things/DOE?name=DOE", content=b"x" * 10, headers={"X-Name": "DOE"})
    (line,) = lines()
    seconds, _ = line.pop("seconds"), line.pop("time")
    assert 0 <= seconds < 60
    assert line == {
        "level": "info", "event": "request", "request_id": answer.headers["X-Request-ID"], "method": "POST",
        "route": "/v1/things/{name}", "status": 200, "received": 10, "sent": len(answer.content),
    }  # fmt: skip


def test_neither_an_unknown_path_nor_an_unknown_method_is_written(client, lines):
    client.request("DOE", "/DOE/JOHN")
    (line,) = lines()
    assert (line["method"], line["route"], line["status"]) == ("other", None, 404)
    assert "DOE" not in str(line)


def test_a_failure_is_answered_and_written_without_its_words(client, lines):
    answer = client.get("/broken")
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal")
    failed, request = lines()
    assert failed["error"]["types"] == ["RuntimeError"]
    assert failed["error"]["frames"][-1].startswith("serving/test_wrapping.py:")
    assert failed["request_id"] == request["request_id"] == answer.json()["request_id"]
    assert "PLANTED" not in str(lines()) + answer.text


def test_a_failure_in_the_middle_of_an_answer_ends_it(client, lines):
    with pytest.raises(RuntimeError, match="PLANTED"):
        client.get("/half")
    assert [line["event"] for line in lines()] == ["failed", "request"]
    assert "PLANTED" not in str(lines())


def test_a_client_that_goes_away_is_no_failure(client, lines):
    with pytest.raises(Exception, match="response"):
        client.get("/gone")
    assert [(line["event"], line["status"]) for line in lines()] == [("request", 499)]


def in_pieces(size):
    """A body whose length is not declared."""
    for _ in range(size // 100):
        yield b"x" * 100


@pytest.mark.parametrize("body", [b"x" * LIMIT, in_pieces(LIMIT)], ids=["declared", "in pieces"])
def test_the_largest_body_is_taken(client, body):
    assert client.post("/v1/things/a", content=body).json()["size"] == LIMIT


@pytest.mark.parametrize("path", ["/v1/things/a", "/form"])
@pytest.mark.parametrize("declared", [True, False])
def test_a_body_that_is_too_large(client, path, declared):
    body = b"x" * (LIMIT + 100) if declared else in_pieces(LIMIT + 100)
    answer = client.post(path, content=body, headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
    assert answer.headers["Connection"] == "close"
    assert "expected a request of at most 1000 bytes, got more" in answer.json()["error"]["message"]
    assert answer.headers["X-Frame-Options"] == "DENY"


@pytest.mark.parametrize("path", ["/v1/things/a", "/form"])
def test_no_more_is_read_than_the_limit(client, path):
    form = {"Content_Type": "application/x-www-form-urlencoded"}
    assert post(client.app, path, **form) == (413, LIMIT // 100 + 1)
    assert post(client.app, path, **form, Content_Length=str(LIMIT + 1)) == (413, 0)


def test_other_sites_read_nothing_unless_they_are_listed(client):
    listed = TestClient(make_app(["https://pacs.example.org"]))
    for app, origin, allowed in [
        (client, "https://pacs.example.org", None),
        (listed, "https://evil.example", None),
        (listed, "https://pacs.example.org", "https://pacs.example.org"),
    ]:
        asked = {
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "x-api-key",
        }
        for answer in (
            app.options("/v1/things/a", headers=asked),
            app.post("/v1/things/a", headers={"Origin": origin}),
        ):
            assert answer.headers.get("Access-Control-Allow-Origin") == allowed
            assert "Access-Control-Allow-Credentials" not in answer.headers


@pytest.mark.parametrize("origin", ["*", "https://*.example.org", "null", "https://a.org/", "a.org", "https://A.org"])
def test_an_origin_that_is_no_single_site(origin):
    with pytest.raises(ConfigError, match="allowed origins as https://host or https://host:port"):
        wrap(FastAPI(), LIMIT, [origin])
