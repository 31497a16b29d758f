"""A finished run trained once more from what it stored, and whether its numbers came out the same.

Knows nothing of how a run trains.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from omegaconf import DictConfig, OmegaConf

from cxr.errors import ConfigError, DataError
from cxr.evaluation.predictions import read_predictions
from cxr.training.fit import fit
from cxr.training.run_folder import RunFolder, environment
from cxr.training.sources import read_cohort
from cxr.training.summary import HEADLINES


@dataclass(frozen=True)
class Reproduction:
    """How a second training compares with the first.

    Attributes:
        folder: The new run folder.
        rows: How many predictions were compared, over all tables of the run.
        largest_difference: Of any probability; 0.0 if every one is equal to the last bit.
        differences: Headline metric -> value of the new run minus that of the old one, where both have it.
        versions: What differs in environment.txt, for example ``"torch==2.11.0 before, torch==2.12.0 now"``.
    """

    folder: Path
    rows: int
    largest_difference: float
    differences: dict[str, float]
    versions: list[str]

    @property
    def is_same(self) -> bool:
        """Whether all predictions are exactly equal."""
        return self.largest_difference == 0.0

    def to_text(self) -> str:
        """The answer in a few lines."""
        lines = [f"differs from then: {difference}" for difference in self.versions]
        if self.is_same:
            lines.append(f"the same: all {self.rows} predictions are equal to the last bit")
        else:
            lines.append(f"not the same: a probability differs by up to {self.largest_difference:.2g}")
            lines += [f"  {name} {difference:+.2g}" for name, difference in self.differences.items() if difference != 0]
        return "\n".join([*lines, f"run folder: {self.folder}"])


def reproduce(run: Path, out: Path | None) -> Reproduction:
    """Train again from a run's stored config and split, on one device.

    Args:
        run: The folder of a finished run.
        out: The new run folder; None for one beside the old one.

    Raises:
        ConfigError: The run was trained on several devices, or `out` is there already.
        DataError: The folder is no finished run, or the images or labels are not those it was trained on.
    """
    old = RunFolder(run.absolute())
    new = RunFolder(choose_folder(old.root, out))
    config = repeat_config(old, new.root)
    old.best_checkpoint()
    check_same_data(config, old)
    fit(config)
    rows, largest = compare_predictions(old.root, new.root)
    return Reproduction(
        new.root, rows, largest, metric_differences(old.read_metrics(), new.read_metrics()), compare_versions(old)
    )


def choose_folder(run: Path, out: Path | None) -> Path:
    """`out`, or a new name beside the run.

    Raises:
        ConfigError: `out` holds something.
    """
    if out is None:
        return run.with_name(f"{run.name}_reproduced_{datetime.now():%Y-%m-%d_%H-%M-%S-%f}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"--out must be a new or an empty folder, but {out} holds something; name another")
    return out.absolute()


def repeat_config(old: RunFolder, folder: Path) -> DictConfig:
    """The config of a run for a second one in `folder`: same split, no checkpoint to start from, no trackers.

    Raises:
        ConfigError: The run was trained on several devices.
        DataError: The folder is not a run.
    """
    values = old.read_config()
    strategy = values["trainer"].get("strategy", "auto")
    if strategy != "auto":
        raise ConfigError(
            f"a run is reproduced on one device, but this one was trained with trainer.strategy={strategy}; repeat its "
            f"command with data.split_file={old.split} and compare the two"
        )
    config = OmegaConf.create(_replace_prefix(values, values["paths"]["output_dir"], str(folder)))
    config.data.split_file = str(old.split)
    config.ckpt_path = None
    config.logger = {}
    return config


def check_same_data(config: DictConfig, old: RunFolder) -> None:
    """Raise DataError unless the images and labels are those of the run."""
    found = read_cohort(config).report["fingerprint"]
    expected = old.read_data_report()["fingerprint"]
    if found != expected:
        raise DataError(
            f"the images or labels are not those that the run in {old.root} was trained on (fingerprint "
            f"{expected[:12]} then, {found[:12]} now); restore them"
        )


def compare_predictions(old: Path, new: Path) -> tuple[int, float]:
    """Compare every predictions table of one run with that of another, sample by sample.

    Returns:
        (how many predictions, the largest absolute difference of a probability).

    Raises:
        DataError: A table is missing, or has other samples.
    """
    tables = sorted(path.name for path in old.glob("predictions_*.csv"))
    compared = [_compare_table(old / name, new / name) for name in tables]
    return sum(rows for rows, _ in compared), max(largest for _, largest in compared)


def _compare_table(old: Path, new: Path) -> tuple[int, float]:
    before, now = (_probabilities(path) for path in (old, new))
    if before.shape != now.shape or not before.index.equals(now.index):
        raise DataError(
            f"expected the samples of {old} in {new}, but they are others; use the salt (CXR_ID_SALT or the cache "
            "folder) with which the run hashed its ids"
        )
    return len(before), float(np.abs(before.to_numpy() - now.to_numpy()).max())


def _probabilities(path: Path) -> pd.DataFrame:
    """Sample id -> probabilities, sorted."""
    table, class_names = read_predictions(path)
    return table.set_index("sample_id").sort_index()[[f"prob_{k}" for k in range(len(class_names))]]


def metric_differences(old: Mapping[str, float | None], new: Mapping[str, float | None]) -> dict[str, float]:
    """New minus old of each headline metric that both have."""
    names = [f"{part}/{name}" for part in ("val", "test") for name in HEADLINES]
    pairs = {name: (old.get(name), new.get(name)) for name in names}
    return {name: now - then for name, (then, now) in pairs.items() if then is not None and now is not None}


def compare_versions(old: RunFolder) -> list[str]:
    """What is installed now and was not then, and the reverse, by package.

    Raises:
        DataError: The run has no environment.txt.
    """
    before, now = _by_name(old.read_environment()), _by_name(environment())
    pairs = {name: (before.get(name, "absent"), now.get(name, "absent")) for name in sorted(before | now)}
    return [f"{name} {then} before, {today} now" for name, (then, today) in pairs.items() if then != today]


def _by_name(lines: list[str]) -> dict[str, str]:
    """Package -> version, and the platform."""
    split = [("platform", line[2:]) if line.startswith("# ") else tuple(line.split("==", 1)) for line in lines]
    return {pair[0]: pair[1] for pair in split if len(pair) == 2}


def _replace_prefix(values: Any, old: str, new: str) -> Any:
    """The nested values with `new` in place of the folder `old` wherever a text begins with it."""
    if isinstance(values, dict):
        return {key: _replace_prefix(value, old, new) for key, value in values.items()}
    if isinstance(values, list):
        return [_replace_prefix(value, old, new) for value in values]
    if isinstance(values, str) and (values == old or values.startswith(f"{old}/")):
        return new + values[len(old) :]
    return values
