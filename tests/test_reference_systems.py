"""The table of reference systems names every feature once, and every command in it can be given as it stands."""

import ast
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml
from hydra.errors import HydraException
from omegaconf import OmegaConf

from cxr.errors import CxrError

from .told_commands import check_command, check_training, is_command

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "reference_systems.md").read_text()
FEATURES = {"A": 27, "B": 19, "C": 23, "D": 21, "M": 41}
STATES = ("works", "partly", "otherwise", "planned")
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in PAGE.splitlines()
    if re.match(r"\| [A-Z]\d", line)
]
CODE = re.findall(r"`([^`]+)`", PAGE)


@cache
def functions_of(path):
    """The names of all functions of a test file, those in classes too."""
    tree = ast.parse((ROOT / path).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


GROUPS = {folder.name for folder in (ROOT / "configs").iterdir() if folder.is_dir()}


def is_option(code):
    """Whether it is a lone ``group=option``; test_configs.py composes every option there is."""
    return re.fullmatch(r"(\w+)=\w+", code) is not None and code.partition("=")[0] in GROUPS


OPTIONS = sorted(filter(is_option, set(CODE)))
COMMANDS = sorted(code for code in set(CODE) - set(OPTIONS) if is_command(code))


def test_every_feature_has_one_row():
    expected = [f"{system}{number:02}" for system, count in FEATURES.items() for number in range(1, count + 1)]
    assert [row[0] for row in ROWS] == expected


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_a_row_says_its_state_its_command_and_its_test(row):
    _, feature, command, tests, state = row
    word, _, reason = state.partition(": ")
    assert word in STATES
    assert feature
    assert (word in ("partly", "otherwise")) == bool(reason)
    assert ((command, tests) == ("—", "—")) == (word == "planned")
    for test in re.findall(r"`([^`]+)`", tests):
        path, name = test.split("::")
        assert (ROOT / path).is_file(), path
        assert name in functions_of(path), test


def test_only_tests_are_named_as_tests():
    cells = [cell for _, _, _, tests, _ in ROWS for cell in tests.split(", ") if cell != "—"]
    assert all(re.fullmatch(r"`tests/[\w/]+\.py::test_\w+`", cell) for cell in cells)


@pytest.mark.parametrize("code", OPTIONS)
def test_an_option_that_is_named_exists(code):
    group, _, option = code.partition("=")
    assert (ROOT / "configs" / group / f"{option}.yaml").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("code", COMMANDS)
def test_a_command_can_be_given_as_it_stands(code):
    check_command(code)


@pytest.mark.parametrize(
    "code",
    [
        "net=vgg17", "optimizer.lrr=1", "data.fractions=[0.7,0.3]", "python train.py experiment=nothing",
        "plan=automl plan.families=[svn]", "plan=cv plan.fold=5", "python run.py -m optimizer.lr=0.1,0",
        "cxr data report data=nothing", "cxr evaluate RUN --require 'accuracy above 0.8'",
    ],
)  # fmt: skip
def test_a_command_that_cannot_be_given_is_found(code):
    assert is_command(code)
    with pytest.raises((HydraException, CxrError)):
        check_command(code)


@pytest.mark.parametrize("code", ["cxr nothing", "cxr serve --bundle RUN --port x", "cxr export RUN --phone"])
def test_a_word_that_cxr_does_not_know_is_found(code, capsys):
    with pytest.raises(SystemExit, match="^2$"):
        check_command(code)
    assert "usage: cxr" in capsys.readouterr().err


def test_targets_of_make_that_are_named_exist():
    targets = {found for code in CODE for found in re.findall(r"^make ([\w-]+)", code)}
    assert targets
    assert targets <= set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))


def header_commands(name):
    """What the header of a recipe says to type, without the remarks beside it."""
    text = (ROOT / "configs" / "experiment" / f"{name}.yaml").read_text()
    header = "\n".join(line[1:].strip() for line in text.splitlines() if line.startswith("#")).replace("\\\n", "")
    found = re.findall(r"(?:python (?:train|run)\.py|cxr \w+)[^`\n]*", header)
    return [re.split(r"\s{3,}", code.strip())[0] for code in found]


RECIPE_NAMES = sorted(path.stem for path in (ROOT / "configs" / "experiment").glob("[!_]*.yaml"))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "code"), [(name, code) for name in RECIPE_NAMES for code in header_commands(name)])
def test_the_commands_in_the_header_of_a_recipe_can_be_given(name, code):
    check_command(code)


@pytest.mark.parametrize("name", RECIPE_NAMES)
def test_a_recipe_says_how_to_start_it(name):
    starts = [shlex.split(code)[2:3] for code in header_commands(name)]
    assert ([] if name == "template" else [f"experiment={name}"]) in starts


def test_files_that_are_named_exist():
    scripts = {word for code in CODE for word in code.split() if re.fullmatch(r"[\w/]+\.(py|ipynb)", word)}
    links = {target.partition("#")[0] for target in re.findall(r"\]\(([^)]+)\)", PAGE) if "://" not in target}
    assert {"train.py", "benchmarks/samples_table.py", "notebooks/1_explore_data.ipynb"} <= scripts
    assert all((ROOT / name).is_file() for name in scripts)
    assert all((ROOT / "docs" / name).is_file() for name in links)


NET_B = {
    "net.name": "custom_cnn", "net.batch_norm": False, "optimizer._target_": "torch.optim.SGD", "optimizer.lr": 0.05,
    "data.batch_size": 20, "trainer.max_epochs": 1, "preprocess.size": [224, 224], "scheduler._target_": None,
    "loss._target_": "cxr.training.losses.make_cross_entropy", "loss.class_weights": "none",
}  # fmt: skip
RECIPES = {
    "reference_a_automl": {
        "data.reader.dataset": "covid19", "plan.name": "automl", "plan.features": "pixels", "plan.featurize": False,
        "plan.size": [100, 130], "plan.budget_minutes": 45, "plan.max_cores": 3,
    },
    "reference_a_cnn": {
        "net.name": "custom_cnn", "preprocess.size": [256, 256], "preprocess.channels": 1, "trainer.max_epochs": 25,
    },
    "reference_b_cnn": NET_B,
    "reference_b_ovr": NET_B | {"plan.name": "ovr"},
    "reference_c_resnet50v2": {
        "net.architecture": "resnetv2_50", "net.head.hidden": 128, "net.head.activation": "relu",
        "sampler.mode": "downsample", "monitor.metric": "val/loss", "monitor.mode": "min", "optimizer.lr": 1e-4,
        "scheduler._target_": "cxr.training.schedulers.make_plateau",
    },
    "reference_c_coatnet": {
        "net.architecture": "coatnet_0_rw_224", "net.head.hidden": 128, "net.head.dropout": 0.2,
    },
    "reference_d_vgg16": {
        "net.architecture": "vgg16", "optimizer._target_": "torch.optim.Adam", "optimizer.lr": 1e-4,
        "scheduler._target_": "cxr.training.schedulers.make_inverse_time", "scheduler.decay": 1e-5,
        "sampler.mode": "oversample", "transfer.pretrained_upto": "features.23",
    },
    "reference_d_mobilenet": {
        "net.architecture": "mobilenetv3_large_100", "transfer.pretrained_upto": "blocks.4", "scheduler.decay": 1e-5,
        "optimizer._target_": "torch.optim.Adam", "optimizer.lr": 1e-4, "sampler.mode": "oversample",
    },
    "reference_m_binary": {
        "net.name": "xrv_densenet121", "net.weights": "all", "data.limit": 3350, "data.fractions": [0.7, 0.2, 0.1],
        "data.scheme": "binary", "data.batch_size": 156, "optimizer.lr": 3e-4, "optimizer.amsgrad": True,
        "augment.rotation": 11.355, "augment.vertical_flip": 0.5, "sampler.balance_all": True,
    },
    "reference_m_4class": {
        "data.scheme": "4class", "data.limit": None, "data.fractions": [0.7, 0.2, 0.1], "data.batch_size": 156,
        "optimizer.lr": 3e-4, "trainer.max_epochs": 1000, "data.view_filter": "single_image_study",
    },
}  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_have_the_values_of_their_systems(name):
    """By the first command in its header."""
    (config,) = check_command(header_commands(name)[0])
    assert {key: OmegaConf.select(config, key) for key in RECIPES[name]} == RECIPES[name]


def test_every_recipe_of_a_system_is_held_to_its_values():
    assert {one for one in RECIPE_NAMES if one.startswith("reference_") and not one.endswith("_best")} == set(RECIPES)


def test_each_policy_of_augmentation_is_a_recipe_of_its_own():
    policies = sorted(path.stem for path in (ROOT / "configs" / "augment").glob("*.yaml"))
    words = {one: ["experiment=demo", "plan=seeds", f"augment={one}", f"run_name={one}"] for one in policies}
    configs = {one: check_training("run", words[one])[0] for one in policies}
    assert {one: config.run_name for one, config in configs.items()} == {one: one for one in policies}
    assert len({str(config.augment) for config in configs.values()}) == len(policies) > 2
    assert all(config.plan.seeds == [0, 1, 2] for config in configs.values())


def test_the_card_of_chest_xray_tells_whose_images_they_are():
    card = (ROOT / "data" / "README.md").read_text().partition("\n## chest_xray\n")[2].partition("\n## ")[0]
    for told in (
        "one hospital",
        "children of one to five years",
        "not the NIH dataset",
        "5216 train, 16 val, 624 test",
    ):
        assert told in " ".join(card.split())


@pytest.mark.slow
def test_a_grid_of_learning_rates_is_a_run_for_each(tiny, tmp_path):
    words = ["-m", *tiny, "trainer.max_epochs=1", f"paths.log_dir={tmp_path}/logs", "optimizer.lr=1e-3,5e-4"]
    subprocess.run(
        [sys.executable, str(ROOT / "run.py"), *words], cwd=ROOT, check=True, capture_output=True, timeout=300
    )
    runs = [path.parents[1] for path in (tmp_path / "logs").rglob("bundle/bundle.json")]
    rates = [yaml.safe_load((run / "config.yaml").read_text())["optimizer"]["lr"] for run in runs]
    assert sorted(rates) == [5e-4, 1e-3]
