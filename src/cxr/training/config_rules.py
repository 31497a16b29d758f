"""What single config values must be. Hydra refuses unknown keys and options by itself; this refuses wrong values."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cxr.errors import ConfigError

LAST = "last"
"""As ``ckpt_path``: go on from the last.ckpt of the run folder, or begin where there is none."""
ABOUT_KEYS = ("source", "licence", "labels", "problems")


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


def is_number(value: Any) -> bool:
    """Whether the value is a number, true and false left out."""
    return isinstance(value, int | float) and not isinstance(value, bool)


SWITCH = Rule("true or false", lambda value: isinstance(value, bool))
TEXT = Rule("a text", lambda value: isinstance(value, str))
RATIO = Rule("a number above 0 and up to 1", lambda value: is_number(value) and 0 < value <= 1)
POSITIVE = Rule("a number > 0", lambda value: is_number(value) and value > 0)
DECAY = Rule("a number between 0 and 1", lambda value: is_number(value) and 0 < value < 1)
FRACTIONS = Rule(
    "three numbers such as [0.7, 0.1, 0.2]",
    lambda value: isinstance(value, ListConfig) and len(value) == 3 and all(map(is_number, value)),
)
MAPPING = Rule("a mapping such as {Normal: normal}", lambda value: isinstance(value, DictConfig))
ABOUT = Rule(
    "a mapping of source, licence, labels and problems to texts",
    lambda value: (
        isinstance(value, DictConfig) and set(value) <= set(ABOUT_KEYS) and all(map(TEXT.holds, value.values()))
    ),
)

RULES = {
    "seed": whole(0),
    "test": SWITCH,
    "compile": SWITCH,
    "grad_checkpointing": optional(SWITCH),
    "channels_last": SWITCH,
    "trainer.sync_batchnorm": optional(SWITCH),
    "trainer.num_nodes": optional(whole(1)),
    "hash_ids": SWITCH,
    "ckpt_path": optional(TEXT),
    "ema": optional(DECAY),
    "tta": optional(one_of("light")),
    "monitor.metric": TEXT,
    "monitor.mode": one_of("max", "min"),
    "data.root": optional(TEXT),
    "data.about": optional(ABOUT),
    "data.limit": optional(whole(1)),
    "data.batch_size": whole(1),
    "data.num_workers": whole(0),
    "data.largest_batch": optional(SWITCH),
    "data.cache": SWITCH,
    "data.device_cache": optional(one_of("auto", True, False)),
    "data.cache_max_gb": optional(POSITIVE),
    "data.shards": optional(TEXT),
    "data.public_images": SWITCH,
    "data.on_bad_file": one_of("error", "skip"),
    "data.leak_gate": one_of("stop", "warn", "drop", "off"),
    "data.split_file": optional(TEXT),
    "data.avoid": optional(TEXT),
    "data.fractions": FRACTIONS,
    "data.classes": optional(MAPPING),
    "data.one_class": optional(TEXT),
    "transfer.init_from": optional(TEXT),
    "transfer.pretrained_upto": optional(TEXT),
    "transfer.freeze_upto": optional(TEXT),
    "transfer.unfreeze_every": optional(whole(1)),
    "transfer.layer_decay": optional(RATIO),
    "optimizer.lr": POSITIVE,
    "trainer.max_epochs": whole(1),
    "trainer.min_epochs": optional(whole(1)),
    "trainer.accumulate_grad_batches": whole(1),
    "trainer.gradient_clip_val": optional(POSITIVE),
    "callbacks.early_stopping.patience": optional(whole(0)),
}


def check_config(config: DictConfig) -> None:
    """Raise ConfigError for the first value that breaks its rule, naming the key, what is expected and what came."""
    scheme, schemes = OmegaConf.select(config, "data.scheme"), OmegaConf.select(config, "data.schemes")
    if schemes is not None and scheme not in schemes:
        raise ConfigError(f"data.scheme must be one of {', '.join(schemes)}, but got {scheme!r}")
    try:
        OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        problem = " ".join(str(error.msg).partition("full_key:")[0].split())
        raise ConfigError(f"the config cannot be resolved at {error.full_key}: {problem}") from error
    for key, rule in RULES.items():
        value = OmegaConf.select(config, key)
        if not rule.holds(value):
            raise ConfigError(f"{key} must be {rule.words}, but got {value!r}")
    if config.data.device_cache is True and config.data.num_workers > 0:
        raise ConfigError(
            "data.num_workers must be 0 with data.device_cache=true, since loader processes cannot use images in the "
            f"GPU's memory, but got {config.data.num_workers}; set it to 0, or data.device_cache=false"
        )


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries to one with dotted keys; lists stay values."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def lies_in(key: str, sections: Sequence[str]) -> bool:
    """Whether the dotted `key` is one of `sections` or stands below one."""
    return any(f"{key}.".startswith(f"{section}.") for section in sections)
