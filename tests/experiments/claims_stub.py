"""A worker without Hydra: `python claims_stub.py STORAGE FOLDER TRIALS SECONDS` takes part in the study "kills".

Each trial adds a line to ``ledger.txt`` when it begins and when it has ended.
"""

import os
import random
import sys
import time
from pathlib import Path

import optuna

from cxr.experiments.study import open_study
from cxr.experiments.sweep_claims import Claims
from cxr.experiments.sweep_storage import PatientStorage, holding, make_lock

HEARTBEAT, PATIENCE = 1, 60


def main(address: str, folder: Path, n_trials: int, seconds: float) -> None:
    lock = make_lock(address, folder, "kills", "claim", PATIENCE)
    with holding(lock):
        storage = PatientStorage(address, PATIENCE, HEARTBEAT)
        study = open_study(storage, "kills", "max")

    def write(line: str) -> None:
        with (folder / "ledger.txt").open("a") as file:
            file.write(f"{line}\n")

    def objective(trial: optuna.Trial) -> float:
        x = trial.suggest_float("x", 0.0, 1.0)
        write(f"begin {trial.number} {os.getpid()}")
        time.sleep(random.uniform(0.5, 1.5) * seconds)
        return x

    Claims(study, storage, lock, n_trials, lambda existing: optuna.samplers.RandomSampler(seed=existing), print).work(
        objective, lambda study, trial: write(f"end {trial.number} {os.getpid()}")
    )


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
