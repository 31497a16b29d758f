"""How much memory training on many images takes: python benchmarks/training_memory.py --images 100000.

A made-up cache of images of 224 px, all black, and a table of as many rows go through the datamodule, the module and
the trainer of a run for some steps. Memory is what the process holds for itself (RssAnon of /proc/self/status, so Linux
only), at its largest after a step. The images are a map of the cache's file: that is the system's page cache, given
back when others need memory, and shared by all processes that train on it.

The ratio is that of the images' own size to this memory: what holding them all in memory would take at least.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytorch_lightning as pl
from rich.console import Console
from rich.table import Table

from cxr.compose import compose_config
from cxr.data.augment import AffineAugment
from cxr.data.cache import ImageCache
from cxr.data.cache_index import CacheIndex
from cxr.data.cohort import Cohort
from cxr.imaging.preprocess import Preprocess
from cxr.memory import keep_freed_memory
from cxr.models.build import build_net
from cxr.training.assemble import build_task, build_trainer
from cxr.training.datamodule import ChestDataModule
from cxr.training.precision import settle_precision

SIZE, GIB = 224, 2**30


class Watch(pl.Callback):
    """The largest memory of this process alone after a step, in bytes."""

    peak = 0

    def on_train_batch_end(self, *_: object) -> None:
        """Look."""
        self.peak = max(self.peak, anonymous_bytes())


def anonymous_bytes() -> int:
    """Memory of this process that is no file's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def make_cache(folder: Path, hashes: list[str]) -> ImageCache:
    """A cache whose file is as long as so many images and takes no room on the disk."""
    cache = ImageCache(folder, Preprocess(size=(SIZE, SIZE)))
    cache.folder.mkdir(parents=True)
    with (cache.folder / "images.bin").open("wb") as file:
        file.truncate(len(hashes) * SIZE * SIZE)
    index = CacheIndex(cache.folder / "index.sqlite", f"uint8 {SIZE}x{SIZE}")
    index.add({key: row for row, key in enumerate(hashes)}, {})
    return cache


def train(folder: Path, images: int, steps: int, batch: int) -> int:
    """Largest memory of some steps, in bytes."""
    config = settle_precision(compose_config([
        "experiment=demo", "preprocess=unit_224", f"paths.output_dir='{folder}/run'", "run_name=bench",
        "trainer.accelerator=cpu", "trainer.max_epochs=1", f"+trainer.limit_train_batches={steps}",
        "+trainer.limit_val_batches=2", "callbacks=quiet",
    ])[1])  # fmt: skip
    (folder / "run").mkdir()
    hashes = [f"{number:064x}" for number in range(images)]
    parts = np.where(np.arange(images) % 10 == 0, "val", "train")
    samples = pd.DataFrame({"image_path": hashes, "content_hash": hashes, "label": np.arange(images) // 10 % 2})
    cohort = Cohort(samples.assign(split=parts), ["normal", "finding"], {})
    task = build_task(config, build_net("custom_cnn", 2), cohort)
    data = ChestDataModule(
        cohort.samples, make_cache(folder / "cache", hashes), Preprocess(size=(SIZE, SIZE)), AffineAugment(), "none",
        batch, 0, seed=0,
    )  # fmt: skip
    trainer, watch = build_trainer(config, [], {}), Watch()
    trainer.callbacks.append(watch)
    trainer.fit(task, datamodule=data, weights_only=True)
    return watch.peak


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[100_000], help="in the cache")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=32, help="images per step")
    arguments = parser.parse_args()
    keep_freed_memory()
    table = Table("images", "their size, GiB", "memory, GiB", "ratio", title=f"custom CNN, {SIZE} px")
    for images in arguments.images:
        with tempfile.TemporaryDirectory() as folder:
            memory = train(Path(folder), images, arguments.steps, arguments.batch)
        size = images * SIZE * SIZE
        table.add_row(f"{images:,}", f"{size / GIB:.2f}", f"{memory / GIB:.2f}", f"{size / memory:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
