"""Many image files to stored images, in parallel processes, with the bad files named instead of raised.

Knows nothing of the cache, of tables or of torch. A decoder that crashes or never ends costs only the file that did it.
"""

import importlib.metadata
import json
import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

from numpy.typing import NDArray

from cxr.data.apart import Outcome, Readers, count_processes, read_file
from cxr.errors import ImageError
from cxr.imaging.image import read_pixels
from cxr.imaging.preprocess import Preprocess
from cxr.progress import show_late

log = logging.getLogger(__name__)

StoredArray = NDArray[Any]  # uint8 or uint16
Decoded = Outcome[StoredArray]
"""What became of one file; its content is (h, w) as `Preprocess.store` gives it."""

Item = TypeVar("Item")
Content = TypeVar("Content")

DECODING_PACKAGES = (
    "cxr-lab",
    "pydicom",
    "python-gdcm",
    "pyjpegls",
    "pylibjpeg-openjpeg",
    "pillow",
    "opencv-python-headless",
)


def decode_file(path: str, preprocess: Preprocess) -> Decoded:
    """Read one file and preprocess it for storage; a bad file is a result, not an exception."""
    return read_file(path, partial(_read_stored, preprocess=preprocess))


def decode_files(
    paths: Sequence[str], preprocess: Preprocess, workers: int | None = None
) -> Iterator[list[tuple[str, Decoded]]]:
    """Decode files batch by batch, in the order given.

    A file whose decoder crashes, is killed or takes longer than SECONDS_PER_FILE is a bad file; the others go on.
    Shows a progress bar with the time left when the work takes longer than two seconds, and at the end logs the
    warnings of the decoders once per kind with their count.

    Args:
        paths: The files.
        preprocess: What makes a stored image of the pixels.
        workers: Largest number of processes; None is one per usable core; 0 decodes in this process, unguarded.

    Yields:
        Lists of (path, Decoded).
    """
    with Readers(count_processes(workers, len(paths))) as readers:
        batches = readers.read(paths, partial(_read_stored, preprocess=preprocess))
        yield from log_warnings(show_late(batches, len(paths), "decoding images"))


def log_warnings(
    batches: Iterable[list[tuple[Item, Outcome[Content]]]],
) -> Iterator[list[tuple[Item, Outcome[Content]]]]:
    """Yield the batches, then log one record for each kind of warning: texts that differ in path and numbers only."""
    kinds: dict[str, tuple[str, str]] = {}
    counts: Counter[str] = Counter()
    for batch in batches:
        for item, outcome in batch:
            for text in outcome.warned:
                pathless = text.replace(str(item), "").lstrip(": ")
                kind = re.sub(r"\d+", "#", pathless)
                kinds.setdefault(kind, (str(item), pathless))
                counts[kind] += 1
        yield batch
    for kind, (name, text) in kinds.items():
        log.warning("%s (%d times while decoding)", text, counts[kind])
        log.debug("first of them in %s", name)


def decoder_versions() -> str:
    """The installed versions of all that decodes, as JSON: a file that is bad with one set may be good with another."""
    versions: dict[str, str | None] = {}
    for package in DECODING_PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return json.dumps(versions)


def _read_stored(path: str, preprocess: Preprocess) -> StoredArray:
    pixels = read_pixels(path)
    if pixels.min() == pixels.max():
        raise ImageError(
            f"{path}: constant image, every pixel is {pixels.flat[0]:g}; expected at least two grey values"
        )
    return preprocess.store(pixels)
