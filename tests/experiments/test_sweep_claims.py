import optuna
import pytest
from filelock import FileLock
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState

from cxr.experiments.study import StorageError, open_study
from cxr.experiments.sweep_claims import RERUN, WORKER, Claims, requeue
from cxr.experiments.sweep_storage import PatientStorage

SPACE = {"x": FloatDistribution(0.0, 1.0)}


class Bench:
    """Workers of one study in this process."""

    def __init__(self, folder):
        self.address = f"sqlite:///{folder}/study.db"
        self.storage = PatientStorage(self.address, patience=0, heartbeat=60)
        self.study = open_study(self.storage, "a", "max")
        self.lock_file = folder / ".lock"
        self.said = []
        self.seeds = []

    def claims(self, n_trials):
        return Claims(self.study, self.storage, FileLock(self.lock_file), n_trials, self.make_sampler, self.said.append)

    def make_sampler(self, existing):
        self.seeds.append(existing)
        return optuna.samplers.RandomSampler(seed=existing)

    def work(self, n_trials, objective=lambda trial: trial.suggest_float("x", 0.0, 1.0)):
        self.claims(n_trials).work(objective, lambda study, trial: None)

    def states(self):
        return [trial.state.name for trial in self.study.trials]


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def test_the_total_is_run_by_whoever_comes(bench):
    bench.work(2)
    bench.work(3)
    assert bench.states() == ["COMPLETE"] * 3
    assert bench.seeds == [0, 1, 2], "no two trials draw with the same seed"
    assert all(WORKER in trial.user_attrs for trial in bench.study.trials)


def test_the_lock_is_free_and_the_trial_is_alive_while_it_runs(bench):
    def objective(trial):
        with FileLock(bench.lock_file, timeout=0):
            optuna.storages.fail_stale_trials(bench.study)
        return trial.suggest_float("x", 0.0, 1.0)

    bench.work(1, objective)
    assert bench.states() == ["COMPLETE"]


def test_a_trial_that_another_worker_runs_counts_and_is_waited_for(bench, monkeypatch):
    bench.work(1)
    other = bench.study.ask(SPACE)
    other.set_user_attr(WORKER, "elsewhere:1")
    bench.storage.record_heartbeat(other._trial_id)
    monkeypatch.setattr("time.sleep", lambda seconds: bench.study.tell(other, 0.5))
    bench.work(2)
    assert bench.states() == ["COMPLETE"] * 2
    assert bench.said == ["all trials are taken; waiting for those that other workers run"]


def test_what_died_before_its_first_heartbeat_is_failed_and_its_point_tried_again(bench):
    bench.study.enqueue_trial({"x": 0.25})
    bench.study.ask()
    bench.work(1)
    assert bench.states() == ["FAIL", "COMPLETE"]
    assert bench.study.trials[1].params == {"x": 0.25}
    assert bench.said == ["trial 0 was interrupted; its parameters are tried again"]


def test_the_result_of_a_trial_that_was_taken_for_lost_does_not_count(bench):
    def objective(trial):
        if trial.number == 0:
            trial.suggest_float("x", 0.0, 1.0)
            bench.study.tell(trial.number, state=TrialState.FAIL)
        return trial.suggest_float("x", 0.0, 1.0)

    bench.work(1, objective)
    assert bench.states() == ["FAIL", "COMPLETE"]
    assert bench.study.trials[1].params == bench.study.trials[0].params
    assert bench.said[0].startswith("trial 0 was taken for lost, since its heartbeat was missing; its result does not")


def test_a_trial_whose_judge_lost_the_database_is_tried_again(bench):
    def objective(trial):
        x = trial.suggest_float("x", 0.0, 1.0)
        if trial.number == 0:
            raise StorageError("the study's database has not answered")
        return x

    bench.work(1, objective)
    assert bench.states() == ["FAIL", "COMPLETE"]
    assert bench.study.trials[1].params == bench.study.trials[0].params


def test_another_error_of_the_database_is_raised(bench):
    def objective(trial):
        bench.study._storage.delete_study(bench.study._study_id)
        return 0.5

    with pytest.raises(KeyError):
        bench.work(1, objective)


def interrupt(study, **attributes):
    trial = study.ask(SPACE)
    for name, value in attributes.items():
        trial.set_user_attr(name, value)
    study.tell(trial, state=TrialState.FAIL)
    return trial.number


def test_each_interrupted_point_is_queued_once_and_given_up_when_interrupted_again():
    study = optuna.create_study()
    interrupt(study, error="boom")
    first = interrupt(study, **{WORKER: "a"})
    assert requeue(study) == [first]
    assert requeue(study) == []
    again = study.ask(SPACE)
    assert (again.params, again.user_attrs) == (study.trials[first].params, {RERUN: first})
    again.set_user_attr(WORKER, "b")
    study.tell(again, state=TrialState.FAIL)
    assert requeue(study) == []
