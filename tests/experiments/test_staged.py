import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from hydra import compose, initialize_config_dir

from cxr.entry import prepare_environment
from cxr.errors import ConfigError, TrainingError
from cxr.experiments.plan_run import make_plan, run_plan
from cxr.experiments.staged import Staged
from cxr.training.building import plain

ROOT = Path(__file__).parents[2]
STUB = [sys.executable, "-m", "cxr.experiments.child", str(Path(__file__).with_name("plan_stub.py"))]
STAGES = (
    "plan.stages={scratch: ['seed=1'], pretrain: ['data.avoid=<scratch>'], "
    "finetune: ['data.split_file=<scratch>/split.csv', 'transfer=<pretrain>', 'seed=2']}"
)


def compose_plan(*overrides):
    prepare_environment()
    with initialize_config_dir(str(ROOT / "configs")):
        return compose("run", ["experiment=demo", "run_name=demo", *overrides])


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """plan(*overrides): three stages trained by the stub; in tmp_path, with tmp_path/plan."""
    monkeypatch.chdir(tmp_path)

    def run(*overrides, stages=STAGES):
        words = ["plan=staged", stages, "optimizer.lr=0.1", *overrides]
        return run_plan(compose_plan(*words, f"paths.output_dir={tmp_path}/plan"), words, STUB)

    return run


def calls(tmp_path, name):
    path = tmp_path / "plan" / name / "words.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.parametrize("jobs", [1, 3])
def test_each_stage_gets_its_words_and_the_folders_of_those_before_once_they_are_finished(plan, tmp_path, jobs):
    summary = plan(f"plan.jobs={jobs}")
    folder = tmp_path / "plan"
    assert (tmp_path / "order.txt").read_text().split() == ["scratch", "pretrain", "finetune"]
    assert calls(tmp_path, "finetune") == [[
        "optimizer.lr=0.1", "run_name='demo-staged-finetune'", "study_name='demo-staged'",
        f"data.split_file='{folder}/scratch/split.csv'", f"transfer='{folder}/pretrain'", "seed=2",
        f"hydra.run.dir='{folder}/finetune'",
    ]]  # fmt: skip
    assert summary.table.loc["test/auroc"].to_dict() == pytest.approx(
        {"runs": 3, "scratch": 0.8, "pretrain": 0.7, "finetune": 0.9}
    )
    assert pd.read_csv(folder / "summary.csv", index_col="metric").columns.tolist()[1:] == list(summary.values.index)
    assert json.loads((folder / "summary.json").read_text())["metrics"]["test/auroc"]["finetune"] == pytest.approx(0.9)


def test_a_stage_that_fails_stops_those_that_wait_for_it_and_the_plan_goes_on_there(plan, tmp_path):
    Path("behaviour.txt").write_text("pretrain fail")
    with pytest.raises(TrainingError, match=r"1 of 3 runs failed \(pretrain\), so there is no summary"):
        plan()
    assert (tmp_path / "order.txt").read_text().split() == ["scratch", "pretrain"]
    Path("behaviour.txt").unlink()
    plan("plan.folder=here")
    assert (tmp_path / "order.txt").read_text().split() == ["scratch", "pretrain", "pretrain", "finetune"]
    assert calls(tmp_path, "pretrain")[1][-1] == f"ckpt_path='{tmp_path}/plan/pretrain/checkpoints/last.ckpt'"


def test_words_that_make_no_sense_are_told_before_anything_is_trained(plan, tmp_path):
    message = "the words of second cannot be used: Could not override 'nonsense'. Key 'nonsense' is not in struct"
    with pytest.raises(ConfigError, match=message):
        plan(stages="plan.stages={first: ['seed=1'], second: ['nonsense=2']}")
    assert not (tmp_path / "order.txt").exists()


def test_other_stages_are_another_plan(plan):
    plan()
    with pytest.raises(ConfigError, match=r"plan.stages.scratch was \['seed=1'\] and is \['seed=3'\]"):
        plan("plan.folder=here", stages=STAGES.replace("seed=1", "seed=3"))


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ({}, "plan.stages must be stages by name, such as .*, but got {}"),
        ([["seed=1"]], "plan.stages must be stages by name, such as .*, but got"),
        ({"a b": ["seed=1"]}, "each name in plan.stages must be letters, .* splits, but got 'a b'"),
        ({"splits": ["seed=1"]}, "and not splits, but got 'splits'"),
        ({"a": "seed=1"}, "plan.stages.a must be a list of words for train.py such as .*, but got 'seed=1'"),
        ({"a": ["seed"]}, "plan.stages.a must be a list of words for train.py such as .*, but got"),
        ({"a": ["x=<b>"], "b": ["y=1"]}, "plan.stages.a mentions <b>, expected a stage before it: none; rename or"),
        ({"a": ["x=1"], "b": ["x=<c>"]}, "plan.stages.b mentions <c>, expected a stage before it: <a>; rename or"),
        ({"a": ["x=<a>"]}, "plan.stages.a mentions <a>"),
    ],
)
def test_what_makes_no_stages_is_told(stages, message):
    with pytest.raises(ConfigError, match=message):
        Staged(stages)


def test_the_pretraining_plan_compares_on_one_split_that_pretraining_avoids():
    with initialize_config_dir(str(ROOT / "configs")):
        config = compose("run", ["plan=pretraining", "paths.output_dir=there"])
    scratch, pretrain, finetune = make_plan(plain(config.plan)).runs(config)
    assert (pretrain.after, finetune.after) == (("scratch",), ("scratch", "pretrain"))
    here = Path("there").absolute()
    assert f"data.avoid='{here}/scratch'" in pretrain.overrides
    assert f"data.split_file='{here}/scratch/split.csv'" in finetune.overrides
    assert f"transfer.init_from='{here}/pretrain'" in finetune.overrides
    assert scratch.overrides[0] == finetune.overrides[0] == "experiment=chest_xray"


@pytest.mark.slow
def test_two_real_stages_share_a_split(tiny, tmp_path):
    stages = (
        "plan.stages={scratch: ['seed=1'], again: ['seed=2', 'data.split_file=<scratch>/split.csv', "
        "'transfer.init_from=<scratch>', 'ema=0.9', 'tta=light', 'augment=strong']}"
    )
    command = [sys.executable, str(ROOT / "run.py"), *tiny, "plan=staged", stages, "run_name=staged"]
    environment = os.environ | {"CXR_LOG_DIR": str(tmp_path)}
    told = subprocess.run(
        [*command, stages.replace("seed=2", "nonsense=2")], check=False, capture_output=True, text=True, env=environment
    )
    assert told.returncode == 1
    assert "error: the words of again cannot be used: " in told.stderr
    assert "nonsense" in told.stderr
    assert not list(tmp_path.rglob("*.ckpt"))
    ended = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    folder = max((tmp_path / "plans" / "staged").iterdir())
    assert (folder / "again" / "split.csv").read_bytes() == (folder / "scratch" / "split.csv").read_bytes()
    assert json.loads((folder / "again" / "bundle" / "bundle.json").read_text())["tta"] == "light"
    assert f"starting from {folder}/scratch/bundle" in (folder / "again" / "run.log").read_text()
    shown = pd.read_csv(folder / "summary.csv", index_col="metric")
    assert shown.loc["test/auroc", ["scratch", "again"]].between(0, 1).all()
