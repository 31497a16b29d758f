"""Config -> the parts of a sweep: its search space, its sampler, its pruner.

The syntax of the search space and its parser are those of hydra-optuna-sweeper. Knows nothing of trials.
"""

import importlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hydra.errors import InstantiationException, OverrideParseException
from hydra.utils import instantiate
from omegaconf import DictConfig

from cxr.errors import ConfigError
from cxr.experiments.sweep_search import Branch, Search

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler

Parsed = tuple[dict[str, Any], dict[str, Any], list[str]]
"""Distributions, fixed values and deletions, by key."""


def parse_search(
    params: Mapping[str, Any], arguments: Sequence[str], when: Mapping[str, Mapping[str, Any]] | None = None
) -> Search:
    """Read a search space; a fixed value on the command line takes its key out of it.

    Args:
        params: Config keys to sweep expressions, or to fixed values.
        arguments: The override lines of the command, which may hold sweep expressions too.
        when: Conditions such as ``net=custom_cnn`` or ``net=custom_cnn,vgg16`` to the params searched under them.

    Raises:
        ConfigError: An expression or condition has no meaning, or nothing is left to search.
    """
    space, fixed, deletions = _parse([*_lines(params), *arguments])
    space = {key: distribution for key, distribution in space.items() if key not in fixed}
    branches = tuple(_parse_branch(*item, fixed) for item in ({} if when is None else when).items())
    _check_branches(space, fixed, branches)
    if not space:
        raise ConfigError(
            "nothing to search: every key has a fixed value; give one a range, for example "
            "'optimizer.lr=tag(log,interval(1e-4,1e-2))'"
        )
    return Search(space, (*_lines(fixed), *deletions), branches, fixed)


def _lines(values: Mapping[str, Any]) -> list[str]:
    return [f"{key}={value}" for key, value in values.items()]


def _parse(lines: list[str]) -> Parsed:
    parser = importlib.import_module("hydra_plugins.hydra_optuna_sweeper._impl")
    try:
        return parser.create_params_from_overrides(lines)
    except (ValueError, OverrideParseException) as error:
        raise ConfigError(f"the search space cannot be read: {error}; mend hydra.sweeper.params") from error


def _parse_branch(condition: str, params: Mapping[str, Any], fixed: Mapping[str, Any]) -> Branch:
    choices, values, _ = _parse([condition])
    space, constants, _ = _parse(_lines(params))
    if constants:
        raise ConfigError(
            f"hydra.sweeper.when must give ranges to search, but under {condition} {', '.join(constants)} is fixed; "
            "leave it out, or give it a choice"
        )
    known: dict[str, tuple[str, ...]] = {key: (str(value),) for key, value in values.items()}
    known |= {key: tuple(map(str, choice.choices)) for key, choice in choices.items()}
    ((key, wanted),) = known.items()
    return Branch(key, wanted, {name: values for name, values in space.items() if name not in fixed})


def _check_branches(space: Mapping[str, Any], fixed: Mapping[str, Any], branches: Sequence[Branch]) -> None:
    """Raise ConfigError unless each condition is about a key with values, and each key is searched in one place."""
    seen = set(space)
    for branch in branches:
        if branch.key not in space and branch.key not in fixed:
            raise ConfigError(
                f"hydra.sweeper.when asks for {branch.key}={','.join(branch.values)}, but {branch.key} is neither "
                "searched nor fixed; add it to hydra.sweeper.params"
            )
        twice = sorted(seen & branch.space.keys())
        if twice:
            raise ConfigError(
                f"{', '.join(twice)} must be searched in one place, but got two; name all values in one condition, "
                f"such as {branch.key}=A,B"
            )
        seen |= branch.space.keys()


def make_sampler(config: DictConfig, existing: int) -> "BaseSampler":
    """A sampler of Optuna whose seed, unless null, is moved on by the number of trials that exist.

    Raises:
        ConfigError: The config names no sampler, or gives it arguments that it does not have.
    """
    seed = config.get("seed")
    return _make(config, "sampler", seed=None if seed is None else seed + existing)


def make_pruner(config: DictConfig) -> "BasePruner":
    """A pruner of Optuna.

    Raises:
        ConfigError: The config names no pruner, or gives it arguments that it does not have.
    """
    return _make(config, "pruner")


def _make(config: DictConfig, kind: str, **arguments: Any) -> Any:
    try:
        return instantiate(config, **arguments, _execution_whitelist_=(f"optuna.{kind}s.*",))
    except (InstantiationException, TypeError, ValueError) as error:
        raise ConfigError(
            f"hydra.sweeper.{kind} must be a class of optuna.{kind}s and its arguments, but got {config}: {error}"
        ) from error
