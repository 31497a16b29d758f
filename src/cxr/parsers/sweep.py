"""`cxr sweep`: what a search found."""

import argparse
from pathlib import Path

from cxr.parsers.group import Commands, add_group


def add(commands: Commands) -> None:
    """Add it to the commands of `cxr`."""
    actions = add_group(commands, "sweep", "results of hyperparameter sweeps")
    best = actions.add_parser("best", help="parameters and checkpoint of the best trial")
    best.add_argument("folder", type=Path, metavar="FOLDER", help="folder of the sweep, such as logs/sweeps/NAME")
    best.set_defaults(run=_run_sweep_best)


def _run_sweep_best(options: argparse.Namespace) -> int:
    from cxr.experiments.sweep_records import read_best

    best = read_best(options.folder)
    print(f"trial {best.number} of {best.study}: {best.metric} = {best.value:.4f}")
    for key, value in best.params.items():
        print(f"  {key}={value}")
    print(f"checkpoint: {options.folder / best.checkpoint}")
    for name, value in (best.test or {}).items():
        print(f"  {name} = {value:.4f}")
    return 0
