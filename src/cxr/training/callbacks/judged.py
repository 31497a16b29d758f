"""Stops a run when its judge says so. Knows nothing of who judges (`cxr.training.judging`)."""

import pytorch_lightning as pl
from pytorch_lightning.trainer.states import TrainerFn

from cxr.training.judging import Judge, StoppedByJudgeError, current_judge


def judging_callbacks() -> list[pl.Callback]:
    """What lets the judge of the block around this call, if there is one, look at a run."""
    judge = current_judge()
    return [] if judge is None else [Judged(judge)]


def raise_if_stopped(trainer: pl.Trainer) -> None:
    """Raise StoppedByJudgeError if that is how training ended."""
    if any(isinstance(callback, Judged) and callback.stopped for callback in trainer.callbacks):
        raise StoppedByJudgeError(f"stopped after {trainer.current_epoch} epochs")


class Judged(pl.Callback):
    """Tells `judge` of each validation; all devices stop together when it says so."""

    def __init__(self, judge: Judge) -> None:
        self.judge = judge
        self.stopped = False

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Ask on the first device, and let all know."""
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        stop = trainer.is_global_zero and self.judge(trainer.current_epoch, metrics)
        self.stopped = trainer.strategy.broadcast(stop)
        trainer.should_stop = trainer.should_stop or self.stopped
