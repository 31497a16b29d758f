"""`cxr ensemble`: several runs as one model."""

import argparse
import os
from datetime import datetime
from pathlib import Path

from cxr.parsers.group import Commands


def add(commands: Commands) -> None:
    """Add it to the commands of `cxr`."""
    parser = commands.add_parser("ensemble", help="several runs as one model, which is judged like a run")
    parser.add_argument(
        "sources", nargs="+", type=Path, metavar="RUN", help="run folders, or folders of plan=seeds or plan=cv"
    )
    parser.add_argument(
        "--rule", choices=("soft", "majority", "stack"), default="soft",
        help="mean of probabilities (default), most votes, or a regression learnt from the folds of plan=cv",
    )  # fmt: skip
    parser.add_argument(
        "--weights", metavar="A,B", help="of a soft vote, or 'fit' to choose them on validation (default: equal)"
    )
    parser.add_argument("--snapshots", action="store_true", help="of a run: its kept checkpoints as members")
    parser.add_argument("--test", action="store_true", help="of plan=cv: open the test part that is in no fold")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="default: ensembles/<rule>_<time> in the log folder")
    parser.set_defaults(run=_run_ensemble)


def _run_ensemble(options: argparse.Namespace) -> int:
    from cxr.entry import prepare_environment

    prepare_environment()
    from cxr.commands.ensemble import make_ensemble

    name = f"{options.rule}_{datetime.now():%Y-%m-%d_%H-%M-%S}"
    default = Path(os.environ.get("CXR_LOG_DIR", "logs")) / "ensembles" / name
    out = default if options.out is None else options.out
    made, page = make_ensemble(options.sources, options.rule, options.weights, options.snapshots, options.test, out)
    weights = made["settings"].get("weights", [])
    for index, member in enumerate(made["members"]):
        print(f"member: {member}" + (f", weight {weights[index]:g}" if weights else ""))
    for name, value in made["metrics"].items():
        if name.endswith(("/auroc", "/accuracy")) and "_study" not in name:
            print(f"{name}: {value:.4f}")
    for note in made["notes"]:
        print(f"note: {note}")
    print(f"report: {page}")
    return 0
