"""One worker's model and what stands before it: images that strangers gave to answers.

Knows nothing of routes.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from functools import cached_property
from typing import Any, TypeVar

from fastapi import Request

from cxr.errors import ConfigError, ImageError, MissingExtraError, WeightsError, require_extra
from cxr.inference.bundle_folder import bundle_version
from cxr.inference.engines import TORCH, open_predictor
from cxr.inference.intake import Intake
from cxr.inference.predictor import Predictor
from cxr.inference.verdict import WARNINGS, Verdict, judge
from cxr.serving.batching import Batcher
from cxr.serving.bodies import Given, Loan, Memory, read_images
from cxr.serving.decoding import Decoders, NoDecoderError
from cxr.serving.facts import Facts
from cxr.serving.fetch import fetch_image
from cxr.serving.hosts import parse_hosts
from cxr.serving.measures import Measures
from cxr.serving.pictures import SHOWN, draw_image, draw_map
from cxr.serving.refusal import Refusal, try_later
from cxr.serving.settings import Limits, Settings, usable_cores
from cxr.serving.silence import tell

Result = TypeVar("Result")
OK, ERROR = "ok", "error"
SECONDS_TO_WAIT = 1.0
Read = Callable[[Request, Limits, Loan], Awaitable[list[Given] | str]]


class Service:
    """What answers requests.

    Args:
        settings: Of the server.
        facts: Of the model.
        measures: Counts what is done.

    Raises:
        CxrError: The bundle gives no predictor.
    """

    def __init__(self, settings: Settings, facts: Facts, measures: Measures) -> None:
        self.settings, self.facts, self.measures = settings, facts, measures
        self.predictor = _open(settings)
        self._preprocesses = (*self.predictor.preprocesses, SHOWN)
        self._decoders = Decoders(self._preprocesses, settings.decoders, settings.limits)
        self._batcher = Batcher(self.predictor, measures.count_batch)
        self._drawing = ThreadPoolExecutor(1, "drawing")
        self._mapping = ThreadPoolExecutor(1, "mapping")
        self._memory = Memory(settings.limits.max_waiting_bytes)
        self._hosts = parse_hosts(settings.image_hosts)
        self._waiting = 0

    def close(self) -> None:
        """Finish what was begun, and end processes and threads."""
        self._decoders.close()
        self._batcher.close()
        self._drawing.shutdown(cancel_futures=True)
        self._mapping.shutdown(cancel_futures=True)

    @asynccontextmanager
    async def receive(self, request: Request, read: Read = read_images) -> AsyncIterator[list[Given]]:
        """The images of a request, inside the time that it may take.

        Args:
            request: Of any route.
            read: Reads images, or the URL of one, from its body.

        Raises:
            Refusal: It brings none, too much, too slowly, or at a time when too much waits.
        """
        seconds = self.settings.limits.seconds
        end = asyncio.get_running_loop().time() + seconds
        with self._memory.lend() as loan:
            with _refuse_late(Refusal(408, "slow", f"expected the whole request in {seconds} s; send fewer images")):
                async with asyncio.timeout_at(end):
                    found = await read(request, self.settings.limits, loan)
            count = 1 if isinstance(found, str) else len(found)
            late = f"expected an answer in {seconds} s, it takes longer; send it again later, or fewer images"
            with self._queue(count), _refuse_late(try_later(503, "timeout", late, SECONDS_TO_WAIT)):
                async with asyncio.timeout_at(end):
                    yield await self._fetch(found, loan) if isinstance(found, str) else found

    async def predict(self, given: Sequence[Given]) -> list[dict[str, Any]]:
        """The answers for images, in their order: plain JSON values."""
        return list(await asyncio.gather(*(self._predict_one(index, one) for index, one in enumerate(given))))

    async def show(self, given: Given) -> tuple[str, tuple[int, int]]:
        """An image as a data URL, and (H, W) of its file; its map may be asked for next, so torch gets ready for that.

        Raises:
            ImageError: It is none.
        """
        self._mapping.submit(getattr, self, "_in_torch")
        intake = await self._take_in(given, [len(self._preprocesses) - 1])
        return await _run(self._drawing, draw_image, intake), intake.shape

    async def explain(self, given: Given, label: str | None) -> dict[str, str]:
        """An image, the map of what speaks for a class in it, and the class.

        Args:
            given: The image.
            label: Of the class; None takes the most probable one.

        Raises:
            ImageError: There is no image.
            Refusal: The model has no net to look into, or the server no torch.
        """
        intake = await self._take_in(given, range(len(self._preprocesses)))
        names = self.facts.class_names
        if label is None:
            scores = await self._batcher.score(intake.stored[:-1])
            label = names[int(scores.probs[0].argmax())]
        try:
            overlay = await _run(self._mapping, self._draw_map, intake, names.index(label))
        except ConfigError:
            raise Refusal(
                422, "no_map", "expected a model with a net to look into, this one has none; use POST /v1/predict"
            ) from None
        except MissingExtraError:
            raise Refusal(
                422, "no_map", "expected torch on the server to look into the model, got none; use POST /v1/predict"
            ) from None
        return {"overlay": overlay, "image": await _run(self._drawing, draw_image, intake), "label": label}

    async def _predict_one(self, index: int, given: Given) -> dict[str, Any]:
        start = time.perf_counter()
        try:
            intake = await self._take_in(given, range(len(self._preprocesses) - 1))
        except ImageError as error:
            self.measures.images.labels(ERROR).inc()
            return {"index": index, "status": ERROR, "error": str(error)}
        scores = await self._batcher.score(intake.stored)
        (verdict,) = judge(self.predictor, scores, [intake.told])
        self.measures.count_verdict(verdict)
        return {
            "index": index,
            "status": OK,
            **verdict.to_dict(),
            "warnings": _tell_warnings(verdict),
            "shape": list(intake.shape),
            "seconds": round(time.perf_counter() - start, 4),
        }

    async def _take_in(self, given: Given, wanted: Sequence[int]) -> Intake:
        if isinstance(given, ImageError):
            raise given
        with self.measures.decode_seconds.time():
            if isinstance(given, bytes):
                return await self._decode(given, wanted)
            kinds = [self._preprocesses[index] for index in wanted]
            stored = await asyncio.to_thread(lambda: tuple(kind.store(given) for kind in kinds))
            return Intake(stored, (given.shape[0], given.shape[1]))

    async def _decode(self, content: bytes, wanted: Sequence[int]) -> Intake:
        try:
            return await self._decoders.take_in(content, wanted)
        except NoDecoderError as error:
            tell("no decoder", logging.ERROR, error)
            raise try_later(503, "no_decoder", str(error), SECONDS_TO_WAIT) from None

    async def _fetch(self, url: str, loan: Loan) -> list[Given]:
        if not self._hosts:
            raise Refusal(
                403, "no_addresses", "expected an image, got the address of one, which this server does not fetch; "
                "send the image itself",
            )  # fmt: skip
        limits = self.settings.limits
        return [await fetch_image(url, self._hosts, loan.take, limits.max_body_bytes, limits.seconds / 2)]

    @contextmanager
    def _queue(self, count: int) -> Iterator[None]:
        if self._waiting + count > self.settings.limits.queue_length:
            length = self.settings.limits.queue_length
            message = f"expected at most {length} images to wait at a time, there are more; send it again later"
            raise try_later(429, "busy", message, SECONDS_TO_WAIT)
        self._count_waiting(count)
        try:
            yield
        finally:
            self._count_waiting(-count)

    def _count_waiting(self, change: int) -> None:
        self._waiting += change
        self.measures.waiting.inc(change)

    def _draw_map(self, intake: Intake, label: int) -> str:
        require_extra("torch", "serve")
        return draw_map(self._in_torch, intake, label)

    @cached_property
    def _in_torch(self) -> Predictor:
        """The model with nets that can be looked into; opened by the mapping thread when it is first needed.

        Raises:
            Refusal: The bundle is not what it was when this worker started.
        """
        if self.settings.engine == TORCH:
            return self.predictor
        try:
            if bundle_version(self.settings.bundle) == self.facts.version:
                return open_predictor(self.settings.bundle, TORCH)
        except WeightsError:
            pass
        raise Refusal(
            409, "changed", "expected the bundle that answers, its files were changed since; restart the server"
        )


def _open(settings: Settings) -> Predictor:
    """The workers share the cores."""
    return open_predictor(settings.bundle, settings.engine, max(1, usable_cores() // settings.workers))


async def _run(executor: ThreadPoolExecutor, work: Callable[..., Result], *arguments: Any) -> Result:
    return await asyncio.get_running_loop().run_in_executor(executor, work, *arguments)


def _tell_warnings(verdict: Verdict) -> list[dict[str, str]]:
    return [{"code": code, "text": WARNINGS[code]} for code in verdict.warnings]


@contextmanager
def _refuse_late(refusal: Refusal) -> Iterator[None]:
    try:
        yield
    except TimeoutError:
        raise refusal from None
