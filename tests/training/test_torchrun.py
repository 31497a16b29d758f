"""Runs under torchrun: one folder, each file read once, and a killed process that costs an epoch at most."""

import collections
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch

from cxr.training.fit import fit

ROOT = Path(__file__).parents[2]
PATIENCE = 300
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1")
TWO = ("trainer=ddp_sim", "ckpt_path=last", "callbacks.early_stopping=null", "trainer.max_epochs=12", "ema=0.9",
       "logger=wandb", "logger.wandb.id=night")  # fmt: skip
RESTARTS = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", "CXR_ID_SALT": "one for all"}
"""What restarted processes need (pytorch issue 135712): they would find the addresses of those that were killed."""
LOG_OPENED = """
import os, sys
def log(event, arguments):
    if event == "open" and str(arguments[0]).endswith(".dcm"):
        with os.fdopen(os.open(os.environ["CXR_TEST_OPENED"], os.O_WRONLY | os.O_APPEND | os.O_CREAT), "a") as file:
            file.write(f"{arguments[0]}\\n")
sys.addaudithook(log)
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def start(compose_run, tiny, tmp_path_factory):
    """start(place, launcher, *words): a run whose decoded images and list of opened files are its own."""
    base = tmp_path_factory.mktemp("torchrun")
    fit(compose_run(base / "first", "trainer.max_epochs=1"))  # makes the phantoms
    (base / "hook").mkdir()
    (base / "hook" / "sitecustomize.py").write_text(LOG_OPENED)

    def started(place, launcher, *words):
        folder = base / place
        folder.mkdir()
        path = os.pathsep.join([str(base / "hook"), str(ROOT / "src")])
        environment = os.environ | {"PYTHONPATH": path, "CXR_TEST_OPENED": str(folder / "opened.txt")} | RESTARTS
        environment |= {f"WANDB_{name}_DIR": f"{base}/wandb" for name in ("CONFIG", "CACHE", "DATA")}
        environment |= {"WANDB_MODE": "offline"}
        environment.pop("WANDB_SERVICE", None)  # of another test: it outlives a killed run
        places = [f"paths.cache_dir={folder}/cache", f"paths.log_dir={folder}/logs", f"run_name={place}"]
        script = str(ROOT / "train.py")
        quiet = [word for word in tiny if word != "logger=none"]
        command = [sys.executable, *launcher, script, *quiet, *places, *words]
        log = (folder / "output.txt").open("w")
        return folder, subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)

    return started


def only_run(folder, process):
    """The run folder of a command that must succeed and leave one."""
    assert process.wait(timeout=PATIENCE) == 0, (folder / "output.txt").read_text()
    (run,) = (folder / "logs" / "runs" / folder.name).iterdir()
    return run


@pytest.fixture(scope="module")
def undisturbed(start):
    """(folder, run folder) of two processes that nobody kills."""
    folder, process = start("whole", TORCHRUN, *TWO)
    return folder, only_run(folder, process)


def test_two_processes_are_one_run_in_the_tracker(undisturbed):
    (found,) = undisturbed[1].glob("wandb/offline-run-*")
    assert found.name.endswith("-night")


def opened(folder):
    return collections.Counter((folder / "opened.txt").read_text().splitlines())


def test_two_processes_open_each_file_as_often_as_one(undisturbed, start):
    folder, process = start("alone", (), "trainer.max_epochs=1", "logger=none")
    only_run(folder, process)
    assert len(opened(folder)) > 100
    assert opened(undisturbed[0]) == opened(folder)


def worker_of_rank(rank, parent):
    """The process id of the worker that torchrun, the process `parent`, gave this rank."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            mine = int((path / "stat").read_text().rpartition(")")[2].split()[1]) == parent
            if mine and f"\0RANK={rank}\0" in (path / "environ").read_text():
                return int(path.name)
        except OSError:
            continue
    raise AssertionError(f"no worker of rank {rank}")


def wait_for_epochs(folder, number, process):
    """Until the history of the run has this many epochs."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        assert process.poll() is None, (folder / "output.txt").read_text()
        found = list((folder / "logs").glob("runs/*/*/history.csv"))
        if found and len(found[0].read_text().splitlines()) > number:
            return
        time.sleep(0.01)
    raise AssertionError((folder / "output.txt").read_text())


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for workers in /proc")
@pytest.mark.parametrize("rank", [0, 1])
def test_a_run_that_loses_a_process_ends_as_if_it_had_not(undisturbed, start, rank):
    folder, process = start(f"killed{rank}", TORCHRUN, *TWO)
    wait_for_epochs(folder, 2, process)
    os.kill(worker_of_rank(rank, process.pid), signal.SIGKILL)
    run, whole = only_run(folder, process), undisturbed[1]
    assert (run / "run.log").read_text().count("evaluating the best checkpoint") == 1
    assert {found.name.rpartition("-")[2] for found in run.glob("wandb/offline-run-*")} == {"night"}
    histories = [pd.read_csv(place / "history.csv").drop(columns="seconds") for place in (whole, run)]
    pd.testing.assert_frame_equal(*histories)
    last = [torch.load(place / "checkpoints" / "last.ckpt", weights_only=True) for place in (whole, run)]
    for kind in ("state_dict", "current_model_state"):
        assert all(torch.equal(last[0][kind][name], last[1][kind][name]) for name in last[0][kind])
    tables = [pd.read_csv(place / "predictions_test.csv").drop(columns="run") for place in (whole, run)]
    pd.testing.assert_frame_equal(*tables)
