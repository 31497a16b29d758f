import pytest
from starlette.responses import Response

from cxr.errors import ConfigError
from cxr.serving.sessions import Sessions, make_secret

SECRET = make_secret()


class Clock:
    def __init__(self):
        self.now = 1_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def sessions(clock):
    return Sessions(SECRET, idle_seconds=600, whole_seconds=3600, clock=clock)


def cookie_of(response):
    """Name, value and attributes of the one cookie that a response sets."""
    (header,) = response.headers.getlist("set-cookie")
    first, *attributes = header.split("; ")
    name, _, value = first.partition("=")
    return name, value, {attribute.lower() for attribute in attributes}


def write(sessions, session, https=False):
    response = Response()
    sessions.write(response, session, https)
    return cookie_of(response)


@pytest.mark.parametrize(("https", "name"), [(False, "cxr_session"), (True, "__Host-cxr_session")])
def test_a_cookie_names_the_key_to_another_worker(sessions, clock, https, name):
    session = sessions.start("key1")
    found, value, attributes = write(sessions, session, https)
    assert found == name
    assert attributes == {"httponly", "samesite=strict", "path=/", "max-age=600"} | ({"secure"} if https else set())
    worker = Sessions(SECRET, idle_seconds=600, whole_seconds=3600, clock=clock)
    assert worker.read({name: value}, https) == session
    assert worker.read({name: value}, not https) is None
    assert worker.csrf_token(session) == sessions.csrf_token(session)


def test_a_session_ends_when_it_rests(sessions, clock):
    name, value, _ = write(sessions, sessions.start("key1"))
    clock.now += 599
    assert sessions.read({name: value}, https=False) is not None
    clock.now += 1
    assert sessions.read({name: value}, https=False) is None


def test_a_session_goes_on_while_it_is_used_but_not_for_ever(sessions, clock):
    session = sessions.start("key1")
    name, value, _ = write(sessions, session)
    lived = 0
    while (session := sessions.read({name: value}, https=False)) is not None:
        response = Response()
        sessions.renew(response, session, https=False)
        if "set-cookie" in response.headers:
            name, value, _ = cookie_of(response)
        clock.now += 100
        lived += 100
    assert lived == 3600


def test_a_fresh_cookie_is_not_set_again(sessions, clock):
    response = Response()
    clock.now += 59
    sessions.renew(response, sessions.start("key1"), https=False)
    assert "set-cookie" not in response.headers


def test_signing_out_deletes_the_cookie(sessions):
    response = Response()
    sessions.clear(response, https=True)
    name, value, attributes = cookie_of(response)
    assert (name, value) == ("__Host-cxr_session", '""')
    assert {"max-age=0", "secure", "path=/"} <= attributes


def test_a_changed_or_foreign_cookie_is_none(sessions, clock):
    name, value, _ = write(sessions, sessions.start("key1"))
    other_key = write(sessions, sessions.start("key2"))[1]
    forged = f"{other_key.rpartition('.')[0]}.{value.rpartition('.')[2]}"
    foreign = Sessions(make_secret(), clock=clock)
    unrelated = sessions.serializer.dumps(["not a session"])
    for other in (forged, write(foreign, foreign.start("key1"))[1], unrelated, "", "a.b"):
        assert sessions.read({name: other}, https=False) is None
    assert sessions.read({}, https=False) is None


def test_a_token_is_that_of_its_session_alone(sessions):
    one, other = sessions.start("key1"), sessions.start("key1")
    assert sessions.is_csrf_token(sessions.csrf_token(one), one)
    for token in (sessions.csrf_token(other), "", one.nonce, "ü\udcff"):
        assert not sessions.is_csrf_token(token, one)


def test_a_short_secret():
    with pytest.raises(ConfigError, match="secret of at least 32 characters, got 6"):
        Sessions("secret")
