"""Progress bars on stderr. Knows nothing of what is worked through."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import track

Item = TypeVar("Item")


def bar_console() -> Console:
    """Where bars are shown: in a terminal. A notebook's would ask for a package of its own, or fill the page."""
    console = Console(stderr=True)
    return Console(stderr=True, force_jupyter=False, force_terminal=False) if console.is_jupyter else console


def show_progress(items: Sequence[Item], label: str) -> Iterator[Item]:
    """Yield the items behind a bar that says what is being done and vanishes at the end."""
    return iter(track(items, label, console=bar_console(), transient=True))
