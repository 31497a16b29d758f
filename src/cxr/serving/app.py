"""The application of one worker process: its routes, what stands around them, and the model that is loaded once."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cxr import __version__
from cxr.errors import CxrError
from cxr.serving.compat import compat_routes
from cxr.serving.facts import read_facts
from cxr.serving.failures import tell_failures
from cxr.serving.guards import Gate
from cxr.serving.keys import open_keys
from cxr.serving.measures import Measures
from cxr.serving.model_routes import make_model_routes
from cxr.serving.page_routes import add_page, make_sign_in_page
from cxr.serving.predict_routes import make_predict_routes
from cxr.serving.rate import RateLimiter
from cxr.serving.schemas import describe_keys
from cxr.serving.service import Service
from cxr.serving.sessions import Sessions
from cxr.serving.settings import Settings
from cxr.serving.signing import add_signing, csrf_token_of
from cxr.serving.wrapping import route_of, wrap

WRONG_KEYS_PER_SECOND, WRONG_KEYS = 0.2, 10
NO_ROUTE = "none"


def make_app(settings: Settings) -> FastAPI:
    """The application; the model is loaded when it starts.

    Raises:
        WeightsError: There is no bundle, or it is damaged.
        ConfigError: A setting cannot be used.
    """
    settings = replace(settings, bundle=settings.bundle.resolve())  # a link may lead elsewhere by and by
    facts, measures = read_facts(settings.bundle), Measures()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        try:
            app.state.service = await asyncio.to_thread(Service, settings, facts, measures)
        except CxrError as error:
            sys.stderr.write(f"error: {error}\n")
            raise
        yield
        await asyncio.to_thread(app.state.service.close)

    app = FastAPI(
        title="CXR Lab", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None,
        redirect_slashes=False,  # to the host that the client names
        description="Chest X-rays to calibrated probabilities. For research use only, not a medical device.",
    )  # fmt: skip
    app.state.gate = _make_gate(settings)
    app.include_router(make_predict_routes(settings, facts.class_names))
    app.include_router(make_model_routes(settings))
    app.include_router(compat_routes, dependencies=describe_keys(settings))
    add_page(app, csrf_token_of)
    add_signing(app, make_sign_in_page)
    tell_failures(app)
    wrap(app, settings.limits.max_body_bytes, settings.allowed_origins)
    app.add_middleware(CountRequests, measures=measures)
    return app


def _make_gate(settings: Settings) -> Gate:
    rings = None if settings.key_file is None else open_keys(settings.key_file)[0]
    return Gate(
        rings=rings,
        sessions=Sessions(settings.session_secret),
        requests=RateLimiter(settings.requests_per_second, 2 * settings.requests_per_second),
        failures=RateLimiter(WRONG_KEYS_PER_SECOND, WRONG_KEYS),
    )


class CountRequests:
    """Counts requests by route and status; plain ASGI, so that nothing is buffered."""

    def __init__(self, app: ASGIApp, measures: Measures) -> None:
        self.app, self.measures = app, measures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        start = time.perf_counter()

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = route_of(scope)
                status = message["status"]
                self.measures.count_request(NO_ROUTE if route is None else route, status, time.perf_counter() - start)
            await send(message)

        await self.app(scope, receive, counted)
        return None
