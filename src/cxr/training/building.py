"""Config group -> object. What a config may build is listed in `ALLOWED`; nothing else runs.

The only file of this room that knows Hydra. Imports neither torch nor Lightning.
"""

from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from cxr.errors import ConfigError, CxrError

ALLOWED = {
    "data.reader": ("cxr.data.readers.*",),
    "loss": ("cxr.training.losses.*", "torch.nn.modules.loss.CrossEntropyLoss"),  # what a target returns counts too
    "optimizer": ("torch.optim.*",),
    "scheduler": ("cxr.training.schedulers.*",),
    "trainer": ("pytorch_lightning.*",),
    "callbacks": ("pytorch_lightning.callbacks.*", "cxr.training.callbacks.*"),
    "logger": ("pytorch_lightning.loggers.*", "cxr.training.callbacks.*"),
}


def build(config: DictConfig, group: str, **arguments: Any) -> Any:
    """Instantiate one config group from the places that it may come from.

    Raises:
        ConfigError: The target refuses its arguments or is not allowed.
    """
    try:
        return instantiate(config, **arguments, _convert_="all", _execution_whitelist_=ALLOWED[group])
    except CxrError:
        raise
    except Exception as error:
        if isinstance(error.__cause__, CxrError):
            raise error.__cause__ from error
        cause = error.__cause__ if isinstance(error, InstantiationException) and error.__cause__ else error
        raise ConfigError(f"the config group {group} cannot be built: {' '.join(str(cause).split())}") from error


def plain(config: Any) -> dict[str, Any]:
    """A config group as plain Python values."""
    values = OmegaConf.to_container(config, resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}
