"""What a caller is told where no route takes a request. Knows nothing of images or models."""

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from cxr.serving.refusal import Refusal, to_response

CODES = {404: "not_found", 405: "method_not_allowed"}


def tell_failures(app: FastAPI) -> None:
    """Answer in the form of a refusal what the framework itself refuses."""
    app.add_exception_handler(HTTPException, _tell_http)
    app.add_exception_handler(RequestValidationError, _tell_invalid)


async def _tell_http(request: Request, error: Any) -> JSONResponse:
    message = f"expected a route and method of this server, got {error.detail}; GET /openapi.json has the list"
    refusal = Refusal(error.status_code, CODES.get(error.status_code, "bad_request"), message, error.headers)
    return to_response(refusal, request.scope)


async def _tell_invalid(request: Request, error: Any) -> JSONResponse:
    message = "expected a request as GET /openapi.json describes it, got another; compare them"
    return to_response(Refusal(400, "bad_request", message), request.scope)
