import optuna
import pandas as pd
import pytest
import yaml
from filelock import FileLock
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

import cxr.experiments.sweeper as sweeper
from cxr.entry import tell_errors
from cxr.errors import ConfigError
from cxr.experiments.sweep_records import read_best
from cxr.experiments.sweeper import is_trial, make_sampler, parse_search


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


def test_a_sweep_without_any_value_ends_with_the_reason(app):
    with pytest.raises(SystemExit, match=r"all 1 failed, the last with: boom; mend that"):
        app.run("hydra.sweeper.n_trials=1", "+misbehave.t0=error")
    assert app.tested() == []


def test_trials_of_a_killed_process_are_failed_at_the_start_and_run_anew(app, capsys):
    app.run("hydra.sweeper.n_trials=1")
    open_study(app.folder).ask()
    app.run("hydra.sweeper.n_trials=2")
    assert states(app.folder) == ["COMPLETE", "FAIL", "COMPLETE"]
    assert errors(app.folder)[1] == "interrupted"
    assert "trial 1 was interrupted" in capsys.readouterr().out


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


def test_a_second_process_on_one_study_is_refused(app, monkeypatch):
    monkeypatch.setattr(sweeper, "LOCK_SECONDS", 0.1)
    app.folder.mkdir(parents=True)
    with FileLock(app.folder / ".lock"), pytest.raises(SystemExit, match="another process is running the sweep"):
        app.run()
    assert not (app.folder / "study.db").exists()


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


def parse(arguments=(), **params):
    return parse_search({key.replace("__", "."): value for key, value in params.items()}, list(arguments))


def test_the_search_space_follows_hydras_sweep_syntax():
    search = parse(
        ["data=siim", "~callbacks.progress"],
        optimizer__lr="tag(log, interval(1e-5, 1e-2))",
        net__filters="range(16, 67, 10)",
        net__rate="interval(0.0, 0.5)",
        net__activation="choice(relu, 'leaky relu')",
    )
    assert search.space == {
        "optimizer.lr": FloatDistribution(1e-5, 1e-2, log=True),
        "net.filters": IntDistribution(16, 66, step=10),
        "net.rate": FloatDistribution(0.0, 0.5),
        "net.activation": CategoricalDistribution(["relu", "leaky relu"]),
    }
    assert search.overrides({"net.activation": "leaky relu", "net.rate": 0.25}) == [
        "data=siim", "~callbacks.progress", "net.activation=leaky relu", "net.rate=0.25", "test=false", "report=false",
    ]  # fmt: skip


def test_a_fixed_value_on_the_command_line_takes_the_key_out_of_the_search():
    search = parse(["x=0.25"], x="interval(0.0, 1.0)", size="choice(8, 16)")
    assert (list(search.space), search.fixed) == (["size"], ("x=0.25",))


def test_trials_never_touch_the_test_part_whatever_is_typed():
    words = parse(["test=true", "report=true"], x="choice(1, 2)").overrides({"x": 1})
    assert words[-2:] == ["test=false", "report=false"]


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("0.1", "nothing to search: every key"),
        ("range(8,16,0)", "the search space cannot be read: .*nonzero step"),
        ("choice(", "the search space cannot be read: .*mend hydra.sweeper.params"),
    ],
)
def test_what_cannot_be_searched_is_told_in_one_sentence(typed, message):
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        parse(x=typed)


def test_a_seeded_sampler_moves_on_with_the_trials():
    config = OmegaConf.create({"_target_": "optuna.samplers.RandomSampler", "seed": 3})
    study = optuna.create_study()

    def draw(existing):
        study.sampler = make_sampler(config, existing)
        return study.ask({"x": FloatDistribution(0.0, 1.0)}).params["x"]

    assert draw(0) == draw(0)
    assert len({draw(0), draw(1), draw(2)}) == 3


@pytest.mark.parametrize(
    "config", [{"_target_": "os.system", "command": "true"}, {"_target_": "optuna.samplers.RandomSampler", "speed": 1}]
)
def test_only_samplers_of_optuna_are_made(config):
    with pytest.raises(ConfigError, match="sampler must be a class of optuna.samplers and its arguments, but got"):
        make_sampler(OmegaConf.create(config), 0)
