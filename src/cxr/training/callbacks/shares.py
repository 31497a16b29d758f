"""Where the time of training goes: a trace of a few steps, and one paragraph of shares of all others.

Knows nothing of nets or data. Lightning tells what it does, one thing inside another; each second counts for the
innermost.
"""

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.profilers import Profiler

log = logging.getLogger(__name__)

PARTS = ("data", "host-to-device", "forward", "backward", "optimiser", "logging", "metrics", "checkpoint", "validation")
REST = "the loop around them"
MARKS = {  # part of the name of what Lightning does -> part of the answer; the first that is found counts
    "on_save_checkpoint": "checkpoint",
    "save_checkpoint": "checkpoint",
    "Checkpoint": "checkpoint",
    "dataloader_next": "data",
    "on_after_batch_transfer": "data",
    "batch_to_device": "host-to-device",
    "transfer_batch": "host-to-device",
    "on_validation_epoch_end": "metrics",
    "metrics": "metrics",
    "validation": "validation",
    "training_step": "forward",
    "backward": "backward",
    "optimizer": "optimiser",
    "zero_grad": "optimiser",
    "logging": "logging",
    "[Callback]": "logging",
}


class Shares(Profiler):
    """Seconds of each part; what runs inside something else counts for itself alone.

    Args:
        clock: Seconds, whatever they are counted from.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        super().__init__()
        self.clock = clock
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._open: list[str] = []
        self._since = clock()

    def start(self, action_name: str) -> None:
        """Something begins."""
        self._settle()
        self._open.append(find_part(action_name, self._open[-1] if self._open else REST))

    def stop(self, action_name: str) -> None:
        """It ends."""
        self._settle()
        self._open.pop()

    def begin(self) -> None:
        """Forget the seconds so far."""
        self.seconds.clear()
        self._since = self.clock()

    def _settle(self) -> None:
        """Count the time since the last beginning or end."""
        now = self.clock()
        self.seconds[self._open[-1] if self._open else REST] += now - self._since
        self._since = now


def find_part(action: str, around: str) -> str:
    """The part of the answer that an action belongs to: that of what it happens in, where its name says nothing."""
    return next((part for mark, part in MARKS.items() if mark in action), around)


def tell_shares(seconds: Mapping[str, float], steps: int, batch_size: int) -> str:
    """The answer in one paragraph.

    Args:
        seconds: Of each part.
        steps: That they were spent on.
        batch_size: Images of a step.
    """
    whole, images = sum(seconds.values()), steps * batch_size
    shares = ", ".join(f"{name} {seconds.get(name, 0) / whole:.1%}" for name in (*PARTS, REST))
    most = max(seconds, key=lambda name: seconds[name])
    return (
        f"{steps} steps of {batch_size} images took {whole:.2f} s, {images / whole:.1f} images/s: {shares}. "
        f"Most of it is {most}."
    )


class TimeShares(pl.Callback):
    """Writes `trace.json`, which chrome://tracing and Perfetto open, and `profile.txt` with the shares, to `folder`.

    On a GPU each part waits for the device, so that its time is its own; training is slower meanwhile. Of several
    devices the first one writes about itself.

    Args:
        folder: The run folder.
        trace_steps: Steps in the trace, after as many that warm up; neither count for the shares.
    """

    def __init__(self, folder: str, trace_steps: int) -> None:
        self.folder = Path(folder)
        self.trace_steps = trace_steps
        self.shares = Shares()
        self._trace: torch.profiler.profile | None = None
        self._batches = self._before = 0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Listen to what Lightning does, and to what the module logs and measures."""
        if stage == "fit":
            trainer.profiler = self.shares
            if trainer.strategy.root_device.type == "cuda":
                self.shares.clock = wait_and_count
            for name, action in (("log", "logging"), ("log_step", "metrics")):
                setattr(pl_module, name, self._listened(getattr(pl_module, name), action))

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Start the trace, and once it is written the clock."""
        if self._batches == self.trace_steps and trainer.is_global_zero:
            self._trace = torch.profiler.profile()
            self._trace.start()
        elif self._batches == 2 * self.trace_steps:
            self._write_trace()
            self.shares.begin()
            self._before = self._batches
        self._batches += 1

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Tell the shares."""
        self._write_trace()
        for name in ("log", "log_step"):
            vars(pl_module).pop(name)
        if trainer.is_global_zero:
            answer = tell_shares(self.shares.seconds, self._batches - self._before, trainer.datamodule.batch_size)
            answer += self._tell_warm_up()
            (self.folder / "profile.txt").write_text(f"{answer}\n")
            log.info("%s", answer)

    def _tell_warm_up(self) -> str:
        if self._before:
            return ""
        return (
            f" They are all steps of the run, also those that warm up and those in the trace: only from step "
            f"{2 * self.trace_steps + 1} on are they left out."
        )

    def _write_trace(self) -> None:
        if self._trace is not None:
            self._trace.stop()
            self._trace.export_chrome_trace(str(self.folder / "trace.json"))
            self._trace = None

    def _listened(self, function: Callable[..., Any], action: str) -> Callable[..., Any]:
        @wraps(function)
        def called(*arguments: Any, **keywords: Any) -> Any:
            with self.shares.profile(action):
                return function(*arguments, **keywords)

        return called


def wait_and_count() -> float:
    """The clock, once the GPU has done what it was told."""
    torch.cuda.synchronize()
    return time.perf_counter()
