"""The command `cxr`: for people with images. Each sub-command is a parser and a function elsewhere.

Importing this module, and `cxr --help`, import neither torch nor any dataset reader: handlers import what they need.
"""

import argparse
import logging
import os
import shlex
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dotenv import load_dotenv

from cxr import __version__
from cxr.errors import NO_SPACE, CxrError
from cxr.parsers import (
    compare,
    data,
    doctor,
    ensemble,
    evaluate,
    explain,
    export,
    predict,
    reproduce,
    serve,
    stress,
    sweep,
)

COMMANDS = (doctor, data, evaluate, compare, explain, predict, ensemble, stress, export, sweep, reproduce, serve)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one `cxr` command.

    Args:
        arguments: Words after `cxr`; None takes them from the command line.

    Returns:
        0 on success, 1 (of predict 2) after an error told in one sentence on stderr, 130 after Ctrl-C.
    """
    load_dotenv(Path.cwd() / ".env")
    words = sys.argv[1:] if arguments is None else list(arguments)
    options = parse(make_parser(), words)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            return int(options.run(options))
    except CxrError as error:
        print(f"error: {error}", file=sys.stderr)
        return int(options.exit_after_error)
    except KeyboardInterrupt:
        print(f"stopped; {options.after_interrupt}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        remedy = "free some, or choose another folder with --out"
        print(f"error: no space left on the disk ({error.strerror}); {remedy}", file=sys.stderr)
        return 1


def parse(parser: argparse.ArgumentParser, words: Sequence[str]) -> argparse.Namespace:
    """The options, and the line as `command`; overrides may stand before and after options, which argparse refuses."""
    options, rest = parser.parse_known_args(words)
    unknown = [word for word in rest if word.startswith("-") or "overrides" not in options]
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if rest:
        options.overrides = [*options.overrides, *rest]
    options.command = shlex.join(["cxr", *words])
    return options


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """What `warnings.showwarning` is set to: the sentence, as the log tells it, without a line of code."""
    logging.getLogger("cxr").warning("%s", message)


def make_parser() -> argparse.ArgumentParser:
    """The parser of `cxr` with all sub-commands; parsed options carry the handler as `run`."""
    parser = argparse.ArgumentParser(prog="cxr", description="Chest X-ray classification whose worth is shown.")
    parser.add_argument("--version", action="version", version=f"cxr {__version__}")
    parser.set_defaults(after_interrupt="nothing was left half done", exit_after_error=1)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
