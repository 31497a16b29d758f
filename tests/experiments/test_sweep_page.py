import optuna
import pytest
from optuna.distributions import FloatDistribution

from cxr.experiments.goals import Goals
from cxr.experiments.sweep_page import tell_duration, write_page

AUROC = Goals(("val/auroc",))


def page_of(study, folder, goals=AUROC) -> str:
    write_page(study, folder, goals, 20)
    return (folder / "sweep.html").read_text()


@pytest.fixture
def small():
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(study_name="a <study>", direction="minimize")


def add(study, value):
    trial = study.ask({"x": FloatDistribution(0.0, 1.0)})
    trial.set_user_attr("run_dir", f"trial_{trial.number}")
    trial.set_user_attr("checkpoint", f"trial_{trial.number}/best.ckpt")
    study.tell(trial, value)


def test_the_page_holds_plotly_once_two_plots_and_all_trials(study, tmp_path):
    page = page_of(study, tmp_path)
    body = page[page.index("<body>") :]
    assert page.count("<script>/**") == 1
    assert "src=" not in body
    assert "https://" not in body.replace("https://plot.ly", "")
    assert body.count("Plotly.newPlot") == 2
    assert body.count("<tr") == 2 + 1 + 5 + 2, "best trial's table; heading, five trials, two reasons of failure"
    assert "3 of 20" in body
    assert "trial_1/checkpoints/best.ckpt" in body


def test_the_page_shows_the_test_of_the_best_trial_over_all_classes(study, tmp_path):
    study.set_user_attr("test", {"trial": 1, "metrics": {"test/auroc": 0.8125, "test/recall/normal": 0.7}})
    body = page_of(study, tmp_path).partition("<body>")[2]
    assert '<th>auroc</th></tr></thead><tbody><tr class=""><td>0.8125</td>' in body
    assert "recall" not in body


def test_what_comes_from_outside_is_escaped(study, tmp_path):
    body = page_of(study, tmp_path).partition("<body>")[2]
    assert "the loss is &lt;nan&gt;" in body
    assert "<nan>" not in body


def test_the_page_of_an_empty_study_says_what_it_waits_for(small, tmp_path):
    page = page_of(small, tmp_path)
    assert "<title>a &lt;study&gt;</title>" in page
    assert "highest val/auroc of the validation part. Only the best trial is tested" in page
    assert "Plotly.newPlot" not in page.partition("<body>")[2]
    assert "Drawn once 8 trials have finished; so far 0." in page


def test_importances_wait_for_enough_trials(small, tmp_path):
    for value in range(7):
        add(small, value)
    assert "Drawn once 8 trials have finished; so far 7." in page_of(small, tmp_path)
    add(small, 0.5)
    assert "Drawn once" not in page_of(small, tmp_path)


def test_a_plot_that_cannot_be_drawn_is_a_sentence(small, tmp_path, monkeypatch):
    def fail(*arguments, **keywords):
        raise ValueError("all values are <equal>")

    monkeypatch.setattr("optuna.visualization.plot_parallel_coordinate", fail)
    add(small, 0.5)
    body = page_of(small, tmp_path).partition("<body>")[2]
    assert "Cannot be drawn yet: all values are &lt;equal&gt;" in body
    assert body.count("Plotly.newPlot") == 1


@pytest.mark.parametrize(("seconds", "told"), [(59.6, "1 min 00 s"), (7.2, "7 s"), (7322.0, "2 h 02 min")])
def test_durations_are_told_as_people_do(seconds, told):
    assert tell_duration(seconds) == told


def test_with_several_goals_the_page_shows_the_front_first(tmp_path):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(study_name="two", directions=["maximize", "minimize"])
    for values in [(0.9, 9.0), (0.8, 2.0)]:
        study.tell(study.ask({"x": FloatDistribution(0.0, 1.0)}), values)
    body = page_of(study, tmp_path, Goals(("val/auroc", "latency_ms"), ("max", "min"))).partition("<body>")[2]
    assert "Search for the highest val/auroc and the lowest latency_ms" in body
    assert "No trial is tested" in body
    assert body.index("What is gained and what it costs") < body.index("Values over the trials")
    assert body.count("Plotly.newPlot") == 3
    assert '<div class="card"><b>2</b><span>trials on the front</span></div>' in body
