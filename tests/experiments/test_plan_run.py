import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import MissingConfigException
from omegaconf import OmegaConf

from cxr.entry import prepare_environment
from cxr.errors import ConfigError, DataError, TrainingError
from cxr.evaluation.predictions import read_predictions
from cxr.experiments import plan_run, processes, seeds
from cxr.experiments.plan_run import run_plan

ROOT = Path(__file__).parents[2]
STUB = [sys.executable, "-m", "cxr.experiments.child", str(Path(__file__).with_name("plan_stub.py"))]
SAMPLES = pd.DataFrame({
    "sample_id": list("abcdef"), "patient_id": list("abcdef"), "label": [0, 1] * 3, "content_hash": list("123456"),
    "split": ["train", "train", "val", "val", "test", "test"],
})  # fmt: skip


def compose_plan(*overrides):
    prepare_environment()
    with initialize_config_dir(str(ROOT / "configs")):
        return compose("run", ["experiment=demo", "run_name=demo", *overrides])


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """plan(*overrides): run a plan of seeds on six samples, trained by the stub; in tmp_path, with tmp_path/plan."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(seeds, "read_cohort", lambda config: SimpleNamespace(samples=SAMPLES, class_names=["a", "b"]))
    monkeypatch.setattr(plan_run, "preflight", lambda config: None)

    def run(*overrides):
        words = ["plan=seeds", "plan.seeds=[0,1,2]", "hash_ids=false", *overrides]
        return run_plan(compose_plan(f"paths.output_dir={tmp_path}/plan", *words), words, STUB)

    return run


@pytest.fixture
def calls(tmp_path):
    """calls(name): the words that train.py was given for a run, per start."""

    def read(name):
        path = tmp_path / "plan" / name / "words.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    return read


def behave(**runs):
    Path("behaviour.txt").write_text("\n".join(f"{name} {what}" for name, what in runs.items()))


@pytest.mark.parametrize("jobs", [1, 2])
def test_every_run_is_trained_once_on_its_split_and_the_summary_is_written(plan, calls, tmp_path, jobs):
    summary = plan(f"plan.jobs={jobs}")
    folder = tmp_path / "plan"
    assert calls("seed_1") == [[
        "hash_ids=false", "run_name='demo-seeds-seed_1'", "study_name='demo-seeds'", "seed=1",
        f"data.split_file='{folder}/splits/seed_1.csv'", f"hydra.run.dir='{folder}/seed_1'",
    ]]  # fmt: skip
    assert summary.table.loc["test/auroc", ["mean", "min", "max"]].tolist() == pytest.approx([0.8, 0.7, 0.9])
    assert pd.read_csv(folder / "runs.csv", index_col="run").index.tolist() == ["seed_0", "seed_1", "seed_2"]
    assert json.loads((folder / "summary.json").read_text())["metrics"]["test/auroc"]["runs"] == 3


def test_a_failed_run_is_told_with_its_log_and_the_others_go_on(plan, calls, tmp_path, capsys):
    behave(seed_0="fail", seed_1="kill")
    message = r"2 of 3 runs failed \(seed_0, seed_1\), so there is no summary; mend the cause, then continue with"
    with pytest.raises(TrainingError, match=message):
        plan()
    shown = capsys.readouterr().out
    assert f"the loss is nan; lower optimizer.lr; its log: {tmp_path}/plan/seed_0/output.log" in shown
    assert "signal 9 ended it" in shown
    assert "seed_2 is finished" in shown
    assert not (tmp_path / "plan" / "summary.csv").exists()

    Path("behaviour.txt").unlink()
    plan("plan.folder=here")
    assert [len(calls(name)) for name in ("seed_0", "seed_1", "seed_2")] == [2, 2, 1]
    assert calls("seed_1")[1][-1] == f"ckpt_path='{tmp_path}/plan/seed_1/checkpoints/last.ckpt'"
    assert not any("plan.folder" in word for word in calls("seed_0")[1])


def test_a_run_that_tests_nothing_has_failed(plan, capsys):
    behave(seed_2="silent")
    with pytest.raises(TrainingError, match="1 of 3 runs failed"):
        plan()
    assert "it ended with exit code 0 and no test result" in capsys.readouterr().out


def test_a_finished_plan_trains_nothing_and_tells_its_table_again(plan, calls, capsys):
    plan()
    plan("plan.folder=here")
    assert [len(calls(f"seed_{seed}")) for seed in range(3)] == [1, 1, 1]
    assert "0 of 3 runs to train" in capsys.readouterr().out


def test_a_plan_is_not_continued_as_another(plan):
    plan()
    with pytest.raises(ConfigError, match=r"plan.seeds was \[0, 1, 2\] and is \[0, 1\]"):
        plan("plan.seeds=[0,1]", "plan.folder=here")
    with pytest.raises(ConfigError, match="optimizer.lr was 0.003 and is 0.5"):
        plan("optimizer.lr=0.5", "plan.folder=here")


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        (["plan.folder=nowhere"], DataError, "plan.folder must be the folder of a plan .* nowhere has no plan.yaml"),
        (["plan.name=nine"], ConfigError, "must be one of cv, seeds, staged, sizes, ovr, automl, but got 'nine'"),
        (["+plan.folds=3"], ConfigError, "plan=seeds cannot be made of seeds, folds: .*unexpected keyword"),
        (["plan.jobs=0"], ConfigError, "plan.jobs must be a whole number >= 1, but got 0"),
        (["plan.folder=5"], ConfigError, "plan.folder must be null or a text, but got 5"),
        (["ckpt_path=a.ckpt"], ConfigError, "a plan goes on with plan.folder=<its folder>"),
        (["test=false"], ConfigError, "a plan is made of test results, but test=false; leave it out"),
        (["plan.seeds=[]"], ConfigError, "plan.seeds must be a list"),
    ],
)
def test_what_makes_no_plan_is_told(plan, tmp_path, overrides, error, message):
    with pytest.raises(error, match=message):
        plan(*overrides)
    assert not (tmp_path / "plan").exists()


def test_a_refused_plan_leaves_no_folder_that_was_made_for_it(plan, tmp_path):
    folder = tmp_path / "logs" / "plans" / "demo" / "now"
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "config.yaml").write_text("seed: 0")
    with pytest.raises(DataError, match="plan.folder must be the folder of a plan"):
        plan("plan.folder=nowhere", f"paths.output_dir={folder}")
    assert not folder.parent.exists()
    assert folder.parent.parent.exists()


def test_a_refusal_touches_nothing_that_was_there_before(plan, tmp_path):
    plan()
    with pytest.raises(ConfigError, match="plan.jobs must be a whole number >= 1, but got 0"):
        plan("plan.jobs=0", "plan.folder=here")
    assert (tmp_path / "plan" / "summary.csv").exists()


def test_ctrl_c_before_anything_is_trained(plan, monkeypatch, capsys):
    def interrupt(config):
        raise KeyboardInterrupt

    monkeypatch.setattr(seeds, "read_cohort", interrupt)
    with pytest.raises(SystemExit, match="130"):
        plan()
    assert "stopped; nothing was trained" in capsys.readouterr().out


def test_ctrl_c_stops_the_runs_and_says_how_to_continue(plan, tmp_path, monkeypatch, capsys):
    behave(seed_0="hang")

    def interrupt_once_it_hangs(seconds):
        if (tmp_path / "plan" / "seed_0" / "hangs").exists():
            raise KeyboardInterrupt
        time.sleep(seconds)

    clock = SimpleNamespace(sleep=interrupt_once_it_hangs, monotonic=time.monotonic)
    monkeypatch.setattr(processes, "time", clock)
    with pytest.raises(SystemExit, match="130"):
        plan()
    told = f"stopped; continue with the same command and plan.folder='{tmp_path}/plan'"
    assert told in capsys.readouterr().out
    assert "KeyboardInterrupt" in (tmp_path / "plan" / "seed_0" / "output.log").read_text()


def test_an_unknown_plan_is_refused_by_name():
    with pytest.raises(MissingConfigException, match="Could not find 'plan/folds'"):
        compose_plan("plan=folds")


def test_a_plan_composes_to_its_recipe_and_itself():
    with_plan = OmegaConf.to_container(compose_plan("plan=cv", "plan.folds=3"))
    assert with_plan.pop("plan") == {"jobs": 1, "folder": None, "name": "cv", "folds": 3, "repeats": 1}
    assert with_plan == OmegaConf.to_container(compose_plan())


def plan_process(lab, *overrides, log):
    environment = os.environ | {"CXR_LOG_DIR": str(log)}
    command = [sys.executable, str(ROOT / "run.py"), *lab, "plan=cv", "plan.folds=2", "hash_ids=false", *overrides]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for(folder, glob, process, seconds=300):
    deadline = time.monotonic() + seconds
    while not (found := sorted(folder.glob(glob))):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, f"no {glob} in {folder}"
        time.sleep(0.05)
    return found[0]


@pytest.mark.slow
def test_a_killed_cross_validation_goes_on_to_the_same_numbers(tiny, tmp_path):
    recipe = [*tiny, "trainer.max_epochs=8", "callbacks.early_stopping=null", "run_name=cv"]
    whole = plan_process(recipe, log=tmp_path / "whole")
    output = whole.communicate(timeout=900)[0]
    assert whole.returncode == 0, output

    killed = plan_process(recipe, log=tmp_path / "killed")
    wait_for(tmp_path / "killed", "plans/cv/*/fold_1/checkpoints/last.ckpt", killed)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    (folder,) = (tmp_path / "killed" / "plans" / "cv").iterdir()
    finished = {path: path.stat().st_mtime_ns for path in (folder / "fold_0").rglob("*")}
    assert not (folder / "summary.csv").exists()

    again = plan_process(recipe, f"plan.folder={folder}", log=tmp_path / "killed")
    output = again.communicate(timeout=900)[0]
    assert again.returncode == 0, output
    assert "1 of 2 runs to train" in output
    assert {path: path.stat().st_mtime_ns for path in (folder / "fold_0").rglob("*")} == finished
    assert pd.read_csv(folder / "fold_1" / "history.csv")["epoch"].tolist() == list(range(8))

    (other,) = (tmp_path / "whole" / "plans" / "cv").iterdir()
    pooled, expected = (read_predictions(one / "predictions_oof.csv")[0] for one in (folder, other))
    pd.testing.assert_frame_equal(pooled, expected)
    assert pooled["sample_id"].is_unique
    assert np.isfinite(pd.read_csv(folder / "summary.csv", index_col="metric").loc["test/auroc"]).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["-m", "plan=seeds"], "error: plan=seeds is many runs by itself; leave out -m"),
        (["plan=cv", "plan.folds=1"], "error: plan.folds must be a whole number >= 2, but got 1"),
        (["plan=folds"], "Could not find 'plan/folds'"),
    ],
)
def test_a_mistyped_plan_is_told_without_a_traceback(words, told, tmp_path):
    ended = subprocess.run([sys.executable, str(ROOT / "run.py"), *words], check=False, capture_output=True, text=True,
                           env=os.environ | {"CXR_LOG_DIR": str(tmp_path)})  # fmt: skip
    assert ended.returncode == 1
    assert told in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr
