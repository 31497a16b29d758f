import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from cxr.experiments.sweep_records import read_best

WORDS = [
    "-m", "hparams_search=stub", "hydra.sweeper.n_trials=4", "hydra.sweeper.may_change=[hang_at,seconds]",
    "hydra.sweeper.heartbeat=1",
]  # fmt: skip


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
        self.wait_for("trial_1/hangs", process)
        return process

    def wait_for(self, name: str, process: subprocess.Popen) -> None:
        deadline = time.monotonic() + 120
        while not (self.folder / name).exists():
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def states(self) -> list[str]:
        return list(pd.read_csv(self.folder / "trials.csv")["state"])

    def started(self) -> pd.DataFrame:
        """One row per trial that was started: its number, the process, its threads."""
        return pd.read_csv(self.root / "started.txt", sep=" ", names=["number", "process", "threads"])


@pytest.fixture
def sweep(tmp_path, stub_command) -> Sweep:
    return Sweep(tmp_path, stub_command)


def finish(*processes: subprocess.Popen) -> list[str]:
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), outputs
    return outputs


@pytest.mark.slow
def test_a_killed_sweep_goes_on_with_the_same_command(sweep):
    process = sweep.start_and_hang_in_trial_1()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert sweep.states() == ["complete"], "the records are up to date after each trial"
    kept = {path: path.stat().st_mtime_ns for path in (sweep.folder / "trial_0").iterdir()}

    (output,) = finish(sweep.start())
    assert "trial 1 was interrupted; its parameters are tried again" in output
    assert Counter(sweep.states()) == {"complete": 4, "fail": 1}
    assert sweep.states()[1] == "fail"
    assert {path: path.stat().st_mtime_ns for path in (sweep.folder / "trial_0").iterdir()} == kept
    points = pd.read_csv(sweep.folder / "trials.csv")["x"]
    assert (points == points[1]).sum() == 2
    best = read_best(sweep.folder)
    assert (sweep.root / "tested.txt").read_text().split() == [best.run_dir]
    assert best.test == {"test/auroc": 0.75}
    assert "4 of 4" in (sweep.folder / "sweep.html").read_text().partition("<body>")[2]


@pytest.mark.slow
def test_ctrl_c_leaves_a_summary_and_exit_code_130_and_a_late_worker_does_the_rest(sweep):
    process = sweep.start_and_hang_in_trial_1()
    late = sweep.start()
    sweep.wait_for("trial_3", late)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 130, output
    assert "the same command continues the study" in output
    assert "Traceback" not in output
    finish(late)
    assert Counter(sweep.states()) == {"complete": 4, "fail": 1}
    assert len((sweep.root / "tested.txt").read_text().split()) == 1
    assert sweep.started()["number"].is_unique


@pytest.mark.slow
@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_two_processes_share_one_database(sweep, request, database):
    words = ["+seconds=0.5", "hydra.sweeper.n_trials=8"]
    if database == "postgres":
        words.append(f"hydra.sweeper.storage={request.getfixturevalue('postgres').url}")
    outputs = finish(sweep.start(*words), sweep.start(*words))
    assert sweep.states() == ["complete"] * 8
    started = sweep.started()
    assert sorted(started["number"]) == list(range(8))
    assert started["process"].nunique() == 2
    assert pd.read_csv(sweep.folder / "trials.csv")["x"].is_unique
    assert len(list(sweep.folder.glob(".*.lock"))) == (3 if database == "sqlite" else 0)
    assert len((sweep.root / "tested.txt").read_text().split()) == 1
    assert all("test/auroc = 0.7500" in output for output in outputs)


@pytest.mark.slow
def test_one_command_starts_several_workers_that_share_the_cores(sweep, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    (output,) = finish(sweep.start("hydra.sweeper.workers=2", "+seconds=1.0", "hydra.sweeper.n_trials=6"))
    assert sweep.states() == ["complete"] * 6
    assert sweep.started()["process"].nunique() == 2
    assert set(sweep.started()["threads"]) == {max(1, len(os.sched_getaffinity(0)) // 2)}
    assert f"worker 1 starts; its log: {sweep.folder}/worker_1.log" in output
    assert "trials: 6 complete" in output
    assert len((sweep.root / "tested.txt").read_text().split()) == 1


@pytest.mark.slow
def test_workers_that_all_fail_are_told_with_their_log(sweep):
    process = sweep.start("hydra.sweeper.workers=2", "+misbehave={t0: error}", "hydra.sweeper.n_trials=1")
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 1
    assert "error: no worker came to the end of the sweep" in output
    assert "all 1 failed, the last with: boom" in (sweep.folder / "worker_0.log").read_text()


@pytest.mark.slow
def test_a_database_that_stays_away_ends_a_worker_with_one_sentence_and_keeps_its_trials(sweep, postgres):
    words = ["+hang_at=1", f"hydra.sweeper.storage={postgres.url}", "hydra.sweeper.patience=2"]
    process = sweep.start(*words)
    sweep.wait_for("trial_1/hangs", process)
    waiting = sweep.start(*words, "hydra.sweeper.n_trials=2")
    for line in waiting.stdout:
        if "all trials are taken" in line:
            break
    postgres.stop()
    output = waiting.communicate(timeout=120)[0]
    assert waiting.returncode == 1, output
    assert output.count("error: ") == 1
    assert "has not answered for 2 s" in output
    assert "Traceback" not in output
    process.kill()
    process.wait()
    postgres.start()
    finish(sweep.start(f"hydra.sweeper.storage={postgres.url}"))
    assert Counter(sweep.states()) == {"complete": 4, "fail": 1}


@pytest.mark.slow
@pytest.mark.parametrize("address", ["sqlite:////nowhere/study.db", "postgresql+psycopg://x@127.0.0.1:1/x"])
def test_an_address_where_nothing_answers_is_told_at_once(sweep, address):
    process = sweep.start(f"hydra.sweeper.storage={address}", "hydra.sweeper.patience=600")
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 1, output
    assert f"the study's database {address} cannot be used" in output
    assert "Traceback" not in output


@pytest.mark.slow
def test_a_trial_that_loses_the_database_is_tried_again_by_the_next_command(sweep, postgres):
    words = [f"hydra.sweeper.storage={postgres.url}", "hydra.sweeper.n_trials=2"]
    process = sweep.start(*words, "+seconds=4.0", "hydra.sweeper.patience=2")
    sweep.wait_for("trial_0", process)
    postgres.stop()
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 1, output
    assert output.count("error: ") == output.count("has not answered for 2 s") == 1
    assert "Traceback" not in output
    postgres.start()
    finish(sweep.start(*words))
    assert sweep.states() == ["fail", "complete", "complete"]
    points = pd.read_csv(sweep.folder / "trials.csv")["x"]
    assert points[0] == points[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher", [["hydra/launcher=joblib"], ["hydra/launcher=submitit_local", "hydra.launcher.timeout_min=5"]]
)
def test_a_launcher_of_hydra_carries_out_the_trials(sweep, launcher):
    pytest.importorskip(f"hydra_plugins.hydra_{launcher[0].partition('=')[2].partition('_')[0]}_launcher")
    process = sweep.start(*launcher, "hydra.sweeper.n_trials=2")
    finish(process)
    assert sweep.states() == ["complete"] * 2
    assert process.pid not in set(sweep.started()["process"])


@pytest.mark.slow
def test_the_dashboard_shows_the_study(sweep):
    pytest.importorskip("optuna_dashboard")
    finish(sweep.start())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = str(Path(sys.executable).with_name("optuna-dashboard"))
    words = ["--host", "127.0.0.1", "--port", str(port), f"sqlite:///{sweep.folder}/study.db"]
    server = subprocess.Popen([program, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert "stub-template" in read_when_up(f"http://127.0.0.1:{port}/api/studies", server)
    finally:
        server.kill()
        server.wait()


def read_when_up(address: str, server: subprocess.Popen) -> str:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert server.poll() is None
        try:
            return urllib.request.urlopen(address, timeout=10).read().decode()
        except OSError:
            time.sleep(0.2)
    raise AssertionError("the dashboard did not start")
