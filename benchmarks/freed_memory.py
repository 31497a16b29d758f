"""How much faster a training step on a CPU is when freed memory is kept: python benchmarks/freed_memory.py.

One table in one run: a step (forward, backward, AdamW) as the C library has it and with `cxr.memory.keep_freed_memory`,
in turns of a few steps, after one step that is not counted. Rates are medians. glibc only.
"""

import argparse
import ctypes
import os
import time
from statistics import median

import torch
from channels_last import NETS, Step, make_step
from rich.console import Console
from rich.table import Table

from cxr.memory import M_MMAP_MAX, M_TRIM_THRESHOLD, keep_freed_memory
from cxr.models.build import build_net
from cxr.training.precision import MIXED, fastest_precision

BFLOAT16 = fastest_precision("cpu") == MIXED
DEFAULTS = {M_MMAP_MAX: 65_536, M_TRIM_THRESHOLD: 128 * 1024}
"""Of glibc."""


def main() -> None:
    """Read the command line, measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=224, help="height and width in pixels")
    parser.add_argument("--turns", type=int, default=4)
    arguments = parser.parse_args()
    print(f"{torch.get_num_threads()} CPU threads, load average {os.getloadavg()[0]:.1f}, torch {torch.__version__}")
    table = Table("net", "given back, images/s", "kept, images/s", "ratio")
    for name in arguments.nets:
        back, kept = (median(seconds) for seconds in time_both(name, arguments.batch, arguments.size, arguments.turns))
        table.add_row(name, f"{arguments.batch / back:.1f}", f"{arguments.batch / kept:.1f}", f"{back / kept:.2f}")
    Console().print(table)


def time_both(name: str, batch: int, size: int, turns: int) -> tuple[list[float], list[float]]:
    """Seconds of steps with memory given back, and with memory kept."""
    net = build_net(num_classes=2, **NETS[name]).to(memory_format=torch.channels_last)
    images = torch.rand(batch, net.input_contract.channels, size, size).to(memory_format=torch.channels_last)
    step = make_step(net, images, torch.arange(batch) % 2)
    back: list[float] = []
    kept: list[float] = []
    for _ in range(turns):
        give_back()
        back += time_steps(step)
        keep_freed_memory()
        kept += time_steps(step)
    return back, kept


def give_back() -> None:
    """What the C library does by itself."""
    libc = ctypes.CDLL("libc.so.6")
    for setting, value in DEFAULTS.items():
        libc.mallopt(setting, value)
    libc.malloc_trim(0)


def time_steps(step: Step, number: int = 3) -> list[float]:
    """Seconds of some steps after one; in bfloat16 where this processor multiplies it."""
    seconds = []
    for _ in range(number + 1):
        start = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=BFLOAT16):
            step()
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


if __name__ == "__main__":
    main()
