import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from cxr.errors import DataError
from cxr.experiments.warm_start import best_first, queue_best_points

SPACE = {"x": FloatDistribution(0.0, 1.0), "kind": CategoricalDistribution(["a", "b"])}


@pytest.fixture
def storage():
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.storages.InMemoryStorage()


def make_study(storage, name, space, points):
    """A study with the points as finished trials; the value is x."""
    study = optuna.create_study(storage=storage, study_name=name, direction="maximize")
    for point in points:
        study.add_trial(optuna.create_trial(params=point, distributions=space, value=point["x"]))
    return study


def points_tried(study, count):
    trials = [study.ask(SPACE) for _ in range(count)]
    return [trial.params for trial in trials]


def test_the_best_points_come_first_without_what_this_search_does_not_have(storage):
    wide = {"x": FloatDistribution(0.0, 2.0), "kind": CategoricalDistribution(["a", "c"]), "other": SPACE["x"]}
    points = [{"x": x, "kind": kind, "other": 0.5} for x, kind in [(0.2, "a"), (0.9, "a"), (1.5, "c"), (0.7, "c")]]
    make_study(storage, "earlier", wide, points)
    study = optuna.create_study(storage=storage, study_name="new", direction="maximize")
    assert queue_best_points(study, storage, "earlier", SPACE, 20) == 3
    first, second, third = points_tried(study, 3)
    assert (first, third) == ({"x": 0.9, "kind": "a"}, {"x": 0.2, "kind": "a"})
    assert second["x"] == 0.7, "its kind is none of this search and is drawn"


def test_no_more_points_are_queued_than_the_study_takes(storage):
    make_study(storage, "earlier", SPACE, [{"x": number / 10, "kind": "a"} for number in range(9)])
    study = optuna.create_study(storage=storage, study_name="new", direction="maximize")
    assert queue_best_points(study, storage, "earlier", SPACE, 2) == 2
    assert [point["x"] for point in points_tried(study, 2)] == [0.8, 0.7]


def test_an_earlier_sweep_is_found_by_its_folder(tmp_path, storage):
    make_study(f"sqlite:///{tmp_path}/study.db", "any name", SPACE, [{"x": 0.4, "kind": "b"}])
    study = optuna.create_study(storage=storage, study_name="new")
    assert queue_best_points(study, storage, str(tmp_path), SPACE, 20) == 1
    assert points_tried(study, 1) == [{"x": 0.4, "kind": "b"}]


def test_of_several_goals_the_front_comes_first(storage):
    study = optuna.create_study(directions=["maximize", "minimize"])
    for values in [(0.9, 9.0), (0.8, 9.5), (0.1, 1.0)]:
        study.tell(study.ask(), values)
    assert [trial.number for trial in best_first(study)] == [0, 2, 1]


def test_an_earlier_study_that_does_not_exist_is_told(storage):
    study = optuna.create_study(storage=storage, study_name="new")
    with pytest.raises(DataError, match="warm_start must be the folder of a sweep .* but got nowhere; .* holds: new"):
        queue_best_points(study, storage, "nowhere", SPACE, 20)


def test_an_earlier_study_without_a_point_of_this_search_is_told(storage):
    make_study(storage, "earlier", {"x": FloatDistribution(5.0, 9.0)}, [{"x": 6.0}])
    study = optuna.create_study(storage=storage, study_name="new")
    with pytest.raises(DataError, match="earlier has no finished trial with a value for one of x, kind; name a sweep"):
        queue_best_points(study, storage, "earlier", SPACE, 20)
