"""Learning-rate schedules. Each builder takes (optimizer, total_steps), steps counted in optimiser updates.

All but the plateau are a function of the step, so a resumed run continues them exactly.
"""

import math
from typing import Any, Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR, ReduceLROnPlateau


def make_cosine(optimizer: Optimizer, total_steps: int, *, warmup: float, final: float) -> LRScheduler:
    """Linear warm-up, then half a cosine (Loshchilov & Hutter 2017, arXiv:1608.03983).

    Args:
        optimizer: Its learning rate is the peak.
        total_steps: Updates in the whole run.
        warmup: Share of the updates spent warming up, in [0, 1).
        final: Last learning rate as a share of the peak, in [0, 1].
    """
    warmup_steps = round(warmup * total_steps)

    def share_of_peak(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))

    return LambdaLR(optimizer, share_of_peak)


def make_cycles(optimizer: Optimizer, total_steps: int, *, cycles: int) -> LRScheduler:
    """Half a cosine from the peak to 0, several times over, for snapshots (Huang et al. 2017, arXiv:1704.00109).

    Args:
        optimizer: Its learning rate is the peak of each cycle.
        total_steps: Updates in the whole run.
        cycles: How often, 1 or more.
    """
    length = max(1, math.ceil(total_steps / cycles))
    return LambdaLR(optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * (step % length) / length)))


def make_one_cycle(optimizer: Optimizer, total_steps: int, *, warmup: float) -> LRScheduler:
    """One-cycle schedule (Smith & Topin 2018, arXiv:1708.07120) whose peak is the optimiser's learning rate."""
    peaks = [group["lr"] for group in optimizer.param_groups]
    return ExtensibleOneCycle(optimizer, max_lr=peaks, total_steps=total_steps, pct_start=warmup)


class ExtensibleOneCycle(OneCycleLR):
    """torch's schedule, whose length is that of the run which loads it: a longer run may continue a shorter one."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the place in the cycle, not its length."""
        super().load_state_dict({name: state_dict[name] for name in ("last_epoch", "_step_count", "_last_lr")})


def make_inverse_time(optimizer: Optimizer, total_steps: int, *, decay: float) -> LRScheduler:
    """lr / (1 + decay * step): the `decay` argument of Keras' first optimisers."""
    return LambdaLR(optimizer, lambda step: 1 / (1 + decay * step))


def make_plateau(
    optimizer: Optimizer, total_steps: int, *, mode: Literal["min", "max"], factor: float, patience: int
) -> ReduceLROnPlateau:
    """Multiply the rate by `factor` after `patience` validations without a better monitored value."""
    return ReduceLROnPlateau(optimizer, mode=mode, factor=factor, patience=patience)
