"""The routes that take images. Knows nothing of how these are decoded or predicted."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from cxr.errors import ImageError
from cxr.serving.bodies import Given
from cxr.serving.guards import GuardedRoute
from cxr.serving.refusal import Refusal
from cxr.serving.schemas import Explanation, Prediction, Shown, describe_keys, image_body, refusals
from cxr.serving.service import ERROR, Service
from cxr.serving.settings import Settings

REFUSED = refusals(400, 401, 403, 408, 413, 415, 422, 429, 500, 503)


def make_predict_routes(settings: Settings, class_names: list[str]) -> APIRouter:
    """The routes, described for this model.

    Args:
        settings: Of the server.
        class_names: Of the model.
    """
    routes = APIRouter(tags=["images"], route_class=GuardedRoute, dependencies=describe_keys(settings))
    several, single = (image_body(most, bool(settings.image_hosts)) for most in (settings.limits.max_files, 1))
    unreadable = {**REFUSED, 422: {"model": Prediction, "description": "The only image gives none."}}
    labels = {"name": "label", "in": "query", "schema": {"type": "string", "enum": class_names},
              "description": "The class to explain; the most probable one where it is left out."}  # fmt: skip

    @routes.post("/v1/predict", response_model=Prediction, responses=unreadable, openapi_extra=several)
    async def predict(request: Request) -> JSONResponse:
        """Predict one image or several; one that cannot be read among several has its error in its place."""
        service: Service = request.app.state.service
        async with service.receive(request) as given:
            results = await service.predict(given)
        failed = len(results) == 1 and results[0]["status"] == ERROR
        return answer(request, {"model": service.facts.to_name(), "results": results}, 422 if failed else 200)

    @routes.post("/v1/explain", response_model=Explanation, responses={**REFUSED, **refusals(409)},
                 openapi_extra={**single, "parameters": [labels]})  # fmt: skip
    async def explain(request: Request) -> JSONResponse:
        """What in one image speaks for a class: a map to be laid over it."""
        service: Service = request.app.state.service
        label = chosen_label(request, class_names)
        async with service.receive(request) as given:
            try:
                explained = await service.explain(only(given), label)
            except ImageError as error:
                raise no_image(str(error)) from error
        return answer(request, {"model": service.facts.to_name(), **explained})

    @routes.post("/v1/image", response_model=Shown, responses=REFUSED, openapi_extra=single)
    async def image(request: Request) -> JSONResponse:
        """One image as a browser can show it, which DICOM files it cannot."""
        service: Service = request.app.state.service
        async with service.receive(request) as given:
            try:
                shown, shape = await service.show(only(given))
            except ImageError as error:
                raise no_image(str(error)) from error
        return answer(request, {"image": shown, "shape": list(shape)})

    return routes


def answer(request: Request, content: dict[str, Any], status: int = 200) -> JSONResponse:
    """JSON with the request's id."""
    return JSONResponse({**content, "request_id": request.scope["state"]["request_id"]}, status)


def chosen_label(request: Request, class_names: list[str]) -> str | None:
    """The class that the query asks for.

    Raises:
        Refusal: There is no such class.
    """
    label = request.query_params.get("label")
    if label is not None and label not in class_names:
        message = f"expected a label among {', '.join(class_names)}, got another; choose one of these"
        raise Refusal(400, "bad_request", message)
    return label


def only(given: list[Given]) -> Given:
    """The single image of a request.

    Raises:
        Refusal: There are several.
    """
    if len(given) != 1:
        raise Refusal(400, "bad_request", f"expected one image, got {len(given)}; send a request for each")
    return given[0]


def no_image(sentence: str) -> Refusal:
    """What is told of a single image that is none."""
    return Refusal(422, "not_an_image", sentence)
