"""fit(): config -> a run folder with a tested model's bundle in it.

Everything after training (evaluation, prediction, serving) starts from what this leaves on disk, never from the config.
"""

import copy
import logging
import math
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pandas as pd
from omegaconf import DictConfig, OmegaConf

from cxr.data.phantoms.ceiling import best_achievable_auroc
from cxr.data.samples import target_names
from cxr.data.splits import write_split
from cxr.inference.bundle import write_bundle
from cxr.memory import keep_freed_memory
from cxr.models.build import count_parameters
from cxr.training.assemble import Experiment, assemble
from cxr.training.batch_size import memory_advice
from cxr.training.building import plain
from cxr.training.callbacks.judged import raise_if_stopped
from cxr.training.callbacks.wandb_media import finish_wandb, log_gallery
from cxr.training.evaluate import evaluate, fit_beside, write_run_report
from cxr.training.interrupts import interrupts
from cxr.training.judging import StoppedByJudgeError
from cxr.training.run_folder import RunFolder, start_logging
from cxr.training.sources import id_salt
from cxr.training.summary import show_data, show_net, show_results, show_update
from cxr.training.together import is_divided, leave_the_others, lost_devices

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FitResult:
    """What training gave.

    Attributes:
        run_dir: The run folder.
        best_score: Best monitored value over the epochs.
        best_checkpoint: Checkpoint of that epoch.
        metrics: ``val/...`` and, where the test part was opened, ``test/...`` of that checkpoint.
    """

    run_dir: Path
    best_score: float
    best_checkpoint: Path
    metrics: dict[str, float]


def preflight(config: DictConfig) -> None:
    """Raise what `fit` would raise before its first batch; decodes what is not decoded yet and trains nothing.

    Raises:
        CxrError: Data, extras, weights or config values that are missing or do not fit.
    """
    assemble(config)


def fit(config: DictConfig) -> FitResult:
    """Train, choose the best checkpoint by the monitored metric, evaluate it, and write the run folder.

    Args:
        config: The composed config (configs/train.yaml).

    Raises:
        CxrError: Anything the user can mend; what was saved before stays usable.
        StoppedByJudgeError: Whoever judges the run asked it to stop, see `cxr.training.judging`.
    """
    keep_freed_memory()
    folder = RunFolder(Path(config.paths.output_dir))
    with folder.held():
        return fit_into(folder, config)


def fit_into(folder: RunFolder, config: DictConfig) -> FitResult:
    """What `fit` does in a folder that no other run writes to."""
    start_logging(folder.root)
    experiment = assemble(config)
    if experiment.trainer.is_global_zero:
        begin(experiment, folder)
    try:
        with lost_devices(), memory_advice(config, experiment.config, experiment.datamodule.resident):
            result = train_and_evaluate(experiment, folder)
    except BaseException as error:
        finish_wandb(experiment.trainer.loggers, exit_code=int(not isinstance(error, StoppedByJudgeError)))
        raise
    finish_wandb(experiment.trainer.loggers, exit_code=0)
    return result


def begin(experiment: Experiment, folder: RunFolder) -> None:
    """Write what the run starts from, and show it."""
    config, cohort = experiment.config, experiment.cohort
    folder.write_inputs(plain(config), cohort.report)
    write_split(cohort.samples, folder.split, class_names=cohort.class_names, salt=id_salt(config))
    show_data(cohort.report)
    show_net(experiment.task.net, experiment.net_config["name"], experiment.preprocess)
    show_update(config.data.batch_size, config.trainer.accumulate_grad_batches, experiment.trainer.world_size)


def train_and_evaluate(experiment: Experiment, folder: RunFolder) -> FitResult:
    """What `fit` does once every part is there and the inputs are written; all devices take part."""
    config = experiment.config
    log_hyperparameters(experiment)
    train(experiment)
    raise_if_stopped(experiment.trainer)
    monitoring = (callback for callback in experiment.trainer.checkpoint_callbacks if callback.monitor is not None)
    checkpoint = next(monitoring, None)
    if checkpoint is None or not checkpoint.best_model_path:
        log.info("no checkpoint was asked for: nothing is evaluated")
        return FitResult(folder.root, math.nan, Path(), {})
    best = Path(checkpoint.best_model_path)
    score = float(checkpoint.best_model_score)
    if experiment.trainer.is_global_zero:
        folder.write_best(config.monitor.metric, score, best)
    if is_divided(experiment.trainer):
        leave_the_others()
        if not experiment.trainer.is_global_zero:
            return FitResult(folder.root, score, best, {})
        experiment = assemble(on_one_device(config, folder))
    metrics = evaluate(experiment, folder, best, [*(["train"] * config.report), "val", *(["test"] * config.test)])
    if experiment.trainer.is_global_zero:
        conclude(experiment, folder, metrics)
    return FitResult(folder.root, score, best, metrics)


def conclude(experiment: Experiment, folder: RunFolder, metrics: dict[str, float]) -> None:
    """Write what the run leaves beside its predictions, and show how it ended."""
    write_run_bundle(experiment, folder)
    if experiment.config.report:
        write_run_report(experiment, folder)
        log_gallery(experiment.trainer.loggers, sorted((folder.root / "gallery").glob("*.png")))
    show_results(folder.root, metrics, phantom_ceiling(experiment.datamodule.parts["test"]))


def test_run(run_dir: Path) -> dict[str, float]:
    """Open the test part for the best checkpoint of a finished run that was trained with ``test=false``, on one device.

    Args:
        run_dir: The run folder.

    Returns:
        The ``test/...`` metrics, which are also added to the run folder, with a report.

    Raises:
        DataError: The folder is not a finished run.
        TrainingError: Another run writes there.
    """
    folder = RunFolder(run_dir)
    config = OmegaConf.create(folder.read_config())
    config.paths.output_dir = str(run_dir)
    with folder.held():
        start_logging(run_dir)
        experiment = assemble(on_one_device(config, folder))
        metrics = evaluate(experiment, folder, folder.best_checkpoint(), ["test"])
        write_run_bundle(experiment, folder)
        write_run_report(experiment, folder)
    return metrics


def on_one_device(config: DictConfig, folder: RunFolder) -> DictConfig:
    """The config of a trained run, for one device that evaluates it and tells no tracker."""
    config = copy.deepcopy(config)
    OmegaConf.set_struct(config, False)
    config.data.split_file = str(folder.split)
    config.logger = {}
    config.trainer.update(devices=1, num_nodes=1, strategy="auto")
    return config


def train(experiment: Experiment) -> None:
    """Run the training loop, from ``ckpt_path`` where it is given."""
    with interrupts():
        experiment.trainer.fit(
            experiment.task, datamodule=experiment.datamodule, ckpt_path=experiment.config.ckpt_path, weights_only=True
        )


def log_hyperparameters(experiment: Experiment) -> None:
    """Config and parameter counts to every logger."""
    values = {**plain(experiment.config), "parameters": count_parameters(experiment.task.net)}
    for logger in experiment.trainer.loggers:
        logger.log_hyperparams(values)


def write_run_bundle(experiment: Experiment, folder: RunFolder) -> None:
    """The bundle of the best checkpoint, whose weights `evaluate` left in the net."""
    extras = {
        "run": folder.root.name,
        "data_fingerprint": experiment.cohort.report["fingerprint"],
        "versions": {name: version(name) for name in ("cxr-lab", "torch", "torchvision", "timm")},
        "metrics": folder.read_metrics(),
        "parameters": count_parameters(experiment.task.net)["total"],
        "frozen_backbone": is_backbone_frozen(experiment.config),
    }
    write_bundle(
        folder.root / "bundle", experiment.task.net, experiment.net_config, experiment.cohort.class_names,
        experiment.preprocess, extras, multilabel=bool(target_names(experiment.cohort.samples)),
        fitted=fit_beside(experiment, folder),
    )  # fmt: skip


def is_backbone_frozen(config: DictConfig) -> bool:
    """Whether nothing but the head learnt, so that an embedding knows no label of these images."""
    transfer = config.transfer
    return transfer.freeze_upto == "backbone" and transfer.unfreeze_every is None and transfer.init_from is None


def phantom_ceiling(samples: pd.DataFrame) -> float | None:
    """The best AUROC that any score can reach on these rows: known for phantoms in two classes, else None."""
    if "d_prime" not in samples or "label" not in samples or samples["label"].nunique() != 2:
        return None
    return best_achievable_auroc(samples, samples["label"] == 1)
