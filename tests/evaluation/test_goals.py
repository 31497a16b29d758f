import pytest

from cxr.errors import ConfigError
from cxr.evaluation.goals import Goal, name_numbers, parse_goal


def report(name="", best=None):
    metrics = {
        "auroc": {"value": 0.9, "low": 0.8, "high": 0.95},
        "recall/ill": {"value": None, "low": None, "high": None},
    }
    return {"best": best, "questions": [{"name": name, "parts": [{"name": "test", "metrics": metrics}]}]}


@pytest.mark.parametrize(
    ("text", "goal"),
    [
        ("test/accuracy >= 0.85", Goal("test/accuracy", True, 0.85)),
        ("best/epoch<=20", Goal("best/epoch", False, 20.0)),
        (" test/recall/Viral Pneumonia >= .5 ", Goal("test/recall/Viral Pneumonia", True, 0.5)),
    ],
)
def test_a_goal_is_read_from_text_and_told_as_it_is_read(text, goal):
    assert parse_goal(text) == goal
    assert parse_goal(str(goal)) == goal


@pytest.mark.parametrize("text", ["", "test/accuracy", "test/accuracy > 0.85", ">= 0.85", "test/accuracy >= high"])
def test_another_text_is_no_goal(text):
    with pytest.raises(ConfigError, match="expected a goal such as 'test/accuracy >= 0.85', .* but got"):
        parse_goal(text)


def test_numbers_have_the_names_of_parts_metrics_and_ends():
    found = name_numbers(report(best={"monitor": "val/auroc", "score": 0.9, "epoch": 7, "epochs": 9, "seconds": 4.0}))
    assert found == {
        "test/auroc": 0.9, "test/auroc.low": 0.8, "test/auroc.high": 0.95, "test/recall/ill": None,
        "test/recall/ill.low": None, "test/recall/ill.high": None, "best/epoch": 7, "best/seconds": 4.0,
        "best/score": 0.9,
    }  # fmt: skip
    assert name_numbers(report("nodule"))["test_nodule/auroc"] == 0.9


@pytest.mark.parametrize(
    ("text", "met"),
    [
        ("test/auroc >= 0.9", True),
        ("test/auroc >= 0.91", False),
        ("test/auroc <= 0.9", True),
        ("test/auroc <= 0.89", False),
        ("test/auroc.low >= 0.81", False),
        ("test/recall/ill >= 0", False),
        ("test/recall/ill <= 1", False),
    ],
)
def test_a_bound_will_do_itself_and_what_is_not_defined_never_does(text, met):
    goal = parse_goal(text)
    assert goal.is_met(goal.look_up(name_numbers(report()))) is met


def test_a_goal_for_a_number_that_is_not_there_is_told_with_near_ones():
    with pytest.raises(ConfigError, match="has no 'test/acuracy'; near names: .*test/auroc"):
        parse_goal("test/acuracy >= 0.85").look_up(name_numbers(report()))
