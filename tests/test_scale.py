"""The scripts of docs/scale.md for several machines are valid shell, and their words are those of a config."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from cxr.entry import prepare_environment

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"```bash\n(.*?)```", (ROOT / "docs" / "scale.md").read_text(), flags=re.DOTALL)
SCRIPTS = [block for block in BLOCKS if block.startswith("#!/bin/bash")]


def words_after(name, script):
    """The words that a script gives to `name`."""
    words = shlex.split(script.replace("\\\n", " "), comments=True)
    return words[words.index(name) + 1 :]


def test_there_is_a_script_for_torchrun_and_one_for_slurm():
    assert [("torchrun" in script, "#SBATCH" in script) for script in SCRIPTS] == [(True, False), (False, True)]


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_every_block_is_valid_shell(block):
    subprocess.run(["bash", "-n"], input=block, text=True, check=True)


@pytest.mark.parametrize("script", SCRIPTS, ids=["torchrun", "slurm"])
def test_scripts_ask_for_the_machines_that_they_train_on(script):
    prepare_environment()
    with initialize_config_dir(str(ROOT / "configs")):
        config = compose("train", words_after("train.py", script))
    (machines,) = re.findall(r"--(?:nnodes|nodes)=(\d+)", script)
    assert (config.trainer.num_nodes, config.trainer.strategy, config.ckpt_path) == (int(machines), "ddp", "last")
