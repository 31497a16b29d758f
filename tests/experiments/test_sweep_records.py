import math

import optuna
import pandas as pd
import pytest

from cxr.errors import DataError
from cxr.experiments.goals import Goals
from cxr.experiments.sweep_records import (
    find_best,
    make_trials_table,
    read_best,
    replace_file,
    summarize,
    write_records,
)

AUROC = Goals(("val/auroc",))
BOTH = Goals(("val/auroc", "latency_ms"), ("max", "min"))


def test_the_table_has_a_row_per_trial(study):
    table = make_trials_table(study, AUROC)
    assert list(table.columns) == ["number", "state", "value", "epochs", "seconds", "x", "checkpoint", "error"]
    assert list(table["state"]) == ["complete"] * 3 + ["fail"] * 2
    assert list(table["value"][:3]) == [0.5, 0.9, 0.7]
    assert list(table["error"][3:]) == ["the loss is <nan>", "interrupted"]
    assert table["checkpoint"][1] == "trial_1/checkpoints/best.ckpt"


def test_the_table_of_an_empty_study_has_its_columns():
    assert list(make_trials_table(optuna.create_study(), AUROC).columns) == [
        "number", "state", "value", "epochs", "seconds", "checkpoint", "error",
    ]  # fmt: skip


def test_what_is_written_is_read_back(study, tmp_path):
    write_records(study, tmp_path, AUROC)
    best = read_best(tmp_path)
    assert best == find_best(study, AUROC)
    assert (best.number, best.value, best.metric, best.test) == (1, 0.9, "val/auroc", None)
    assert best.params == study.best_params
    assert (best.run_dir, best.checkpoint) == ("trial_1", "trial_1/checkpoints/best.ckpt")
    assert math.isnan(pd.read_csv(tmp_path / "trials.csv")["value"][4])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.yaml", "trials.csv"]


@pytest.mark.parametrize(("tested", "expected"), [(1, {"test/auroc": 0.8}), (0, None)])
def test_the_test_is_told_only_if_it_is_the_best_trials(study, tested, expected):
    study.set_user_attr("test", {"trial": tested, "metrics": {"test/auroc": 0.8}})
    assert find_best(study, AUROC).test == expected


def test_without_a_finished_trial_there_is_no_best(tmp_path):
    study = optuna.create_study()
    write_records(study, tmp_path, AUROC)
    assert not (tmp_path / "best.yaml").exists()
    assert summarize(study, tmp_path, AUROC) == f"trials: none; folder: {tmp_path}"
    with pytest.raises(DataError, match=r"must be the folder of a sweep with a finished trial, but has no best.yaml"):
        read_best(tmp_path)


def test_the_summary_names_the_best_trial_and_its_checkpoint(study, tmp_path):
    study.set_user_attr("test", {"trial": 1, "metrics": {"test/auroc": 0.8, "test/recall/normal": 0.7}})
    told = summarize(study, tmp_path, AUROC)
    assert "trials: 3 complete, 2 fail" in told
    assert "best: trial 1, val/auroc = 0.9000" in told
    assert f"checkpoint: {tmp_path}/trial_1/checkpoints/best.ckpt" in told
    assert "test/auroc = 0.8000" in told
    assert "recall" not in told


@pytest.mark.parametrize("text", ["[1", "number: 3", "- 1", "", "\x00"])
def test_a_damaged_file_is_told_in_one_sentence(tmp_path, text):
    (tmp_path / "best.yaml").write_text(text)
    with pytest.raises(DataError, match=r"best.yaml is damaged .* repeat the command of the sweep"):
        read_best(tmp_path)


def test_a_file_is_replaced_in_one_step_or_not_at_all(tmp_path):
    replace_file(tmp_path / "a.txt", "before")
    (tmp_path / ".a.txt.partial").mkdir()
    with pytest.raises(DataError, match=r"a.txt cannot be written .*; free some space, then repeat the command"):
        replace_file(tmp_path / "a.txt", "after")
    assert (tmp_path / "a.txt").read_text() == "before"


def test_with_several_goals_the_table_tells_each_value_and_the_front(tmp_path):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(directions=["maximize", "minimize"])
    for values in [(0.9, 9.0), (0.8, 2.0), (0.7, 5.0)]:
        trial = study.ask()
        trial.set_user_attr("run_dir", f"trial_{trial.number}")
        trial.set_user_attr("checkpoint", f"trial_{trial.number}/best.ckpt")
        study.tell(trial, values)
    table = make_trials_table(study, BOTH)
    assert list(table["val/auroc"]) == [0.9, 0.8, 0.7]
    assert list(table["latency_ms"]) == [9.0, 2.0, 5.0]
    assert list(table["front"]) == [True, True, False]
    write_records(study, tmp_path, BOTH)
    assert not (tmp_path / "best.yaml").exists()
    told = summarize(study, tmp_path, BOTH)
    assert "on the front: trial 1: val/auroc 0.8, latency_ms 2\non the front: trial 0:" in told
    limited = Goals(BOTH.metrics, BOTH.modes, {"latency_ms": 5.0})
    write_records(study, tmp_path, limited)
    assert read_best(tmp_path).number == 1


def test_a_trial_that_was_stopped_has_the_value_of_its_last_epoch():
    study = optuna.create_study()
    trial = study.ask()
    for epoch, value in enumerate([0.5, 0.25]):
        trial.report(value, epoch)
    study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    row = make_trials_table(study, AUROC).iloc[0]
    assert (row["state"], row["value"], row["epochs"]) == ("pruned", 0.25, 2)
