"""What a run says to the person at the terminal: its data, its net, its result."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from torch import nn

from cxr.imaging.preprocess import Preprocess
from cxr.models.build import count_parameters

HEADLINES = ("auroc", "average_precision", "balanced_accuracy", "f1_macro", "sensitivity", "specificity", "accuracy")
PARTS = ("train", "val", "test")


def show_data(report: dict[str, Any]) -> None:
    """A table of images by part and class, with patients."""
    counts: dict[str, dict[str, int]] = report["images"]
    table = Table(title="images by split and class", title_justify="left")
    table.add_column("class")
    for part in PARTS:
        table.add_column(part, justify="right")
    for name in counts[PARTS[0]]:
        table.add_row(name, *(f"{counts[part][name]:,}" for part in PARTS))
    table.add_row("patients", *(f"{report['patients'][part]:,}" for part in PARTS), style="dim")
    Console().print(table)


def show_net(net: nn.Module, name: str, preprocess: Preprocess) -> None:
    """One line: net, parameters, input."""
    counts = count_parameters(net)
    height, width = preprocess.size
    Console().print(
        f"[bold]{name}[/bold]: {counts['total']:,} parameters ({counts['trainable']:,} trainable, "
        f"{counts['frozen']:,} frozen), input {preprocess.channels} x {height} x {width} "
        f"in \\[{preprocess.low:g}, {preprocess.high:g}], normaliser {preprocess.normalizer}",
        highlight=False,
        soft_wrap=True,
    )


def show_update(batch_size: int, batches: int, devices: int) -> None:
    """One line: of how many images an update of the weights is.

    Args:
        batch_size: Images of a batch on one device.
        batches: Batches that are accumulated.
        devices: Devices that share an update.
    """
    Console().print(
        f"an update: {batch_size * batches * devices} images ({batch_size} to a batch, accumulated over {batches}, "
        f"on {devices} device{'s' * (devices > 1)})",
        highlight=False,
        soft_wrap=True,
    )


def show_results(run_dir: Path, metrics: dict[str, float], ceiling: float | None) -> None:
    """The run folder and a short table of metrics, training and validation beside test.

    Args:
        run_dir: The run folder.
        metrics: ``train/...``, ``val/...`` and maybe ``test/...``.
        ceiling: Best test AUROC that the data allow, where that is known (phantoms).
    """
    parts = [part for part in PARTS if f"{part}/auroc" in metrics]
    table = Table(title="best checkpoint", title_justify="left")
    table.add_column("metric")
    for part in parts:
        table.add_column(part, justify="right")
    for name in HEADLINES:
        table.add_row(name, *(f"{metrics[f'{part}/{name}']:.3f}" for part in parts))
    console = Console()
    console.print(table)
    if ceiling is not None and "test" in parts:
        console.print(f"best achievable test AUROC on these phantoms: {ceiling:.3f} (synthetic images: not clinical)")
    console.print(f"run folder: {run_dir}", soft_wrap=True, highlight=False)
