"""Train many models: `python run.py -m hparams_search=template_optuna`; without -m it does what train.py does."""

import hydra
from omegaconf import DictConfig

from cxr.entry import prepare_environment, tell_errors
from cxr.experiments.sweeper import is_trial, register_sweeper


@hydra.main(config_path="configs", config_name="run")
def main(config: DictConfig) -> object:
    """Train once; what stops a trial of a sweep is recorded by the sweeper, what stops any other run is told."""
    run = train if tell_errors(is_trial)() else tell_errors(train)
    return run(config)


def train(config: DictConfig) -> object:
    """Fit and write the run folder that the config describes."""
    from cxr.training.fit import fit

    return fit(config)


if __name__ == "__main__":
    prepare_environment()
    register_sweeper()
    main()
