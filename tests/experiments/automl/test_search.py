"""The clock, the turns, what is kept, and what goes on; contestants are made up and learn nothing."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from optuna.distributions import FloatDistribution
from sklearn.metrics import roc_auc_score

from cxr.errors import ConfigError, TrainingError
from cxr.evaluation.predictions import read_predictions
from cxr.experiments.automl.search import Clock, Race
from cxr.experiments.automl.task import Task

CLASSES = ["normal", "covid"]


def make_task(rows=40, folds=4, metric="auroc"):
    samples = pd.DataFrame({
        "sample_id": [f"s{n:03d}" for n in range(rows)], "label": np.arange(rows) % 2,
        "patient_id": [f"p{n}" for n in range(rows)], "group": np.arange(rows),
    })  # fmt: skip
    return Task(samples, CLASSES, np.arange(rows) // 2 % folds, metric, lambda table: table)


@dataclass
class MadeUp:
    """Tells the truth with a share `x` of noise, and moves the time on by so many seconds per fold."""

    name: str
    task: Task
    time: list[float]
    seconds: float = 1.0
    first: dict = field(default_factory=lambda: {"x": 0.5})
    behaviour: object = None
    asked: list = field(default_factory=list)
    space: dict = field(default_factory=lambda: {"x": FloatDistribution(0.0, 1.0)})

    def predict(self, params, fold, trial):
        self.asked.append((trial, fold, params["x"]))
        self.time[0] += self.seconds
        if self.behaviour is not None:
            raise self.behaviour
        labels = self.task.labels[self.task.folds == fold]
        noise = np.random.default_rng([trial, fold]).random(len(labels))
        prob = (1 - params["x"]) * labels + params["x"] * noise
        return np.stack([1 - prob, prob], axis=1)

    def write(self, params, trial, bundle, extras):
        raise NotImplementedError


@pytest.fixture
def race(tmp_path):
    """race(*(name, seconds), ...): contestants, the race, and a clock that only they move on."""
    task = make_task()

    def make(*speeds, budget=100.0, after=lambda race, trial: None):
        time = [0.0]
        contestants = [MadeUp(name, task, time, seconds) for name, seconds in speeds]
        found = Race(contestants, task, tmp_path, 0, after)
        return contestants, found, Clock(budget, found.spent, now=lambda: time[0])

    return make


def finished(race):
    return [(name, one.number) for name, one in race.trials()]


def test_no_trial_starts_after_the_budget_and_one_that_runs_is_left_at_the_next_fold(race):
    (one,), found, clock = race(("a", 1.0), budget=9.5)
    found.run(clock, None)
    assert finished(found) == [("a", 0), ("a", 1)]
    assert [asked[:2] for asked in one.asked[8:]] == [(2, 0), (2, 1)]
    left = found.studies["a"].trials[2]
    assert left.user_attrs["error"] == "the budget ended after 2 of 4 folds"
    assert found.spent == pytest.approx(10.0)


def test_a_trial_whose_last_fold_ends_late_counts(race):
    _, found, clock = race(("a", 1.0), budget=3.5)
    found.run(clock, None)
    assert finished(found) == [("a", 0)]


def test_a_budget_too_short_for_one_trial_says_what_one_takes(race):
    _, found, clock = race(("svm", 30.0), budget=45.0)
    message = (
        r"plan.budget_minutes=0.75 is too short for one trial: 2 of 4 folds of svm took 60.0 s, so one trial takes "
        r"about 2 minutes; raise it"
    )
    with pytest.raises(ConfigError, match=message):
        found.run(clock, None)
    _, again, clock = race(("svm", 30.0), budget=50.0)
    with pytest.raises(ConfigError, match="2 of 4 folds of svm took 60.0 s"):
        again.run(clock, None)


def test_all_have_a_first_trial_and_then_the_least_served_and_the_best_take_turns(race):
    (slow, quick), found, clock = race(("slow", 10.0), ("quick", 1.0), budget=400.0)
    slow.first = quick.first = {"x": 0.9}
    found.run(clock, 12)
    order = sorted(((one.datetime_start, name) for name, one in found.trials()))
    assert {name for _, name in order[:2]} == {"slow", "quick"}
    counts = {name: sum(one == name for _, one in order) for name in ("slow", "quick")}
    assert counts["quick"] >= 5


def test_the_search_starts_with_the_values_that_are_known_to_do(race):
    (one,), found, clock = race(("a", 1.0))
    found.run(clock, 3)
    values = [x for trial, fold, x in one.asked if fold == 0]
    assert values[0] == 0.5
    assert len(set(values)) == 3


def test_the_number_of_trials_is_a_total_over_all_calls(race):
    _, found, clock = race(("a", 1.0), ("b", 1.0))
    found.run(clock, 3)
    assert len(finished(found)) == 3
    contestants, again, clock = race(("a", 1.0), ("b", 1.0))
    assert clock.spent == pytest.approx(12.0)
    again.run(clock, 5)
    assert len(finished(again)) == 5
    assert sum(len(one.asked) for one in contestants) == 8


def test_time_spent_before_counts(race):
    _, found, clock = race(("a", 1.0), budget=9.5)
    found.run(clock, None)
    _, again, clock = race(("a", 1.0), budget=9.5)
    again.run(clock, None)
    assert finished(again) == finished(found)
    _, more, clock = race(("a", 1.0), budget=15.0)
    more.run(clock, None)
    assert len(finished(more)) == 3


def test_every_row_is_predicted_once_and_the_score_is_that_of_the_pooled_table(race):
    _, found, clock = race(("a", 1.0))
    found.run(clock, 2)
    for name, trial in found.trials():
        table, class_names = read_predictions(found.table(name, trial.number))
        assert class_names == CLASSES
        assert table["sample_id"].tolist() == found.task.samples["sample_id"].tolist()
        assert table["fold"].tolist() == found.task.folds.tolist()
        assert trial.value == pytest.approx(roc_auc_score(table["target"], table["prob_1"]))
        value, low, high = trial.user_attrs["measured"]["accuracy"]
        assert low <= value <= high


def test_a_contestant_that_only_fails_leaves_the_race(race):
    (broken, _), found, clock = race(("broken", 0.1), ("good", 1.0))
    broken.behaviour = ValueError("no such kernel")
    found.run(clock, 8)
    assert len(broken.asked) == 3
    assert len(finished(found)) == 5


def test_when_all_fail_the_last_reason_is_told(race):
    (broken,), found, clock = race(("broken", 0.1))
    broken.behaviour = ValueError("no such kernel")
    with pytest.raises(TrainingError, match="all failed, broken last with: no such kernel; mend that"):
        found.run(clock, None)


def test_a_budget_that_is_spent_before_the_first_trial(race):
    _, found, clock = race(("a", 1.0))
    clock.budget = -1.0
    with pytest.raises(ConfigError, match="too short for one trial; raise it"):
        found.run(clock, None)


def test_ctrl_c_keeps_what_ended_and_the_race_goes_on_later(race):
    (one,), found, clock = race(("a", 1.0), after=lambda race, trial: stop(one, race))

    def stop(contestant, race):
        contestant.behaviour = KeyboardInterrupt()

    with pytest.raises(KeyboardInterrupt):
        found.run(clock, None)
    assert finished(found) == [("a", 0)]
    assert found.spent == pytest.approx(5.0)
    _, again, clock = race(("a", 1.0))
    again.run(clock, 2)
    assert len(finished(again)) == 2


def test_a_killed_trial_is_recorded_as_failed(race):
    _, found, _ = race(("a", 1.0))
    found.studies["a"].ask()
    _, again, clock = race(("a", 1.0))
    again.run(clock, 1)
    states = [one.state.name for one in again.studies["a"].trials]
    assert states == ["FAIL", "COMPLETE"]


def test_it_is_told_after_each_trial(race):
    told = []
    _, found, clock = race(("a", 1.0), after=lambda race, trial: told.append((race.spent, trial.number)))
    found.run(clock, 2)
    assert told == [(4.0, 0), (8.0, 1)]
    assert isinstance(found.folder, Path)
