"""A tiny run.py with the project's own run.yaml and hparams_search/study.yaml, whose trials take milliseconds.

The tests load it; `STUB_CONFIGS=FOLDER python sweep_stub.py -m hparams_search=stub ...` is the same as a process.
"""

import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from cxr.entry import prepare_environment, tell_errors
from cxr.errors import DataError
from cxr.experiments.study import StorageError
from cxr.experiments.sweeper import is_trial, register_sweeper

CONFIGS = Path(__file__).parents[2] / "configs"

TRAIN = """
defaults: [_self_, hydra: default, experiment: template]
run_name: ${hydra:runtime.choices.experiment}
seed: 0
monitor: {metric: val/auroc, mode: max}
test: true
report: true
ckpt_path: null
study_name: null
paths: {log_dir: logs, cache_dir: cache, output_dir: "${hydra:runtime.output_dir}"}
x: 0.0
size: 8
batch: 4
data: here
"""

SEARCH = """
# @package _global_
defaults: [study]
hydra:
  sweeper:
    n_trials: 3
    sampler: {_target_: optuna.samplers.RandomSampler}
    params: {x: "interval(0.0, 1.0)", size: "choice(8, 16)"}
"""


def write_configs(folder: Path) -> Path:
    """The stub's config folder: the real sweep configs around a tiny train.yaml."""
    for group in ("hparams_search", "hydra", "experiment", "plan"):
        (folder / group).mkdir(parents=True)
    shutil.copy(CONFIGS / "run.yaml", folder)
    shutil.copy(CONFIGS / "hydra" / "default.yaml", folder / "hydra")
    shutil.copy(CONFIGS / "hparams_search" / "study.yaml", folder / "hparams_search")
    shutil.copytree(CONFIGS / "hydra" / "pruner", folder / "hydra" / "pruner")
    shutil.copy(CONFIGS / "plan" / "none.yaml", folder / "plan")
    (folder / "train.yaml").write_text(TRAIN)
    (folder / "hparams_search" / "stub.yaml").write_text(SEARCH)
    for name in ("template", "demo"):
        (folder / "experiment" / f"{name}.yaml").write_text("# @package _global_\n{}\n")
    return folder


@dataclass(frozen=True)
class StubResult:
    best_score: float
    best_checkpoint: Path
    metrics: Mapping[str, float] = field(default_factory=dict)


def run_trial(config: DictConfig) -> StubResult:
    """A trial whose value is known; `misbehave` says which trial numbers do what."""
    output = Path(config.paths.output_dir)
    (output / "trial.yaml").write_text(yaml.safe_dump({"test": config.test, "x": config.x, "name": config.run_name}))
    match OmegaConf.select(config, f"misbehave.t{HydraConfig.get().job.num}"):
        case "error":
            raise ValueError("boom")
        case "lost":
            raise StorageError("the study's database has not answered")
        case "no_number":
            return StubResult(math.nan, output / "best.ckpt")
        case "interrupt":
            raise KeyboardInterrupt
        case "lightning_interrupt":
            try:
                raise KeyboardInterrupt
            except KeyboardInterrupt:
                sys.exit(1)
        case "exit":
            sys.exit(3)
    return StubResult(1.0 - abs(config.x - 0.3), output / "best.ckpt", {"val/f1": float(config.x)})


def make_fit_stub(log: Path) -> ModuleType:
    """What stands in for cxr.training.fit: a data check, and a test that writes down what it tested."""

    def preflight(config: DictConfig) -> None:
        assert Path(config.paths.output_dir).is_absolute()
        if config.data != "here":
            raise DataError("there is no data; run scripts/download_data.py")

    def test_run(run_dir: Path) -> dict[str, float]:
        assert run_dir.is_dir()
        with log.open("a") as file:
            file.write(f"{run_dir.name}\n")
        return {"test/auroc": 0.75}

    module = ModuleType("cxr.training.fit")
    module.preflight, module.test_run = preflight, test_run
    return module


def hang_or_run_trial(config: DictConfig) -> StubResult:
    """A trial that hangs where the command says `+hang_at=NUMBER`, and else takes `+seconds=SECONDS`."""
    assert tell_errors(is_trial)()
    with Path("started.txt").open("a") as file:
        file.write(f"{HydraConfig.get().job.num} {os.getpid()} {os.environ.get('OMP_NUM_THREADS')}\n")
    time.sleep(OmegaConf.select(config, "seconds", default=0.0))
    if OmegaConf.select(config, "hang_at") == HydraConfig.get().job.num:
        Path(config.paths.output_dir, "hangs").touch()
        time.sleep(600)
    return run_trial(config)


def run(configs: Path | str, task: Callable[[DictConfig], object]) -> None:
    """What run.py does, with `task` in place of training; the command line is in `sys.argv`."""
    prepare_environment()
    register_sweeper()
    hydra.main(config_path=str(configs), config_name="run")(task)()


if __name__ == "__main__":
    sys.modules["cxr.training.fit"] = make_fit_stub(Path("tested.txt"))
    run(os.environ["STUB_CONFIGS"], hang_or_run_trial)
