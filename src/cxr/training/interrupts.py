"""Ctrl-C as what it is."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def interrupts() -> Iterator[None]:
    """Give Ctrl-C back as what it is: Lightning turns it into an exit."""
    try:
        yield
    except SystemExit as error:
        raise KeyboardInterrupt from error
