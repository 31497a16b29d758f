"""Signing in and out with a browser: the key of a form becomes a session's cookie.

Knows nothing of how the form looks.
"""

from collections.abc import Callable
from urllib.parse import parse_qsl

from fastapi import FastAPI, Request, Response
from fastapi.responses import RedirectResponse

from cxr.serving.guards import Gate, is_https
from cxr.serving.refusal import Refusal

MOST_BYTES = 4096
"""Of the form, which anybody may send: it holds one key."""

PROBLEMS = {
    "unauthorized": "This key is not valid. Check it for missing letters, or ask whoever runs the server.",
    "too_many": "Too many attempts. Wait {Retry-After} seconds, then try again.",
    "csrf": "The form came from another site. Sign in here.",
}

MakeForm = Callable[[str, int], Response]
"""A problem in one sentence and the status of the answer -> the form that tells it."""


def add_signing(app: FastAPI, make_form: MakeForm) -> None:
    """Add what the forms are posted to: ``/sign-in`` (field ``key``) and ``/sign-out`` (with the CSRF token).

    Args:
        app: What to add them to; its `Gate` is in ``app.state.gate``.
        make_form: Answers where nobody is signed in.
    """

    async def sign_in(request: Request) -> Response:
        gate = _gate_of(request)
        try:
            session = gate.sign_in(request, await _read_key(request))
        except Refusal as refusal:
            return _tell_problem(refusal, make_form)
        response = RedirectResponse("/", 303)
        gate.sessions.write(response, session, is_https(request))
        return response

    async def sign_out(request: Request) -> Response:
        gate = _gate_of(request)
        session = gate.session_of(request)
        if session is not None:
            gate.check_csrf(request, session)
        response = Response(status_code=204)
        gate.sessions.clear(response, is_https(request))
        return response

    app.add_api_route("/sign-in", sign_in, methods=["POST"], include_in_schema=False)
    app.add_api_route("/sign-out", sign_out, methods=["POST"], include_in_schema=False)


def csrf_token_of(request: Request) -> str | None:
    """What the page sends back: the session's token; None where nobody is signed in, empty where nobody needs to be.

    Raises:
        Refusal: 503 where the keys cannot be read.
    """
    gate = _gate_of(request)
    if gate.rings is None:
        return ""
    session = gate.session_of(request)
    return None if session is None else gate.sessions.csrf_token(session)


def _gate_of(request: Request) -> Gate:
    gate: Gate = request.app.state.gate
    return gate


async def _read_key(request: Request) -> str:
    content = b""
    async for chunk in request.stream():
        content += chunk
        if len(content) > MOST_BYTES:
            raise Refusal(
                413, "too_large", f"expected a form of at most {MOST_BYTES} bytes, got more; send the key alone"
            )
    return dict(parse_qsl(content.decode("utf-8", "replace"))).get("key", "")


def _tell_problem(refusal: Refusal, make_form: MakeForm) -> Response:
    problem = PROBLEMS.get(refusal.code, str(refusal)).format_map(refusal.headers)
    response = make_form(problem, refusal.status)
    response.headers.update(refusal.headers)
    return response
