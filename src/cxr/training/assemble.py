"""Config -> the parts of one experiment, checked before any work starts.

The only file of this room that knows Hydra. What a config may build is listed in `ALLOWED`; nothing else runs.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import Logger

from cxr.data.augment import AffineAugment
from cxr.data.cache import ImageCache, ImageStore, UncachedImages
from cxr.data.cohort import Cohort, CohortSettings, LabelledSamples, make_cohort, read_dataset
from cxr.data.file_index import FileIndex
from cxr.data.identity import load_salt
from cxr.data.samples import label_array, require_every_class, target_names
from cxr.errors import ConfigError, CxrError, require_extra
from cxr.imaging.preprocess import Preprocess
from cxr.models.build import build_net
from cxr.training.callbacks.checkpoint import AtomicCheckpointIO
from cxr.training.config_rules import check_config
from cxr.training.datamodule import ChestDataModule
from cxr.training.metrics import metric_names
from cxr.training.module import ClassificationTask
from cxr.training.resume import check_checkpoint, check_same_data, check_same_recipe
from cxr.training.run_folder import RunFolder

log = logging.getLogger(__name__)

ALLOWED = {
    "data.reader": ("cxr.data.readers.*",),
    "loss": ("cxr.training.losses.*", "torch.nn.modules.loss.CrossEntropyLoss"),  # what a target returns counts too
    "optimizer": ("torch.optim.*",),
    "scheduler": ("cxr.training.schedulers.*",),
    "trainer": ("pytorch_lightning.*",),
    "callbacks": ("pytorch_lightning.callbacks.*", "cxr.training.callbacks.*"),
    "logger": ("pytorch_lightning.loggers.*", "cxr.training.callbacks.*"),
}
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


def assemble(config: DictConfig) -> Experiment:
    """Build every part of the run that `config` describes.

    Raises:
        CxrError: Something is missing or does not fit; nothing has been trained or written to the run folder.
    """
    check_config(config)
    folder = RunFolder(Path(config.paths.output_dir))
    if config.ckpt_path is not None:
        check_same_recipe(plain(config), folder)
    loggers = build_loggers(config)
    pl.seed_everything(config.seed, workers=True, verbose=False)
    classes = None if config.data.classes is None else plain(config.data.classes)
    dataset = read_dataset(build(config.data.reader, "data.reader"), classes)
    require_every_class(dataset.samples, dataset.class_names, "the dataset")
    multilabel = bool(target_names(dataset.samples))
    check_monitor(config.monitor.metric, dataset.class_names, multilabel)
    check_multilabel(config, multilabel)
    net_config = plain(config.net)
    net = build_net(num_classes=len(dataset.class_names), **net_config)
    preprocess = net.input_contract.complete(Preprocess.from_dict(plain(config.preprocess)))
    net.input_contract.check(preprocess, net_config["name"])
    if config.compile:
        net.compile()
    images = open_images(config, preprocess)
    cohort = build_cohort(config, dataset, images)
    task = build_task(config, net, cohort)
    if config.ckpt_path is not None:
        check_same_data(cohort.report["fingerprint"], folder)
        check_checkpoint(Path(config.ckpt_path), task.state_dict())
    datamodule = ChestDataModule(
        cohort.samples, images, preprocess, AffineAugment(**plain(config.augment), seed=config.seed),
        config.sampler.mode, config.data.batch_size, config.data.num_workers, config.seed,
    )  # fmt: skip
    return Experiment(config, cohort, preprocess, net_config, task, datamodule, build_trainer(config, loggers))


def plain(config: Any) -> dict[str, Any]:
    """A config group as plain Python values."""
    values = OmegaConf.to_container(config, resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def open_images(config: DictConfig, preprocess: Preprocess) -> ImageStore:
    """The store of decoded images: on disk unless ``data.cache=false``."""
    if config.data.cache:
        max_bytes = None if config.data.cache_max_gb is None else int(config.data.cache_max_gb * 1e9)
        return ImageCache(Path(config.paths.cache_dir) / "images", preprocess, max_bytes=max_bytes)
    return UncachedImages(preprocess)


def open_index(config: DictConfig) -> FileIndex:
    """What is known of each file, kept beside the images."""
    return FileIndex(Path(config.paths.cache_dir) / "files.sqlite")


def leak_folder(config: DictConfig) -> Path:
    """Where the leak gate keeps what it knows of images, and its lists."""
    return Path(config.paths.cache_dir) / "leaks"


def build_cohort(config: DictConfig, dataset: LabelledSamples, images: ImageStore) -> Cohort:
    """Check, filter, decode and split the dataset; a resumed run keeps the split it was started with."""
    salt = load_salt(Path(config.paths.cache_dir))
    return make_cohort(dataset, cohort_settings(config), images, open_index(config), leak_folder(config), salt)


def cohort_settings(config: DictConfig) -> CohortSettings:
    """What the run takes of its dataset."""
    data = config.data
    return CohortSettings(
        view_filter=data.view_filter,
        limit=data.limit,
        balance_all=config.sampler.balance_all,
        fractions=tuple(data.fractions),
        split_file=choose_split_file(config),
        seed=config.seed,
        on_bad_file=data.on_bad_file,
        leak_gate="warn" if resumes(config) and data.leak_gate == "stop" else data.leak_gate,  # it has passed the gate
    )


def choose_split_file(config: DictConfig) -> Path | None:
    """The split of the run that ``ckpt_path`` continues, else ``data.split_file``, else None for a new split."""
    if resumes(config):
        return own_split(config)
    return None if config.data.split_file is None else Path(config.data.split_file)


def resumes(config: DictConfig) -> bool:
    """Whether the run continues one that has made its split."""
    return config.ckpt_path is not None and own_split(config).exists()


def own_split(config: DictConfig) -> Path:
    """Where the run keeps its split."""
    return RunFolder(Path(config.paths.output_dir)).split


def build_task(config: DictConfig, net: torch.nn.Module, cohort: Cohort) -> ClassificationTask:
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
        config.monitor.metric, config.seed, config.channels_last,
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


def build_trainer(config: DictConfig, loggers: list[Logger]) -> pl.Trainer:
    """The Trainer with callbacks and loggers; checkpoints are written atomically."""
    callbacks = [build(one, "callbacks") for one in config.callbacks.values() if one is not None]
    return build(
        config.trainer, "trainer",
        callbacks=callbacks, logger=loggers if loggers else False, default_root_dir=config.paths.output_dir,
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


def check_monitor(metric: str, class_names: list[str], multilabel: bool) -> None:
    """Raise ConfigError unless `metric` is one that validation logs."""
    known = [f"val/{name}" for name in metric_names(class_names, multilabel)]
    if metric not in known:
        raise ConfigError(f"monitor.metric={metric} is not logged; expected one of: {', '.join(known)}")
