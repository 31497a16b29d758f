"""Checks of single settings, each with its message. Knows nothing of what the settings are for."""

import math
from collections.abc import Sequence
from typing import Any

from cxr.errors import ConfigError


def check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Raise ConfigError unless `value` is one of `choices`."""
    if value not in choices:
        raise ConfigError(f"expected {name} to be one of {', '.join(choices)}, but got {value!r}; choose one of them")


def check_count(name: str, value: Any) -> None:
    """Raise ConfigError unless `value` is an integer of at least 1."""
    if not _is_count(value):
        raise ConfigError(f"expected {name} to be an integer of at least 1, but got {value!r}; set such a number")


def check_range(low_name: str, low: Any, high_name: str, high: Any) -> None:
    """Raise ConfigError unless `low` and `high` are finite numbers and `low` is below `high`."""
    if not (_is_finite(low) and _is_finite(high) and low < high):
        raise ConfigError(
            f"expected {low_name} below {high_name}, both finite numbers, but got {low!r} and {high!r}; set others"
        )


def to_sides(name: str, value: Any) -> tuple[int, int]:
    """`value` as (height, width); ConfigError unless it is two integers of at least 1."""
    sides = _to_tuple(value)
    if len(sides) != 2 or not all(map(_is_count, sides)):
        raise ConfigError(
            f"expected {name} to be [height, width] in whole pixels, but got {value!r}; set it, as in [224, 224]"
        )
    return sides[0], sides[1]


def to_statistics(name: str, value: Any, channels: int, positive: bool) -> tuple[float, ...]:
    """`value` as one float per channel; ConfigError unless it is `channels` finite numbers, above 0 if `positive`."""
    numbers = _to_tuple(value)
    valid = all(_is_finite(number) and (number > 0 or not positive) for number in numbers)
    if len(numbers) != channels or not valid:
        kind = "positive" if positive else "finite"
        raise ConfigError(
            f"expected {name} to be {channels} {kind} numbers, one per channel, but got {value!r}; "
            "set such a list, or null"
        )
    return tuple(map(float, numbers))


def _to_tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if hasattr(value, "__iter__") and not isinstance(value, str) else ()


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
