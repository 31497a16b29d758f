"""How long a large table takes from a CSV file to a split, and how much memory: python benchmarks/samples_table.py.

A made-up table, several images to a patient and an official test part, goes through the table reader, the gate, groups
and split, and is searched for leaks, also in a split by image, which leaks; then the same rows as a multi-label table.
No image is read. Seconds are of one run, on the clock and of the processor (the rest is other programs on the machine);
memory is the process's peak, interpreter included.
"""

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from rich.console import Console
from rich.table import Table

from cxr.data.leaks.gate import find_leaks
from cxr.data.readers import make_table_samples
from cxr.data.samples import PARTS, make_samples
from cxr.data.splits import make_groups, make_split

FINDINGS = ("normal", "pneumonia", "effusion", "oedema", "mass", "covid")
SHARES = (0.5, 0.2, 0.15, 0.1, 0.03, 0.02)
TARGETS = {f"t{number:02d}": 0.3 / (number + 1) for number in range(14)}
COLUMNS = {"image_path": "path"}


def make_table(rows: int, seed: int = 0) -> pd.DataFrame:
    """A raw table: patients with one to about ten studies, a few shared hashes, an official test part of a tenth."""
    rng = np.random.default_rng(seed)
    patients = np.minimum(rng.zipf(1.6, rows) + rng.integers(0, rows // 3, rows), rows)
    numbers = rng.permutation(rows)
    pairs = list(zip(numbers, patients, strict=True))
    return pd.DataFrame(
        {
            "path": [
                f"part{n % 50:02d}/patient{p:06d}/image{n:06d}.png" for n, p in zip(numbers, patients, strict=True)
            ],
            "finding": rng.choice(FINDINGS, rows, p=SHARES),
            "patient_id": [f"patient{p:06d}" for p in patients],
            "study_id": [f"study{p:06d}-{n % 3}" for n, p in pairs],
            "split": np.where(patients % 10 == 0, "test", "train"),
            "source": rng.choice(["a", "b", "c"], rows),
            **{name: rng.choice(["0", "1", ""], rows, p=[0.6, share, 0.4 - share]) for name, share in TARGETS.items()},
        }
    )


def write_in_another_process(path: Path, rows: int) -> None:
    """Keep the memory that making the table takes out of the measurement."""
    process = multiprocessing.get_context("spawn").Process(target=write_table, args=(path, rows))
    process.start()
    process.join()


def write_table(path: Path, rows: int) -> None:
    """Write the made-up table."""
    make_table(rows).to_csv(path, index=False)


def make_hashes(rows: int) -> list[str]:
    """Content hashes of which one in a hundred occurs twice."""
    return [f"{number:064x}" for number in np.random.default_rng(1).permutation(rows) % (rows - rows // 100)]


def peak_mb() -> float:
    """Peak memory of this process, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--rows", type=int, default=400_000, help="rows of the table")
    options = parser.parse_args()
    table = Table("step", "seconds", "of the processor", "peak memory, MB", title=f"{options.rows} rows")
    seconds: dict[str, npt.NDArray[np.float64]] = {}

    def add_row(name: str, taken: npt.NDArray[np.float64], style: str | None = None) -> None:
        table.add_row(name, *(f"{one:.2f}" for one in taken), f"{peak_mb():.0f}", style=style)

    def measure(name: str, step: Callable[[], Any]) -> Any:
        started = np.array([time.perf_counter(), time.process_time()])
        result = step()
        seconds[name] = np.array([time.perf_counter(), time.process_time()]) - started
        add_row(name, seconds[name])
        return result

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        write_in_another_process(path, options.rows)
        raw = measure("read the CSV", lambda: make_table_samples(path, columns=COLUMNS))
        samples, _ = measure("gate", lambda: make_samples(raw, None))
        samples["content_hash"] = make_hashes(len(samples))
        samples["group"] = measure("groups", lambda: make_groups(samples))
        split = measure("split", lambda: make_split(samples, (0.8, 0.1, 0.1), 0))
        measure("leak check", lambda: find_leaks(samples.assign(split=split), None))
        whole = np.sum(list(seconds.values()), axis=0)
        by_image = np.random.default_rng(2).choice(PARTS, len(samples), p=(0.8, 0.1, 0.1))
        measure("leak check, leaking split", lambda: find_leaks(samples.assign(split=by_image), None))
        add_row("CSV to leak check", whole, style="bold")
        raw = measure("read as 14 targets", lambda: make_table_samples(path, columns=COLUMNS, targets=list(TARGETS)))
        samples, _ = measure("gate, 14 targets", lambda: make_samples(raw, None))
        measure("split, 14 targets", lambda: make_split(samples, (0.8, 0.1, 0.1), 0))
    Console().print(table)


if __name__ == "__main__":
    main()
