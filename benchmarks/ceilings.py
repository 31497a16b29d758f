"""How much of what the device can do a training step uses: python benchmarks/ceilings.py.

Measured in one run, in the precision that training takes here:

- matrix multiply: the rate of one large square product, in floating-point operations a second;
- bandwidth: the rate of one large copy, bytes read and bytes written together;
- a training step of each net (forward, backward, AdamW) in channels-last memory, and what it does: its operations as
  `torch.utils.flop_counter` counts them, and the bytes that all its operators read and write, each by itself. What is
  found in a processor's caches, or what a compiler joins, need not go through memory: that share can exceed 1.

Hoefler and Belli, "Scientific Benchmarking of Parallel Computing Systems", SC 2015, ask for such bounds.
"""

import argparse
import os
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from channels_last import NETS, Step, make_step
from rich.console import Console
from rich.table import Table
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from cxr.memory import keep_freed_memory
from cxr.models.build import build_net
from cxr.training.precision import MIXED, fastest_precision


class ByteCounter(TorchDispatchMode):
    """Adds up the bytes of all tensors that operators take and give; views move none."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the operator."""
        found = func(*args, **(kwargs if kwargs is not None else {}))
        if not func.is_view:
            tensors = (one for one in tree_leaves((args, kwargs, found)) if isinstance(one, torch.Tensor))
            self.bytes += sum(one.numel() * one.element_size() for one in tensors)
        return found


def main() -> None:
    """Read the command line, measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=224, help="height and width in pixels")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    keep_freed_memory()
    device = torch.device(arguments.device)
    mixed = fastest_precision("gpu" if device.type == "cuda" else "cpu") == MIXED
    multiply, copy = measure_multiply(device, mixed), measure_copy(device)
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    title = (
        f"{where}, {'bf16' if mixed else 'float32'}, {multiply / 1e12:.2f} TFLOP/s matrix multiply, "
        f"{copy / 1e9:.0f} GB/s copy; {arguments.size} px, batch {arguments.batch}, "
        f"load average {os.getloadavg()[0]:.1f}"
    )
    table = Table("net", "images/s", "TFLOP/s", "of multiply", "GB/s", "of copy", title=title, title_justify="left")
    for name in arguments.nets:
        step = in_precision(make(name, arguments.batch, arguments.size, device), device, mixed)
        operations, moved = count(step)
        seconds = median(time_of(step, device) for _ in range(arguments.steps))
        rates = operations / seconds, moved / seconds
        table.add_row(
            name, f"{arguments.batch / seconds:.1f}", f"{rates[0] / 1e12:.2f}", f"{rates[0] / multiply:.2f}",
            f"{rates[1] / 1e9:.0f}", f"{rates[1] / copy:.2f}",
        )  # fmt: skip
    Console().print(table)


def make(name: str, batch: int, size: int, device: torch.device) -> Step:
    """A training step of a net of random weights."""
    net = build_net(num_classes=2, **NETS[name]).to(device, memory_format=torch.channels_last)
    images = torch.rand(batch, net.input_contract.channels, size, size, device=device)
    return make_step(net, images.to(memory_format=torch.channels_last), torch.arange(batch, device=device) % 2)


def in_precision(step: Step, device: torch.device, mixed: bool) -> Step:
    """The step as training makes it."""

    def made() -> None:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=mixed):
            step()

    return made


def count(step: Step) -> tuple[int, int]:
    """Floating-point operations and bytes of a step."""
    step()
    counter = ByteCounter()
    with FlopCounterMode(display=False) as operations, counter:
        step()
    return operations.get_total_flops(), counter.bytes


def measure_multiply(device: torch.device, mixed: bool) -> float:
    """Floating-point operations a second of the better of some square products."""
    side = 8192 if device.type == "cuda" else 2048
    kind = torch.bfloat16 if mixed else torch.float32
    one, other = torch.rand(2, side, side, device=device).to(kind)
    return 2 * side**3 / best(lambda: one @ other, device)


def measure_copy(device: torch.device) -> float:
    """Bytes a second, read and written, of the better of some copies."""
    source = torch.zeros(2**28 if device.type == "cuda" else 2**26, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / best(lambda: target.copy_(source), device)


def best(step: Callable[[], object], device: torch.device) -> float:
    """The least seconds of ten calls."""
    return min(time_of(step, device) for _ in range(10))


def time_of(step: Callable[[], object], device: torch.device) -> float:
    """Seconds of a call, to the end of its work on the device."""
    started = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
