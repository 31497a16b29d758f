"""The learning curve of a run as a CSV file: one row per epoch, continued by a resumed run."""

import logging
import time
from pathlib import Path

import pandas as pd
import pytorch_lightning as pl

log = logging.getLogger(__name__)


class History(pl.Callback):
    """Writes epoch, seconds, learning_rate, `train/...` and `val/...` to `path` after each epoch and logs one line."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.rows: list[dict[str, float]] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the rows of the epochs before the one that a resumed run starts with."""
        if trainer.current_epoch > 0 and self.path.exists():
            earlier = pd.read_csv(self.path)
            self.rows = earlier[earlier["epoch"] < trainer.current_epoch].to_dict("records")

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self.started = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add the row of this epoch."""
        if not trainer.is_global_zero or trainer.sanity_checking:
            return
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        epoch = trainer.current_epoch
        seconds = time.perf_counter() - self.started
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        self.rows.append({"epoch": epoch, "seconds": round(seconds, 3), "learning_rate": rate, **values})
        partial = self.path.with_name(f".{self.path.name}.partial")
        pd.DataFrame(self.rows).to_csv(partial, index=False)
        partial.replace(self.path)
        shown = ("train/loss", "val/loss", "val/auroc", "val/balanced_accuracy")
        figures = "  ".join(f"{name} {values[name]:.4f}" for name in shown if name in values)
        log.info("epoch %d/%s  %s  (%.1f s)", epoch + 1, trainer.max_epochs, figures, seconds)
