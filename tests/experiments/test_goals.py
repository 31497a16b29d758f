from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr.errors import ConfigError
from cxr.experiments.goals import COSTS, Goals, make_goals
from cxr.inference.cost import Cost

BOTH = Goals(("val/auroc", "latency_ms"), ("max", "min"))


def study_of(*points):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(directions=["maximize", "minimize"])
    for values in points:
        study.tell(study.ask(), values)
    return study


def test_the_costs_are_those_that_are_measured():
    assert set(COSTS) == set(Cost.__dataclass_fields__)


def test_without_limits_several_goals_have_a_front_and_no_best():
    study = study_of((0.9, 9.0), (0.8, 2.0), (0.7, 5.0))
    assert BOTH.best(study) is None
    assert sorted(BOTH.front(study)) == [0, 1]
    assert BOTH.front(study_of()) == []


@pytest.mark.parametrize(("limit", "number"), [(10.0, 0), (9.0, 0), (8.9, 1), (1.0, None)])
def test_a_limit_chooses_the_best_trial_among_those_that_keep_it(limit, number):
    goals = Goals(BOTH.metrics, BOTH.modes, {"latency_ms": limit})
    best = goals.best(study_of((0.9, 9.0), (0.8, 2.0), (0.7, 5.0)))
    assert (None if best is None else best.number) == number


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=6))
def test_the_best_within_any_limit_lies_on_the_front_of_values(points):
    study = study_of(*points)
    fronts = {points[number] for number in BOTH.front(study)}
    best = Goals(BOTH.metrics, BOTH.modes, {"latency_ms": max(cost for _, cost in points)}).best(study)
    assert best.values[0] == max(value for value, _ in fronts)


def test_a_single_goal_can_be_the_lowest():
    study = optuna.create_study()
    for value in (3.0, 1.0, 2.0):
        study.tell(study.ask(), value)
    assert Goals(("val/loss",), ("min",)).best(study).number == 1


def result(**metrics):
    return SimpleNamespace(best_score=0.9, best_checkpoint=Path("best.ckpt"), metrics=metrics)


def test_values_are_read_from_the_result_and_measured_where_they_are_costs(monkeypatch):
    monkeypatch.setattr("cxr.experiments.goals.measure", lambda run_dir: {"latency_ms": 3.0, "parameters": 7.0})
    goals = Goals(("val/auroc", "val/f1", "latency_ms"), ("max", "max", "min"))
    values = goals.values(result(**{"val/f1": 0.5, "val/auroc": 0.1}), "val/auroc", Path())
    assert values == [0.9, 0.5, 3.0], "the monitored value is the best of all epochs"


def test_a_value_that_no_trial_has_is_told_with_those_it_has():
    with pytest.raises(ConfigError, match="must name values of a trial, but got val/f2; it has: val/f1, val/auroc"):
        Goals(("val/f2",)).values(result(**{"val/f1": 0.5}), "val/auroc", Path())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((["speed"], ["max"], {}), "metrics must be values of the validation part .* but got speed"),
        ((["val/f1"], ["up"], {}), r"modes must be max or min for each of hydra.sweeper.metrics .*, but got up"),
        ((["val/f1", "latency_ms"], ["max"], {}), "modes must be max or min for each"),
        (([], [], {}), "modes must be max or min for each"),
        ((["val/f1"], ["max"], {"latency_ms": 3}), "limits must be about val/f1, but got latency_ms; add it"),
    ],
)
def test_goals_that_make_no_sense_are_refused(arguments, told):
    with pytest.raises(ConfigError, match=told):
        make_goals(*arguments, "val/auroc")
