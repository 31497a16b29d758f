"""Commands as the documentation tells them, held to what would carry them out: configs are composed, options parsed.

Starts nothing, and knows nothing of what a command does with its images.
"""

import re
import shlex
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf, open_dict

from cxr.cli import make_parser, parse
from cxr.entry import prepare_environment
from cxr.evaluation.goals import parse_goal
from cxr.training.config_rules import check_config

ROOT = Path(__file__).parents[1]
OVERRIDE = re.compile(r"\+{0,2}[\w./@]+=.*|~[\w./@]+", re.DOTALL)
GIVEN_BY_HYDRA = ("paths.output_dir=somewhere", "run_name=told", "study_name=told")


def is_command(code):
    """Whether words in code font are for train.py, run.py or cxr."""
    words = shlex.split(code)
    return words[0] == "cxr" or words[:2] in (["python", "train.py"], ["python", "run.py"]) or all(
        OVERRIDE.fullmatch(word) for word in words
    )  # fmt: skip


def check_command(code):
    """Raise what would stop a command before it opens its first file; returns the configs that train.py would get."""
    words = shlex.split(code)
    if words[0] == "cxr":
        return check_cxr(words[1:])
    if words[0] == "python":
        return check_training(Path(words[1]).stem, words[2:])
    return check_training("run" if any(word.startswith("plan") for word in words) else "train", words)


def check_cxr(words):
    options = parse(make_parser(), words)
    for goal in getattr(options, "require", ()):
        parse_goal(goal)
    return check_training("train", options.overrides) if getattr(options, "overrides", ()) else []


def check_training(root, words):
    """Of a grid the first and the last run are composed."""
    arguments = get_args_parser().parse_args(words)
    if not arguments.multirun:
        return [checked(root, arguments.overrides)]
    lines = OverridesParser.create().parse_overrides(arguments.overrides)
    return [checked(root, [pick(line, place) for line in lines]) for place in (0, -1)]


def pick(override, place):
    if not override.is_sweep_override():
        return override.input_line
    return f"{override.key_or_group}={list(override.sweep_string_iterator())[place]}"


def checked(root, words):
    """The config, whose values, plan and search can be."""
    prepare_environment()
    with initialize_config_dir(str(ROOT / "configs")):
        config = compose(root, [*GIVEN_BY_HYDRA, *words], return_hydra_config=True)
    sweeper = config.hydra.sweeper
    with open_dict(config):
        del config["hydra"]
    check_config(config)
    if "plan" in config:
        check_plan(config)
    if sweeper.get("params"):
        check_search(config, OmegaConf.to_container(sweeper.params))
    return config


def check_plan(config):
    from cxr.experiments.plan_run import check_recipe, make_plan

    check_recipe(config)
    make_plan(OmegaConf.to_container(config.plan, resolve=True))


def check_search(config, params):
    from cxr.experiments.sweep_config import parse_search

    for key in parse_search(params, []).space:
        assert OmegaConf.select(config, key) is not None, key
