import pytest
from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse
from fastapi.testclient import TestClient
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from cxr.serving.guards import Gate
from cxr.serving.keys import open_keys
from cxr.serving.rate import RateLimiter
from cxr.serving.sessions import Sessions, make_secret
from cxr.serving.signing import add_signing, csrf_token_of
from cxr.serving.wrapping import wrap

COOKIE = "cxr_session"


def make_client(rings):
    app = FastAPI()
    app.state.gate = Gate(rings, Sessions(make_secret()), RateLimiter(1, 10), RateLimiter(0.1, 2, clock=lambda: 0.0))
    add_signing(app, PlainTextResponse)

    @app.get("/")
    async def page(request: Request):
        return {"token": csrf_token_of(request)}

    wrap(app, 100_000)
    return TestClient(app)


@pytest.fixture
def keys(tmp_path):
    """What gives the valid keys, and one of them."""
    return open_keys(tmp_path / "keys.json", {})


@pytest.fixture
def client(keys):
    return make_client(keys[0])


def test_in_and_out_again(client, keys):
    assert client.get("/").json() == {"token": None}
    answer = client.post("/sign-in", data={"key": keys[1]}, follow_redirects=False)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")
    token = client.get("/").json()["token"]
    assert len(token) == 64
    assert client.post("/sign-out").status_code == 403
    assert COOKIE in client.cookies
    assert client.post("/sign-out", headers={"X-CSRF-Token": token}).status_code == 204
    assert COOKIE not in client.cookies
    assert client.get("/").json() == {"token": None}
    assert client.post("/sign-out").status_code == 204


def test_a_wrong_key_is_told_by_the_form_until_there_were_too_many(client):
    answers = [client.post("/sign-in", data=data) for data in ({"key": "wrong"}, {}, {"key": "wrong"})]
    assert [answer.status_code for answer in answers] == [401, 401, 429]
    assert "This key is not valid" in answers[0].text
    assert answers[2].text == "Too many attempts. Wait 10 seconds, then try again."
    assert answers[2].headers["Retry-After"] == "10"
    assert COOKIE not in client.cookies


def test_the_form_of_another_site(client, keys):
    answer = client.post("/sign-in", data={"key": keys[1]}, headers={"Origin": "https://evil.example"})
    assert (answer.status_code, answer.text) == (403, "The form came from another site. Sign in here.")


def test_of_a_stranger_only_a_small_form_is_read(client):
    answer = client.post("/sign-in", content=b"key=" + b"x" * 5000)
    assert answer.status_code == 413
    assert "expected a form of at most 4096 bytes" in answer.text


@pytest.mark.parametrize(("trusted", "name"), [("testclient", "__Host-cxr_session"), ("10.0.0.1", "cxr_session")])
def test_only_a_trusted_proxy_says_that_it_came_by_https(client, keys, trusted, name):
    proxied = TestClient(ProxyHeadersMiddleware(client.app, trusted_hosts=trusted))
    sent = {"data": {"key": keys[1]}, "headers": {"X-Forwarded-Proto": "https"}, "follow_redirects": False}
    cookie = proxied.post("/sign-in", **sent).headers["Set-Cookie"]
    assert cookie.startswith(f"{name}=")
    assert ("Secure" in cookie) == (trusted == "testclient")


def test_where_no_keys_are_taken_nobody_signs_in():
    assert make_client(None).get("/").json() == {"token": ""}
