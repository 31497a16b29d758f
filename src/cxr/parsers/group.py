"""What the parsers of commands share."""

import argparse
from typing import TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

ENGINES = ("onnx", "int8", "torch")
OVERRIDES_HELP = "as for train.py, such as data=chest_xray data.root=PATH; a recipe's data.limit does not count"


def add_group(commands: Commands, name: str, description: str) -> Commands:
    """A command that has commands itself."""
    group = commands.add_parser(name, help=description)
    return group.add_subparsers(title="commands", metavar="COMMAND", required=True)
