"""Whether the devices of a run can work together, and what is said when they lose each other.

Knows nothing of what is trained.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from pytorch_lightning.strategies import FSDPStrategy, ParallelStrategy

from cxr.errors import ConfigError, TrainingError

LOST = ("gloo/transport", "Connection closed by peer", "NCCL")


def check_strategy(trainer: pl.Trainer, config: DictConfig) -> None:
    """Raise ConfigError when the devices cannot work together as the config says.

    Args:
        trainer: The Trainer that was built from it.
        config: The composed config.
    """
    strategy = trainer.strategy
    if config.trainer.get("sync_batchnorm") and strategy.root_device.type == "cpu":
        raise ConfigError(
            "expected GPUs with trainer.sync_batchnorm=true, but the run is on the CPU, where torch has no such "
            "layer; set trainer.sync_batchnorm=false"
        )
    if is_divided(trainer):
        refuse_with_fsdp({"ema": config.ema, "trainer.gradient_clip_val": config.trainer.gradient_clip_val})
    if isinstance(strategy, ParallelStrategy) and strategy.cluster_environment is not None:
        check_launch(strategy, trainer)


def is_divided(trainer: pl.Trainer) -> bool:
    """Whether each device has only a part of the net."""
    return isinstance(trainer.strategy, FSDPStrategy)


def leave_the_others() -> None:
    """Let this process go on alone: what is computed from now on is not gathered."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def refuse_with_fsdp(settings: Mapping[str, float | None]) -> None:
    """Raise ConfigError for the first setting that needs the whole net on each device."""
    for name, value in settings.items():
        if value is not None:
            raise ConfigError(
                f"expected {name}=null with trainer=fsdp, where no device has the whole net, but got {value}; set it "
                "to null, or choose trainer=ddp"
            )


def check_launch(strategy: ParallelStrategy, trainer: pl.Trainer) -> None:
    """Raise ConfigError when torchrun or SLURM started another number of processes than the config wants."""
    environment = strategy.cluster_environment
    assert environment is not None
    try:
        environment.validate_settings(num_devices=trainer.num_devices, num_nodes=trainer.num_nodes)
    except ValueError as error:
        raise ConfigError(
            f"expected as many processes as trainer.devices x trainer.num_nodes, but got others: "
            f"{' '.join(str(error).split())} Set both to what torchrun or SLURM starts"
        ) from error


@contextmanager
def lost_devices() -> Iterator[None]:
    """Say in one sentence that the processes of a run lost each other.

    Raises:
        TrainingError: Instead of the error that torch has for it.
    """
    try:
        yield
    except RuntimeError as error:
        known = isinstance(error, torch.distributed.DistError) or any(word in str(error) for word in LOST)
        if not known:
            raise
        raise TrainingError(
            f"a process of this run lost the others ({str(error).strip().splitlines()[0]}): the one that failed first "
            "says why in its own output. Continue with ckpt_path=<run>/checkpoints/last.ckpt; torchrun --max-restarts "
            "with ckpt_path=last does it by itself, where TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 is set. If no process "
            "failed, NCCL_DEBUG=INFO tells which connection did and NCCL_SOCKET_IFNAME names the network to use"
        ) from error
