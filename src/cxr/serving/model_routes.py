"""The routes that take nothing: the model's facts, whether the server works, and its measures."""

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from cxr.serving.guards import GuardedRoute
from cxr.serving.predict_routes import answer
from cxr.serving.schemas import Health, ModelFacts, describe_keys, refusals
from cxr.serving.service import Service
from cxr.serving.settings import Settings

METRICS = {
    200: {"content": {"text/plain": {}}, "description": "Text format of Prometheus."},
    **refusals(401, 429, 500, 503),
}

guarded_routes = APIRouter(tags=["model"], route_class=GuardedRoute)
open_routes = APIRouter(tags=["server"])


def make_model_routes(settings: Settings) -> APIRouter:
    """The routes; ``/metrics`` needs a key unless it is set to be open."""
    routes = APIRouter()
    routes.include_router(guarded_routes, dependencies=describe_keys(settings))
    routes.include_router(open_routes)
    own = (
        APIRouter(tags=["server"])
        if settings.metrics_open
        else APIRouter(tags=["server"], route_class=GuardedRoute, dependencies=describe_keys(settings))
    )
    own.add_api_route("/metrics", metrics, response_class=Response, responses=METRICS)
    routes.include_router(own)
    return routes


@guarded_routes.get("/v1/model", response_model=ModelFacts, responses=refusals(401, 429, 500, 503))
async def model(request: Request) -> JSONResponse:
    """What the model is, and what was measured of it."""
    service: Service = request.app.state.service
    preprocess = [one.to_dict() for one in service.predictor.preprocesses]
    return answer(request, {**service.facts.to_dict(), "preprocess": preprocess})


@open_routes.head("/healthz", include_in_schema=False)
@open_routes.get("/healthz", response_model=Health, responses=refusals(500))
async def healthz() -> JSONResponse:
    """The process runs."""
    return JSONResponse({"status": "ok"})


@open_routes.head("/readyz", include_in_schema=False)
@open_routes.get("/readyz", response_model=Health, responses=refusals(500))
async def readyz() -> JSONResponse:
    """The model is loaded: a worker takes connections only then."""
    return JSONResponse({"status": "ok"})


async def metrics(request: Request) -> Response:
    """What was counted, for Prometheus, of all workers."""
    service: Service = request.app.state.service
    return Response(service.measures.to_text(), media_type=CONTENT_TYPE_LATEST)
