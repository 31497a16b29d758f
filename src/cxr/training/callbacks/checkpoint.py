"""Which checkpoints are kept, and how they are written so that none is ever half there."""

import contextlib
import os
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning.callbacks import ModelCheckpoint

from cxr.errors import TrainingError


def make_best_checkpoint(run_dir: str, monitor: str, mode: str, save_top_k: int) -> ModelCheckpoint:
    """Keep the best `save_top_k` epochs in `run_dir`/checkpoints, metric and epoch in the name.

    Saved at the end of the training epoch, when the state of the schedule belongs to the epoch that follows.
    """
    name = monitor.rsplit("/", maxsplit=1)[-1]
    return ModelCheckpoint(
        dirpath=Path(run_dir) / "checkpoints",
        filename=f"epoch{{epoch:03d}}-{name}{{{monitor}:.4f}}",
        auto_insert_metric_name=False,
        monitor=monitor,
        mode=mode,
        save_top_k=save_top_k,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )


def make_last_checkpoint(run_dir: str) -> ModelCheckpoint:
    """Keep every epoch's state in `run_dir`/checkpoints/last.ckpt, to resume from.

    Apart from the best ones, since Lightning's `save_last` writes only when one of those was written. It stands after
    them in the list of callbacks, so that it holds their state.
    """
    return ModelCheckpoint(
        dirpath=Path(run_dir) / "checkpoints",
        filename="last",
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its final name and renames it: a kill or a full disk leaves the one before intact."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write `checkpoint` to `path`.

        Raises:
            TrainingError: The disk is full or the folder cannot be written.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        try:
            with partial.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except (OSError, RuntimeError) as error:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise TrainingError(
                f"could not save {path} ({error}); free some space or move the logs with CXR_LOG_DIR, "
                "then continue with ckpt_path=<run>/checkpoints/last.ckpt: checkpoints saved before are intact"
            ) from error
