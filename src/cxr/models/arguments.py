"""Checks of the plain values that nets are built from. Knows nothing of nets."""

from collections.abc import Mapping
from typing import Any

from cxr.errors import ConfigError


def check_arguments(what: str, arguments: Mapping[str, Any], known: list[str]) -> None:
    """Raise ConfigError for the keys of `arguments` that are not among `known`."""
    unknown = sorted(set(arguments) - set(known))
    if unknown:
        raise ConfigError(f"expected {what} to have the keys {', '.join(known)}, got {', '.join(unknown)}; remove them")


def check_positive(name: str, value: int) -> None:
    """Raise ConfigError unless `value` is a whole number above zero."""
    if not isinstance(value, int) or value < 1:
        raise ConfigError(f"expected net.{name} to be a whole number above 0, got {value!r}; change it")


def checked_rate(name: str, value: float) -> float:
    """Return a dropout probability; ConfigError unless it lies in [0, 1)."""
    if not isinstance(value, int | float) or not 0 <= value < 1:
        raise ConfigError(f"expected net.{name} to be at least 0 and below 1, got {value!r}; change it")
    return float(value)
