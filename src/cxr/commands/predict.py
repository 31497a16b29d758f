"""What `cxr predict` does: images of any number to answers, a few of them in memory at a time.

Imports no torch, unless the bundle or the pictures need it. Files are read in processes of their own, the first of
which gets ready while the bundle is opened.
"""

import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import tee
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import numpy as np

from cxr.commands.predict_results import (
    CSV,
    JSONL,
    TABLE,
    CsvLayout,
    JsonLayout,
    Layout,
    Results,
    Row,
    TableResults,
    open_results,
)
from cxr.data.apart import Outcome, Readers, count_processes, in_batches
from cxr.data.decoding import log_warnings
from cxr.errors import ConfigError, DataError
from cxr.inference.bundle_folder import bundle_version, find_bundle
from cxr.inference.engines import open_predictor
from cxr.inference.intake import Intake, get_ready
from cxr.inference.predictor import Predictor
from cxr.inference.sources import Found, Source, find_sources, read_source, to_line
from cxr.inference.verdict import judge
from cxr.progress import show_late

if TYPE_CHECKING:
    from cxr.commands.predict_overlays import Overlays

PICTURE_SIDE = 1024
TORCH, INT8 = "torch", "int8"
OVERLAY = "overlay"
_OVERLAY_NAME = re.compile(r"\d{6,}_[0-9a-f]{12}\.png")
"""As `cxr.commands.predict_overlays`, which imports torch, names pictures."""

Numbered = tuple[int, Source]
"""An image, and its place among all that were given, from 1."""
Read = tuple[int, Source, Outcome[Intake]]


@dataclass(frozen=True)
class Prediction:
    """Settings of the command.

    Attributes:
        words: See `find_sources`.
        bundle: A bundle, or the folder of a run.
        out: File of the results; None is standard output.
        form: 'csv', 'jsonl' or 'table'; None is what `out` ends with, else the table.
        overlays: Folder for pictures of what the net looks at; None draws none.
        engine: See `open_predictor`.
        batch: Images that are predicted at once.
        workers: Largest number of processes that read files; None is one per usable core.
    """

    words: Sequence[str]
    bundle: Path
    out: Path | None = None
    form: str | None = None
    overlays: Path | None = None
    engine: str | None = None
    batch: int = 16
    workers: int | None = None


@dataclass(frozen=True)
class Summary:
    """What became of all images.

    Attributes:
        predicted: How many have an answer.
        failed: How many could not be read.
        known: How many of both were in the file already.
        skipped: Why files were passed over -> how many.
    """

    predicted: int
    failed: int
    known: int
    skipped: Counter[str]


def predict(settings: Prediction, stdin: TextIO | None = None, stdout: TextIO | None = None) -> Summary:
    """Predict images and write what is said of each.

    Raises:
        CxrError: Settings, words, bundle or results cannot be used.
    """
    form = _check(settings)
    stream = sys.stdout if stdout is None else stdout
    found = find_sources(settings.words, sys.stdin if stdin is None else stdin)
    if settings.overlays is not None:
        found = _without_overlays(found, settings.overlays)
    if not found.sources:
        raise DataError(f"expected images, found none{_tell_skipped(found.skipped)}; name files, folders or zip files")
    bundle = find_bundle(settings.bundle)
    processes = count_processes(settings.workers, len(found.sources))
    with Readers(processes, partial(get_ready, found.sources[0].path)) as readers:
        predictor = open_predictor(bundle, settings.engine if settings.overlays is None else TORCH)
        overlays = _make_overlays(settings.overlays, predictor)
        work = _Work(predictor, readers, settings.batch, overlays)
        with _open(settings, form, predictor, bundle, stream) as results:
            is_watched = settings.out is None and stream.isatty()
            return _predict_all(work, found, results, is_watched)


def tell(summary: Summary) -> str:
    """The summary in a line."""
    known = f" ({summary.known} of them were in the file before)" if summary.known else ""
    failed = f", {summary.failed} could not be read" if summary.failed else ""
    return f"{summary.predicted} predicted{failed}{known}{_tell_skipped(summary.skipped)}"


@dataclass(frozen=True)
class _Work:
    """Rows of images.

    Attributes:
        predictor: Gives the answers.
        readers: Read the files.
        batch: Images that are predicted at once.
        overlays: Draw the pictures; None where none are wanted.
    """

    predictor: Predictor
    readers: Readers
    batch: int
    overlays: "Overlays | None"

    def rows(self, images: Iterable[Numbered]) -> Iterator[list[Row]]:
        """The row of each image, in their order, batch by batch."""
        images, read_ahead = tee(images)
        side = None if self.overlays is None else PICTURE_SIDE
        read = partial(read_source, preprocesses=self.predictor.preprocesses, picture_side=side)
        batches = log_warnings(self.readers.read((source for _, source in read_ahead), read))
        outcomes = (outcome for batch in batches for outcome in batch)
        numbered = ((number, source, outcome) for (number, _), (source, outcome) in zip(images, outcomes, strict=True))
        return (self._judge(batch) for batch in in_batches(numbered, self.batch))

    def _judge(self, batch: Sequence[Read]) -> list[Row]:
        good = [(number, source, outcome.content) for number, source, outcome in batch if outcome.content is not None]
        answers = self._answer(good) if good else iter(())
        errors = [(source, _plain_error(source, outcome.error)) for _, source, outcome in batch]
        return [next(answers) if error is None else Row(str(source), error=error) for source, error in errors]

    def _answer(self, images: Sequence[tuple[int, Source, Intake]]) -> Iterator[Row]:
        numbers, sources, intakes = zip(*images, strict=True)
        stored = [np.stack(arrays) for arrays in zip(*(one.stored for one in intakes), strict=True)]
        scores = self.predictor.score_stored(stored)
        verdicts = judge(self.predictor, scores, [one.told for one in intakes])
        drawn: Iterable[str | None] = [None] * len(images)
        if self.overlays is not None:
            drawn = self.overlays.draw(numbers, intakes, stored, scores.probs)
        for source, verdict, overlay in zip(sources, verdicts, drawn, strict=True):
            yield Row(str(source), verdict, overlay=overlay)


def _predict_all(work: _Work, found: Found, results: Results, is_watched: bool) -> Summary:
    known = [results.done[str(source)] for source in found.sources if str(source) in results.done]
    numbered = enumerate(found.sources, start=1)
    batches = work.rows((number, source) for number, source in numbered if str(source) not in results.done)
    counts, waiting = Counter(known), len(found.sources) - len(known)
    for rows in batches if is_watched else show_late(batches, waiting, "predicting images"):
        results.write(rows)
        counts.update(row.verdict is not None for row in rows)
    return Summary(counts[True], counts[False], len(known), found.skipped)


def _check(settings: Prediction) -> str:
    """The form of the results, once all settings are sound."""
    for name, value, least in (("--batch", settings.batch, 1), ("--workers", settings.workers, 0)):
        if value is not None and value < least:
            raise ConfigError(f"expected {name} of {least} or more, got {value}; choose a larger number")
    if settings.overlays is not None and settings.engine not in (None, TORCH):
        raise ConfigError(
            f"expected the engine torch with --overlays, since maps need gradients, got {settings.engine}; "
            "leave one out"
        )
    return _choose_form(settings.out, settings.form)


def _choose_form(out: Path | None, form: str | None) -> str:
    if out is None:
        return TABLE if form is None else form
    chosen = out.suffix.removeprefix(".").lower() if form is None else form
    if chosen not in (CSV, JSONL):
        raise ConfigError(f"expected results in a file as csv or jsonl, got {chosen!r}; name it so, or give --format")
    return chosen


@contextmanager
def _open(settings: Prediction, form: str, predictor: Predictor, bundle: Path, stream: TextIO) -> Iterator[Results]:
    if form == TABLE:
        yield TableResults(stream)
        return
    model = bundle_version(bundle) + (f"-{INT8}" if settings.engine == INT8 else "")
    pictured = settings.overlays is not None
    layout: Layout = CsvLayout(predictor, model, pictured) if form == CSV else JsonLayout(model)
    with open_results(settings.out, layout, stream, model) as results:
        yield results


def _without_overlays(found: Found, folder: Path) -> Found:
    """Leave out the pictures that an earlier call wrote into the folder; other images may lie there."""
    home = folder.resolve()
    names = {source: Path(source.path) for source in found.sources if source.member is None}
    drawn = {
        source for source, path in names.items()
        if _OVERLAY_NAME.fullmatch(path.name) and path.parent.resolve() == home
    }  # fmt: skip
    skipped = found.skipped + Counter({OVERLAY: len(drawn)})
    return Found([source for source in found.sources if source not in drawn], skipped)


def _make_overlays(folder: Path | None, predictor: Predictor) -> "Overlays | None":
    if folder is None:
        return None
    from cxr.commands.predict_overlays import Overlays

    return Overlays(folder, predictor)


def _plain_error(source: Source, error: str | None) -> str | None:
    """The sentence without the name of the file, which stands beside it."""
    if error is None:
        return None
    for name in (str(source), source.path):
        error = error.removeprefix(f"{name}: ")
    return to_line(error)


def _tell_skipped(skipped: Mapping[str, int]) -> str:
    if not skipped:
        return ""
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(skipped.items()))
    return f"; skipped {sum(skipped.values())} that are no images ({reasons})"
