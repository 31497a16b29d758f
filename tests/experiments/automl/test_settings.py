import pytest

from cxr.errors import ConfigError, MissingExtraError
from cxr.experiments.automl import settings
from cxr.experiments.automl.settings import AutoML, check_monitor

GOOD = {
    "budget_minutes": 45, "trials": None, "max_cores": None, "folds": 5, "features": "pixels", "size": [100, 130],
    "featurize": True, "families": ["svm"], "include_dnn": False, "ensemble_size": 25,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget_minutes": 0}, "plan.budget_minutes must be a number > 0, but got 0"),
        ({"trials": 0}, "plan.trials must be null or a whole number >= 1, but got 0"),
        ({"max_cores": 0}, "plan.max_cores must be null or a whole number >= 1, but got 0"),
        ({"folds": 1}, "plan.folds must be a whole number >= 2, but got 1"),
        ({"features": None}, "plan.features must be a text, but got None"),
        ({"featurize": "on"}, "plan.featurize must be true or false, but got 'on'"),
        ({"include_dnn": 1}, "plan.include_dnn must be true or false, but got 1"),
        ({"ensemble_size": 0}, "plan.ensemble_size must be a whole number >= 1, but got 0"),
        (
            {"families": ["svm", "perceptron"]},
            r"plan.families must be a list that names some of svm, .* got \['svm', 'p",
        ),
        ({"families": ["svm", "svm"]}, "each once, but got"),
        ({"families": []}, r"but got \[\]"),
        ({"families": "svm"}, "but got 'svm'"),
        ({"features": "logs/runs/x", "featurize": False}, "plan.featurize=false takes the pixels themselves, but"),
    ],
)
def test_what_cannot_be(changes, message):
    with pytest.raises(ConfigError, match=message):
        AutoML(**{**GOOD, **changes})


def test_cnns_may_race_alone():
    assert AutoML(**{**GOOD, "families": [], "include_dnn": True}).families == []


@pytest.mark.parametrize(("families", "missing"), [(["svm"], "skl2onnx"), (["xgboost"], "xgboost")])
def test_packages_are_asked_for_before_anything_is_read(monkeypatch, families, missing):
    def refuse(module, extra):
        if module == missing:
            raise MissingExtraError(f"{module} is not installed; {extra}")

    monkeypatch.setattr(settings, "require_extra", refuse)
    with pytest.raises(MissingExtraError, match=f"{missing} is not installed; automl"):
        AutoML(**{**GOOD, "families": families})


def test_the_metric_is_that_of_the_monitor():
    assert check_monitor("val/auroc", "max", ["a", "b", "c"]) == "auroc"
    assert check_monitor("val/recall/c", "max", ["a", "b", "c"]) == "recall/c"


@pytest.mark.parametrize(("metric", "mode"), [("val/loss", "max"), ("val/auroc", "min")])
def test_a_monitor_that_tables_cannot_tell(metric, mode):
    with pytest.raises(
        ConfigError, match=f"one of accuracy, .*, but got monitor.metric={metric} and monitor.mode={mode}"
    ):
        check_monitor(metric, mode, ["a", "b"])
