"""The commands people type, as processes: what they print, how they end, and that a kill loses nothing."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf

from cxr.data.phantoms.spec import CohortSpec
from cxr.data.phantoms.tree import write_folder_cohort
from cxr.data.readers import make_phantom_samples
from cxr.evaluation.predictions import read_predictions
from cxr.inference.bundle import load_bundle
from cxr.training.fit import fit

ROOT = Path(__file__).parents[1]
NO_DATA = "error: expected the SIIM dataset with"


@pytest.fixture(scope="session")
def environment(lab):
    """The environment of a user without accounts, whose folders lie in the lab."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB", "KAGGLE", "CXR"))}
    return kept | {
        "CXR_DATA_DIR": f"{lab}/data", "CXR_CACHE_DIR": f"{lab}/cache", "NETRC": f"{lab}/netrc",
        "WANDB_MODE": "offline",
        "WANDB_CONFIG_DIR": f"{lab}/wandb", "WANDB_CACHE_DIR": f"{lab}/wandb", "WANDB_DATA_DIR": f"{lab}/wandb",
    }  # fmt: skip


@pytest.fixture
def start(environment, tmp_path):
    """start(script, *arguments): the process, logging to tmp_path/logs."""

    def started(script, *arguments):
        command = [sys.executable, str(ROOT / script), *arguments]
        return subprocess.Popen(command, cwd=ROOT, env=environment | {"CXR_LOG_DIR": str(tmp_path / "logs")},
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # fmt: skip

    return started


@pytest.fixture
def finish(start):
    """finish(script, *arguments): (exit code, output)."""

    def finished(script, *arguments):
        process = start(script, *arguments)
        output, _ = process.communicate(timeout=300)
        return process.returncode, output

    return finished


def wait_for(pattern, process, timeout=120):
    """Wait until a file of that pattern is there; returns the paths."""
    folder, glob = pattern
    deadline = time.monotonic() + timeout
    while not (found := sorted(folder.glob(glob))):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, f"no {glob} in {folder}"
        time.sleep(0.05)
    return found


def test_help_lists_the_groups(finish):
    code, output = finish("train.py", "--help")
    assert code == 0
    assert "chest_xray, demo" in output


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("optimizer.lrr=1", "Could not override 'optimizer.lrr'"),
        ("net=densenet", "Could not find 'net/densenet'"),
        ("seed=-3", "error: seed must be a whole number >= 0, but got -3"),
    ],
)
def test_a_mistyped_override_is_told_without_a_traceback(finish, override, told):
    code, output = finish("train.py", override)
    assert code == 1
    assert told in output
    assert "Traceback" not in output


@pytest.mark.slow
def test_without_data_every_door_gives_the_same_sentence(finish):
    answers = [finish("train.py"), finish("train.py", "experiment=template"), finish("run.py"),
               finish("run.py", "-m", "hparams_search=template_optuna")]  # fmt: skip
    sentences = {line for _, output in answers for line in output.splitlines() if line.startswith("error:")}
    assert [code for code, _ in answers] == [1, 1, 1, 1]
    assert len(sentences) == 1, sentences
    assert sentences.pop().startswith(NO_DATA)
    assert not any("Traceback" in output for _, output in answers)


@pytest.mark.slow
def test_a_killed_run_resumes_in_its_folder_to_the_same_weights(start, finish, tiny, tmp_path):
    recipe = [*tiny, "trainer.max_epochs=30", "callbacks.early_stopping=null", "net.drop_rate=0.4"]
    assert finish("train.py", *recipe, "run_name=whole")[0] == 0

    killed = start("train.py", *recipe, "run_name=killed")
    (last,) = wait_for((tmp_path / "logs" / "runs" / "killed", "*/checkpoints/last.ckpt"), killed)
    time.sleep(0.5)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert torch.load(last, weights_only=True)["epoch"] < 29

    code, output = finish("train.py", *recipe, "run_name=killed", f"ckpt_path={last}")
    assert code == 0, output
    (whole,), (resumed,) = ((tmp_path / "logs" / "runs" / name).glob("*/") for name in ("whole", "killed"))
    one, two = (torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (whole, resumed))
    assert one["state_dict"].keys() == two["state_dict"].keys()
    assert all(torch.equal(one["state_dict"][name], two["state_dict"][name]) for name in one["state_dict"])
    curves = [pd.read_csv(run / "history.csv").drop(columns="seconds") for run in (whole, resumed)]
    pd.testing.assert_frame_equal(*curves)
    for name in ("predictions_test.csv", "split.csv"):
        columns = [pd.read_csv(run / name).drop(columns="run", errors="ignore") for run in (whole, resumed)]
        pd.testing.assert_frame_equal(*columns)


@pytest.mark.slow
def test_ctrl_c_ends_with_a_sentence(start, tiny, tmp_path):
    process = start("train.py", *tiny, "trainer.max_epochs=500", "callbacks.early_stopping=null", "run_name=long")
    wait_for((tmp_path / "logs" / "runs" / "long", "*/checkpoints/last.ckpt"), process)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "stopped; continue with ckpt_path=" in output
    assert "Traceback" not in output


@pytest.mark.slow
def test_two_devices_share_one_run_and_see_each_image_once(finish, tiny, tmp_path):
    code, output = finish("train.py", *tiny, "trainer=ddp_sim", "run_name=shared", "sampler=weighted", "hash_ids=false")
    assert code == 0, output
    assert output.count("Traceback") == 0
    (run,) = (tmp_path / "logs" / "runs" / "shared").iterdir()
    assert (run / "run.log").read_text().count("epoch 2/2") == 1
    config = OmegaConf.load(run / "config.yaml")
    raw = make_phantom_samples(config.data.root, cohort=config.data.cohort).set_index("sample_id")
    split = pd.read_csv(run / "split.csv", dtype=str).set_index("sample_id")["split"]
    for part in ("val", "test"):
        table, _ = read_predictions(run / f"predictions_{part}.csv")
        assert sorted(table["sample_id"]) == sorted(split.index[split == part])
        alone = load_bundle(run / "bundle").predict(raw.loc[table["sample_id"], "image_path"].tolist())
        np.testing.assert_allclose(alone["prob_1"], table["prob_1"], atol=1e-4)


def readme_commands():
    """The python and cxr lines of the README's shell blocks, without comments."""
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    lines = [line.split("   #")[0].split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith(("python train.py", "python run.py", "python scripts", "cxr "))]


def made_small(line, lab, images, runs):
    """The README line as a list of words, made small and offline; what needs SIIM data stays as it is."""
    places = {
        "path/to/images": images,
        "logs/runs/demo/<time>": runs / "demo",
        "logs/runs/other/<time>": runs / "other",
    }
    for place, folder in places.items():
        line = line.replace(place, str(folder))
    words = shlex.split(line)
    if words[0] == "cxr":
        parts = ["data.fractions=[0.5,0.25,0.25]"] if words[1] == "data" else []
        return [sys.executable, "-m", "cxr.cli", *words[1:], *parts]
    words[0] = sys.executable
    small = ["preprocess.size=[32,32]", "callbacks=quiet", "logger=none", "trainer.max_epochs=1", "data.limit=40",
             "data.fractions=[0.5,0.25,0.25]"]  # fmt: skip
    phantoms = ["data.cohort.studies=110", "data.cohort.size=64", f"data.root={lab}/data/phantom_demo"]
    plans = {
        "plan=cv": ["plan.folds=2"],
        "plan=seeds": ["plan.seeds=[0,1]"],
        "plan=sizes": ["plan.shares=[0.5,1.0]"],
        "plan=automl": ["plan.folds=2", "plan.trials=2"],
    }
    small += [word for plan, shorter in plans.items() if plan in words for word in shorter]
    if "data=image_folder" in words:
        return words + small
    if "experiment=demo" in words or "data=phantom" in words:
        return words + small + phantoms + (["hydra.sweeper.n_trials=2"] if "-m" in words else [])
    return words


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """An image folder with a class name of two words."""
    folder = tmp_path_factory.mktemp("images")
    write_folder_cohort(CohortSpec(studies=60, size=64), folder / "cohort", workers=1)
    return folder / "cohort"


@pytest.fixture(scope="module")
def runs(compose_run, tmp_path_factory):
    """Two finished runs of different recipes."""
    folder = tmp_path_factory.mktemp("runs")
    fit(compose_run(folder / "demo"))
    shutil.copytree(folder / "demo", folder / "other")
    config = folder / "other" / "config.yaml"
    config.write_text(config.read_text().replace("run_name: demo", "run_name: other"))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("line", [line for line in readme_commands() if "ckpt_path" not in line])
def test_the_readmes_commands_work(line, lab, images, runs, environment, tmp_path):
    result = subprocess.run(
        made_small(line, lab, images, runs), cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
        env=environment | {"CXR_LOG_DIR": str(tmp_path / "logs")},
    )  # fmt: skip
    output = result.stdout + result.stderr
    assert "Traceback" not in output
    needs_an_account = "scripts/download_data.py" in output or ("download_data" in line and "--dry-run" not in line)
    assert result.returncode == (1 if needs_an_account else 0), output


def test_the_readmes_files_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text()):
        assert target.startswith("http") or (ROOT / target).exists(), target
