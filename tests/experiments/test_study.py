import math

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState
from sqlalchemy.exc import OperationalError

from cxr.errors import ConfigError, DataError, TrainingError
from cxr.experiments.study import (
    StorageError,
    check_same_search,
    count_ended,
    fail_stale_trials,
    first_point,
    open_study,
    require_value,
    run_trials,
    storage_errors,
    suggest,
)

SPACE = {
    "lr": FloatDistribution(1e-5, 1e-2, log=True),
    "rate": FloatDistribution(0.0, 0.5),
    "filters": IntDistribution(16, 66, step=10),
    "kernel": CategoricalDistribution([3, 5]),
}
SETTINGS = {"net": {"name": "cnn", "layers": [1, 2]}, "seed": 0, "paths": {"data": "here"}}


@pytest.fixture(autouse=True)
def quiet():
    optuna.logging.set_verbosity(optuna.logging.ERROR)


@pytest.fixture
def empty():
    return optuna.create_study(study_name="empty", sampler=optuna.samplers.RandomSampler(seed=0))


def test_every_suggested_value_lies_in_its_space(empty):
    for _ in range(50):
        values = suggest(empty.ask(), SPACE)
        assert 1e-5 <= values["lr"] <= 1e-2
        assert 0.0 <= values["rate"] <= 0.5
        assert values["filters"] in range(16, 67, 10)
        assert values["kernel"] in (3, 5)
    assert empty.trials[-1].distributions == SPACE


def test_a_distribution_of_another_kind_is_refused(empty):
    with pytest.raises(ConfigError, match="x must be searched by a choice, range or interval, but got"):
        suggest(empty.ask(), {"x": object()})


def test_the_first_point_lies_in_the_space():
    assert first_point(SPACE) == {"lr": 1e-5, "rate": 0.0, "filters": 16, "kernel": 3}


def test_values_that_are_no_numbers_fail_their_trial_and_not_the_sweep(empty):
    values = iter([0.5, math.nan, math.inf, "text", 0.7])
    seen = []
    run_trials(empty, 5, lambda trial: next(values), lambda study, trial: seen.append(trial.number))
    assert [trial.value for trial in empty.trials] == [0.5, None, None, None, 0.7]
    assert [trial.number for trial in empty.trials if "error" in trial.user_attrs] == [1, 2, 3]
    assert seen == [0, 1, 2, 3, 4]


def test_ctrl_c_fails_the_trial_without_an_error_and_is_raised_again(empty):
    def objective(trial):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_trials(empty, 3, objective, lambda study, trial: None)
    assert [(trial.state, trial.user_attrs) for trial in empty.trials] == [(TrialState.FAIL, {})]


@pytest.mark.parametrize(
    "error",
    [
        StorageError("it was away"),
        optuna.exceptions.StorageInternalError("full"),
        OperationalError("", {}, Exception("gone")),
    ],
)
def test_an_error_of_the_database_is_not_that_of_the_trial(empty, error):
    def objective(trial):
        raise error

    run_trials(empty, 1, objective, lambda study, trial: None)
    assert [(trial.state, trial.user_attrs) for trial in empty.trials] == [(TrialState.FAIL, {})]
    assert count_ended(empty) == 0


def test_only_trials_that_ended_by_themselves_count(study):
    study.ask()
    assert len(study.trials) == 6
    assert count_ended(study) == 4, "three finished and one failed; one was interrupted and one is running"


def test_running_trials_are_failed(study):
    study.ask()
    assert fail_stale_trials(study) == [5]
    assert [trial.state for trial in study.trials[3:]] == [TrialState.FAIL] * 3
    assert fail_stale_trials(study) == []


@pytest.mark.parametrize(("error", "told"), [("the loss is nan", "the loss is nan"), (None, "interrupted")])
def test_without_a_value_the_last_reason_is_told(empty, error, told):
    trial = empty.ask()
    if error is not None:
        trial.set_user_attr("error", error)
    empty.tell(trial, state=TrialState.FAIL)
    with pytest.raises(TrainingError, match=f"all 1 failed, the last with: {told}; mend that"):
        require_value(empty)


@pytest.mark.parametrize(
    ("space", "settings"),
    [
        (SPACE, SETTINGS),
        (SPACE | {"rate": FloatDistribution(0.1, 0.3)}, SETTINGS),
        (SPACE, SETTINGS | {"paths": {"data": "there"}}),
        (SPACE, SETTINGS | {"a_key_of_a_later_version": 1}),
        (SPACE, SETTINGS | {"lr": 5}),
    ],
    ids=["the same", "another range", "another path", "a new key", "a searched key"],
)
def test_the_same_search_goes_on(empty, space, settings):
    check_same_search(empty, SPACE, SETTINGS, ["paths"])
    suggest(empty.ask(), SPACE)
    check_same_search(empty, space, settings, ["paths"])


@pytest.mark.parametrize(
    ("space", "settings", "told"),
    [
        (SPACE, SETTINGS | {"seed": 1}, "seed: 0 before, 1 now"),
        (SPACE, SETTINGS | {"net": {"name": "cnn", "layers": [1, 3]}}, r"net.layers: \[1, 2\] before, \[1, 3\] now"),
        (SPACE, SETTINGS | {"paths": {"data": "there"}}, "paths.data: here before, there now"),
        (SPACE | {"momentum": FloatDistribution(0.0, 1.0)}, SETTINGS, "the searched keys: .*lr.* before, .*momentum"),
        (
            SPACE | {"kernel": CategoricalDistribution([3, 7])},
            SETTINGS,
            r"kernel: .*\(3, 5\).* before, .*\(3, 7\).* now",
        ),
    ],
    ids=["value", "nested value", "path", "searched key", "choices"],
)
def test_another_search_is_refused(empty, space, settings, told):
    check_same_search(empty, SPACE, SETTINGS)
    suggest(empty.ask(), SPACE)
    with pytest.raises(ConfigError, match=rf"study empty holds trials of another search \(.*{told}.*study_name=NAME"):
        check_same_search(empty, space, settings)


@pytest.fixture
def storage():
    return optuna.storages.InMemoryStorage()


def test_a_study_is_opened_again_by_its_name(storage):
    open_study(storage, "a", "min").ask()
    assert len(open_study(storage, "a", "min").trials) == 1
    assert open_study(storage, "b", "max").direction == optuna.study.StudyDirection.MAXIMIZE


def test_a_study_keeps_its_direction(storage):
    open_study(storage, "a", "min")
    with pytest.raises(ConfigError, match="study a was started to minimize, but this command asks to maximize"):
        open_study(storage, "a", "max")


def test_an_unknown_mode_is_refused(storage):
    with pytest.raises(ConfigError, match="monitor.mode must be one of max, min, but got 'up'"):
        open_study(storage, "a", "up")


def test_database_errors_are_told_in_one_sentence():
    told = pytest.raises(DataError, match="the study's database sqlite:///x cannot be used .disk is full.; check its")
    with told, storage_errors("sqlite:///x"):
        raise optuna.exceptions.StorageInternalError("disk is full\nmore")
