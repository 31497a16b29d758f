"""`cxr reproduce`: a run once more."""

import argparse
from pathlib import Path

from cxr.parsers.group import Commands


def add(commands: Commands) -> None:
    """Add it to the commands of `cxr`."""
    parser = commands.add_parser("reproduce", help="train a run again from what it stored: are the numbers the same")
    parser.add_argument("folder", type=Path, metavar="RUN", help="a finished run, such as logs/runs/NAME/TIME")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="the new run folder (default: beside the old one)")
    parser.set_defaults(run=_run_reproduce, after_interrupt="the new run folder can be deleted")


def _run_reproduce(options: argparse.Namespace) -> int:
    from cxr.entry import prepare_environment

    prepare_environment()
    from cxr.experiments.reproduce import reproduce

    result = reproduce(options.folder, options.out)
    print(result.to_text())
    return 0 if result.is_same else 1
