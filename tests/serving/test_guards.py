from types import SimpleNamespace

import pytest
from fastapi import APIRouter, Depends, FastAPI, Form, Request
from fastapi.responses import JSONResponse
from fastapi.testclient import TestClient

from cxr.serving.guards import ANYBODY, Gate, GuardedRoute, client_of, require_key
from cxr.serving.keys import open_keys, rotate_keys
from cxr.serving.rate import RateLimiter
from cxr.serving.sessions import Sessions, make_secret
from cxr.serving.wrapping import wrap

from .asgi import post

WRONG = "cxr_" + "wrong-key-0" * 4


class Clock:
    def __init__(self):
        self.now = 1_000_000.0

    def __call__(self):
        return self.now


def make_app(gate):
    app, router = FastAPI(), APIRouter(route_class=GuardedRoute)
    app.state.gate = gate

    @router.api_route("/v1/things", methods=["GET", "POST", "HEAD"])
    async def things(request: Request):
        return {"body": len(await request.body()), "key": request.state.visitor.key_id}

    @router.post("/v1/form")
    async def form(word: str = Form()):
        return {"word": word}

    @app.get("/metrics", dependencies=[Depends(require_key)])
    async def metrics():
        return "numbers"

    @app.post("/sign-in")
    async def sign_in(request: Request, key: str = Form()):
        session = gate.sign_in(request, key)
        response = JSONResponse({"token": gate.sessions.csrf_token(session)})
        gate.sessions.write(response, session, request.url.scheme == "https")
        return response

    app.include_router(router)
    wrap(app, max_body_bytes=1000)
    return app


@pytest.fixture
def world(tmp_path):
    """A server: its clock, key file, key, gate, and a client by http and one by https."""
    clock, path = Clock(), tmp_path / "keys.json"
    rings, key = open_keys(path, {})
    gate = Gate(
        rings,
        Sessions(make_secret(), clock=clock),
        RateLimiter(1, 10, clock=clock),
        RateLimiter(0.1, 3, clock=clock),
    )
    app = make_app(gate)
    http, https = (TestClient(app, f"{scheme}://testserver") for scheme in ("http", "https"))
    return SimpleNamespace(clock=clock, path=path, key=key, gate=gate, app=app, http=http, https=https)


def sign_in(client, key, **headers):
    return client.post("/sign-in", data={"key": key}, headers=headers)


@pytest.mark.parametrize("path", ["/v1/things", "/metrics"])
def test_a_key_opens_in_either_header(world, path):
    for headers in ({"X-API-Key": world.key}, {"Authorization": f"bearer {world.key}"}):
        assert world.http.get(path, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-API-Key": WRONG},
        {"X-API-Key": ""},
        {"Authorization": f"Bearer {WRONG}"},
        {"Authorization": "Basic dTpw"},
        {"Authorization": "Bearer"},
        {"Cookie": "cxr_session=forged.value"},
    ],
)
def test_without_a_valid_key(world, headers):
    answer = world.http.post("/v1/things", headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized")
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="cxr"'
    assert answer.json()["request_id"] == answer.headers["X-Request-ID"]
    assert "expected a valid key in the header X-API-Key" in answer.json()["error"]["message"]


def test_a_key_in_the_url_is_none(world):
    assert world.http.get(f"/v1/things?key={world.key}&api_key={world.key}").status_code == 401


def test_a_wrong_header_key_is_not_healed_by_a_session(world):
    sign_in(world.http, world.key)
    assert world.http.get("/v1/things", headers={"X-API-Key": WRONG}).status_code == 401


def test_nothing_is_read_of_a_stranger(world):
    assert post(world.app, "/v1/form", Content_Type="application/x-www-form-urlencoded") == (401, 0)


def test_a_session_reads_by_cookie_and_changes_with_its_token(world):
    for client, name in ((world.http, "cxr_session"), (world.https, "__Host-cxr_session")):
        answer = sign_in(client, f" {world.key}\n")
        assert world.key not in str(answer.headers)
        assert name in client.cookies
        token = answer.json()["token"]
        assert client.get("/v1/things").status_code == 200
        assert client.post("/v1/things", headers={"X-CSRF-Token": token}).status_code == 200
        for headers in ({}, {"X-CSRF-Token": "0" * 64}):
            refused = client.post("/v1/things", headers=headers)
            assert (refused.status_code, refused.json()["error"]["code"]) == (403, "csrf")
            assert "expected the header X-CSRF-Token of this session" in refused.json()["error"]["message"]


def test_a_session_token_of_another_session_changes_nothing(world):
    other = sign_in(world.http, world.key).json()["token"]
    sign_in(world.http, world.key)
    assert world.http.post("/v1/things", headers={"X-CSRF-Token": other}).status_code == 403


def test_a_session_slides_while_it_is_used(world):
    sign_in(world.http, world.key)
    for _ in range(4):
        world.clock.now += 1000
        assert world.http.get("/v1/things").status_code == 200
    world.clock.now += 1801
    assert world.http.get("/v1/things").status_code == 401


def test_a_key_that_is_rotated_out_ends_its_sessions(world):
    sign_in(world.http, world.key)
    rotate_keys(world.path)
    assert world.http.get("/v1/things").status_code == 200
    rotate_keys(world.path)
    assert world.http.get("/v1/things").status_code == 401


def test_signing_in_with_a_wrong_key(world):
    answer = sign_in(world.http, WRONG)
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://testserver"}, 200),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "https://behind.a.proxy"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Origin": "http://testserver"}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://[evil"}, 403),
    ],
)
def test_a_sign_in_form_of_another_site(world, headers, status):
    answer = sign_in(world.http, world.key, **headers)
    assert answer.status_code == status
    assert status == 200 or "form of this server's own page" in answer.json()["error"]["message"]


def test_a_key_that_asks_too_often_waits_as_long_as_told(world):
    headers = {"X-API-Key": world.key}
    answers = [world.http.get("/v1/things", headers=headers) for _ in range(11)]
    assert [answer.status_code for answer in answers] == [200] * 10 + [429]
    assert answers[-1].json()["error"]["code"] == "too_many"
    assert "expected fewer requests, got too many" in answers[-1].json()["error"]["message"]
    world.clock.now += int(answers[-1].headers["Retry-After"])
    assert world.http.get("/v1/things", headers=headers).status_code == 200


def test_wrong_keys_are_counted_by_address_and_a_right_one_still_opens(world):
    tries = [world.http.get("/v1/things", headers={"X-API-Key": WRONG}) for _ in range(2)]
    tries += [sign_in(world.http, WRONG) for _ in range(2)]
    assert [answer.status_code for answer in tries] == [401, 401, 401, 429]
    assert tries[-1].headers["Retry-After"] == "10"
    assert world.http.get("/v1/things", headers={"X-API-Key": world.key}).status_code == 200


def test_a_damaged_key_file_opens_to_nobody(world):
    world.path.write_text("{")
    answer = world.http.get("/v1/things", headers={"X-API-Key": world.key})
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "60")
    assert "expected a readable key file" in answer.json()["error"]["message"]


def test_a_server_without_keys_limits_addresses(world):
    gate = Gate(None, world.gate.sessions, RateLimiter(1, 2, clock=world.clock), world.gate.failures)
    client = TestClient(make_app(gate))
    answers = [client.post("/v1/things") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[0].json()["key"] == ANYBODY


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "::ffff:192.0.2.7"),
        ("testclient", "testclient"),
    ],
)
def test_the_address_of_a_client(host, name):
    assert client_of(SimpleNamespace(client=SimpleNamespace(host=host))) == name


def test_a_client_without_an_address():
    assert client_of(SimpleNamespace(client=None)) == ""
