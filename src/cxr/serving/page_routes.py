"""The page: its HTML, style and scripts, and the form that a key is typed into.

Knows nothing of keys, cookies or predictions: whether somebody is signed in is asked of a function that it is given.
"""

from collections.abc import Callable
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles
from starlette.types import Scope

from cxr.pages import render

FOLDER = Path(__file__).parent / "page"
READ = ["GET", "HEAD"]

CsrfTokenOf = Callable[[Request], str | None]
"""A request -> the CSRF token of its session; None where nobody is signed in, empty where nobody needs to be."""


class Revalidated(StaticFiles):
    """Files that a browser asks for anew each time, and gets only if they changed: an update is seen at once."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """The file, or that it did not change."""
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "no-cache"
        return response


def add_page(app: FastAPI, csrf_token_of: CsrfTokenOf) -> None:
    """Serve the page at ``/``, the sign-in form at ``/sign-in`` and what they load at ``/static/``.

    What these are posted to is for others: ``/sign-in`` takes the field ``key`` and leads to ``/`` with 303 where it is
    right, else it answers `make_sign_in_page` with 401 or, with Retry-After, 429; ``/sign-out`` ends the session.

    Args:
        app: What to add them to.
        csrf_token_of: Whose page it is; the page sends the token back as ``X-CSRF-Token``.
    """

    def show_page(request: Request) -> Response:
        token = csrf_token_of(request)
        return RedirectResponse("/sign-in", 303) if token is None else make_page(token)

    def show_sign_in() -> Response:
        return make_sign_in_page()

    app.add_api_route("/", show_page, methods=READ, include_in_schema=False)
    app.add_api_route("/sign-in", show_sign_in, methods=READ, include_in_schema=False)
    app.mount("/static", Revalidated(directory=FOLDER / "static"), name="static")


def make_page(csrf_token: str) -> HTMLResponse:
    """The page itself.

    Args:
        csrf_token: Of the session; empty where there are no sessions, and then there is nothing to sign out of.
    """
    return HTMLResponse(render(FOLDER / "index.html", csrf_token=csrf_token), headers={"Cache-Control": "no-store"})


def make_sign_in_page(problem: str | None = None, status: int = 200) -> HTMLResponse:
    """The form for a key.

    Args:
        problem: Why the last key was not taken, one sentence; None before the first.
        status: Of the answer.
    """
    page = render(FOLDER / "sign_in.html", problem=problem)
    return HTMLResponse(page, status, headers={"Cache-Control": "no-store"})
