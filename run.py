"""Train many models: `python run.py plan=cv`, `python run.py -m hparams_search=template_optuna`.

With neither a plan nor -m it does what train.py does.
"""

import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from cxr.entry import prepare_environment, tell_errors
from cxr.errors import ConfigError
from cxr.experiments.sweeper import is_trial, judged_trial, register_sweeper

TRAIN = Path(__file__).with_name("train.py").absolute()


@hydra.main(config_path="configs", config_name="run")
def main(config: DictConfig) -> object:
    """Train once or run a plan; what stops a trial of a sweep is recorded by the sweeper, anything else is told."""
    if tell_errors(is_trial)():
        return train_trial(config)
    return tell_errors(run_plan if "plan" in config else train)(config)


def train(config: DictConfig) -> object:
    """Fit and write the run folder that the config describes."""
    from cxr.training.fit import fit

    return fit(config)


def train_trial(config: DictConfig) -> object:
    """Fit a trial of a search, which ends early when its study says so."""
    with judged_trial():
        return run_plan(config) if "plan" in config else train(config)


def run_plan(config: DictConfig) -> object:
    """Train every run of the plan, each by train.py, and write what they show together."""
    job = HydraConfig.get()
    if job.mode == RunMode.MULTIRUN:
        raise ConfigError(f"plan={config.plan.name} is many runs by itself; leave out -m")
    from cxr.experiments.plan_run import run_plan

    return run_plan(config, list(job.overrides.task), [sys.executable, "-m", "cxr.experiments.child", str(TRAIN)])


if __name__ == "__main__":
    prepare_environment()
    register_sweeper()
    main()
