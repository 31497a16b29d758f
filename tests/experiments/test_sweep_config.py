import optuna
import pytest
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from cxr.errors import ConfigError
from cxr.experiments.sweep_config import make_pruner, make_sampler, parse_search


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


@pytest.mark.parametrize(
    "config", [{"_target_": "os.system", "command": "true"}, {"_target_": "optuna.pruners.MedianPruner", "speed": 1}]
)
def test_only_pruners_of_optuna_are_made(config):
    with pytest.raises(ConfigError, match="pruner must be a class of optuna.pruners and its arguments, but got"):
        make_pruner(OmegaConf.create(config))


WHEN = {"net=cnn": {"net.filters": "range(16,65,16)"}, "net=vgg,resnet": {"net.rate": "interval(0.1, 0.5)"}}


def drawn_params(search, **fixed):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.enqueue_trial(fixed)
    return search.draw(study.ask())


@pytest.mark.parametrize(
    ("net", "keys"),
    [("cnn", {"net", "net.filters"}), ("vgg", {"net", "net.rate"}), ("resnet", {"net", "net.rate"}), ("vit", {"net"})],
)
def test_keys_under_a_condition_are_searched_only_where_it_holds(net, keys):
    search = parse_search({"net": "choice(cnn, vgg, resnet, vit)"}, [], WHEN)
    params = drawn_params(search, net=net)
    assert params.keys() == keys
    assert next(iter(params)) == "net", "what decides comes first in the words of a trial"
    assert search.whole_space().keys() == {"net", "net.filters", "net.rate"}


def test_a_condition_may_be_about_a_fixed_key_or_a_switch():
    params = {"net": "choice(cnn, vgg)", "x": "interval(0, 1)", "fast": "choice(true, false)"}
    search = parse_search(params, ["net=cnn"], WHEN | {"fast=true": {"speed": "choice(1, 2)"}})
    assert drawn_params(search, fast=True).keys() == {"x", "fast", "net.filters", "speed"}
    assert drawn_params(search, fast=False).keys() == {"x", "fast", "net.filters"}


def test_a_first_point_of_each_branch_is_tried_before_the_first_trial():
    search = parse_search({"net": "choice(cnn, vgg)"}, [], WHEN)
    assert list(search.first_points()) == [
        {"net": "cnn", "net.filters": 16},
        {"net": "cnn", "net.filters": 16},
        {"net": "vgg", "net.rate": 0.1},
        {"net": "resnet", "net.rate": 0.1},
    ]


@pytest.mark.parametrize(
    ("when", "told"),
    [
        ({"loss=a": {"y": "choice(1, 2)"}}, "asks for loss=a, but loss is neither searched nor fixed; add it"),
        ({"net=cnn": {"y": 3}}, "must give ranges to search, but under net=cnn y is fixed"),
        ({"net=cnn": {"x": "choice(1, 2)"}}, "x must be searched in one place, but got two"),
        (
            {"net=cnn": {"y": "choice(1, 2)"}, "net=vgg": {"y": "choice(1, 2)"}},
            "y must be searched in one place.*net=A,B",
        ),
    ],
)
def test_conditions_that_make_no_sense_are_refused(when, told):
    with pytest.raises(ConfigError, match=told):
        parse_search({"net": "choice(cnn, vgg)", "x": "interval(0, 1)"}, [], when)
