import errno
import os
import re

import pytest
import torch.utils.data

from cxr.entry import launch_name, plan_dir, prepare_environment, run_dir, tell_errors
from cxr.errors import DataError


def test_an_error_is_one_sentence_and_exit_code_1(capsys):
    @tell_errors
    def fail():
        raise DataError("expected a, got b; do c")

    with pytest.raises(SystemExit) as exit_:
        fail()
    assert exit_.value.code == 1
    assert capsys.readouterr().err == "error: expected a, got b; do c\n"


class Unreadable(torch.utils.data.Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, row):
        try:
            raise OSError("no bytes")
        except OSError as error:
            raise DataError("expected a, got ValueError: b; do c") from error


def test_an_error_in_a_worker_process_is_the_same_sentence(capsys):
    loader = torch.utils.data.DataLoader(Unreadable(), num_workers=1)
    with pytest.raises(SystemExit, match="1"):
        tell_errors(lambda: next(iter(loader)))()
    assert capsys.readouterr().err == "error: expected a, got ValueError: b; do c\n"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_told(code, capsys):
    @tell_errors
    def fail():
        raise OSError(code, os.strerror(code), "metrics.json")

    with pytest.raises(SystemExit):
        fail()
    assert (
        f"no space left on the disk while writing metrics.json ({os.strerror(code)}); free some"
        in capsys.readouterr().err
    )


def test_other_faults_keep_their_traceback():
    @tell_errors
    def fail():
        raise OSError(errno.EIO, "broken")

    with pytest.raises(OSError, match="broken"):
        fail()


def test_ctrl_c_is_exit_code_130(capsys):
    @tell_errors
    def fail():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as exit_:
        fail()
    assert exit_.value.code == 130
    assert "continue with ckpt_path=" in capsys.readouterr().err


def test_what_is_returned_passes_through():
    assert tell_errors(lambda a, b: a + b)(1, b=2) == 3


def test_new_runs_get_folders_of_their_own():
    first, second = run_dir(None, "logs", "demo"), run_dir(None, "logs", "demo")
    assert first.startswith("logs/runs/demo/")
    assert first != second


@pytest.mark.parametrize(
    ("started_by", "expected"),
    [
        ({"TORCHELASTIC_RUN_ID": "night"}, "torchrun-night"),
        ({"SLURM_STEP_NUM_TASKS": "8", "SLURM_JOB_ID": "17", "SLURM_STEP_ID": "0"}, "slurm-17.0"),
        ({"SLURM_STEP_NUM_TASKS": "1", "SLURM_JOB_ID": "17", "SLURM_STEP_ID": "0"}, r"\d{4}-\d\d-\d\d_.*"),
        ({"TORCHELASTIC_RUN_ID": "none"}, r"\d{4}-\d\d-\d\d_.*"),
    ],
    ids=["torchrun", "slurm", "a single task", "torchrun without an id"],
)
def test_processes_of_one_launch_share_a_folder(monkeypatch, started_by, expected):
    for name in ("TORCHELASTIC_RUN_ID", "SLURM_STEP_NUM_TASKS", "SLURM_JOB_ID", "SLURM_STEP_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in started_by.items():
        monkeypatch.setenv(name, value)
    assert re.fullmatch(expected, launch_name())
    assert re.fullmatch(f"logs/runs/demo/{expected}", run_dir("last", "logs", "demo"))


def test_a_resumed_run_keeps_its_folder(tmp_path):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    checkpoint = str(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert run_dir(checkpoint, "logs", "demo").startswith("logs/runs/demo/")
    (tmp_path / "run" / "config.yaml").write_text("seed: 0")
    assert run_dir(checkpoint, "logs", "demo") == str(tmp_path / "run")


def test_a_plan_that_is_continued_keeps_its_folder(tmp_path):
    assert plan_dir(None, "logs", "demo").startswith("logs/plans/demo/")
    for folder in (str(tmp_path), 5):
        assert plan_dir(folder, "logs", "demo").startswith("logs/plans/demo/")
    (tmp_path / "plan.yaml").write_text("config: {}")
    assert plan_dir(str(tmp_path), "logs", "demo") == str(tmp_path)


def test_dotenv_is_read_and_does_not_overrule_the_environment(tmp_path, monkeypatch):
    (tmp_path / ".env").write_text("CXR_TEST_A=file\nCXR_TEST_B=file\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CXR_TEST_B", "environment")
    monkeypatch.delenv("CXR_TEST_A", raising=False)
    prepare_environment()
    assert (os.environ.pop("CXR_TEST_A"), os.environ["CXR_TEST_B"]) == ("file", "environment")


@pytest.mark.parametrize(("before", "after"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_waiting_threads_sleep_unless_told_otherwise(monkeypatch, before, after):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if before is not None:
        monkeypatch.setenv("OMP_WAIT_POLICY", before)
    prepare_environment()
    assert os.environ["OMP_WAIT_POLICY"] == after
