"""The door for whoever judges a run while it trains: told of each validation, it may ask to stop.

Knows nothing of who judges, by what, or of how a run is stopped (`cxr.training.callbacks.judged`).
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

Judge = Callable[[int, Mapping[str, float]], bool]
"""(epoch, metrics of its validation) -> whether to stop."""

_judge: ContextVar[Judge | None] = ContextVar("judge", default=None)


class StoppedByJudgeError(Exception):
    """A run that its judge stopped; it has checkpoints and a history, but was not evaluated."""


@contextmanager
def judged_by(judge: Judge) -> Iterator[None]:
    """Let `judge` look at every run that is assembled inside the block; of several devices, the first one asks it."""
    token = _judge.set(judge)
    try:
        yield
    finally:
        _judge.reset(token)


def current_judge() -> Judge | None:
    """The judge of the block around this call, or None."""
    return _judge.get()
