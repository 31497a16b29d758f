"""How long `cxr data report` takes, from the start of its process to its end: python benchmarks/data_report.py

A made-up dataset of JPEG files of 1024 x 1024 pixels in two classes, of nobody's chest: hashed, decoded to 224 px,
searched for copies and described, with nothing in any cache; then the same command again.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

SIDE = 1024


def main() -> None:
    """Write the images, time the command twice, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    images = parser.parse_args().images
    table = Table("command", "seconds", title=f"{images} images, load average {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_images(root / "images", images)
        for caches in ("nothing cached", "again"):
            table.add_row(caches, f"{time_report(root):.1f}")
    Console().print(table)


def write_images(folder: Path, count: int) -> None:
    """Smooth random pictures, all different."""
    draws = np.random.default_rng(0)
    for number in range(count):
        path = folder / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = draws.integers(0, 256, (24, 24), dtype=np.uint8)
        cv2.imwrite(str(path), cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC))


def time_report(root: Path) -> float:
    """Seconds of the command."""
    words = ["data=image_folder", f"data.root={root / 'images'}", "preprocess.size=[224,224]"]
    places = [f"paths.cache_dir={root / 'cache'}", "--out", str(root / "out")]
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "cxr.cli", "data", "report", *words, *places], check=True, stdout=sys.stderr)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
