"""The core installs at the lowest versions that pyproject.toml allows, without any extra, and trains.

The one test that needs a package index: it builds an environment of its own (uv where it is on the PATH, else pip).
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
META = ("all", "dev")  # extras made of other extras
NEEDED_BYTES = 12 * 2**30
FILES = ("src", "configs", "scripts", "train.py", "run.py", "pyproject.toml", "README.md", "LICENSE")
TINY = [
    "experiment=demo", "data=image_folder", "data.fractions=[0.5,0.25,0.25]", "preprocess.size=[32,32]",
    "net.filters_1=4", "net.filters_2=4", "net.filters_3=8", "net.filters_4=8", "net.dense_units=8",
    "trainer.max_epochs=2", "trainer.accelerator=cpu", "callbacks=quiet", "run_name=tiny",
]  # fmt: skip


def lowest(requirement):
    """The pin for a bound: torch>=2.11 gives torch==2.11, since a bound names a release that exists."""
    return requirement.replace(">=", "==")


class Environment:
    """A copy of the sources and a Python with the core alone, at its lowest versions."""

    def __init__(self, root):
        self.root = root
        self.python = root / "environment" / "bin" / "python"
        self.checkout = root / "checkout"

    def build(self):
        self.checkout.mkdir()
        for name in FILES:
            if (ROOT / name).is_dir():
                ignored = shutil.ignore_patterns("*.egg-info", "__pycache__")
                shutil.copytree(ROOT / name, self.checkout / name, ignore=ignored)
            else:
                shutil.copy2(ROOT / name, self.checkout / name)
        requirements = [*map(lowest, PROJECT["dependencies"]), "--editable", self.checkout]
        uv = shutil.which("uv")
        if uv is None:
            self.require(sys.executable, "-m", "venv", self.python.parents[1])
            self.require(self.python, "-m", "pip", "install", *requirements)
        else:
            self.require(uv, "venv", "--python", sys.executable, self.python.parents[1])
            self.require(uv, "pip", "install", "--python", self.python, *requirements)

    def run(self, *command):
        folders = {f"CXR_{name.upper()}_DIR": str(self.root / name) for name in ("data", "log", "cache")}
        return subprocess.run(
            [str(word) for word in command], cwd=self.checkout, env={**os.environ, **folders, "COLUMNS": "200"},
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    def require(self, *command):
        result = self.run(*command)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def installed(self):
        """Name -> version."""
        code = "import importlib.metadata as m; print(*(f'{d.name}=={d.version}' for d in m.distributions()))"
        pairs = (pin.split("==") for pin in self.require(self.python, "-c", code).split())
        return {canonicalize_name(name): version for name, version in pairs}


@pytest.fixture(scope="module")
def core(tmp_path_factory):
    root = tmp_path_factory.mktemp("lowest")
    free = shutil.disk_usage(root).free
    if free < NEEDED_BYTES:
        pytest.skip(f"a second environment with torch needs {NEEDED_BYTES / 2**30:.0f} GiB free in {root}")
    environment = Environment(root)
    try:
        environment.build()
        yield environment
    finally:
        shutil.rmtree(root / "environment", ignore_errors=True)


@pytest.mark.parametrize("requirement", PROJECT["dependencies"])
def test_every_bound_has_the_form_that_gives_its_lowest_version(requirement):
    assert re.fullmatch(r"[\w-]+(>=|==)[\w.]+", requirement)


@pytest.mark.verify
def test_exactly_the_lowest_versions_and_no_extra_are_installed(core):
    installed = core.installed()
    for requirement in map(Requirement, map(lowest, PROJECT["dependencies"])):
        assert requirement.specifier.contains(installed[requirement.name], prereleases=True), requirement
    extras = [line for name, lines in PROJECT["optional-dependencies"].items() if name not in META for line in lines]
    assert installed.keys().isdisjoint({Requirement(line).name for line in extras})


@pytest.mark.verify
def test_the_core_alone_draws_images_and_trains_on_them(core):
    core.require(core.python, "scripts/make_phantoms.py", "--layout", "folder", "--studies", 110, "--size", 64,
                 "--out", core.root / "chests")  # fmt: skip
    core.require(core.python, "train.py", *TINY, f"data.root={core.root}/chests")

    (run,) = (core.root / "log" / "runs" / "tiny").iterdir()
    metrics = json.loads((run / "metrics.json").read_text())["metrics"]
    assert 0 <= metrics["test/auroc"] <= 1
    assert (run / "bundle" / "model.safetensors").stat().st_size > 0
    assert "test_roc.png" in {path.name for path in (run / "figures").iterdir()}


@pytest.mark.verify
@pytest.mark.parametrize(
    ("command", "extra"),
    [
        (["train.py", "experiment=demo"], "phantoms"),
        (["train.py", "experiment=demo", "logger=wandb"], "wandb"),
        (["train.py", "experiment=demo", "logger=tensorboard"], "tensorboard"),
        (["run.py", "-m", "hparams_search=template_optuna", "experiment=demo"], "sweep"),
    ],
)
def test_an_absent_extra_gives_its_install_line(core, command, extra):
    result = core.run(core.python, *command)
    assert result.returncode == 1
    assert f"install it with: pip install 'cxr-lab[{extra}]'" in result.stderr
    assert "Traceback" not in result.stderr
