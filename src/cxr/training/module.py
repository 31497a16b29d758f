"""The one LightningModule: a net, a loss, an optimiser and the metrics of each epoch.

Knows nothing of datasets, files or configs. All randomness of an epoch is a function of (seed, epoch).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from cxr.errors import TrainingError
from cxr.models.head import Classifier
from cxr.models.transfer import Tuning, make_tuning
from cxr.training.metrics import EpochOutputs, count_right, epoch_metrics

Batch = dict[str, Tensor]
EPOCH_MEAN = {"on_step": False, "on_epoch": True, "sync_dist": True}  # one mean over all images and devices


class ClassificationTask(pl.LightningModule):
    """Trains `net` on batches of ``image`` (B, C, H, W) float32, ``label`` and ``key`` (B,) int64.

    A label is a class index, (B,) int64, or one target per class, (B, K) float32: 1, 0, or NaN where nothing is stated.
    Mixed training images have a `partner` label and the `share` of their own one, which is the larger part and the one
    that `train/accuracy` is about.

    After a validation or test epoch `outputs_of(part).compute()` still holds its logits, until the next one begins.

    Args:
        net: Backbone and head: (B, C, H, W) -> logits (B, K).
        class_names: The K names in order.
        loss: (logits, target) -> scalar.
        optimizer: parameters -> optimiser.
        scheduler: (optimiser, total updates) -> schedule, or None.
        monitor: Metric that a plateau schedule follows, for example ``val/auroc``.
        seed: The run's seed.
        channels_last: Keep weights and images in channels-last memory format.
        tuning: Which layers learn, when and how fast; None: all that require a gradient, always, at one rate.
    """

    def __init__(
        self,
        net: Classifier,
        class_names: list[str],
        loss: nn.Module,
        optimizer: Callable[[Any], Optimizer],
        scheduler: Callable[[Optimizer, int], LRScheduler | ReduceLROnPlateau] | None,
        monitor: str,
        seed: int,
        channels_last: bool,
        tuning: Tuning | None = None,
    ) -> None:
        super().__init__()
        self.tuning = make_tuning(net) if tuning is None else tuning
        self.net = net.to(memory_format=torch.channels_last) if channels_last else net
        self.class_names = class_names
        self.loss = loss
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler
        self.monitor = monitor
        self.seed = seed
        self.channels_last = channels_last
        self.train_outputs = EpochOutputs()
        self.val_outputs = EpochOutputs()
        self.test_outputs = EpochOutputs()

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, K) of images (B, C, H, W)."""
        if self.channels_last:
            image = image.contiguous(memory_format=torch.channels_last)
        return self.net(image)

    def train(self, mode: bool = True) -> "ClassificationTask":
        """Training or evaluation mode; layers that do not learn in this epoch stay in evaluation mode."""
        super().train(mode)
        if mode:
            self.tuning.apply(self.net, self.current_epoch)
        return self

    def on_train_epoch_start(self) -> None:
        """Let the layers of this epoch learn, and start its random numbers (dropout) from (seed, epoch).

        Both follow from the epoch alone, so that a resumed run does the same.
        """
        self.train()
        torch.manual_seed(
            int(np.random.SeedSequence([self.seed, self.current_epoch, self.global_rank]).generate_state(1)[0])
        )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of one batch; nothing here waits for the device."""
        logits = self(batch["image"])
        loss = self._loss_of(logits, batch)
        self.log_step(loss.detach(), logits.detach(), batch["label"])
        return loss

    def log_step(self, loss: Tensor, logits: Tensor, label: Tensor) -> None:
        """Add a training batch to the means of its epoch."""
        self.log("train/loss", loss, prog_bar=True, **EPOCH_MEAN, batch_size=len(logits))
        self.log("train/accuracy", count_right(logits, label), **EPOCH_MEAN, batch_size=len(logits))

    def _loss_of(self, logits: Tensor, batch: Batch) -> Tensor:
        """Of mixed images, the losses of both labels by their shares."""
        own = self.loss(logits, batch["label"])
        if "partner" not in batch:
            return own
        share = batch["share"].to(own)
        return share * own + (1 - share) * self.loss(logits, batch["partner"])

    def on_train_epoch_end(self) -> None:
        """Stop before a checkpoint is written when the loss is no longer a number."""
        loss = self.trainer.callback_metrics["train/loss"]
        if not torch.isfinite(loss):
            raise TrainingError(
                f"train/loss is {loss.item()} in epoch {self.current_epoch}, expected a finite number; "
                "lower optimizer.lr, or set trainer.precision=32-true and trainer.gradient_clip_val=0.5"
            )

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Keep the logits of one validation batch."""
        self._keep(batch, self.val_outputs)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Keep the logits of one test batch."""
        self._keep(batch, self.test_outputs)

    def predict_step(self, batch: Batch, batch_idx: int) -> None:
        """Keep the logits of one training batch, as it is without augmentation."""
        self._keep(batch, self.train_outputs)

    def on_predict_epoch_start(self) -> None:
        """Forget the logits of the pass before."""
        self.train_outputs.reset()

    def on_validation_epoch_start(self) -> None:
        """Forget the logits of the validation before."""
        self.val_outputs.reset()

    def on_test_epoch_start(self) -> None:
        """Forget the logits of the test before."""
        self.test_outputs.reset()

    def on_validation_epoch_end(self) -> None:
        """Log `val/...`."""
        self._log_epoch("val")

    def on_test_epoch_end(self) -> None:
        """Log `test/...`."""
        self._log_epoch("test")

    def outputs_of(self, part: str) -> EpochOutputs:
        """Logits, targets and keys of the last pass over `part`: ``train`` (not augmented), ``val`` or ``test``."""
        return {"train": self.train_outputs, "val": self.val_outputs, "test": self.test_outputs}[part]

    def _keep(self, batch: Batch, outputs: EpochOutputs) -> None:
        """What is judged is float32, as it is served; only what teaches may be less precise."""
        with torch.autocast(self.device.type, enabled=False):
            outputs.update(self(batch["image"]), batch["label"], batch["key"])

    def _log_epoch(self, part: str) -> None:
        logits, target, _ = self.outputs_of(part).compute()
        metrics = {"loss": self.loss(logits, target), **epoch_metrics(logits, target, self.class_names)}
        self.log_dict({f"{part}/{name}": value for name, value in metrics.items()})

    def configure_optimizers(self) -> Any:
        """The optimiser, and the schedule stepped once per update (a plateau: once per validation)."""
        optimizer = self.make_optimizer(self.tuning.groups(self.net))
        for group in optimizer.param_groups:
            group["lr"] *= group.get("lr_scale", 1.0)
        if self.make_scheduler is None:
            return optimizer
        schedule = self.make_scheduler(optimizer, int(self.trainer.estimated_stepping_batches))
        # Stepped by batch count rather than "epoch": Lightning steps those after the checkpoint is written.
        every = self.trainer.num_training_batches if isinstance(schedule, ReduceLROnPlateau) else 1
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step", "frequency": every, "monitor": self.monitor},
        }
