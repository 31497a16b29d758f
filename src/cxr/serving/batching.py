"""Images of many requests onto one predictor: one thread takes whatever waits, up to a limit, and waits for no more.

Knows nothing of HTTP, of files or of what scores mean.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from threading import Thread

import numpy as np

from cxr.imaging.preprocess import Stored
from cxr.inference.predictor import Predictor, Scores
from cxr.serving import silence

BATCH = 32


@dataclass(frozen=True)
class Timing:
    """How one batch went.

    Attributes:
        waited: Seconds in the queue, of each image.
        took: Seconds in the predictor, of the batch.
    """

    waited: list[float]
    took: float


@dataclass(frozen=True)
class _Waiting:
    stored: Sequence[Stored]
    scores: "Future[Scores]" = field(default_factory=Future)
    since: float = field(default_factory=time.perf_counter)


class Batcher:
    """One thread that predicts.

    Args:
        predictor: Used by this thread alone.
        tell: Is told of every batch, in that thread; if it fails, the batch is answered all the same.
        limit: Images of a batch.
    """

    def __init__(self, predictor: Predictor, tell: Callable[[Timing], None], limit: int = BATCH) -> None:
        self._predictor, self._tell, self._limit = predictor, tell, limit
        self._queue: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._thread = Thread(target=self._work, name="predictor", daemon=True)
        self._thread.start()

    async def score(self, stored: Sequence[Stored]) -> Scores:
        """Predict one image.

        Args:
            stored: For each preprocessing of the predictor the (h, w) that it stores.

        Returns:
            Of one image.
        """
        waiting = _Waiting(stored)
        self._queue.put(waiting)
        return await asyncio.wrap_future(waiting.scores)

    def close(self) -> None:
        """Predict what waits, then end the thread."""
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (first := self._queue.get()) is not None:
            taken, more = self._take(first)
            batch = [one for one in taken if one.scores.set_running_or_notify_cancel()]
            if batch:
                self._predict(batch)
            if not more:
                return

    def _take(self, first: _Waiting) -> tuple[list[_Waiting], bool]:
        """What waits, and whether more may come."""
        taken = [first]
        while len(taken) < self._limit:
            try:
                another = self._queue.get_nowait()
            except Empty:
                break
            if another is None:
                return taken, False
            taken.append(another)
        return taken, True

    def _predict(self, batch: list[_Waiting]) -> None:
        start = time.perf_counter()
        try:
            scores = self._predictor.score_stored(
                [np.stack(images) for images in zip(*(one.stored for one in batch), strict=True)]
            )
        except BaseException as error:
            for one in batch:
                one.scores.set_exception(error)
            return
        self._tell_safely(Timing([start - one.since for one in batch], time.perf_counter() - start))
        for place, one in enumerate(batch):
            row = slice(place, place + 1)
            one.scores.set_result(Scores(scores.probs[row], scores.unlike[row], scores.inverted[row]))

    def _tell_safely(self, timing: Timing) -> None:
        try:
            self._tell(timing)
        except Exception as error:  # such as a disk that is full; without this thread nobody is answered
            silence.tell("batch not counted", logging.ERROR, error)
