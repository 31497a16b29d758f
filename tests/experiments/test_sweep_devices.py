"""A sweep whose trials use several devices: each has a process of its own, and its devices stop together."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]
BELOW = ["hydra/pruner=none", "hydra.sweeper.pruner._target_=optuna.pruners.ThresholdPruner"]


@pytest.mark.slow
def test_a_sweep_over_two_devices_stops_a_weak_trial_on_both_and_tests_the_best(tiny, tmp_path):
    words = [
        "-m", "hparams_search=study", "study_name=two", "optimizer.lr=choice(1e-3)", *tiny, "trainer=ddp_sim",
        "trainer.max_epochs=3", "hydra.sweeper.n_trials=2", f"paths.log_dir={tmp_path}/logs", *BELOW,
        "+hydra.sweeper.pruner.n_warmup_steps=1",
    ]  # fmt: skip
    states = {}
    for lower, trials in ((0.0, 1), (2.0, 2)):
        command = [sys.executable, str(ROOT / "run.py"), *words, f"+hydra.sweeper.pruner.lower={lower}"]
        ended = subprocess.run(
            [*command, f"hydra.sweeper.n_trials={trials}"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        states[trials] = pd.read_csv(tmp_path / "logs" / "sweeps" / "two" / "trials.csv")
    table = states[2]
    assert list(table["state"]) == ["complete", "pruned"], table
    assert list(table["epochs"]) == [3, 2]
    folder = tmp_path / "logs" / "sweeps" / "two"
    assert [len(pd.read_csv(folder / f"trial_{number}" / "history.csv")) for number in (0, 1)] == [3, 2]
    assert "test/auroc" in (folder / "best.yaml").read_text()
    assert not list(folder.glob("trial_2*"))
