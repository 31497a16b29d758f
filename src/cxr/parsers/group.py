"""What the parsers of commands share."""

import argparse
from pathlib import Path
from typing import TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

ENGINES = ("onnx", "int8", "torch")
OVERRIDES_HELP = "as for train.py, such as data=chest_xray data.root=PATH; a recipe's data.limit does not count"


def add_group(commands: Commands, name: str, description: str) -> Commands:
    """A command that has commands itself."""
    group = commands.add_parser(name, help=description)
    return group.add_subparsers(title="commands", metavar="COMMAND", required=True)


def add_finished_run(parser: argparse.ArgumentParser) -> None:
    """The arguments of what looks at a finished run once more: its folder, and what has changed since."""
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="folder of a finished run")
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="config values that changed: data.root=PATH")
