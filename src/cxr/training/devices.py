"""Which GPUs this process may use. Knows nothing of what runs on them."""

import os
from collections.abc import Sequence

import torch

from cxr.errors import ConfigError


def visible_gpus() -> list[str]:
    """The GPUs as CUDA_VISIBLE_DEVICES names them, in order; none on a machine without CUDA."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return [str(number) for number in range(count)] if named is None else named.split(",")[:count]


def require_devices(accelerator: str, devices: int | str | Sequence[int]) -> None:
    """Raise ConfigError when GPUs are asked for that are not there.

    Args:
        accelerator: As Lightning's Trainer takes it.
        devices: Likewise: a number, numbers of GPUs, or a text that Lightning understands.
    """
    if accelerator not in ("gpu", "cuda") or (accelerator == "gpu" and torch.backends.mps.is_available()):
        return
    there = torch.cuda.device_count()
    if there == 0:
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        raise ConfigError(
            f"expected a CUDA GPU for trainer.accelerator={accelerator}, but torch {torch.__version__} sees none "
            f"(CUDA_VISIBLE_DEVICES is {'not set' if hidden is None else repr(hidden)}); choose trainer=default, or "
            "trainer=ddp_sim for two CPU processes, or ask `cxr doctor` what is missing"
        )
    if isinstance(devices, str):
        return
    needed = devices if isinstance(devices, int) else max(devices, default=0) + 1
    if needed > there:
        raise ConfigError(
            f"expected at most the {there} GPUs that torch sees, but got trainer.devices={devices}; lower it, "
            "set trainer.devices=auto, or let CUDA_VISIBLE_DEVICES name more"
        )
