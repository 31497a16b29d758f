"""Train one model: `python train.py experiment=template` (a bare `python train.py` is the same)."""

import hydra
from omegaconf import DictConfig

from cxr.entry import prepare_environment, tell_errors


@hydra.main(config_path="configs", config_name="train")
@tell_errors
def main(config: DictConfig) -> None:
    """Fit, test and write the run folder that the config describes."""
    from cxr.training.fit import fit

    fit(config)


if __name__ == "__main__":
    prepare_environment()
    main()
