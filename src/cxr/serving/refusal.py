"""What is said to a client whose request is not carried out. Knows nothing of why."""

import math
from collections.abc import Mapping

from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.types import Scope

from cxr.errors import CxrError


class Refusal(CxrError):  # noqa: N818 - not every refusal is an error
    """A request that is not carried out, through no fault of the server.

    Attributes:
        status: Of HTTP, 4xx or 503.
        code: One word for programs.
        headers: What the answer carries beside the usual.
    """

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code = status, code
        self.headers = {} if headers is None else dict(headers)


def try_later(status: int, code: str, message: str, seconds: float) -> Refusal:
    """A refusal that ends: after `seconds`, told in whole ones, at least one (RFC 9110, 10.2.3)."""
    return Refusal(status, code, message, {"Retry-After": str(max(1, math.ceil(seconds)))})


def to_response(refusal: Refusal, scope: Scope) -> JSONResponse:
    """The answer to a refused request: error code and sentence, and the request's id."""
    body = {
        "error": {"code": refusal.code, "message": str(refusal)},
        "request_id": scope.get("state", {}).get("request_id"),
    }
    return JSONResponse(body, refusal.status, refusal.headers)


async def answer_refusal(request: Request, error: Exception) -> JSONResponse:
    """The exception handler of `Refusal`."""
    assert isinstance(error, Refusal)
    return to_response(error, request.scope)
