"""A server of a few routes that fail in many ways, run by test_silence.py; its argument is the port's file."""

import asyncio
import logging
import socket
import sys
import threading
import warnings
from pathlib import Path

import uvicorn
from fastapi import FastAPI, HTTPException, Request, UploadFile
from PIL import Image

from cxr.imaging.preprocess import Preprocess
from cxr.inference.intake import take_in_bytes
from cxr.serving.refusal import Refusal
from cxr.serving.silence import set_up_logging, tell
from cxr.serving.wrapping import wrap

set_up_logging(level=logging.DEBUG)
logging.getLogger("uvicorn.error").setLevel(5)
app = FastAPI()


@app.post("/upload/{name}")
async def upload(name: str, request: Request, file: UploadFile):
    """Whatever is known of the request gets into words that libraries, warnings and threads utter."""
    content = await file.read()
    words = f"{name} {request.url} {request.headers} {file.filename} {content!r}"
    logging.getLogger("library").warning("could not read %s", words)
    logging.getLogger("library").error("wrong number of arguments %s %s", words)
    logging.getLogger("uvicorn.error").error(words)
    logging.getLogger("cxr.serving").error(words)
    warnings.warn(words, stacklevel=1)
    thread = threading.Thread(target=fail, args=(words,), name=words)
    thread.start()
    thread.join()
    request.app.state.task = asyncio.create_task(fail_later(words), name=words)
    raise ValueError(words) from RuntimeError(words)


@app.post("/image")
async def image(file: UploadFile):
    content = await file.read()
    return {"shape": take_in_bytes(content, [Preprocess(size=(16, 16))]).shape}


@app.post("/pillow")
async def pillow(file: UploadFile):
    return Image.open(file.file).size


@app.post("/refuse")
async def refuse(request: Request):
    raise Refusal(400, "bad_request", f"expected something else, got {await request.json()}")


@app.post("/http/{name}")
async def http(name: str):
    raise HTTPException(400, name)


def fail(words):
    raise ValueError(words)


async def fail_later(words):
    raise ValueError(words)


wrap(app, 10_000_000)

if __name__ == "__main__":
    listener = socket.create_server(("127.0.0.1", 0))
    Path(sys.argv[1]).write_text(str(listener.getsockname()[1]))
    tell("ready", port=listener.getsockname()[1])
    config = uvicorn.Config(app, log_config=None, access_log=False, server_header=False)
    uvicorn.Server(config).run([listener])
