"""How long it takes until training trains, an image is predicted or a trial begins: python benchmarks/startup.py.

The table has medians of seconds on the clock and of the processor, from the start of a process, of commands that ran
once before:

- importing Lightning: `import pytorch_lightning` in a new process, what every program that trains with it pays;
- first step: `train.py experiment=demo` on a warm cache of small phantoms until its first training step has been made;
- predicting one image: `cxr predict film.png --bundle BUNDLE`, a PNG of 1024 px and an exported DenseNet121 of random
  weights, which ONNX Runtime runs;
- a trial beyond its epochs: in a sweep of trials of one epoch, the time from the start of a trial to the start of the
  next one, with all that a sweep writes between them, without the seconds of its epochs (`history.csv`).

The commands take turns. The ratio is the seconds of importing Lightning divided by those of the row.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import cv2
import numpy as np
import optuna
import pandas as pd
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
ONE_STEP = """
import os, runpy
from cxr.entry import prepare_environment
prepare_environment()
from cxr.training.module import ClassificationTask
ClassificationTask.on_train_batch_end = lambda *_: os._exit(0)
runpy.run_path("train.py", run_name="__main__")
"""
SMALL = ("experiment=demo", "data.cohort.studies=110", "data.cohort.size=64", "trainer.accelerator=cpu")
CXR = ("-c", "import sys; from cxr.cli import main; sys.exit(main())")
"""What the command `cxr` runs."""
NETS = {
    "densenet121": {"name": "torchvision_densenet", "architecture": "densenet121", "in_channels": 1},
    "custom_cnn": {"name": "custom_cnn"},
}
Cost = tuple[float, float]


def run(words: list[str], folder: Path) -> Cost:
    """Seconds on the clock and of the processor of a command of Python in the project's folder."""
    places = {"CXR_DATA_DIR": f"{folder}/data", "CXR_LOG_DIR": f"{folder}/logs", "CXR_CACHE_DIR": f"{folder}/cache"}
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *words], cwd=ROOT, env={**os.environ, **places}, check=True, capture_output=True)
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def sweep(folder: Path, trials: int) -> list[float]:
    """Seconds from trial to trial without those of their epochs, but of the first, which imports what all need."""
    words = ["run.py", "-m", "hparams_search=study", "study_name=bench", *SMALL, f"hydra.sweeper.n_trials={trials}"]
    searched = [
        "optimizer.lr=tag(log,interval(1e-4,1e-2))",
        "trainer.max_epochs=1",
        "callbacks=quiet",
        "hydra/pruner=none",
    ]
    run([*words, *searched], folder)
    place = folder / "logs" / "sweeps" / "bench"
    study = optuna.load_study(study_name="bench", storage=f"sqlite:///{place}/study.db")
    starts = pd.Series([trial.datetime_start for trial in study.trials]).sort_values()
    trained = [pd.read_csv(place / f"trial_{number}" / "history.csv")["seconds"].sum() for number in starts.index]
    return list((starts.diff().shift(-1).dt.total_seconds() - trained)[1:-1])


def write_image_and_bundle(folder: Path, net: str) -> list[str]:
    """An image and the exported bundle of a net of random weights; returns the words that predict one by the other."""
    from cxr.imaging.preprocess import Preprocess
    from cxr.inference.bundle import write_bundle
    from cxr.inference.onnx_bundle import read_with_graphs, write_exported
    from cxr.models.build import build_net

    film, bundle = folder / "film.png", folder / "bundle"
    cv2.imwrite(str(film), np.random.default_rng(0).integers(0, 256, (1024, 1024), dtype=np.uint8))
    names = ["normal", "pneumonia"]
    write_bundle(bundle, build_net(num_classes=2, **NETS[net]), NETS[net], names, Preprocess(size=(224, 224)), {})
    write_exported(read_with_graphs(bundle), bundle, {})
    return [*CXR, "predict", str(film), "--bundle", str(bundle)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=3, help="that each command is run")
    parser.add_argument("--trials", type=int, default=10, help="of the sweep, at least 3; 0 for no sweep")
    parser.add_argument("--net", choices=NETS, default="densenet121", help="that predicts")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        commands = {
            "importing Lightning": ["-c", "import pytorch_lightning"],
            "first step": ["-c", ONE_STEP, *SMALL],
            "predicting one image": write_image_and_bundle(folder, arguments.net),
        }
        for words in commands.values():
            run(words, folder)  # makes the phantoms and the cache
        turns = [{what: run(words, folder) for what, words in commands.items()} for _ in range(arguments.times)]
        beyond = sweep(folder, arguments.trials) if arguments.trials else []
    costs = {what: [turn[what] for turn in turns] for what in commands}
    print_costs(costs, beyond)


def print_costs(costs: dict[str, list[Cost]], beyond: list[float]) -> None:
    """Seconds of each command and of a trial, and how many times they are those of importing Lightning."""
    table = Table(title=f"load average {os.getloadavg()[0]:.1f}", title_justify="left")
    for column in ("what", "seconds", "processor", "ratio"):
        table.add_column(column, justify="left" if column == "what" else "right")
    medians = {what: tuple(median(values) for values in zip(*each, strict=True)) for what, each in costs.items()}
    importing = medians["importing Lightning"][0]
    for what, (seconds, processor) in medians.items():
        table.add_row(what, f"{seconds:.2f}", f"{processor:.2f}", f"{importing / seconds:.2f}")
    if beyond:
        table.add_row("a trial beyond its epochs", f"{median(beyond):.2f}", "", f"{importing / median(beyond):.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
