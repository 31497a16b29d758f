"""What the server writes of its work: one line of JSON each, and nothing that a client sent.

File names, DICOM tags, query strings, headers and bodies may name patients, and so may the words of whoever failed on
them: messages and exceptions of libraries quote what they choke on. So words are never written. Our own events are a
name and plain values (`tell`); of everything else the line says who spoke and from which place in the code, of an
exception its type and where it was raised. Knows nothing of routes.
"""

import json
import logging
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

log = logging.getLogger("cxr.serving")

Value = str | int | float | bool | None

SAFE_MESSAGES = frozenset(
    {
        "Started server process [%d]",
        "Finished server process [%d]",
        "Waiting for application startup.",
        "Application startup complete.",
        "Application startup failed. Exiting.",
        "Waiting for application shutdown.",
        "Application shutdown complete.",
        "Waiting for connections to close. (CTRL+C to force quit)",
        "Waiting for background tasks to complete. (CTRL+C to force quit)",
        "Shutting down",
        "Started parent process [%s]",
        "Stopping parent process [%s]",
        "Received SIGINT, exiting.",
        "Received SIGTERM, exiting.",
        "Invalid HTTP request received.",
    }
)
"""What uvicorn says of itself; the only values in it are numbers of processes."""

_MOST_FRAMES = 30


def tell(event: str, level: int = logging.INFO, error: BaseException | None = None, **values: Value) -> None:
    """Write a line.

    Args:
        event: What happened, a constant of the code.
        level: Of `logging`.
        error: What it happened by; its words are left out.
        values: Sizes, times, counts and constants of the code: never a word that a client sent.
    """
    log.log(level, event, extra={"told": values}, exc_info=error)


def set_up_logging(stream: TextIO | None = None, level: int = logging.INFO) -> None:
    """Let this process write nothing but lines of `SilentFormatter`, whoever logs, warns or raises in it.

    Call it first in every process, and run uvicorn with ``log_config=None, access_log=False``.

    Args:
        stream: Where to; standard error where None.
        level: From which on.
    """
    handler = _SilentHandler(sys.stderr if stream is None else stream)
    handler.setFormatter(SilentFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for logger in _named_loggers():
        logger.handlers.clear()
        logger.propagate = True
    warnings.showwarning = _show_warning
    sys.excepthook = _tell_uncaught
    sys.unraisablehook = lambda unraisable: tell("unraisable", logging.ERROR, unraisable.exc_value)
    threading.excepthook = lambda thread: tell("uncaught", logging.ERROR, thread.exc_value)


class SilentFormatter(logging.Formatter):
    """A record to one line of JSON without anybody's words."""

    def format(self, record: logging.LogRecord) -> str:
        """The line: time, level, and what may be said of the record."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            **_describe(record),
        }
        if record.exc_info is not None and record.exc_info[1] is not None:
            line["error"] = describe_error(record.exc_info[1])
        return json.dumps(line)


def describe_error(error: BaseException) -> dict[str, Any]:
    """The types of an exception and of what caused it, outermost first, and where it was raised: no words."""
    frames = traceback.extract_tb(error.__traceback__)[-_MOST_FRAMES:]
    return {
        "types": [type(one).__name__ for one in _chain(error)],
        "frames": [f"{_place(frame.filename)}:{frame.lineno} {frame.name}" for frame in frames],
    }


class _SilentHandler(logging.StreamHandler[TextIO]):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Drop a record that cannot be written; the usual way is to print it, with all its words."""


def _describe(record: logging.LogRecord) -> dict[str, Any]:
    if record.name == log.name and isinstance(told := getattr(record, "told", None), dict):
        return {"event": record.msg, **told}
    place = {"event": "log", "logger": record.name, "at": f"{_place(record.pathname)}:{record.lineno}"}
    if record.name == "uvicorn.error" and record.msg in SAFE_MESSAGES:
        place["message"] = record.getMessage()
    return place


def _named_loggers() -> Iterator[logging.Logger]:
    for logger in list(logging.Logger.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger):
            yield logger


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__context__ if one.__cause__ is None else one.__cause__


def _place(path: str) -> str:
    return "/".join(Path(path).parts[-2:])


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    tell("warning", logging.WARNING, type=category.__name__, at=f"{_place(filename)}:{lineno}")


def _tell_uncaught(kind: type[BaseException], error: BaseException, _: TracebackType | None) -> None:
    tell("uncaught", logging.CRITICAL, error)
