"""An Optuna study that goes on: opened or made, cleaned of killed trials, kept to one search, its trials run.

Knows nothing of Hydra, of training, of what a trial does, or of other processes on the same study.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    check_distribution_compatibility,
)
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from cxr.errors import ConfigError, DataError, TrainingError
from cxr.training.config_rules import flatten, lies_in

Space = Mapping[str, BaseDistribution]
DIRECTIONS = {"max": "maximize", "min": "minimize"}


class StorageError(DataError):
    """The database of a study does not answer, or refuses what it is asked."""


RAW_ERRORS = (optuna.exceptions.StorageInternalError, SQLAlchemyError)
DATABASE_ERRORS = (StorageError, *RAW_ERRORS)


@contextmanager
def storage_errors(storage: str) -> Iterator[None]:
    """Turn what the database at `storage` raises inside the block into a StorageError."""
    try:
        yield
    except RAW_ERRORS as error:
        cause = error if error.__cause__ is None else error.__cause__
        raise StorageError(
            f"the study's database {storage} cannot be used ({str(cause).splitlines()[0]}); check its address, "
            "that it runs, that it is a database of Optuna, and the free disk space; finished trials are kept in it"
        ) from error


def open_study(storage: str | BaseStorage, name: str, *modes: str) -> optuna.Study:
    """Open the study `name`, or make it.

    Args:
        storage: Database URL, for example ``sqlite:///logs/sweeps/x/study.db``, whose folder exists; or the database.
        name: Name of the study in that database.
        modes: ``"max"`` or ``"min"`` for each value of a trial: where a better one lies.

    Raises:
        ConfigError: A mode is neither, or the study was made with other ones.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    for mode in modes:
        if mode not in DIRECTIONS:
            raise ConfigError(f"monitor.mode must be one of {', '.join(DIRECTIONS)}, but got {mode!r}")
    wanted = [DIRECTIONS[mode] for mode in modes]
    study = optuna.create_study(storage=storage, study_name=name, directions=wanted, load_if_exists=True)
    directions = [direction.name.lower() for direction in study.directions]
    if directions != wanted:
        raise ConfigError(
            f"study {name} was started to {' and '.join(directions)}, but this command asks to {' and '.join(wanted)}; "
            "repeat the first command, or start another study with study_name=NAME"
        )
    return study


def fail_stale_trials(study: optuna.Study) -> list[int]:
    """Record trials that a killed process left RUNNING as failed; returns their numbers."""
    stale = [trial.number for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))]
    for number in stale:
        study.tell(number, state=TrialState.FAIL)
    return stale


def count_ended(study: optuna.Study) -> int:
    """How many trials came to an end of their own: finished, or failed with an error; interrupted ones do not count."""
    return sum(
        trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
        or (trial.state is TrialState.FAIL and "error" in trial.user_attrs)
        for trial in study.get_trials(deepcopy=False)
    )


def require_value(study: optuna.Study) -> None:
    """Raise TrainingError unless a trial finished with a value."""
    if study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        return
    last = study.trials[-1]
    reason = last.user_attrs.get("error", "interrupted")
    raise TrainingError(
        f"expected at least one trial of study {study.study_name} to give a value, but all {len(study.trials)} "
        f"failed, the last with: {reason}; mend that, then raise hydra.sweeper.n_trials or start another study "
        "with study_name=NAME"
    )


def is_new(study: optuna.Study) -> bool:
    """Whether no search was recorded in it yet."""
    return "settings" not in study.user_attrs


def check_same_search(
    study: optuna.Study, space: Space, settings: Mapping[str, Any], may_change: Sequence[str] = ()
) -> None:
    """Keep a study to one search: record it in a new study, compare it with the record in a continued one.

    Args:
        study: The study; its user attributes hold the record.
        space: What is searched: keys and their distributions. Ranges may change, keys and kinds may not.
        settings: The config of a trial, plain values in nested dictionaries.
        may_change: Keys or sections of it that have no bearing on a trial's value.

    Raises:
        ConfigError: The study holds trials of another search, so that old and new values cannot be compared.
    """
    settings = {key: value for key, value in flatten(settings).items() if not lies_in(key, (*space, *may_change))}
    if is_new(study):
        study.set_user_attr("searched", sorted(space))
        study.set_user_attr("settings", settings)
        return
    record = study.user_attrs["settings"]
    pairs = {key: (record[key], settings[key]) for key in sorted(record.keys() & settings.keys())}
    pairs["the searched keys"] = (study.user_attrs["searched"], sorted(space))
    pairs |= _changed_kinds(study, space)
    changes = [f"{key}: {before} before, {now} now" for key, (before, now) in pairs.items() if before != now]
    if changes:
        raise ConfigError(
            f"study {study.study_name} holds trials of another search ({'; '.join(changes[:5])}); "
            "repeat the first command, or start another study with study_name=NAME"
        )


def _changed_kinds(study: optuna.Study, space: Space) -> dict[str, tuple[BaseDistribution, BaseDistribution]]:
    """Searched keys whose distribution Optuna cannot mix with the one in the latest trial that has them."""
    latest: dict[str, BaseDistribution] = {}
    for trial in study.get_trials(deepcopy=False):
        latest |= trial.distributions
    return {
        key: (latest[key], space[key])
        for key in sorted(space.keys() & latest.keys())
        if not _can_mix(latest[key], space[key])
    }


def _can_mix(before: BaseDistribution, now: BaseDistribution) -> bool:
    try:
        check_distribution_compatibility(before, now)
    except ValueError:
        return False
    return True


def suggest(trial: Trial, space: Space) -> dict[str, Any]:
    """Draw one value for each key of `space`."""
    return {key: _suggest_one(trial, key, distribution) for key, distribution in space.items()}


def _suggest_one(trial: Trial, key: str, distribution: BaseDistribution) -> Any:
    match distribution:
        case CategoricalDistribution():
            return trial.suggest_categorical(key, distribution.choices)
        case IntDistribution(low=low, high=high, step=step, log=log):
            return trial.suggest_int(key, low, high, step=step, log=log)
        case FloatDistribution(low=low, high=high, step=step, log=log):
            return trial.suggest_float(key, low, high, step=step, log=log)
    raise ConfigError(f"{key} must be searched by a choice, range or interval, but got {distribution}")


def first_point(space: Space) -> dict[str, Any]:
    """One value for each key of `space` without a trial: the first choice or the low end."""
    return {
        key: distribution.choices[0] if isinstance(distribution, CategoricalDistribution) else distribution.low
        for key, distribution in space.items()
    }


def run_trials(
    study: optuna.Study,
    count: int,
    objective: Callable[[Trial], float | Sequence[float]],
    after_trial: Callable[[optuna.Study, FrozenTrial], None],
    collect_garbage: bool = True,
) -> None:
    """Run `count` trials; one that raises or gives NaN or infinity is recorded as failed, and the next one starts.

    One that raises `optuna.TrialPruned` is recorded as pruned. A failure's message becomes the trial's user attribute
    ``error``; one of the database is not the trial's own and leaves none, nor does Ctrl-C, which is raised again.
    Collecting garbage after each trial gives back the memory of a net, and takes longer than a small model.
    """

    def recorded(trial: Trial) -> list[float]:
        try:
            return _finite(objective(trial))
        except (optuna.TrialPruned, *DATABASE_ERRORS):
            raise
        except Exception as error:
            trial.set_user_attr("error", str(error) or type(error).__name__)
            raise

    study.optimize(
        recorded, n_trials=count, catch=(Exception,), callbacks=[after_trial], gc_after_trial=collect_garbage
    )


def _finite(found: float | Sequence[float]) -> list[float]:
    """The value or values of a trial as numbers; raises DataError for one that is none."""
    values = [float(value) for value in (found if isinstance(found, Sequence) else [found])]
    for value in values:
        if not math.isfinite(value):
            raise DataError(f"the monitored value must be a finite number, but got {value}")
    return values
