import os
import signal
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest

from cxr.experiments.sweep_records import read_best

WORDS = ["-m", "hparams_search=stub", "hydra.sweeper.n_trials=4", "hydra.sweeper.may_change=[hang_at]"]


class Sweep:
    """``python run.py -m hparams_search=stub hydra.sweeper.n_trials=4`` as a process."""

    def __init__(self, root: Path, command: list[str]) -> None:
        self.folder = root / "logs" / "sweeps" / "stub-template"
        self.root = root
        self.command = [*command, *WORDS]

    def start(self, *overrides: str) -> subprocess.Popen:
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        return subprocess.Popen([*self.command, *overrides], cwd=self.root, text=True, **streams)

    def start_and_hang_in_trial_1(self) -> subprocess.Popen:
        process = self.start("+hang_at=1")
        deadline = time.monotonic() + 120
        while not (self.folder / "trial_1" / "hangs").exists():
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return process

    def states(self) -> list[str]:
        return list(pd.read_csv(self.folder / "trials.csv")["state"])


@pytest.fixture
def sweep(tmp_path, stub_command) -> Sweep:
    return Sweep(tmp_path, stub_command)


@pytest.mark.slow
def test_a_killed_sweep_goes_on_with_the_same_command(sweep):
    process = sweep.start_and_hang_in_trial_1()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert sweep.states() == ["complete"], "the records are up to date after each trial"
    kept = {path: path.stat().st_mtime_ns for path in (sweep.folder / "trial_0").iterdir()}

    again = sweep.start()
    output = again.communicate(timeout=120)[0]
    assert again.returncode == 0, output
    assert sweep.states() == ["complete", "fail", "complete", "complete", "complete"]
    assert {path: path.stat().st_mtime_ns for path in (sweep.folder / "trial_0").iterdir()} == kept
    best = read_best(sweep.folder)
    assert (sweep.root / "tested.txt").read_text().split() == [best.run_dir]
    assert best.test == {"test/auroc": 0.75}
    assert "4 of 4" in (sweep.folder / "sweep.html").read_text().partition("<body>")[2]


@pytest.mark.slow
def test_ctrl_c_leaves_a_summary_and_exit_code_130_and_a_second_process_waits_outside(sweep):
    process = sweep.start_and_hang_in_trial_1()
    second = sweep.start()
    output = second.communicate(timeout=120)[0]
    assert second.returncode == 1
    assert output.count("another process is running the sweep") == 1
    assert "Traceback" not in output

    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 130, output
    assert "best: trial 0" in output
    assert "the same command continues the study" in output
    assert "Traceback" not in output
    assert sweep.states() == ["complete", "fail"]
    assert not (sweep.root / "tested.txt").exists()
