"""What single config values must be. Hydra refuses unknown keys and options by itself; this refuses wrong values."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from cxr.errors import ConfigError


@dataclass(frozen=True)
class Rule:
    """What a value must be, in words and as a test."""

    words: str
    holds: Callable[[Any], bool]


def whole(low: int) -> Rule:
    """A whole number of at least `low`."""
    return Rule(f"a whole number >= {low}", lambda value: type(value) is int and value >= low)


def one_of(*options: Any) -> Rule:
    """One of a few values."""
    return Rule("one of " + ", ".join(map(str, options)), lambda value: value in options)


def optional(rule: Rule) -> Rule:
    """null, or what `rule` says."""
    return Rule(f"null or {rule.words}", lambda value: value is None or rule.holds(value))


SWITCH = Rule("true or false", lambda value: isinstance(value, bool))
TEXT = Rule("a text", lambda value: isinstance(value, str))
POSITIVE = Rule(
    "a number > 0", lambda value: isinstance(value, int | float) and not isinstance(value, bool) and value > 0
)

RULES = {
    "seed": whole(0),
    "test": SWITCH,
    "compile": SWITCH,
    "channels_last": SWITCH,
    "hash_ids": SWITCH,
    "ckpt_path": optional(TEXT),
    "monitor.metric": TEXT,
    "monitor.mode": one_of("max", "min"),
    "data.batch_size": whole(1),
    "data.num_workers": whole(0),
    "data.cache": SWITCH,
    "data.public_images": SWITCH,
    "data.on_bad_file": one_of("error", "skip"),
    "data.leak_gate": one_of("stop", "warn", "drop", "off"),
    "data.split_file": optional(TEXT),
    "optimizer.lr": POSITIVE,
    "trainer.devices": Rule("1 (a run on several devices is not supported yet)", lambda value: value == 1),
    "trainer.max_epochs": whole(1),
    "trainer.min_epochs": optional(whole(1)),
    "trainer.accumulate_grad_batches": whole(1),
    "trainer.gradient_clip_val": optional(POSITIVE),
}


def check_config(config: DictConfig) -> None:
    """Raise ConfigError for the first value that breaks its rule, naming the key, what is expected and what came."""
    for key, rule in RULES.items():
        value = OmegaConf.select(config, key)
        if not rule.holds(value):
            raise ConfigError(f"{key} must be {rule.words}, but got {value!r}")
