"""Config -> the parts of one experiment, checked before any work starts."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from pytorch_lightning.loggers import Logger

from cxr.data.augment_policy import make_augment
from cxr.data.cohort import Cohort
from cxr.data.samples import label_array, require_every_class, target_names
from cxr.errors import ConfigError, require_extra
from cxr.evaluation.operating_point import parse_rule
from cxr.imaging.preprocess import Preprocess
from cxr.models.head import Classifier, recompute_activations
from cxr.training.batch_size import repeat_batch_size, settle_batch_size
from cxr.training.building import build, plain
from cxr.training.callbacks.averaging import MovingAverage
from cxr.training.callbacks.checkpoint import AtomicCheckpointIO
from cxr.training.callbacks.judged import judging_callbacks
from cxr.training.callbacks.same_start import SameStart
from cxr.training.config_rules import check_config
from cxr.training.datamodule import ChestDataModule
from cxr.training.devices import require_devices
from cxr.training.metrics import metric_names
from cxr.training.module import ClassificationTask
from cxr.training.precision import settle_precision
from cxr.training.resume import check_checkpoint, check_same_data, check_same_recipe, settle_checkpoint
from cxr.training.run_folder import RunFolder, file_name
from cxr.training.sources import build_cohort, open_dataset, open_images
from cxr.training.starting_net import build_starting_net, build_tuning, check_devices
from cxr.training.together import check_strategy

log = logging.getLogger(__name__)

LOGGER_MODULES = {
    "tensorboard": "tensorboard",
    "wandb": "wandb",
    "mlflow": "mlflow",
    "comet": "comet_ml",
    "neptune": "neptune",
}


@dataclass(frozen=True)
class Experiment:
    """The parts of one run.

    Attributes:
        config: The composed config.
        cohort: Samples with label and split, class names, report.
        preprocess: Complete preprocessing, the same everywhere.
        net_config: Name and plain arguments of the net.
        task: The LightningModule.
        datamodule: The LightningDataModule.
        trainer: The Trainer with its callbacks and loggers.
    """

    config: DictConfig
    cohort: Cohort
    preprocess: Preprocess
    net_config: dict[str, Any]
    task: ClassificationTask
    datamodule: ChestDataModule
    trainer: pl.Trainer


def assemble(config: DictConfig) -> Experiment:
    """Build every part of the run that `config` describes.

    Raises:
        CxrError: Something is missing or does not fit; nothing has been trained or written to the run folder.
    """
    check_config(config)
    require_devices(config.trainer.accelerator, config.trainer.devices)
    config = settle_checkpoint(settle_precision(config))
    parse_rule(config.operating_point)
    folder = RunFolder(Path(config.paths.output_dir))
    config = repeat_batch_size(config, folder)
    if config.ckpt_path is not None:
        check_same_recipe(plain(config), folder)
    loggers = build_loggers(config)
    pl.seed_everything(config.seed, workers=True, verbose=False)
    dataset = open_dataset(config)
    require_every_class(dataset.samples, dataset.class_names, "the dataset")
    multilabel = bool(target_names(dataset.samples))
    check_monitor(config.monitor.metric, dataset.class_names, multilabel)
    check_multilabel(config, multilabel)
    check_file_names(target_names(dataset.samples))
    net_config = plain(config.net)
    net = build_starting_net(config, dataset.class_names)
    preprocess = net.input_contract.complete(Preprocess.from_dict(plain(config.preprocess)))
    net.input_contract.check(preprocess, net_config["name"])
    if config.grad_checkpointing:
        recompute_activations(net)
    config = settle_batch_size(config, net)
    if config.compile:
        net.compile()
    images = open_images(config, preprocess)
    cohort = build_cohort(config, dataset, images)
    task = build_task(config, net, cohort)
    if config.ckpt_path is not None:
        check_same_data(cohort.report["fingerprint"], folder)
        check_checkpoint(Path(config.ckpt_path), task.state_dict())
    augment, mixing = make_augment(plain(config.augment), config.seed)
    datamodule = ChestDataModule(
        cohort.samples, images, preprocess, augment, config.sampler.mode, config.data.batch_size,
        config.data.num_workers, config.seed, mixing, config.data.device_cache,
    )  # fmt: skip
    start = {"images": cohort.report["fingerprint"], "folder": str(folder.root), "checkpoint": str(config.ckpt_path)}
    trainer = build_trainer(config, loggers, start)
    check_devices(config, trainer.world_size)
    check_strategy(trainer, config)
    return Experiment(config, cohort, preprocess, net_config, task, datamodule, trainer)


def build_task(config: DictConfig, net: Classifier, cohort: Cohort) -> ClassificationTask:
    """The LightningModule, its loss weighted by the training part."""
    labels = torch.from_numpy(label_array(cohort.samples[cohort.samples["split"] == "train"]))
    if labels.ndim == 1:
        counts = torch.bincount(labels, minlength=len(cohort.class_names))
    else:
        counts = torch.stack([(labels == answer).sum(dim=0) for answer in (0, 1)], dim=1)
    optimizer = build(config.optimizer, "optimizer")
    try_optimizer(optimizer, net)
    return ClassificationTask(
        net, cohort.class_names, build(config.loss, "loss")(counts=counts), optimizer,
        None if config.scheduler._target_ is None else build(config.scheduler, "scheduler"),
        config.monitor.metric, config.seed, config.channels_last, build_tuning(config, net),
    )  # fmt: skip


def try_optimizer(optimizer: Any, net: torch.nn.Module) -> None:
    """Raise ConfigError when the optimiser refuses its options, before the first step."""
    try:
        optimizer(list(net.parameters()))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the config group optimizer cannot be built: {error}") from error


def build_loggers(config: DictConfig) -> list[Logger]:
    """The loggers by name, their extras checked first."""
    for name in config.logger:
        if name in LOGGER_MODULES:
            require_extra(LOGGER_MODULES[name], name)
    return [build(one, "logger") for one in config.logger.values()]


def build_trainer(config: DictConfig, loggers: list[Logger], start: Mapping[str, str]) -> pl.Trainer:
    """The Trainer with callbacks and loggers; checkpoints are written atomically.

    Args:
        config: The composed config.
        loggers: Its loggers.
        start: What all processes of the run must have in common.
    """
    averaging = [] if config.ema is None else [MovingAverage(config.ema)]
    chosen = [build(one, "callbacks") for one in config.callbacks.values() if one is not None]
    return build(
        config.trainer, "trainer",
        callbacks=[SameStart(start), *averaging, *chosen, *judging_callbacks()],
        logger=loggers if loggers else False, default_root_dir=config.paths.output_dir,
        plugins=[AtomicCheckpointIO()], enable_progress_bar=config.callbacks.get("progress") is not None,
        enable_model_summary=False,
    )  # fmt: skip


def check_multilabel(config: DictConfig, multilabel: bool) -> None:
    """Raise ConfigError unless loss and sampler are for a dataset of this kind."""
    masked = str(config.loss._target_).endswith(".make_masked_bce")
    if multilabel and not masked:
        raise ConfigError("images with several targets need a loss that masks unstated ones; add loss=masked_bce")
    if masked and not multilabel:
        raise ConfigError("loss=masked_bce needs several targets per image (data.targets); choose loss=cross_entropy")
    if multilabel and (config.sampler.mode != "none" or config.sampler.balance_all):
        raise ConfigError("images with several targets cannot be balanced by class; add sampler=none")


def check_file_names(targets: Sequence[str]) -> None:
    """Raise ConfigError where two targets would write the same files, here or where case does not count."""
    owners: dict[str, str] = {}
    for target in targets:
        owner = owners.setdefault(file_name(target).casefold(), target)
        if owner != target:
            raise ConfigError(
                f"expected targets whose names differ in letters or digits, since files are named by them, but got "
                f"{owner!r} and {target!r}; rename one in the table and in data.targets"
            )


def check_monitor(metric: str, class_names: list[str], multilabel: bool) -> None:
    """Raise ConfigError unless `metric` is one that validation logs."""
    known = [f"val/{name}" for name in metric_names(class_names, multilabel)]
    if metric not in known:
        raise ConfigError(f"monitor.metric={metric} is not logged; expected one of: {', '.join(known)}")
