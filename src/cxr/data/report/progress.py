"""A progress bar on stderr. Knows nothing of what is worked through."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import track

Item = TypeVar("Item")


def show_progress(items: Sequence[Item], label: str) -> Iterator[Item]:
    """Yield the items behind a bar that says what is being done and vanishes at the end."""
    return iter(track(items, label, console=Console(stderr=True), transient=True))
