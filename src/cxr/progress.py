"""Progress bars on stderr. Knows nothing of what is worked through.

Importing it does not import rich, which takes as long as reading an image.
"""

import time
from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

Item = TypeVar("Item")
Batch = TypeVar("Batch", bound=Sized)

SECONDS_BEFORE_PROGRESS = 2.0


def bar_console() -> "Console":
    """Where bars are shown: in a terminal. A notebook's would ask for a package of its own, or fill the page."""
    from rich.console import Console

    console = Console(stderr=True)
    return Console(stderr=True, force_jupyter=False, force_terminal=False) if console.is_jupyter else console


def show_progress(items: Sequence[Item], label: str) -> Iterator[Item]:
    """Yield the items behind a bar that says what is being done and vanishes at the end."""
    from rich.progress import track

    return iter(track(items, label, console=bar_console(), transient=True))


def show_late(batches: Iterable[Batch], total: int, label: str) -> Iterator[Batch]:
    """Yield the batches behind a bar with the time left, which appears when they take longer than two seconds.

    Args:
        batches: Of items.
        total: How many items they hold together.
        label: What is being done.
    """
    bar, done, began = None, 0, time.monotonic()
    try:
        for batch in batches:
            yield batch
            done += len(batch)
            if bar is None and done < total and time.monotonic() - began > SECONDS_BEFORE_PROGRESS:
                bar = _start_bar(total, label)
            if bar is not None:
                bar.update(bar.task_ids[0], completed=done)
    finally:
        if bar is not None:
            bar.stop()


def _start_bar(total: int, label: str) -> "Progress":
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=bar_console())
    bar.add_task(label, total=total)
    bar.start()
    return bar
