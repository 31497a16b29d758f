"""How long intervals of all metrics take: python benchmarks/bootstrap.py.

The patient bootstrap of this project beside a plain loop that resamples rows and takes the same metrics by scikit-learn
(`classification_metrics`). The loop makes a few draws, and its time is scaled to as many as ours; `ratio` is its time
divided by ours.
"""

import argparse
import time

import numpy as np
from rich.console import Console
from rich.table import Table

from cxr.evaluation.metrics import classification_metrics
from cxr.evaluation.statistics.bootstrap import bootstrap_metrics


def make_predictions(rows: int, classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(target, probs, patients) of a made-up model, about two rows to a patient."""
    rng = np.random.default_rng(0)
    target = rng.integers(classes, size=rows)
    powers = np.exp(rng.normal(size=(rows, classes)) + np.eye(classes)[target])
    return target, powers / powers.sum(axis=1, keepdims=True), rng.integers(rows // 2, size=rows)


def time_loop(target: np.ndarray, probs: np.ndarray, patients: np.ndarray, names: list[str], draws: int) -> float:
    """Seconds for one draw of the plain loop."""
    rng = np.random.default_rng(0)
    order = np.argsort(patients, kind="stable")
    rows_of = np.split(order, np.flatnonzero(np.diff(patients[order])) + 1)
    started = time.perf_counter()
    for _ in range(draws):
        rows = np.concatenate([rows_of[one] for one in rng.integers(len(rows_of), size=len(rows_of))])
        classification_metrics(target[rows], probs[rows], names)
    return (time.perf_counter() - started) / draws


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000, help="predictions")
    parser.add_argument("--draws", type=int, default=1000, help="bootstrap draws of ours")
    parser.add_argument("--loop-draws", type=int, default=20, help="draws of the plain loop")
    options = parser.parse_args()
    title = f"{options.rows} predictions, {options.draws} draws, all metrics"
    table = Table("classes", "this project, s", "plain loop, s", "ratio", title=title)
    for classes in (2, 4):
        names = [f"class {k}" for k in range(classes)]
        target, probs, patients = make_predictions(options.rows, classes)
        started = time.perf_counter()
        bootstrap_metrics(target, probs, patients, names, draws=options.draws)
        ours = time.perf_counter() - started
        loop = time_loop(target, probs, patients, names, options.loop_draws) * options.draws
        table.add_row(str(classes), f"{ours:.2f}", f"{loop:.1f}", f"{loop / ours:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
