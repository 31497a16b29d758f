"""Weights & Biases: the logger, and the pictures it gets each validation epoch. The only file that knows W&B.

No account is ever needed: without an API key the run is recorded offline and can be sent later with `wandb sync`.
"""

import logging
import netrc
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import Logger, WandbLogger
from pytorch_lightning.trainer.states import TrainerFn

import cxr
from cxr.errors import require_extra
from cxr.evaluation.drawing import drawable_names
from cxr.evaluation.figure_set import classification_figures, figure_to_array
from cxr.evaluation.figures import plot_image_grid
from cxr.training.datamodule import ChestDataModule
from cxr.training.metrics import Question, make_questions

if TYPE_CHECKING:
    from cxr.training.module import ClassificationTask

log = logging.getLogger(__name__)

PACKAGE = Path(cxr.__file__).parent
EVERY_EPOCH = ("confusion", "confusion_normalised", "f1_heatmap")


def has_api_key() -> bool:
    """Whether W&B would find a key: WANDB_API_KEY, or the netrc entry that `wandb login` writes."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    path = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    try:
        return host is not None and netrc.netrc(path).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def make_wandb_logger(save_dir: str, project: str, name: str, group: str | None, id: str | None) -> WandbLogger:
    """A W&B logger that runs offline by itself when there is no API key.

    Args:
        save_dir: The run folder.
        project: W&B project.
        name: Name of the run.
        group: Name that the trials of one sweep share, or None.
        id: Id of an earlier W&B run to append to, or None for a new one.

    Raises:
        MissingExtraError: wandb is not installed.
    """
    require_extra("wandb", "wandb")
    mode = os.environ.get("WANDB_MODE")
    offline = mode == "offline" or (mode is None and not has_api_key())
    if offline:
        log.info("W&B records offline in %s/wandb; set WANDB_API_KEY and run `wandb sync` to send it", save_dir)
    return WandbLogger(
        save_dir=save_dir, project=project, name=name, group=group, id=id, resume="allow",
        offline=offline, log_model=False,
    )  # fmt: skip


def finish_wandb(loggers: Iterable[Logger], exit_code: int) -> None:
    """End the W&B runs, so that the next run of this process (a trial of a sweep) gets one of its own.

    Args:
        loggers: All loggers of the run.
        exit_code: 0 for a run that succeeded; W&B shows any other as failed.
    """
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.finish(exit_code=exit_code)


def log_checkpoint(loggers: Iterable[Logger], checkpoint: Path) -> None:
    """Store `checkpoint` as the artifact ``model-<run id>`` with the alias ``best`` in the W&B runs."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            name = f"model-{logger.experiment.id}"
            logger.experiment.log_artifact(str(checkpoint), name=name, type="model", aliases=["best"])


def log_gallery(loggers: Iterable[Logger], pictures: Sequence[Path]) -> None:
    """Add pictures of what the net looks at to the W&B runs, under the key ``gallery``."""
    for logger in loggers:
        if isinstance(logger, WandbLogger) and pictures:
            logger.log_image("gallery", [str(path) for path in pictures], caption=[path.stem for path in pictures])


class WandbMedia(pl.Callback):
    """Sends figures with class names to W&B, under keys that are the same in every run; idle without a W&B logger.

    Each validation epoch: ``val/confusion``, ``val/confusion_normalised``, ``val/f1_heatmap`` and, where images may
    leave the machine, ``val/samples``: the same images each time with prediction and truth. When the best checkpoint
    is evaluated, ``val/roc``, ``val/precision_recall``, the same for ``test/``, and the checkpoint where that is asked.

    Args:
        images: Number of sample images.
        public_images: Whether the dataset's images may be sent to a tracker.
        upload_checkpoint: Store the best checkpoint as an artifact, in an offline run until it is sent.
        upload_code: Store this package's source files as an artifact.
        watch: Send histograms of the gradients, which costs time.
    """

    def __init__(
        self, images: int, public_images: bool, upload_checkpoint: bool, upload_code: bool, watch: bool
    ) -> None:
        self.images = images if public_images else 0
        self.upload_checkpoint = upload_checkpoint
        self.upload_code = upload_code
        self.watch = watch

    def on_fit_start(self, trainer: pl.Trainer, pl_module: "ClassificationTask") -> None:
        """Store the code and begin to watch the net, where that is asked."""
        for logger in _wandb_loggers(trainer):
            if self.upload_code:
                logger.experiment.log_code(str(PACKAGE))
            if self.watch:
                logger.watch(pl_module.net, log="gradients", log_graph=False)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: "ClassificationTask") -> None:
        """Send the figures of this validation, and with the last one the checkpoint that it is of."""
        final = trainer.state.fn == TrainerFn.VALIDATING
        self._send(trainer, pl_module, part="val", final=final)
        if final and self.upload_checkpoint and trainer.is_global_zero:
            log_checkpoint(trainer.loggers, Path(trainer.ckpt_path))

    def on_test_end(self, trainer: pl.Trainer, pl_module: "ClassificationTask") -> None:
        """Send the figures of the test part."""
        self._send(trainer, pl_module, part="test", final=True)

    def _send(self, trainer: pl.Trainer, task: "ClassificationTask", part: str, final: bool) -> None:
        loggers = _wandb_loggers(trainer)
        if not loggers or trainer.sanity_checking:
            return
        logits, target, key = (values.cpu() for values in task.outputs_of(part).compute())
        if not trainer.is_global_zero or not torch.isfinite(logits).all():  # the task tells of a diverged run
            return
        for target_name, question in make_questions(logits, target, key, task.class_names).items():
            figures = self._figures(trainer.datamodule, question, part, final)
            place = f"{part}/{target_name}" if target_name else part
            for logger in loggers:
                for name, figure in figures.items():
                    logger.log_image(f"{place}/{name}", [figure_to_array(figure)], step=trainer.global_step)

    def _figures(self, datamodule: ChestDataModule, question: Question, part: str, final: bool) -> dict[str, Any]:
        probs = question.logits.double().softmax(dim=1)
        figures = classification_figures(question.target.numpy(), probs.numpy(), question.class_names)
        chosen = {name: figure for name, figure in figures.items() if final or name in EVERY_EPOCH}
        if part == "val" and self.images > 0:
            chosen["samples"] = self._samples(datamodule, question, probs)
        return chosen

    def _samples(self, datamodule: ChestDataModule, question: Question, probs: torch.Tensor) -> Any:
        key, target, names = question.key, question.target, drawable_names(question.class_names)
        rows = np.unique(np.linspace(0, len(key) - 1, num=self.images).round().astype(np.int64))
        stored = datamodule.stored_images("val", key[rows].numpy())
        images = list(stored.astype(np.float32) / np.iinfo(stored.dtype).max)
        preds = probs.argmax(dim=1)
        titles = [f"{names[preds[row]]} {probs[row].max():.2f} | truth {names[target[row]]}" for row in rows]
        return plot_image_grid(images, titles, [bool(preds[row] == target[row]) for row in rows])


def _wandb_loggers(trainer: pl.Trainer) -> list[WandbLogger]:
    return [logger for logger in trainer.loggers if isinstance(logger, WandbLogger)]
