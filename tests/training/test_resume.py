"""Continuing a run: what it may be told, what it must find, and what it must not touch."""

import shutil
import subprocess
import sys

import pytest
import torch
from pytorch_lightning.utilities import rank_zero_only

from cxr.errors import ConfigError, DataError, TrainingError
from cxr.training.fit import fit
from cxr.training.run_folder import RunFolder


@pytest.fixture(scope="module")
def started(compose_run, tmp_path_factory):
    """The folder of a run of one epoch."""
    return fit(compose_run(tmp_path_factory.mktemp("started") / "run", "trainer.max_epochs=1")).run_dir


@pytest.fixture
def resume(started, compose_run, tmp_path):
    """Continue a copy of the run for a second epoch, with some overrides."""
    shutil.copytree(started, tmp_path / "run")

    def run(*overrides, checkpoint=tmp_path / "run" / "checkpoints" / "last.ckpt"):
        return fit(compose_run(tmp_path / "run", "trainer.max_epochs=2", f"ckpt_path={checkpoint}", *overrides))

    return run


def test_a_longer_run_goes_on_with_the_same_split(resume, started, tmp_path):
    split = (started / "split.csv").read_bytes()
    resume(f"data.split_file={tmp_path}/gone.csv")
    assert (tmp_path / "run" / "split.csv").read_bytes() == split
    assert len((tmp_path / "run" / "history.csv").read_text().splitlines()) == 3


def test_a_one_cycle_schedule_can_be_made_longer(compose_run, tmp_path):
    one_cycle = ("scheduler=one_cycle", "trainer.max_epochs=1")
    first = fit(compose_run(tmp_path / "run", *one_cycle))
    last = first.run_dir / "checkpoints" / "last.ckpt"
    fit(compose_run(tmp_path / "run", *one_cycle, "trainer.max_epochs=3", f"ckpt_path={last}"))
    assert len((tmp_path / "run" / "history.csv").read_text().splitlines()) == 4


def test_the_last_checkpoint_is_found_by_itself(compose_run, tmp_path):
    run = tmp_path / "run"
    fit(compose_run(run, "trainer.max_epochs=1", "ckpt_path=last"))
    first = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    fit(compose_run(run, "trainer.max_epochs=2", "ckpt_path=last"))
    assert first["epoch"] == 0
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] == 1
    assert len((run / "history.csv").read_text().splitlines()) == 3


def test_a_second_run_in_one_folder_is_refused(compose_run, tmp_path, monkeypatch):
    monkeypatch.setattr("cxr.training.run_folder.SECONDS_TO_WAIT", 0.1)
    with (
        RunFolder(tmp_path / "run").held(),
        pytest.raises(TrainingError, match="another run is writing to .*run; wait for its end, or choose another"),
    ):
        fit(compose_run(tmp_path / "run"))
    assert [path.name for path in (tmp_path / "run").iterdir()] in ([], [".lock"])


@pytest.mark.slow
def test_a_killed_run_lets_go_of_its_folder(tmp_path):
    hold = "import os, sys; from pathlib import Path; from cxr.training.run_folder import RunFolder\n"
    hold += "with RunFolder(Path(sys.argv[1])).held(): print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", hold, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        process.kill()
    with RunFolder(tmp_path).held():
        pass


def test_a_disk_without_locks_is_told(tmp_path, monkeypatch, caplog):
    def refuse(self, timeout):
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    with RunFolder(tmp_path).held():
        assert "is on a disk without locks: see to it that no other run writes there" in caplog.text


def test_only_the_first_device_holds_the_folder(tmp_path, monkeypatch):
    with RunFolder(tmp_path).held():
        monkeypatch.setattr(rank_zero_only, "rank", 1)
        with RunFolder(tmp_path).held():
            pass


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("seed=5", "seed was 0 and is 5"),
        ("data.limit=40", "data.limit was None and is 40"),
        ("net.dense_units=9", "net.dense_units was [0-9]+ and is 9"),
        ("optimizer.lr=0.5", "optimizer.lr was 0.003 and is 0.5"),
        ("optimizer=sgd", "optimizer._target_ was torch.optim.AdamW and is torch.optim.SGD"),
    ],
)
def test_other_settings_are_refused(resume, started, tmp_path, override, told):
    with pytest.raises(ConfigError, match=f"continued with the settings that it was started with, but .*{told}"):
        resume(override)
    assert (tmp_path / "run" / "config.yaml").read_bytes() == (started / "config.yaml").read_bytes()


def test_other_images_are_refused(resume, started, tmp_path):
    report = tmp_path / "run" / "data_report.json"
    fingerprint = report.read_text().split('"fingerprint": "')[1][:64]
    report.write_text(report.read_text().replace(fingerprint, "0" * 64))
    with pytest.raises(DataError, match="the images or labels are not those that the run in .* was started with"):
        resume()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "cannot be read as one; take another of that folder"),
        (None, "cannot be read as one; take another of that folder"),
        ({"weights": 1}, "holds something else; take <run>/checkpoints/last.ckpt"),
        ({"state_dict": {}, "optimizer_states": [], "loops": {}}, "belongs to another; repeat that run's net settings"),
    ],
    ids=["empty", "truncated", "foreign", "of another net"],
)
def test_what_is_no_checkpoint_of_this_run_is_refused(resume, started, tmp_path, content, told):
    broken = tmp_path / "broken.ckpt"
    if isinstance(content, dict):
        torch.save(content, broken)
    else:
        whole = (started / "checkpoints" / "last.ckpt").read_bytes()
        broken.write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(DataError, match=f"ckpt_path must be a checkpoint of an earlier run.*{told}"):
        resume(checkpoint=broken)
