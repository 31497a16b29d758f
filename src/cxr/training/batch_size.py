"""The largest batch that the device holds, at the same number of images per update.

Knows nothing of datasets. An update is that of the config whatever is found: fewer, larger batches are accumulated.
"""

import copy
import logging
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from functools import partial

import torch
from omegaconf import DictConfig
from torch import nn

from cxr.errors import ConfigError, TrainingError
from cxr.models.head import Classifier
from cxr.training.precision import MIXED
from cxr.training.run_folder import RunFolder

log = logging.getLogger(__name__)


def settle_batch_size(config: DictConfig, net: Classifier) -> DictConfig:
    """The config with what ``data.largest_batch=true`` finds here, so that a stored run says what it used.

    Args:
        config: With its precision settled.
        net: The net that will be trained; it stays as it is.

    Raises:
        ConfigError: There are several devices, which might find several sizes.
        TrainingError: Not even a single image fits.
    """
    if not config.data.largest_batch:
        return config
    if config.trainer.devices != 1:
        raise ConfigError(
            f"expected trainer.devices=1 with data.largest_batch, got {config.trainer.devices}; find the batch on one "
            "device, then give all of them its data.batch_size"
        )
    update = config.data.batch_size * config.trainer.accumulate_grad_batches
    mixed = config.trainer.precision == MIXED
    device = torch.device("cuda" if config.trainer.accelerator != "cpu" and torch.cuda.is_available() else "cpu")
    batch_size = find_largest(update, partial(try_step, net, tuple(config.preprocess.size), device, mixed))
    torch.cuda.empty_cache()  # what larger attempts left reserved would not be seen as free
    message = "the largest batch that fits: data.batch_size=%d trainer.accumulate_grad_batches=%d"
    log.info(message, batch_size, update // batch_size)
    return with_batch(config, batch_size, update // batch_size)


def repeat_batch_size(config: DictConfig, folder: RunFolder) -> DictConfig:
    """The config with what ``data.largest_batch=true`` found when the run that is continued was started."""
    if not config.data.largest_batch or config.ckpt_path is None or not folder.config.exists():
        return config
    found = folder.read_config()
    return with_batch(config, found["data"]["batch_size"], found["trainer"]["accumulate_grad_batches"])


def with_batch(config: DictConfig, batch_size: int, accumulated: int) -> DictConfig:
    """The config with a batch that nothing is looked for any more."""
    settled = copy.deepcopy(config)
    settled.data.update(batch_size=batch_size, largest_batch=False)
    settled.trainer.accumulate_grad_batches = accumulated
    return settled


def find_largest(update: int, attempt: Callable[[int], None]) -> int:
    """The largest divisor of `update` at which `attempt` does not run out of memory.

    Args:
        update: Images per update.
        attempt: Batch size -> a training step, which may raise `torch.OutOfMemoryError`.

    Raises:
        TrainingError: Not even a single image fits.
    """
    for batch_size in divisors(update):
        try:
            attempt(batch_size)
        except torch.OutOfMemoryError:
            continue
        return batch_size
    raise TrainingError(
        "expected a device that holds a training step of one image, but it ran out of memory; choose a smaller net or "
        "preprocess.size, or set grad_checkpointing=true"
    )


@contextmanager
def memory_advice(asked: DictConfig, used: DictConfig, resident: Set[str]) -> Iterator[None]:
    """Say what helps when a GPU runs out of memory inside the block.

    Args:
        asked: The config as the user gave it.
        used: What was settled from it.
        resident: Parts of the dataset whose images lie in the GPU's memory.

    Raises:
        TrainingError: Instead of torch's own error.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        advice = ["data.device_cache=false"] if resident else []
        if asked.data.largest_batch:
            advice.append("a smaller data.batch_size without data.largest_batch")
        else:
            advice.append("data.largest_batch=true, which keeps the images of an update")
        if not used.grad_checkpointing:
            advice.append("grad_checkpointing=true for a net of timm")
        raise TrainingError(
            f"the GPU ran out of memory with data.batch_size={used.data.batch_size}; set {', or '.join(advice)}"
        ) from error


def divisors(number: int) -> Iterator[int]:
    """From the number itself down to 1."""
    return (candidate for candidate in range(number, 0, -1) if number % candidate == 0)


def try_step(net: Classifier, size: tuple[int, int], device: torch.device, mixed: bool, batch_size: int) -> None:
    """A training step of a copy of the net with Adam, whose two moments are the most that an optimiser here keeps.

    Args:
        net: The net.
        size: Height and width of the images.
        device: Where to try it.
        mixed: Whether in bfloat16.
        batch_size: Number of images.
    """
    tried = copy.deepcopy(net).to(device).train()
    optimizer = torch.optim.Adam(tried.parameters(), amsgrad=True)
    with torch.random.fork_rng():  # the run draws as if nothing had been tried
        for _ in range(2):  # the moments are there from the second one on
            image = torch.zeros(batch_size, net.input_contract.channels, *size, device=device)
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=mixed):
                logits = tried(image)
            torch.autograd.backward(nn.functional.cross_entropy(logits, torch.zeros_like(logits)))
            optimizer.step()
            optimizer.zero_grad()
