"""Whether the processes of a run start from the same things. Knows nothing of how these are compared on one machine."""

from collections.abc import Mapping

import pytorch_lightning as pl

from cxr.errors import TrainingError


class SameStart(pl.Callback):
    """Ends a run whose processes would train past each other, before the first batch and on all of them.

    Args:
        start: What this process starts from: name -> text.
    """

    def __init__(self, start: Mapping[str, str]) -> None:
        self.start = dict(start)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Compare with the first process.

        Raises:
            TrainingError: Any process has something else.
        """
        first = trainer.strategy.broadcast(self.start)
        other = {name: value for name, value in self.start.items() if value != first[name]}
        differing = [f"{name} {value}, the first has {first[name]}" for name, value in other.items()]
        if not trainer.strategy.reduce_boolean_decision(not differing, all=True):
            found = "; ".join(differing) if differing else "another one does not"
            raise TrainingError(
                f"expected all processes of a run to start from the same images, folder and checkpoint, but process "
                f"{trainer.global_rank} has {found}; let all machines see the same data, the same CXR_LOG_DIR and the "
                "same CXR_ID_SALT, and name the launch: torchrun --standalone or --rdzv-id, or hydra.run.dir"
            )
