"""The table of reference systems names every feature once, and nothing that does not exist."""

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from cxr.cli import main
from cxr.entry import prepare_environment

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


def named_options():
    """Every ``group=option`` of the page whose group is a folder of configs."""
    groups = {folder.name for folder in (ROOT / "configs").iterdir() if folder.is_dir()}
    pairs = {tuple(word.split("=", 1)) for code in CODE for word in code.split() if re.fullmatch(r"\w+=\w+", word)}
    return sorted((group, option) for group, option in pairs if group in groups)


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


@pytest.mark.parametrize(("group", "option"), named_options())
def test_an_option_that_is_named_exists(group, option):
    assert (ROOT / "configs" / group / f"{option}.yaml").is_file()


@pytest.mark.parametrize("words", sorted({found for code in CODE for found in re.findall(r"^cxr (\w+)", code)}))
def test_a_command_that_is_named_exists(words, capsys):
    with pytest.raises(SystemExit, match="^0$"):
        main([words, "--help"])
    assert f"usage: cxr {words}" in capsys.readouterr().out


def test_files_that_are_named_exist():
    scripts = {word for code in CODE for word in code.split() if re.fullmatch(r"[\w/]+\.(py|ipynb)", word)}
    links = {target.partition("#")[0] for target in re.findall(r"\]\(([^)]+)\)", PAGE) if "://" not in target}
    assert {"train.py", "benchmarks/samples_table.py", "notebooks/1_explore_data.ipynb"} <= scripts
    assert all((ROOT / name).is_file() for name in scripts)
    assert all((ROOT / "docs" / name).is_file() for name in links)


RECIPES = {
    "reference_a_cnn": {
        "net.name": "custom_cnn", "preprocess.size": [256, 256], "preprocess.channels": 1, "trainer.max_epochs": 25,
    },
    "reference_b_cnn": {
        "optimizer._target_": "torch.optim.SGD", "optimizer.lr": 0.05, "data.batch_size": 20, "trainer.max_epochs": 1,
        "preprocess.size": [224, 224], "loss._target_": "cxr.training.losses.make_cross_entropy",
        "loss.class_weights": "none", "scheduler._target_": None,
    },
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
    "reference_d_mobilenet": {"transfer.pretrained_upto": "blocks.4", "scheduler.decay": 1e-5},
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
    prepare_environment()
    with initialize_config_dir(str(ROOT / "configs")):
        config = compose("train", [f"experiment={name}", "paths.output_dir=somewhere", "run_name=name"])
    assert {key: OmegaConf.select(config, key) for key in RECIPES[name]} == RECIPES[name]


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
