"""What stopping weak trials early saves: epochs and best value of one search, with and without a pruner.

python benchmarks/pruning.py --seeds 0 1 2 --trials 20

The demo's search over optimisation, regularisation and augmentation, on small phantoms (synthetic: not clinical). Each
line is a sweep of its own by run.py; only the pruner differs.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd
import yaml
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
SMALL = [
    "experiment=demo", "data.cohort.studies=300", "data.cohort.size=64", "preprocess.size=[32,32]", "net.filters_1=8",
    "net.filters_2=8", "net.filters_3=16", "net.filters_4=16", "net.dense_units=16", "callbacks=quiet", "logger=none",
]  # fmt: skip


def main() -> None:
    """Run the sweeps, print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--pruners", nargs="+", default=["median", "halving", "hyperband"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            {"seed": seed, "pruner": pruner} | run_sweep(Path(folder), seed, pruner, options.trials, options.epochs)
            for seed in options.seeds
            for pruner in ("none", *options.pruners)
        ]
    Console().print(to_table(pd.DataFrame(rows), f"{options.trials} trials of up to {options.epochs} epochs"))


def run_sweep(folder: Path, seed: int, pruner: str, trials: int, epochs: int) -> dict[str, float]:
    """Epochs trained, trials stopped, best value and its test AUROC of one sweep."""
    name = f"{pruner}_{seed}"
    places = [f"paths.log_dir={folder}", f"paths.data_dir={folder}/data", f"paths.cache_dir={folder}/cache"]
    words = ["-m", "hparams_search=template_optuna", f"hydra/pruner={pruner}", f"study_name={name}", f"seed={seed}",
             f"hydra.sweeper.n_trials={trials}", f"trainer.max_epochs={epochs}", *SMALL, *places]  # fmt: skip
    command = [sys.executable, str(ROOT / "run.py"), *words]
    ended = subprocess.run(command, check=False, cwd=folder, env=os.environ, capture_output=True, text=True)
    if ended.returncode != 0:
        raise SystemExit(ended.stdout + ended.stderr)
    table = pd.read_csv(folder / "sweeps" / name / "trials.csv")
    best = yaml.safe_load((folder / "sweeps" / name / "best.yaml").read_text())
    return {
        "epochs": int(table["epochs"].sum()), "stopped": int((table["state"] == "pruned").sum()),
        "best": best["value"], "test": best["test"]["test/auroc"], "seconds": float(table["seconds"].sum()),
    }  # fmt: skip


def to_table(rows: pd.DataFrame, title: str) -> Table:
    """One line per sweep, with how many times fewer epochs it took than without a pruner, then means over the seeds."""
    table = Table("seed", "pruner", "epochs", "saved", "stopped", "best val AUROC", "its test AUROC", "s", title=title)
    means = rows.groupby("pruner", sort=False).mean(numeric_only=True).reset_index().assign(seed="mean")
    for part in (rows, means):
        whole = part[part["pruner"] == "none"].set_index("seed")["epochs"]
        for row in part.itertuples():
            saved = whole[row.seed] / row.epochs
            table.add_row(
                str(row.seed), row.pruner, f"{row.epochs:.0f}", f"{saved:.2f}", f"{row.stopped:.0f}", f"{row.best:.4f}",
                f"{row.test:.4f}", f"{row.seconds:.0f}",
            )  # fmt: skip
        table.add_section()
    return table


if __name__ == "__main__":
    main()
