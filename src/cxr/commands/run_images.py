"""A run folder -> its config, its predictions and their images. Knows nothing of what is done with them."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cxr.data.identity import hash_ids, load_salt
from cxr.errors import ConfigError, DataError
from cxr.evaluation.predictions import classes_path, read_predictions
from cxr.inference.predictor import Predictor


def read_config(run: Path, overrides: Sequence[str]) -> DictConfig:
    """The config of a run with some values replaced.

    Raises:
        DataError: The folder is not a run.
        ConfigError: An override is none.
    """
    if not (run / "config.yaml").is_file():
        raise DataError(f"expected a run folder with config.yaml, but {run} has none; give the folder of a run")
    config = OmegaConf.load(run / "config.yaml")
    OmegaConf.set_struct(config, True)
    expected = "expected values of the run's config, such as data.root=PATH, but"
    if bare := [word for word in overrides if "=" not in word]:
        raise ConfigError(f"{expected} got {bare[0]!r}; write key=value")
    try:
        config.merge_with_dotlist(list(overrides))
    except OmegaConfBaseException as error:
        raise ConfigError(f"{expected} {' '.join(str(error).split())}") from error
    assert isinstance(config, DictConfig)
    return config


def read_part(run: Path, part: str, predictor: Predictor, target: str | None) -> tuple[pd.DataFrame, list[str]]:
    """The predictions of one part of a run, of one target where it has several.

    Raises:
        ConfigError: A target is missing, unknown, or given for a run that has none.
        DataError: The run has no such predictions.
    """
    check_target(predictor, target)
    table = run / f"predictions_{part}.csv" if target is None else _find_table(run, part, target)
    if not table.is_file():
        raise DataError(
            f"expected {table.name} in {run}, but there is none; choose another --part, or evaluate this one"
        )
    return read_predictions(table)


def check_target(predictor: Predictor, target: str | None) -> None:
    """Raise ConfigError unless a target is named where the net has several, and only there."""
    if predictor.multilabel and target not in predictor.class_names:
        names = ", ".join(predictor.class_names)
        raise ConfigError(f"expected --target to be one of {names}, got {target}; choose one of these")
    if not predictor.multilabel and target is not None:
        raise ConfigError(f"expected no --target for a run with one class per image, got {target}; leave it out")


def _find_table(run: Path, part: str, target: str) -> Path:
    """The table of a target, which its class names tell."""
    for table in sorted(run.glob(f"predictions_{part}_*.csv")):
        sidecar = classes_path(table)
        if not table.stem.endswith("_study") and sidecar.is_file():
            names = json.loads(sidecar.read_text(encoding="utf-8"))
            if names[-1:] == [target]:
                return table
    return run / f"predictions_{part}_{target}.csv"


def find_images(config: DictConfig, predictions: pd.DataFrame) -> pd.DataFrame:
    """The predictions with the `image_path` and, where the dataset has them, the `boxes` of each sample.

    Raises:
        CxrError: The dataset cannot be read, or does not hold the samples.
    """
    from cxr.training.sources import open_dataset

    samples = open_dataset(config).samples
    ids = samples["sample_id"]
    if config.hash_ids:
        ids = hash_ids(ids, load_salt(Path(config.paths.cache_dir)))
    known = samples.assign(sample_id=ids.astype("string"))
    columns = [name for name in ("sample_id", "image_path", "boxes") if name in known]
    found = predictions.merge(known[columns], on="sample_id", how="left", validate="many_to_one")
    missing = int(found["image_path"].isna().sum())
    if missing:
        raise DataError(
            f"expected the images of {len(found)} predictions in the dataset, but {missing} are not there; use the "
            "data and the salt (CXR_ID_SALT, or the cache folder) of the run, for example with data.root=PATH"
        )
    return found


def as_file_name(*words: str | None) -> str:
    """The words that there are as one name, without what file systems forbid."""
    return re.sub(r"[^\w.+-]+", "_", "_".join(filter(None, words)))


def sample_rows(rows: pd.DataFrame, count: int) -> pd.DataFrame:
    """`count` rows at most, the same ones each time whatever their order.

    Raises:
        ConfigError: `count` is below 2.
    """
    if count < 2:
        raise ConfigError(f"expected --images of 2 or more, got {count}; choose a larger number")
    ordered = rows.sort_values("sample_id").reset_index(drop=True)
    return ordered if len(ordered) <= count else ordered.sample(count, random_state=0)
