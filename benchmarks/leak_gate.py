"""How well the leak gate tells copies of a film from films of other people, and how long it takes.

python benchmarks/leak_gate.py --studies 400 --images 15000

First table: copies of phantom films (re-encoded, resized, brighter, other contrast, cropped, marked, turned, several at
once) as positives, all pairs of distinct phantoms as negatives. Each method has the lowest threshold that raises no
false alarm on the negatives, the gate has its own, and its false alarms are counted. Rows of
`imagehash` are there where it is installed. Second table: seconds and memory of a whole search over made-up
stored images, with the closer looks that it really makes.
"""

import argparse
import importlib.util
import logging
import os
import platform
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from cxr.data.leaks.alignment import detail_correlation
from cxr.data.leaks.candidates import Pairs, find_candidates
from cxr.data.leaks.films import LINKED, NEAR, find_films
from cxr.data.leaks.similar import SimilarImages
from cxr.data.leaks.thumbnails import THUMBNAIL, ThumbnailStore, without_bars
from cxr.data.phantoms.cohort import plan_cohort
from cxr.data.phantoms.radiograph import render
from cxr.data.phantoms.spec import CohortSpec
from cxr.data.phantoms.study import exams
from cxr.imaging.preprocess import Preprocess
from cxr.imaging.resize import resize

Images = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]


def main() -> None:
    """Read the command line, measure and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=400, help="distinct phantom films")
    parser.add_argument("--copied", type=int, default=100, help="films of which copies are made")
    parser.add_argument("--size", type=int, default=224, help="side of the stored images in pixels")
    parser.add_argument("--images", type=int, default=15000, help="images of the search that is timed")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    load = f", load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    print(f"{os.cpu_count()} CPU cores{load}, numpy {np.__version__}, Python {platform.python_version()}")
    Console().print(compare_methods(options.studies, options.copied, options.size))
    Console().print(time_search(options.images, options.size))


def make_copies(film: Images, rng: np.random.Generator) -> dict[str, Images]:
    """What happens to films, drawn anew for each."""
    height, width = film.shape
    marked = film.copy()
    place = (int(rng.uniform(0.03, 0.6) * width), int(rng.uniform(0.08, 0.95) * height))
    cv2.putText(marked, "PORTABLE", place, cv2.FONT_HERSHEY_SIMPLEX, width / 512 * rng.uniform(0.8, 1.6), 255, 2)
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(-2, 2), 1.0)
    several = crop(marked, rng.uniform(0, 0.04, 4))
    several = shrink(to_bytes(255 * (several / 255) ** rng.uniform(0.75, 1.3)), 0.6)
    return {
        "JPEG": to_jpeg(film, int(rng.uniform(30, 80))),
        "resized": shrink(film, rng.uniform(0.3, 0.8)),
        "brighter": to_bytes(film * rng.uniform(0.7, 1.3) + rng.uniform(-25, 25)),
        "contrast": to_bytes(255 * (film / 255) ** rng.uniform(0.6, 1.6)),
        "cropped": crop(film, rng.uniform(0, 0.06, 4)),
        "marker": marked,
        "turned": cv2.warpAffine(film, turn, (width, height)),
        "several": to_jpeg(several, 60),
    }


def to_bytes(values: npt.NDArray[np.float64]) -> Images:
    """Rounded and clipped to 0..255."""
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def to_jpeg(film: Images, quality: int) -> Images:
    """Written and read again."""
    return cv2.imdecode(cv2.imencode(".jpg", film, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_GRAYSCALE)


def shrink(film: Images, factor: float) -> Images:
    """Resampled to that share of its sides."""
    return cv2.resize(film, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)


def crop(film: Images, shares: npt.NDArray[np.float64]) -> Images:
    """Without these shares of (left, top, right, bottom)."""
    height, width = film.shape
    left, top, right, bottom = (round(share * side) for share, side in zip(shares, (width, height) * 2, strict=True))
    return film[top : height - bottom, left : width - right]


def compare_methods(studies: int, copied: int, size: int) -> Table:
    """Found copies of each kind and false alarms, a row per method."""
    preprocess, rng = Preprocess(size=(size, size)), np.random.default_rng(0)
    plain = {"repeat_patients": 0, "exact_duplicates": 0, "near_duplicates": 0, "second_images": 0}
    spec = CohortSpec(studies=studies, size=512, seed=7, **plain)
    drawn = [to_bytes(255 * render(exams(plan, spec)[0]).display) for plan in plan_cohort(spec)]

    def store(films: list[Images]) -> Images:
        return np.stack([preprocess.store(film.astype(np.float32) / 255) for film in films])

    films = store(drawn)
    made = [make_copies(film, rng) for film in drawn[:copied]]
    copies = {kind: store([one[kind] for one in made]) for kind in made[0]}
    table = Table(title=f"copies found: {studies} distinct phantoms, {copied} copies of each kind, {size} px")
    for name in ("method", "threshold", "false alarms", *copies):
        table.add_column(name, justify="left" if name == "method" else "right")
    for name, describe in find_methods().items():
        table.add_row(name, *judge_vectors(describe, films, copies))
    for threshold, cells in judge_gate((NEAR, LINKED), films, copies).items():
        table.add_row("the gate", f"{threshold:.3f}", *cells)
    return table


def find_methods() -> dict[str, Callable[[Images], Vectors]]:
    """Ways to make a vector of length 1 of each image, whose product is a similarity."""
    methods: dict[str, Callable[[Images], Vectors]] = {
        f"thumbnail {side}x{side}, correlation": lambda images, side=side: to_thumbnails(images, side)
        for side in (16, 32)
    }
    if importlib.util.find_spec("imagehash") is None:
        print("imagehash is not installed: no rows for it")
        return methods
    import imagehash
    from PIL import Image

    def hashed(function: Callable[..., object], side: int) -> Callable[[Images], Vectors]:
        def describe(images: Images) -> Vectors:
            bits = [function(Image.fromarray(image), hash_size=side).hash.ravel() for image in images]
            return (2 * np.array(bits, np.float32) - 1) / side

        return describe

    for name in ("phash", "dhash", "whash"):
        for side in (8, 16):
            methods[f"imagehash {name} {side}x{side}"] = hashed(getattr(imagehash, name), side)
    return methods


def to_thumbnails(images: Images, side: int) -> Vectors:
    """Grey values around their mean, of length 1."""
    vectors = np.stack([resize(image.astype(np.float32), (side, side)).ravel() for image in images])
    vectors -= vectors.mean(axis=1, keepdims=True)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def judge_vectors(describe: Callable[[Images], Vectors], films: Images, copies: dict[str, Images]) -> list[str]:
    """Cells of a row: the threshold above all distinct pairs, and the share of copies above it."""
    vectors = describe(films)
    similarity = vectors @ vectors.T
    threshold = float(similarity[np.triu_indices(len(films), 1)].max())
    found = [(describe(made) * vectors[: len(made)]).sum(axis=1) > threshold + 1e-6 for made in copies.values()]
    return [f"{threshold:.3f}", "0", *(f"{share.mean():.2f}" for share in found)]


def judge_gate(thresholds: tuple[float, ...], films: Images, copies: dict[str, Images]) -> dict[float, list[str]]:
    """False alarms and shares found by both stages of the gate, the copies hidden among all films; per threshold."""
    alarms: dict[float, set[tuple[int, int]]] = {threshold: set() for threshold in thresholds}
    cells: dict[float, list[str]] = {threshold: [] for threshold in thresholds}
    for made in copies.values():
        scores = score_pairs(np.concatenate([films, made]))
        true = {(row, len(films) + row) for row in range(len(made))}
        for threshold in thresholds:
            close = {pair for pair, score in scores.items() if score >= threshold}
            alarms[threshold] |= {pair for pair in close if max(pair) < len(films)}
            cells[threshold].append(f"{len(close & true) / len(true):.2f}")
    return {threshold: [f"{len(alarms[threshold])}", *cells[threshold]] for threshold in thresholds}


def score_pairs(images: Images) -> dict[tuple[int, int], float]:
    """The score of every pair that both stages find alike."""
    grey = images.astype(np.float32)

    def score(pairs: Pairs) -> npt.NDArray[np.float64]:
        return np.array(
            [detail_correlation(grey[one], grey[other]) for one, other in zip(pairs.first, pairs.second, strict=True)]
        )

    found = find_films(np.stack([to_thumbnail(image) for image in images]), score)
    rows = zip(found.first.tolist(), found.second.tolist(), strict=True)
    return dict(zip(rows, found.scores.tolist(), strict=True))


def to_thumbnail(image: Images) -> Images:
    """As the gate makes it."""
    return to_bytes(resize(without_bars(image.astype(np.float32)), (THUMBNAIL, THUMBNAIL)))


class Store:
    """An image store in memory: images by content hash."""

    stored_fingerprint = "made-up"

    def __init__(self, images: Images) -> None:
        self.images = images

    def build(self, paths: Sequence[str], hashes: Sequence[str]) -> dict[str, str]:
        """All are ready."""
        del paths, hashes
        return {}

    def open(self, paths: Sequence[str], hashes: Sequence[str]) -> "Opened":
        """The images of these files."""
        del paths
        return Opened(self.images, np.array([int(key) for key in hashes]))


@dataclass(frozen=True)
class Opened:
    """Some of the images, copied when they are asked for."""

    images: Images
    rows: Rows

    def __getitem__(self, at: Rows) -> Images:
        return self.images[self.rows[at]]


def time_search(images: int, size: int) -> Table:
    """Seconds and memory of a whole search, from stored images to the answer, of a half and of all of the images.

    As many pairs are looked at closely as may be; how many is printed before the table.
    """
    columns = ("images", "thumbnails, s", "first stage, s", "whole search, s", "of the processor, s", "peak memory, MB")
    table = Table(*columns, title=f"search, {size} px")
    drawn = draw_noise(images, size)
    for count in (images // 2, images):
        seconds = time_stages(drawn[:count])
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        table.add_row(f"{count}", *(f"{one:.1f}" for one in seconds), f"{peak:.0f}")
    return table


def time_stages(images: Images) -> tuple[float, float, float, float]:
    """Seconds of thumbnails, the first stage, a whole search with its own thumbnails, and the processor's for that."""
    store, keys = Store(images), [f"{number:06d}" for number in range(len(images))]
    with tempfile.TemporaryDirectory() as folder:
        prints, described = measure(lambda: ThumbnailStore(Path(folder) / "own", store).describe(keys, keys))
        _, first = measure(lambda: find_candidates(prints.thumbnails))
        before = time.process_time()
        _, whole = measure(lambda: SimilarImages(Path(folder), store).find(keys, keys))
    return described, first, whole, time.process_time() - before


def draw_noise(count: int, size: int) -> Images:
    """(count, size, size) smooth noise, ten images each about as alike as two films that are worth a closer look."""
    rng = np.random.default_rng(0)
    shared = rng.standard_normal((-(-count // 10), 12, 12), np.float32)
    drawn = (0.85 * shared[at // 10] + 0.53 * rng.standard_normal((12, 12), np.float32) for at in range(count))
    return np.stack([to_bytes(128 + 40 * cv2.resize(one, (size, size))) for one in drawn])


def measure(step: Callable[[], Any]) -> tuple[Any, float]:
    """What the step gives, and its seconds."""
    started = time.perf_counter()
    result = step()
    return result, time.perf_counter() - started


if __name__ == "__main__":
    main()
