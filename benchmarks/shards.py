"""How fast a machine gets decoded images: python benchmarks/shards.py.

One table in one run, on a synthetic slice: writing shards, filling a cache from them, and reading batches in random
order from the filled cache, as an epoch does. The shards lie on the disk of this machine and are in its page cache, so
the network and object storage are left out; `cp` is the same files copied, and the ratio is to it.
"""

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from cxr.data.cache import ImageCache
from cxr.data.shards import ShardReader, write_shards
from cxr.imaging.preprocess import Preprocess

BATCH = 64


def main() -> None:
    """Read the command line, measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--size", type=int, default=224, help="height and width in pixels")
    arguments = parser.parse_args()
    print(f"{os.cpu_count()} CPU cores, load average {os.getloadavg()[0]:.1f}")
    preprocess = Preprocess(size=(arguments.size, arguments.size))
    table = Table("step", "images/s", "MB/s", "ratio")
    with tempfile.TemporaryDirectory() as folder:
        measured = measure(Path(folder), arguments.images, preprocess)
    megabytes = arguments.images * image_bytes(preprocess) / 1e6
    for step, seconds in measured.items():
        rates = (f"{arguments.images / seconds:,.0f}", f"{megabytes / seconds:,.0f}")
        table.add_row(step, *rates, f"{measured['cp'] / seconds:.2f}")
    Console().print(table)


def measure(folder: Path, count: int, preprocess: Preprocess) -> dict[str, float]:
    """Seconds of each step."""
    images = np.random.default_rng(0).integers(0, 2**8, (count, *preprocess.size), np.uint8)
    images = images.astype(preprocess.precision)
    hashes = [f"{number:064x}" for number in range(count)]
    cache = ImageCache(folder / "cache", preprocess, source=ShardReader(str(folder / "shards"), preprocess))
    order = np.random.default_rng(1).permutation(count)
    seconds = {"write shards": time_of(lambda: write_shards(images, hashes, preprocess, folder / "shards"))}
    seconds["cp"] = time_of(lambda: shutil.copytree(folder / "shards", folder / "copy"))
    seconds["fill the cache from shards"] = time_of(lambda: cache.build(hashes, hashes))
    stored = cache.open(hashes, hashes)
    seconds["read an epoch from the cache"] = time_of(
        lambda: [stored[order[start : start + BATCH]] for start in range(0, count, BATCH)]
    )
    return seconds


def image_bytes(preprocess: Preprocess) -> int:
    """Bytes of a stored image."""
    return preprocess.size[0] * preprocess.size[1] * np.dtype(preprocess.precision).itemsize


def time_of(step: Callable[[], object]) -> float:
    """Seconds that a step takes."""
    began = time.perf_counter()
    step()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
