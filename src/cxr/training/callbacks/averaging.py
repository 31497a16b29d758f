"""The moving average of the weights: what validation looks at and checkpoints hold, beside the weights that train."""

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import WeightAveraging
from torch import Tensor


class MovingAverage(WeightAveraging):
    """Exponential moving average of weights and batch-norm statistics after every update.

    Update t (from 1 on) moves the average by 1 - min(decay, (1 + t) / (10 + t)) of the way: the first updates are
    forgotten quickly, also in a run of a few hundred (as `num_updates` does in TensorFlow's ExponentialMovingAverage;
    for what averaging is good for, Tarvainen and Valpola 2017, arXiv:1703.01780).

    A checkpoint holds the average as its state, the training weights beside it, and a resumed run goes on with both.

    Args:
        decay: Share of the average that an update leaves, in (0, 1).
    """

    def __init__(self, decay: float) -> None:
        super().__init__(use_buffers=True, multi_avg_fn=self._update)
        self.decay = decay

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the average where the weights are: Lightning makes it before it moves them to their device."""
        assert self._average_model is not None
        self._average_model.to(pl_module.device)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Forget the average of the last epoch, which Lightning would validate in place of a checkpoint."""
        self._average_model = None

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Restore both sets of weights to go on with training; what is evaluated has the average already."""
        if self._average_model is not None:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)

    def _update(self, averages: Sequence[Tensor], values: Sequence[Tensor], number: Tensor) -> None:
        """Move tensors of one type; counters are copied. The number stays on its device: no step waits for it."""
        moved = 1 - ((1 + number) / (10 + number)).clamp(max=self.decay)
        for average, value in zip(averages, values, strict=True):
            if average.is_floating_point():
                average.lerp_(value, moved.to(average.dtype))
            else:
                average.copy_(value)
