"""Workers that share a study are killed at random, and no trial is lost or run twice."""

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import optuna
import pytest

from cxr.experiments.sweep_claims import RERUN, WORKER
from cxr.experiments.sweep_storage import PatientStorage

STUB = Path(__file__).with_name("claims_stub.py")
TRIALS, WORKERS, KILLS = 60, 4, 20


@pytest.fixture(params=["sqlite", "postgres"])
def address(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/study.db"
    return request.getfixturevalue("postgres").url


def start(address, folder):
    return subprocess.Popen([sys.executable, str(STUB), address, str(folder), str(TRIALS), "1.0"])


def read_ledger(folder):
    path = folder / "ledger.txt"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def wait_for_one_in_a_trial(workers, folder, draws):
    """The place of a worker whose last line in the ledger says that it has begun a trial."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        latest = {pid: word for word, _, pid in read_ledger(folder)}
        busy = [place for place, worker in enumerate(workers) if latest.get(str(worker.pid)) == "begin"]
        if busy:
            return draws.choice(busy)
        assert all(worker.poll() is None for worker in workers), "the study ended before all kills were made"
        time.sleep(0.02)
    raise AssertionError("no worker began a trial")


def kill_at_random(address, folder, draws):
    """Run WORKERS workers, and replace one that is killed by another, KILLS times; returns whom it killed."""
    workers, killed = [start(address, folder) for _ in range(WORKERS)], set()
    for _ in range(KILLS):
        place = wait_for_one_in_a_trial(workers, folder, draws)
        time.sleep(draws.choice([0.1, 0.2, 0.3, draws.uniform(0.0, 1.5)]))
        workers[place].send_signal(signal.SIGKILL)
        workers[place].wait()
        killed.add(str(workers[place].pid))
        workers[place] = start(address, folder)
    assert [worker.wait(timeout=300) for worker in workers] == [0] * WORKERS
    return killed


@pytest.mark.slow
def test_no_trial_is_lost_or_run_twice_when_workers_are_killed(address, tmp_path):
    killed = kill_at_random(address, tmp_path, random.Random(0))
    study = optuna.load_study(study_name="kills", storage=PatientStorage(address, 1, 1))
    states = Counter(trial.state.name for trial in study.trials)
    assert states["COMPLETE"] == TRIALS
    assert states.keys() <= {"COMPLETE", "FAIL"}

    ledger = read_ledger(tmp_path)
    assert max(Counter(number for word, number, _ in ledger if word == "begin").values()) == 1
    assert max(Counter(number for word, number, _ in ledger if word == "end").values()) == 1

    again = Counter(trial.user_attrs[RERUN] for trial in study.trials if RERUN in trial.user_attrs)
    for trial in study.trials:
        began_twice = RERUN in trial.user_attrs and WORKER in trial.user_attrs
        if trial.state.name == "FAIL" and trial.params and not began_twice:
            assert again[trial.number] == 1, "the parameters of a killed trial are run once more"
    begun, ended = ({int(number) for word, number, _ in ledger if word == said} for said in ("begin", "end"))
    assert begun - ended, "some kills hit a trial"
    owners = {int(number): process for word, number, process in ledger if word == "begin"}
    assert {owners[number] for number in begun - ended} <= killed, "whoever lives ends its trials"
    claimed_and_failed = [trial for trial in study.trials if trial.state.name == "FAIL" and WORKER in trial.user_attrs]
    assert len(claimed_and_failed) <= KILLS, "no trial of a living worker is taken away"
    assert "FAIL" in {study.trials[number].state.name for number in begun - ended}
    assert again, "some killed trials are run once more"
    assert max(again.values()) == 1
    for trial in study.trials:
        if RERUN in trial.user_attrs and trial.params:
            assert trial.params == study.trials[trial.user_attrs[RERUN]].params
