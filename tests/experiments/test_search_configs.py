import inspect
from pathlib import Path

import optuna
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from cxr.experiments.study import suggest
from cxr.experiments.sweep_config import make_pruner, make_sampler, parse_search
from cxr.models.custom_cnn import build_custom_cnn
from cxr.models.head import ACTIVATIONS

CONFIGS = Path(__file__).parents[2] / "configs"
EXPERIMENTS = sorted(path.stem for path in (CONFIGS / "experiment").glob("*.yaml"))


@pytest.fixture(autouse=True, scope="module")
def configs():
    with initialize_config_dir(config_dir=str(CONFIGS)):
        yield


def compose_search(search, experiment):
    return compose("run", overrides=[f"hparams_search={search}", f"experiment={experiment}"], return_hydra_config=True)


def parse(config):
    return parse_search(OmegaConf.to_container(config.hydra.sweeper.params), [])


def test_run_yaml_composes_to_what_train_yaml_composes_to():
    assert OmegaConf.to_yaml(compose("run")) == OmegaConf.to_yaml(compose("train"))


@pytest.mark.parametrize("search", ["template_optuna", "custom_cnn_random", "custom_cnn_all"])
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_searched_key_exists_in_every_recipe_and_none_flips(search, experiment):
    config = compose_search(search, experiment)
    for key in parse(config).space:
        assert OmegaConf.select(config, key) is not None, key
        assert "flip" not in key


@pytest.mark.parametrize("net", ["custom_cnn", "resnet18", "resnetv2_50"])
def test_every_net_of_the_search_for_one_has_the_keys_that_are_searched_with_it(net):
    config = compose_search("nets", "demo")
    sweeper = OmegaConf.to_container(config.hydra.sweeper)
    search = parse_search(sweeper["params"], [f"net={net}"], sweeper["when"])
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = search.draw(study.ask())
    assert ("net.filters_1" in drawn) == (net == "custom_cnn")
    chosen = compose("run", overrides=["experiment=demo", *search.overrides(drawn)])
    assert all(OmegaConf.select(chosen, key) == value for key, value in drawn.items())


@pytest.mark.parametrize("pruner", ["median", "halving", "hyperband", "none"])
def test_every_pruner_is_made(pruner):
    words = ["hparams_search=template_optuna", "experiment=demo", f"hydra/pruner={pruner}"]
    config = compose("run", overrides=words, return_hydra_config=True)
    assert isinstance(make_pruner(config.hydra.sweeper.pruner), optuna.pruners.BasePruner)


def test_the_template_search_varies_optimisation_regularisation_and_augmentation():
    config = compose_search("template_optuna", "template")
    space = parse(config).space
    assert [key for key, distribution in space.items() if distribution.log] == [
        "optimizer.lr",
        "optimizer.weight_decay",
    ]
    assert space.keys() - {"optimizer.lr", "optimizer.weight_decay"} == {
        "net.drop_rate", "augment.rotation", "augment.scale", "augment.shear", "augment.translate",
    }  # fmt: skip
    assert isinstance(make_sampler(config.hydra.sweeper.sampler, 0), optuna.samplers.TPESampler)


def test_the_custom_cnn_search_draws_six_values_at_random_from_their_spaces():
    config = compose_search("custom_cnn_random", "reference_a_cnn")
    space = parse(config).space
    sampler = make_sampler(config.hydra.sweeper.sampler, 0)
    assert isinstance(sampler, optuna.samplers.RandomSampler)
    study = optuna.create_study(sampler=sampler)
    drawn = [suggest(study.ask(), space) for _ in range(200)]
    assert {values["net.filters_1"] for values in drawn} == {16, 32, 64}
    assert {values["net.filters_2"] for values in drawn} == {16, 32, 64}
    assert {values["net.filters_3"] for values in drawn} == set(range(16, 67, 10))
    assert {values["net.dense_units"] for values in drawn} == {32, 64, 128, 256}
    assert {values["trainer.max_epochs"] for values in drawn} == set(range(5, 26))
    assert all(0.1 <= values["net.drop_rate"] <= 0.5 for values in drawn)
    assert all(len(values) == 6 for values in drawn)


def test_every_choice_of_the_custom_cnn_is_searched():
    config = compose_search("custom_cnn_all", "reference_a_cnn")
    space = parse(config).space
    choices = set(inspect.signature(build_custom_cnn).parameters) - {"num_classes", "in_channels"}
    assert {key for key in space if key.startswith("net.")} == {f"net.{choice}" for choice in choices}
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [suggest(study.ask(), space) for _ in range(100)]
    assert {values["net.activation"] for values in drawn} == set(ACTIVATIONS)
    for values in drawn[:10]:
        arguments = {key.removeprefix("net."): value for key, value in values.items() if key.startswith("net.")}
        assert build_custom_cnn(3, **arguments)(torch.zeros(2, 1, 32, 32)).shape == (2, 3)
