"""A progress bar over bytes, on stderr. Knows nothing of what the bytes are."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from cxr.progress import bar_console


@contextmanager
def byte_bar(label: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show `label`, a bar, the speed and the time left.

    Args:
        label: What is being done.
        total: Bytes in all, or None where unknown.

    Yields:
        A function to call with the number of bytes done in all.
    """
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    with Progress(*columns, TimeRemainingColumn(), console=bar_console()) as bar:
        task = bar.add_task(label, total=total)
        yield lambda count: bar.update(task, completed=count)
