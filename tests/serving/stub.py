"""A server that answers as the real one does, without a model, and as slowly, wrongly or rudely as a test wants."""

import base64
import hashlib
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO

import numpy as np
import uvicorn
from fastapi import FastAPI, Form, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response
from PIL import Image

from cxr.errors import ImageError
from cxr.imaging.image import read_pixels
from cxr.serving.page_routes import add_page, make_sign_in_page

KEY = "cxr_a-key-that-is-right"
POLICY = "default-src 'self'; img-src 'self' data: blob:; frame-ancestors 'none'"
MODEL = {"name": "resnet18-phantoms", "version": "3fa9c1d20b7e", "class_names": ["normal", "pneumonia"]}
CARD = """# Model card

**Research use only; not a medical device.**

## How well it does

- **Result**: AUROC 0.999 (0.996 to 1.000) on test (522 images of 361 patients).
- **Result**: At the operating point: sensitivity 0.943 (0.915 to 0.963), specificity 0.993 (0.948 to 0.999).

## Limits

- **Other hospitals**: *not measured*
"""
FACTS = {
    **MODEL,
    "multilabel": False,
    "calibrated": True,
    "operating_point": {
        "rule": "sensitivity >= 0.9", "threshold": 0.703, "positive_class": "pneumonia", "chosen_on": "val",
        "sensitivity": 0.938, "specificity": 0.993, "n": 521, "tp": 363, "fp": 1, "tn": 133, "fn": 24,
    },
    "abstention": {"threshold": 0.6},
    "preprocess": {"size": [128, 128], "channels": 1},
    "metrics": {
        "val/auroc": 0.9969, "test/auroc": 0.9989, "test/sensitivity": 0.9716, "test/specificity": 0.9925,
        "test/ppv": 0.9974, "test/npv": 0.9236, "test/balanced_accuracy": 0.9821, "test/recall/normal": 0.9925,
    },
    "data_fingerprint": "817ff1702e0d99579d279c472f65a6f42b942a70f2f3337164fa552d6f4bdf85",
    "research_use_only": True,
    "card": CARD,
}  # fmt: skip


@dataclass
class Stub:
    """What the server does, and what it was asked.

    Attributes:
        facts: The answer of /v1/model; predictions and maps come from that model.
        sees: What the server makes of the pixels of a file that a browser may read in another way.
        delay: Seconds that a prediction takes.
        refusals: (path, status, headers, body) given once each, in turn, to the next request for that path.
        verdicts: Parts of a result, and maybe its `model`, given once each, in turn, to the next prediction.
        sessions: Cookie -> CSRF token.
        bodies: Bytes of each request with an image.
        most_at_once: The largest number of predictions that were under way together.
    """

    facts: dict = field(default_factory=lambda: dict(FACTS))
    sees: Callable[[np.ndarray], np.ndarray] = np.asarray
    delay: float = 0.0
    refusals: list[tuple] = field(default_factory=list)
    verdicts: deque = field(default_factory=deque)
    sessions: dict[str, str] = field(default_factory=dict)
    bodies: list[bytes] = field(default_factory=list)
    most_at_once: int = 0
    _under_way: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def model(self) -> dict:
        """What every answer tells of its model."""
        return {name: self.facts[name] for name in MODEL}

    def sign_in(self) -> str:
        """A new session's cookie."""
        cookie = secrets.token_hex(8)
        self.sessions[cookie] = secrets.token_hex(8)
        return cookie

    def refuse(self, path: str, status: int, message: str = "", code: str = "refused", **headers: str) -> None:
        """Answer the next request for a path with an error."""
        body = {"error": {"code": code, "message": message}, "request_id": "r-refused"}
        self.refusals.append((path, status, headers, body))

    def token_of(self, request: Request) -> str | None:
        """The CSRF token of whoever asks."""
        return self.sessions.get(request.cookies.get("cxr_session", ""))

    def refusal(self, request: Request) -> Response | None:
        """The error that a request gets, if any."""
        for planned in self.refusals:
            if planned[0] == request.url.path:
                self.refusals.remove(planned)
                return JSONResponse(planned[3], planned[1], planned[2])
        token = self.token_of(request)
        if token is None or (request.method == "POST" and request.headers.get("x-csrf-token") != token):
            return JSONResponse({"error": {"code": "unauthorized", "message": "expected a key"}}, 401)
        return None

    def predict(self, content: bytes) -> dict:
        """One result."""
        with self._lock:
            self._under_way += 1
            self.most_at_once = max(self.most_at_once, self._under_way)
            special = self.verdicts.popleft() if self.verdicts else {}
        time.sleep(self.delay)
        with self._lock:
            self._under_way -= 1
        try:
            shape = self.sees(read(content)).shape
        except ImageError:
            error = "expected a DICOM, PNG, JPEG, TIFF or BMP file, got one that cannot be decoded; export it again"
            return {"index": 0, "status": "error", "error": error}
        share = special.pop("share", hashlib.sha256(content).digest()[0] / 255)
        return {
            "index": 0, "status": "ok", "label": "pneumonia" if share >= 0.5 else "normal",
            "probs": {"normal": 1 - share, "pneumonia": share}, "decisions": {"pneumonia": share >= 0.703},
            "abstained": max(share, 1 - share) < 0.6, "warnings": [], "shape": list(shape), "seconds": self.delay,
            **special,
        }  # fmt: skip


def make_stub_app(stub: Stub) -> FastAPI:
    """The stub behind HTTP, with the page."""
    app = FastAPI()
    add_page(app, stub.token_of)

    @app.middleware("http")
    async def secure(request: Request, call_next):
        response = await call_next(request)
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["X-Request-ID"] = "r-1"
        return response

    @app.post("/sign-in")
    def sign_in(key: str = Form()):
        if key != KEY:
            return make_sign_in_page("This key is not valid. Check it for missing letters.", 401)
        response = RedirectResponse("/", 303)
        response.set_cookie("cxr_session", stub.sign_in(), httponly=True, samesite="strict")
        return response

    @app.post("/sign-out")
    def sign_out(request: Request):
        stub.sessions.pop(request.cookies.get("cxr_session", ""), None)
        return Response(status_code=204)

    @app.get("/v1/model")
    def model(request: Request):
        return stub.refusal(request) or JSONResponse(stub.facts)

    async def content_of(request: Request) -> bytes:
        stub.bodies.append(await request.body())
        form = await request.form()
        return await form["files"].read()

    @app.post("/v1/predict")
    async def predict(request: Request):
        content = await content_of(request)
        return await run(lambda: stub.refusal(request) or predicted(content))

    def predicted(content: bytes) -> Response:
        result = stub.predict(content)
        body = {"model": result.pop("model", stub.model), "results": [result], "request_id": "r-0123456789ab"}
        return JSONResponse(body, 200 if result["status"] == "ok" else 422)

    @app.post("/v1/image")
    async def image(request: Request):
        content = await content_of(request)
        return await run(lambda: stub.refusal(request) or shown(content))

    def shown(content: bytes) -> Response:
        try:
            pixels = stub.sees(read(content))
        except ImageError:
            return JSONResponse({"error": {"code": "not_an_image", "message": "expected an image"}}, 422)
        return JSONResponse({"image": to_address(Image.fromarray(np.uint8(255 * pixels))), "shape": pixels.shape})

    @app.post("/v1/explain")
    async def explain(request: Request, label: str = "pneumonia"):
        content = await content_of(request)
        return await run(lambda: stub.refusal(request) or explained(content, label))

    def explained(content: bytes, label: str) -> Response:
        time.sleep(stub.delay)
        overlay = to_address(Image.fromarray(make_map(stub.sees(read(content)).shape)))
        return JSONResponse({"model": stub.model, "overlay": overlay, "label": label, "request_id": "r-2"})

    return app


async def run(work):
    """Do blocking work beside the event loop."""
    from starlette.concurrency import run_in_threadpool

    return await run_in_threadpool(work)


def read(content: bytes) -> np.ndarray:
    """(H, W) in [0, 1] of a file in memory."""
    file = os.memfd_create("image")
    try:
        os.write(file, content)
        return read_pixels(f"/proc/self/fd/{file}")
    finally:
        os.close(file)


def to_address(image: Image.Image) -> str:
    """A PNG as an address."""
    out = BytesIO()
    image.save(out, "png")
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"


def make_map(shape: tuple[int, int]) -> np.ndarray:
    """(h, w, 4) uint8: a spot in the lower right lung, yellow in its middle and red around it."""
    height = 160
    rows, columns = np.mgrid[0 : 1 : height * 1j, 0 : 1 : round(height * shape[1] / shape[0]) * 1j]
    heat = np.exp(-(((rows - 0.6) / 0.13) ** 2) - ((columns - 0.3) / 0.1) ** 2)
    heat += 0.5 * np.exp(-(((rows - 0.35) / 0.1) ** 2) - ((columns - 0.68) / 0.08) ** 2)
    heat = np.clip(heat, 0, 1)
    colour = [np.clip(3 * heat, 0, 1), np.clip(3 * heat - 1, 0, 1), np.clip(3 * heat - 2, 0, 1), np.sqrt(heat)]
    return np.uint8(255 * np.stack(colour, axis=-1))


class Serving:
    """An application on a port of this machine, for the length of a ``with``."""

    def __init__(self, app: FastAPI):
        config = uvicorn.Config(app, port=0, log_level="error")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)

    def __enter__(self) -> str:
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        port = self.server.servers[0].sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}"

    def __exit__(self, *error: object) -> None:
        self.server.should_exit = True
        self.thread.join()
