"""The words of a training command -> its dataset, for commands that look at data and train nothing.

The config is composed as train.py composes it, so whoever can train on a dataset can also have it looked at.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, open_dict
from omegaconf.errors import OmegaConfBaseException

from cxr.data.cohort import Cohort
from cxr.data.file_index import FileIndex
from cxr.data.image_store import ImageStore
from cxr.data.labelled import LabelledSamples
from cxr.entry import prepare_environment
from cxr.errors import ConfigError

SOURCE_TREE = Path(__file__).parents[2]
_AS_IN_A_RUN = (
    "run_name=data",
    "paths.output_dir='${run_dir:${ckpt_path},${paths.log_dir},${run_name}}'",  # nothing is written there
)
_WHOLE = ("data.limit=null", "sampler.balance_all=false", "data.leak_gate=warn")


@dataclass(frozen=True)
class DataSource:
    """A dataset as a training command names it, read but not yet looked into.

    Attributes:
        name: Option of the config group `data`.
        config: The composed config.
        dataset: The labelled samples.
        images: Store of the images, preprocessed as the net of the command takes them.
        index: Knows hash and header of each file.
    """

    name: str
    config: DictConfig
    dataset: LabelledSamples
    images: ImageStore
    index: FileIndex

    def make_cohort(self, images: ImageStore | None = None) -> Cohort:
        """Check, filter, decode and split the dataset as a training run does.

        Args:
            images: Decodes in place of `self.images`.

        Raises:
            CxrError: The data cannot be trained on.
        """
        from cxr.training.sources import build_cohort

        return build_cohort(self.config, self.dataset, self.images if images is None else images)

    def decode(self, images: ImageStore | None = None) -> pd.DataFrame:
        """Every sample that gives an image, whether or not they can be trained on.

        Args:
            images: Decodes in place of `self.images`.

        Raises:
            CxrError: A file cannot be read and `data.on_bad_file` is 'error', or none can.
        """
        from cxr.data.cohort import decode_dataset
        from cxr.training.sources import leak_folder

        store = self.images if images is None else images
        on_bad_file, list_folder = self.config.data.on_bad_file, leak_folder(self.config)
        return decode_dataset(self.dataset, store, self.index, on_bad_file, list_folder)


def open_data(overrides: Sequence[str]) -> DataSource:
    """Read the dataset that a training command names; all of it, even where the recipe takes a part.

    Args:
        overrides: Words as for train.py, such as ``data=chest_xray`` or ``data.root=PATH``. ``data.limit``,
            ``sampler.balance_all`` and ``data.leak_gate`` count only where they stand here, not in a recipe.

    Raises:
        CxrError: The words, the config or the dataset cannot be used.
    """
    name, config = compose_config([*_WHOLE, *overrides])
    from cxr.imaging.preprocess import Preprocess
    from cxr.training.building import plain
    from cxr.training.config_rules import check_config
    from cxr.training.sources import open_dataset, open_images, open_index

    check_config(config)
    images = open_images(config, Preprocess.from_dict(plain(config.preprocess)))
    return DataSource(name, config, open_dataset(config), images, open_index(config))


def compose_config(overrides: Sequence[str]) -> tuple[str, DictConfig]:
    """The option of the group `data`, and the config of train.py with these overrides.

    Raises:
        ConfigError: There are no configs, or Hydra refuses the overrides.
    """
    prepare_environment()
    try:
        with initialize_config_dir(str(find_configs())):
            config = compose("train", [*_AS_IN_A_RUN, *overrides], return_hydra_config=True)
        name = str(config.hydra.runtime.choices["data"])
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(f"expected overrides as for train.py, but {_tell_problem(error)}") from error
    with open_dict(config):
        del config["hydra"]
    return name, config


def _tell_problem(error: Exception) -> str:
    """What Hydra has to say, on one line, without its grammar, its search path and the options that others build on."""
    if isinstance(error, OverrideParseException):
        return f"got {error.override!r}; write them as group=option or key=value"
    words = str(error).partition("Config search path")[0].split()
    return " ".join(word for word in words if not word.startswith("_"))


def find_configs() -> Path:
    """The project's folder of configs: beside the source tree, else in the working folder.

    Raises:
        ConfigError: There is none.
    """
    places = [folder.absolute() / "configs" for folder in (SOURCE_TREE, Path.cwd())]
    for place in places:
        if (place / "train.yaml").is_file():
            return place
    raise ConfigError(
        f"expected the project's configs in {' or '.join(map(str, dict.fromkeys(places)))}, but found none; "
        "run the command in the project's folder"
    )
