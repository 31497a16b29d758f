"""The JSON of requests and answers, for the OpenAPI description. Answers are not checked against it while serving."""

from typing import Any, Literal

from fastapi import Security
from fastapi.params import Depends
from fastapi.security import APIKeyHeader, HTTPBearer
from pydantic import BaseModel, ConfigDict, Field

from cxr.serving.settings import Settings

_KEYS = [
    Security(APIKeyHeader(name="X-API-Key", scheme_name="key", auto_error=False)),
    Security(HTTPBearer(scheme_name="bearer", auto_error=False)),
]

PROBS = {"normal": 0.08, "pneumonia": 0.92}
REQUEST_ID = "7c6f1d2be0a94f6c"
DECISIONS = "Whether the probability reaches the operating point, where there is one."
ABSTAINED = "Whether the model is not sure enough to answer; null where that was not chosen."


class _Schema(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class ModelName(_Schema):
    """Which model answered."""

    name: str = Field(examples=["densenet121"])
    version: str = Field(pattern="^[0-9a-f]{12}$", examples=["3f7a90c1d2e4"], description="Changes with the bundle.")
    class_names: list[str] = Field(min_length=1, examples=[["normal", "pneumonia"]])


class Warned(_Schema):
    """Why to read an answer with care."""

    code: Literal[
        "not_a_radiograph", "not_a_chest", "one_of_several", "unlike_training", "inverted", "not_frontal",
        "not_calibrated",
    ]  # fmt: skip
    text: str = Field(examples=["The image looks inverted: bones should be bright."])


class Answered(_Schema):
    """The answer for one image."""

    index: int = Field(ge=0, description="Place of the image in the request.")
    status: Literal["ok"]
    label: str = Field(
        examples=["pneumonia"], description="The most probable class; of independent targets all of at least 0.5."
    )
    probs: dict[str, float] = Field(examples=[PROBS])
    decisions: dict[str, bool] = Field(examples=[{"pneumonia": True}], description=DECISIONS)
    abstained: bool | None = Field(description=ABSTAINED)
    warnings: list[Warned]
    shape: list[int] = Field(
        min_length=2, max_length=2, examples=[[2336, 2836]], description="Height and width in pixels."
    )
    seconds: float = Field(ge=0, examples=[0.12])


class Unreadable(_Schema):
    """Why one image has no answer."""

    index: int = Field(ge=0)
    status: Literal["error"]
    error: str = Field(
        examples=["expected a DICOM, PNG, JPEG, TIFF or BMP image, but got UnidentifiedImageError; leave it out"]
    )


class Prediction(_Schema):
    """Answers in the order of the images. With a single image that gives none, the status is 422."""

    model: ModelName
    results: list[Answered | Unreadable]
    request_id: str = Field(examples=[REQUEST_ID])


class Explanation(_Schema):
    """An image and what speaks for a class in it."""

    model: ModelName
    overlay: str = Field(description="Transparent PNG of the image's proportions, as a data URL.")
    image: str = Field(description="PNG of 8 bit grey, the longer side 1024 pixels, as a data URL.")
    label: str = Field(examples=["pneumonia"])
    request_id: str = Field(examples=[REQUEST_ID])


class Shown(_Schema):
    """An image as a browser can show it."""

    image: str = Field(description="PNG of 8 bit grey, the longer side 1024 pixels, as a data URL.")
    shape: list[int] = Field(min_length=2, max_length=2, description="Height and width of the file in pixels.")
    request_id: str = Field(examples=[REQUEST_ID])


class ModelFacts(_Schema):
    """What the model is."""

    name: str
    version: str
    class_names: list[str]
    multilabel: bool
    calibrated: bool = Field(description="Whether a probability can be read as a frequency.")
    operating_point: dict[str, Any] | None
    abstention: dict[str, Any] | None
    preprocess: list[dict[str, Any]]
    metrics: dict[str, Any] | None
    data_fingerprint: str | None
    research_use_only: Literal[True]
    card: str | None = Field(description="The model card, as Markdown.")
    request_id: str


class SystemB(_Schema):
    """The answer of the compatibility route."""

    status: Literal["ok"]
    label: str = Field(examples=["pneumonia"], description="The most probable class or target.")
    probability: float = Field(ge=0, le=1, examples=[0.92], description="Of the label.")
    probabilities: dict[str, float] = Field(examples=[PROBS])
    decisions: dict[str, bool] = Field(examples=[{"pneumonia": True}], description=DECISIONS)
    abstained: bool | None = Field(description=ABSTAINED)
    warnings: list[Warned]
    model_version: str
    request_id: str


class ErrorText(_Schema):
    """What went wrong."""

    code: str = Field(examples=["bad_request"], description="One word for programs.")
    message: str = Field(description="One sentence: what was expected, what came, and the remedy.")


class Failure(_Schema):
    """A request that is not answered."""

    error: ErrorText
    request_id: str = Field(examples=[REQUEST_ID])


class Health(_Schema):
    """Whether the process works."""

    status: Literal["ok"]


_IMAGE = {
    "oneOf": [
        {
            "type": "object", "required": ["base64"], "additionalProperties": False,
            "properties": {
                "name": {"description": "Not looked at."},
                "base64": {"type": "string", "description": "A DICOM, PNG, JPEG, TIFF or BMP file, by RFC 4648."},
            },
        },
        {
            "type": "object", "required": ["pixels", "max"], "additionalProperties": False,
            "properties": {
                "name": {"description": "Not looked at."},
                "pixels": {
                    "type": "array", "minItems": 1,
                    "items": {"type": "array", "minItems": 1, "items": {"type": "number", "minimum": 0}},
                    "description": "Rows of equal length, from 0 (black) to `max` (white).",
                },
                "max": {"type": "number", "exclusiveMinimum": 0},
            },
        },
    ]
}  # fmt: skip
_URL = {
    "type": "object", "required": ["image_url"], "additionalProperties": False,
    "properties": {"image_url": {"type": "string", "description": "On a host that this server may fetch from."}},
}  # fmt: skip


def describe_keys(settings: Settings) -> list[Depends]:
    """Dependencies of routes that describe what `cxr.serving.guards` checks, and check nothing."""
    return [] if settings.key_file is None else _KEYS


def image_body(most: int, with_url: bool) -> dict[str, Any]:
    """The OpenAPI description of a request that brings up to `most` images, or maybe the address of one."""
    images = {
        "type": "object", "required": ["images"], "additionalProperties": False,
        "properties": {"images": {"type": "array", "minItems": 1, "maxItems": most, "items": _IMAGE}},
    }  # fmt: skip
    files = {"type": "array", "minItems": 1, "maxItems": most, "items": {"type": "string", "format": "binary"}}
    form = {"type": "object", "required": ["files"], "additionalProperties": False, "properties": {"files": files}}
    example = {"images": [{"pixels": [[0, 40, 80], [120, 160, 200], [210, 230, 255]], "max": 255}]}
    return {
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {"schema": form},
                "application/json": {"schema": {"oneOf": [images, _URL]} if with_url else images, "example": example},
            },
        }
    }


URL_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object", "required": ["imageUrl"], "additionalProperties": False,
                    "properties": {"imageUrl": {"type": "string"}},
                },
                "example": {"imageUrl": "https://images.example.org/chest.png"},
            }
        },
    }
}  # fmt: skip

RETRY_AFTER = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds until it may be tried again."}}
REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": Failure, "description": "Not a request of this route."},
    401: {"model": Failure, "description": "No valid key."},
    403: {"model": Failure, "description": "Not allowed here."},
    408: {"model": Failure, "description": "The request came too slowly."},
    409: {"model": Failure, "description": "The files of the bundle were changed since the server started."},
    413: {"model": Failure, "description": "More than one request may bring."},
    415: {"model": Failure, "description": "Neither a form nor JSON."},
    422: {"model": Failure, "description": "No image in what was sent."},
    429: {"model": Failure, "description": "Too much at this moment.", "headers": RETRY_AFTER},
    500: {"model": Failure, "description": "The server failed."},
    503: {"model": Failure, "description": "Not answered now.", "headers": RETRY_AFTER},
}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI descriptions of refusals with these statuses."""
    return {status: REFUSALS[status] for status in statuses}
