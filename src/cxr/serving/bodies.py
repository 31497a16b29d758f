"""The body of a request to images: parsed in memory, within limits, and never on a disk.

Starlette's own parser puts files of more than 1 MB into temporary files, so it is not used. Knows nothing of models,
and nothing of what is in an image; a file's name is never looked at.
"""

import asyncio
import base64
import binascii
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from cxr.errors import ImageError
from cxr.serving.refusal import Refusal, try_later
from cxr.serving.settings import Limits

Pixels = npt.NDArray[np.float32]
Given = bytes | Pixels | ImageError
"""An image file, an image (H, W) in [0, 1], or why there is none."""

FILES = "files"
FORM, JSON = b"multipart/form-data", b"application/json"
SECONDS_TO_WAIT = 1.0
NUMBERS = {int, float}
MOST_VALUES, MOST_LISTS = 4_000_000, 100_000
"""Of a JSON body: each takes many times the memory of its text. Counted before it is parsed, by its commas."""


class Memory:
    """How many bytes of bodies one worker may hold, for all requests together.

    Args:
        limit: Bytes.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.held = limit, 0

    @contextmanager
    def lend(self) -> Iterator["Loan"]:
        """Memory for one request; what it took is given back at the end."""
        loan = Loan(self)
        try:
            yield loan
        finally:
            self.held -= loan.size


class Loan:
    """What one request holds.

    Attributes:
        size: Bytes.
    """

    def __init__(self, memory: Memory) -> None:
        self._memory, self.size = memory, 0

    def take(self, count: int) -> None:
        """Hold more.

        Raises:
            Refusal: It is too much at this moment.
        """
        limit = self._memory.limit
        if self._memory.held + count > limit:
            message = f"expected uploads of together {limit} bytes at a time, got more; send it again later"
            raise try_later(429, "busy", message, SECONDS_TO_WAIT)
        self._memory.held += count
        self.size += count


async def read_images(request: Request, limits: Limits, loan: Loan) -> list[Given] | str:
    """Read what a request brings.

    Args:
        request: Its body is ``multipart/form-data`` with fields ``files``, or JSON as `read_json` takes it.
        limits: Of the body and the number of images.
        loan: Takes the memory for the body.

    Returns:
        At least one image, or the URL of one.

    Raises:
        Refusal: The body is of another type, damaged, or brings no image.
        ClientDisconnect: Nobody waits for the answer.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind not in (FORM, JSON):
        raise Refusal(
            415, "unsupported_type", "expected multipart/form-data or application/json, got another Content-Type; "
            "send images as fields 'files' of a form, or as JSON",
        )  # fmt: skip
    if kind == FORM:
        form = Form(options.get(b"boundary", b""), limits.max_files)
        await _feed(request, loan, form.write)
        found: list[Given] | str = form.finish()
    else:
        content = bytearray()
        await _feed(request, loan, content.extend)
        found = await asyncio.to_thread(read_json, bytes(content), limits)
    if not found:
        raise Refusal(400, "no_image", "expected at least one image, got none; send it in the field 'files'")
    return found


async def _feed(request: Request, loan: Loan, write: Callable[[bytes], object]) -> None:
    async for chunk in request.stream():
        loan.take(len(chunk))
        write(chunk)


async def read_address(request: Request, limits: Limits, loan: Loan) -> str:
    """The URL in a JSON body ``{"imageUrl": "https://..."}``.

    Raises:
        Refusal: It is something else.
        ClientDisconnect: Nobody waits for the answer.
    """
    content = bytearray()
    await _feed(request, loan, content.extend)
    body = parse_json(bytes(content))
    url = body.get("imageUrl")
    if set(body) != {"imageUrl"} or not isinstance(url, str):
        raise _other_json('{"imageUrl": "..."}')
    return url


class Form:
    """The files of a form, as its bytes come in.

    Args:
        boundary: Of the parts.
        most: Files.

    Raises:
        Refusal: The boundary cannot be one.
    """

    def __init__(self, boundary: bytes, most: int) -> None:
        self._files: list[bytearray] = []
        self._most = most
        self._header = (bytearray(), bytearray())
        self._name = b""
        self._ended = False
        if not boundary:
            raise _broken_form("no boundary in the Content-Type")
        callbacks: dict[str, Callable[..., None]] = {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._end_headers,
            "on_part_data": self._add,
            "on_end": self._end,
        }
        try:
            self._parser = MultipartParser(boundary, callbacks)  # type: ignore[arg-type]
        except FormParserError as error:
            raise _broken_form("a boundary that is too long") from error

    def write(self, chunk: bytes) -> None:
        """Take the next bytes.

        Raises:
            Refusal: They are no form, or bring too many files.
        """
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise _broken_form("bytes that are none") from error

    def finish(self) -> list[Given]:
        """The content of the files.

        Raises:
            Refusal: The form has no end.
        """
        if not self._ended:
            raise _broken_form("one without an end")
        return [bytes(file) for file in self._files]

    def _begin(self) -> None:
        self._name = b""

    def _end_header(self) -> None:
        field, value = self._header
        if field.lower() == b"content-disposition":
            self._name = parse_options_header(value.decode("latin-1"))[1].get(b"name", b"")
        field.clear()
        value.clear()

    def _end_headers(self) -> None:
        if self._name != FILES.encode():
            raise Refusal(400, "bad_request", f"expected only fields '{FILES}' in the form, got another; leave it out")
        if len(self._files) == self._most:
            raise _too_many(self._most)
        self._files.append(bytearray())

    def _add(self, data: bytes, start: int, end: int) -> None:
        self._files[-1] += memoryview(data)[start:end]

    def _end(self) -> None:
        self._ended = True


def _broken_form(got: str) -> Refusal:
    return Refusal(400, "bad_request", f"expected a form with parts and a boundary, got {got}; let a library make it")


def _too_many(most: int) -> Refusal:
    return Refusal(400, "bad_request", f"expected at most {most} images in a request, got more; send several requests")


def read_json(content: bytes, limits: Limits) -> list[Given] | str:
    """The images of a JSON body, or the URL of one.

    Args:
        content: ``{"images": [{"base64": "..."} | {"pixels": [[...]], "max": 255}, ...]}``, whose images may have a
            ``name`` that is not looked at, or ``{"image_url": "https://..."}``.
        limits: Of the number of images.

    Raises:
        Refusal: It is something else. An image that cannot be read is no reason.
    """
    body = parse_json(content)
    url = body.get("image_url")
    if set(body) == {"image_url"} and isinstance(url, str):
        return url
    images = body.get("images")
    if set(body) != {"images"} or not isinstance(images, list):
        raise _other_json('{"images": [...]} or {"image_url": "..."}')
    if len(images) > limits.max_files:
        raise _too_many(limits.max_files)
    return [_read_image(image) for image in images]


def parse_json(content: bytes) -> Mapping[str, Any]:
    """The JSON object of a body.

    Raises:
        Refusal: It is none.
    """
    if content.count(b",") > MOST_VALUES or content.count(b"[") + content.count(b"{") > MOST_LISTS:
        message = f"expected at most {MOST_VALUES} values and {MOST_LISTS} lists in JSON, got more; send files instead"
        raise Refusal(413, "too_large", message)
    try:
        body = json.loads(content, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise _other_json("JSON") from None
    if not isinstance(body, dict):
        raise _other_json("a JSON object")
    return body


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _other_json(expected: str) -> Refusal:
    return Refusal(400, "bad_request", f"expected {expected}, got something else; see GET /openapi.json")


def _read_image(image: Any) -> Given:
    keys = set(image) - {"name"} if isinstance(image, dict) else set()
    if keys == {"base64"} and isinstance(image["base64"], str):
        return _read_base64(image["base64"])
    if keys == {"pixels", "max"}:
        return _read_pixels(image["pixels"], image["max"])
    raise _other_json('images of the form {"base64": "..."} or {"pixels": [[...]], "max": 255}')


def _read_base64(text: str) -> Given:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return ImageError("expected base64 of an image file, got other characters; encode its bytes by RFC 4648")


def _read_pixels(rows: Any, white: Any) -> Given:
    if type(white) not in NUMBERS or not white > 0 or not _is_table(rows):
        raise _other_json('rows of numbers in "pixels", and a number above 0 in "max"')
    if len({len(row) for row in rows}) > 1:
        return ImageError('expected rows of one length in "pixels", got several; send every pixel of the image')
    try:
        with np.errstate(over="ignore"):
            pixels = (np.array(rows, dtype=np.float64) / white).astype(np.float32)
    except OverflowError:
        return _out_of_range()
    if not (pixels.min() >= 0 and pixels.max() <= 1):
        return _out_of_range()
    if pixels.min() == pixels.max():
        return ImageError("expected at least two grey values, but every pixel is the same; check the export")
    return pixels


def _out_of_range() -> ImageError:
    return ImageError('expected pixels from 0 to "max", got others; give the value of white as "max"')


def _is_table(rows: Any) -> bool:
    if not isinstance(rows, list) or not rows or not all(isinstance(row, list) and row for row in rows):
        return False
    return all(NUMBERS.issuperset(map(type, row)) for row in rows)
