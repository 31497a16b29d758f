import asyncio
import errno
import threading
from dataclasses import dataclass, field

import numpy as np
import pytest

from cxr.imaging.preprocess import Preprocess
from cxr.inference.predictor import Predictor, Scores
from cxr.serving.batching import Batcher


@dataclass(frozen=True, kw_only=True)
class Slow(Predictor):
    """Tells each image back as its probability, when it may; remembers the sizes of batches."""

    preprocesses = (Preprocess(),)
    may: threading.Event = field(default_factory=threading.Event)
    begun: threading.Event = field(default_factory=threading.Event)
    sizes: list[int] = field(default_factory=list)

    def score_stored(self, stored):
        self.begun.set()
        self.may.wait()
        self.sizes.append(len(stored[0]))
        if (stored[0] == 99).any():
            raise MemoryError
        values = stored[0].reshape(len(stored[0]), 1).astype(float)
        return Scores(values, values[:, 0], values[:, 0] > 1)


async def ask(batcher, value):
    return (await batcher.score([np.full((1, 1), value)])).probs


async def hold(batcher, predictor):
    """Lets the predictor begin with one image, so that all others wait."""
    first = asyncio.create_task(ask(batcher, 0))
    await asyncio.to_thread(predictor.begun.wait)
    return first


def run(scenario, limit=3, tell=None):
    predictor, told = Slow(class_names=["a"]), []
    batcher = Batcher(predictor, told.append if tell is None else tell, limit)
    try:
        return asyncio.run(scenario(batcher, predictor)), predictor.sizes, told
    finally:
        predictor.may.set()
        batcher.close()


def test_what_waits_is_predicted_together_and_told_apart():
    async def scenario(batcher, predictor):
        first = await hold(batcher, predictor)
        others = [asyncio.create_task(ask(batcher, value)) for value in range(1, 6)]
        await asyncio.sleep(0)
        predictor.may.set()
        return [float(found.item()) for found in await asyncio.gather(first, *others)]

    found, sizes, told = run(scenario)
    assert found == [0, 1, 2, 3, 4, 5]
    assert sizes == [1, 3, 2]
    assert [len(one.waited) for one in told] == sizes


def test_nobody_is_predicted_who_has_gone():
    async def scenario(batcher, predictor):
        first = await hold(batcher, predictor)
        gone, stays = (asyncio.create_task(ask(batcher, value)) for value in (1, 2))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        predictor.may.set()
        await first
        return float((await stays).item())

    assert run(scenario)[:2] == (2, [1, 1])


def test_a_failure_is_told_and_the_next_batch_goes_on():
    async def scenario(batcher, predictor):
        predictor.may.set()
        with pytest.raises(MemoryError):
            await ask(batcher, 99)
        return float((await ask(batcher, 7)).item())

    assert run(scenario)[0] == 7


def test_closing_answers_what_waits():
    async def scenario(batcher, predictor):
        first = await hold(batcher, predictor)
        waiting = asyncio.create_task(ask(batcher, 5))
        await asyncio.sleep(0)
        predictor.may.set()
        await asyncio.to_thread(batcher.close)
        return [float((await one).item()) for one in (first, waiting)]

    predictor = Slow(class_names=["a"])
    assert asyncio.run(scenario(Batcher(predictor, lambda timing: None), predictor)) == [0, 5]


def test_a_measure_that_cannot_be_written_keeps_nobody_from_being_predicted():
    def fail(timing):
        raise OSError(errno.ENOSPC, "No space left on device")

    async def scenario(batcher, predictor):
        predictor.may.set()
        return [float((await asyncio.wait_for(ask(batcher, value), 20)).item()) for value in (1, 2)]

    assert run(scenario, tell=fail)[0] == [1, 2]
