"""Checks of the plain values that nets are built from. Knows nothing of nets."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from cxr.errors import ConfigError


def check_arguments(what: str, arguments: Mapping[str, Any], known: list[str]) -> None:
    """Raise ConfigError unless `arguments` are a mapping whose keys are all among `known`."""
    if not isinstance(arguments, Mapping):
        raise ConfigError(f"expected {what} to have the keys {', '.join(known)}, got {arguments!r}; name each value")
    unknown = sorted(set(arguments) - set(known))
    if unknown:
        raise ConfigError(f"expected {what} to have the keys {', '.join(known)}, got {', '.join(unknown)}; remove them")


def check_choice(what: str, value: Any, options: Collection[Any]) -> None:
    """Raise ConfigError unless `value` is one of `options` and of the same type."""
    if not any(type(option) is type(value) and option == value for option in options):
        known = ", ".join("null" if option is None else str(option).lower() for option in options)
        raise ConfigError(f"expected {what} to be one of {known}, got {value!r}; choose one of these")


def check_positive(name: str, value: int) -> None:
    """Raise ConfigError unless `value` is a whole number above zero."""
    if type(value) is not int or value < 1:
        raise ConfigError(f"expected net.{name} to be a whole number above 0, got {value!r}; change it")


def checked_rate(name: str, value: float) -> float:
    """Return a dropout probability; ConfigError unless it lies in [0, 1)."""
    if not isinstance(value, int | float) or not 0 <= value < 1:
        raise ConfigError(f"expected net.{name} to be at least 0 and below 1, got {value!r}; change it")
    return float(value)


def checked_path(weights_path: str | None) -> Path | None:
    """Return the path of a weights file, None for none; ConfigError for what cannot be the name of a file."""
    if weights_path is None:
        return None
    if not isinstance(weights_path, str) or not Path(weights_path).name:
        raise ConfigError(f"expected net.weights_path to be null or the path of a file, got {weights_path!r}; mend it")
    return Path(weights_path)
