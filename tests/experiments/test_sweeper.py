import optuna
import pandas as pd
import pytest
import yaml
from optuna.distributions import FloatDistribution

from cxr.entry import tell_errors
from cxr.experiments.study import StorageError
from cxr.experiments.sweep_claims import Claims
from cxr.experiments.sweep_records import read_best
from cxr.experiments.sweeper import is_trial


def open_study(folder, name="stub-template"):
    return optuna.load_study(study_name=name, storage=f"sqlite:///{folder}/study.db")


def states(folder):
    return [trial.state.name for trial in open_study(folder).trials]


def errors(folder):
    return list(pd.read_csv(folder / "trials.csv")["error"])


def trial_files(folder):
    return {path.parent.name: yaml.safe_load(path.read_text()) for path in sorted(folder.glob("trial_*/trial.yaml"))}


def test_a_sweep_leaves_folders_by_trial_number_and_tests_the_best_trial_once(app):
    app.run("hydra.sweeper.n_trials=2")
    trials = pd.read_csv(app.folder / "trials.csv")
    best = trials.loc[trials["value"].idxmax()]
    assert sorted(path.name for path in app.folder.glob("trial_*")) == ["trial_0", "trial_1"]
    assert list(trials["value"]) == pytest.approx([1 - abs(x - 0.3) for x in trials["x"]])
    assert app.tested() == [f"trial_{best['number']}"]
    assert app.pages == [1, 2, 2], "the page is written after each trial, and with the test at the end"
    found = read_best(app.folder)
    assert (found.number, found.test) == (best["number"], {"test/auroc": 0.75})
    assert found.value == pytest.approx(best["value"])
    assert found.checkpoint == f"trial_{best['number']}/best.ckpt"


def test_the_same_command_again_runs_and_tests_nothing_more(app):
    app.run("hydra.sweeper.n_trials=1")
    before = {path: path.stat().st_mtime_ns for path in app.folder.glob("trial_*/*")}
    app.run("hydra.sweeper.n_trials=1")
    assert states(app.folder) == ["COMPLETE"]
    assert {path: path.stat().st_mtime_ns for path in app.folder.glob("trial_*/*")} == before
    assert app.tested() == ["trial_0"]


@pytest.mark.slow
def test_n_trials_is_the_total_the_seed_moves_on_and_a_new_best_trial_is_tested(app):
    app.run("hydra.sweeper.n_trials=1")
    app.run("hydra.sweeper.n_trials=4")
    drawn = [trial["x"] for trial in trial_files(app.folder).values()]
    assert len(set(drawn)) == 4, "each call of a seeded random sampler would draw the same points again"
    tested = app.tested()
    assert len(tested) == len(set(tested)) > 1
    assert tested[-1] == f"trial_{open_study(app.folder).best_trial.number}"


def test_each_search_and_experiment_has_its_own_folder_and_study(app):
    app.run("experiment=demo", "hydra.sweeper.n_trials=1", "test=true")
    folder = app.root / "logs" / "sweeps" / "stub-demo"
    trial = trial_files(folder)["trial_0"]
    assert (trial["name"], trial["test"]) == ("stub-demo-0", False)
    assert len(open_study(folder, "stub-demo").trials) == 1


def test_failing_trials_are_recorded_and_the_sweep_goes_on(app, capsys):
    app.run("hydra.sweeper.n_trials=4", "+misbehave={t0: error, t1: no_number, t2: exit}")
    assert states(app.folder) == ["FAIL", "FAIL", "FAIL", "COMPLETE"]
    told = errors(app.folder)
    assert told[0] == "boom"
    assert "finite number, but got nan" in told[1]
    assert "exit code 3" in told[2]
    assert "Traceback" in (app.folder / "trial_0" / "error.txt").read_text()
    assert "trial 0: failed: boom" in capsys.readouterr().out


def test_a_trial_that_lost_the_database_was_interrupted(app, capsys):
    app.run("hydra.sweeper.n_trials=1", "+misbehave={t0: lost}")
    assert states(app.folder) == ["FAIL", "COMPLETE"]
    assert errors(app.folder)[0] == "interrupted"
    lost, again = open_study(app.folder).trials
    assert lost.params == again.params
    assert "trial 0: failed: interrupted" in capsys.readouterr().out


def test_a_sweep_without_any_value_ends_with_the_reason(app):
    with pytest.raises(SystemExit, match=r"all 1 failed, the last with: boom; mend that"):
        app.run("hydra.sweeper.n_trials=1", "+misbehave.t0=error")
    assert app.tested() == []


def test_trials_of_a_killed_process_are_failed_at_the_start_and_run_anew(app, capsys):
    app.run("hydra.sweeper.n_trials=1")
    open_study(app.folder).ask({"x": FloatDistribution(0.0, 1.0)})
    app.run("hydra.sweeper.n_trials=2")
    assert states(app.folder) == ["COMPLETE", "FAIL", "COMPLETE"]
    assert errors(app.folder)[1] == "interrupted"
    assert "trial 1 was interrupted; its parameters are tried again" in capsys.readouterr().out
    lost, again = open_study(app.folder).trials[1:]
    assert lost.params["x"] == again.params["x"]


@pytest.mark.parametrize("kind", ["interrupt", "lightning_interrupt"])
def test_ctrl_c_fails_the_current_trial_and_the_same_command_goes_on(app, capsys, kind):
    command = ("hydra.sweeper.n_trials=1", f"+misbehave.t0={kind}")
    with pytest.raises(SystemExit) as ended:
        app.run(*command)
    assert ended.value.code == 130
    assert (states(app.folder), errors(app.folder), app.tested()) == (["FAIL"], ["interrupted"], [])
    told = capsys.readouterr().out
    assert "trials: 1 fail" in told
    assert "the same command continues" in told
    app.run(*command)
    assert states(app.folder) == ["FAIL", "COMPLETE"]


def test_missing_data_fails_before_trial_0(app):
    with pytest.raises(SystemExit, match=r"error: there is no data; run scripts/download_data.py"):
        app.run("data=away")
    assert not app.folder.exists()


def test_a_searched_key_that_the_config_lacks_fails_before_trial_0(app, capsys):
    with pytest.raises(SystemExit):
        app.run("+hydra.sweeper.params={nett.x: 'interval(0.0, 1.0)'}")
    assert "nett" in capsys.readouterr().err
    assert not app.folder.exists()


def test_a_missing_extra_fails_before_trial_0(app, monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "optuna" else find(name))
    with pytest.raises(SystemExit, match=r"optuna is not installed; .* pip install 'cxr-lab\[sweep\]'"):
        app.run()
    assert not app.folder.exists()


def test_another_setting_is_another_study(app):
    app.run("hydra.sweeper.n_trials=1")
    with pytest.raises(SystemExit, match=r"of another search \(batch: 4 before, 5 now\); .*study_name=NAME"):
        app.run("batch=5")
    app.run("hydra.sweeper.n_trials=1", "batch=5", "study_name=other")
    assert states(app.folder) == ["COMPLETE"]
    assert len(open_study(app.root / "logs" / "sweeps" / "other", "other").trials) == 1


@pytest.mark.parametrize("typed", ["0", "many", "true"])
def test_the_number_of_trials_is_checked(app, typed):
    with pytest.raises(SystemExit, match="n_trials must be a whole number of at least 1, but got"):
        app.run(f"hydra.sweeper.n_trials={typed}")


def test_a_folder_whose_database_is_gone_is_not_written_over(app):
    (app.folder / "trial_0").mkdir(parents=True)
    with pytest.raises(SystemExit, match=r"holds trials but study stub-template .* holds none; restore the database"):
        app.run()
    assert not (app.folder / "trial_1").exists()


def test_a_damaged_database_is_told_in_one_sentence(app):
    app.folder.mkdir(parents=True)
    (app.folder / "study.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(SystemExit, match=r"the study's database sqlite:.* cannot be used .*not a database"):
        app.run()


def test_without_m_a_search_is_refused(app, capsys):
    with pytest.raises(SystemExit):
        app.run(multirun=False, task=lambda config: tell_errors(is_trial)())
    assert "add -m: python run.py -m hparams_search=stub" in capsys.readouterr().err


@pytest.mark.parametrize("multirun", [True, False])
def test_a_job_without_a_search_is_no_trial(app, multirun):
    seen = []
    app.run(search=None, multirun=multirun, task=lambda config: seen.append(is_trial()))
    assert seen == [False]


TWO = ("hydra.sweeper.metrics=[val/auroc,val/f1]", "hydra.sweeper.modes=[max,min]", "hydra.sweeper.n_trials=4")


@pytest.mark.slow
def test_several_goals_have_a_front_and_a_test_only_with_limits(app, capsys):
    app.run(*TWO)
    trials = pd.read_csv(app.folder / "trials.csv")
    assert list(trials["val/f1"]) == pytest.approx(list(trials["x"]))
    assert trials["front"].any()
    assert "on the front: trial" in capsys.readouterr().out
    assert (app.tested(), (app.folder / "best.yaml").exists()) == ([], False)
    limit = trials["x"].sort_values().iloc[1]
    app.run(*TWO, f"+hydra.sweeper.limits={{val/f1: {limit}}}")
    within = trials[trials["x"] <= limit]
    assert read_best(app.folder).number == within.loc[within["val/auroc"].idxmax(), "number"]
    assert len(app.tested()) == 1


@pytest.mark.slow
def test_a_sweep_can_start_with_the_best_points_of_another(app, capsys):
    app.run("hydra.sweeper.n_trials=3")
    best = read_best(app.folder).params
    app.run("hydra.sweeper.n_trials=1", "study_name=next", f"hydra.sweeper.warm_start={app.folder}")
    assert "1 points of" in capsys.readouterr().out
    (trial,) = open_study(app.root / "logs" / "sweeps" / "next", "next").trials
    assert trial.params == best


def test_an_earlier_sweep_that_is_mistyped_is_told_each_time(app):
    for _ in range(2):
        with pytest.raises(SystemExit, match="warm_start must be the folder of a sweep .* but got nowhere"):
            app.run("hydra.sweeper.warm_start=nowhere")


def test_a_worker_that_lost_the_database_does_not_ask_it_for_records(app, monkeypatch):
    def lose(*_):
        raise StorageError("the study's database has not answered")

    monkeypatch.setattr(Claims, "work", lose)
    with pytest.raises(SystemExit, match="error: the study's database has not answered"):
        app.run()
    assert app.pages == []


@pytest.mark.slow
def test_a_key_under_a_condition_is_searched_where_it_holds(app):
    lines = ["# @package _global_", "defaults: [stub]", "hydra: {sweeper: {when: {size=8: {batch: 'choice(4, 5)'}}}}"]
    (app.configs / "hparams_search" / "when.yaml").write_text("\n".join(lines))
    app.run("hydra.sweeper.n_trials=6", search="when")
    trials = pd.read_csv(app.root / "logs" / "sweeps" / "when-template" / "trials.csv")
    assert (trials["batch"].notna() == (trials["size"] == 8)).all()
    assert trials["size"].nunique() == 2


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("workers=0", "workers must be a whole number of at least 1, but got 0"),
        ("heartbeat=0.5", "heartbeat must be a whole number of at least 1, but got 0.5"),
        ("patience=-1", "patience must be a number of seconds >= 0, but got -1"),
        ("storage=mysql://host/db", "storage must be sqlite:.* but got mysql"),
        ("pruner._target_=os.system", "pruner must be a class of optuna.pruners"),
    ],
)
def test_settings_of_the_sweep_are_checked(app, word, told):
    with pytest.raises(SystemExit, match=told):
        app.run(f"hydra.sweeper.{word}")
    assert not (app.folder / "study.db").exists()
