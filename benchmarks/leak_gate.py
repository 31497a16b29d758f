"""How well the leak gate tells copies of a film from films of other people, and how long it takes.

python benchmarks/leak_gate.py --studies 400 --images 15000

First table: copies of phantom films (re-encoded, resized, brighter, other contrast, cropped, marked, turned, several at
once) as positives, all pairs of distinct phantoms as negatives. Each method has the lowest threshold that raises no
false alarm on the negatives, the gate has its own, and its false alarms are counted. Rows of
`imagehash` are there where it is installed. Second table: seconds and memory of a search over made-up thumbnails.
"""

import argparse
import importlib.util
import os
import platform
import resource
import time
from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from cxr.data.leaks.alignment import detail_correlation
from cxr.data.leaks.candidates import find_candidates
from cxr.data.leaks.films import LINKED, NEAR
from cxr.data.leaks.thumbnails import THUMBNAIL, without_bars
from cxr.data.phantoms.cohort import plan_cohort
from cxr.data.phantoms.radiograph import render
from cxr.data.phantoms.spec import CohortSpec
from cxr.data.phantoms.study import exams
from cxr.imaging.preprocess import Preprocess
from cxr.imaging.resize import resize

Images = npt.NDArray[np.uint8]
Vectors = npt.NDArray[np.float32]


def main() -> None:
    """Read the command line, measure and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=400, help="distinct phantom films")
    parser.add_argument("--copied", type=int, default=100, help="films of which copies are made")
    parser.add_argument("--size", type=int, default=224, help="side of the stored images in pixels")
    parser.add_argument("--images", type=int, default=15000, help="images of the search that is timed")
    options = parser.parse_args()
    load = f", load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    print(f"{os.cpu_count()} CPU cores{load}, numpy {np.__version__}, Python {platform.python_version()}")
    Console().print(compare_methods(options.studies, options.copied, options.size))
    Console().print(time_search(options.images))


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
    """The score of every candidate pair."""
    pairs = find_candidates(np.stack([to_thumbnail(image) for image in images]))
    grey = images.astype(np.float32)
    rows = zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)
    return {(one, other): detail_correlation(grey[one], grey[other]) for one, other in rows}


def to_thumbnail(image: Images) -> Images:
    """As the gate makes it."""
    return to_bytes(resize(without_bars(image.astype(np.float32)), (THUMBNAIL, THUMBNAIL)))


def time_search(images: int) -> Table:
    """Seconds and memory for a half and for all of the images: smooth noise, for which all work is done."""
    table = Table("images", "first stage, s", "candidates", "closer look, ms each", "peak memory, MB", title="search")
    rng = np.random.default_rng(0)
    for count in (images // 2, images):
        noise = rng.standard_normal((count, 12, 12), np.float32)
        thumbnails = np.stack([to_bytes(128 + 40 * cv2.resize(one, (THUMBNAIL,) * 2)) for one in noise])
        started = time.perf_counter()
        pairs = find_candidates(thumbnails)
        searched = time.perf_counter() - started
        grey = [resize(one.astype(np.float32), (224, 224)) for one in thumbnails[:100]]
        started = time.perf_counter()
        for one, other in zip(grey[::2], grey[1::2], strict=False):
            detail_correlation(one, other)
        each = (time.perf_counter() - started) / (len(grey) // 2)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        table.add_row(f"{count}", f"{searched:.1f}", f"{len(pairs.first)}", f"{1000 * each:.1f}", f"{peak:.0f}")
    return table


if __name__ == "__main__":
    main()
