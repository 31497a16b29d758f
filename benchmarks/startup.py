"""How long it takes until training trains, an image is predicted or a trial begins: python benchmarks/startup.py.

The table has medians of seconds on the clock and of the processor, from the start of a process to its end, of commands
that ran once before:

- importing Lightning: `import pytorch_lightning` in a new process, what every program that trains with it pays;
- first step: `train.py experiment=demo debug=fast` on a warm cache of small phantoms, which ends after one batch of
  training and one of validation;
- predicting one image: `cxr predict film.png --bundle BUNDLE`, a PNG of 1024 px and an exported DenseNet121 of random
  weights, which ONNX Runtime runs.

Last line: a sweep of some trials of one epoch; a trial's seconds without those of its epochs (`history.csv`).
The ratio is importing Lightning divided by the row, of processor seconds.
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
import pandas as pd
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
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
    """Seconds of each trial but the first without those of its epochs: the first one imports what all need."""
    words = ["run.py", "-m", "hparams_search=study", "study_name=bench", *SMALL, f"hydra.sweeper.n_trials={trials}"]
    searched = [
        "optimizer.lr=tag(log,interval(1e-4,1e-2))",
        "trainer.max_epochs=1",
        "callbacks=quiet",
        "hydra/pruner=none",
    ]
    run([*words, *searched], folder)
    place = folder / "logs" / "sweeps" / "bench"
    table = pd.read_csv(place / "trials.csv").sort_values("number")
    trained = [pd.read_csv(place / f"trial_{number}" / "history.csv")["seconds"].sum() for number in table["number"]]
    return list((table["seconds"] - trained)[1:])


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
    parser.add_argument("--trials", type=int, default=4, help="of the sweep; 0 for no sweep")
    parser.add_argument("--net", choices=NETS, default="densenet121", help="that predicts")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        commands = {
            "importing Lightning": ["-c", "import pytorch_lightning"],
            "first step": ["train.py", *SMALL, "debug=fast"],
            "predicting one image": write_image_and_bundle(folder, arguments.net),
        }
        for words in commands.values():
            run(words, folder)  # makes the phantoms and the cache
        costs = {what: [run(words, folder) for _ in range(arguments.times)] for what, words in commands.items()}
        beyond = sweep(folder, arguments.trials) if arguments.trials else []
    print_costs(costs)
    if beyond:
        print(f"a trial beyond its epochs: {median(beyond):.1f} s, median of {len(beyond)}")


def print_costs(costs: dict[str, list[Cost]]) -> None:
    """Seconds of each command, and how many times they are those of importing Lightning."""
    table = Table(title=f"load average {os.getloadavg()[0]:.1f}", title_justify="left")
    for column in ("what", "seconds", "processor", "ratio"):
        table.add_column(column, justify="left" if column == "what" else "right")
    medians = {what: tuple(median(values) for values in zip(*each, strict=True)) for what, each in costs.items()}
    for what, (seconds, processor) in medians.items():
        ratio = medians["importing Lightning"][1] / processor
        table.add_row(what, f"{seconds:.2f}", f"{processor:.2f}", f"{ratio:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
