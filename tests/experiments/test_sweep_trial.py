import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from cxr.errors import TrainingError
from cxr.experiments.study import StorageError
from cxr.experiments.sweep_trial import (
    TRIAL,
    handed_trial,
    needs_own_process,
    repeated_command,
    run_apart,
    run_handed,
    run_here,
)
from cxr.training.judging import StoppedByJudgeError

CHILD = """
import json, os, sys
from pathlib import Path
number = json.loads(os.environ["CXR_TRIAL"])["number"]
told = json.loads(sys.argv[1])
if told is None:
    sys.exit(7)
Path(f"trial_{number}", "outcome.json").write_text(json.dumps(told))
"""


def job(folder, error=None):
    """A launcher whose job has ended, well or with `error`."""

    class Job:
        hydra_cfg = SimpleNamespace(hydra=SimpleNamespace(runtime=SimpleNamespace(output_dir=str(folder))))

        @property
        def return_value(self):
            if error is not None:
                raise error
            return SimpleNamespace(best_score=0.5, best_checkpoint=folder / "best.ckpt", metrics={"val/f1": 0.25})

    return lambda overrides, number: Job()


def test_what_a_trial_gave_is_told(tmp_path):
    outcome = run_here(job(tmp_path), ["x=1"], 3)
    assert (outcome.run_dir, outcome.best_score, outcome.best_checkpoint) == (tmp_path, 0.5, tmp_path / "best.ckpt")
    assert outcome.metrics == {"val/f1": 0.25}


def test_a_stopped_trial_is_no_failure(tmp_path):
    with pytest.raises(StoppedByJudgeError, match="after 3 epochs"):
        run_here(job(tmp_path, StoppedByJudgeError("after 3 epochs")), [], 0)
    assert not (tmp_path / "error.txt").exists()


@pytest.mark.parametrize(
    ("trainer", "apart"),
    [
        ({}, False),
        ({"devices": 1, "num_nodes": 1, "accelerator": "gpu"}, False),
        ({"devices": 2, "accelerator": "gpu"}, True),
        ({"devices": "auto"}, True),
        ({"devices": 1, "num_nodes": 2}, True),
        ({"devices": 1, "strategy": "ddp"}, True),
    ],
)
def test_whatever_may_start_other_processes_has_one_of_its_own(trainer, apart):
    assert needs_own_process(trainer) is apart


@pytest.fixture
def apart(tmp_path, monkeypatch):
    """apart(what the process of a trial tells): the outcome."""
    script = tmp_path / "script.py"
    script.write_text(CHILD)
    monkeypatch.chdir(tmp_path)

    def run(told):
        monkeypatch.setattr(sys, "argv", [str(script), json.dumps(told)])
        return run_apart(["x=1"], 4, tmp_path / "trial_4")

    return run


def test_a_process_of_its_own_gives_the_same_outcome(apart, tmp_path):
    told = {
        "run_dir": "trial_4",
        "best_score": 0.5,
        "best_checkpoint": "trial_4/best.ckpt",
        "metrics": {"val/f1": 0.25},
    }
    outcome = apart(told)
    assert (outcome.run_dir, outcome.best_score) == (tmp_path / "trial_4", 0.5)
    assert (outcome.best_checkpoint, outcome.metrics) == (Path("trial_4/best.ckpt"), {"val/f1": 0.25})


@pytest.mark.parametrize(
    ("told", "kind", "message"),
    [
        ({"stopped": "stopped after 2 epochs"}, StoppedByJudgeError, "stopped after 2 epochs"),
        ({"lost": "has not answered"}, StorageError, "has not answered"),
        ({"error": "the loss is nan"}, TrainingError, "the loss is nan"),
        (None, TrainingError, r"the process of the trial ended with exit code 7; its log: .*trial_4/output.log"),
    ],
)
def test_a_process_of_its_own_can_end_otherwise(apart, told, kind, message):
    with pytest.raises(kind, match=message):
        apart(told)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (None, {"best_score": 0.5}),
        (StoppedByJudgeError("after 3"), {"stopped": "after 3"}),
        (StorageError("has not answered"), {"lost": "has not answered"}),
        (ValueError("boom"), {"error": "boom"}),
    ],
)
def test_of_several_devices_the_first_one_tells_how_the_trial_ended(tmp_path, monkeypatch, error, told):
    monkeypatch.setenv("LOCAL_RANK", "1")
    run_handed(job(tmp_path, error), 4, [], tmp_path)
    assert not (tmp_path / "outcome.json").exists()
    monkeypatch.setenv("LOCAL_RANK", "0")
    run_handed(job(tmp_path, error), 4, [], tmp_path)
    assert told.items() <= json.loads((tmp_path / "outcome.json").read_text()).items()


def test_a_process_knows_the_trial_it_was_started_for(monkeypatch):
    assert handed_trial() is None
    monkeypatch.setenv(TRIAL, '{"number": 4, "overrides": ["x=1"]}')
    assert handed_trial() == (4, ["x=1"])


def test_the_command_is_repeated_as_a_process_that_ends_with_this_one(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["run.py", "-m", "x=1"])
    words = [sys.executable, "-m", "cxr.experiments.child", str(Path("run.py").absolute()), "-m", "x=1", "y=2"]
    assert list(repeated_command("y=2")) == words
