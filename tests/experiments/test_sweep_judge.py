import optuna
import pytest

from cxr.experiments.study import StorageError, open_study
from cxr.experiments.sweep_judge import StudyJudge
from cxr.experiments.sweep_storage import PatientStorage


@pytest.fixture
def address(tmp_path):
    return f"sqlite:///{tmp_path}/study.db"


@pytest.fixture
def shared(address):
    return open_study(PatientStorage(address, patience=0, heartbeat=60), "a", "max")


def judge(address, number, pruner):
    return StudyJudge(address, "a", number, "val/auroc", pruner, patience=0, heartbeat=60)


@pytest.mark.parametrize(("value", "stops"), [(0.4, True), (0.6, False)])
def test_a_trial_is_stopped_by_what_others_had_at_the_same_epoch(address, shared, value, stops):
    for _ in range(2):
        trial = shared.ask()
        trial.report(0.5, 3)
        shared.tell(trial, 0.9)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=2, n_warmup_steps=0)
    asked = judge(address, shared.ask().number, pruner)
    assert asked(3, {"val/auroc": value, "val/loss": 1.0}) is stops
    assert shared.trials[2].intermediate_values == {3: value}
    assert shared.trials[2].state.name == "RUNNING", "its worker records how it ended"


def test_without_a_pruner_values_are_kept_all_the_same(address, shared):
    asked = judge(address, shared.ask().number, optuna.pruners.NopPruner())
    assert [asked(epoch, {"val/auroc": 0.1 * epoch}) for epoch in range(3)] == [False] * 3
    assert shared.trials[0].intermediate_values == pytest.approx({0: 0.0, 1: 0.1, 2: 0.2})


def test_a_judge_connects_when_it_is_asked(address):
    asked = judge(address + "/nowhere", 0, optuna.pruners.NopPruner())
    with pytest.raises(StorageError, match="has not answered for 0 s .*unable to open"):
        asked(0, {"val/auroc": 0.5})
