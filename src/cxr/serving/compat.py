"""The route of an older public system, a Flask server for three classes, for clients that were written for it.

It takes the address of an image, so it answers only where hosts are listed from which images may be fetched.
"""

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from cxr.serving.bodies import read_address
from cxr.serving.guards import GuardedRoute
from cxr.serving.predict_routes import REFUSED, answer, no_image
from cxr.serving.schemas import URL_BODY, SystemB
from cxr.serving.service import ERROR, Service

compat_routes = APIRouter(tags=["compatibility"], route_class=GuardedRoute)


@compat_routes.post("/todo/api/v1.0/covid19", response_model=SystemB, responses=REFUSED, openapi_extra=URL_BODY)
async def covid19(request: Request) -> JSONResponse:
    """Predict one image by its address."""
    service: Service = request.app.state.service
    async with service.receive(request, read_address) as given:
        (result,) = await service.predict(given)
    if result["status"] == ERROR:
        raise no_image(result["error"])
    return answer(request, {**to_told(result), "model_version": service.facts.version})


def to_told(result: Mapping[str, Any]) -> dict[str, Any]:
    """A result of ``/v1/predict`` as this route tells it: that system names one class, the most probable one."""
    probs = result["probs"]
    label = max(probs, key=probs.__getitem__)
    kept = {name: result[name] for name in ("status", "decisions", "abstained", "warnings")}
    return {"label": label, "probability": probs[label], "probabilities": probs, **kept}
