"""What must hold before a run is continued from a checkpoint. Knows nothing of how the run is trained."""

import copy
import json
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from cxr.errors import ConfigError, DataError
from cxr.training.config_rules import LAST, flatten, lies_in
from cxr.training.run_folder import RunFolder

FIXED = (
    "seed", "monitor", "hash_ids", "preprocess", "net", "transfer", "augment", "sampler", "loss", "optimizer",
    "scheduler",
    "data.classes", "data.limit", "data.view_filter", "data.batch_size",
    "trainer.precision", "trainer.accumulate_grad_batches", "trainer.gradient_clip_val", "ema",
)  # fmt: skip
IN_A_CHECKPOINT = {"state_dict", "optimizer_states", "loops"}


def settle_checkpoint(config: DictConfig) -> DictConfig:
    """The config with the file that ``ckpt_path=last`` stands for: the run's last.ckpt, or none in a new run."""
    if config.ckpt_path != LAST:
        return config
    settled = copy.deepcopy(config)
    last = RunFolder(Path(config.paths.output_dir)).last_checkpoint
    settled.ckpt_path = str(last) if last.exists() else None
    return settled


def check_same_recipe(config: dict[str, Any], folder: RunFolder) -> None:
    """Raise ConfigError when a config value that decides what is learnt differs from the run's own.

    Args:
        config: The resolved config of the command that continues the run.
        folder: The run; one that has written no config yet is a new run.
    """
    if not folder.config.exists():
        return
    before, now = flatten(folder.read_config()), flatten(config)
    pairs = {key: (before.get(key), now.get(key)) for key in sorted(before | now) if lies_in(key, FIXED)}
    changes = [f"{key} was {old} and is {new}" for key, (old, new) in pairs.items() if old != new]
    if changes:
        raise ConfigError(
            f"a run is continued with the settings that it was started with, but {'; '.join(changes[:5])}; repeat its "
            "command and add ckpt_path, or start a new run without it"
        )


def check_same_data(fingerprint: str, folder: RunFolder) -> None:
    """Raise DataError when the run was started on other images or labels.

    Args:
        fingerprint: Of the cohort that is about to be trained on.
        folder: The run; one that has written no data report yet is a new run.
    """
    if folder.data_report.exists() and json.loads(folder.data_report.read_text())["fingerprint"] != fingerprint:
        raise DataError(
            f"the images or labels are not those that the run in {folder.root} was started with; restore them, or "
            "start a new run without ckpt_path"
        )


def check_checkpoint(path: Path, state: dict[str, torch.Tensor]) -> None:
    """Raise DataError unless `path` holds a checkpoint of a run of this project whose tensors fit `state`.

    Args:
        path: The file.
        state: Name -> tensor of the task that is to be continued.
    """
    expected = "ckpt_path must be a checkpoint of an earlier run"
    if not path.is_file():
        raise DataError(f"{expected}, but {path} is not a file")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # a damaged file makes torch raise nearly any type
        raise DataError(f"{expected}, but {path} cannot be read as one; take another of that folder") from error
    if not isinstance(found, dict) or not found.keys() >= IN_A_CHECKPOINT:
        raise DataError(f"{expected}, but {path} holds something else; take <run>/checkpoints/last.ckpt")
    shapes = {name: tensor.shape for name, tensor in found["state_dict"].items()}
    if shapes != {name: tensor.shape for name, tensor in state.items()}:
        raise DataError(f"{expected} of the same net, but {path} belongs to another; repeat that run's net settings")
