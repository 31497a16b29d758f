"""Which images of a collection show the same film, looked for once: the second answer is read from a file.

Knows nothing of parts, patients or of what a leak is.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd
from filelock import FileLock

from cxr.data.image_store import ImageStore, StoredImages
from cxr.data.leaks.alignment import detail_correlation
from cxr.data.leaks.candidates import Pairs
from cxr.data.leaks.films import find_films
from cxr.data.leaks.thumbnails import ThumbnailStore
from cxr.errors import DataError

log = logging.getLogger(__name__)

METHOD = 2
"""Raised whenever thumbnails, candidates or scores change, so that no old answer is read."""
_BATCH = 256
_LEAST_SIDE = 96  # of stored images, in pixels: below, fine detail is gone and copies are missed
_PAIR = ["pixel_a", "pixel_b", "score"]


class Similar(NamedTuple):
    """What is alike in a collection.

    Attributes:
        pixel_hashes: content hash of a file -> hash of its stored pixels.
        pairs: `pixel_a, pixel_b, score`: different pixels that show one film, each pair once, `pixel_a < pixel_b`,
            score (`detail_correlation`) from LINKED to 1.
    """

    pixel_hashes: dict[str, str]
    pairs: pd.DataFrame


class SimilarImages:
    """Looks for equal and nearly equal images and remembers the answer by the set of files.

    Args:
        folder: Private folder for thumbnails and answers, made when needed.
        images: Where stored images come from.
    """

    def __init__(self, folder: Path, images: ImageStore) -> None:
        self.folder = Path(folder) / f"{images.stored_fingerprint}-{METHOD}"
        self._images = images
        self._thumbnails = ThumbnailStore(self.folder / "thumbnails.sqlite", images)

    def find(self, paths: Sequence[str], hashes: Sequence[str]) -> Similar:
        """Compare all images with all; the order of the files does not matter.

        Args:
            paths: The files, all of which the image store found good.
            hashes: The hash of each file's bytes.

        Raises:
            DataError: The folder cannot be written.
        """
        first_paths = dict(sorted(zip(hashes, paths, strict=True), reverse=True))
        keys = sorted(first_paths)
        answer = self.folder / f"{hashlib.sha256(' '.join(keys).encode()).hexdigest()[:32]}.json"
        known = _read(answer)
        return self._find_once(answer, [first_paths[key] for key in keys], keys) if known is None else known

    def _find_once(self, answer: Path, paths: list[str], keys: list[str]) -> Similar:
        """Search and remember, or wait for a process that does so already."""
        with _writing(answer.parent):
            answer.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(answer.with_suffix(".lock"))
            lock.acquire()
        try:
            known = _read(answer)
            if known is None:
                known = self._search(paths, keys)
                _write(known, answer)
            return known
        finally:
            lock.release()

    def _search(self, paths: list[str], keys: list[str]) -> Similar:
        prints = self._thumbnails.describe(paths, keys)
        pixel_hashes = np.array(prints.pixel_hashes, dtype=object)
        _, rows = np.unique(pixel_hashes.astype(str), return_index=True)  # in the order of the pixel hashes
        stored = self._images.open([paths[row] for row in rows], [keys[row] for row in rows])
        _warn_if_small(stored)
        found = find_films(prints.thumbnails[rows], partial(_score, stored))
        one, other = (pixel_hashes[rows[ends]].tolist() for ends in (found.first, found.second))
        pairs = _make_pairs(sorted(zip(one, other, found.scores.tolist(), strict=True)))
        log.info("compared %d images: %d pairs looked at closely, %d alike", len(rows), found.looked_at, len(pairs))
        return Similar(dict(zip(keys, prints.pixel_hashes, strict=True)), pairs)


def _warn_if_small(stored: StoredImages) -> None:
    side = min(stored[np.array([0])].shape[1:])
    if side < _LEAST_SIDE:
        log.warning(
            "images are stored at %d pixels a side: near copies show in fine detail, and below %d pixels some are "
            "missed; look for them once with preprocess.size=[224,224], as in cxr data leaks",
            side,
            _LEAST_SIDE,
        )


def _score(stored: StoredImages, pairs: Pairs) -> np.ndarray:
    """(P,) score of each pair, on several threads: OpenCV lets go of Python's lock."""
    scores = []
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # the pairs are parallel enough
    try:
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            for start in range(0, len(pairs.first), _BATCH):
                batch = slice(start, start + _BATCH)
                one, other = (_to_grey(stored, rows[batch]) for rows in (pairs.first, pairs.second))
                scores += list(pool.map(detail_correlation, one, other))
    finally:
        cv2.setNumThreads(threads)
    return np.array(scores, dtype=np.float64).round(6)


def _to_grey(stored: StoredImages, rows: np.ndarray) -> np.ndarray:
    """(N, h, w) float32 from 0 to 255."""
    images = stored[rows]
    return images.astype(np.float32) * np.float32(255 / np.iinfo(images.dtype).max)


def _make_pairs(rows: Sequence[Sequence[object]]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=_PAIR, dtype=object)
    return table.astype({"score": "float64"})


def _read(path: Path) -> Similar | None:
    try:
        known = json.loads(path.read_text())
        return Similar(known["pixel_hashes"], _make_pairs(known["pairs"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(similar: Similar, path: Path) -> None:
    draft = path.with_suffix(f".{os.getpid()}.draft")
    with _writing(path.parent):
        text = json.dumps({"pixel_hashes": similar.pixel_hashes, "pairs": similar.pairs.values.tolist()})
        draft.write_text(text)
        draft.replace(path)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"cannot write what the leak gate found to {folder}: {error}; make room, choose another folder by "
            "paths.cache_dir or the environment variable CXR_CACHE_DIR, or go without by data.leak_gate=off"
        ) from error
