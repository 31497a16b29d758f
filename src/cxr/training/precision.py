"""The fastest arithmetic that a device has for training; what is judged is float32 whatever this says."""

import copy

import torch
from omegaconf import DictConfig

AUTO, MIXED, FULL = "auto", "bf16-mixed", "32-true"


def settle_precision(config: DictConfig) -> DictConfig:
    """The config with what ``trainer.precision=auto`` stands for here, so that a stored run says what it used."""
    if config.trainer.precision != AUTO:
        return config
    settled = copy.deepcopy(config)
    settled.trainer.precision = fastest_precision(config.trainer.accelerator)
    return settled


def fastest_precision(accelerator: str) -> str:
    """``bf16-mixed`` where the device multiplies matrices in bfloat16, else ``32-true``.

    Such are GPUs since Ampere and CPUs with AMX; elsewhere bfloat16 is emulated and slow.

    Args:
        accelerator: As Lightning's Trainer takes it; ``auto`` is a GPU where there is one.
    """
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return MIXED if torch.cuda.is_bf16_supported(including_emulation=False) else FULL
    if accelerator == "cpu" or not torch.backends.mps.is_available():
        return MIXED if torch.cpu.get_capabilities().get("amx_bf16", False) else FULL
    return FULL
