"""How much faster a training step is with channels-last memory: python benchmarks/channels_last.py --batch 32.

One table in one run. A step is forward, backward and AdamW update, in float32, on a batch that already lies on the
device. The two memory formats take turns (A B A B), so that whatever else the machine does falls on both alike. Rates
are medians over the steps; the ratio is the median of those of neighbouring steps.
"""

import argparse
import copy
import os
import platform
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from cxr.models.build import build_net

NETS: dict[str, dict[str, Any]] = {
    "xrv_densenet121": {"name": "xrv_densenet121", "weights": None},
    "resnet18": {"name": "timm", "architecture": "resnet18", "in_channels": 1},
    "custom_cnn": {"name": "custom_cnn"},
}
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
CLASSES = 2
WARM_UP = 2

Step = Callable[[], None]


def main() -> None:
    """Read the command line, measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS), help="nets to measure")
    parser.add_argument("--batch", type=int, default=32, help="images per step")
    parser.add_argument("--steps", type=int, default=10, help="timed steps of each memory format")
    parser.add_argument("--size", type=int, default=224, help="height and width in pixels")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    table = Table()
    for column in ("net", *(f"{name}, images/s" for name in FORMATS), "ratio"):
        table.add_column(column, justify="left" if column == "net" else "right")
    for name in arguments.nets:
        seconds = time_steps(make_steps(name, arguments.batch, arguments.size, device), arguments.steps, device)
        rates = [f"{arguments.batch / median(values):.1f}" for values in seconds.values()]
        pairs = zip(seconds["contiguous"], seconds["channels_last"], strict=True)
        table.add_row(name, *rates, f"{median(slow / fast for slow, fast in pairs):.2f}")
    print(describe(device, arguments))
    Console().print(table)


def describe(device: torch.device, arguments: argparse.Namespace) -> str:
    """Device, load, versions and sizes: what the numbers hold for."""
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    load = f", load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return (
        f"training step on {where}{load}; torch {torch.__version__}, Python {platform.python_version()}\n"
        f"float32, batch {arguments.batch}, {arguments.size} px, {arguments.steps} steps of each in turns"
    )


def make_steps(name: str, batch: int, size: int, device: torch.device) -> dict[str, Step]:
    """One training step per memory format, of the same net from the same weights on the same images."""
    torch.manual_seed(0)
    net = build_net(num_classes=CLASSES, **NETS[name])
    contract = net.input_contract
    image = torch.empty(batch, contract.channels, size, size).uniform_(contract.low, contract.high)
    target = torch.arange(batch) % CLASSES
    steps = {}
    for key, memory_format in FORMATS.items():
        own = copy.deepcopy(net).to(device).to(memory_format=memory_format)
        steps[key] = make_step(own, image.to(device, memory_format=memory_format), target.to(device))
    return steps


def make_step(net: nn.Module, image: torch.Tensor, target: torch.Tensor) -> Step:
    """Forward, backward and update as a function without arguments."""
    optimizer = torch.optim.AdamW(net.train().parameters())

    def step() -> None:
        optimizer.zero_grad()
        torch.autograd.backward(nn.functional.cross_entropy(net(image), target))
        optimizer.step()

    return step


def time_steps(steps: dict[str, Step], count: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of `count` runs of each step, one after the other in turns, after a warm-up."""
    seconds: dict[str, list[float]] = {key: [] for key in steps}
    for number in range(WARM_UP + count):
        for key, step in steps.items():
            start = time.perf_counter()
            step()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if number >= WARM_UP:
                seconds[key].append(time.perf_counter() - start)
    return seconds


if __name__ == "__main__":
    main()
