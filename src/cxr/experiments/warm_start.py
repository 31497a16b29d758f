"""A study that begins with the best points of an earlier one.

Points and not values are taken over: with other data or settings the values would not be comparable, so each point is
measured anew. Knows nothing of Hydra or training.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from cxr.errors import DataError
from cxr.experiments.study import Space

MOST_POINTS = 5
DATABASE = "study.db"


def queue_best_points(study: optuna.Study, storage: BaseStorage, earlier: str, space: Space, n_trials: int) -> int:
    """Queue the best points of an earlier study: what they say of this search, the rest is drawn.

    Args:
        study: The new study.
        storage: Its database.
        earlier: Folder of an earlier sweep, or name of a study in `storage`.
        space: What the new study searches.
        n_trials: Its total, which bounds the number of points.

    Returns:
        How many points were queued, `MOST_POINTS` at most.

    Raises:
        DataError: There is no such study, or it has no finished trial with a point of this search.
    """
    points = [_of_this_search(trial.params, space) for trial in best_first(open_earlier(earlier, storage))]
    points = [point for point in points if point][: min(MOST_POINTS, n_trials)]
    if not points:
        raise DataError(
            f"hydra.sweeper.warm_start={earlier} has no finished trial with a value for one of {', '.join(space)}; "
            "name a sweep that searched one of these, or leave it out"
        )
    for point in points:
        study.enqueue_trial(point, skip_if_exists=True)
    return len(points)


def open_earlier(earlier: str, storage: BaseStorage) -> optuna.Study:
    """The study in the folder `earlier`, or the one of that name in `storage`.

    Raises:
        DataError: There is none.
    """
    path = Path(earlier) / DATABASE
    place = f"sqlite:///{path}" if path.exists() else storage
    names = optuna.get_all_study_names(place)
    name = earlier if place is storage else next(iter(names), earlier)
    if name not in names:
        raise DataError(
            f"hydra.sweeper.warm_start must be the folder of a sweep with a {DATABASE}, or the name of a study in the "
            f"same database, but got {earlier}; the database holds: {', '.join(names)}"
        )
    return optuna.load_study(study_name=name, storage=place)


def best_first(study: optuna.Study) -> list[FrozenTrial]:
    """The finished trials, best first; of several values, the front comes before the rest."""
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    front = {trial.number for trial in study.best_trials} if done else set()
    sign = -1 if study.directions[0].name == "MAXIMIZE" else 1
    return sorted(done, key=lambda trial: (trial.number not in front, sign * trial.values[0]))


def _of_this_search(params: Mapping[str, Any], space: Space) -> dict[str, Any]:
    return {key: value for key, value in params.items() if key in space and _lies_in(value, space[key])}


def _lies_in(value: Any, distribution: BaseDistribution) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    return isinstance(value, int | float) and distribution.low <= value <= distribution.high
